#include "tandem/latency.h"

#include <algorithm>
#include <utility>

namespace tandem {
namespace {

/// By Stage.
constexpr std::array<std::pair<const char*, const char*>, kStages> kStageNames{{
    {"write", "queue"},
    {"write", "device"},
    {"write", "order"},
    {"write", "mirror"},
    {"write", "whole"},
    {"flush", "device"},
    {"flush", "mirror"},
    {"flush", "whole"},
    {"read", "whole"},
    {"link", "ship"},
    {"link", "round trip"},
    {"mirror", "apply"},
    {"mirror", "device"},
    {"mirror", "flush"},
}};
constexpr std::array<const char*, kBatches> kBatchNames{"page", "shipped", "applied"};

StageLatency reading(std::size_t stage, const Histogram& histogram) {
  StageLatency out;
  out.operation = kStageNames[stage].first;
  out.stage = kStageNames[stage].second;
  out.count = histogram.count();
  out.sum_ns = histogram.sum_ns();
  out.max_ns = histogram.max_ns();
  for (std::size_t i = 0; i < Histogram::kBuckets; ++i) {
    if (const auto count = histogram.count_in(i); count != 0)
      out.buckets.push_back({Histogram::start_of(i), Histogram::start_of(i + 1), count});
  }
  return out;
}

void take_away(StageLatency& from, const StageLatency& what) {
  from.count -= what.count;
  from.sum_ns -= what.sum_ns;
  for (auto& bucket : from.buckets) {
    for (const auto& before : what.buckets) {
      if (before.from_ns == bucket.from_ns) bucket.count -= before.count;
    }
  }
  std::erase_if(from.buckets, [](const auto& bucket) { return bucket.count == 0; });
  if (from.buckets.empty()) {
    from.max_ns = 0;
  } else if (from.max_ns == what.max_ns) {
    from.max_ns = std::min(from.max_ns, from.buckets.back().below_ns);
  }
}

}  // namespace

double StageLatency::mean_ns() const {
  return count == 0 ? 0 : static_cast<double>(sum_ns) / static_cast<double>(count);
}

double StageLatency::quantile_ns(double share) const {
  double left = share * static_cast<double>(count);
  for (const auto& bucket : buckets) {
    const auto here = static_cast<double>(bucket.count);
    if (left > here) {
      left -= here;
      continue;
    }
    // As if those in it were spread evenly.
    const auto from = static_cast<double>(bucket.from_ns);
    const auto end =
        static_cast<double>(std::min(bucket.below_ns, std::max(max_ns, std::uint64_t{1})));
    return std::max(from, from + (end - from) * left / here);
  }
  return static_cast<double>(max_ns);
}

GroupLatency operator-(GroupLatency after, const GroupLatency& before) {
  if (after.since != before.since) return after;
  for (auto& stage : after.stages) {
    for (const auto& was : before.stages) {
      if (was.operation == stage.operation && was.stage == stage.stage) take_away(stage, was);
    }
  }
  for (auto& sizes : after.batches) {
    for (const auto& was : before.batches) {
      if (was.batch != sizes.batch) continue;
      sizes.batches -= was.batches;
      sizes.records -= was.records;
    }
  }
  after.since = UtcNs{};
  return after;
}

GroupLatency StageTimes::reading() const {
  GroupLatency out;
  for (std::size_t i = 0; i < kStages; ++i) {
    if (stages_[i].count() != 0) out.stages.push_back(tandem::reading(i, stages_[i]));
  }
  for (std::size_t i = 0; i < kBatches; ++i) {
    if (batches_[i].batches != 0)
      out.batches.push_back({kBatchNames[i], batches_[i].batches, batches_[i].records});
  }
  return out;
}

}  // namespace tandem
