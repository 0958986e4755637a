// The judge must catch what it claims to catch: each test hands it one kind of wrong state.
#include "tests/support/store_model.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tandem::sim {
namespace {

using Crash = StoreModel::Crash;
constexpr std::uint64_t kVolumeBytes = 64 << 10;

class StoreModelTest : public testing::Test {
 protected:
  StoreModelTest() {
    model_.acknowledge(model_.begin_create("v", kVolumeBytes));
    flush();
    found_["v"].assign(kVolumeBytes, std::byte{0});
  }
  OpId begin(std::uint64_t offset, std::uint64_t length, bool fua = false) {
    return model_.begin_write("v", offset, length, fua);
  }
  OpId write(std::uint64_t offset, std::uint64_t length, bool fua = false) {
    const OpId op = begin(offset, length, fua);
    model_.acknowledge(op);
    return op;
  }
  void flush() { model_.acknowledge(model_.begin_flush()); }
  void put(OpId op, std::uint64_t offset, std::uint64_t length) {
    stamp(op, "v", offset, std::span(found_["v"]).subspan(offset, length));
  }
  void put_zero(std::uint64_t offset, std::uint64_t length) {
    std::fill_n(found_["v"].begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{0});
  }
  bool good(Crash crash) const { return !model_.check_recovered(found_, crash).has_value(); }
  std::string complaint(Crash crash) const {
    return model_.check_recovered(found_, crash).value_or("");
  }
  StoreModel model_;
  StoreModel::Found found_;
};

TEST_F(StoreModelTest, UnflushedWritesMayBeLostInAPowerCutOnly) {
  write(0, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));
  EXPECT_FALSE(good(Crash::kProcessKilled));
}

TEST_F(StoreModelTest, FlushedWritesMustBeThere) {
  const OpId op = write(0, 4096);
  flush();
  EXPECT_NE(complaint(Crash::kPowerCut).find("required"), std::string::npos);
  put(op, 0, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, AFlushPromisesOnlyWhatWasAcknowledgedBeforeItsCall) {
  const OpId late = begin(0, 4096);
  const OpId flushing = model_.begin_flush();
  model_.acknowledge(late);
  model_.acknowledge(flushing);
  EXPECT_TRUE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, FuaCoversItselfAndWhatWasAcknowledgedBefore) {
  const OpId plain = write(0, 4096);
  const OpId fua = write(8192, 4096, true);
  EXPECT_FALSE(good(Crash::kPowerCut));
  put(fua, 8192, 4096);
  EXPECT_FALSE(good(Crash::kPowerCut));  // the plain one came before it
  put(plain, 0, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, APrefixHasNoHole) {
  write(0, 4096);
  const OpId second = write(8192, 4096);
  put(second, 8192, 4096);
  EXPECT_NE(complaint(Crash::kPowerCut).find("found elsewhere"), std::string::npos);
}

TEST_F(StoreModelTest, ConcurrentWritesMayBeInEitherOrder) {
  const OpId first = begin(0, 4096);
  const OpId second = begin(8192, 4096);
  model_.acknowledge(first);
  model_.acknowledge(second);
  put(second, 8192, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, HolesAreFoundThroughChainsOfOperations) {
  write(0, 4096);                         // lost
  const OpId middle = write(4096, 4096);  // acknowledged before `last` was called
  const OpId last = write(8192, 4096);
  put(middle, 4096, 4096);
  put(last, 8192, 4096);
  EXPECT_FALSE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, StaleContentIsNotANewerPrefix) {
  const OpId old = write(0, 4096);
  write(0, 4096);
  const OpId elsewhere = write(8192, 4096);
  put(old, 0, 4096);
  put(elsewhere, 8192, 4096);
  EXPECT_FALSE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, AnOlderPrefixIsFine) {
  const OpId old = write(0, 4096);
  write(0, 4096);
  put(old, 0, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, HalfABlockIsNot) {
  const OpId op = begin(0, 4096);
  put(op, 0, 2048);
  EXPECT_FALSE(good(Crash::kPowerCut));
  EXPECT_FALSE(good(Crash::kProcessKilled));
  put(op, 0, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, BlocksOfOneLargeUnfinishedWriteMayDiffer) {
  const OpId op = begin(0, 8192);
  put(op, 0, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, RefusedWritesLeaveNoTrace) {
  const OpId op = begin(0, 4096);
  model_.refuse(op);
  EXPECT_TRUE(good(Crash::kProcessKilled));
  put(op, 0, 4096);
  EXPECT_FALSE(good(Crash::kProcessKilled));
}

TEST_F(StoreModelTest, DoubtfulWritesMayBeEither) {
  const OpId op = begin(0, 4096);
  model_.doubt(op);
  EXPECT_TRUE(good(Crash::kProcessKilled));
  put(op, 0, 4096);
  EXPECT_TRUE(good(Crash::kProcessKilled));
}

TEST_F(StoreModelTest, ZeroesCountAsAnOperation) {
  const OpId op = write(0, 4096);
  flush();
  put(op, 0, 4096);
  model_.acknowledge(model_.begin_zero("v", 0, 4096, false));
  EXPECT_TRUE(good(Crash::kPowerCut));
  EXPECT_FALSE(good(Crash::kProcessKilled));
  put_zero(0, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));
  EXPECT_TRUE(good(Crash::kProcessKilled));
  put_zero(0, 512);
  put(op, 512, 4096 - 512);
  EXPECT_FALSE(good(Crash::kPowerCut));  // half of the zeroing
}

TEST_F(StoreModelTest, ZeroesOverZeroesProveNothing) {
  const OpId op = begin(0, 512);
  model_.doubt(op);
  const OpId zero = model_.begin_zero("v", 0, 4096, false);
  model_.doubt(zero);
  EXPECT_TRUE(good(Crash::kPowerCut));
  put(op, 0, 512);
  EXPECT_TRUE(good(Crash::kPowerCut));
}

TEST_F(StoreModelTest, OfTwoUnansweredZeroingsTheNewerMayHaveHappenedAlone) {
  const OpId op = write(0, 4096);
  flush();
  model_.doubt(model_.begin_zero("v", 0, 4096, false));
  model_.doubt(model_.begin_zero("v", 512, 3584, false));
  put(op, 0, 512);
  put_zero(512, 3584);
  EXPECT_TRUE(good(Crash::kPowerCut));  // the first failed, the second happened
}

TEST_F(StoreModelTest, WrongPlacesAndDamageNameThemselves) {
  const OpId op = write(0, 4096);
  flush();
  stamp(op, "v", 4096, std::span(found_["v"]).subspan(0, 4096));
  EXPECT_NE(complaint(Crash::kPowerCut).find("belongs at byte 4096"), std::string::npos);
  stamp(op, "w", 0, std::span(found_["v"]).subspan(0, 4096));
  EXPECT_NE(complaint(Crash::kPowerCut).find("another volume"), std::string::npos);
  put(op, 0, 4096);
  found_["v"][100] ^= std::byte{1};
  EXPECT_NE(complaint(Crash::kPowerCut).find("damaged stamp"), std::string::npos);
  found_["v"][0] ^= std::byte{1};
  EXPECT_NE(complaint(Crash::kPowerCut).find("nobody wrote"), std::string::npos);
}

TEST_F(StoreModelTest, SizesAndExistenceAreVersionsToo) {
  const OpId grow = model_.begin_resize("v", 2 * kVolumeBytes);
  EXPECT_TRUE(good(Crash::kProcessKilled));
  model_.acknowledge(grow);
  EXPECT_FALSE(good(Crash::kProcessKilled));
  found_["v"].resize(2 * kVolumeBytes);
  EXPECT_TRUE(good(Crash::kProcessKilled));
  flush();
  found_["v"].resize(kVolumeBytes);
  EXPECT_FALSE(good(Crash::kPowerCut));
  found_["v"].resize(2 * kVolumeBytes);
  const OpId gone = model_.begin_delete("v");
  EXPECT_TRUE(good(Crash::kProcessKilled));
  model_.acknowledge(gone);
  EXPECT_FALSE(good(Crash::kProcessKilled));
  found_.clear();
  EXPECT_TRUE(good(Crash::kProcessKilled));
  found_["other"].resize(4096);
  EXPECT_FALSE(good(Crash::kProcessKilled));
}

TEST_F(StoreModelTest, ReadsReturnTheLastAcknowledgedOrOneConcurrent) {
  const OpId old = write(0, 4096);
  const OpId current = write(0, 4096);
  const OpId flying = begin(0, 4096);
  std::vector<std::byte> data(4096);
  const std::uint64_t called = model_.now();
  const auto check = [&] { return !model_.check_read("v", 0, data, called).has_value(); };
  EXPECT_FALSE(check());  // zeroes are stale
  stamp(old, "v", 0, data);
  EXPECT_FALSE(check());
  stamp(current, "v", 0, data);
  EXPECT_TRUE(check());
  stamp(flying, "v", 0, data);
  EXPECT_TRUE(check());
  model_.refuse(flying);
  EXPECT_FALSE(check());
}

TEST_F(StoreModelTest, WhatWasFoundBecomesTheNewGround) {
  const OpId op = write(0, 4096);
  write(4096, 4096);
  put(op, 0, 4096);
  ASSERT_TRUE(good(Crash::kPowerCut));
  StoreModel next = StoreModel::settled(found_, model_.next_op());
  EXPECT_FALSE(next.check_recovered(found_, Crash::kProcessKilled).has_value());
  put_zero(0, 4096);
  EXPECT_TRUE(next.check_recovered(found_, Crash::kPowerCut).has_value());  // it was recovered once
}

TEST_F(StoreModelTest, AfterAKilledProcessNothingIsDurableYetAndNothingReturns) {
  const OpId there = begin(0, 4096);  // never answered, but it made it
  begin(4096, 4096);                  // never answered, did not make it
  put(there, 0, 4096);
  ASSERT_TRUE(good(Crash::kProcessKilled));
  model_.restarted_after_kill(found_);
  EXPECT_TRUE(good(Crash::kProcessKilled));
  const StoreModel::Found with = found_;
  put_zero(0, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));        // it was in the cache only
  EXPECT_FALSE(good(Crash::kProcessKilled));  // but it has been seen
  found_ = with;
  flush();
  put(there + 1, 4096, 4096);
  EXPECT_FALSE(good(Crash::kPowerCut));  // what was gone does not come back
  put_zero(4096, 4096);
  EXPECT_TRUE(good(Crash::kPowerCut));
  put_zero(0, 4096);
  EXPECT_FALSE(good(Crash::kPowerCut));  // flushed since
}

TEST_F(StoreModelTest, ALaggingCopyIsAnyPrefixWithoutAHole) {
  model_ = StoreModel::settled(found_, model_.next_op());
  const OpId first = write(0, 4096, true);
  const OpId second = write(4096, 4096, true);
  EXPECT_TRUE(good(Crash::kPrefix));
  put(second, 4096, 4096);
  EXPECT_FALSE(good(Crash::kPrefix));
  put(first, 0, 4096);
  EXPECT_TRUE(good(Crash::kPrefix));
}

TEST_F(StoreModelTest, PromisedCountsWhatACrashMayNotLose) {
  const std::size_t before = model_.promised(Crash::kPowerCut);
  write(0, 4096);
  EXPECT_EQ(model_.promised(Crash::kPowerCut), before);
  EXPECT_EQ(model_.promised(Crash::kProcessKilled), before + 1);
  flush();
  EXPECT_EQ(model_.promised(Crash::kPowerCut), before + 1);
}

}  // namespace
}  // namespace tandem::sim
