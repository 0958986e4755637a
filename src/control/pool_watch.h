// How full a pool is, whether that is worth a warning, and how long the rest will last.
//
// Pure state over what it is told once a second; knows no pool.
#pragma once

#include <deque>
#include <string>

#include "tandem/base/units.h"
#include "tandem/port/executor.h"

namespace tandem::control {

class PoolWatch {
 public:
  struct Limits {
    unsigned warn_percent = 80, critical_percent = 90;
  };
  struct Reading {
    std::uint64_t bytes = 0;  // of the pool
    std::uint64_t free = 0;   // free zones, and what is free inside of groups' zones
    bool refused = false;     // the place below the pool has no room for a zone
  };

  explicit PoolWatch(Limits limits) : limits_(limits) {}

  /// True when the state has changed. A state is left only when the pool is a percent less full
  /// than what began it, so that one block more or less does not make two lines of the log.
  bool look(const Reading& now, UtcNs utc, Nanoseconds monotonic);

  const char* state() const;  // ok | warn | critical
  std::string reason() const;
  UtcNs since() const { return since_; }
  unsigned full_percent() const { return full_percent_; }
  const Limits& limits() const { return limits_; }
  /// Over the last hour, from ten minutes on; 0: the pool does not fill, or too little is known.
  std::uint64_t fill_bytes_per_second() const;
  /// 0: unknown.
  std::uint64_t full_in_seconds() const;

 private:
  enum class State { kOk, kWarn, kCritical };
  struct Sample {
    Nanoseconds at{};
    std::uint64_t free = 0;
  };
  State judge() const;

  const Limits limits_;
  State state_ = State::kOk;
  UtcNs since_;
  bool refused_ = false;
  unsigned full_percent_ = 0;
  Sample last_;
  std::deque<Sample> samples_;  // one a minute, oldest first
};

}  // namespace tandem::control
