// What bounds a slot's stream: rates for bulk work, compression, and what gathers in one message.
#include "tests/unit/replication_fixture.h"

namespace tandem::replication::testing {
namespace {

/// A mirror played by hand: it welcomes, acknowledges everything, and remembers what it was sent.
class HandMirror final : public LinkAcceptor {
 public:
  HandMirror(SimRuntime& world, SimNetwork& network) : world_(world), node_(world.add_node()) {
    network.listen("b", node_, this);
  }
  ~HandMirror() override {
    for (auto& link : links_) link->close();
    world_.run_until([&] { return running_ == 0; }, 10s);
  }
  void accept(std::unique_ptr<Link> link) override {
    ++streams;
    links_.push_back(std::move(link));
    spawn(serve(*links_.back()));
  }

  std::uint32_t codecs = message::kCodecLz4;
  Nanoseconds read_pause{0};  // a slow link: the sender's backlog grows
  bool refuses_images = false, refuses_records = false;
  bool agrees = false;  // finds the primary's digests equal to its own
  std::size_t heartbeats = 0;
  std::size_t batches = 0, compressed = 0, bytes = 0, streams = 0;
  Lsn written;

 private:
  Task<void> serve(Link& link) {
    ++running_;
    while (true) {
      auto received = co_await link.receive();
      if (!received) break;
      if (auto* hello = std::get_if<message::Hello>(&*received)) {
        message::Welcome welcome;
        welcome.identity = hello->identity;
        welcome.identity.pool = Uuid::from_random(9, 9);
        welcome.identity.node = "b";
        welcome.history = hello->history;
        welcome.codecs = codecs;
        link.send(std::move(welcome));
      } else if (refuses_records && std::holds_alternative<message::Start>(*received)) {
        link.send(message::Ack{written, written, written});
      } else if (refuses_records && std::holds_alternative<message::Records>(*received)) {
        link.send(message::Refuse{ErrorCode::kNoSpace, "the pool is full", {}});
      } else if (auto* records = std::get_if<message::Records>(&*received)) {
        ++batches;
        compressed += records->compress ? 1 : 0;
        bytes += records->batch.payload_bytes();
        written = records->batch.last;
        link.send(message::Ack{written, written, written});
      } else if (refuses_images && std::holds_alternative<message::ImageBegin>(*received)) {
        link.send(message::Refuse{ErrorCode::kNoSpace, "the pool is full", {}});
      } else if (auto* heartbeat = std::get_if<message::Heartbeat>(&*received)) {
        ++heartbeats;
        const Lsn agreed = agrees ? std::min(heartbeat->head.lsn, written) : Lsn{};
        link.send(message::Ack{written, written, written, agreed});
      }
      if (read_pause > 0ns) co_await sleep_for(node_, read_pause);
    }
    --running_;
  }
  SimRuntime& world_;
  SimNode& node_;
  std::vector<std::unique_ptr<Link>> links_;
  int running_ = 0;
};

/// A primary whose mirror is played by hand.
struct Shipping {
  explicit Shipping(std::uint64_t seed, ReplicationOptions options = test_options())
      : world(seed),
        network(world),
        mirror(world, network),
        a(world, network, "a", Role::kPrimary, options) {}
  void write(int count) {
    Guest guest(world, a);
    guest.write(count, 4, false);
    ASSERT_TRUE(world.run_until([&] { return guest.done(); }, 60s));
  }
  void set(Settings settings) {
    Settings all;
    for (const auto& [key, value] : settings) all[mirror_prefix("b") + key] = value;
    a.replication->set_settings(all);
  }
  QuietLog quiet;
  SimRuntime world;
  SimNetwork network;
  HandMirror mirror;
  TestNode a;
};

TEST(Heartbeats, SayNothingNewHalfAsOften) {
  const ReplicationOptions options = test_options();
  for (const bool agrees : {false, true}) {
    Shipping s(3, options);
    s.mirror.agrees = agrees;
    s.write(10);
    s.a.serve_to("b", ReplicationMode::kAsync);
    ASSERT_TRUE(s.world.run_until([&] { return s.mirror.written == Lsn{10}; }, 5s));
    s.world.run_for(1s);
    s.mirror.heartbeats = 0;
    s.world.run_for(40 * options.heartbeat_interval);
    EXPECT_NEAR(s.mirror.heartbeats, agrees ? 20 : 40, 2)
        << "until it agrees there is something new";
    s.write(1);
    s.mirror.heartbeats = 0;
    s.world.run_for(2 * options.heartbeat_interval);
    EXPECT_GE(s.mirror.heartbeats, 1u) << "a new head is said in time";
  }
}

TEST(CatchUpRate, IsKeptAndMayChangeWhileRunning) {
  ReplicationOptions options = test_options();
  options.following_lag_records = 1;  // the whole of it is catching up
  Shipping s(1, options);
  s.write(1000);  // 4 MB
  s.set({{"catch_up_rate", "400KiB"}});
  s.a.serve_to("b", ReplicationMode::kAsync);
  s.world.run_for(5s);
  EXPECT_GT(s.mirror.bytes, 1'600'000u);
  EXPECT_LT(s.mirror.bytes, 2'400'000u) << "five seconds at 400 KiB";
  EXPECT_EQ(s.a.slot().state, "catch-up");
  EXPECT_NE(s.a.slot().reason.find("limited to 400 KiB a second"), std::string::npos)
      << s.a.slot().reason;
  s.set({});
  ASSERT_TRUE(s.world.run_until([&] { return s.mirror.written == Lsn{1000}; }, 500ms));
  EXPECT_EQ(s.a.slot().reason.find("limited"), std::string::npos);
}

TEST(CatchUpRate, FollowsTheClock) {
  ReplicationOptions options = test_options();
  options.following_lag_records = 1;
  Shipping s(2, options);
  s.write(1000);
  // Whatever the local time is: slow in this hour, unlimited from the next.
  const unsigned minute = minute_of_day(s.a.node.utc());
  const auto hour = [](unsigned h) { return fmt::format("{:02}:00", h % 24); };
  s.set({{"catch_up_rate", "off"},
         {"catch_up_times", hour(minute / 60) + "-" + hour(minute / 60 + 1) + " 4KiB"}});
  s.a.serve_to("b", ReplicationMode::kAsync);
  s.world.run_for(10s);
  EXPECT_LT(s.mirror.bytes, 100'000u);
  ASSERT_TRUE(s.world.run_until([&] { return s.mirror.written == Lsn{1000}; }, 62min));
}

TEST(CatchUpRate, DoesNotSlowAMirrorThatFollows) {
  Shipping s(3);
  s.set({{"catch_up_rate", "4KiB"}});
  s.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(s.world.run_until([&] { return s.a.slot().in_sync; }, 10s));
  Guest guest(s.world, s.a);
  guest.write(500);
  ASSERT_TRUE(s.world.run_until([&] { return guest.done(); }, 2s)) << "2 MB at 4 KiB a second?";
}

TEST(CatchUpRate, HoldsForAFullCopy) {
  Pair pair(4);
  pair.write(300);
  ASSERT_TRUE(pair.world.run(pair.a.log.flush_local()));
  pair.a.log.trim(Lsn{300});
  pair.a.replication->set_settings({{mirror_prefix("b") + "catch_up_rate", "40KiB"}});
  pair.a.serve_to("b", ReplicationMode::kAsync);
  pair.world.run_for(2s);
  const SlotStatus slot = pair.a.slot();
  EXPECT_EQ(slot.state, "image");
  EXPECT_GT(slot.progress_done, 10u);
  EXPECT_LT(slot.progress_done, 35u) << "of 50 blocks, at ten a second";
  ASSERT_TRUE(pair.converge());
}

TEST(CatchUpRate, AnImageThatIsRefusedIsNotSentInALoop) {
  Shipping s(7);
  s.write(300);
  ASSERT_TRUE(s.world.run(s.a.log.flush_local()));
  s.a.log.trim(Lsn{300});
  s.mirror.refuses_images = true;
  s.a.serve_to("b", ReplicationMode::kAsync);
  s.world.run_for(20s);
  EXPECT_GT(s.mirror.streams, 3u);
  EXPECT_LT(s.mirror.streams, 300u) << "with a pause of at most 200 ms";
  s.mirror.refuses_images = false;
}

TEST(CatchUpRate, RecordsThatAreRefusedAreNotSentInALoop) {
  Shipping s(8);
  s.write(30);
  s.mirror.refuses_records = true;
  s.a.serve_to("b", ReplicationMode::kAsync);
  s.world.run_for(20s);
  EXPECT_GT(s.mirror.streams, 3u);
  EXPECT_LT(s.mirror.streams, 300u) << "with a pause of at most 200 ms";
  s.mirror.refuses_records = false;
}

TEST(Compression, IsAskedForOnlyWhenSetAndUnderstood) {
  for (const bool understood : {true, false}) {
    for (const char* value : {"off", "on"}) {
      Shipping s(5);
      s.mirror.codecs = understood ? message::kCodecLz4 : 0;
      s.set({{"compression", value}});
      s.a.serve_to("b", ReplicationMode::kAsync);
      s.write(100);
      ASSERT_TRUE(s.world.run_until([&] { return s.mirror.written == Lsn{100}; }, 10s));
      const bool wanted = understood && std::string_view(value) == "on";
      EXPECT_EQ(s.mirror.compressed, wanted ? s.mirror.batches : 0) << value << " " << understood;
    }
  }
}

TEST(Compression, AutoCompressesWhileTheLinkIsTheLimit) {
  for (const bool slow : {true, false}) {
    ReplicationOptions options = test_options();
    options.timeout = 5s;
    options.batch_bytes = options.catch_up_bytes = 8 * kBlockBytes;
    Shipping s(6, options);
    s.mirror.read_pause = slow ? 20ms : 0ms;
    s.set({{"compression", "auto"}});
    s.write(slow ? 1000 : 0);
    s.a.serve_to("b", ReplicationMode::kAsync);
    if (!slow) {
      for (int i = 0; i < 200; ++i) {
        s.write(1);
        s.world.run_for(5ms);
      }
    }
    ASSERT_TRUE(
        s.world.run_until([&] { return s.mirror.written == Lsn{slow ? 1000u : 200u}; }, 60s));
    if (slow) {
      EXPECT_GT(s.mirror.compressed, s.mirror.batches / 2);
    } else {
      EXPECT_EQ(s.mirror.compressed, 0u);
    }
  }
}

/// Follows from the start; returns when it does.
void follow(Shipping& s, ReplicationMode mode) {
  s.a.serve_to("b", mode);
  ASSERT_TRUE(s.world.run_until([&] { return s.a.following(); }, 10s));
}

TEST(Gathering, WhatNobodyWaitsForGoesTogetherAndSoon) {
  Shipping s(20);
  follow(s, ReplicationMode::kAsync);
  s.write(400);  // about 10 ms, four at a time
  EXPECT_LE(s.mirror.batches, 6u);
  const auto end = s.a.node.monotonic();
  ASSERT_TRUE(s.world.run_until([&] { return s.mirror.written == s.a.log.tail().lsn; }, 1s));
  EXPECT_LE(s.a.node.monotonic() - end, test_options().gather_time + 2ms);
}

TEST(Gathering, AFullMessageGoesAtOnce) {
  ReplicationOptions options = test_options();
  options.gather_time = 10s;
  options.batch_bytes = 16 * kBlockBytes;
  Shipping s(21, options);
  follow(s, ReplicationMode::kAsync);
  s.write(160);
  ASSERT_TRUE(s.world.run_until([&] { return s.mirror.bytes >= 144 * kBlockBytes; }, 1s));
  EXPECT_LE(s.mirror.batches, 10u);
}

TEST(Gathering, WritersThatAPolicyHoldsDoNotWaitForMore) {
  ReplicationOptions options = test_options();
  options.gather_time = 10s;
  Shipping s(23, options);
  s.a.replication->set_settings({{"lag_bytes", "8KiB"}, {"lag_action", "stall"}});
  follow(s, ReplicationMode::kAsync);
  const auto begun = s.a.node.monotonic();
  s.write(200);  // four at a time, so that nearly each is beyond the bound
  EXPECT_LE(s.a.node.monotonic() - begun, 5s);
}

TEST(Gathering, WritersAndFlushesThatWaitDoNotWaitForMore) {
  for (const auto mode : {ReplicationMode::kSync, ReplicationMode::kFlush}) {
    ReplicationOptions options = test_options();
    options.gather_time = 10s;
    Shipping s(22, options);
    follow(s, mode);
    Guest guest(s.world, s.a);
    guest.write(200, 1, true);
    const auto begun = s.a.node.monotonic();
    ASSERT_TRUE(s.world.run_until([&] { return guest.done(); }, 60s)) << to_string(mode);
    EXPECT_LE(s.a.node.monotonic() - begun, 5s) << to_string(mode);
    EXPECT_EQ(guest.failed(), 0);
  }
}

}  // namespace
}  // namespace tandem::replication::testing
