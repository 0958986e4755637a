#include "rpc/control_service.h"

#include <grpcpp/grpcpp.h>

#include <mutex>
#include <type_traits>
#include <utility>

#include "rpc/control_translation.h"
#include "rpc/credentials.h"
#include "rpc/errors.h"
#include "rpc/integrity_translation.h"
#include "rpc/latency_translation.h"
#include "rpc/translation.h"

namespace tandem::rpc {
namespace {

Task<Status> handle(Control& control, const v1::GetStatusRequest&, v1::NodeStatus& out) {
  const auto status = co_await control.status();
  to_proto(status, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::GetLatencyRequest& in, v1::NodeLatency& out) {
  auto task = control.latency(in.group());
  auto latency = co_await std::move(task);
  if (!latency) co_return std::move(latency.error());
  to_proto(*latency, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::CreateVolumeRequest& in,
                    v1::CreateVolumeResponse&) {
  CreateVolume request;
  request.name = in.name();
  request.group = in.group();
  request.size_bytes = in.size_bytes();
  request.logical_block_bytes = in.logical_block_bytes();
  auto task = control.create_volume(std::move(request));
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::ResizeVolumeRequest& in,
                    v1::ResizeVolumeResponse&) {
  auto task = control.resize_volume(in.name(), in.size_bytes());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::DeleteVolumeRequest& in,
                    v1::DeleteVolumeResponse&) {
  auto task = control.delete_volume(in.name());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::DeleteGroupRequest& in, v1::DeleteGroupResponse&) {
  auto task = control.delete_group(in.name());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::CloneGroupRequest& in, v1::CloneGroupResponse&) {
  CloneGroup request{in.origin(), in.snapshot(), in.name()};
  auto task = control.clone_group(std::move(request));
  auto status = co_await std::move(task);
  co_return status;
}

Error unknown_mode() {
  return {ErrorCode::kInvalid, "the replication mode is missing or unknown: async, flush or sync"};
}

Task<Status> handle(Control& control, const v1::SetModeRequest& in, v1::SetModeResponse&) {
  const auto mode = from_proto(in.mode());
  if (!mode) co_return unknown_mode();
  auto task = control.set_mode(in.group(), *mode);
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::AddMirrorRequest& in, v1::AddMirrorResponse&) {
  const auto mode = from_proto(in.mode());
  if (!mode) co_return unknown_mode();
  AddMirror request;
  request.group = in.group();
  request.address = in.address();
  request.mode = *mode;
  auto task = control.add_mirror(std::move(request));
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::RemoveMirrorRequest& in,
                    v1::RemoveMirrorResponse&) {
  auto task = control.remove_mirror(in.group(), in.address());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::ChangeSettingsRequest& in,
                    v1::ChangeSettingsResponse&) {
  ChangeSettings request;
  request.group = in.group();
  request.mirror = in.mirror();
  request.changes = {in.changes().begin(), in.changes().end()};
  auto task = control.change_settings(std::move(request));
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::CreateSnapshotRequest& in,
                    v1::SnapshotStatus& out) {
  CreateSnapshot request{in.group(), in.name(), in.label()};
  switch (in.hook()) {
    case v1::SNAPSHOT_HOOK_USE:
      break;
    case v1::SNAPSHOT_HOOK_SKIP:
      request.hook = SnapshotHook::kSkip;
      break;
    case v1::SNAPSHOT_HOOK_REQUIRE:
      request.hook = SnapshotHook::kRequire;
      break;
    default:
      co_return Error{ErrorCode::kUnsupported,
                      "this node does not know what to do with the commands around the snapshot; "
                      "use the `tandem` that came with it"};
  }
  auto task = control.create_snapshot(std::move(request));
  auto snapshot = co_await std::move(task);
  if (!snapshot) co_return std::move(snapshot.error());
  to_proto(*snapshot, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::DeleteSnapshotRequest& in,
                    v1::DeleteSnapshotResponse&) {
  auto task = control.delete_snapshot(in.group(), in.name());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::RenameSnapshotRequest& in,
                    v1::RenameSnapshotResponse&) {
  RenameSnapshot request;
  request.group = in.group();
  request.name = in.name();
  request.new_name = in.new_name();
  if (in.has_label()) request.label = in.label();
  auto task = control.rename_snapshot(std::move(request));
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::GetSnapshotRequest& in, v1::SnapshotStatus& out) {
  auto task = control.show_snapshot(in.group(), in.name());
  auto snapshot = co_await std::move(task);
  if (!snapshot) co_return std::move(snapshot.error());
  to_proto(*snapshot, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::RollBackRequest& in, v1::RollBackResponse& out) {
  Rollback request{in.group(), in.snapshot(), in.branch()};
  auto task = control.rollback(std::move(request));
  auto done = co_await std::move(task);
  if (!done) co_return std::move(done.error());
  to_proto(*done, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::GetHistoryRequest& in, v1::HistoryStatus& out) {
  auto task = control.history(in.group());
  auto history = co_await std::move(task);
  if (!history) co_return std::move(history.error());
  to_proto(*history, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::KeepPointRequest& in, v1::SnapshotStatus& out) {
  KeepPoint request;
  request.group = in.group();
  if (in.has_lsn()) request.lsn = Lsn(in.lsn());
  if (in.has_utc_ns()) request.time = UtcNs(in.utc_ns());
  request.name = in.name();
  request.label = in.label();
  auto task = control.keep_point(std::move(request));
  auto point = co_await std::move(task);
  if (!point) co_return std::move(point.error());
  to_proto(*point, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::StartScrubRequest& in, v1::StartScrubResponse&) {
  auto task = control.start_scrub(in.group());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::StopScrubRequest& in, v1::StopScrubResponse&) {
  auto task = control.stop_scrub(in.group());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::StartCompactionRequest& in,
                    v1::StartCompactionResponse&) {
  auto task = control.start_compaction(in.group());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::StopCompactionRequest& in,
                    v1::StopCompactionResponse&) {
  auto task = control.stop_compaction(in.group());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::CheckContentRequest& in,
                    v1::CheckContentResponse& out) {
  auto task = control.check_content(from_proto(in));
  auto report = co_await std::move(task);
  if (!report) co_return std::move(report.error());
  to_proto(*report, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::GetReceiptRequest& in, v1::Receipt& out) {
  auto task = control.receipt(in.group());
  auto receipt = co_await std::move(task);
  if (!receipt) co_return std::move(receipt.error());
  to_proto(*receipt, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::PromoteRequest& in, v1::Receipt& out) {
  auto task =
      in.planned() ? control.take_over(in.group()) : control.promote(in.group(), in.force());
  auto receipt = co_await std::move(task);
  if (!receipt) co_return std::move(receipt.error());
  to_proto(*receipt, &out);
  co_return ok();
}

Task<Status> handle(Control& control, const v1::DemoteRequest& in, v1::DemoteResponse&) {
  auto task = control.demote(in.group());
  auto status = co_await std::move(task);
  co_return status;
}

Task<Status> handle(Control& control, const v1::SwitchoverRequest& in,
                    v1::SwitchoverResponse& out) {
  auto task = control.switchover(in.group(), in.address());
  const auto done = co_await std::move(task);
  if (!done) co_return done.error();
  out.set_held_ms(done->held_ms);
  co_return ok();
}

/// What the calls have in common: the service, and how its generated code waits for one.
template <class Request, class Response>
using RequestCall = void (ControlAsyncService::*)(grpc::ServerContext*, Request*,
                                                  grpc::ServerAsyncResponseWriter<Response>*,
                                                  grpc::CompletionQueue*,
                                                  grpc::ServerCompletionQueue*, void*);

/// Calls that a viewer's certificate may make.
template <class Request>
inline constexpr bool kOnlyLooks = std::is_same_v<Request, v1::GetStatusRequest> ||
                                   std::is_same_v<Request, v1::GetLatencyRequest> ||
                                   std::is_same_v<Request, v1::GetReceiptRequest> ||
                                   std::is_same_v<Request, v1::GetSnapshotRequest> ||
                                   std::is_same_v<Request, v1::GetHistoryRequest>;

/// One call, from waiting for it to the end of its answer.
template <class Request, class Response>
class ControlCall final : public Operation {
 public:
  static void listen(ControlAsyncService& service, const std::shared_ptr<Loop>& loop,
                     const std::shared_ptr<Front>& front, RequestCall<Request, Response> request) {
    auto call = std::make_shared<ControlCall>(service, loop, front, request);
    if (!loop->add(call)) return;
    (service.*request)(call->context_.get(), &call->request_, call->responder_.get(), loop->queue(),
                       loop->queue(), call->request_tag_.arm());
  }

  ControlCall(ControlAsyncService& service, std::shared_ptr<Loop> loop,
              std::shared_ptr<Front> front, RequestCall<Request, Response> request)
      : service_(service),
        loop_(std::move(loop)),
        front_(std::move(front)),
        request_call_(request),
        context_(std::make_unique<grpc::ServerContext>()),
        responder_(std::make_unique<grpc::ServerAsyncResponseWriter<Response>>(context_.get())) {}

  void on_reactor() override {
    spawn(run(std::static_pointer_cast<ControlCall>(shared_from_this())));
  }

  void cancel(const Error& why) override {
    Status failed = why;
    answer(failed);
  }

 private:
  enum class Phase { kListening, kRunning, kAnswered };

  void on_request(bool came) {
    if (!came) {
      end();
      return;
    }
    listen(service_, loop_, front_, request_call_);
    std::optional<Error> cancelled;
    {
      std::lock_guard lock(mutex_);
      phase_ = Phase::kRunning;
      cancelled = cancelled_;
    }
    if (cancelled) {
      cancel(*cancelled);
    } else {
      loop_->wake(shared_from_this());
    }
  }

  static Task<void> run(std::shared_ptr<ControlCall> self) {
    auto& front = *self->front_;
    if (front.stopping) {
      self->answer(Error{ErrorCode::kUnavailable, "this node is stopping; ask the other one"});
      co_return;
    }
    if (front.running >= kControlCallsMax) {
      self->answer(Error{ErrorCode::kBusy, "too many control calls at once; try again"});
      co_return;
    }
    if (!kOnlyLooks<Request> &&
        standing_of(self->context_->auth_context().get()) == Standing::kViewer) {
      self->answer(Error{ErrorCode::kRefused, "the certificate of " +
                                                  peer_name(self->context_->auth_context().get()) +
                                                  " may only look (its unit is " + kViewerUnit +
                                                  "); use an operator's certificate"});
      co_return;
    }
    ++front.running;
    auto task = handle(front.control, self->request_, self->response_);
    auto status = co_await std::move(task);
    self->answer(status);
    if (--front.running == 0) front.idle.notify_all();
  }

  /// The first answer counts; the service may have given the call up before its task was done.
  void answer(const Status& status) {
    std::lock_guard lock(mutex_);
    if (phase_ == Phase::kListening && !status) cancelled_ = status.error();
    if (phase_ != Phase::kRunning) return;
    phase_ = Phase::kAnswered;
    if (status) {
      responder_->Finish(response_, grpc::Status::OK, finish_tag_.arm());
    } else {
      responder_->FinishWithError(to_status(status.error(), *context_), finish_tag_.arm());
    }
    loop_->look_soon();
  }

  void on_finish(bool) { end(); }

  void end() {
    {
      std::lock_guard lock(mutex_);
      phase_ = Phase::kAnswered;
      responder_.reset();
      context_.reset();
    }
    loop_->remove(this);
  }

  ControlAsyncService& service_;
  const std::shared_ptr<Loop> loop_;
  const std::shared_ptr<Front> front_;
  const RequestCall<Request, Response> request_call_;
  std::mutex mutex_;  // guards the phase, the responder and the context
  Phase phase_ = Phase::kListening;
  std::optional<Error> cancelled_;
  std::unique_ptr<grpc::ServerContext> context_;
  std::unique_ptr<grpc::ServerAsyncResponseWriter<Response>> responder_;
  Request request_;
  Response response_;
  Tag<ControlCall> request_tag_{this, &ControlCall::on_request};
  Tag<ControlCall> finish_tag_{this, &ControlCall::on_finish};
};

}  // namespace

void listen_for_control(ControlAsyncService& service, std::shared_ptr<Loop> loop,
                        std::shared_ptr<Front> front) {
  const auto listen = [&]<class Request, class Response>(RequestCall<Request, Response> call) {
    ControlCall<Request, Response>::listen(service, loop, front, call);
  };
  using S = ControlAsyncService;
  listen.template operator()<v1::GetStatusRequest, v1::NodeStatus>(&S::RequestGetStatus);
  listen.template operator()<v1::GetLatencyRequest, v1::NodeLatency>(&S::RequestGetLatency);
  listen.template operator()<v1::CreateVolumeRequest, v1::CreateVolumeResponse>(
      &S::RequestCreateVolume);
  listen.template operator()<v1::ResizeVolumeRequest, v1::ResizeVolumeResponse>(
      &S::RequestResizeVolume);
  listen.template operator()<v1::DeleteVolumeRequest, v1::DeleteVolumeResponse>(
      &S::RequestDeleteVolume);
  listen.template operator()<v1::DeleteGroupRequest, v1::DeleteGroupResponse>(
      &S::RequestDeleteGroup);
  listen.template operator()<v1::CloneGroupRequest, v1::CloneGroupResponse>(&S::RequestCloneGroup);
  listen.template operator()<v1::SetModeRequest, v1::SetModeResponse>(&S::RequestSetMode);
  listen.template operator()<v1::AddMirrorRequest, v1::AddMirrorResponse>(&S::RequestAddMirror);
  listen.template operator()<v1::RemoveMirrorRequest, v1::RemoveMirrorResponse>(
      &S::RequestRemoveMirror);
  listen.template operator()<v1::ChangeSettingsRequest, v1::ChangeSettingsResponse>(
      &S::RequestChangeSettings);
  listen.template operator()<v1::CreateSnapshotRequest, v1::SnapshotStatus>(
      &S::RequestCreateSnapshot);
  listen.template operator()<v1::DeleteSnapshotRequest, v1::DeleteSnapshotResponse>(
      &S::RequestDeleteSnapshot);
  listen.template operator()<v1::RenameSnapshotRequest, v1::RenameSnapshotResponse>(
      &S::RequestRenameSnapshot);
  listen.template operator()<v1::GetSnapshotRequest, v1::SnapshotStatus>(&S::RequestGetSnapshot);
  listen.template operator()<v1::RollBackRequest, v1::RollBackResponse>(&S::RequestRollBack);
  listen.template operator()<v1::GetHistoryRequest, v1::HistoryStatus>(&S::RequestGetHistory);
  listen.template operator()<v1::KeepPointRequest, v1::SnapshotStatus>(&S::RequestKeepPoint);
  listen.template operator()<v1::StartScrubRequest, v1::StartScrubResponse>(&S::RequestStartScrub);
  listen.template operator()<v1::StopScrubRequest, v1::StopScrubResponse>(&S::RequestStopScrub);
  listen.template operator()<v1::StartCompactionRequest, v1::StartCompactionResponse>(
      &S::RequestStartCompaction);
  listen.template operator()<v1::StopCompactionRequest, v1::StopCompactionResponse>(
      &S::RequestStopCompaction);
  listen.template operator()<v1::CheckContentRequest, v1::CheckContentResponse>(
      &S::RequestCheckContent);
  listen.template operator()<v1::GetReceiptRequest, v1::Receipt>(&S::RequestGetReceipt);
  listen.template operator()<v1::PromoteRequest, v1::Receipt>(&S::RequestPromote);
  listen.template operator()<v1::DemoteRequest, v1::DemoteResponse>(&S::RequestDemote);
  listen.template operator()<v1::SwitchoverRequest, v1::SwitchoverResponse>(&S::RequestSwitchover);
}

}  // namespace tandem::rpc
