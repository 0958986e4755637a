#include "control/pool_watch.h"

#include <algorithm>

namespace tandem::control {
namespace {

constexpr Nanoseconds kSampleEvery = std::chrono::minutes(1);
constexpr Nanoseconds kWindow = std::chrono::hours(1);
constexpr Nanoseconds kWindowMin = std::chrono::minutes(10);
constexpr unsigned kSlackPercent = 1;

}  // namespace

PoolWatch::State PoolWatch::judge() const {
  const auto reached = [this](unsigned limit, State state) {
    const unsigned slack = state_ >= state ? kSlackPercent : 0;
    return full_percent_ + slack >= limit;
  };
  if (refused_ || reached(limits_.critical_percent, State::kCritical)) return State::kCritical;
  return reached(limits_.warn_percent, State::kWarn) ? State::kWarn : State::kOk;
}

bool PoolWatch::look(const Reading& now, UtcNs utc, Nanoseconds monotonic) {
  refused_ = now.refused;
  const std::uint64_t full = now.bytes - std::min(now.bytes, now.free);
  full_percent_ = now.bytes == 0 ? 0 : static_cast<unsigned>(full * 100 / now.bytes);
  last_ = {monotonic, now.free};
  if (samples_.empty() || monotonic - samples_.back().at >= kSampleEvery) samples_.push_back(last_);
  while (monotonic - samples_.front().at > kWindow) samples_.pop_front();
  const State state = judge();
  if (state == state_ && since_ != UtcNs{}) return false;
  const bool changed = state != state_;
  state_ = state;
  since_ = utc;
  return changed;
}

const char* PoolWatch::state() const {
  constexpr const char* kTexts[] = {"ok", "warn", "critical"};
  return kTexts[static_cast<int>(state_)];
}

std::string PoolWatch::reason() const {
  if (state_ == State::kOk) return "";
  if (refused_) return "the place below the pool has no room left, though the pool has";
  const unsigned limit =
      state_ == State::kCritical ? limits_.critical_percent : limits_.warn_percent;
  return std::to_string(full_percent_) + " % full, warned of from " + std::to_string(limit) + " %";
}

std::uint64_t PoolWatch::fill_bytes_per_second() const {
  if (samples_.empty() || last_.at - samples_.front().at < kWindowMin) return 0;
  const Sample& first = samples_.front();
  if (last_.free >= first.free) return 0;
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(last_.at - first.at).count();
  return (first.free - last_.free) / static_cast<std::uint64_t>(seconds);
}

std::uint64_t PoolWatch::full_in_seconds() const {
  const auto rate = fill_bytes_per_second();
  return rate == 0 ? 0 : last_.free / rate;
}

}  // namespace tandem::control
