#include "rpc/health_service.h"

#include <grpcpp/grpcpp.h>

#include <mutex>
#include <utility>

namespace tandem::rpc {
namespace {

namespace health = grpc::health::v1;
using Answer = health::HealthCheckResponse;
using Serving = std::shared_ptr<const std::atomic<bool>>;

bool is_known(const std::string& service) {
  return service.empty() || service == "tandem.v1.Control" || service == "tandem.v1.Replication";
}

Answer answer_for(const std::string& service, const Serving& serving) {
  Answer answer;
  answer.set_status(!is_known(service) ? Answer::SERVICE_UNKNOWN
                    : serving->load()  ? Answer::SERVING
                                       : Answer::NOT_SERVING);
  return answer;
}

/// Check: one question, one answer.
class CheckCall final : public Operation {
 public:
  static void listen(HealthAsyncService& service, const std::shared_ptr<Loop>& loop,
                     const Serving& serving) {
    auto call = std::make_shared<CheckCall>(service, loop, serving);
    if (!loop->add(call)) return;
    service.RequestCheck(&call->context_, &call->request_, &call->responder_, loop->queue(),
                         loop->queue(), call->request_tag_.arm());
  }
  CheckCall(HealthAsyncService& service, std::shared_ptr<Loop> loop, Serving serving)
      : service_(service), loop_(std::move(loop)), serving_(std::move(serving)) {}
  void cancel(const Error&) override {}  // it is answered at once anyway

 private:
  void on_request(bool came) {
    if (!came) {
      loop_->remove(this);
      return;
    }
    listen(service_, loop_, serving_);
    if (is_known(request_.service())) {
      responder_.Finish(answer_for(request_.service(), serving_), grpc::Status::OK,
                        finish_tag_.arm());
    } else {
      responder_.FinishWithError({grpc::StatusCode::NOT_FOUND, "no such service here"},
                                 finish_tag_.arm());
    }
  }
  void on_finish(bool) { loop_->remove(this); }

  HealthAsyncService& service_;
  const std::shared_ptr<Loop> loop_;
  const Serving serving_;
  grpc::ServerContext context_;
  health::HealthCheckRequest request_;
  grpc::ServerAsyncResponseWriter<Answer> responder_{&context_};
  Tag<CheckCall> request_tag_{this, &CheckCall::on_request};
  Tag<CheckCall> finish_tag_{this, &CheckCall::on_finish};
};

/// Watch: the state now, then silence until the client goes or the node stops (which ends the call:
/// the state changes only once).
class WatchCall final : public Operation {
 public:
  static void listen(HealthAsyncService& service, const std::shared_ptr<Loop>& loop,
                     const Serving& serving) {
    auto call = std::make_shared<WatchCall>(service, loop, serving);
    if (!loop->add(call)) return;
    call->context_.AsyncNotifyWhenDone(call->done_tag_.arm());
    service.RequestWatch(&call->context_, &call->request_, &call->writer_, loop->queue(),
                         loop->queue(), call->request_tag_.arm());
  }
  WatchCall(HealthAsyncService& service, std::shared_ptr<Loop> loop, Serving serving)
      : service_(service), loop_(std::move(loop)), serving_(std::move(serving)) {}
  void cancel(const Error&) override {
    std::lock_guard lock(mutex_);
    stop_ = true;
    finish_if_due();
  }

 private:
  void on_request(bool came) {
    if (!came) {
      done_tag_.disarm();
      loop_->remove(this);
      return;
    }
    listen(service_, loop_, serving_);
    std::lock_guard lock(mutex_);
    open_ = writing_ = true;
    writer_.Write(answer_for(request_.service(), serving_), write_tag_.arm());
  }
  void on_write(bool) {
    std::lock_guard lock(mutex_);
    writing_ = false;
    finish_if_due();
  }
  void on_done(bool) {
    std::lock_guard lock(mutex_);
    done_ = stop_ = true;
    finish_if_due();
    leave_if_over();
  }
  void on_finish(bool) {
    std::lock_guard lock(mutex_);
    finished_ = true;
    leave_if_over();
  }
  void finish_if_due() {
    if (!open_ || !stop_ || writing_ || std::exchange(finishing_, true)) return;
    writer_.Finish({grpc::StatusCode::UNAVAILABLE, "this node is stopping"}, finish_tag_.arm());
  }
  void leave_if_over() {
    if (done_ && finished_) loop_->remove(this);
  }

  HealthAsyncService& service_;
  const std::shared_ptr<Loop> loop_;
  const Serving serving_;
  grpc::ServerContext context_;
  health::HealthCheckRequest request_;
  grpc::ServerAsyncWriter<Answer> writer_{&context_};
  std::mutex mutex_;  // guards what follows
  bool open_ = false, writing_ = false, stop_ = false;
  bool finishing_ = false, finished_ = false, done_ = false;
  Tag<WatchCall> request_tag_{this, &WatchCall::on_request};
  Tag<WatchCall> write_tag_{this, &WatchCall::on_write};
  Tag<WatchCall> done_tag_{this, &WatchCall::on_done};
  Tag<WatchCall> finish_tag_{this, &WatchCall::on_finish};
};

}  // namespace

void listen_for_health(HealthAsyncService& service, std::shared_ptr<Loop> loop,
                       std::shared_ptr<const std::atomic<bool>> serving) {
  CheckCall::listen(service, loop, serving);
  WatchCall::listen(service, loop, serving);
}

}  // namespace tandem::rpc
