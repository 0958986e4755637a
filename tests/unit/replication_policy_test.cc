// Declared policies: what writers wait for when mirrors lag or fail, and how that is said.
#include "tests/unit/replication_fixture.h"

namespace tandem::replication::testing {
namespace {

// --- settings ---------------------------------------------------------------------------------

TEST(Settings, AreReadAndRefusedInWords) {
  const Settings settings{{"lag_bytes", "1.5MiB"}, {"lag_time", "90s"}, {"lag_action", "stall"}};
  const GroupPolicy policy = group_policy(settings);
  EXPECT_EQ(policy.lag_bytes, 1536u << 10);
  EXPECT_EQ(policy.lag_time, 90s);
  EXPECT_EQ(policy.lag_action, LagAction::kStall);
  EXPECT_FALSE(policy.block_without_mirror);
  EXPECT_FALSE(group_policy({}).bounded());
  EXPECT_EQ(group_settings(settings).at("without_mirror"), "degrade") << "the default is shown";
  for (const auto& [key, value] : Settings{{"lag_bytes", "0"},
                                           {"lag_bytes ", "1MiB"},
                                           {"lag_time", "10"},
                                           {"lag_action", "wait"},
                                           {"without_mirror", "off"},
                                           {"compression", "on"}}) {
    const Status checked = check_group_setting(key, value);
    ASSERT_FALSE(checked) << key << "=" << value;
    EXPECT_EQ(checked.error().code, ErrorCode::kInvalid);
    EXPECT_NE(checked.error().message.find(key), std::string::npos) << checked.error().message;
  }
  EXPECT_TRUE(check_group_setting("lag_bytes", "off"));
  EXPECT_TRUE(check_group_setting("lag_bytes", "")) << "the default";
}

TEST(Settings, RatesByTheTimeOfDay) {
  const std::string prefix = mirror_prefix("b:1");
  const SlotPolicy policy =
      slot_policy({{prefix + "catch_up_rate", "10MiB"},
                   {prefix + "catch_up_times", "22:00-06:00 off, 12:00-13:00 1MiB"},
                   {mirror_prefix("c:1") + "catch_up_rate", "1KiB"}},
                  "b:1");
  EXPECT_EQ(policy.rate_at(9 * 60), 10u << 20);
  EXPECT_EQ(policy.rate_at(12 * 60), 1u << 20);
  EXPECT_EQ(policy.rate_at(13 * 60), 10u << 20);
  EXPECT_EQ(policy.rate_at(23 * 60), std::nullopt) << "unlimited at night";
  EXPECT_EQ(policy.rate_at(5 * 60 + 59), std::nullopt) << "past midnight";
  EXPECT_EQ(policy.rate_at(6 * 60), 10u << 20);
  for (const char* bad : {"22:00-06:00", "22-06 off", "25:00-26:00 off", "22:00-22:00 off",
                          "22:00-06:00 off,", "22:60-23:00 off", "22:00-06:00 fast"}) {
    EXPECT_FALSE(check_mirror_setting("catch_up_times", bad)) << bad;
  }
  EXPECT_TRUE(check_mirror_setting("catch_up_times", "00:00-24:00 5MiB"));
  EXPECT_TRUE(check_mirror_setting("compression", "auto"));
  EXPECT_FALSE(check_mirror_setting("compression", "maybe"));
}

TEST(Settings, AMirrorMayHaveAModeOfItsOwn) {
  const auto mode = [](const char* text) {
    return slot_policy({{mirror_prefix("b:1") + "mode", text}}, "b:1").mode;
  };
  EXPECT_EQ(mode("async"), ReplicationMode::kAsync);
  EXPECT_EQ(mode("sync"), ReplicationMode::kSync);
  EXPECT_EQ(mode("group"), std::nullopt);
  EXPECT_EQ(slot_policy({}, "b:1").mode, std::nullopt);
  EXPECT_TRUE(check_mirror_setting("mode", "flush"));
  EXPECT_FALSE(check_mirror_setting("mode", "off"));
  EXPECT_FALSE(check_group_setting("mode", "sync"));
}

// --- the decision -------------------------------------------------------------------------------

SlotGate lagging(std::uint64_t written, std::uint64_t payload) {
  return {.mode = ReplicationMode::kAsync,
          .written = Lsn{written},
          .written_payload = payload,
          .name = "b"};
}

AckPolicy::Moment moment(Nanoseconds now, std::uint64_t lsn, std::uint64_t payload) {
  LogPoint tail;
  tail.lsn = Lsn{lsn};
  tail.payload_bytes = payload;
  return {now, UtcNs{static_cast<std::uint64_t>(now.count()) + 1}, tail};
}

TEST(AckPolicy, StallAcknowledgesExactlyTheBound) {
  AckPolicy policy;
  policy.set_policy({.lag_bytes = 100, .lag_action = LagAction::kStall});
  const std::vector<SlotGate> slots{lagging(0, 0)};
  // Records of 30 bytes: three fit into the bound, the fourth waits.
  for (std::uint64_t lsn = 1; lsn <= 6; ++lsn) {
    const auto decision = policy.decide(ReplicationMode::kAsync, slots, moment(1s, lsn, lsn * 30));
    ASSERT_TRUE(decision.ack.written.has_value());
    EXPECT_EQ(decision.ack.written, Lsn{std::min<std::uint64_t>(lsn, 3)});
    EXPECT_EQ(policy.holds(), lsn > 3);
  }
  EXPECT_EQ(policy.status().state, "stalled");
  EXPECT_NE(policy.status().reason.find("the bound is 100 B"), std::string::npos)
      << policy.status().reason;
  const std::vector<SlotGate> further{lagging(2, 60)};
  const auto decision = policy.decide(ReplicationMode::kAsync, further, moment(1s, 6, 180));
  EXPECT_EQ(decision.ack.written, Lsn{5}) << "as the mirror gets on, so do the writers";
}

TEST(AckPolicy, StallByTimeAsksToLookAgain) {
  AckPolicy policy;
  policy.set_policy({.lag_time = 10s, .lag_action = LagAction::kStall});
  const std::vector<SlotGate> slots{lagging(5, 50)};
  auto decision = policy.decide(ReplicationMode::kAsync, slots, moment(100s, 6, 60));
  EXPECT_EQ(decision.ack.written, Lsn{6});
  ASSERT_TRUE(decision.look_again.has_value()) << "nothing else would notice that time passes";
  EXPECT_GT(*decision.look_again, 110s);
  EXPECT_LT(*decision.look_again, 111s);
  decision = policy.decide(ReplicationMode::kAsync, slots, moment(*decision.look_again, 7, 70));
  EXPECT_EQ(decision.ack.written, Lsn{5});
  EXPECT_EQ(policy.status().state, "stalled");
}

TEST(AckPolicy, AgeStaysTrueWhenManyRecordsAreMissing) {
  AckPolicy policy;
  policy.set_policy({.lag_time = 1h, .lag_action = LagAction::kDegrade});
  const std::vector<SlotGate> slots{lagging(0, 0)};
  for (std::uint64_t lsn = 1; lsn <= 100'000; ++lsn)
    policy.decide(ReplicationMode::kAsync, slots, moment(Nanoseconds(1ms) * lsn, lsn, lsn));
  EXPECT_EQ(policy.status().lag_ms, 99'999u) << "since the first record that it lacks";
  const std::vector<SlotGate> half{lagging(50'000, 50'000)};
  policy.decide(ReplicationMode::kAsync, half, moment(100s, 100'000, 100'000));
  EXPECT_GE(policy.status().lag_ms, 49'999u) << "never younger than it is";
  EXPECT_LT(policy.status().lag_ms, 52'000u);
}

TEST(AckPolicy, ThrottleRisesSmoothly) {
  EXPECT_EQ(throttle_delay(0.7), 0ms);
  EXPECT_EQ(throttle_delay(1), 100ms);
  EXPECT_EQ(throttle_delay(2), 1s);
  EXPECT_EQ(throttle_delay(1000), 1s);
  Nanoseconds before{0};
  for (int i = 75; i <= 210; ++i) {
    const auto delay = throttle_delay(i / 100.0);
    EXPECT_GE(delay, before);
    EXPECT_LE(delay - before, 20ms) << "no step at " << i;
    before = delay;
  }
}

TEST(AckPolicy, AMirrorThatNeverCaughtUpHoldsNobody) {
  AckPolicy policy;
  policy.set_policy({.lag_bytes = 10, .lag_action = LagAction::kStall});
  std::vector<SlotGate> slots{lagging(0, 0)};
  slots[0].caught_up_once = false;
  const auto decision = policy.decide(ReplicationMode::kAsync, slots, moment(1s, 9, 900));
  EXPECT_FALSE(decision.ack.written.has_value());
  EXPECT_EQ(policy.status().state, "degraded");
}

TEST(AckPolicy, AMirrorInModeAsyncIsNoPartOfWhatSyncPromises) {
  AckPolicy policy;
  policy.set_policy({.block_without_mirror = true});
  std::vector<SlotGate> slots{lagging(9, 90), lagging(3, 30)};
  slots[0].mode = ReplicationMode::kSync;
  slots[0].gating = true;
  auto decision = policy.decide(ReplicationMode::kSync, slots, moment(1s, 9, 90));
  EXPECT_EQ(decision.ack.written, Lsn{9});
  EXPECT_EQ(policy.status().state, "normal") << policy.status().reason;
  slots[0].gating = false;
  slots[0].written = Lsn{2};
  decision = policy.decide(ReplicationMode::kSync, slots, moment(2s, 9, 90));
  EXPECT_EQ(decision.ack.written, Lsn{2}) << "what only the other one has is not what was promised";
  EXPECT_EQ(policy.status().state, "blocked");
  decision = policy.decide(ReplicationMode::kAsync, slots, moment(3s, 9, 90));
  EXPECT_EQ(policy.status().state, "blocked") << "the mirror's own mode promises as much";
}

TEST(AckPolicy, AMirrorInModeAsyncIsBoundedBesideOneInSync) {
  for (const auto mode : {ReplicationMode::kSync, ReplicationMode::kAsync}) {
    AckPolicy policy;
    policy.set_policy({.lag_bytes = 70, .lag_action = LagAction::kStall});
    std::vector<SlotGate> slots{lagging(9, 90), lagging(3, 30)};
    slots[0].mode = ReplicationMode::kSync;
    slots[0].gating = true;
    slots[1].name = "c";
    auto decision = policy.decide(mode, slots, moment(1s, 9, 90));
    EXPECT_EQ(decision.ack.written, Lsn{9});
    EXPECT_EQ(policy.status().lag_bytes, 60u);
    decision = policy.decide(mode, slots, moment(2s, 10, 110));
    EXPECT_EQ(decision.ack.written, Lsn{9}) << "80 bytes are too much for c, and b lacks it too";
    EXPECT_EQ(decision.ack.durable, Lsn{0});
    EXPECT_TRUE(policy.holds());
    EXPECT_EQ(policy.status().state, "stalled");
    EXPECT_NE(policy.status().reason.find("mirror c lacks 80 B"), std::string::npos)
        << policy.status().reason;
    slots[0].gating = false;
    policy.decide(mode, slots, moment(3s, 10, 110));
    EXPECT_EQ(policy.status().state, "stalled");
    EXPECT_NE(policy.status().reason.find("; also degraded: not in sync: b"), std::string::npos)
        << policy.status().reason;
    const auto since = policy.status().since;
    slots[1] = lagging(9, 90);
    policy.decide(mode, slots, moment(5s, 10, 110));
    EXPECT_EQ(policy.status().state, "degraded") << "what is left";
    EXPECT_EQ(policy.status().reason, "not in sync: b");
    EXPECT_NE(policy.status().since, since);
    slots[0].gating = true;
    policy.decide(mode, slots, moment(6s, 10, 110));
    EXPECT_EQ(policy.status().state, "normal") << policy.status().reason;
  }
}

TEST(AckPolicy, NoBoundConcernsAMirrorInSync) {
  AckPolicy policy;
  policy.set_policy({.lag_bytes = 10, .lag_action = LagAction::kStall});
  std::vector<SlotGate> slots{lagging(1, 10), lagging(9, 900)};
  slots[0].mode = ReplicationMode::kSync;
  slots[0].gating = true;
  const auto decision = policy.decide(ReplicationMode::kAsync, slots, moment(1s, 9, 900));
  EXPECT_EQ(decision.ack.written, Lsn{1}) << "it is waited for, as its mode says";
  EXPECT_EQ(policy.status().state, "normal") << policy.status().reason;
  EXPECT_FALSE(policy.holds());
  EXPECT_EQ(policy.status().lag_bytes, 0u);
}

TEST(AckPolicy, WhileBlockedAFlushStillWaitsForEveryMirrorOfItsMode) {
  AckPolicy policy;
  policy.set_policy({.block_without_mirror = true});
  std::vector<SlotGate> slots{lagging(7, 70), lagging(8, 80)};
  slots[0].mode = ReplicationMode::kSync;
  slots[0].durable = Lsn{6};
  slots[1].mode = ReplicationMode::kFlush;
  slots[1].gating = true;
  slots[1].durable = Lsn{2};
  const auto decision = policy.decide(ReplicationMode::kSync, slots, moment(1s, 9, 90));
  EXPECT_EQ(policy.status().state, "blocked");
  EXPECT_EQ(decision.ack.written, Lsn{7});
  EXPECT_EQ(decision.ack.durable, Lsn{2});
}

TEST(AckPolicy, BlockCountsOnlyWhatAMirrorConfirmed) {
  AckPolicy policy;
  policy.set_policy({.block_without_mirror = true});
  std::vector<SlotGate> slots{lagging(7, 70)};
  slots[0].mode = ReplicationMode::kSync;
  slots[0].confirmed = false;
  auto decision = policy.decide(ReplicationMode::kSync, slots, moment(1s, 9, 90));
  EXPECT_EQ(decision.ack.written, Lsn{0}) << "7 may be other records since a crash";
  slots[0].confirmed = true;
  decision = policy.decide(ReplicationMode::kSync, slots, moment(1s, 9, 90));
  EXPECT_EQ(decision.ack.written, Lsn{7}) << "a mirror that catches up counts as far as it is";
  EXPECT_EQ(policy.status().state, "blocked");
  slots.clear();
  decision = policy.decide(ReplicationMode::kSync, slots, moment(2s, 9, 90));
  EXPECT_EQ(decision.ack.written, Lsn{0});
  EXPECT_NE(policy.status().reason.find("no mirror"), std::string::npos);
}

// --- pairs --------------------------------------------------------------------------------------

const PolicyStatus& policy_of(Pair& pair) { return pair.a.replication->policy_status(); }

/// The mirror lacks at most `bytes` of what was acknowledged.
void expect_bounded(Pair& pair, std::uint64_t bytes) {
  const auto acknowledged = pair.a.log.acknowledged().value;
  const auto there = pair.b.log.head().lsn.value;
  if (acknowledged <= there) return;
  EXPECT_LE((acknowledged - there) * kBlockBytes, bytes) << "seed " << pair.world.seed();
}

TEST(Stall, NothingBeyondTheBoundIsAcknowledgedWhateverHappens) {
  for (const auto seed : sim::seeds_to_run(1, 20)) {
    Pair pair(seed);
    pair.a.replication->set_settings({{"lag_bytes", "64KiB"}, {"lag_action", "stall"}});
    pair.a.serve_to("b", seed % 2 == 0 ? ReplicationMode::kAsync : ReplicationMode::kFlush);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.following(); }, 10s));
    Guest guest(pair.world, pair.a);
    guest.write(300, 24);
    int step = 0;
    ASSERT_TRUE(pair.run_checked([&] {
      expect_bounded(pair, 64 << 10);
      if (++step % 400 == 100) pair.network.cut("b");
      if (step % 900 == 300) pair.b.log.freeze(true);
      if (step % 900 == 500) pair.b.log.freeze(false);
      return guest.done();
    }));
    EXPECT_EQ(guest.acknowledged(), 300) << "held, not failed";
    pair.b.log.freeze(false);
    ASSERT_TRUE(pair.converge());
    ASSERT_TRUE(pair.world.run_until([&] { return policy_of(pair).state == "normal"; }, 5s));
  }
}

TEST(Stall, ALostLinkHoldsWritersUntilItIsBackOrTheSettingChanges) {
  for (const bool back : {true, false}) {
    Pair pair(31);
    pair.a.replication->set_settings({{"lag_bytes", "40KiB"}, {"lag_action", "stall"}});
    pair.a.serve_to("b", ReplicationMode::kAsync);
    ASSERT_TRUE(pair.converge());
    pair.network.set_reachable("b", false);
    pair.network.cut("b");
    Guest guest(pair.world, pair.a);
    guest.write(50, 8, false);
    pair.world.run_for(30s);
    EXPECT_EQ(guest.acknowledged(), 10) << "40 KiB of blocks";
    EXPECT_EQ(policy_of(pair).state, "stalled");
    EXPECT_NE(policy_of(pair).reason.find("40.0 KiB"), std::string::npos) << policy_of(pair).reason;
    EXPECT_NE(policy_of(pair).since, UtcNs{});
    EXPECT_TRUE(pair.a.replication->holds_writers());
    if (back) {
      pair.network.set_reachable("b", true);
    } else {
      pair.a.replication->set_settings({{"lag_bytes", "40KiB"}, {"lag_action", "degrade"}});
    }
    ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 10s));
    EXPECT_EQ(guest.acknowledged(), 50);
    EXPECT_EQ(policy_of(pair).state == "degraded", !back);
    EXPECT_FALSE(pair.a.replication->holds_writers());
    pair.network.set_reachable("b", true);
    ASSERT_TRUE(pair.converge());
  }
}

TEST(Stall, ByTimeHoldsAnIdleGroupsNextWriter) {
  Pair pair(32);
  pair.a.replication->set_settings({{"lag_time", "5s"}, {"lag_action", "stall"}});
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.converge());
  ASSERT_TRUE(pair.world.run_until([&] { return policy_of(pair).state == "normal"; }, 5s));
  pair.network.set_reachable("b", false);
  pair.network.cut("b");
  pair.write(1);
  EXPECT_EQ(policy_of(pair).state, "normal");
  pair.world.run_for(6s);
  EXPECT_EQ(policy_of(pair).state, "stalled") << "without any event but time";
  Guest guest(pair.world, pair.a);
  guest.write(1, 1, false);
  pair.world.run_for(10s);
  EXPECT_EQ(guest.acknowledged(), 0);
  pair.network.set_reachable("b", true);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 5s));
  ASSERT_TRUE(pair.converge());
}

TEST(Throttle, SlowsWritersButNeverStopsThem) {
  Pair pair(33);
  pair.a.replication->set_settings({{"lag_bytes", "64KiB"}, {"lag_action", "throttle"}});
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.converge());
  pair.network.set_reachable("b", false);
  pair.network.cut("b");
  Guest guest(pair.world, pair.a);
  guest.write(12, 1, false);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 100ms)) << "below 3/4: full speed";
  Guest slowed(pair.world, pair.a);
  slowed.write(40, 1, false);
  pair.world.run_for(5s);
  const int in_five_seconds = slowed.acknowledged();
  EXPECT_GT(in_five_seconds, 5);
  EXPECT_LT(in_five_seconds, 30);
  EXPECT_EQ(policy_of(pair).state, "throttled");
  EXPECT_NE(policy_of(pair).reason.find("each write waits"), std::string::npos);
  ASSERT_TRUE(pair.world.run_until([&] { return slowed.done(); }, 60s)) << "slow, but never held";
  EXPECT_FALSE(pair.a.replication->holds_writers());
  pair.network.set_reachable("b", true);
  ASSERT_TRUE(pair.converge());
  ASSERT_TRUE(pair.world.run_until([&] { return policy_of(pair).state == "normal"; }, 5s));
}

TEST(Degrade, GoesOnBeyondTheBoundAndSaysSo) {
  Pair pair(34);
  pair.a.replication->set_settings({{"lag_bytes", "64KiB"}});
  pair.a.serve_to("b", ReplicationMode::kAsync);
  ASSERT_TRUE(pair.converge());
  pair.network.set_reachable("b", false);
  pair.network.cut("b");
  Guest guest(pair.world, pair.a);
  guest.write(100);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 1s));
  EXPECT_EQ(policy_of(pair).state, "degraded");
  EXPECT_EQ(policy_of(pair).lag_bytes, 100 * kBlockBytes);
  EXPECT_NE(policy_of(pair).reason.find("b ("), std::string::npos) << policy_of(pair).reason;
  pair.network.set_reachable("b", true);
  ASSERT_TRUE(pair.world.run_until([&] { return policy_of(pair).state == "normal"; }, 10s));
}

TEST(Block, NoWriteIsAcknowledgedWithoutAMirror) {
  for (const auto seed : sim::seeds_to_run(1, 20)) {
    Pair pair(seed);
    pair.a.replication->set_settings({{"without_mirror", "block"}});
    pair.a.serve_to("b", ReplicationMode::kSync);
    Guest guest(pair.world, pair.a);
    guest.write(200, 12);  // from the first moment, before the mirror was ever heard
    int step = 0;
    ASSERT_TRUE(pair.run_checked([&] {
      EXPECT_LE(pair.a.log.acknowledged(), pair.b.log.head().lsn);
      EXPECT_LE(pair.a.log.acknowledged_flush(), pair.b.log.durable());
      if (++step % 500 == 150) pair.network.cut("b");
      if (step % 800 == 300) pair.network.swallow("b");
      return guest.done();
    }));
    EXPECT_EQ(guest.acknowledged(), 200);
    EXPECT_EQ(guest.failed(), 0);
  }
}

TEST(Block, ACrashedMirrorHoldsWritersUntilItIsBack) {
  Pair pair(41);
  pair.a.replication->set_settings({{"without_mirror", "block"}});
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
  pair.b.power_cut();
  Guest guest(pair.world, pair.a);
  guest.write(5, 5, false);
  pair.world.run_for(60s);
  EXPECT_EQ(guest.acknowledged(), 0);
  EXPECT_EQ(policy_of(pair).state, "blocked");
  EXPECT_NE(policy_of(pair).reason.find("not in sync: b"), std::string::npos);
  pair.b.boot(Role::kMirror);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 10s));
  EXPECT_EQ(guest.acknowledged(), 5);
  ASSERT_TRUE(pair.world.run_until([&] { return policy_of(pair).state == "normal"; }, 5s));
}

TEST(Block, IsReleasedByTheSettingOrByAnotherMode) {
  for (const bool by_mode : {true, false}) {
    Pair pair(42);
    pair.a.replication->set_settings({{"without_mirror", "block"}});
    pair.a.serve_to("b", ReplicationMode::kSync);
    ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
    pair.network.set_reachable("b", false);
    pair.network.cut("b");
    Guest guest(pair.world, pair.a);
    guest.write(5, 5, true);
    pair.world.run_for(20s);
    ASSERT_EQ(guest.acknowledged(), 0);
    if (by_mode) {
      pair.a.replication->set_mode(ReplicationMode::kAsync);
      EXPECT_EQ(policy_of(pair).state, "normal");
    } else {
      pair.a.replication->set_settings({});
      EXPECT_EQ(policy_of(pair).state, "degraded") << "in mode sync, and alone";
    }
    ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 1s));
    EXPECT_EQ(guest.acknowledged(), 5);
  }
}

TEST(Block, FencingAnswersWritersWithAnError) {
  Pair pair(43);
  pair.a.replication->set_settings({{"without_mirror", "block"}});
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
  pair.network.set_reachable("a", false);
  pair.network.cut("a");
  Guest guest(pair.world, pair.a);
  guest.write(5, 5, false);
  pair.world.run_for(5s);
  ASSERT_FALSE(guest.done());
  pair.world.run(pair.b.replication->hold_upstream());
  ASSERT_TRUE(pair.world.run(pair.b.log.open_timeline()));
  pair.b.replication->become_primary();
  pair.network.set_reachable("a", true);
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 10s));
  EXPECT_EQ(guest.acknowledged(), 0);
  EXPECT_EQ(guest.failed(), 5);
  EXPECT_EQ(pair.a.fenced, 1);
}

TEST(Block, AStopReleasesNobody) {
  Pair pair(44);
  pair.a.replication->set_settings({{"without_mirror", "block"}});
  pair.a.serve_to("b", ReplicationMode::kSync);
  ASSERT_TRUE(pair.world.run_until([&] { return pair.a.slot().in_sync; }, 10s));
  pair.network.set_reachable("b", false);
  pair.network.cut("b");
  Guest guest(pair.world, pair.a);
  guest.write(3, 3, false);
  pair.world.run_for(5s);
  pair.a.stop();
  pair.world.run_for(1s);
  EXPECT_EQ(guest.acknowledged(), 0);
  pair.a.log.fence();
  ASSERT_TRUE(pair.world.run_until([&] { return guest.done(); }, 1s));
}

}  // namespace
}  // namespace tandem::replication::testing
