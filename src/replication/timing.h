// Time in coroutines, on the executor port only: a periodic tick, a pace, a back-off.
#pragma once

#include <algorithm>
#include <chrono>
#include <functional>
#include <utility>

#include "tandem/base/sync.h"
#include "tandem/base/task.h"
#include "tandem/port/executor.h"
#include "tandem/port/wait.h"

namespace tandem::replication {

/// Calls `work` every `period` between start() and stop(). One timer for all deadlines of an
/// object, so that no timer is armed or cancelled on the way of a write.
class Ticker {
 public:
  Ticker(const Runtime& runtime, Nanoseconds period, std::function<void()> work)
      : executor_(runtime.executor),
        clock_(runtime.clock),
        period_(period),
        work_(std::move(work)) {}
  Ticker(const Ticker&) = delete;
  Ticker& operator=(const Ticker&) = delete;
  ~Ticker() { stop(); }

  void start() {
    if (running_) return;
    running_ = true;
    arm();
  }
  /// `work` is not called after this returns; it may be called from within `work`.
  void stop() {
    if (!running_) return;
    running_ = false;
    executor_.cancel(timer_);
  }

 private:
  /// At multiples of the period: what many tickers do they do in one turn, and an idle node sleeps
  /// in between.
  void arm() {
    const auto past = clock_.monotonic() % period_;
    timer_ = executor_.schedule_after(period_ - past, [this] { fire(); });
  }
  void fire() {
    arm();  // first, so that stop() within work_ finds a timer to cancel
    work_();
  }
  Executor& executor_;
  Clock& clock_;
  Nanoseconds period_;
  std::function<void()> work_;
  TimerId timer_ = 0;
  bool running_ = false;
};

/// Spreads bytes over time. Nothing is saved up: a pause is never made good by a burst.
class Pace {
 public:
  void reset(Nanoseconds now) { free_at_ = now; }
  bool is_free(Nanoseconds now) const { return now >= free_at_; }
  Nanoseconds free_at() const { return free_at_; }
  void spend(Nanoseconds now, std::uint64_t bytes, std::uint64_t bytes_per_second) {
    const double seconds = static_cast<double>(bytes) / static_cast<double>(bytes_per_second);
    free_at_ = std::max(now, free_at_) + Nanoseconds(static_cast<std::int64_t>(seconds * 1e9));
  }

 private:
  Nanoseconds free_at_{0};
};

/// Doubling pauses with jitter, so that two nodes that come back together do not stay in step.
class Backoff {
 public:
  Backoff(Random& random, Nanoseconds first, Nanoseconds max)
      : random_(random), first_(first), max_(max), next_(first) {}
  void reset() { next_ = first_; }
  Nanoseconds next() {
    const auto base = next_;
    next_ = std::min(next_ * 2, max_);
    const auto half = static_cast<std::uint64_t>(base.count()) / 2 + 1;
    return base - Nanoseconds(random_.next() % half);
  }

 private:
  Random& random_;
  Nanoseconds first_;
  Nanoseconds max_;
  Nanoseconds next_;
};

}  // namespace tandem::replication
