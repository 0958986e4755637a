#include "tandem/base/units.h"

#include <gtest/gtest.h>

#include <limits>
#include <type_traits>
#include <unordered_set>

namespace tandem {
namespace {

// What must not compile is the point of these types.
static_assert(!std::is_convertible_v<std::uint64_t, Lsn>);
static_assert(!std::is_convertible_v<Lsn, std::uint64_t>);
static_assert(!std::is_convertible_v<VolumeBlock, PoolBlock>);
static_assert(!std::is_constructible_v<PoolBlock, VolumeBlock>);
static_assert(sizeof(Lsn) == 8 && sizeof(ZoneId) == 4);

TEST(Units, OrderAndSuccessor) {
  EXPECT_LT(Lsn{1}, Lsn{2});
  EXPECT_EQ(Lsn{1}.next(), Lsn{2});
  EXPECT_EQ(Lsn{}, Lsn{0});
  EXPECT_EQ(ZoneId{7}.next().value, 8u);
}

TEST(Units, HashLikeTheirValue) {
  std::unordered_set<PoolBlock> set{PoolBlock{1}, PoolBlock{2}, PoolBlock{1}};
  EXPECT_EQ(set.size(), 2u);
  EXPECT_TRUE(set.contains(PoolBlock{2}));
}

TEST(Units, BlocksForRoundsUpWithoutOverflow) {
  EXPECT_EQ(blocks_for(0), 0u);
  EXPECT_EQ(blocks_for(1), 1u);
  EXPECT_EQ(blocks_for(4096), 1u);
  EXPECT_EQ(blocks_for(4097), 2u);
  EXPECT_EQ(blocks_for(std::numeric_limits<std::uint64_t>::max()), std::uint64_t{1} << 52);
}

}  // namespace
}  // namespace tandem
