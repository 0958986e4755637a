// Histogram, and what is read out of it: bounds, quantiles, differences.
#include <gtest/gtest.h>

#include "tandem/latency.h"

namespace tandem {
namespace {

using std::chrono::microseconds;
using std::chrono::nanoseconds;

TEST(Histogram, BucketsAreWithoutGapsAndAQuarterOfAPowerOfTwoWide) {
  EXPECT_EQ(Histogram::start_of(0), 0u);
  for (std::size_t i = 0; i + 1 < Histogram::kBuckets; ++i) {
    const auto from = Histogram::start_of(i), below = Histogram::start_of(i + 1);
    ASSERT_LT(from, below);
    EXPECT_EQ(Histogram::bucket_of(from), i);
    EXPECT_EQ(Histogram::bucket_of(below - 1), i);
    EXPECT_LE(below - from, std::max<std::uint64_t>(1, from / 4)) << from;
  }
  EXPECT_EQ(Histogram::start_of(Histogram::kBuckets - 1), 1ull << 40);
  EXPECT_EQ(Histogram::bucket_of(UINT64_MAX), Histogram::kBuckets - 1);
}

TEST(Histogram, CountsSumsAndKeepsTheLargest) {
  Histogram h;
  h.add(nanoseconds(100), 3);
  h.add(nanoseconds(7));
  h.add(nanoseconds(-5));  // a clock that went back is no time at all
  h.add(microseconds(50), 0);
  EXPECT_EQ(h.count(), 5u);
  EXPECT_EQ(h.sum_ns(), 307u);
  EXPECT_EQ(h.max_ns(), 100u);
  EXPECT_EQ(h.count_in(Histogram::bucket_of(100)), 3u);
  EXPECT_EQ(h.count_in(0), 1u);
}

TEST(StageTimes, AreReadByTheirNames) {
  StageTimes times;
  times.add(Stage::kWrite, microseconds(3));
  times.add(Stage::kWriteQueue, microseconds(1));
  times.add(Stage::kApplyFlush, microseconds(2));
  times.add(Batch::kShipped, 5);
  times.add(Batch::kShipped, 7);
  const auto reading = times.reading();
  ASSERT_EQ(reading.stages.size(), 3u) << "what never took place is left out";
  EXPECT_EQ(reading.stages[0].operation + " " + reading.stages[0].stage, "write queue");
  EXPECT_EQ(reading.stages[1].operation + " " + reading.stages[1].stage, "write whole");
  EXPECT_EQ(reading.stages[2].operation + " " + reading.stages[2].stage, "mirror flush");
  EXPECT_EQ(reading.stages[1].sum_ns, 3000u);
  ASSERT_EQ(reading.stages[1].buckets.size(), 1u);
  EXPECT_LE(reading.stages[1].buckets[0].from_ns, 3000u);
  EXPECT_GT(reading.stages[1].buckets[0].below_ns, 3000u);
  ASSERT_EQ(reading.batches.size(), 1u);
  EXPECT_EQ(reading.batches[0], (BatchSizes{"shipped", 2, 12}));
}

StageLatency whole(const StageTimes& times) { return times.reading().stages.at(0); }

TEST(StageTimes, QuantilesAreAsExactAsTheBuckets) {
  StageTimes times;
  for (int us = 1; us <= 1000; ++us) times.add(Stage::kRead, microseconds(us));
  const auto read = whole(times);
  EXPECT_DOUBLE_EQ(read.mean_ns(), 500'500);
  for (const double share : {0.01, 0.1, 0.5, 0.9, 0.99})
    EXPECT_NEAR(read.quantile_ns(share), share * 1e6, 0.05 * share * 1e6) << share;
  EXPECT_LE(read.quantile_ns(1), 1e6);
  EXPECT_GE(read.quantile_ns(0), 768);
  StageTimes one;
  one.add(Stage::kRead, microseconds(100));
  EXPECT_LE(whole(one).quantile_ns(0.5), 1e5) << "never above the largest";
  EXPECT_GE(whole(one).quantile_ns(0.5), 0.75e5);
  EXPECT_EQ(StageLatency{}.quantile_ns(0.5), 0);
  EXPECT_EQ(StageLatency{}.mean_ns(), 0);
}

TEST(StageTimes, TwoReadingsTellWhatHappenedInBetween) {
  StageTimes times;
  times.add(Stage::kRead, microseconds(900));
  times.add(Batch::kPage, 4);
  const auto before = times.reading();
  times.add(Stage::kRead, microseconds(10), 3);
  times.add(Stage::kFlush, microseconds(20));
  times.add(Batch::kPage, 6);
  const auto after = times.reading();
  const auto between = after - before;
  ASSERT_EQ(between.stages.size(), 2u);
  EXPECT_EQ(between.stages[0].operation, "flush");
  EXPECT_EQ(between.stages[0].count, 1u);
  const auto& read = between.stages[1];
  EXPECT_EQ(read.count, 3u);
  EXPECT_EQ(read.sum_ns, 30'000u);
  ASSERT_EQ(read.buckets.size(), 1u);
  EXPECT_EQ(read.max_ns, read.buckets[0].below_ns) << "the 900 us were before";
  EXPECT_EQ(between.batches[0], (BatchSizes{"page", 1, 6}));
  EXPECT_EQ((after - after).stages[0].count, 0u);
  EXPECT_EQ((after - after).stages[0].max_ns, 0u);
  auto restarted = after;
  restarted.since = UtcNs(1);
  EXPECT_EQ((restarted - before).stages[1].count, 4u) << "counted from another beginning";
}

}  // namespace
}  // namespace tandem
