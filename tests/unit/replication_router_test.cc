// The router's door, and peers that break the rules, played by hand.
#include "tests/unit/replication_fixture.h"

namespace tandem::replication::testing {
namespace {

ReplicationOptions release(message::VersionRange versions) {
  ReplicationOptions options = test_options();
  options.versions = versions;
  return options;
}

/// A primary of one release and a mirror of another.
struct MixedPair {
  MixedPair(message::VersionRange primary, message::VersionRange mirror)
      : a(world, network, "a", Role::kPrimary, release(primary)),
        b(world, network, "b", Role::kMirror, release(mirror)) {}
  QuietLog quiet;
  SimRuntime world{77};
  SimNetwork network{world};
  TestNode a, b;
};

TEST(Versions, NeighbouringReleasesFollowEachOther) {
  for (const bool primary_is_newer : {true, false}) {
    const message::VersionRange older{1, 2}, newer{2, 3};
    MixedPair pair(primary_is_newer ? newer : older, primary_is_newer ? older : newer);
    pair.a.serve_to("b", ReplicationMode::kSync);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.following(); }, 10s));
    EXPECT_EQ(pair.a.slot().protocol, 2u);
  }
}

TEST(Versions, ReleasesWithoutACommonVersionSayWhatToUpgrade) {
  MixedPair pair({3, 4}, {1, 2});
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().state == "refused"; }, 10s));
  const std::string reason = pair.a.slot().reason;
  EXPECT_NE(reason.find("versions 3 to 4"), std::string::npos) << reason;
  EXPECT_NE(reason.find("versions 1 to 2"), std::string::npos) << reason;
  EXPECT_NE(reason.find("upgrade tandemd on node b"), std::string::npos) << reason;
  EXPECT_EQ(pair.a.slot().protocol, 0u);
}

struct Door {
  explicit Door(std::uint64_t seed)
      : world(seed),
        network(world),
        dialler(world.add_node()),
        b(world, network, "b", Role::kMirror) {}

  std::unique_ptr<Link> dial() { return network.dialer(dialler, "x").dial("b"); }
  message::Hello hello() {
    message::Hello hello;
    hello.identity = {group_id(), "g", Uuid::from_random(7, 7), "x"};
    hello.history = {{Timeline{1}, Lsn{0}, UtcNs{0}}};
    return hello;
  }
  template <class T>
  T expect(Link& link) {
    auto received = world.run(link.receive(), 10s);
    EXPECT_TRUE(received.has_value()) << received.error().message;
    if (!received || !std::holds_alternative<T>(*received)) {
      ADD_FAILURE() << "another message than expected";
      return {};
    }
    return std::get<T>(*received);
  }
  /// Skips acknowledgements; ends with a refusal.
  message::Refuse expect_refusal(Link& link) {
    while (true) {
      auto received = world.run(link.receive(), 10s);
      if (!received) {
        ADD_FAILURE() << received.error().message;
        return {};
      }
      if (auto* refusal = std::get_if<message::Refuse>(&*received)) return *refusal;
    }
  }

  QuietLog quiet;
  SimRuntime world;
  SimNetwork network;
  SimNode& dialler;
  TestNode b;
};

TEST(Router, ASilentDialerIsClosedAfterTheTimeout) {
  Door door(1);
  auto link = door.dial();
  const auto before = door.world.now();
  auto received = door.world.run(link->receive(), 10s);
  EXPECT_FALSE(received);
  EXPECT_GE(door.world.now() - before, 400ms);
  EXPECT_LT(door.world.now() - before, 1s);
}

TEST(Router, SomethingElseThanAHelloIsClosed) {
  Door door(2);
  auto link = door.dial();
  link->send(message::Ack{});
  EXPECT_FALSE(door.world.run(link->receive(), 10s));
}

TEST(Router, ACrowdOfSilentDialersIsBounded) {
  Door door(3);
  std::vector<std::unique_ptr<Link>> crowd;
  for (int i = 0; i < 100; ++i) crowd.push_back(door.dial());
  door.world.run_for(10ms);
  EXPECT_LE(door.network.open_streams(), 64u);
  door.world.run_for(2s);
  EXPECT_EQ(door.network.open_streams(), 0u);
}

TEST(Router, AnUnknownGroupIsRefusedByName) {
  Door door(4);
  auto link = door.dial();
  auto hello = door.hello();
  hello.identity.group = Uuid::from_random(8, 8);
  link->send(hello);
  const auto refusal = door.expect<message::Refuse>(*link);
  EXPECT_EQ(refusal.code, ErrorCode::kNotFound);
  EXPECT_TRUE(refusal.history.empty()) << "an unknown group fences nobody";
  EXPECT_NE(refusal.reason.find("unknown on this node"), std::string::npos);
}

struct Maker {
  TestNode& node;
  GroupReplication*& known;
  int made = 0;
  Task<Result<GroupReplication*>> make() {
    co_await sleep_for(node.node, 1ms);
    ++made;
    known = node.replication.get();
    co_return known;
  }
};

TEST(Router, TwoFirstContactsMakeOneCopy) {
  Door door(5);
  GroupReplication* known = nullptr;
  Maker maker{door.b, known};
  RouterCallbacks routes;
  routes.find = [&](const Uuid&) { return known; };
  routes.create = [&](const message::Hello&) { return maker.make(); };
  LinkRouter router(door.b.node.runtime(), test_options(), routes);
  door.network.listen("b", door.b.node, &router);
  auto first = door.dial();
  auto second = door.dial();
  first->send(door.hello());
  second->send(door.hello());
  door.world.run_for(50ms);
  EXPECT_EQ(maker.made, 1);
  EXPECT_EQ(door.network.open_streams(), 1u) << "the newer stream of the same node stays";
  door.world.run(router.stop(), 1s);
}

TEST(Router, StopClosesWhoHasNotSaidHello) {
  Door door(6);
  auto link = door.dial();
  door.world.run_for(10ms);
  door.world.run(door.b.router->stop(), 1s);
  EXPECT_FALSE(door.world.run(link->receive(), 100ms));
}

TEST(BadPeer, RecordsThatDoNotFollowAreRefused) {
  Door door(7);
  auto link = door.dial();
  link->send(door.hello());
  EXPECT_EQ(door.expect<message::Welcome>(*link).head.lsn, Lsn{0});
  link->send(message::Start{Lsn{0}, false});
  RecordBatch batch;
  batch.first = batch.last = Lsn{5};
  batch.records.resize(48);
  link->send(message::Records{batch, false});
  EXPECT_EQ(door.expect_refusal(*link).code, ErrorCode::kInvalid);
  EXPECT_EQ(door.b.log.tail().lsn, Lsn{0});
  EXPECT_FALSE(door.world.run(link->receive(), 1s)) << "and the stream ends";
}

TEST(BadPeer, RecordsBeforeStartAreRefused) {
  Door door(8);
  auto link = door.dial();
  link->send(door.hello());
  door.expect<message::Welcome>(*link);
  RecordBatch batch;
  batch.first = batch.last = Lsn{1};
  batch.records.resize(48);
  link->send(message::Records{batch, false});
  EXPECT_EQ(door.expect_refusal(*link).code, ErrorCode::kInvalid);
}

TEST(BadPeer, AStartBeyondOurEndIsRefused) {
  Door door(9);
  auto link = door.dial();
  link->send(door.hello());
  door.expect<message::Welcome>(*link);
  link->send(message::Start{Lsn{10}, false});
  EXPECT_EQ(door.expect_refusal(*link).code, ErrorCode::kInvalid);
}

TEST(BadPeer, ADialerThatNeverStartsIsClosed) {
  Door door(10);
  auto link = door.dial();
  link->send(door.hello());
  door.expect<message::Welcome>(*link);
  EXPECT_FALSE(door.world.run(link->receive(), 2s));
}

// A mirror played by hand, with a real primary.
void demand_that_it_is_not_believed(const message::Ack& lie) {
  QuietLog quiet;
  SimRuntime world(11);
  SimNetwork network(world);
  TestNode a(world, network, "a", Role::kPrimary);
  SimNode& other = world.add_node();
  struct Taker : LinkAcceptor {
    void accept(std::unique_ptr<Link> link) override { links.push_back(std::move(link)); }
    std::vector<std::unique_ptr<Link>> links;
  } taker;
  network.listen("m", other, &taker);
  a.serve_to("m", ReplicationMode::kSync);
  ASSERT_TRUE(world.run_until([&] { return taker.links.size() == 1; }, 1s));
  message::Welcome welcome;
  welcome.identity = {group_id(), "g", Uuid::from_random(8, 8), "m"};
  welcome.history = a.log.history();
  taker.links[0]->send(welcome);
  ASSERT_TRUE(world.run_until([&] { return a.slot().state == "following"; }, 1s));
  taker.links[0]->send(lie);
  ASSERT_TRUE(world.run_until([&] { return a.slot().state == "connecting"; }, 1s));
  EXPECT_NE(a.slot().reason.find("never sent"), std::string::npos) << a.slot().reason;
  EXPECT_EQ(a.slot().written, Lsn{0});
  EXPECT_EQ(a.slot().agreement.through, Lsn{0});
  network.listen("m", other, nullptr);
  a.stop();
}

TEST(BadPeer, AMirrorThatAcknowledgesWhatItWasNeverSent) {
  demand_that_it_is_not_believed({Lsn{9}, Lsn{9}, Lsn{9}});
}

TEST(BadPeer, AMirrorThatComparedWhatItDoesNotHold) {
  demand_that_it_is_not_believed({Lsn{0}, Lsn{0}, Lsn{0}, Lsn{9}});
}

}  // namespace
}  // namespace tandem::replication::testing
