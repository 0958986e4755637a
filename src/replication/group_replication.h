// GroupReplication: everything about one group's peers on one node. A primary ships to its slots; a
// mirror applies what it is sent, and ships what is durable here to those of its slots whose
// setting `relay` is on (decision 0019); a fenced copy waits for a primary that may take it back.
//
// Who decides: control/ owns the role (role_machine.h) and tells it here; only a newer timeline and
// the acceptance of a fenced copy start here, as callbacks.
// Thread: the reactor's. stop() must be awaited before destruction; no callback after it.
#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "replication/ack_policy.h"
#include "replication/applier.h"
#include "replication/group_settings.h"
#include "replication/options.h"
#include "replication/shipper.h"
#include "tandem/base/sync.h"
#include "tandem/control.h"
#include "tandem/port/executor.h"
#include "tandem/port/link.h"
#include "tandem/replicated_log.h"

namespace tandem::replication {

struct Callbacks {
  /// The peer shows a newer timeline while we are primary. When this returns the group must not
  /// acknowledge another write. The role here is kFenced already and shipping ends.
  std::function<void(const TimelineHistory& history, const std::string& node)> on_newer_timeline;
  /// A fenced copy may follow: make the role durable. On success the role here becomes kMirror.
  std::function<Task<Status>()> become_mirror;
};

/// How hear_peers() ended.
enum class PeersHeard {
  kAll,       // every slot answered, and what had to be fetched was
  kTimedOut,  // at least one did not answer in time
  kFenced,    // one showed a newer timeline
  kStopped,
};

class GroupReplication final : private ShipperOwner, private ApplierOwner {
 public:
  GroupReplication(Runtime runtime, ReplicatedLog& log, LinkDialer& dialer,
                   ReplicationOptions options, Callbacks callbacks, Role role);
  ~GroupReplication() override;

  // --- role, told by control ----------------------------------------------------------------
  Role role() const override { return role_; }
  /// A primary that starts: dials its slots and waits until each was heard, `peer_wait` at most
  /// (a fetch under way is waited for beyond it). Afterwards nothing is fetched any more, so the
  /// caller may serve. With no slots it returns at once.
  Task<PeersHeard> hear_peers(Nanoseconds peer_wait);
  /// Role primary from now on, ready to serve: dials the slots. After hold_upstream(), the old
  /// primary is told of our newer timeline.
  void become_primary();
  /// Role mirror or fenced from now on: shipping has ended when this returns.
  Task<void> stop_shipping(Role role);
  /// The log of this primary went on to a newer timeline: who was refused before is dialled again.
  void timeline_raised();
  /// See Applier::hold; nothing is shipped either. become_primary() or release_upstream() ends it.
  Task<void> hold_upstream();
  void release_upstream();

  // --- slots ----------------------------------------------------------------------------------
  /// kExists when the address has a slot. Dials at once on a primary, and on a mirror if it relays.
  Status add_slot(SlotOptions slot);
  /// Ends the slot's stream; writers do not wait for it any more. kNotFound.
  Task<Status> remove_slot(std::string address);
  /// The group's mode, which is every slot's without one of its own; also while shipping.
  void set_mode(ReplicationMode mode);
  /// See group_settings.h; in force when it returns, also for writers that wait already.
  void set_settings(Settings settings);
  /// Completes when the mirror at `address` holds durably everything up to `upto`.
  Task<Status> wait_durable(std::string address, Lsn upto, Nanoseconds limit);

  // --- streams --------------------------------------------------------------------------------
  /// A stream whose Hello names this group (LinkRouter). Answers it, whatever the role.
  void accept(std::unique_ptr<Link> link, message::Hello hello);

  // --- repair ---------------------------------------------------------------------------------
  /// That version from a peer's copy: who feeds this one, and those that it feeds, in turn. See
  /// BlockSource.
  Task<Result<IoBuffer>> fetch_block(BlockVersion version);

  // --- status ---------------------------------------------------------------------------------
  const PolicyStatus& policy_status() const { return ack_policy_.status(); }
  /// The policy makes writers wait, and no time-out ends it.
  bool holds_writers() const override { return role_ == Role::kPrimary && ack_policy_.holds(); }
  std::vector<SlotStatus> slots() const;
  std::vector<SlotOptions> slot_options() const;
  UpstreamStatus upstream() const { return applier_.status(); }
  /// While the histories say so; see SplitStatus.
  std::optional<SplitStatus> split() const;
  /// A primary streams to us and was heard lately.
  bool upstream_connected() const { return applier_.connected(); }

  Task<void> stop();

 private:
  struct Split {
    SplitStatus status;
    TimelineHistory history;  // the other's
  };
  struct Slot {
    SlotOptions options;
    std::unique_ptr<Shipper> shipper;  // while ships()
    bool relay = false;                // the setting
  };

  // ShipperOwner
  void slot_changed() override;
  void newer_timeline(const TimelineHistory& history, const std::string& node) override;
  void note_split(const std::string& node, const TimelineHistory& history,
                  const std::string& why) override;
  bool may_fetch() const override { return hearing_ && role_ == Role::kPrimary; }
  std::vector<message::Source> sources() const override { return applier_.sources(); }
  std::optional<Lsn> durable_everywhere() const override;
  AsyncMutex& image_lock() override { return image_lock_; }
  AsyncMutex& fetch_lock() override { return fetch_lock_; }
  // ApplierOwner
  Task<Status> become_mirror() override;
  Task<void> before_replacing() override;
  void after_replacing() override;
  void upstream_began() override;
  void upstream_holds(Lsn durable, Lsn everywhere) override;

  void listen();
  void acknowledge();
  void look_again_at(std::optional<Nanoseconds> at);
  bool ships(const Slot& slot) const;
  ReplicationMode mode_of(const Slot& slot) const;
  void start_slot(Slot& slot);
  void start_slots();
  Task<void> end_slots();
  Task<void> restart_slots();
  void update_hold();
  bool all_settled() const;
  bool any_fetching() const;

  Runtime runtime_;
  ReplicatedLog& log_;
  LinkDialer& dialer_;
  const ReplicationOptions options_;
  Callbacks callbacks_;
  Role role_;
  // A primary that has not served since it started. From the beginning on: a mirror may have
  // answered before hear_peers() is called.
  bool hearing_;
  bool listening_ = false;
  bool stopping_ = false;
  AsyncMutex image_lock_;
  AsyncMutex fetch_lock_;
  AsyncMutex slots_lock_;  // starting and ending shippers
  std::vector<Slot> slots_;
  std::optional<Lsn> slots_hold_;  // the slowest one's place in the log
  // Of a mirror: nothing is shipped meanwhile.
  bool promoting_ = false;
  std::size_t replacing_ = 0;
  struct Bounds {
    Lsn durable, everywhere;
  };
  std::optional<Bounds> upstream_bounds_;  // as the present log's upstream said last
  ReplicationMode mode_ = ReplicationMode::kAsync;
  Settings settings_;
  AckPolicy ack_policy_;
  std::vector<SlotGate> gates_;  // scratch of acknowledge()
  std::optional<Nanoseconds> look_again_;
  TimerId look_again_timer_ = 0;
  std::optional<Split> split_;  // as last seen
  Condition heard_;
  Applier applier_;
  Gate work_;
};

}  // namespace tandem::replication
