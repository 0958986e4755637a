// Executor, Clock, Random: scheduling, time and chance come in through ports, so that one seeded
// simulator can run whole nodes and repeat a run exactly. Nothing at or below `control` names a
// thread, std::chrono::*::now(), std::random_device or an io_context.
#pragma once

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <functional>

#include "tandem/base/units.h"

namespace tandem {

using Nanoseconds = std::chrono::nanoseconds;
using TimerId = std::uint64_t;

class Executor {
 public:
  virtual ~Executor() = default;
  /// Runs `work` on the reactor's thread after what runs now; any thread may call it. Work posted
  /// from one thread runs in the order posted.
  virtual void post(std::function<void()> work) = 0;
  /// Runs `work` on the reactor's thread once `delay` has passed; reactor's thread only.
  virtual TimerId schedule_after(Nanoseconds delay, std::function<void()> work) = 0;
  /// The timer will not fire after this returns; unknown and past ids are ignored.
  virtual void cancel(TimerId timer) = 0;
  /// True on the reactor's thread.
  virtual bool is_here() const = 0;
};

class Clock {
 public:
  virtual ~Clock() = default;
  /// Never runs backwards; for time-outs and ages.
  virtual Nanoseconds monotonic() const = 0;
  /// Wall-clock time; may step. Records order themselves by max(last, utc()).
  virtual UtcNs utc() const = 0;
};

class Random {
 public:
  virtual ~Random() = default;
  virtual std::uint64_t next() = 0;
};

/// What a module that lives on a reactor is given.
struct Runtime {
  Executor& executor;
  Clock& clock;
  Random& random;
};

/// `co_await next_turn(executor)`: go on after what runs now and what was posted before. Disks and
/// sockets get their share in between at the latest after a few of these.
struct TurnAwaiter {
  Executor& executor;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    executor.post([h] { h.resume(); });
  }
  void await_resume() const noexcept {}
};
inline TurnAwaiter next_turn(Executor& executor) { return {executor}; }

/// `co_await sleep_for(executor, delay)`: cannot be interrupted, so keep delays short.
struct SleepAwaiter {
  Executor& executor;
  Nanoseconds delay;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) {
    executor.schedule_after(delay, [h] { h.resume(); });
  }
  void await_resume() const noexcept {}
};
inline SleepAwaiter sleep_for(Executor& executor, Nanoseconds delay) { return {executor, delay}; }

}  // namespace tandem
