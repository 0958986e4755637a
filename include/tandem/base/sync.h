// Waiting on one thread: primitives for coroutines that share a reactor. None of them locks
// anything; all waiters are resumed in the order in which they began to wait.
#pragma once

#include <coroutine>
#include <cstddef>
#include <deque>
#include <utility>
#include <vector>

#include "tandem/base/check.h"
#include "tandem/base/task.h"

namespace tandem {

/// Many wait, one wakes them all; waiters check their condition in a loop.
class Condition {
 public:
  Condition() = default;
  Condition(const Condition&) = delete;
  Condition& operator=(const Condition&) = delete;
  ~Condition() { CHECK(waiters_.empty()); }

  struct Awaiter {
    Condition& condition;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) { condition.waiters_.push_back(h); }
    void await_resume() const noexcept {}
  };
  /// Suspends until the next notify_all().
  Awaiter wait() { return {*this}; }
  /// Resumes all that wait now, in order, from within this call.
  void notify_all() {
    auto woken = std::exchange(waiters_, {});
    for (auto h : woken) h.resume();
  }
  bool has_waiters() const { return !waiters_.empty(); }

 private:
  std::vector<std::coroutine_handle<>> waiters_;
};

/// Counts work in flight so that its owner can wait for the end of it (Seastar's gate).
/// The owner must await close() before it is destroyed.
class Gate {
 public:
  class Holder {
   public:
    explicit Holder(Gate& gate) : gate_(&gate) { ++gate.held_; }
    Holder(Holder&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)) {}
    Holder(const Holder&) = delete;
    Holder& operator=(Holder&&) = delete;
    ~Holder() {
      if (gate_ && --gate_->held_ == 0) gate_->empty_.notify_all();
    }

   private:
    Gate* gate_;
  };
  Holder hold() { return Holder(*this); }
  bool closed() const { return closed_; }
  std::size_t held() const { return held_; }
  /// Refuses nothing by itself: intake checks closed(). Returns when nothing is held.
  Task<void> close() {
    closed_ = true;
    while (held_ != 0) co_await empty_.wait();
  }
  ~Gate() { CHECK(held_ == 0); }

 private:
  std::size_t held_ = 0;
  bool closed_ = false;
  Condition empty_;
};

/// Mutual exclusion between coroutines of one thread, first come first served.
class AsyncMutex {
 public:
  class Lock {
   public:
    explicit Lock(AsyncMutex& m) : mutex_(&m) {}
    Lock(Lock&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    Lock(const Lock&) = delete;
    Lock& operator=(Lock&&) = delete;
    ~Lock() {
      if (mutex_) mutex_->unlock();
    }

   private:
    AsyncMutex* mutex_;
  };
  struct Awaiter {
    AsyncMutex& mutex;
    bool await_ready() noexcept { return !std::exchange(mutex.locked_, true); }
    void await_suspend(std::coroutine_handle<> h) { mutex.waiters_.push_back(h); }
    Lock await_resume() noexcept { return Lock(mutex); }
  };
  Awaiter lock() { return {*this}; }
  bool locked() const { return locked_; }

 private:
  void unlock() {
    if (waiters_.empty()) {
      locked_ = false;
      return;
    }
    auto next = waiters_.front();
    waiters_.pop_front();
    next.resume();  // the lock stays taken, now by `next`
  }
  bool locked_ = false;
  std::deque<std::coroutine_handle<>> waiters_;
};

}  // namespace tandem
