// Commands around snapshots when the disk or the mirror is slow: how long something is held is
// bounded, and no snapshot says that it is consistent when it is not.
#include <gtest/gtest.h>

#include "tests/sim/stamped_volume.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

/// Holds a "guest" in virtual time and notes for how long.
class FakeHooks final : public control::SnapshotHooks {
 public:
  explicit FakeHooks(SimRuntime& world) : world_(world) {}
  std::optional<Nanoseconds> limit(const std::string&) const override { return 2s; }
  Task<Status> before(control::HookCall call) override {
    calls.push_back("before " + call.snapshot);
    CHECK(!held_since);
    held_since = world_.now();
    if (on_held) on_held();
    co_return result;
  }
  Task<Status> after(control::HookCall call) override {
    calls.push_back("after " + call.snapshot + " " + call.held);
    if (held_since) held_for.push_back(world_.now() - *held_since);
    held_since.reset();
    co_return after_result;
  }
  void hurry() override { hurried = true; }

  Status result = ok(), after_result = ok();
  std::function<void()> on_held;
  std::vector<std::string> calls;
  std::optional<Nanoseconds> held_since;
  std::vector<Nanoseconds> held_for;
  bool hurried = false;

 private:
  SimRuntime& world_;
};

Task<void> write_block(std::shared_ptr<Volume> volume, std::uint64_t at) {
  IoBuffer data = IoBuffer::on_heap(kBlockBytes);
  (void)co_await volume->write(at, std::move(data), {});
}

class HooksSim : public testing::Test {
 protected:
  HooksSim() : world_(11, shape_of(11)), hooks_(world_.runtime()) {
    world_.primary().set_hooks(&hooks_);
    CHECK(world_.primary().start() && world_.mirror().start());
    CHECK(run(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    AddMirror request{"g", world_.mirror().address(), ReplicationMode::kSync};
    CHECK(run(primary().add_mirror(request)));
    CHECK(world_.until(
        [&] {
          const auto slots = world_.primary().status().slots;
          return world_.is_level() && slots.size() == 1 && slots[0].in_sync;
        },
        60s));
    hooks_.calls.clear();
  }
  ~HooksSim() override {
    // They tell the hooks, which are gone before them.
    world_.primary().stop();
    world_.mirror().stop();
  }
  template <class T>
  T run(Task<T> task) {
    return world_.runtime().run(std::move(task));
  }
  control::NodeControl& primary() { return world_.primary().control(); }
  Result<SnapshotStatus> create(std::string name, SnapshotHook hook = SnapshotHook::kUse) {
    return run(primary().create_snapshot({"g", std::move(name), "", hook}));
  }
  std::string consistency(PairNode& node, const std::string& name) {
    for (const auto& s : node.status().snapshots) {
      if (s.name == name) return s.consistency;
    }
    return "none";
  }

  SimLog log_;
  PairWorld world_;
  FakeHooks hooks_;
};

TEST_F(HooksSim, HoldNoLongerThanTheRecordTakesToTheLog) {
  ASSERT_TRUE(create("s"));
  EXPECT_EQ(hooks_.calls, (std::vector<std::string>{"before s", "after s yes"}));
  ASSERT_EQ(hooks_.held_for.size(), 1u);
  EXPECT_LT(hooks_.held_for[0], 50ms);
  EXPECT_EQ(consistency(world_.primary(), "s"), "application-consistent");
  ASSERT_TRUE(world_.until([&] { return world_.is_level(); }, 10s));
  EXPECT_EQ(consistency(world_.mirror(), "s"), "application-consistent");
}

TEST_F(HooksSim, TheReceiptNamesTheNewestConsistentSnapshot) {
  const auto at_mirror = [&] {
    EXPECT_TRUE(world_.until([&] { return world_.is_level(); }, 10s));
    const auto receipt = run(world_.mirror().control().receipt("g"));
    EXPECT_TRUE(receipt);
    return receipt ? receipt->consistent : std::nullopt;
  };
  EXPECT_EQ(at_mirror(), std::nullopt);
  const auto made = create("s");
  ASSERT_TRUE(made);
  const ConsistentPoint expected{"s", made->lsn, made->utc};
  ASSERT_TRUE(create("later", SnapshotHook::kSkip));
  EXPECT_EQ(at_mirror(), expected) << "the later one is only crash-consistent";
  ASSERT_TRUE(create("abandoned"));
  ASSERT_EQ(at_mirror()->snapshot, "abandoned");
  ASSERT_TRUE(run(primary().rollback({"g", "later", "back"})));
  EXPECT_EQ(at_mirror(), expected) << "what was rolled back is not what is recovered";
  ASSERT_TRUE(run(world_.mirror().control().delete_snapshot("g", "s")));
  EXPECT_EQ(at_mirror(), std::nullopt) << "each node says what it keeps itself";
  const auto promoted = run(world_.mirror().control().promote("g", /*force=*/true));
  ASSERT_TRUE(promoted) << promoted.error().message;
  EXPECT_EQ(promoted->consistent, std::nullopt);
}

TEST_F(HooksSim, AMirrorThatDoesNotAnswerHoldsNobody) {
  hooks_.on_held = [&] { world_.mirror().kill(); };
  const auto made = create("s");
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made->consistency, "application-consistent");
  ASSERT_EQ(hooks_.held_for.size(), 1u);
  EXPECT_LT(hooks_.held_for[0], 500ms) << "the acknowledgement took seconds";
}

TEST_F(HooksSim, WhatCameTooLateIsNotConsistentOnAnyNode) {
  // Pages that do not come back from the disk keep the record out of the log.
  hooks_.on_held = [&] {
    world_.primary().disk().inject({.kind = IoRequest::Kind::kWrite,
                                    .effect = DiskFault::Effect::kStall,
                                    .nth = 1,
                                    .sticky = true,
                                    .stall = 5s});
    auto volume = primary().open("v");
    ASSERT_TRUE(volume);
    for (std::uint32_t i = 0; i < 2 * world_.shape().options.pages_in_flight_max; ++i) {
      spawn(write_block(*volume, i * kBlockBytes));
      world_.runtime().run_for(0ms);
    }
  };
  const auto made = create("s");
  ASSERT_TRUE(made) << made.error().message;
  ASSERT_EQ(hooks_.held_for.size(), 1u);
  EXPECT_GE(hooks_.held_for[0], 2s);
  EXPECT_LT(hooks_.held_for[0], 3s) << "its time is bounded";
  EXPECT_EQ(made->consistency, "hook failed");
  EXPECT_NE(made->warning.find("was not in the log within 2 s"), std::string::npos)
      << made->warning;
  world_.primary().disk().clear_faults();
  ASSERT_TRUE(world_.until([&] { return world_.is_level(); }, 60s));
  EXPECT_EQ(consistency(world_.mirror(), "s"), "hook failed");
}

TEST_F(HooksSim, WhatFailsIsLetGoAndRecorded) {
  hooks_.result = Error{ErrorCode::kRefused, "no"};
  const auto made = create("s");
  ASSERT_TRUE(made);
  EXPECT_EQ(made->consistency, "hook failed");
  EXPECT_EQ(made->warning, "no");
  EXPECT_EQ(hooks_.calls, (std::vector<std::string>{"before s", "after s no"}));
  EXPECT_EQ(world_.primary().status().hook.state, "failed");
  const auto refused = create("t", SnapshotHook::kRequire);
  ASSERT_FALSE(refused);
  EXPECT_EQ(consistency(world_.primary(), "t"), "none");
  EXPECT_FALSE(hooks_.held_since) << "whatever happens";
  EXPECT_EQ(create("s").error().code, ErrorCode::kExists) << "before anything is held";
  EXPECT_EQ(hooks_.calls.size(), 4u);
  // What went on by itself may have done so in time or not: only this node can know.
  hooks_.result = ok();
  hooks_.after_result = Error{ErrorCode::kRefused, "it went on by itself"};
  const auto doubtful = create("u");
  ASSERT_TRUE(doubtful);
  EXPECT_EQ(doubtful->consistency, "hook failed");
  ASSERT_FALSE(create("w", SnapshotHook::kRequire));
  EXPECT_EQ(consistency(world_.primary(), "w"), "none");
  // It is durable.
  world_.primary().stop();
  ASSERT_TRUE(world_.primary().start());
  EXPECT_EQ(consistency(world_.primary(), "u"), "hook failed");
}

TEST_F(HooksSim, ARestartLetsGoWhatAKilledNodeHeld) {
  hooks_.on_held = [&] { world_.primary().disk().kill(); };
  ASSERT_FALSE(create("s"));
  hooks_.on_held = nullptr;
  hooks_.calls.clear();
  world_.primary().stop();
  ASSERT_TRUE(world_.primary().start());
  ASSERT_TRUE(world_.until([&] { return !hooks_.calls.empty(); }, 20s));
  EXPECT_EQ(hooks_.calls, std::vector<std::string>{"after  maybe"});
}

TEST_F(HooksSim, ASnapshotOfAMirrorOrAStoppedNodeHoldsNothing) {
  const auto there = run(world_.mirror().control().create_snapshot({"g", "s", ""}));
  EXPECT_EQ(there.error().code, ErrorCode::kReadOnly);
  EXPECT_EQ(run(world_.mirror().control().create_snapshot({"g", "s", "", SnapshotHook::kRequire}))
                .error()
                .code,
            ErrorCode::kRefused);
  ASSERT_TRUE(run(primary().demote("g")));
  EXPECT_FALSE(create("s"));
  EXPECT_TRUE(hooks_.calls.empty());
  world_.primary().stop();
  EXPECT_TRUE(hooks_.hurried);
}

}  // namespace
}  // namespace tandem::sim
