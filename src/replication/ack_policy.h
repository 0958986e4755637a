// What the group's writers must wait for, given every slot and what the operator declared.
//
// Each mirror is judged by its own mode, and what is demanded of all of them is demanded at once:
//   sync           every slot that gates; with none left: go on and say so, or block
//   async, flush   a bound on what the slowest of these mirrors lacks, with an action:
//     degrade      go on and say so
//     throttle     each acknowledgement comes later, the more so the further the mirror lags
//     stall        a write is acknowledged only when the mirror, counting it, is inside the bound
//
// All of it is one position up to which writes may be acknowledged. No I/O, no timers, no clock:
// the caller passes the time and looks again when told to.
// Thread: the reactor's.
#pragma once

#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "replication/group_settings.h"
#include "tandem/control.h"
#include "tandem/replicated_log.h"

namespace tandem::replication {

/// The part of a slot that decides about acknowledgements.
struct SlotGate {
  ReplicationMode mode = ReplicationMode::kAsync;
  bool gating = false;  // connected, caught up, alive: writers wait for it as its mode says
  Lsn written;
  Lsn durable;
  std::uint64_t written_payload = 0;  // payload bytes of the log up to `written`
  bool confirmed = true;              // the mirror itself said so since this node started
  bool caught_up_once = true;         // a mirror that never had a whole copy has no lag to bound
  std::string_view name, reason;      // for the operator; valid during the call
};

/// The strictest of all gating slots: a write waits until each sync slot has written it, a flush
/// until each sync and flush slot is durable. Slots that do not gate (async, or degraded) count for
/// nothing: that is the policy "degrade".
RemoteAck remote_ack(std::span<const SlotGate> slots);

/// How long a throttled write waits when the lag is `ratio` of its bound: nothing up to 3/4, 100 ms
/// at the bound, 1 s at twice the bound and beyond.
Nanoseconds throttle_delay(double ratio);

class AckPolicy {
 public:
  /// From the next decide() on; what was held under the old policy is judged by the new one.
  void set_policy(const GroupPolicy& policy) { policy_ = policy; }

  struct Moment {
    Nanoseconds now;
    UtcNs utc;
    LogPoint tail;
  };
  struct Decision {
    RemoteAck ack;
    std::optional<Nanoseconds> look_again;  // the decision changes by then at the latest
  };
  /// To be called whenever a slot changed, when `look_again` came, and, if watches_tail(), whenever
  /// the tail moved.
  Decision decide(ReplicationMode mode, std::span<const SlotGate> slots, const Moment& moment);
  bool watches_tail() const { return policy_.bounded(); }

  /// What is in force, as of the last decide().
  const PolicyStatus& status() const { return status_; }
  /// Writers wait, and no time-out ends it.
  bool holds() const { return holding_; }

 private:
  /// The records up to `lsn`, as of the moment at which the first of them was seen.
  struct Mark {
    Lsn lsn;
    std::uint64_t payload;
    Nanoseconds at;
  };
  struct Lag {
    const SlotGate* slot = nullptr;
    std::uint64_t bytes = 0;
    Nanoseconds age{0};
    double ratio = 0;  // of the bound that is nearer or more exceeded
  };

  /// What one of the two judgements found, kept from one decide() to the next.
  struct Condition {
    PolicyStatus status;      // without the lag
    Nanoseconds reason_at{};  // when status.reason was written
    Nanoseconds last_met{};   // when a condition other than "normal" was met last
    bool changed = false;     // since merge_conditions()
    template <class Reason>
    void set(const char* state, const Moment& moment, Reason&& reason);
    void set_normal(const Moment& moment, Nanoseconds calm = Nanoseconds(0));
  };

  void judge_sync(std::span<const SlotGate> slots, const Moment& moment, Decision& decision);
  void judge_lag(std::span<const SlotGate> slots, const Moment& moment, Decision& decision);
  void throttle(const Lag& lag, const Moment& moment, Decision& decision);
  void stall(const Lag& lag, const Moment& moment, Decision& decision);
  void mark_tail(const Moment& moment, Lsn slowest);
  std::string lag_text(const Lag& lag) const;
  void merge_conditions();

  GroupPolicy policy_;
  bool holding_ = false;
  std::deque<Mark> marks_;  // of what the slowest slot with a bound lacks, ascending; bounded
  Condition sync_, lag_;
  PolicyStatus status_;  // of both: the harder one's state, and why
};

}  // namespace tandem::replication
