// Histogram: how often something took how long, on a scale of four steps to each power of two.
//
// Cheap enough to be always on: fixed memory, no lock, a handful of instructions to add. Counts
// only grow, so that the difference of two readings is what happened in between. Thread: its
// owner's.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace tandem {

class Histogram {
 public:
  /// Everything from 2^40 ns (18 minutes) on shares the last bucket.
  static constexpr std::size_t kBuckets = 157;

  /// The bucket of `ns`; below 8 ns each nanosecond has its own.
  static constexpr std::size_t bucket_of(std::uint64_t ns) {
    if (ns < kSteps) return static_cast<std::size_t>(ns);
    const auto power = static_cast<std::size_t>(std::bit_width(ns)) - 1;
    const std::size_t step = (ns >> (power - 2)) % kSteps;
    return std::min((power - 1) * kSteps + step, kBuckets - 1);
  }
  /// The smallest time in a bucket, in ns; of kBuckets: the end of the scale.
  static constexpr std::uint64_t start_of(std::size_t bucket) {
    if (bucket >= kBuckets) return UINT64_MAX;
    if (bucket < kSteps) return bucket;
    return (kSteps + bucket % kSteps) << (bucket / kSteps - 1);
  }

  /// `times` things took so long, each.
  void add(std::chrono::nanoseconds took, std::uint64_t times = 1) {
    const auto ns = static_cast<std::uint64_t>(std::max<std::int64_t>(took.count(), 0));
    counts_[bucket_of(ns)] += times;
    count_ += times;
    sum_ns_ += ns * times;
    if (times != 0 && ns > max_ns_) max_ns_ = ns;
  }
  std::uint64_t count() const { return count_; }
  std::uint64_t sum_ns() const { return sum_ns_; }
  std::uint64_t max_ns() const { return max_ns_; }
  std::uint64_t count_in(std::size_t bucket) const { return counts_[bucket]; }

 private:
  static constexpr std::size_t kSteps = 4;
  std::array<std::uint64_t, kBuckets> counts_{};
  std::uint64_t count_ = 0, sum_ns_ = 0, max_ns_ = 0;
};

}  // namespace tandem
