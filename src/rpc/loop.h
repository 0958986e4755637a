// The completion loop: gRPC's one completion queue of this process and the one thread of ours that
// serves it, for all streams and unary calls in both directions.
//
// Why one: two threads in gRPC's poller hand its role to each other at every event, four context
// switches an operation instead of one. What it has for the reactor is posted at once: only the
// first post of several has to wake it. What the reactor begins and gRPC completes at once (nearly
// every Write) is handled where it began: see begin().
#pragma once

#include <grpcpp/completion_queue.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "tandem/base/check.h"
#include "tandem/base/result.h"
#include "tandem/base/spin.h"
#include "tandem/port/executor.h"

// gRPC passes a tag from the thread that starts an operation to the loop's with atomics of its own,
// which the thread sanitizer does not see because the library is not built with it.
#if defined(__SANITIZE_THREAD__)
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#define TANDEM_HAND_OVER(address) __tsan_release(address)
#define TANDEM_TAKE_OVER(address) __tsan_acquire(address)
#else
#define TANDEM_HAND_OVER(address) static_cast<void>(0)
#define TANDEM_TAKE_OVER(address) static_cast<void>(0)
#endif

namespace tandem::rpc {

/// What a completion's tag points to.
class Event {
 public:
  virtual void on_event(bool ok) = 0;

 protected:
  ~Event() = default;
};

/// A call in either direction, from its creation until gRPC holds nothing of it any more.
class Operation : public std::enable_shared_from_this<Operation> {
 public:
  virtual ~Operation() = default;
  /// On the reactor, some time after Loop::wake().
  virtual void on_reactor() {}
  /// Ends it as soon as possible because of `why`; any thread; harmless when it has ended.
  virtual void cancel(const Error& why) = 0;
};

/// One kind of completion of one operation; keeps the operation alive while it is outstanding.
template <class Owner>
class Tag final : public Event {
 public:
  using Handler = void (Owner::*)(bool ok);
  Tag(Owner* owner, Handler handler) : owner_(owner), handler_(handler) {}
  /// To be handed to gRPC; the completion must follow.
  void* arm() {
    CHECK(!hold_);
    hold_ = owner_->shared_from_this();
    auto* event = static_cast<Event*>(this);
    TANDEM_HAND_OVER(event);
    return event;
  }
  /// For a tag that gRPC will not return after all.
  void disarm() { hold_.reset(); }
  void on_event(bool ok) override {
    auto hold = std::move(hold_);
    (owner_->*handler_)(ok);
  }

 private:
  Owner* owner_;
  Handler handler_;
  std::shared_ptr<Operation> hold_;
};

/// Thread-safe. Must outlive nothing: operations hold it.
class Loop {
 public:
  /// `executor` must outlive every call of wake().
  /// `spin`: how long to look for more before sleeping, see tandem/base/spin.h.
  Loop(Executor& executor, std::unique_ptr<grpc::ServerCompletionQueue> queue,
       std::chrono::nanoseconds spin);
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  grpc::ServerCompletionQueue* queue() { return queue_.get(); }
  Executor& executor() { return executor_; }

  /// Lists an operation that will use the queue; false when the loop is stopping: the caller then
  /// starts nothing.
  bool add(std::shared_ptr<Operation> operation);
  /// gRPC holds nothing of `operation` any more.
  void remove(const Operation* operation);
  /// Has operation->on_reactor() called, in the order of the calls.
  void wake(std::shared_ptr<Operation> operation);

  /// Calls `start`, which begins at most one operation of the caller's, and handles its completion
  /// here if it comes at once, as that of a small write does: the loop's thread sleeps on. No lock
  /// that a handler takes may be held. Other operations' completions stay the loop's.
  template <class Start>
  void begin(Event& mine, Start&& start) {
    Catch caught(queue_->cq());
    start();
    settle(mine, caught);
  }

  /// Refuses new operations from here on.
  void refuse();
  /// Cancels every operation that is listed, waits for all of them to leave, ends the thread. No
  /// server may be taking calls from the queue any more. Blocks, within bounds that gRPC keeps.
  void stop(const Error& why);

 private:
  /// What completes on this thread meanwhile is kept here instead of being queued: one event.
  class Catch {
   public:
    explicit Catch(grpc_completion_queue* queue);
    /// True when there is one.
    bool take(void** tag, bool* ok);

   private:
    grpc_completion_queue* queue_;
  };
  class Stray;

  void run();
  void settle(Event& mine, Catch& caught);

  Executor& executor_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::mutex mutex_;
  std::condition_variable idle_;
  bool refusing_ = false;                            // mutex_
  bool stopped_ = false;                             // mutex_
  std::set<std::shared_ptr<Operation>> operations_;  // mutex_
  AdaptiveSpin spin_;                                // the thread's
  std::thread thread_;
};

}  // namespace tandem::rpc
