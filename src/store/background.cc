// What a group does on its own: flush a tail that nobody flushes, checkpoint in time, delete
// volumes.
#include "store/compaction.h"
#include "store/group.h"
#include "store/scrub.h"
#include "tandem/base/log.h"

namespace tandem::store {
namespace {

/// Less is not worth a checkpoint, also in a pool that is nearly full.
constexpr std::uint64_t kZonesOfDeadMin = 4;

}  // namespace

void Group::start_background() { schedule_tick(); }

void Group::schedule_tick() {
  // At multiples of the interval: all groups of a pool in one turn.
  const Nanoseconds interval = pool_.options().flush_interval;
  const auto past = runtime_.clock.monotonic() % interval;
  tick_timer_ = runtime_.executor.schedule_after(interval - past, [this] {
    tick_timer_ = 0;
    if (closing_) return;
    spawn(tick());
  });
}

Task<void> Group::tick() {
  auto hold = gate_.hold();
  supply_if_low();
  log_streams_.drop_idle();
  if (!stopped_ && durable_ < head_.lsn) (void)co_await flush_local_to(head_.lsn);
  if (!stopped_ && (checkpoint_is_due() || mark_is_due())) co_await checkpoint_in_background();
  while (!stopped_ && !closing_ && reaps_snapshots()) {
    co_await checkpoint_in_background();
  }
  if (has_doomed_volumes()) reap_deleted_soon();
  schedule_pump();  // another group's checkpoint may have made room
  if (!closing_) schedule_tick();
}

/// Overwritten blocks can be reused behind a checkpoint: well before what is free runs out, so that
/// no writer has to wait for it, nor for the other copies, which free what this one's checkpoint
/// has left behind only when they are told.
bool Group::has_much_to_free() const {
  const std::uint64_t zone = pool_.superblock().zone_blocks;
  const std::uint64_t left = available() + pool_.zones_free() * zone;
  return dead_.recent() > std::max(kZonesOfDeadMin * zone, left / 2);
}

/// Before the dead are a quarter of the living, so that zones without holes are left for long
/// writes. Where other copies follow, they stay for about three marks more; so many marks cost
/// small writes a tenth, so they are for long ones. What a history still needs would stay all the
/// same.
bool Group::has_many_dead() const {
  const std::uint64_t zone = pool_.superblock().zone_blocks;
  const std::uint64_t dead = dead_.recent();
  const bool has_followers = rejoin_floor().has_value();
  if (dead <= std::max(kZonesOfDeadMin * zone, space_.used_blocks() / (has_followers ? 16 : 5)))
    return false;
  if (has_followers && space_.long_blocks() < dead / 2) return false;
  return history_policy_ && history_policy_->window <= Nanoseconds{0};
}

/// Bounds log replay after a crash, and the memory that dirty leaves take.
bool Group::checkpoint_is_due() const {
  return log_pages_since_checkpoint_ >= pool_.options().checkpoint_log_pages ||
         cache_.dirty_leaves(static_cast<std::uint16_t>(slot_)) > cache_.capacity_nodes() / 2 ||
         is_held_back() || has_much_to_free() || has_many_dead();
}

void Group::checkpoint_soon() {
  if (checkpoint_asked_ || closing_) return;
  checkpoint_asked_ = true;
  spawn(checkpoint_in_background());
}

Task<void> Group::checkpoint_in_background() {
  auto hold = gate_.hold();
  const bool for_space = has_much_to_free() || has_many_dead();
  Status done = co_await checkpoint();
  // What marks held is free once they are taken apart, which the next ones do.
  while (done && for_space && !stopped_ && !closing_ && reaps_snapshots())
    done = co_await checkpoint();
  checkpoint_asked_ = false;
  if (!done && !stopped_) {
    log_event(Level::kWarn, "checkpoint.failed", "group={} error=\"{}\"", name_,
              done.error().message);
  }
}

Task<void> Group::close(Close how) {
  if (closing_) co_return;
  serving_ = false;
  while (!stopped_ && (!queue_.empty() || !in_flight_.empty())) co_await applied_.wait();
  scrub_->suspend();  // the checkpoint holds how far it came
  compaction_->suspend();
  if (how == Close::kCheckpoint && !stopped_) (void)co_await checkpoint();
  closing_ = true;
  if (tick_timer_ != 0) runtime_.executor.cancel(tick_timer_);
  append_listener_ = nullptr;
  abandon_install();
  fail_waiting(refusal());
  applied_.notify_all();
  remote_changed_.notify_all();
  space_news_.notify_all();
  admit(Admits::kAll);
  wake_snapshot_readers();
  co_await gate_.close();
  // Pages that came back behind a snapshot which nothing froze any more: a front end may hold this
  // group longer than the cache lives whose nodes they pin.
  in_flight_.clear();
  end_image();
  cache_.drop_group(static_cast<std::uint16_t>(slot_));
}

}  // namespace tandem::store
