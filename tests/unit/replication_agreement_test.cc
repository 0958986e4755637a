// What two copies know of each other's histories: the digests that travel with heartbeats are
// compared, both sides say through where they agree, and other records are never followed.
#include <set>

#include "tests/unit/replication_fixture.h"

namespace tandem::replication::testing {
namespace {

bool agree_through(Pair& pair, Lsn lsn) {
  return pair.world.run_until(
      [&] {
        return pair.a.slot().agreement.through == lsn &&
               pair.b.replication->upstream().agreement.through == lsn;
      },
      5s);
}

TEST(Agreement, BothSidesSayThroughWhere) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    Pair pair(seed);
    EXPECT_EQ(pair.a.replication->slots().size(), 0u);
    pair.a.serve_to("b", seed % 2 == 0 ? ReplicationMode::kSync : ReplicationMode::kAsync);
    pair.write(50);
    ASSERT_TRUE(pair.converge());
    ASSERT_TRUE(agree_through(pair, Lsn{50})) << "seed " << seed;
    const UtcNs found = pair.a.slot().agreement.at;
    EXPECT_GT(found, UtcNs{});
    // What was found still holds when nothing came since, and is said to.
    pair.world.run_for(1s);
    EXPECT_GT(pair.a.slot().agreement.at, found);
    EXPECT_GT(pair.b.replication->upstream().agreement.at, found);
    pair.write(10);
    ASSERT_TRUE(agree_through(pair, Lsn{60}));
    EXPECT_EQ(pair.a.slot().agreement.difference, "");
    EXPECT_EQ(pair.b.replication->upstream().agreement.difference, "");
  }
}

TEST(Agreement, IsFoundUnderLoadAndFaults) {
  for (std::uint64_t seed = 11; seed <= 30; ++seed) {
    Pair pair(seed);
    pair.a.serve_to("b", ReplicationMode::kAsync);
    std::set<Lsn> seen;
    for (int round = 0; round < 20; ++round) {
      Guest guest(pair.world, pair.a);
      guest.write(20);
      if (pair.world.random().chance(1, 4)) pair.network.cut("b");
      const auto end = pair.world.now() + 150ms;
      ASSERT_TRUE(pair.run_checked([&] {
        const AgreementStatus agreement = pair.a.slot().agreement;
        EXPECT_EQ(agreement.difference, "");
        EXPECT_LE(agreement.through, pair.b.log.head().lsn);
        seen.insert(agreement.through);
        return guest.done() && pair.world.now() >= end;
      })) << "seed "
          << seed;
    }
    EXPECT_GT(seen.size(), 3u) << "seed " << seed;
    ASSERT_TRUE(pair.converge());
    ASSERT_TRUE(agree_through(pair, pair.a.log.head().lsn));
  }
}

TEST(Agreement, AMirrorDoesNotFollowWhatHasAnotherPast) {
  Pair pair(3);
  pair.a.serve_to("b", ReplicationMode::kSync);
  pair.write(20);
  ASSERT_TRUE(pair.converge());
  ASSERT_TRUE(agree_through(pair, Lsn{20}));
  pair.b.log.falsify_digests(true);
  const auto found = [&] { return pair.b.replication->upstream().agreement.difference != ""; };
  ASSERT_TRUE(pair.world.run_until(found, 2s));
  const AgreementStatus agreement = pair.b.replication->upstream().agreement;
  EXPECT_NE(agreement.difference.find("at record 20 of timeline 1"), std::string::npos)
      << agreement.difference;
  ASSERT_TRUE(pair.world.run_until([&] { return !pair.a.following(); }, 2s));
  EXPECT_NE(pair.a.slot().reason.find("another history"), std::string::npos)
      << pair.a.slot().reason;
  EXPECT_EQ(pair.a.slot().agreement.through, Lsn{20}) << "nothing behind it is agreed on";
}

TEST(Agreement, APrimaryRefusesAMirrorWithAnotherPastAndSaysSo) {
  Pair pair(4);
  pair.a.serve_to("b", ReplicationMode::kSync);
  pair.write(20);
  ASSERT_TRUE(pair.converge());
  pair.a.log.falsify_digests(true);
  pair.network.cut("b");
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().agreement.difference != ""; }, 2s));
  pair.world.run_for(2s);
  EXPECT_FALSE(pair.a.following());
  EXPECT_EQ(pair.b.log.head().lsn, Lsn{20});
  // It is shown until they agree again, and no longer.
  pair.a.log.falsify_digests(false);
  ASSERT_TRUE(pair.converge());
  ASSERT_TRUE(agree_through(pair, Lsn{20}));
  EXPECT_EQ(pair.a.slot().agreement.difference, "");
}

}  // namespace
}  // namespace tandem::replication::testing
