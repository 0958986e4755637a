#include "store/group.h"

#include <algorithm>

#include "store/compaction.h"
#include "store/image.h"
#include "store/recovery.h"
#include "store/repair.h"
#include "store/scrub.h"
#include "tandem/base/log.h"

namespace tandem::store {

using format::RecordHeader;
using format::RecordType;

Group::Group(Pool& pool, const format::Anchor& anchor)
    : pool_(pool),
      runtime_(pool.runtime()),
      device_(pool.device()),
      cache_(pool.cache()),
      slot_(anchor.slot),
      id_(anchor.group),
      space_(pool.superblock()),
      dead_chunks_(pool.device(), space_, anchor.group),
      dead_(dead_chunks_),
      log_(pool.superblock()),
      recent_(pool.options().recent_bytes_max),
      opened_(runtime_.clock.utc()),
      repair_(std::make_unique<Repair>(*this)),
      scrub_(std::make_unique<Scrub>(*this)),
      compaction_(std::make_unique<Compaction>(*this)) {
  boot_ = runtime_.random.next();
}

Group::~Group() = default;

Task<Result<std::shared_ptr<Group>>> Group::create(Pool& pool, format::Anchor anchor,
                                                   std::string name, Role role,
                                                   ReplicationMode mode) {
  if (name.empty() || name.size() > format::kVolumeNameBytesMax) {
    co_return Error{ErrorCode::kInvalid, "a group's name must have 1 to 128 bytes"};
  }
  std::shared_ptr<Group> group(new Group(pool, anchor));
  group->name_ = std::move(name);
  group->role_ = role;
  group->mode_ = mode;
  group->history_.push_back({Timeline{1}, Lsn{0}, pool.runtime().clock.utc()});
  co_return co_await create(pool, std::move(group), anchor);
}

/// Gives it space, and its first checkpoint.
Task<Result<std::shared_ptr<Group>>> Group::create(Pool& pool, std::shared_ptr<Group> group,
                                                   const format::Anchor& anchor) {
  group->anchor_sequence_ = anchor.sequence;
  // One zone for the log, one to go on in, one for data and maps.
  std::vector<ZoneId> zones;
  Status failed = ok();
  while (zones.size() < 3 && failed) {
    auto zone = co_await pool.take_zone(group->slot_);
    if (zone) {
      zones.push_back(*zone);
    } else {
      failed = std::move(zone.error());
    }
  }
  if (failed) {
    group->log_.restore({{zones[0], group->head_.lsn.next()}},
                        pool.superblock().zone_start(zones[0]));
    group->log_.give_spare(zones[1]);
    group->space_.add_zone(zones[2]);
    failed = co_await group->checkpoint();
  }
  if (!failed) {
    co_await group->close(Close::kAbandon);
    Status returned = co_await pool.return_zones(group->slot_, std::move(zones));
    if (!returned) co_return Error(std::move(returned.error()));
    co_return Error(std::move(failed.error()));
  }
  group->start_background();
  co_return group;
}

Task<Result<std::shared_ptr<Group>>> Group::open(Pool& pool, format::Anchor anchor) {
  std::shared_ptr<Group> group(new Group(pool, anchor));
  Recovery recovery(*group, anchor);
  Status recovered = co_await recovery.run();
  if (!recovered) {
    co_await group->close(Close::kAbandon);
    co_return Error(std::move(recovered.error()));
  }
  group->start_background();
  co_return group;
}

format::Anchor Group::anchor_of_nothing() const {
  format::Anchor anchor;
  anchor.slot = slot_;
  anchor.sequence = anchor_sequence_ + 1;
  return anchor;
}

void Group::serve(bool on) {
  CHECK(!on || role_ == Role::kPrimary);
  serving_ = on && !stopped_ && !closing_;
}

void Group::admit(Admits what) {
  admits_ = stopped_ || closing_ ? Admits::kAll : what;
  admitted_.notify_all();
}

Task<void> Group::until_admitted(bool change) {
  while (holds(change)) co_await admitted_.wait();
}

Task<Status> Group::set_role(Role role, Timeline fenced_by) {
  auto hold = gate_.hold();
  role_ = role;
  fenced_by_ = fenced_by;
  if (role != Role::kPrimary) {
    // Before anything else runs: no write that waits may still be acknowledged.
    ++reign_;
    serving_ = false;
    remote_ = RemoteAck{};
    fail_waiting(refusal());
    remote_changed_.notify_all();
    applied_.notify_all();  // what was queued will not come
    if (role == Role::kFenced) admit(Admits::kAll);
  }
  co_return co_await checkpoint();
}

Task<Status> Group::set_mode(ReplicationMode mode) {
  mode_ = mode;
  co_return co_await checkpoint();
}

Task<Status> Group::set_slots(std::vector<format::SlotState> slots) {
  slots_ = std::move(slots);
  co_return co_await checkpoint();
}

Task<Status> Group::set_settings(format::Settings settings) {
  settings_ = std::move(settings);
  co_return co_await checkpoint();
}

void Group::note_slot(const format::SlotState& now) {
  for (auto& slot : slots_) {
    if (slot.address == now.address) slot = now;
  }
}

bool Group::slot_is_kept(std::string_view address) const {
  const auto is_it = [&](const format::SlotState& slot) { return slot.address == address; };
  const auto& kept = last_checkpoint_.slots;
  const auto now = std::find_if(slots_.begin(), slots_.end(), is_it);
  const auto then = std::find_if(kept.begin(), kept.end(), is_it);
  return now == slots_.end() || (then != kept.end() && *then == *now);
}

/// Above every one that this copy knows, also those of tails that were abandoned here: no two
/// timelines of a copy have one number.
Timeline Group::timeline_above(Timeline above) const {
  Timeline newest = std::max({tail_.timeline, above, fenced_by_});
  for (const auto& fork : history_) newest = std::max(newest, fork.timeline);
  for (const auto& [id, snapshot] : snapshots_) {
    newest = std::max(newest, snapshot->state.at.timeline);
  }
  return newest.next();
}

std::vector<std::byte> Group::timeline_record(Timeline timeline) {
  RecordHeader header{.type = RecordType::kTimeline};
  std::vector<std::byte> canonical(format::kRecordHeaderBytes + 8);
  format::Encoder out(canonical);
  format::encode_timeline(out, header, timeline);
  return canonical;
}

Task<Result<LogPoint>> Group::raise_timeline() {
  auto hold = gate_.hold();
  if (!serving_ || reverting_) co_return refusal();
  const Timeline timeline = timeline_above(Timeline{});
  // Not acknowledged as a write is: a policy may hold writers until the very mirror follows that
  // only this record brings back.
  Pending pending;
  pending.canonical = timeline_record(timeline);
  enqueue(std::move(pending));
  while (serving_ && history_.back().timeline != timeline) co_await applied_.wait();
  if (history_.back().timeline != timeline) co_return refusal();
  const Lsn at = history_.back().fork.next();
  Status durable = co_await flush_local_to(at);
  if (!durable) co_return Error(std::move(durable.error()));
  log_event(Level::kWarn, "group.timeline-raised", "group={} timeline={} lsn={}", name_,
            timeline.value, at.value);
  co_return head_;
}

Task<Result<LogPoint>> Group::start_timeline(Timeline above) {
  auto hold = gate_.hold();
  if (stopped_ || closing_) co_return refusal();
  co_await wait_queue_applied();
  if (awaiting_image()) {
    co_return Error{
        ErrorCode::kRefused,
        "group " + name_ + " never received its first full copy: there is nothing here to promote"};
  }
  const Timeline timeline = timeline_above(above);
  // The old primary parted here, and another mirror may have less: they follow without a full copy
  // if the log is kept, until they have slots (expect_nobody_else).
  unnamed_hold_ = std::max(log_start(), std::min(tail_.lsn, rejoin_floor().value_or(tail_.lsn)));
  hold_.reset();
  role_ = Role::kPrimary;
  fenced_by_ = Timeline{};
  auto logged = co_await append_control(timeline_record(timeline));
  if (!logged) {
    unnamed_hold_.reset();
    co_return Error(std::move(logged.error()));
  }
  Status kept = co_await checkpoint();
  if (!kept) co_return Error(std::move(kept.error()));
  log_event(Level::kInfo, "group.promoted", "group={} timeline={} lsn={}", name_, timeline.value,
            head_.lsn.value);
  co_return head_;
}

GroupUse Group::use() const {
  GroupUse use;
  const std::uint64_t zone = pool_.superblock().zone_blocks;
  const auto books_of = [](const DeadChain& c) { return c.chunks + (c.tail.value != 0 ? 1 : 0); };
  for (const auto& [id, volume] : volumes_) {
    use.data_blocks += volume->state.data_blocks - volume->state.borrowed_data;
    use.map_blocks += volume->state.map_nodes - volume->state.borrowed_nodes;
  }
  use.dead_blocks = dead_.waiting();
  use.snapshot_blocks = kept_blocks();
  use.book_blocks =
      descriptor_blocks_.size() + bitmap_.size() + books_of(dead_.queue()) + books_of(held_);
  if (image_target_) use.map_blocks += image_target_->nodes.size();
  if (point_target_) use.map_blocks += point_target_->nodes.size();
  for (const auto& [id, snapshot] : snapshots_) {
    use.book_blocks += books_of(snapshot->state.held);
  }
  // What a running checkpoint has released already and these still count is among the freed ones.
  const auto known =
      use.data_blocks + use.dead_blocks + use.snapshot_blocks + use.book_blocks + use.map_blocks;
  const auto used = space_.used_blocks();
  use.moving_blocks = used > known ? used - known : 0;
  const auto ahead = known > used ? known - used : 0;
  use.freed_blocks = space_.held_blocks() - std::min(space_.held_blocks(), ahead);
  use.free_blocks = free_blocks();
  const auto log_zones = log_.zones().size() + (log_.has_spare() ? 1 : 0);
  use.log_blocks = log_.pages();
  use.log_rest_blocks = log_zones * zone - use.log_blocks;
  use.zones = space_.zone_count() + log_zones;
  return use;
}

}  // namespace tandem::store
