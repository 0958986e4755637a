// Reactor: the one thread on which a node's store, replication and sockets live.
//
// It serves, in one loop, the work posted to it, its timers and one io_uring, on which it waits for
// sockets too. A turn runs what is ready, then hands every request of that turn to the kernel in
// one system call; when nothing is left to do, that call is also the sleep. A hop between threads
// costs more than anything else on a write's way, so completions, sockets and the store all run
// here.
//
// Thread: run(), run_until() and wait_for() make the calling thread the reactor's thread; only one
// thread may drive a reactor at a time. post() and stop() may be called from any thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>

#include "tandem/base/result.h"
#include "tandem/base/task.h"
#include "tandem/port/executor.h"
#include "tandem/port/readiness.h"

namespace tandem::device {

class Ring;

struct ReactorOptions {
  /// Slots of the submission queue; four times as many requests may be in flight, more wait here.
  unsigned ring_entries = 512;
  /// Before sleeping, look for more work this long: see tandem/base/spin.h. Zero: sleep at once.
  Nanoseconds spin{0};
};

class Reactor final : public Executor, public Clock, public Random {
 public:
  /// Errors: kUnsupported when the kernel has no (usable) io_uring; the message says what to do.
  static Result<std::unique_ptr<Reactor>> create(ReactorOptions options = {});
  /// Every device must be gone and every request complete. Posted work is dropped, not run.
  ~Reactor() override;
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  /// Serves until stop(); a stop() that came before makes the next run() return at once.
  void run();
  /// Any thread; run() returns after the turn that is under way.
  void stop();
  /// Serves until `done` is true (whatever stop() says): for start-up, shut-down and tests.
  void run_until(const bool& done);
  /// Starts `task` and serves until it has completed.
  template <class T>
  T wait_for(Task<T> task) {
    std::optional<T> result;
    bool done = false;
    adopt_thread();
    spawn(store_result(std::move(task), result, done));
    run_until(done);
    return std::move(*result);
  }
  void wait_for(Task<void> task) {
    bool done = false;
    adopt_thread();
    spawn(mark_done(std::move(task), done));
    run_until(done);
  }

  /// For the sockets of the front ends, and signals. Every wait must have ended before the reactor
  /// is destroyed.
  Readiness& readiness();

  // Executor
  void post(std::function<void()> work) override;
  TimerId schedule_after(Nanoseconds delay, std::function<void()> work) override;
  void cancel(TimerId timer) override;
  bool is_here() const override;
  // Clock
  Nanoseconds monotonic() const override;
  UtcNs utc() const override;
  // Random: from the kernel; reactor's thread only.
  std::uint64_t next() override;

  Runtime runtime() { return {*this, *this, *this}; }

  /// For open_device() only.
  Ring& ring();

 private:
  struct Impl;
  explicit Reactor(std::unique_ptr<Impl> impl);

  template <class T>
  static Task<void> store_result(Task<T> task, std::optional<T>& result, bool& done) {
    auto value = co_await std::move(task);
    result.emplace(std::move(value));
    done = true;
  }
  static Task<void> mark_done(Task<void> task, bool& done) {
    co_await std::move(task);
    done = true;
  }
  void adopt_thread();
  template <class Done>
  void turn(const Done& is_done);
  void run_posted();
  void run_timers();
  void submit_awake();
  void sleep_until_something_happens();
  bool spin_helped();

  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::device
