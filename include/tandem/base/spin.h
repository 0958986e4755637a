// AdaptiveSpin: polls for a moment instead of going to sleep at once.
//
// Waking a thread on another core costs 15 to 50 µs, most of what a small write to a mirror takes.
// A thread that has just had work will soon have more; looking for it a little longer is cheaper,
// as long as nobody else wants the core. So every look is followed by a yield, and after a yield
// that took long there is no polling for a while.
//
// Thread: its owner's.
#pragma once

#include <sched.h>

#include <chrono>

namespace tandem {

class AdaptiveSpin {
 public:
  /// Polls at most `longest`; zero: never.
  explicit AdaptiveSpin(std::chrono::nanoseconds longest) : longest_(longest) {}

  bool is_on() const { return longest_.count() != 0; }
  /// True as soon as `ready()` says so, which is called again and again; false: go to sleep.
  template <class Ready>
  bool wait_for(Ready&& ready) {
    if (!is_on()) return false;
    auto now = clock();
    if (now < resume_at_) return false;
    for (const auto end = now + longest_; now < end;) {
      if (ready()) return true;
      ::sched_yield();
      const auto after = clock();
      if (after - now > kYieldTooLong) {
        resume_at_ = after + kPause;
        return ready();
      }
      now = after;
    }
    return false;
  }

 private:
  static constexpr std::chrono::nanoseconds kYieldTooLong = std::chrono::microseconds(100);
  static constexpr std::chrono::nanoseconds kPause = std::chrono::milliseconds(100);
  static std::chrono::nanoseconds clock() {
    return std::chrono::steady_clock::now().time_since_epoch();
  }

  std::chrono::nanoseconds longest_;
  std::chrono::nanoseconds resume_at_{0};
};

}  // namespace tandem
