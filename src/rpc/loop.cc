#include "rpc/loop.h"

#include <grpc/grpc.h>
#include <grpc/support/time.h>
#include <grpcpp/alarm.h>
#include <grpcpp/impl/codegen/completion_queue_tag.h>

#include <utility>

#include "tandem/base/log.h"

namespace tandem::rpc {

/// A completion of somebody else's, sent to the loop's thread by an alarm that rings at once.
class Loop::Stray final : public Event {
 public:
  Stray(Event& event, bool ok) : event_(event), ok_(ok) {}
  void on_event(bool) override {
    event_.on_event(ok_);
    delete this;
  }
  void send(grpc::CompletionQueue& queue) {
    alarm_.Set(&queue, gpr_inf_past(GPR_CLOCK_MONOTONIC), static_cast<Event*>(this));
  }

 private:
  Event& event_;
  const bool ok_;
  grpc::Alarm alarm_;
};

Loop::Catch::Catch(grpc_completion_queue* queue) : queue_(queue) {
  grpc_completion_queue_thread_local_cache_init(queue_);
}

bool Loop::Catch::take(void** tag, bool* ok) {
  void* inner = nullptr;
  int good = 0;
  if (grpc_completion_queue_thread_local_cache_flush(queue_, &inner, &good) == 0) return false;
  *ok = good != 0;
  // The C++ layer's tag, which knows ours.
  return static_cast<grpc::internal::CompletionQueueTag*>(inner)->FinalizeResult(tag, ok);
}

Loop::Loop(Executor& executor, std::unique_ptr<grpc::ServerCompletionQueue> queue,
           std::chrono::nanoseconds spin)
    : executor_(executor), queue_(std::move(queue)), spin_(spin), thread_([this] { run(); }) {}

Loop::~Loop() { stop({ErrorCode::kCancelled, "the service stops"}); }

bool Loop::add(std::shared_ptr<Operation> operation) {
  std::lock_guard lock(mutex_);
  if (refusing_) return false;
  operations_.insert(std::move(operation));
  return true;
}

void Loop::remove(const Operation* operation) {
  std::shared_ptr<Operation> last;  // may be the last reference: dropped outside the lock
  std::lock_guard lock(mutex_);
  for (auto it = operations_.begin(); it != operations_.end(); ++it) {
    if (it->get() != operation) continue;
    last = *it;
    operations_.erase(it);
    break;
  }
  if (operations_.empty()) idle_.notify_all();
}

void Loop::wake(std::shared_ptr<Operation> operation) {
  executor_.post([operation = std::move(operation)] { operation->on_reactor(); });
}

void Loop::refuse() {
  std::lock_guard lock(mutex_);
  refusing_ = true;
}

void Loop::stop(const Error& why) {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopped_, true)) return;
    refusing_ = true;
  }
  std::set<std::shared_ptr<Operation>> running;
  {
    std::lock_guard lock(mutex_);
    running = operations_;
  }
  for (const auto& operation : running) operation->cancel(why);
  running.clear();
  {
    std::unique_lock lock(mutex_);
    const bool idle =
        idle_.wait_for(lock, std::chrono::seconds(30), [this] { return operations_.empty(); });
    if (!idle) log_event(Level::kError, "rpc.stuck", "operations={} after=30s", operations_.size());
    CHECK(idle);  // gRPC completes what was cancelled; a call that stays was never finished by us
  }
  queue_->Shutdown();
  thread_.join();
}

void Loop::run() {
  void* tag = nullptr;
  bool ok = false;
  for (;;) {
    auto next = grpc::CompletionQueue::TIMEOUT;
    const auto look = [&] {
      next = queue_->AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC));
      return next != grpc::CompletionQueue::TIMEOUT;
    };
    if (!spin_.wait_for(look) && !queue_->Next(&tag, &ok)) return;
    if (next == grpc::CompletionQueue::SHUTDOWN) return;
    TANDEM_TAKE_OVER(tag);
    static_cast<Event*>(tag)->on_event(ok);
  }
}

void Loop::settle(Event& mine, Catch& caught) {
  void* tag = nullptr;
  bool ok = false;
  if (!caught.take(&tag, &ok)) return;
  TANDEM_TAKE_OVER(tag);
  auto* event = static_cast<Event*>(tag);
  if (event == &mine) return event->on_event(ok);
  (new Stray(*event, ok))->send(*queue_);
}

}  // namespace tandem::rpc
