// GroupRunner: one group of this node at work: its store, its replication and its role.
//
// The role machine decides, this performs. Changes that an operator asks for run one at a time; a
// newer timeline interrupts them at any await, so each looks at the state again.
// Thread: the reactor's. stop() must be awaited before destruction. The store's group must outlive
// it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/options.h"
#include "control/snapshot_schedule.h"
#include "replication/group_replication.h"
#include "replication/role_machine.h"
#include "store/group.h"
#include "tandem/base/sync.h"
#include "tandem/control.h"
#include "tandem/volume.h"

namespace tandem::control {

/// Longer names, or '~' in them, come from the store only.
Status check_snapshot_name(const std::string& name);

class GroupRunner {
 public:
  GroupRunner(Runtime runtime, store::Group& group, LinkDialer& dialer, PeerControl& peers,
              const ControlOptions& options);
  ~GroupRunner();
  GroupRunner(const GroupRunner&) = delete;
  GroupRunner& operator=(const GroupRunner&) = delete;

  /// Takes up the role that is on disk. Returns at once; a primary serves after it heard its
  /// mirrors.
  void start();
  /// Once a second: notices a store that stopped, remembers the mirrors' positions, looks after
  /// automatic snapshots.
  void tick();
  /// Nothing is served or shipped afterwards; what mirrors follow gets a moment to arrive.
  Task<void> stop();
  /// Before a stop: writers that a policy makes wait are answered with an error, since a front end
  /// waits for its writers. Nothing that they wrote is acknowledged; the log keeps it.
  void abandon_held_writers();

  const std::string& name() const { return name_; }
  store::Group& group() { return group_; }
  const store::Group& group() const { return group_; }
  replication::GroupReplication& replication() { return *replication_; }
  bool stopped() const { return stopping_; }
  bool serves() const { return replication::serves(machine_.state()); }
  /// Its volumes are exported: it serves, or it is not decided yet whether it goes on to.
  bool exports() const;
  /// Why volumes of this group cannot be opened or changed now.
  Error unavailable() const;
  /// A volume for a front end; counted until it is let go.
  Result<std::shared_ptr<Volume>> open_volume(std::string_view volume);
  /// Read-only, in any role of the group; counted likewise. (snapshots.cc, as all about them)
  Result<std::shared_ptr<Volume>> open_snapshot(std::string_view snapshot, std::string_view volume);
  /// What front ends may open of snapshots; nothing while the group is stopped.
  std::vector<VolumeInfo> snapshot_exports() const;
  /// Front ends still hold volumes of this group.
  bool in_use();
  /// (clones.cc)
  bool is_clone() const { return !group_.origin().is_nil(); }
  std::string export_name(std::string_view volume) const;
  bool has_volume(std::string_view name) const;
  bool may_be_discarded() const;

  Task<Status> create_volume(const CreateVolume& request);
  Task<Status> resize_volume(std::string volume, std::uint64_t size_bytes);
  Task<Status> delete_volume(std::string volume);
  Task<Status> set_mode(ReplicationMode mode);
  Task<Status> change_settings(std::string mirror, Settings changes);
  Task<Status> add_mirror(std::string address, ReplicationMode mode);
  Task<Status> remove_mirror(std::string address);
  Task<Result<SnapshotStatus>> create_snapshot(CreateSnapshot request);
  Task<Status> delete_snapshot(std::string name);
  Task<Status> rename_snapshot(const RenameSnapshot& request);
  Task<Result<SnapshotStatus>> show_snapshot(std::string name);
  Task<Result<RolledBack>> rollback(Rollback request);
  Task<HistoryStatus> history();
  Task<Result<SnapshotStatus>> keep_point(KeepPoint request);
  Status start_scrub();
  Status stop_scrub();
  Status start_compaction();
  Status stop_compaction();
  Task<Result<ContentReport>> check_content(ContentRequest request);
  Receipt receipt() const;
  Task<Result<Receipt>> promote(bool force);
  Task<Result<Receipt>> take_over();
  Task<Status> demote();
  Task<Result<SwitchedOver>> switchover(std::string address);

  /// Exact; reads the maps where they are newer than a mirror's position.
  Task<GroupStatus> status();

 private:
  replication::RoleStep move(const replication::RoleEvent& event, std::string reason);
  Task<void> boot();
  void serve();
  void remember_slots();
  Task<void> keep_slots();
  void on_newer_timeline(const TimelineHistory& history, const std::string& node);
  Task<void> persist_fence(Timeline by);
  Task<Status> become_mirror();
  Task<Status> step_down(std::optional<std::string> successor);
  Task<Status> drain(std::optional<std::string> successor);
  Task<Status> local_drain(Nanoseconds end, bool every_one);
  Task<Result<Receipt>> open_timeline(bool force);
  Task<Result<Receipt>> raise_timeline(bool force);
  Task<Status> hand_over(std::string address);
  Task<Status> add_followers(std::string address);
  Task<Status> add_relayed(std::string address, ReplicationMode mode);
  Status may_set_mode(const std::string& mirror, const Settings& changes) const;
  std::uint64_t end_pause();
  format::SlotState state_of(const replication::SlotOptions& slot) const;
  Task<Status> save_slots();
  Status may_change_volumes() const;
  std::vector<SnapshotStatus> snapshot_statuses() const;
  Result<SnapshotStatus> find_snapshot(std::string_view name) const;
  bool has_snapshot(std::string_view name) const { return group_.kept_state(name) != nullptr; }
  Error no_snapshot(std::string_view name) const;
  std::optional<ConsistentPoint> consistent_point() const;
  void apply_history(const Settings& settings);
  // consistent_snapshot.cc
  struct Creation;
  Task<void> append_snapshot(std::shared_ptr<Creation> creation, format::SnapshotBody body,
                             std::optional<Nanoseconds> consistent_until);
  Task<Result<SnapshotStatus>> snapshot_in_hooks(CreateSnapshot request, Nanoseconds limit);
  Task<Result<SnapshotStatus>> snapshot_without_hooks(CreateSnapshot request,
                                                      format::Consistency consistency);
  Task<Status> thaw(HookCall call);
  Task<void> thaw_at_start();
  void note_hook(const Status& status);
  Result<SnapshotStatus> announce_snapshot(Lsn lsn);
  void tick_snapshots();
  void tick_scrub();
  ScrubStatus scrub_status() const;
  WritersStatus writers_status(const std::vector<SlotStatus>& slots) const;
  CompactionStatus compaction_status() const;
  Task<void> automate(bool due, std::vector<std::string> expired);
  Result<std::shared_ptr<Volume>> handed_out(Result<std::shared_ptr<Volume>> opened);
  Result<std::string> successor_of(std::string address) const;

  Runtime runtime_;
  store::Group& group_;
  PeerControl& peers_;
  const ControlOptions& options_;
  const std::string name_;
  replication::RoleMachine machine_;
  std::unique_ptr<replication::GroupReplication> replication_;
  std::string reason_;
  UtcNs since_;
  bool stopping_ = false;
  std::optional<Nanoseconds> paused_since_;  // writes are held since then (switchover.cc)
  bool keeping_slots_ = false;
  AsyncMutex changing_;
  // On their own: a record of theirs may wait for a mirror, and what would release it must not wait
  // behind it.
  AsyncMutex changing_volumes_;
  AsyncMutex changing_settings_;
  AsyncMutex hooking_;  // no two snapshots with commands around them at once
  HookStatus hook_;
  bool automating_ = false;        // automatic snapshots are being made or deleted
  UtcNs last_automatic_;           // when one was made
  Nanoseconds automatic_again_{};  // not before, after a failure
  ClockWatch clock_watch_;
  bool clock_jumped_ = false;  // nothing is too old meanwhile
  Gate work_;
  std::vector<std::weak_ptr<Volume>> handed_out_;
};

}  // namespace tandem::control
