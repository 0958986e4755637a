// Readiness: waiting until a descriptor can be read or written, for what is no disk: the sockets
// of front ends, signals. The transfers themselves are their owner's, and are tried first.
//
// Production: device/ring_readiness (polls of the reactor's io_uring; a wait costs no system call).
#pragma once

#include <coroutine>

namespace tandem {

/// One wait for one descriptor. Its owner keeps it in place, and the descriptor open, until `done`
/// was called; then it may be used again.
struct ReadinessWait {
  int fd = -1;
  bool for_write = false;
  void (*done)(ReadinessWait&, bool ready) = nullptr;
  void* owner = nullptr;      // whatever done() needs
  void* under_way = nullptr;  // the port's; null: it is not waiting
};

class Readiness {
 public:
  virtual ~Readiness() = default;
  /// Calls `wait.done` exactly once, on the reactor's thread, never from within: with true when the
  /// descriptor can be read (or written), was closed by the other side or has failed; with false
  /// after cancel(). Level-triggered: what is ready already is reported too. Reactor's thread.
  virtual void wait(ReadinessWait& wait) = 0;
  /// Ends `wait` soon; harmless for one that is not under way. Reactor's thread.
  virtual void cancel(ReadinessWait& wait) = 0;
};

/// `co_await until_ready(readiness, wait)`: false when it was cancelled.
class ReadyAwaiter {
 public:
  ReadyAwaiter(Readiness& readiness, ReadinessWait& wait) : readiness_(readiness), wait_(wait) {}
  bool await_ready() const noexcept { return false; }
  // The awaiter lives in the waiting coroutine's frame until done() resumes it.
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    wait_.owner = this;
    wait_.done = [](ReadinessWait& wait, bool ready) {
      auto* self = static_cast<ReadyAwaiter*>(wait.owner);
      self->ready_ = ready;
      self->waiter_.resume();
    };
    readiness_.wait(wait_);
  }
  bool await_resume() const noexcept { return ready_; }

 private:
  Readiness& readiness_;
  ReadinessWait& wait_;
  std::coroutine_handle<> waiter_;
  bool ready_ = false;
};
inline ReadyAwaiter until_ready(Readiness& readiness, ReadinessWait& wait) {
  return {readiness, wait};
}

}  // namespace tandem
