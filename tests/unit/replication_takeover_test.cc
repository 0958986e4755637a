// Promotion, fencing, the return of an old primary, start-up, and streams that overlap.
#include "tests/unit/replication_fixture.h"

namespace tandem::replication::testing {
namespace {

// What control does on the mirror's node.
void promote(Pair& pair) {
  pair.world.run(pair.b.replication->hold_upstream());
  ASSERT_TRUE(pair.world.run(pair.b.log.open_timeline()));
  pair.b.replication->become_primary();
}

TEST(Fencing, APromotionUnderALiveStreamLosesNothingThatSyncAcknowledged) {
  for (const auto seed : sim::seeds_to_run(1, 40)) {
    Pair pair(seed);
    pair.a.serve_to("b", ReplicationMode::kSync);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
    Guest guest(pair.world, pair.a);
    guest.write(200, 6);
    pair.world.run_for(Nanoseconds(pair.world.random().below(10'000'000)));
    promote(pair);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.fenced > 0; }, 5s)) << "seed " << seed;
    const Lsn fork = pair.b.log.history().back().fork;
    EXPECT_LE(pair.a.acknowledged_when_fenced, fork) << "seed " << seed;
    ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 5s));
    EXPECT_EQ(pair.a.log.acknowledged(), pair.a.acknowledged_when_fenced)
        << "seed " << seed << ": nothing was acknowledged behind the fence";
    EXPECT_EQ(pair.a.fenced, 1);
    EXPECT_EQ(pair.a.fenced_at, Timeline{2});
    EXPECT_EQ(pair.a.replication->role(), Role::kFenced);
  }
}

TEST(Fencing, AReturningPrimaryIsFencedByWhomItDials) {
  Pair pair(2);
  pair.a.serve_to("b", ReplicationMode::kSync);
  pair.write(20);
  ASSERT_TRUE(pair.converge());
  pair.network.set_reachable("a", false);
  pair.network.cut("a");
  pair.world.run_for(1s);
  promote(pair);
  pair.write(5);  // alone, on the old timeline: the policy is to degrade
  pair.network.set_reachable("a", true);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.fenced > 0; }, 5s));
  auto late = pair.world.run(pair.a.log.write(VolumeBlock{1}, 1));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kFenced);
}

TEST(Fencing, AServingPrimaryIsFencedByWhoDialsIt) {
  Pair pair(3);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  pair.write(20);
  ASSERT_TRUE(pair.converge());
  ASSERT_TRUE(pair.world.run(pair.a.replication->remove_slot("b")));
  promote(pair);
  ASSERT_TRUE(pair.b.replication->add_slot({.address = "a"}));
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.fenced > 0; }, 5s));
  EXPECT_EQ(pair.a.fenced_by, "b");
  // It holds nothing of its own, so the same dialling makes it a mirror.
  ASSERT_TRUE(pair.world.run_until(
      [&] { return pair.a.made_mirror == 1 && pair.equal() && pair.b.following(); }, 10s))
      << pair.b.slot().reason;
  EXPECT_EQ(pair.a.replication->role(), Role::kMirror);
  EXPECT_EQ(pair.a.log.history(), pair.b.log.history());
}

TEST(Fencing, ADivergentTailIsKeptAndRefused) {
  Pair pair(4);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  pair.write(20);
  ASSERT_TRUE(pair.converge());
  pair.network.set_reachable("a", false);
  pair.network.cut("a");
  pair.world.run_for(1s);
  promote(pair);
  pair.write(7);
  const auto kept = pair.a.log.content();
  pair.network.set_reachable("a", true);
  ASSERT_TRUE(pair.b.replication->add_slot({.address = "a"}));
  ASSERT_TRUE(pair.world.run_until([&] { return pair.b.slot().state == "refused"; }, 5s));
  pair.world.run_for(3s);
  EXPECT_EQ(pair.b.slot().state, "refused");
  EXPECT_NE(pair.b.slot().reason.find("diverge behind LSN 20"), std::string::npos)
      << pair.b.slot().reason;
  EXPECT_EQ(pair.a.replication->role(), Role::kFenced);
  EXPECT_EQ(pair.a.made_mirror, 0);
  EXPECT_EQ(pair.a.log.content(), kept);
  EXPECT_EQ(pair.a.log.head().lsn, Lsn{27});
}

TEST(Rejoin, ADivergentTailBecomesABranchAndTheCopyFollows) {
  Pair pair(4);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  pair.a.log.keep_history(true);
  pair.write(20);
  ASSERT_TRUE(pair.converge());
  pair.network.set_reachable("a", false);
  pair.network.cut("a");
  pair.world.run_for(1s);
  promote(pair);
  pair.write(7);
  const auto tail = pair.a.log.content();
  pair.network.set_reachable("a", true);
  ASSERT_TRUE(pair.b.replication->add_slot({.address = "a"}));
  ASSERT_TRUE(pair.world.run_until([&] { return pair.equal() && pair.b.following(); }, 10s))
      << pair.b.slot().reason;
  EXPECT_EQ(pair.a.replication->role(), Role::kMirror);
  EXPECT_EQ(pair.a.log.history(), pair.b.log.history());
  ASSERT_EQ(pair.a.log.branches().size(), 1u);
  EXPECT_EQ(pair.a.log.branches().begin()->second, tail);
}

// Both are promoted beside each other, to timeline 2, and written; then they meet.
void part(Pair& pair) {
  pair.a.serve_to("b", ReplicationMode::kAsync);
  pair.a.log.keep_history(true);
  pair.b.log.keep_history(true);
  pair.write(20);
  ASSERT_TRUE(pair.converge());
  pair.network.set_reachable("a", false);
  pair.network.cut("a");
  pair.world.run_for(1s);
  pair.world.run(pair.a.replication->stop_shipping(Role::kMirror));
  for (TestNode* node : {&pair.a, &pair.b}) {
    ASSERT_TRUE(pair.world.run(node->log.open_timeline()));
    node->replication->become_primary();
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(pair.world.run(node->log.write(VolumeBlock{1}, i)));
  }
  pair.network.set_reachable("a", true);
  ASSERT_TRUE(pair.world.run_until(
      [&] { return pair.a.replication->split() && pair.b.replication->split(); }, 5s));
}

TEST(Split, BothGoOnUntilOneIsChosen) {
  Pair pair(31);
  ASSERT_NO_FATAL_FAILURE(part(pair));
  pair.world.run_for(5s);
  for (TestNode* node : {&pair.a, &pair.b}) {
    EXPECT_EQ(node->replication->role(), Role::kPrimary);
    EXPECT_TRUE(pair.world.run(node->log.write(VolumeBlock{2}, 77)));
    ASSERT_TRUE(node->replication->split());
    EXPECT_NE(node->replication->split()->reason.find("promote g --force"), std::string::npos);
  }
  EXPECT_EQ(pair.b.replication->split()->with, "a");
  // The dialer is chosen: its timeline is the newer one from here on, and it dials at once.
  const auto tail = pair.b.log.content();
  ASSERT_TRUE(pair.world.run(pair.a.log.open_timeline()));
  pair.a.replication->timeline_raised();
  EXPECT_FALSE(pair.a.replication->split());
  ASSERT_TRUE(pair.world.run_until([&] { return pair.equal() && pair.a.following(); }, 10s))
      << pair.a.slot().reason;
  EXPECT_EQ(pair.b.fenced, 1);
  EXPECT_EQ(pair.b.replication->role(), Role::kMirror);
  EXPECT_FALSE(pair.b.replication->split());
  ASSERT_EQ(pair.b.log.branches().size(), 1u);
  EXPECT_EQ(pair.b.log.branches().begin()->second, tail);
}

TEST(Split, TheOneThatIsDialledMayBeChosen) {
  Pair pair(32);
  ASSERT_NO_FATAL_FAILURE(part(pair));
  const auto tail = pair.a.log.content();
  ASSERT_TRUE(pair.world.run(pair.b.log.open_timeline()));
  pair.b.replication->timeline_raised();
  ASSERT_TRUE(pair.b.replication->add_slot({.address = "a"}));
  ASSERT_TRUE(pair.world.run_until([&] { return pair.equal() && pair.b.following(); }, 10s))
      << pair.b.slot().reason;
  EXPECT_EQ(pair.a.fenced, 1);
  EXPECT_EQ(pair.a.log.branches().begin()->second, tail);
}

/// A demotion alone gives nothing up: a mirror may have been demoted for another reason.
TEST(Split, ADemotedCopyIsNoChoice) {
  Pair pair(33);
  ASSERT_NO_FATAL_FAILURE(part(pair));
  pair.world.run(pair.b.replication->stop_shipping(Role::kMirror));
  const auto tail = pair.b.log.content();
  pair.world.run_for(2s);
  EXPECT_EQ(pair.a.slot().state, "refused");
  EXPECT_EQ(pair.b.log.content(), tail);
  EXPECT_TRUE(pair.a.replication->split() && pair.b.replication->split());
  ASSERT_TRUE(pair.world.run(pair.a.log.open_timeline()));
  pair.a.replication->timeline_raised();
  ASSERT_TRUE(pair.world.run_until([&] { return pair.equal() && pair.a.following(); }, 10s))
      << pair.a.slot().reason;
  EXPECT_EQ(pair.b.log.branches().begin()->second, tail);
}

TEST(Fencing, APromotionThatIsGivenUpLeavesAMirror) {
  Pair pair(5);
  pair.a.serve_to("b", ReplicationMode::kSync);
  pair.write(20);
  ASSERT_TRUE(pair.converge());
  pair.world.run(pair.b.replication->hold_upstream());
  Guest guest(pair.world, pair.a);
  guest.write(10);
  pair.world.run_for(50ms);
  EXPECT_EQ(guest.acknowledged(), 0) << "held: neither applied nor acknowledged";
  EXPECT_EQ(pair.b.log.head().lsn, Lsn{20});
  pair.b.replication->release_upstream();
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 5s));
  ASSERT_TRUE(pair.converge());
  EXPECT_EQ(pair.a.fenced, 0);
}

TEST(Fencing, APrimaryThatRedialsDuringAPromotionIsToldToWait) {
  Pair pair(30);
  pair.a.serve_to("b", ReplicationMode::kSync);
  pair.write(20);
  ASSERT_TRUE(pair.converge());
  pair.world.run(pair.b.replication->hold_upstream());
  pair.network.cut("b");
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().state == "refused"; }, 5s));
  EXPECT_NE(pair.a.slot().reason.find("is being promoted"), std::string::npos)
      << pair.a.slot().reason;
  pair.write(3);  // degraded: alone
  EXPECT_EQ(pair.b.log.tail().lsn, Lsn{20});
  ASSERT_TRUE(pair.world.run(pair.b.log.open_timeline()));
  pair.b.replication->become_primary();
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.fenced == 1; }, 5s));
}

TEST(Demotion, AnOrderlySwitchoverSwapsTheRoles) {
  Pair pair(6);
  pair.a.serve_to("b", ReplicationMode::kSync);
  pair.write(50);
  ASSERT_TRUE(pair.converge());
  const Lsn end = pair.a.log.tail().lsn;
  ASSERT_TRUE(pair.world.run(pair.a.replication->wait_durable("b", end, 1s)));
  pair.world.run(pair.a.replication->stop_shipping(Role::kMirror));
  promote(pair);
  ASSERT_TRUE(pair.b.replication->add_slot({.address = "a", .mode = ReplicationMode::kSync}));
  ASSERT_TRUE(pair.world.run_until([&] { return pair.equal() && pair.b.following(); }, 10s))
      << pair.b.slot().reason;
  EXPECT_EQ(pair.a.fenced, 0);
  EXPECT_EQ(pair.a.slot().state, "stopped");
  EXPECT_EQ(pair.b.log.history().size(), 2u);
}

TEST(Start, WithoutAnAnswerItServesAfterPeerWait) {
  Pair pair(7);
  pair.b.stop();
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "b"}));
  const auto before = pair.world.now();
  EXPECT_EQ(pair.world.run(pair.a.replication->hear_peers(10s)), PeersHeard::kTimedOut);
  EXPECT_GE(pair.world.now() - before, 10s);
  EXPECT_LT(pair.world.now() - before, 11s);
  pair.b.boot(Role::kMirror);
}

TEST(Start, WithoutSlotsItServesAtOnce) {
  Pair pair(8);
  const auto before = pair.world.now();
  EXPECT_EQ(pair.world.run(pair.a.replication->hear_peers(10s)), PeersHeard::kAll);
  EXPECT_LT(pair.world.now() - before, 1ms);
}

TEST(Start, ANewerTimelineFencesBeforeServing) {
  Pair pair(9);
  pair.a.serve_to("b", ReplicationMode::kSync);
  pair.write(10);
  ASSERT_TRUE(pair.converge());
  pair.a.power_cut();
  promote(pair);
  pair.a.boot(Role::kPrimary);
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "b"}));
  EXPECT_EQ(pair.world.run(pair.a.replication->hear_peers(10s)), PeersHeard::kFenced);
  EXPECT_EQ(pair.a.fenced, 1);
}

TEST(Start, StopEndsTheWait) {
  Pair pair(10);
  pair.b.stop();
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "b"}));
  PeersHeard heard = PeersHeard::kAll;
  struct Waiter {
    static Task<void> run(GroupReplication& replication, PeersHeard& into) {
      into = co_await replication.hear_peers(10s);
    }
  };
  spawn(Waiter::run(*pair.a.replication, heard));
  pair.world.run_for(1s);
  pair.a.stop();
  EXPECT_EQ(heard, PeersHeard::kStopped);
  pair.b.boot(Role::kMirror);
}

// The primary lost records in a power cut, could not hear the mirror, and served.
void serve_without_the_tail(Pair& pair, int writes) {
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
  Guest guest(pair.world, pair.a);
  guest.write(50, 1, false);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 5s));
  ASSERT_EQ(pair.b.log.head().lsn, Lsn{50});
  do {  // until the cut takes something away
    pair.a.power_cut();
    pair.a.boot(Role::kPrimary);
    ASSERT_LT(pair.a.log.durable(), Lsn{50});
  } while (pair.a.log.head().lsn == Lsn{50});
  pair.network.set_reachable("a", false);
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "b", .mode = ReplicationMode::kSync}));
  ASSERT_EQ(pair.world.run(pair.a.replication->hear_peers(1s)), PeersHeard::kTimedOut);
  pair.a.replication->become_primary();
  for (int i = 0; i < writes; ++i)
    ASSERT_TRUE(pair.world.run(pair.a.log.write(VolumeBlock{1}, 9000 + i)));
  pair.network.set_reachable("a", true);
}

TEST(Refusals, AMirrorThatIsAheadOfAServingPrimary) {
  Pair pair(11);
  serve_without_the_tail(pair, 0);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().state == "refused"; }, 5s));
  EXPECT_NE(pair.a.slot().reason.find("restart tandemd on node a"), std::string::npos)
      << pair.a.slot().reason;
  EXPECT_EQ(pair.b.log.head().lsn, Lsn{50}) << "the mirror keeps what it has";
}

TEST(Refusals, TheSameTimelineWithOtherRecords) {
  for (const int writes : {1, 120}) {  // the mirror ends behind the primary, or before
    Pair pair(12);
    serve_without_the_tail(pair, writes);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().state == "refused"; }, 5s));
    EXPECT_NE(pair.a.slot().reason.find("hold different records"), std::string::npos)
        << pair.a.slot().reason;
    EXPECT_EQ(pair.b.log.head().lsn, Lsn{50});
  }
}

TEST(Refusals, TwoPrimariesOfOneTimeline) {
  Pair pair(13);
  pair.b.replication->become_primary();
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().state == "refused"; }, 5s));
  EXPECT_NE(pair.a.slot().reason.find("both primary"), std::string::npos);
  EXPECT_EQ(pair.a.fenced + pair.b.fenced, 0);
}

TEST(Overlap, ASecondPrimaryWaitsUntilTheFirstIsDead) {
  Pair pair(14);
  TestNode c(pair.world, pair.network, "c", Role::kPrimary);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.b.replication->upstream_connected(); }, 5s));
  c.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.world.run_until([&] { return c.slot().state == "refused"; }, 5s));
  EXPECT_NE(c.slot().reason.find("node a streams"), std::string::npos) << c.slot().reason;
  pair.world.run_for(2s);
  EXPECT_EQ(pair.b.replication->upstream().node, "a");
  pair.network.swallow("a");  // silent, not closed
  pair.network.set_reachable("a", false);
  ASSERT_TRUE(pair.world.run_until(
      [&] { return c.following() && pair.b.replication->upstream().node == "c"; }, 5s))
      << c.slot().reason;
}

TEST(Overlap, ANewerTimelineReplacesTheStreamOfAnOlder) {
  Pair pair(15);
  TestNode c(pair.world, pair.network, "c", Role::kMirror);
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "b", .mode = ReplicationMode::kAsync}));
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "c", .mode = ReplicationMode::kAsync}));
  pair.a.replication->become_primary();
  pair.write(30);
  ASSERT_TRUE(
      pair.world.run_until([&] { return pair.equal() && c.log.head().lsn == Lsn{30}; }, 5s));
  pair.network.set_reachable("b", false);  // only b is cut off from a
  pair.network.cut("b");
  pair.world.run_for(1s);
  promote(pair);
  pair.network.set_reachable("b", true);
  ASSERT_TRUE(pair.b.replication->add_slot({.address = "c"}));
  ASSERT_TRUE(pair.world.run_until(
      [&] { return pair.b.following() && c.replication->upstream().node == "b"; }, 10s))
      << pair.b.slot().reason;
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.fenced > 0; }, 5s));
  EXPECT_EQ(c.log.history(), pair.b.log.history());
}

TEST(TwoMirrors, WritersWaitForBoth) {
  Pair pair(16);
  TestNode c(pair.world, pair.network, "c", Role::kMirror);
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "b", .mode = ReplicationMode::kSync}));
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "c", .mode = ReplicationMode::kSync}));
  pair.a.replication->become_primary();
  const auto in_sync = [&] {
    const auto slots = pair.a.replication->slots();
    return slots[0].in_sync && slots[1].in_sync;
  };
  ASSERT_TRUE(pair.world.run_until(in_sync, 5s));
  Guest guest(pair.world, pair.a);
  guest.write(100);
  ASSERT_TRUE(pair.run_checked([&] {
    EXPECT_LE(pair.a.log.acknowledged(), std::min(pair.b.log.head().lsn, c.log.head().lsn));
    return guest.done();
  }));
  EXPECT_EQ(pair.a.replication->add_slot({.address = "c"}).error().code, ErrorCode::kExists);
}

TEST(TwoMirrors, AreToldWhatEveryCopyHolds) {
  Pair pair(17);
  TestNode c(pair.world, pair.network, "c", Role::kMirror);
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "b", .mode = ReplicationMode::kAsync}));
  ASSERT_TRUE(pair.a.replication->add_slot({.address = "c", .mode = ReplicationMode::kAsync}));
  pair.a.replication->become_primary();
  const auto everywhere = [&](std::uint64_t lsn) {
    return [&pair, &c, lsn] {
      return pair.b.log.durable_everywhere() == Lsn{lsn} &&
             c.log.durable_everywhere() == Lsn{lsn} && pair.b.log.durable() >= Lsn{lsn};
    };
  };
  pair.write(30);
  ASSERT_TRUE(pair.world.run(pair.a.log.flush_local()));
  ASSERT_TRUE(pair.world.run_until(everywhere(30), 5s));
  pair.network.set_reachable("b", false);
  pair.network.cut("b");
  pair.write(20);
  ASSERT_TRUE(pair.world.run(pair.a.log.flush_local()));
  ASSERT_TRUE(pair.world.run_until([&] { return c.log.primary_durable() == Lsn{50}; }, 5s));
  EXPECT_EQ(c.log.durable_everywhere(), Lsn{30});
  pair.network.set_reachable("b", true);
  ASSERT_TRUE(pair.world.run_until(everywhere(50), 10s));
}

}  // namespace
}  // namespace tandem::replication::testing
