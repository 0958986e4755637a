#include "rpc/control_client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "rpc/channel.h"
#include "rpc/control_translation.h"
#include "rpc/errors.h"
#include "rpc/integrity_translation.h"
#include "rpc/latency_translation.h"
#include "rpc/translation.h"
#include "tandem/v1/control.grpc.pb.h"

namespace tandem::rpc {
namespace {

using Stub = v1::Control::Stub;

class GrpcControlClient final : public ControlClient {
 public:
  GrpcControlClient(ClientOptions options, std::shared_ptr<grpc::Channel> channel)
      : options_(std::move(options)), stub_(std::move(channel)) {}

  const std::string& address() const override { return options_.address; }
  bool reached() const override { return reached_; }

  Result<NodeStatus> status() override {
    v1::NodeStatus answer;
    TANDEM_TRY(call(&Stub::GetStatus, v1::GetStatusRequest(), answer));
    return from_proto(answer);
  }
  Result<NodeLatency> latency(const std::string& group) override {
    v1::GetLatencyRequest request;
    request.set_group(group);
    v1::NodeLatency answer;
    TANDEM_TRY(call(&Stub::GetLatency, request, answer));
    return from_proto(answer);
  }
  Status create_volume(const CreateVolume& in) override {
    v1::CreateVolumeRequest request;
    request.set_name(in.name);
    request.set_group(in.group);
    request.set_size_bytes(in.size_bytes);
    request.set_logical_block_bytes(in.logical_block_bytes);
    v1::CreateVolumeResponse answer;
    return call(&Stub::CreateVolume, request, answer);
  }
  Status resize_volume(const std::string& name, std::uint64_t size_bytes) override {
    v1::ResizeVolumeRequest request;
    request.set_name(name);
    request.set_size_bytes(size_bytes);
    v1::ResizeVolumeResponse answer;
    return call(&Stub::ResizeVolume, request, answer);
  }
  Status delete_volume(const std::string& name) override {
    v1::DeleteVolumeRequest request;
    request.set_name(name);
    v1::DeleteVolumeResponse answer;
    return call(&Stub::DeleteVolume, request, answer);
  }
  Status clone_group(const CloneGroup& in) override {
    v1::CloneGroupRequest request;
    request.set_origin(in.origin);
    request.set_snapshot(in.snapshot);
    request.set_name(in.name);
    v1::CloneGroupResponse answer;
    return call(&Stub::CloneGroup, request, answer);
  }
  Status delete_group(const std::string& name) override {
    v1::DeleteGroupRequest request;
    request.set_name(name);
    v1::DeleteGroupResponse answer;
    return call(&Stub::DeleteGroup, request, answer);
  }
  Status set_mode(const std::string& group, ReplicationMode mode) override {
    v1::SetModeRequest request;
    request.set_group(group);
    request.set_mode(to_proto(mode));
    v1::SetModeResponse answer;
    return call(&Stub::SetMode, request, answer);
  }
  Status add_mirror(const AddMirror& in) override {
    v1::AddMirrorRequest request;
    request.set_group(in.group);
    request.set_address(in.address);
    request.set_mode(to_proto(in.mode));
    v1::AddMirrorResponse answer;
    return call(&Stub::AddMirror, request, answer);
  }
  Status remove_mirror(const std::string& group, const std::string& address) override {
    v1::RemoveMirrorRequest request;
    request.set_group(group);
    request.set_address(address);
    v1::RemoveMirrorResponse answer;
    return call(&Stub::RemoveMirror, request, answer);
  }
  Status change_settings(const ChangeSettings& in) override {
    v1::ChangeSettingsRequest request;
    request.set_group(in.group);
    request.set_mirror(in.mirror);
    for (const auto& [key, value] : in.changes) (*request.mutable_changes())[key] = value;
    v1::ChangeSettingsResponse answer;
    return call(&Stub::ChangeSettings, request, answer);
  }
  Result<SnapshotStatus> create_snapshot(const CreateSnapshot& in) override {
    v1::CreateSnapshotRequest request;
    request.set_group(in.group);
    request.set_name(in.name);
    request.set_label(in.label);
    if (in.hook == SnapshotHook::kSkip) request.set_hook(v1::SNAPSHOT_HOOK_SKIP);
    if (in.hook == SnapshotHook::kRequire) request.set_hook(v1::SNAPSHOT_HOOK_REQUIRE);
    v1::SnapshotStatus answer;
    TANDEM_TRY(call(&Stub::CreateSnapshot, request, answer));
    return from_proto(answer);
  }
  Status delete_snapshot(const std::string& group, const std::string& name) override {
    v1::DeleteSnapshotRequest request;
    request.set_group(group);
    request.set_name(name);
    v1::DeleteSnapshotResponse answer;
    return call(&Stub::DeleteSnapshot, request, answer);
  }
  Status rename_snapshot(const RenameSnapshot& in) override {
    v1::RenameSnapshotRequest request;
    request.set_group(in.group);
    request.set_name(in.name);
    request.set_new_name(in.new_name);
    if (in.label) request.set_label(*in.label);
    v1::RenameSnapshotResponse answer;
    return call(&Stub::RenameSnapshot, request, answer);
  }
  Result<SnapshotStatus> show_snapshot(const std::string& group, const std::string& name) override {
    v1::GetSnapshotRequest request;
    request.set_group(group);
    request.set_name(name);
    v1::SnapshotStatus answer;
    TANDEM_TRY(call(&Stub::GetSnapshot, request, answer));
    return from_proto(answer);
  }
  Result<RolledBack> rollback(const Rollback& in) override {
    v1::RollBackRequest request;
    request.set_group(in.group);
    request.set_snapshot(in.snapshot);
    request.set_branch(in.branch);
    v1::RollBackResponse answer;
    TANDEM_TRY(call(&Stub::RollBack, request, answer));
    return from_proto(answer);
  }
  Result<HistoryStatus> history(const std::string& group) override {
    v1::GetHistoryRequest request;
    request.set_group(group);
    v1::HistoryStatus answer;
    TANDEM_TRY(call(&Stub::GetHistory, request, answer));
    return from_proto(answer);
  }
  Result<SnapshotStatus> keep_point(const KeepPoint& in) override {
    v1::KeepPointRequest request;
    request.set_group(in.group);
    if (in.lsn) request.set_lsn(in.lsn->value);
    if (in.time) request.set_utc_ns(in.time->value);
    request.set_name(in.name);
    request.set_label(in.label);
    v1::SnapshotStatus answer;
    TANDEM_TRY(call(&Stub::KeepPoint, request, answer));
    return from_proto(answer);
  }
  Status start_scrub(const std::string& group) override {
    v1::StartScrubRequest request;
    request.set_group(group);
    v1::StartScrubResponse answer;
    return call(&Stub::StartScrub, request, answer);
  }

  Status stop_scrub(const std::string& group) override {
    v1::StopScrubRequest request;
    request.set_group(group);
    v1::StopScrubResponse answer;
    return call(&Stub::StopScrub, request, answer);
  }

  Status start_compaction(const std::string& group) override {
    v1::StartCompactionRequest request;
    request.set_group(group);
    v1::StartCompactionResponse answer;
    return call(&Stub::StartCompaction, request, answer);
  }

  Status stop_compaction(const std::string& group) override {
    v1::StopCompactionRequest request;
    request.set_group(group);
    v1::StopCompactionResponse answer;
    return call(&Stub::StopCompaction, request, answer);
  }

  Result<ContentReport> check_content(const ContentRequest& in) override {
    v1::CheckContentResponse answer;
    TANDEM_TRY(call(&Stub::CheckContent, to_proto(in), answer));
    return from_proto(answer);
  }
  Result<Receipt> receipt(const std::string& group) override {
    v1::GetReceiptRequest request;
    request.set_group(group);
    v1::Receipt answer;
    TANDEM_TRY(call(&Stub::GetReceipt, request, answer));
    return from_proto(answer);
  }
  Result<Receipt> promote(const std::string& group, bool force) override {
    v1::PromoteRequest request;
    request.set_group(group);
    request.set_force(force);
    v1::Receipt answer;
    TANDEM_TRY(call(&Stub::Promote, request, answer));
    return from_proto(answer);
  }
  Status demote(const std::string& group) override {
    v1::DemoteRequest request;
    request.set_group(group);
    v1::DemoteResponse answer;
    return call(&Stub::Demote, request, answer);
  }
  Result<SwitchedOver> switchover(const std::string& group, const std::string& address) override {
    v1::SwitchoverRequest request;
    request.set_group(group);
    request.set_address(address);
    v1::SwitchoverResponse answer;
    TANDEM_TRY(call(&Stub::Switchover, request, answer));
    return SwitchedOver{.held_ms = answer.held_ms()};
  }

 private:
  template <class Request, class Response>
  Status call(grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
              const Request& request, Response& answer) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + options_.timeout);
    const auto status = (stub_.*method)(&context, request, &answer);
    reached_ = status.ok() || named_code(context).has_value();
    if (status.ok()) return ok();
    return explain_failure(status, context, options_.address, options_.tls, options_.files);
  }

  const ClientOptions options_;
  Stub stub_;
  bool reached_ = false;
};

}  // namespace

Result<std::unique_ptr<ControlClient>> ControlClient::create(ClientOptions options) {
  auto channel = open_channel(options);
  if (!channel) return Error(std::move(channel.error()));
  return std::unique_ptr<ControlClient>(
      std::make_unique<GrpcControlClient>(std::move(options), std::move(*channel)));
}

}  // namespace tandem::rpc
