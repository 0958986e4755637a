// The horizon: what died up to there can be let go, and the log too, because neither another copy
// nor the history can ask for it any more. It follows what the copies of a group tell each other.
#include <algorithm>

#include "store/group.h"
#include "tandem/port/wait.h"

namespace tandem::store {

namespace {

/// A few heartbeats: copies that follow each other have told by then what they need no more.
constexpr Nanoseconds kPatience = std::chrono::seconds(3);

}  // namespace

/// If the other copies hold `others`, and a return needs `floor`.
Lsn Group::horizon(std::optional<Lsn> others, std::optional<Lsn> floor) const {
  Lsn horizon = std::min(head_.lsn, others.value_or(head_.lsn));
  if (const auto start = history_start(floor)) horizon = std::min(horizon, *start);
  return horizon;
}

std::optional<Lsn> Group::lowest_hold() const {
  if (!hold_ || !unnamed_hold_) return hold_ ? hold_ : unnamed_hold_;
  return std::min(*hold_, *unnamed_hold_);
}

/// A primary that lost its tail in a crash takes it from its mirror, so a mirror keeps what its
/// primary does not hold durably. A fenced copy dials nobody, so no slot tells what it needs:
/// promoted again, or gone back to where it parted, this copy needs the log as it is.
std::optional<Lsn> Group::others_hold() const {
  if (role_ == Role::kFenced) return log_start();
  const auto hold = lowest_hold();
  if (role_ != Role::kMirror) return hold;
  return std::min(hold.value_or(primary_durable_), primary_durable_);
}

void Group::set_log_hold(std::optional<Lsn> from) {
  hold_ = from;
  if (awaits_others_) space_news_.notify_all();
}

void Group::set_primary_durable(Lsn durable, Lsn everywhere) {
  primary_durable_ = durable;
  durable_everywhere_ = everywhere;
  // Only what is still there: a pool that was full has let the rest go.
  hold_.reset();
  unnamed_hold_.reset();
  if (everywhere >= log_start()) hold_ = everywhere;
  if (awaits_others_) space_news_.notify_all();
}

/// Only they keep something, and they have not been waited for in vain since they last told.
bool Group::may_wait_for_others() const {
  const auto others = others_hold();
  if (!others || others == awaited_in_vain_) return false;
  const auto floor = rejoin_floor();
  return horizon() < horizon(std::nullopt, floor ? std::optional(head_.lsn) : floor);
}

/// Until they hold more durably than they did, or there is room all the same. Asks for it.
Task<void> Group::wait_for_others() {
  const auto others = others_hold();
  const Lsn before = horizon();
  const Nanoseconds end = runtime_.clock.monotonic() + kPatience;
  awaits_others_ = true;
  if (append_listener_) append_listener_();
  Status flushed = co_await flush_local_to(head_.lsn);  // they wait for this copy, too
  const auto lasts = [&] {
    return flushed && !stopped_ && !closing_ && !has_room() && horizon() <= before;
  };
  for (auto now = runtime_.clock.monotonic(); lasts() && now < end;
       now = runtime_.clock.monotonic()) {
    co_await wait_at_most(runtime_.executor, space_news_, end - now);
  }
  awaits_others_ = false;
  if (lasts()) awaited_in_vain_ = others;
}

}  // namespace tandem::store
