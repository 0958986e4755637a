#include "rpc/loop.h"

#include <grpc/grpc.h>
#include <grpc/support/time.h>
#include <grpcpp/alarm.h>
#include <grpcpp/impl/codegen/completion_queue_tag.h>

#include <utility>

#include "tandem/base/log.h"

namespace tandem::rpc {
namespace {

/// A poll serves one socket. gRPC takes all that are ready from the kernel at once and does not say
/// whether more of them wait: so two polls at least, and more as long as they complete something.
constexpr int kPollsMin = 2;
/// Then others have their turn.
constexpr int kPollsMax = 16;
/// A socket that was taken and not seen (behind two which completed nothing, or by a thread of
/// gRPC's own that waits until a write fits) is served by a sweep, this much later.
constexpr Nanoseconds kSweepDelay = std::chrono::milliseconds(2);
constexpr int kSweepPolls = 4;
/// What gRPC completes by the clock (a deadline has passed) is nobody's socket.
constexpr Nanoseconds kTick = std::chrono::milliseconds(200);
/// The thread serves for this long behind the last time that much was on its way.
constexpr std::chrono::milliseconds kLent{20};

gpr_timespec from_now(std::chrono::milliseconds time) {
  return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                      gpr_time_from_millis(time.count(), GPR_TIMESPAN));
}

}  // namespace

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

Loop::Catch::Catch(grpc_completion_queue* queue) : queue_(queue) { open(); }

void Loop::Catch::open() { grpc_completion_queue_thread_local_cache_init(queue_); }

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
    : executor_(executor), queue_(std::move(queue)), spin_(spin) {}

std::shared_ptr<Loop> Loop::start(Executor& executor, Readiness* readiness,
                                  std::unique_ptr<grpc::ServerCompletionQueue> queue,
                                  std::chrono::nanoseconds spin) {
  std::shared_ptr<Loop> loop(new Loop(executor, std::move(queue), spin));
  if (readiness != nullptr && Sockets::epoll_set() >= 0) loop->watch(*readiness);
  loop->thread_ = std::thread([raw = loop.get()] { raw->run(); });
  return loop;
}

/// `work`, unless the loop has gone.
template <class Work>
std::function<void()> Loop::while_here(Work work) {
  return [weak = weak_from_this(), work] {
    if (const auto self = weak.lock()) work(*self);
  };
}

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
  ending_here_ = true;
  if (sockets_) sockets_->ignore();
  {
    std::lock_guard lock(mutex_);
    refusing_ = true;
    thread_serves_ = true;
  }
  thread_wanted_.notify_all();
  tell_bytes();
}

void Loop::stop(const Error& why) {
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopped_, true)) return;
  }
  refuse();
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

// ---- the reactor serves ---------------------------------------------------------------------

void Loop::watch(Readiness& readiness) {
  sockets_ = std::make_unique<Sockets>(readiness, [this] { serve(); });
  executor_.post(while_here([](Loop& self) {
    if (self.ending_here_) return;
    self.sockets_->watch();
    self.tick();
  }));
}

/// Every call is followed by a sweep.
void Loop::serve() {
  if (!serves_here()) return;
  bool served = false;
  int polls = 0;
  for (; serves_here() && (polls < kPollsMin || (served && polls < kPollsMax)); ++polls)
    served = poll_one();
  if (polls == kPollsMax) look_soon();
  if (std::exchange(sweep_is_due_, true)) return;
  executor_.schedule_after(kSweepDelay, while_here([](Loop& self) {
                             self.sweep_is_due_ = false;
                             self.sweep();
                           }));
}

void Loop::sweep() {
  bool served = false;
  for (int i = 0; i < kSweepPolls && serves_here(); ++i) served |= poll_one();
  if (served) serve();
}

void Loop::tick() {
  if (ending_here_) return;
  sweep();
  executor_.schedule_after(kTick, while_here([](Loop& self) { self.tick(); }));
}

void Loop::look_soon() {
  if (!sockets_ || !executor_.is_here() || std::exchange(look_is_due_, true)) return;
  executor_.post(while_here([](Loop& self) {
    self.look_is_due_ = false;
    self.serve();
  }));
}

/// True when it completed something.
bool Loop::poll_one() {
  Catch caught(queue_->cq());
  void* tag = nullptr;
  bool ok = false;
  bool any = queue_->AsyncNext(&tag, &ok, gpr_inf_past(GPR_CLOCK_MONOTONIC)) ==
             grpc::CompletionQueue::GOT_EVENT;
  if (any) handle(tag, ok);
  any |= handle_caught(caught);
  for (const auto& operation : std::exchange(wait_for_bytes_, {})) {
    caught.open();
    operation->on_bytes();
    any |= handle_caught(caught);
  }
  if (writes_ != 0) lend();
  return any;
}

bool Loop::handle_caught(Catch& caught) {
  void* tag = nullptr;
  bool ok = false;
  bool any = false;
  for (; caught.take(&tag, &ok); any = true) {
    caught.open();  // for what the handler begins
    handle(tag, ok);
  }
  return any;
}

bool Loop::wait_for_bytes(std::shared_ptr<Operation> operation) {
  if (!serves_here() || !executor_.is_here()) return false;
  wait_for_bytes_.push_back(std::move(operation));
  return true;
}

/// The thread serves from here on: nobody else would tell them.
void Loop::tell_bytes() {
  for (const auto& operation : std::exchange(wait_for_bytes_, {})) operation->on_bytes();
}

void Loop::lend() {
  if (!sockets_) return;
  much_at_ = Clock::now();
  if (!serves_here()) return;
  lent_ = true;
  sockets_->ignore();
  {
    std::lock_guard lock(mutex_);
    thread_serves_ = true;
  }
  thread_wanted_.notify_all();
  tell_bytes();
}

void Loop::expect_much() {
  if (executor_.is_here()) return lend();
  much_at_ = Clock::now();
}

void Loop::take_back() {
  lent_ = false;
  if (ending_here_) return;
  if (writes_ != 0) return lend();
  sockets_->watch();
  serve();
}

// ---- the thread serves ----------------------------------------------------------------------

void Loop::run() {
  if (!sockets_) return run_always();
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      thread_wanted_.wait(lock, [this] { return thread_serves_; });
    }
    if (!run_lent()) return;
  }
}

/// False at the end of the queue.
bool Loop::run_lent() {
  void* tag = nullptr;
  bool ok = false;
  for (;;) {
    const auto next = queue_->AsyncNext(&tag, &ok, from_now(kLent));
    if (next == grpc::CompletionQueue::SHUTDOWN) return false;
    if (next == grpc::CompletionQueue::GOT_EVENT) handle(tag, ok);
    if (writes_ != 0 || Clock::now() < much_at_.load() + kLent) continue;
    std::lock_guard lock(mutex_);
    if (refusing_) continue;
    thread_serves_ = false;
    executor_.post(while_here([](Loop& self) { self.take_back(); }));
    return true;
  }
}

void Loop::run_always() {
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
    handle(tag, ok);
  }
}

// ---- either ---------------------------------------------------------------------------------

void Loop::handle(void* tag, bool ok) {
  TANDEM_TAKE_OVER(tag);
  static_cast<Event*>(tag)->on_event(ok);
}

void Loop::settle(Event& mine, Catch& caught) {
  void* tag = nullptr;
  bool ok = false;
  if (!caught.take(&tag, &ok)) return;
  if (sockets_ || static_cast<Event*>(tag) == &mine) return handle(tag, ok);
  TANDEM_TAKE_OVER(tag);
  (new Stray(*static_cast<Event*>(tag), ok))->send(*queue_);
}

}  // namespace tandem::rpc
