// Following, catching up, acknowledgement modes, degradation.
#include "tests/unit/replication_fixture.h"

namespace tandem::replication::testing {
namespace {

TEST(Follow, ShipsEverythingAndConverges) {
  for (const auto seed : sim::seeds_to_run(1, 20)) {
    Pair pair(seed);
    pair.a.serve_to("b", ReplicationMode::kAsync);
    Guest guest(pair.world, pair.a);
    guest.write(200);
    ASSERT_TRUE(pair.run_checked([&] { return guest.done(); }));
    ASSERT_TRUE(pair.converge()) << "seed " << seed;
    EXPECT_EQ(guest.acknowledged(), 200);
    EXPECT_EQ(pair.a.slot().missing_records, 0u);
    EXPECT_EQ(pair.a.slot().missing_bytes, 0u);
  }
}

TEST(Follow, BatchesWhatWaits) {
  Pair pair(5);
  pair.write(300);  // before there is a mirror: all of it waits
  pair.a.serve_to("b", ReplicationMode::kAsync);
  const auto before = pair.network.messages_delivered();
  ASSERT_TRUE(pair.converge());
  EXPECT_LT(pair.network.messages_delivered() - before, 40u);
}

TEST(Follow, SyncAcknowledgesOnlyWhatBothHaveWritten) {
  for (const auto seed : sim::seeds_to_run(1, 20)) {
    Pair pair(seed);
    pair.a.serve_to("b", ReplicationMode::kSync);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
    Guest guest(pair.world, pair.a);
    guest.write(150);
    ASSERT_TRUE(pair.run_checked([&] {
      EXPECT_LE(pair.a.log.acknowledged(), pair.b.log.head().lsn);
      EXPECT_LE(pair.a.log.acknowledged_flush(), pair.b.log.durable());
      return guest.done();
    }));
    EXPECT_TRUE(pair.a.slot().in_sync) << "no fault happened, so nothing may degrade";
  }
}

TEST(Follow, SyncWriteWaitsWhileTheMirrorsDiskDoes) {
  Pair pair(7);
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
  pair.b.log.freeze(true);
  Guest guest(pair.world, pair.a);
  guest.write(1, 1, false);
  pair.world.run_for(300ms);  // less than the time-out
  EXPECT_EQ(guest.acknowledged(), 0);
  EXPECT_EQ(pair.a.log.head().lsn, Lsn{1}) << "written here, but not there";
  pair.b.log.freeze(false);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 1s));
  EXPECT_TRUE(pair.a.slot().in_sync);
}

TEST(Follow, FlushModeHoldsFlushesOnly) {
  Pair pair(8);
  pair.a.serve_to("b", ReplicationMode::kFlush);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.following(); }, 10s));
  pair.b.log.freeze(true);
  Guest guest(pair.world, pair.a);
  guest.write(5, 1, false);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 300ms))
      << "writes do not wait in mode flush";
  bool flushed = false;
  struct Flusher {
    static Task<void> run(MemoryLog& log, bool& done) {
      auto result = co_await log.flush();
      done = result.has_value();
    }
  };
  spawn(Flusher::run(pair.a.log, flushed));
  pair.world.run_for(200ms);
  EXPECT_FALSE(flushed);
  EXPECT_FALSE(pair.a.slot().in_sync) << "in_sync speaks of writes";
  pair.b.log.freeze(false);
  ASSERT_TRUE(pair.world.run_until([&] { return flushed; }, 1s));
  EXPECT_GE(pair.b.log.durable(), pair.a.log.acknowledged_flush());
}

TEST(Follow, FlushGatingHoldsOnEverySeed) {
  for (const auto seed : sim::seeds_to_run(50, 20)) {
    Pair pair(seed);
    pair.a.serve_to("b", ReplicationMode::kFlush);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.following(); }, 10s));
    Guest guest(pair.world, pair.a);
    guest.write(150, 8);
    ASSERT_TRUE(pair.run_checked([&] {
      EXPECT_LE(pair.a.log.acknowledged_flush(), pair.b.log.durable());
      return guest.done();
    }));
    // One request for durability serves many flushes; background ones come with heartbeats.
    EXPECT_LT(pair.b.log.flushes(), 150u);
  }
}

TEST(Follow, AsyncWaitsForNothing) {
  Pair pair(9);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.following(); }, 10s));
  pair.b.log.freeze(true);
  Guest guest(pair.world, pair.a);
  guest.write(50);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 300ms));
  const SlotStatus slot = pair.a.slot();
  EXPECT_EQ(slot.missing_records, 50u);
  EXPECT_EQ(slot.missing_bytes, 50u * kBlockBytes) << "exact, also while it lags";
  pair.b.log.freeze(false);
  ASSERT_TRUE(pair.converge());
}

TEST(Follow, ModeChangesWhileRunning) {
  Pair pair(10);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.following(); }, 10s));
  EXPECT_FALSE(pair.a.log.remote_ack().written.has_value());
  pair.a.replication->set_mode(ReplicationMode::kSync);
  EXPECT_TRUE(pair.a.log.remote_ack().written.has_value());
  pair.a.replication->set_mode(ReplicationMode::kFlush);
  EXPECT_FALSE(pair.a.log.remote_ack().written.has_value());
  EXPECT_TRUE(pair.a.log.remote_ack().durable.has_value());
  pair.b.log.freeze(true);
  Guest guest(pair.world, pair.a);
  pair.a.replication->set_mode(ReplicationMode::kSync);
  guest.write(1, 1, false);
  pair.world.run_for(50ms);
  EXPECT_FALSE(guest.done());
  pair.a.replication->set_mode(ReplicationMode::kAsync);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 50ms))
      << "loosening the mode releases who waits";
  pair.b.log.freeze(false);
}

TEST(Follow, CatchesUpBeforeWritersWait) {
  ReplicationOptions options = test_options();
  options.following_lag_records = 10;
  Pair pair(11, options);
  pair.write(500);
  pair.b.log.freeze(true);
  pair.a.serve_to("b", ReplicationMode::kSync);
  pair.world.run_for(50ms);
  EXPECT_EQ(pair.a.slot().state, "catch-up");
  Guest guest(pair.world, pair.a);
  guest.write(20);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 300ms))
      << "nobody waits for a mirror that catches up";
  EXPECT_FALSE(pair.a.slot().in_sync);
  pair.b.log.freeze(false);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
  ASSERT_TRUE(pair.converge());
}

TEST(Degrade, ACutLinkReleasesWritersAndSaysWhy) {
  for (const auto seed : sim::seeds_to_run(1, 10)) {
    Pair pair(seed);
    pair.a.serve_to("b", ReplicationMode::kSync);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
    Guest guest(pair.world, pair.a);
    guest.write(100);
    pair.world.run_for(1ms);
    pair.network.set_reachable("b", false);
    pair.network.cut("b");
    ASSERT_TRUE(pair.run_checked([&] { return guest.done(); }));
    const SlotStatus slot = pair.a.slot();
    EXPECT_EQ(guest.acknowledged(), 100);
    EXPECT_FALSE(slot.in_sync);
    EXPECT_EQ(slot.state, "connecting") << "seed " << seed << ": " << slot.reason;
    EXPECT_FALSE(slot.reason.empty());
    EXPECT_EQ(slot.missing_records, 100 - slot.written.value);
    EXPECT_EQ(slot.missing_bytes, slot.missing_records * kBlockBytes);
    EXPECT_EQ(pair.b.replication->upstream().state, "lost");
    pair.network.set_reachable("b", true);
    ASSERT_TRUE(pair.run_checked([&] { return pair.equal() && pair.a.slot().in_sync; }));
    ASSERT_TRUE(pair.converge());
  }
}

TEST(Degrade, ASilentLinkReleasesWritersAfterTheTimeout) {
  Pair pair(21);
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
  pair.network.swallow("b");
  Guest guest(pair.world, pair.a);
  guest.write(1, 1, false);
  pair.world.run_for(200ms);
  EXPECT_FALSE(guest.done()) << "not before the time-out";
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 1s));
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s))
      << "the new stream replaces the one that the mirror still believes in";
  ASSERT_TRUE(pair.converge());
}

TEST(Degrade, AMirrorThatAnswersButWritesNothingIsNotWaitedFor) {
  Pair pair(22);
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
  pair.b.log.freeze(true);
  Guest guest(pair.world, pair.a);
  guest.write(10);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 2s));
  pair.world.run_for(2s);
  EXPECT_EQ(pair.a.slot().state, "catch-up");
  EXPECT_NE(pair.a.slot().reason.find("disk"), std::string::npos) << pair.a.slot().reason;
  EXPECT_FALSE(pair.a.slot().in_sync);
  pair.b.log.freeze(false);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
}

TEST(Degrade, RemovingTheSlotReleasesWriters) {
  Pair pair(23);
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
  pair.b.log.freeze(true);
  Guest guest(pair.world, pair.a);
  guest.write(1, 1, false);
  pair.world.run_for(50ms);
  EXPECT_FALSE(guest.done());
  ASSERT_TRUE(pair.world.run(pair.a.replication->remove_slot("b")));
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 10ms));
  EXPECT_FALSE(pair.a.log.log_hold().has_value());
  pair.b.log.freeze(false);
  EXPECT_FALSE(pair.world.run(pair.a.replication->remove_slot("b"))) << "it is gone";
}

TEST(Follow, HoldsTheLogThatTheMirrorMayStillNeed) {
  Pair pair(24);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.converge());
  pair.write(50);
  ASSERT_TRUE(pair.run_checked([&] {
    EXPECT_LE(pair.a.log.log_hold().value(), pair.b.log.durable());
    return pair.a.log.log_hold() == Lsn{50};
  })) << "heartbeats make an idle mirror durable, so the log can go";
}

// The streams end before a group's last checkpoint, which took the log from a mirror that lagged or
// was away: it had to be sent what changed after every ordered restart of its primary.
TEST(Follow, HoldsTheLogForTheMirrorAlsoWhileThePrimaryStops) {
  for (const bool away : {false, true}) {
    Pair pair(27);
    pair.a.serve_to("b", ReplicationMode::kAsync);
    ASSERT_TRUE(pair.converge());
    pair.write(20);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.log.log_hold() == Lsn{20}; }, 10s));
    if (away) {
      pair.network.set_reachable("b", false);
      pair.network.cut("b");
    } else {
      pair.b.log.freeze(true);
    }
    pair.write(5);
    pair.world.run_for(100ms);
    pair.world.run(pair.a.replication->stop(), 10s);
    EXPECT_EQ(pair.a.log.log_hold(), Lsn{20});
    if (!away) pair.b.log.freeze(false);
  }
}

TEST(Follow, WaitDurableFlushesTheMirrorAtOnce) {
  Pair pair(25);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.converge());
  pair.write(20);
  const Lsn upto = pair.a.log.tail().lsn;
  ASSERT_TRUE(pair.world.run(pair.a.replication->wait_durable("b", upto, 1s)));
  EXPECT_GE(pair.b.log.durable(), upto);
  pair.network.set_reachable("b", false);
  pair.network.cut("b");
  pair.write(1);
  auto failed = pair.world.run(pair.a.replication->wait_durable("b", Lsn{21}, 1s));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::kUnavailable);
}

TEST(Follow, TheMirrorKnowsWhatItLacks) {
  Pair pair(26);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.converge());
  ASSERT_TRUE(pair.world.run_until([&] { return pair.b.replication->upstream_connected(); }, 1s));
  pair.b.log.freeze(true);
  pair.write(30);
  pair.world.run_for(300ms);  // heartbeats say where the primary is
  const UpstreamStatus upstream = pair.b.replication->upstream();
  EXPECT_EQ(upstream.node, "a");
  EXPECT_EQ(upstream.primary_head.lsn, Lsn{30});
  EXPECT_EQ(upstream.missing_records, 30u);
  EXPECT_EQ(upstream.missing_bytes, 30u * kBlockBytes);
  EXPECT_EQ(pair.b.log.primary_durable(), Lsn{0}) << "nothing was found to be the same yet";
  pair.b.log.freeze(false);
  ASSERT_TRUE(pair.converge());
  EXPECT_TRUE(pair.world.run_until(
      [&] { return pair.b.log.primary_durable() == pair.a.log.durable(); }, 1s));
  pair.a.stop();
  pair.world.run_for(1s);
  EXPECT_EQ(pair.b.replication->upstream().state, "lost");
  EXPECT_FALSE(pair.b.replication->upstream_connected());
  pair.a.boot(Role::kPrimary);
}

TEST(Follow, ABackloggedMirrorBoundsItself) {
  ReplicationOptions options = test_options();
  options.apply_batches_max = 3;
  options.batch_bytes = options.catch_up_bytes = 2 * kBlockBytes;
  Pair pair(27, options);
  pair.write(200);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.converge());
  EXPECT_LE(pair.b.log.applies_in_flight_max(), 3u);
  EXPECT_GT(pair.b.log.applies_in_flight_max(), 1u) << "and overlaps what it may";
}

TEST(Follow, ACorruptBatchIsRefusedAndShippedAgain) {
  Pair pair(28);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.converge());
  pair.b.log.fail_next_apply({ErrorCode::kCorrupt, "a checksum does not match"});
  pair.write(10);
  ASSERT_TRUE(pair.run_checked([&] { return pair.equal() && pair.a.following(); }));
}

}  // namespace
}  // namespace tandem::replication::testing
