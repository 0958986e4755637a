#include "replication/ack_policy.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>
#include <utility>

namespace tandem::replication {
namespace {

constexpr std::size_t kMarksMax = 4096;
constexpr double kThrottleFrom = 0.75;
constexpr Nanoseconds kDelayAtBound = std::chrono::milliseconds(100);
constexpr Nanoseconds kDelayMax = std::chrono::seconds(1);
/// A condition that was met is over only when it was not met for so long: at the bound it comes and
/// goes with each acknowledgement, and nobody wants to read that.
constexpr Nanoseconds kCalm = std::chrono::seconds(1);
/// Throttled writes are released in steps of at least this.
constexpr Nanoseconds kStep = std::chrono::milliseconds(1);
/// Reasons with numbers are not written anew at every acknowledgement.
constexpr Nanoseconds kReasonAge = std::chrono::milliseconds(100);

void tighten(std::optional<Lsn>& bound, Lsn to) { bound = bound ? std::min(*bound, to) : to; }

void sooner(std::optional<Nanoseconds>& at, Nanoseconds other) {
  at = at ? std::min(*at, other) : other;
}

double seconds(Nanoseconds d) { return std::chrono::duration<double>(d).count(); }

std::string size_text(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  const char* unit = "KiB";
  double value = static_cast<double>(bytes) / 1024;
  for (const char* next : {"MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

/// What it means for writers: the more, the worse.
int hardness(std::string_view state) {
  constexpr std::string_view kStates[] = {"normal", "degraded", "throttled", "stalled", "blocked"};
  return static_cast<int>(std::find(std::begin(kStates), std::end(kStates), state) -
                          std::begin(kStates));
}

bool promises_sync(const SlotGate& slot) { return slot.mode == ReplicationMode::kSync; }

std::string why(const SlotGate& slot) {
  return slot.reason.empty() ? std::string(slot.name)
                             : fmt::format("{} ({})", slot.name, slot.reason);
}

}  // namespace

RemoteAck remote_ack(std::span<const SlotGate> slots) {
  RemoteAck ack;
  for (const SlotGate& slot : slots) {
    if (!slot.gating || slot.mode == ReplicationMode::kAsync) continue;
    if (slot.mode == ReplicationMode::kSync) tighten(ack.written, slot.written);
    tighten(ack.durable, slot.durable);
  }
  return ack;
}

Nanoseconds throttle_delay(double ratio) {
  if (ratio <= kThrottleFrom) return Nanoseconds(0);
  const auto part = [](double x, double from, double to) { return (x - from) / (to - from); };
  const auto scaled = [](Nanoseconds d, double f) {
    return Nanoseconds(static_cast<std::int64_t>(static_cast<double>(d.count()) * f));
  };
  if (ratio <= 1) return scaled(kDelayAtBound, part(ratio, kThrottleFrom, 1));
  return kDelayAtBound + scaled(kDelayMax - kDelayAtBound, std::min(1.0, part(ratio, 1, 2)));
}

AckPolicy::Decision AckPolicy::decide(ReplicationMode mode, std::span<const SlotGate> slots,
                                      const Moment& moment) {
  Decision decision;
  decision.ack = remote_ack(slots);
  holding_ = false;
  const bool is_sync =
      mode == ReplicationMode::kSync || std::any_of(slots.begin(), slots.end(), &promises_sync);
  if (is_sync) {
    judge_sync(slots, moment, decision);
  } else {
    sync_.set_normal(moment);
  }
  status_.lag_bytes = status_.lag_ms = 0;
  if (policy_.bounded() && !std::all_of(slots.begin(), slots.end(), &promises_sync)) {
    judge_lag(slots, moment, decision);
  } else {
    marks_.clear();
    lag_.set_normal(moment);
  }
  merge_conditions();
  return decision;
}

template <class Reason>
void AckPolicy::Condition::set(const char* state, const Moment& moment, Reason&& reason) {
  last_met = moment.now;
  const bool is_new = status.state != state;
  if (!is_new && moment.now - reason_at < kReasonAge) return;
  changed = true;
  status.reason = reason();
  reason_at = moment.now;
  if (!is_new) return;
  status.state = state;
  status.since = moment.utc;
}

void AckPolicy::Condition::set_normal(const Moment& moment, Nanoseconds calm) {
  if (status.state == "normal" || (calm > calm.zero() && moment.now - last_met < calm)) return;
  changed = true;
  status.state = "normal";
  status.reason.clear();
  status.since = moment.utc;
}

void AckPolicy::merge_conditions() {
  const bool sync_changed = std::exchange(sync_.changed, false);
  const bool lag_changed = std::exchange(lag_.changed, false);
  if (!sync_changed && !lag_changed) return;
  const bool lag_is_harder = hardness(lag_.status.state) > hardness(sync_.status.state);
  const PolicyStatus& first = (lag_is_harder ? lag_ : sync_).status;
  const PolicyStatus& second = (lag_is_harder ? sync_ : lag_).status;
  if (first.state == "normal") {
    // The later of the two became so.
    if (status_.state != "normal") status_.since = std::max(first.since, second.since);
    status_.state = first.state;
    return status_.reason.clear();
  }
  if (status_.state != first.state) {
    status_.state = first.state;
    status_.since = first.since;
  }
  status_.reason = first.reason;
  if (second.state != "normal") status_.reason += "; also " + second.state + ": " + second.reason;
}

void AckPolicy::judge_sync(std::span<const SlotGate> slots, const Moment& moment,
                           Decision& decision) {
  std::size_t declared = 0, gating = 0;
  Lsn written, durable;
  for (const SlotGate& slot : slots) {
    if (!promises_sync(slot)) continue;
    ++declared;
    gating += slot.gating ? 1 : 0;
    // What a mirror had before this node started may not be what this node has now.
    if (!slot.confirmed) continue;
    written = std::max(written, slot.written);
    durable = std::max(durable, slot.durable);
  }
  if (gating == declared && gating > 0) return sync_.set_normal(moment);
  const auto what = [&] {
    std::string lost;
    for (const SlotGate& slot : slots)
      if (promises_sync(slot) && !slot.gating) lost += (lost.empty() ? "" : "; ") + why(slot);
    return declared == 0 ? std::string("the group has no mirror in mode sync")
                         : "not in sync: " + lost;
  };
  if (gating > 0 || !policy_.block_without_mirror) return sync_.set("degraded", moment, what);
  // A mirror that catches up still counts for what it has taken.
  tighten(decision.ack.written, written);
  tighten(decision.ack.durable, durable);
  holding_ = true;
  sync_.set("blocked", moment, [&] {
    return what() + "; writers wait until a mirror is in sync, or without_mirror=degrade is set";
  });
}

void AckPolicy::judge_lag(std::span<const SlotGate> slots, const Moment& moment,
                          Decision& decision) {
  Lag lag;
  const SlotGate* never = nullptr;
  for (const SlotGate& slot : slots) {
    if (promises_sync(slot)) continue;
    if (!slot.caught_up_once) {
      never = &slot;
    } else if (lag.slot == nullptr || slot.written < lag.slot->written) {
      lag.slot = &slot;
    }
  }
  if (lag.slot == nullptr) {
    marks_.clear();
    if (never == nullptr) return lag_.set_normal(moment);
    return lag_.set("degraded", moment, [&] {
      return "no mirror has caught up for the first time yet, so its lag is not bounded: " +
             why(*never);
    });
  }
  mark_tail(moment, lag.slot->written);
  if (moment.tail.payload_bytes > lag.slot->written_payload)
    lag.bytes = moment.tail.payload_bytes - lag.slot->written_payload;
  if (!marks_.empty()) lag.age = moment.now - marks_.front().at;
  if (policy_.lag_bytes)
    lag.ratio = static_cast<double>(lag.bytes) / static_cast<double>(*policy_.lag_bytes);
  if (policy_.lag_time) {
    lag.ratio = std::max(lag.ratio, seconds(lag.age) / seconds(*policy_.lag_time));
    // Time passes without events: look when the bound is reached.
    if (!marks_.empty() && lag.age <= *policy_.lag_time)
      sooner(decision.look_again, marks_.front().at + *policy_.lag_time + kStep);
  }
  status_.lag_bytes = lag.bytes;
  status_.lag_ms = static_cast<std::uint64_t>(lag.age.count() / 1'000'000);
  switch (policy_.lag_action) {
    case LagAction::kDegrade:
      if (lag.ratio > 1) {
        lag_.set("degraded", moment, [&] { return lag_text(lag); });
      } else {
        lag_.set_normal(moment, kCalm);
      }
      break;
    case LagAction::kThrottle:
      throttle(lag, moment, decision);
      break;
    case LagAction::kStall:
      stall(lag, moment, decision);
      break;
  }
  if (lag_.status.state != "normal") sooner(decision.look_again, moment.now + kCalm);
}

void AckPolicy::throttle(const Lag& lag, const Moment& moment, Decision& decision) {
  const Nanoseconds delay = throttle_delay(lag.ratio);
  if (delay == Nanoseconds(0)) {
    if (policy_.lag_time && !marks_.empty()) {
      const Nanoseconds from(static_cast<std::int64_t>(
          static_cast<double>(policy_.lag_time->count()) * kThrottleFrom));
      if (lag.age < from) sooner(decision.look_again, marks_.front().at + from + kStep);
    }
    return lag_.set_normal(moment, kCalm);
  }
  Lsn released = lag.slot->written;
  for (const Mark& mark : marks_) {
    if (mark.at + delay > moment.now) {
      sooner(decision.look_again, std::max(mark.at + delay, moment.now + kStep));
      break;
    }
    released = mark.lsn;
  }
  tighten(decision.ack.written, released);
  lag_.set("throttled", moment, [&] {
    return fmt::format("{}; each write waits {:.0f} ms", lag_text(lag), seconds(delay) * 1000);
  });
}

void AckPolicy::stall(const Lag& lag, const Moment& moment, Decision& decision) {
  const bool too_old = policy_.lag_time && lag.age > *policy_.lag_time;
  Lsn released = lag.slot->written;
  for (const Mark& mark : marks_) {
    if (too_old) break;
    if (policy_.lag_bytes && mark.payload > lag.slot->written_payload + *policy_.lag_bytes) break;
    released = mark.lsn;
  }
  // Always a position, also inside the bound: nothing is acknowledged that was not looked at.
  tighten(decision.ack.written, std::max(released, lag.slot->written));
  if (released >= moment.tail.lsn) return lag_.set_normal(moment, kCalm);
  holding_ = true;
  lag_.set("stalled", moment,
           [&] { return lag_text(lag) + "; writers wait until it has taken more"; });
}

// Remembers when the tail was first seen where it is; forgets what the slowest mirror has.
void AckPolicy::mark_tail(const Moment& moment, Lsn slowest) {
  while (!marks_.empty() && marks_.front().lsn <= slowest) marks_.pop_front();
  if (moment.tail.lsn <= slowest) return;
  if (!marks_.empty() && marks_.back().lsn >= moment.tail.lsn) return;
  if (marks_.size() >= kMarksMax) {
    // At most half as many, spread evenly over the time; each as old as the oldest of those that
    // it stands for, so that a lag never looks smaller than it is.
    const Nanoseconds step = (marks_.back().at - marks_.front().at) / (kMarksMax / 4);
    std::deque<Mark> thinned;
    for (const Mark& mark : marks_) {
      if (!thinned.empty() && mark.at - thinned.back().at <= step) {
        thinned.back().lsn = mark.lsn;
        thinned.back().payload = mark.payload;
      } else {
        thinned.push_back(mark);
      }
    }
    marks_ = std::move(thinned);
  }
  marks_.push_back({moment.tail.lsn, moment.tail.payload_bytes, moment.now});
}

std::string AckPolicy::lag_text(const Lag& lag) const {
  std::string bound;
  if (policy_.lag_bytes) bound = size_text(*policy_.lag_bytes);
  if (policy_.lag_time)
    bound += fmt::format("{}{:g} s", bound.empty() ? "" : " and ", seconds(*policy_.lag_time));
  return fmt::format("mirror {} lacks {}, for {:.1f} s; the bound is {}", why(*lag.slot),
                     size_text(lag.bytes), seconds(lag.age), bound);
}

}  // namespace tandem::replication
