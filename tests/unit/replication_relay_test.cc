// A mirror that feeds a further one: A -> B -> C (decision 0019).
#include "tests/unit/replication_fixture.h"

namespace tandem::replication::testing {
namespace {

const Settings kRelayToC{{mirror_prefix("c") + "relay", "on"}};
const Settings kRelayToB{{mirror_prefix("b") + "relay", "on"}};

/// "a" is primary, "b" its mirror, and "c" is fed by "b". All of them are in one world.
struct Chain : Pair {
  explicit Chain(std::uint64_t seed, ReplicationMode mode = ReplicationMode::kAsync)
      : Pair(seed), c(world, network, "c", Role::kMirror) {
    a.serve_to("b", mode);
    feed();
  }
  void feed() {
    b.replication->set_settings(kRelayToC);
    EXPECT_TRUE(b.replication->add_slot({.address = "c"}));
  }
  /// Promise 3 for the whole chain: C is never ahead of what B holds durably, nor another history.
  void check() {
    const LogPoint end = c.log.head();
    ASSERT_LE(end.lsn, b.log.durable());
    ASSERT_EQ(b.log.chain_at(end.lsn), end.digest);
  }
  bool until(const std::function<bool()>& done, Nanoseconds limit = 20s) {
    return world.run_until(
        [&] {
          check();
          return ::testing::Test::HasFatalFailure() || done();
        },
        limit);
  }
  bool level() const { return equal() && c.log.head() == a.log.head(); }
  void promote_node(TestNode& node) {
    world.run(node.replication->hold_upstream());
    ASSERT_TRUE(world.run(node.log.open_timeline()));
    node.replication->become_primary();
  }
  TestNode c;
};

TEST(Relay, ShipsWhatIsDurableOnTheMirror) {
  Chain chain(1);
  Guest guest(chain.world, chain.a);
  guest.write(300);
  ASSERT_TRUE(chain.until([&] { return guest.done() && chain.level(); }));
  EXPECT_EQ(chain.c.log.content(), chain.a.log.content());
  ASSERT_TRUE(chain.until([&] { return chain.b.following(); }));
  EXPECT_EQ(chain.c.replication->upstream().node, "b");
  EXPECT_EQ(chain.c.replication->upstream().primary, "a");
  EXPECT_EQ(chain.b.replication->upstream().primary, "a");
  EXPECT_EQ(chain.a.replication->slots().size(), 1u);
  EXPECT_EQ(chain.b.slot().protocol, 3u);
}

TEST(Relay, NothingIsShippedThatIsNotDurable) {
  Chain chain(2);
  ASSERT_TRUE(chain.until([&] { return chain.b.following(); }));
  chain.write(20);
  for (int i = 0; i < 20; ++i) {
    chain.write(10);
    chain.check();
    if (i % 5 == 0) chain.b.power_cut(), chain.b.boot(Role::kMirror), chain.feed();
    chain.world.run_for(300ms);
    chain.check();
  }
  ASSERT_TRUE(chain.until([&] { return chain.level(); }));
}

TEST(Relay, NobodyWaitsForTheFarOne) {
  Chain chain(3, ReplicationMode::kSync);
  ASSERT_TRUE(chain.until([&] { return chain.a.slot().in_sync && chain.b.following(); }));
  chain.network.set_reachable("c", false);
  chain.network.cut("c");
  chain.write(30);
  EXPECT_TRUE(chain.a.slot().in_sync);
  chain.network.set_reachable("c", true);
  ASSERT_TRUE(chain.until([&] { return chain.level(); }));
}

TEST(Relay, EachIsToldWhatEveryCopyHolds) {
  Chain chain(4);
  chain.write(30);
  ASSERT_TRUE(chain.world.run(chain.a.log.flush_local()));
  ASSERT_TRUE(chain.until([&] { return chain.c.log.durable_everywhere() == Lsn{30}; }));
  chain.network.set_reachable("c", false);
  chain.network.cut("c");
  chain.write(20);
  ASSERT_TRUE(chain.world.run(chain.a.log.flush_local()));
  chain.world.run_for(2s);
  EXPECT_EQ(chain.b.log.primary_durable(), Lsn{50});
  EXPECT_EQ(chain.b.log.durable_everywhere(), Lsn{30}) << "it keeps what the far one lacks";
  ASSERT_TRUE(chain.world.run(chain.b.replication->remove_slot("c")));
  EXPECT_EQ(chain.b.log.durable_everywhere(), Lsn{50});
}

TEST(Relay, APromotedFarOneIsReportedAndFencesNobody) {
  Chain chain(5);
  chain.write(30);
  ASSERT_TRUE(chain.until([&] { return chain.level() && chain.b.following(); }));
  chain.promote_node(chain.c);
  const auto is_told = [&] {
    return chain.b.slot().state == "refused" &&
           chain.b.slot().reason.find("primary of group g") != std::string::npos;
  };
  ASSERT_TRUE(chain.world.run_until(is_told, 10s)) << chain.b.slot().reason;
  chain.world.run_for(2s);
  chain.write(20);
  ASSERT_TRUE(chain.world.run_until([&] { return chain.equal() && chain.a.following(); }, 5s));
  EXPECT_EQ(chain.a.fenced + chain.b.fenced, 0);
  // It follows when it is named, and the old primary learns of it.
  chain.b.log.keep_history(true);
  chain.a.log.keep_history(true);
  ASSERT_TRUE(chain.c.replication->add_slot({.address = "b"}));
  ASSERT_TRUE(
      chain.world.run_until([&] { return chain.c.following() && chain.a.fenced == 1; }, 10s))
      << chain.c.slot().reason;
  EXPECT_EQ(chain.b.log.branches().size(), 1u);
  EXPECT_TRUE(
      chain.world.run_until([&] { return chain.b.log.history() == chain.c.log.history(); }, 1s));
  EXPECT_EQ(chain.b.fenced, 0);
}

TEST(Relay, GoesOnAsAPrimaryWhenItIsPromoted) {
  Chain chain(6);
  chain.write(30);
  ASSERT_TRUE(chain.until([&] { return chain.level() && chain.b.following(); }));
  chain.promote_node(chain.b);
  Guest guest(chain.world, chain.b);
  guest.write(50);
  ASSERT_TRUE(chain.world.run_until(
      [&] {
        return guest.done() && chain.b.following() && chain.c.log.head() == chain.b.log.tail();
      },
      10s))
      << chain.b.slot().reason;
  EXPECT_EQ(chain.c.replication->upstream().primary, "b");
  EXPECT_EQ(chain.c.log.history(), chain.b.log.history());
  // And as a relay again, when it is demoted.
  chain.world.run(chain.b.replication->stop_shipping(Role::kMirror));
  ASSERT_TRUE(chain.world.run_until([&] { return chain.b.following(); }, 10s));
  EXPECT_EQ(chain.c.replication->upstream().node, "b");
}

/// The mirror goes back for a new primary: the far one is taken along, and keeps its tail.
TEST(Relay, TakesTheFarOneAlongWhenItGoesBack) {
  Chain chain(7);
  for (auto* node : {&chain.a, &chain.b, &chain.c}) node->log.keep_history(true);
  TestNode d(chain.world, chain.network, "d", Role::kMirror);
  ASSERT_TRUE(chain.a.replication->add_slot({.address = "d"}));
  chain.write(30);
  ASSERT_TRUE(chain.until([&] { return chain.level() && d.log.head().lsn == Lsn{30}; }));
  chain.network.set_reachable("d", false);
  chain.network.cut("d");
  chain.write(20);
  ASSERT_TRUE(chain.until([&] { return chain.level(); }));
  chain.network.set_reachable("a", false);
  chain.network.cut("a");
  chain.network.set_reachable("d", true);
  chain.promote_node(d);
  ASSERT_TRUE(d.replication->add_slot({.address = "b"}));
  Guest guest(chain.world, d);
  guest.write(10);
  ASSERT_TRUE(chain.world.run_until(
      [&] {
        return guest.done() && d.following() && chain.b.following() &&
               chain.c.log.head() == d.log.tail();
      },
      20s))
      << chain.b.slot().reason;
  EXPECT_EQ(chain.c.log.branches().size(), 1u);
  EXPECT_EQ(chain.c.log.history(), d.log.history());
  EXPECT_EQ(chain.c.replication->upstream().primary, "d");
}

/// It is replaced by an image: what it shipped so far ends first, and the far one gets an image
/// too.
TEST(Relay, ShipsAnImageWhenItGotOne) {
  Chain chain(8);
  chain.write(30);
  ASSERT_TRUE(chain.until([&] { return chain.level(); }));
  chain.network.set_reachable("b", false);
  chain.network.cut("b");
  chain.network.cut("c");
  chain.write(40);
  ASSERT_TRUE(chain.world.run(chain.a.log.flush_local()));
  chain.a.log.trim(Lsn{60});
  chain.network.set_reachable("b", true);
  ASSERT_TRUE(chain.world.run_until([&] { return chain.level() && chain.b.following(); }, 20s))
      << chain.b.slot().reason;
  EXPECT_EQ(chain.c.log.content(), chain.a.log.content());
}

TEST(Relay, AChainNeverLeadsBackIntoItself) {
  Chain chain(9);
  chain.write(30);
  ASSERT_TRUE(chain.until([&] { return chain.level() && chain.b.following(); }));
  chain.c.replication->set_settings(kRelayToB);
  ASSERT_TRUE(chain.c.replication->add_slot({.address = "b"}));
  const auto is_refused = [&] {
    return chain.c.slot().state == "refused" &&
           chain.c.slot().reason.find("itself") != std::string::npos;
  };
  // Also when the way to the primary is gone, and both are free to take whoever comes.
  for (int i = 0; i < 3; ++i) {
    chain.network.set_reachable("a", false);
    chain.network.cut("a");
    if (i != 0) chain.network.cut("b"), chain.network.cut("c");
    chain.world.run_for(5s);
    EXPECT_FALSE(chain.b.following() && chain.c.following());
    chain.network.set_reachable("a", true);
    ASSERT_TRUE(chain.world.run_until([&] { return chain.a.following(); }, 20s));
    ASSERT_TRUE(chain.world.run_until([&] { return chain.b.following() && is_refused(); }, 20s))
        << chain.b.slot().reason << " / " << chain.c.slot().reason;
  }
  chain.write(10);
  ASSERT_TRUE(chain.until([&] { return chain.level(); }));
}

TEST(Relay, APrimaryGoesBeforeIt) {
  Chain chain(10);
  chain.write(30);
  ASSERT_TRUE(chain.until([&] { return chain.level(); }));
  ASSERT_TRUE(chain.a.replication->add_slot({.address = "c"}));
  ASSERT_TRUE(
      chain.world.run_until([&] { return chain.c.replication->upstream().node == "a"; }, 10s));
  chain.world.run_for(2s);
  EXPECT_EQ(chain.c.replication->upstream().node, "a");
  EXPECT_EQ(chain.b.slot().state, "refused");
  ASSERT_TRUE(chain.world.run(chain.a.replication->remove_slot("c")));
  ASSERT_TRUE(chain.until([&] { return chain.b.following(); }));
}

TEST(Relay, OnlySlotsThatAreSaidToBe) {
  Pair pair(11);
  ASSERT_TRUE(pair.b.replication->add_slot({.address = "c"}));
  TestNode c(pair.world, pair.network, "c", Role::kMirror);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  pair.write(10);
  ASSERT_TRUE(pair.converge());
  EXPECT_EQ(pair.b.slot().state, "stopped");
  pair.b.replication->set_settings(kRelayToC);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.b.following(); }, 5s));
  pair.b.replication->set_settings({});
  ASSERT_TRUE(pair.world.run_until([&] { return pair.b.slot().state == "stopped"; }, 5s));
}

/// An older release does not know that a mirror may dial.
TEST(Relay, AnOlderReleaseRefusesIt) {
  auto older = test_options();
  older.versions = {1, 2};
  Pair pair(12);
  TestNode c(pair.world, pair.network, "c", Role::kMirror, older);
  pair.a.serve_to("b", ReplicationMode::kAsync);
  pair.b.replication->set_settings(kRelayToC);
  ASSERT_TRUE(pair.b.replication->add_slot({.address = "c"}));
  ASSERT_TRUE(pair.world.run_until([&] { return pair.b.slot().state == "refused"; }, 5s));
  EXPECT_NE(pair.b.slot().reason.find("upgrade tandemd on node c"), std::string::npos)
      << pair.b.slot().reason;
}

}  // namespace
}  // namespace tandem::replication::testing
