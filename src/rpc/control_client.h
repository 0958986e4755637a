// Control from outside a node: what the operator's command uses. Synchronous.
#pragma once

#include <memory>
#include <string>

#include "rpc/options.h"
#include "tandem/base/result.h"
#include "tandem/control.h"

namespace tandem::rpc {

/// One node's Control. Thread: any, one call at a time. Each call takes at most options.timeout.
/// Errors: the node's own, exactly; kUnavailable when it cannot be reached or does not answer.
class ControlClient {
 public:
  /// kInvalid: the address or the certificates, with the cure. Connects at the first call.
  static Result<std::unique_ptr<ControlClient>> create(ClientOptions options);
  virtual ~ControlClient() = default;

  virtual const std::string& address() const = 0;
  /// Whether the node itself answered the last call, be it with an error.
  virtual bool reached() const = 0;

  virtual Result<NodeStatus> status() = 0;
  virtual Result<NodeLatency> latency(const std::string& group) = 0;
  virtual Status create_volume(const CreateVolume& request) = 0;
  virtual Status resize_volume(const std::string& name, std::uint64_t size_bytes) = 0;
  virtual Status delete_volume(const std::string& name) = 0;
  virtual Status clone_group(const CloneGroup& request) = 0;
  virtual Status delete_group(const std::string& name) = 0;
  virtual Status set_mode(const std::string& group, ReplicationMode mode) = 0;
  virtual Status add_mirror(const AddMirror& request) = 0;
  virtual Status remove_mirror(const std::string& group, const std::string& address) = 0;
  virtual Status change_settings(const ChangeSettings& request) = 0;
  virtual Result<SnapshotStatus> create_snapshot(const CreateSnapshot& request) = 0;
  virtual Status delete_snapshot(const std::string& group, const std::string& name) = 0;
  virtual Status rename_snapshot(const RenameSnapshot& request) = 0;
  virtual Result<SnapshotStatus> show_snapshot(const std::string& group,
                                               const std::string& name) = 0;
  virtual Result<RolledBack> rollback(const Rollback& request) = 0;
  virtual Result<HistoryStatus> history(const std::string& group) = 0;
  virtual Result<SnapshotStatus> keep_point(const KeepPoint& request) = 0;
  virtual Status start_scrub(const std::string& group) = 0;
  virtual Status stop_scrub(const std::string& group) = 0;
  virtual Status start_compaction(const std::string& group) = 0;
  virtual Status stop_compaction(const std::string& group) = 0;
  virtual Result<ContentReport> check_content(const ContentRequest& request) = 0;
  virtual Result<Receipt> receipt(const std::string& group) = 0;
  virtual Result<Receipt> promote(const std::string& group, bool force) = 0;
  virtual Status demote(const std::string& group) = 0;
  virtual Result<SwitchedOver> switchover(const std::string& group, const std::string& address) = 0;
};

}  // namespace tandem::rpc
