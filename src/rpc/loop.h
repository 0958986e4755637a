// The completion loop: gRPC's one completion queue of this process, for all streams and unary calls
// in both directions, and who serves it.
//
// With a Readiness that is the reactor: it waits for gRPC's sockets itself (rpc/sockets.h), has
// gRPC read what came, and handles at once what that completed. A message goes from its socket to
// the store, and an answer back, without a thread that hands it over: waking one costs more than
// gRPC. When a write does not fit into its socket, or a large message has come, much is on its way;
// then the loop's thread serves, so that gRPC's copies and TLS have a core of their own, and gives
// back a moment after the last of them.
//
// Without a Readiness, or where gRPC's sockets cannot be waited for, the thread always serves and
// posts to the reactor. It is one, because two threads in gRPC's poller hand its role to each other
// at every event.
//
// What the reactor begins and gRPC completes at once (nearly every Write) is handled where it
// began: see begin().
#pragma once

#include <grpcpp/completion_queue.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "rpc/sockets.h"
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
  /// On the reactor, once after Loop::wait_for_bytes().
  virtual void on_bytes() {}
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
class Loop : public std::enable_shared_from_this<Loop> {
 public:
  /// `executor` must outlive every call of wake(). `readiness`: the reactor's, which then serves;
  /// null: the thread does.
  /// `spin`: how long a thread that always serves looks for more before it sleeps, see
  /// tandem/base/spin.h.
  static std::shared_ptr<Loop> start(Executor& executor, Readiness* readiness,
                                     std::unique_ptr<grpc::ServerCompletionQueue> queue,
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
  /// here if it comes at once, as that of a small write does. No lock that a handler takes may be
  /// held. Reactor's thread.
  template <class Start>
  void begin(Event& mine, Start&& start) {
    {
      Catch caught(queue_->cq());
      start();
      settle(mine, caught);
    }
    if (writes_ != 0) lend();
  }
  /// What began on the reactor without begin() may have completed at once: looks for it, soon.
  void look_soon();
  /// Has operation->on_bytes() called when sockets had something, at the latest a sweep later.
  /// False when the thread serves: there is nobody who would call it. Reactor's thread.
  bool wait_for_bytes(std::shared_ptr<Operation> operation);
  /// Much comes, and more will: the thread serves for a while. Any thread.
  void expect_much();
  /// Of every Write: between the two it is with gRPC.
  void write_began() { ++writes_; }
  void write_ended() { --writes_; }

  /// Refuses new operations from here on, and lets the thread serve to the end: the reactor may
  /// block. Reactor's thread, or any while the reactor does not run.
  void refuse();
  /// Cancels every operation that is listed, waits for all of them to leave, ends the thread. No
  /// server may be taking calls from the queue any more. Blocks, within bounds that gRPC keeps.
  void stop(const Error& why);

 private:
  /// What completes on this thread meanwhile is kept here instead of being queued: one event.
  class Catch {
   public:
    explicit Catch(grpc_completion_queue* queue);
    void open();
    /// True when there is one; then nothing is kept any more until open().
    bool take(void** tag, bool* ok);

   private:
    grpc_completion_queue* queue_;
  };
  class Stray;
  using Clock = std::chrono::steady_clock;

  Loop(Executor& executor, std::unique_ptr<grpc::ServerCompletionQueue> queue,
       std::chrono::nanoseconds spin);
  void watch(Readiness& readiness);
  template <class Work>
  std::function<void()> while_here(Work work);
  bool serves_here() const { return sockets_ && !lent_ && !ending_here_; }
  void serve();
  bool poll_one();
  bool handle_caught(Catch& caught);
  void tell_bytes();
  void sweep();
  void tick();
  void lend();
  void take_back();
  void run();
  bool run_lent();
  void run_always();
  void settle(Event& mine, Catch& caught);
  static void handle(void* tag, bool ok);

  Executor& executor_;
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;

  // The reactor's; no sockets: the thread always serves.
  std::unique_ptr<Sockets> sockets_;
  bool lent_ = false;  // to the thread
  bool ending_here_ = false;
  bool sweep_is_due_ = false;
  bool look_is_due_ = false;
  std::vector<std::shared_ptr<Operation>> wait_for_bytes_;

  std::atomic<int> writes_{0};                // with gRPC
  std::atomic<Clock::time_point> much_at_{};  // was on its way

  std::mutex mutex_;
  std::condition_variable idle_;
  std::condition_variable thread_wanted_;
  bool thread_serves_ = false;                       // mutex_
  bool refusing_ = false;                            // mutex_
  bool stopped_ = false;                             // mutex_
  std::set<std::shared_ptr<Operation>> operations_;  // mutex_
  AdaptiveSpin spin_;                                // the thread's
  std::thread thread_;
};

}  // namespace tandem::rpc
