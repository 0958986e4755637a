// NodeControl: everything an operator and the front ends can ask of this node.
//
// It runs every group of the pool, takes the streams of other nodes, creates mirror copies on first
// contact, and answers Control and VolumeDirectory.
// Thread: the reactor's. Life: construct, start(), …, stop() (awaited), then the pool may close.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/group_runner.h"
#include "control/options.h"
#include "control/pool_watch.h"
#include "replication/link_router.h"
#include "store/pool.h"
#include "tandem/control.h"
#include "tandem/volume.h"

namespace tandem::control {

Status check_group_name(const std::string& name);

class NodeControl final : public Control, public VolumeDirectory {
 public:
  NodeControl(Runtime runtime, store::Pool& pool, LinkDialer& dialer, PeerControl& peers,
              ControlOptions options);
  ~NodeControl() override;
  NodeControl(const NodeControl&) = delete;
  NodeControl& operator=(const NodeControl&) = delete;

  /// Starts every group in its role; returns at once, groups may still be starting.
  void start();
  /// Before the front ends are stopped: see GroupRunner::abandon_held_writers(); from now on also
  /// for groups whose policy begins to hold writers.
  void abandon_held_writers();
  /// Refuses everything new, lets mirrors have the last records, ends replication. Front ends have
  /// to be stopped before. Afterwards close the pool.
  Task<void> stop();
  /// Where streams of other nodes go.
  LinkAcceptor& acceptor() { return router_; }

  // --- Control --------------------------------------------------------------------------------
  Task<NodeStatus> status() override;
  Task<Result<NodeLatency>> latency(std::string group) override;
  Task<Status> create_volume(CreateVolume request) override;
  Task<Status> resize_volume(std::string name, std::uint64_t size_bytes) override;
  Task<Status> delete_volume(std::string name) override;
  Task<Status> clone_group(CloneGroup request) override;
  Task<Status> delete_group(std::string name) override;
  Task<Status> set_mode(std::string group, ReplicationMode mode) override;
  Task<Status> add_mirror(AddMirror request) override;
  Task<Status> remove_mirror(std::string group, std::string address) override;
  Task<Status> change_settings(ChangeSettings request) override;
  Task<Result<SnapshotStatus>> create_snapshot(CreateSnapshot request) override;
  Task<Status> delete_snapshot(std::string group, std::string name) override;
  Task<Status> rename_snapshot(RenameSnapshot request) override;
  Task<Result<SnapshotStatus>> show_snapshot(std::string group, std::string name) override;
  Task<Result<RolledBack>> rollback(Rollback request) override;
  Task<Result<HistoryStatus>> history(std::string group) override;
  Task<Result<SnapshotStatus>> keep_point(KeepPoint request) override;
  Task<Status> start_scrub(std::string group) override;
  Task<Status> stop_scrub(std::string group) override;
  Task<Status> start_compaction(std::string group) override;
  Task<Status> stop_compaction(std::string group) override;
  Task<Result<ContentReport>> check_content(ContentRequest request) override;
  Task<Result<Receipt>> receipt(std::string group) override;
  Task<Result<Receipt>> promote(std::string group, bool force) override;
  Task<Result<Receipt>> take_over(std::string group) override;
  Task<Status> demote(std::string group) override;
  Task<Result<SwitchedOver>> switchover(std::string group, std::string address) override;

  // --- VolumeDirectory --------------------------------------------------------------------------
  std::vector<VolumeInfo> list() const override;
  Result<std::shared_ptr<Volume>> open(std::string_view name) override;
  bool exports(std::string_view name) const override;

 private:
  using RunnerPtr = std::shared_ptr<GroupRunner>;

  RunnerPtr run(store::Group& group);
  Task<void> end(RunnerPtr runner);
  Result<RunnerPtr> find_group(std::string_view name) const;
  Result<RunnerPtr> find_volume(std::string_view name) const;
  Result<std::shared_ptr<Volume>> open_snapshot(std::string_view name);
  Task<Result<replication::GroupReplication*>> create_mirror(message::Hello hello);
  Task<Result<RunnerPtr>> group_for(const CreateVolume& request, bool& created);
  Task<Status> drop_group(std::string name);
  // clones.cc
  std::optional<CloneOrigin> clone_of(const GroupRunner& clone) const;
  Task<void> until_it_serves(RunnerPtr runner);
  Status nothing_came_out_of(std::string_view name) const;
  replication::RouterCallbacks routes();
  PoolStatus pool_status(const std::vector<GroupStatus>& groups) const;
  void watch_pool();
  void compact_when_short();
  Task<void> keep_free_zones();

  Runtime runtime_;
  store::Pool& pool_;
  LinkDialer& dialer_;
  PeerControl& peers_;
  const ControlOptions options_;
  const Nanoseconds started_;
  replication::LinkRouter router_;
  replication::Ticker ticker_;
  PoolWatch watch_;
  std::map<std::string, RunnerPtr, std::less<>> runners_;
  AsyncMutex pool_lock_;  // making and deleting groups
  Gate work_;
  bool abandoning_ = false;
  bool stopping_ = false;
};

}  // namespace tandem::control
