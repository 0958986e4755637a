#include "rpc/peer_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>

#include "rpc/address.h"
#include "rpc/channel.h"
#include "rpc/control_translation.h"
#include "rpc/credentials.h"
#include "rpc/errors.h"
#include "rpc/translation.h"
#include "tandem/base/sync.h"
#include "tandem/v1/control.grpc.pb.h"

namespace tandem::rpc {
namespace {

using Stub = v1::Control::Stub;

template <class Request, class Response>
using Prepare = std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> (Stub::*)(
    grpc::ClientContext*, const Request&, grpc::CompletionQueue*);

/// One call; gRPC's part of it ends on the loop's thread, the waiting task resumes on the reactor.
template <class Request, class Response>
class PeerCall final : public Operation {
 public:
  /// `options` outlives the loop's operations.
  PeerCall(std::shared_ptr<Loop> loop, std::string address, std::shared_ptr<grpc::Channel> channel,
           const ServiceOptions& options)
      : loop_(std::move(loop)),
        address_(std::move(address)),
        options_(options),
        channel_(std::move(channel)),
        stub_(channel_),
        context_(std::make_unique<grpc::ClientContext>()) {}

  /// False: the node is stopping.
  bool start(Prepare<Request, Response> prepare, const Request& request, Nanoseconds limit) {
    if (!loop_->add(shared_from_this())) return false;
    context_->set_deadline(std::chrono::system_clock::now() +
                           std::chrono::duration_cast<std::chrono::microseconds>(limit));
    std::lock_guard lock(mutex_);
    reader_ = (stub_.*prepare)(context_.get(), request, loop_->queue());
    reader_->StartCall();
    reader_->Finish(&response_, &status_, finish_tag_.arm());
    loop_->look_soon();
    return true;
  }
  void cancel(const Error&) override {
    std::lock_guard lock(mutex_);
    if (reader_) context_->TryCancel();
  }
  void on_reactor() override {
    finished_ = true;
    done_.notify_all();
  }
  Task<void> finished() {
    while (!finished_) co_await done_.wait();
  }
  const Response& response() const { return response_; }
  const std::optional<Error>& error() const { return error_; }

 private:
  void on_finish(bool) {
    if (!status_.ok())
      error_ = explain_failure(status_, *context_, address_, options_.tls, options_.files);
    {
      std::lock_guard lock(mutex_);
      reader_.reset();
    }
    context_.reset();
    loop_->wake(shared_from_this());
    loop_->remove(this);
  }

  const std::shared_ptr<Loop> loop_;
  const std::string address_;
  const ServiceOptions& options_;
  std::shared_ptr<grpc::Channel> channel_;
  Stub stub_;
  std::mutex mutex_;  // guards reader_
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<Response>> reader_;
  Response response_;
  grpc::Status status_;
  std::optional<Error> error_;
  bool finished_ = false;  // the reactor's
  Condition done_;
  Tag<PeerCall> finish_tag_{this, &PeerCall::on_finish};
};

class PeerClient final : public Peers {
 public:
  PeerClient(std::shared_ptr<Loop> loop, const ServiceOptions& options,
             FreshCredentials& credentials)
      : loop_(std::move(loop)), options_(options), credentials_(credentials) {}

  Task<Result<NodeStatus>> status(std::string address, Nanoseconds limit) override {
    v1::GetStatusRequest request;
    auto task = call<v1::GetStatusRequest, v1::NodeStatus>(&Stub::PrepareAsyncGetStatus,
                                                           std::move(address), request, limit);
    auto answer = co_await std::move(task);
    if (!answer) co_return std::move(answer.error());
    co_return from_proto(*answer);
  }

  Task<Result<Receipt>> receipt(std::string address, std::string group,
                                Nanoseconds limit) override {
    v1::GetReceiptRequest request;
    request.set_group(group);
    auto task = call<v1::GetReceiptRequest, v1::Receipt>(&Stub::PrepareAsyncGetReceipt,
                                                         std::move(address), request, limit);
    auto answer = co_await std::move(task);
    if (!answer) co_return std::move(answer.error());
    co_return from_proto(*answer);
  }

  Task<Result<Receipt>> promote(std::string address, std::string group, bool force,
                                Nanoseconds limit) override {
    v1::PromoteRequest request;
    request.set_group(group);
    request.set_force(force);
    auto task = call<v1::PromoteRequest, v1::Receipt>(&Stub::PrepareAsyncPromote,
                                                      std::move(address), request, limit);
    auto answer = co_await std::move(task);
    if (!answer) co_return std::move(answer.error());
    co_return from_proto(*answer);
  }

  Task<Result<Receipt>> take_over(std::string address, std::string group,
                                  Nanoseconds limit) override {
    v1::PromoteRequest request;
    request.set_group(group);
    request.set_force(true);  // for a node that does not know the planned form
    request.set_planned(true);
    auto task = call<v1::PromoteRequest, v1::Receipt>(&Stub::PrepareAsyncPromote,
                                                      std::move(address), request, limit);
    auto answer = co_await std::move(task);
    if (!answer) co_return std::move(answer.error());
    co_return from_proto(*answer);
  }

  Task<Status> add_mirror(std::string address, AddMirror in, Nanoseconds limit) override {
    v1::AddMirrorRequest request;
    request.set_group(in.group);
    request.set_address(in.address);
    request.set_mode(to_proto(in.mode));
    auto task = call<v1::AddMirrorRequest, v1::AddMirrorResponse>(
        &Stub::PrepareAsyncAddMirror, std::move(address), request, limit);
    auto answer = co_await std::move(task);
    if (!answer) co_return std::move(answer.error());
    co_return ok();
  }

  Task<Status> demote(std::string address, std::string group, Nanoseconds limit) override {
    v1::DemoteRequest request;
    request.set_group(group);
    auto task = call<v1::DemoteRequest, v1::DemoteResponse>(&Stub::PrepareAsyncDemote,
                                                            std::move(address), request, limit);
    auto answer = co_await std::move(task);
    if (!answer) co_return std::move(answer.error());
    co_return ok();
  }

 private:
  template <class Request, class Response>
  Task<Result<Response>> call(Prepare<Request, Response> prepare, std::string address,
                              const Request& request, Nanoseconds limit) {
    if (const auto parsed = parse_address(address); !parsed) co_return Error(parsed.error());
    const auto connect = std::min<std::chrono::milliseconds>(
        options_.connect_timeout, std::chrono::duration_cast<std::chrono::milliseconds>(limit));
    auto channel = make_channel(address, credentials_.now(), connect, options_.keepalive,
                                options_.keepalive_timeout);
    auto running =
        std::make_shared<PeerCall<Request, Response>>(loop_, address, std::move(channel), options_);
    if (!running->start(prepare, request, limit))
      co_return Error{ErrorCode::kCancelled, "this node is stopping"};
    auto finished = running->finished();
    co_await std::move(finished);
    if (running->error()) co_return *running->error();
    co_return running->response();
  }

  const std::shared_ptr<Loop> loop_;
  const ServiceOptions& options_;
  FreshCredentials& credentials_;
};

}  // namespace

std::unique_ptr<Peers> make_peers(std::shared_ptr<Loop> loop, const ServiceOptions& options,
                                  FreshCredentials& credentials) {
  return std::make_unique<PeerClient>(std::move(loop), options, credentials);
}

}  // namespace tandem::rpc
