// Declared policies on whole nodes with real stores: what writers wait for when the mirror lags or
// is gone, kept over restarts, changed while running, and never a way to lose what was promised.
#include <gtest/gtest.h>

#include "tests/sim/pair_world.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kBlocks = 16;

/// A pair, and writers of single blocks that are counted as they are answered.
class Policies {
 public:
  explicit Policies(std::uint64_t seed) : world_(seed, shape()) {
    begun_ = world_.primary().start() && world_.mirror().start() &&
             run(world_.primary().create_volume("v", kBlocks * kBlockBytes));
  }
  ~Policies() {
    // Whoever still waits is answered when its node goes.
    if (world_.primary().is_up()) world_.primary().kill();
    until([&] { return waiting_ == 0; });
  }

  bool pair_up(ReplicationMode mode) {
    AddMirror request{"g", world_.mirror().address(), mode};
    return begun_ && run(world_.primary().control().add_mirror(request)) && level();
  }
  bool level() {
    return until([&] { return world_.is_level() && group().slots.at(0).state == "following"; });
  }
  Status set(Settings changes, std::string mirror = "") {
    return run(
        world_.primary().control().change_settings({"g", std::move(mirror), std::move(changes)}));
  }
  GroupStatus group() { return world_.primary().status(); }
  std::string policy() { return group().policy.state; }

  void write(int count) {
    for (int i = 0; i < count; ++i) spawn(write_one(written_++));
  }
  /// Lets time pass until everybody was answered, or `limit` has passed.
  bool answered(Nanoseconds limit = 20s) {
    return until([&] { return waiting_ == 0; }, limit);
  }
  bool until(const std::function<bool()>& done, Nanoseconds limit = 60s) {
    return world_.until(done, limit);
  }
  void lose_mirror() {
    world_.network().set_reachable(world_.mirror().address(), false);
    world_.network().cut(world_.mirror().address());
  }
  void find_mirror() { world_.network().set_reachable(world_.mirror().address(), true); }
  template <class T>
  T run(Task<T> task) {
    return world_.runtime().run(std::move(task));
  }

  PairWorld world_;
  int acknowledged = 0, failed = 0;
  std::optional<Error> last_error;

 private:
  static StoreShape shape() {
    StoreShape shape = StoreShape::from_seed(SimRandom(5));
    shape.disk_bytes = 24 << 20;
    shape.options.flush_interval = 50ms;
    return shape;
  }
  Task<void> write_one(int number) {
    ++waiting_;
    auto volume = world_.primary().open_volume("v");
    Status done = ok();
    if (volume) {
      IoBuffer data = IoBuffer::on_heap(kBlockBytes);
      std::fill_n(data.data(), kBlockBytes, static_cast<std::byte>(number));
      auto writing = (*volume)->write((static_cast<std::uint64_t>(number) % kBlocks) * kBlockBytes,
                                      std::move(data), {});
      done = co_await std::move(writing);
    } else {
      done = volume.error();
    }
    done ? ++acknowledged : ++failed;
    if (!done) last_error = done.error();
    --waiting_;
  }

  bool begun_ = false;
  int written_ = 0, waiting_ = 0;
};

class QuietPolicies : public testing::Test {
 protected:
  SimLog log_;
};

TEST_F(QuietPolicies, StallHoldsAtTheBoundAndLetsGoWhenTheMirrorReturns) {
  for (const std::uint64_t seed : seeds_to_run(1, 6)) {
    Policies pair(seed);
    ASSERT_TRUE(pair.pair_up(ReplicationMode::kAsync));
    ASSERT_TRUE(pair.set({{"lag_bytes", "20KiB"}, {"lag_action", "stall"}}));
    pair.lose_mirror();
    pair.write(12);
    EXPECT_FALSE(pair.answered());
    EXPECT_LE(pair.acknowledged, 5) << "seed " << seed << ": 20 KiB are five blocks";
    const GroupStatus status = pair.group();
    EXPECT_EQ(status.policy.state, "stalled");
    EXPECT_NE(status.policy.since, UtcNs{});
    EXPECT_EQ(status.settings.at("lag_action"), "stall");
    EXPECT_EQ(status.state, "serving");
    pair.find_mirror();
    ASSERT_TRUE(pair.answered()) << "seed " << seed;
    EXPECT_EQ(pair.acknowledged, 12);
    ASSERT_TRUE(pair.level());
    ASSERT_TRUE(pair.until([&] { return pair.policy() == "normal"; }));
  }
}

TEST_F(QuietPolicies, ThrottleGoesOnSlowlyWithoutAMirror) {
  Policies pair(11);
  ASSERT_TRUE(pair.pair_up(ReplicationMode::kFlush));
  ASSERT_TRUE(pair.set({{"lag_bytes", "8KiB"}, {"lag_action", "throttle"}}));
  pair.world_.mirror().kill();
  pair.write(10);
  EXPECT_FALSE(pair.answered(500ms)) << "each waits up to a second";
  EXPECT_EQ(pair.policy(), "throttled");
  ASSERT_TRUE(pair.answered()) << "but none for ever";
  EXPECT_EQ(pair.acknowledged, 10);
  ASSERT_TRUE(pair.world_.mirror().start());
  ASSERT_TRUE(pair.level());
}

TEST_F(QuietPolicies, DegradeGoesOnAndSaysWhy) {
  Policies pair(12);
  ASSERT_TRUE(pair.pair_up(ReplicationMode::kAsync));
  ASSERT_TRUE(pair.set({{"lag_bytes", "8KiB"}, {"lag_time", "1h"}}));
  pair.world_.mirror().power_cut();
  pair.write(10);
  ASSERT_TRUE(pair.answered());
  ASSERT_TRUE(pair.until([&] { return pair.policy() == "degraded"; }));
  EXPECT_NE(pair.group().policy.reason.find("the bound is 8.0 KiB and 3600 s"), std::string::npos)
      << pair.group().policy.reason;
  ASSERT_TRUE(pair.world_.mirror().start());
  ASSERT_TRUE(pair.level());
  ASSERT_TRUE(pair.until([&] { return pair.policy() == "normal"; }));
}

TEST_F(QuietPolicies, ADistantAsyncMirrorIsBoundedInAGroupInSync) {
  for (const std::uint64_t seed : seeds_to_run(40, 4)) {
    Policies pair(seed);
    ASSERT_TRUE(pair.pair_up(ReplicationMode::kSync));
    PairNode& third = pair.world_.third();
    ASSERT_TRUE(third.start());
    AddMirror request{"g", third.address(), ReplicationMode::kAsync};
    ASSERT_TRUE(pair.run(pair.world_.primary().control().add_mirror(request)));
    const auto reach_third = [&](bool on) {
      pair.world_.network().set_reachable(third.address(), on);
      if (!on) pair.world_.network().cut(third.address());
    };
    const auto third_follows = [&] {
      const auto slots = pair.group().slots;
      return slots.size() == 2 && slots[1].state == "following" && slots[1].missing_records == 0;
    };
    ASSERT_TRUE(pair.until(third_follows));
    ASSERT_EQ(pair.group().mode, ReplicationMode::kSync);
    ASSERT_EQ(pair.group().slots[1].settings.at("mode"), "async");
    ASSERT_TRUE(pair.set({{"lag_bytes", "20KiB"}, {"lag_action", "stall"}}));
    reach_third(false);
    pair.write(12);
    EXPECT_FALSE(pair.answered());
    EXPECT_LE(pair.acknowledged, 5) << "seed " << seed << ": 20 KiB are five blocks";
    GroupStatus status = pair.group();
    EXPECT_EQ(status.policy.state, "stalled");
    EXPECT_NE(status.policy.reason.find("mirror " + third.name()), std::string::npos)
        << status.policy.reason;
    EXPECT_TRUE(status.slots[0].in_sync) << "the near mirror is not why";
    // The near one goes, too: its own mode says what that means.
    pair.lose_mirror();
    ASSERT_TRUE(pair.until([&] {
      return pair.group().policy.reason.find("also degraded: not in sync") != std::string::npos;
    }));
    EXPECT_EQ(pair.policy(), "stalled");
    reach_third(true);
    ASSERT_TRUE(pair.answered()) << "seed " << seed;
    EXPECT_EQ(pair.acknowledged, 12);
    ASSERT_TRUE(pair.until([&] { return pair.policy() == "degraded"; }));
    pair.find_mirror();
    ASSERT_TRUE(pair.until([&] { return pair.policy() == "normal"; }));
    ASSERT_TRUE(pair.until(third_follows));
    // The bound is for the distant one alone: it changes nothing for who waits for the near one.
    ASSERT_TRUE(pair.set({{"without_mirror", "block"}}));
    pair.lose_mirror();
    pair.write(3);
    ASSERT_TRUE(pair.until([&] { return pair.policy() == "blocked"; }));
    EXPECT_EQ(pair.acknowledged, 12);
    pair.find_mirror();
    ASSERT_TRUE(pair.answered());
    EXPECT_EQ(pair.acknowledged, 15);
  }
}

TEST_F(QuietPolicies, BlockSurvivesAMirrorCrashAndARestartOfThePrimary) {
  for (const std::uint64_t seed : seeds_to_run(20, 6)) {
    Policies pair(seed);
    ASSERT_TRUE(pair.pair_up(ReplicationMode::kSync));
    ASSERT_TRUE(pair.set({{"without_mirror", "block"}}));
    ASSERT_TRUE(pair.until([&] { return pair.policy() == "normal"; }));
    pair.world_.mirror().power_cut();
    pair.write(4);
    EXPECT_FALSE(pair.answered());
    EXPECT_EQ(pair.acknowledged, 0) << "seed " << seed;
    EXPECT_EQ(pair.policy(), "blocked");
    // The primary restarts meanwhile: the setting is still there, and serving alone is not
    // possible.
    pair.world_.primary().kill();
    ASSERT_TRUE(pair.answered());
    EXPECT_EQ(pair.failed, 4);
    ASSERT_TRUE(pair.world_.primary().start());
    ASSERT_TRUE(pair.until([&] { return pair.group().state == "serving"; }));
    EXPECT_EQ(pair.group().settings.at("without_mirror"), "block");
    pair.write(3);
    EXPECT_FALSE(pair.answered());
    EXPECT_EQ(pair.acknowledged, 0);
    ASSERT_TRUE(pair.world_.mirror().start());
    ASSERT_TRUE(pair.answered());
    EXPECT_EQ(pair.acknowledged, 3);
    ASSERT_TRUE(pair.level());
  }
}

TEST_F(QuietPolicies, TheStatusSaysWhyWritersWaitAndSinceWhen) {
  Policies pair(50);
  ASSERT_TRUE(pair.pair_up(ReplicationMode::kSync));
  EXPECT_EQ(pair.group().writers.state, "answered");
  // A disk that takes long, on the primary.
  SimDisk& disk = pair.world_.primary().disk();
  disk.inject({.effect = DiskFault::Effect::kStall, .stall = 5s});
  const UtcNs before = pair.run(pair.world_.primary().control().status()).now;
  pair.write(1);
  ASSERT_TRUE(pair.until([&] { return pair.group().writers.state == "waiting"; }, 3s));
  WritersStatus writers = pair.group().writers;
  EXPECT_EQ(writers.cause, "disk");
  EXPECT_GE(writers.since, before);
  EXPECT_LT(writers.since.value, before.value + 500'000'000);
  ASSERT_TRUE(pair.answered());
  EXPECT_EQ(pair.group().writers.state, "answered");
  // Nobody writes, so nobody waits, whatever the policy says.
  ASSERT_TRUE(pair.set({{"without_mirror", "block"}}));
  pair.lose_mirror();
  ASSERT_TRUE(pair.until([&] { return pair.policy() == "blocked"; }));
  pair.world_.runtime().run_for(5s);
  EXPECT_EQ(pair.group().writers.state, "answered");
  pair.write(2);
  ASSERT_TRUE(pair.until([&] { return pair.group().writers.state == "waiting"; }, 3s));
  writers = pair.group().writers;
  EXPECT_EQ(writers.cause, "policy");
  EXPECT_EQ(writers.reason.rfind("blocked: not in sync", 0), 0u) << writers.reason;
  pair.world_.runtime().run_for(5s);
  EXPECT_EQ(pair.group().writers.since, writers.since) << "since the first of them";
  EXPECT_EQ(pair.world_.mirror().status().writers.state, "answered") << "it has none";
  pair.find_mirror();
  ASSERT_TRUE(pair.answered());
  EXPECT_EQ(pair.group().writers.state, "answered");
}

TEST_F(QuietPolicies, ABlockedGroupTakesSettingsAndRefusesOtherChanges) {
  Policies pair(30);
  ASSERT_TRUE(pair.pair_up(ReplicationMode::kSync));
  ASSERT_TRUE(pair.set({{"without_mirror", "block"}}));
  pair.lose_mirror();
  pair.write(2);
  ASSERT_TRUE(pair.until([&] { return pair.policy() == "blocked"; }));
  const Status refused =
      pair.run(pair.world_.primary().create_volume("other", kBlocks * kBlockBytes));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnavailable);
  EXPECT_NE(refused.error().message.find("writers wait"), std::string::npos);
  EXPECT_FALSE(pair.set({{"without_mirror", "perhaps"}}));
  EXPECT_FALSE(pair.set({{"lag_bytes", "1MiB"}, {"nonsense", "1"}}));
  EXPECT_EQ(pair.group().settings.at("lag_bytes"), "off") << "all or nothing";
  EXPECT_EQ(pair.set({{"compression", "on"}}, "nobody:1").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(pair.acknowledged, 0);
  ASSERT_TRUE(pair.set({{"without_mirror", ""}}));
  ASSERT_TRUE(pair.answered(1s));
  EXPECT_EQ(pair.acknowledged, 2);
  EXPECT_EQ(pair.policy(), "degraded");
}

TEST_F(QuietPolicies, APromotionElsewhereAnswersBlockedWritersWithAnError) {
  Policies pair(31);
  ASSERT_TRUE(pair.pair_up(ReplicationMode::kSync));
  ASSERT_TRUE(pair.set({{"without_mirror", "block"}}));
  pair.lose_mirror();
  pair.write(3);
  ASSERT_TRUE(pair.until([&] { return pair.policy() == "blocked"; }));
  PairNode& old = pair.world_.primary();
  PairNode& next = pair.world_.mirror();
  ASSERT_TRUE(pair.until([&] { return pair.run(next.control().promote("g", false)).has_value(); }));
  pair.find_mirror();
  ASSERT_TRUE(pair.answered());
  EXPECT_EQ(pair.acknowledged, 0);
  EXPECT_EQ(pair.failed, 3);
  EXPECT_EQ(pair.last_error->code, ErrorCode::kFenced);
  EXPECT_EQ(old.status().state, "fenced");
}

TEST_F(QuietPolicies, APromotedNodeObeysItsOwnSettingsFromItsFirstWrite) {
  Policies pair(33);
  ASSERT_TRUE(pair.pair_up(ReplicationMode::kSync));
  PairNode& next = pair.world_.mirror();
  ASSERT_TRUE(pair.run(next.control().change_settings({"g", "", {{"without_mirror", "block"}}})));
  pair.world_.primary().kill();
  ASSERT_TRUE(pair.until([&] { return pair.run(next.control().promote("g", false)).has_value(); }));
  pair.world_.swap_roles();
  pair.write(2);
  EXPECT_FALSE(pair.answered(5s)) << "it has no mirror";
  EXPECT_EQ(pair.acknowledged, 0);
  EXPECT_EQ(pair.policy(), "blocked");
  ASSERT_TRUE(pair.set({{"without_mirror", "degrade"}}));
  ASSERT_TRUE(pair.answered(1s));
  EXPECT_EQ(pair.acknowledged, 2);
}

TEST_F(QuietPolicies, AStopAnswersHeldWritersAndLosesNothingOfTheLog) {
  Policies pair(32);
  ASSERT_TRUE(pair.pair_up(ReplicationMode::kSync));
  ASSERT_TRUE(pair.set({{"without_mirror", "block"}}));
  pair.lose_mirror();
  pair.write(3);
  ASSERT_TRUE(pair.until([&] { return pair.policy() == "blocked"; }));
  const Lsn tail = pair.world_.primary().group()->tail().lsn;
  pair.world_.primary().control().abandon_held_writers();
  ASSERT_TRUE(pair.answered(1s)) << "a front end that stops waits for its writers";
  EXPECT_EQ(pair.acknowledged, 0);
  pair.world_.primary().stop();
  ASSERT_TRUE(pair.world_.primary().start());
  EXPECT_EQ(pair.world_.primary().group()->tail().lsn, tail);
  pair.find_mirror();
  ASSERT_TRUE(pair.level());
}

}  // namespace
}  // namespace tandem::sim
