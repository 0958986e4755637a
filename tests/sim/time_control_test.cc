// What control makes of the store's time: rollback on a pair, points, clones and what they are
// called, on two whole simulated nodes.
#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include "tests/sim/stamped_volume.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

class TimeControl : public testing::Test {
 protected:
  TimeControl() : world_(7, shape_of(7)) {
    CHECK(world_.primary().start() && world_.mirror().start());
    CHECK(run(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    AddMirror request{"g", world_.mirror().address(), ReplicationMode::kSync};
    CHECK(run(primary().add_mirror(request)));
    CHECK(level());
  }
  template <class T>
  T run(Task<T> task) {
    return world_.runtime().run(std::move(task));
  }
  bool level() {
    return world_.until(
        [&] {
          const auto slots = world_.primary().status().slots;
          return world_.is_level() && slots.size() == 1 && slots[0].in_sync;
        },
        60s);
  }
  control::NodeControl& primary() { return world_.primary().control(); }
  control::NodeControl& mirror() { return world_.mirror().control(); }
  Result<SnapshotStatus> create(std::string name) {
    return run(primary().create_snapshot({"g", std::move(name), ""}));
  }
  Result<RolledBack> roll_back(std::string to, std::string branch) {
    return run(primary().rollback({"g", std::move(to), std::move(branch)}));
  }
  void write(control::NodeControl& node, const std::string& name, std::uint32_t stamp) {
    auto volume = node.open(name);
    ASSERT_TRUE(volume) << volume.error().message;
    for (std::uint64_t block = 0; block < 8; ++block) {
      IoBuffer data = IoBuffer::on_heap(kBlockBytes);
      stamp_block(data, stamp);
      ASSERT_TRUE(run((*volume)->write(block * kBlockBytes, std::move(data), {})));
    }
  }
  void write(std::uint32_t stamp) { write(primary(), "v", stamp); }
  std::uint32_t stamp(PairNode& node, const std::string& name) {
    const auto stamps = run(read_stamps(node, name));
    EXPECT_TRUE(stamps) << stamps.error().message;
    return stamps ? (*stamps)[3] : ~0u;
  }
  static std::vector<std::string> names(const std::vector<VolumeInfo>& exports) {
    std::vector<std::string> all;
    for (const auto& info : exports) all.push_back(info.name);
    return all;
  }

  SimLog log_;
  PairWorld world_;
};

using Names = std::vector<std::string>;

TEST_F(TimeControl, RollsBothNodesBackAndKeepsWhatWasNewest) {
  write(1);
  ASSERT_TRUE(create("one"));
  write(2);
  auto open = primary().open("v");
  ASSERT_TRUE(open);
  const auto done = roll_back("one", "two");
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(done->to.name, "one");
  EXPECT_EQ(done->branch.name, "two");
  EXPECT_EQ(done->branch.kind, "branch");
  EXPECT_EQ(done->branch.parent, "one");
  EXPECT_GT(done->branch.payload_bytes, done->to.payload_bytes);
  EXPECT_EQ(run((*open)->read(0, kBlockBytes)).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(stamp(world_.primary(), "v"), 1u);
  ASSERT_TRUE(level());
  for (auto* node : {&world_.primary(), &world_.mirror()}) {
    EXPECT_EQ(stamp(*node, "v@one"), 1u);
    EXPECT_EQ(stamp(*node, "v@two"), 2u);
    EXPECT_EQ(node->status().parent, "one");
  }
  write(3);
  const auto back = roll_back("two", "");
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(back->branch.parent, "one");
  EXPECT_EQ(stamp(world_.primary(), "v"), 2u);
  const auto nothing = roll_back("two", "");
  ASSERT_TRUE(nothing) << nothing.error().message;
  EXPECT_EQ(nothing->branch.name, "");
  EXPECT_EQ(world_.primary().status().snapshots.size(), 3u);
}

TEST_F(TimeControl, ARollbackIsRefusedInWords) {
  ASSERT_TRUE(create("one"));
  write(1);
  EXPECT_EQ(roll_back("none", "").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(roll_back("one", "one").error().code, ErrorCode::kExists);
  EXPECT_EQ(roll_back("one", "a b").error().code, ErrorCode::kInvalid);
  const auto there = run(mirror().rollback({"g", "one", ""}));
  EXPECT_EQ(there.error().code, ErrorCode::kReadOnly);
  EXPECT_NE(there.error().message.find("its primary is node a"), std::string::npos);
  EXPECT_EQ(run(primary().rollback({"h", "one", ""})).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(stamp(world_.primary(), "v"), 1u);
}

TEST_F(TimeControl, BranchesAreNobodysAutomaticSnapshots) {
  ASSERT_TRUE(create("one"));
  write(1);
  ASSERT_TRUE(roll_back("one", "auto-branch"));
  ChangeSettings request{"g", "", {{"snapshots.keep", "1"}, {"snapshots.every", "10s"}}};
  ASSERT_TRUE(run(primary().change_settings(request)));
  world_.runtime().run_for(65s);
  const auto kept = world_.primary().status().snapshots;
  ASSERT_EQ(kept.size(), 3u);
  EXPECT_EQ(kept[1].name, "auto-branch");
  EXPECT_FALSE(kept[1].automatic);
  EXPECT_TRUE(kept[2].automatic);
}

TEST_F(TimeControl, WhatEachStateHoldsIsAllThatIsHeld) {
  write(1);
  ASSERT_TRUE(create("one"));
  write(2);
  ASSERT_TRUE(create("two"));
  write(3);
  ASSERT_TRUE(roll_back("one", "three"));
  write(4);
  ASSERT_TRUE(create("four"));
  write(5);
  ASSERT_TRUE(level());
  const auto settled = [&](PairNode& node) {
    if (!run(node.group()->checkpoint())) return false;
    std::uint64_t sum = 0;
    const auto status = node.status();
    for (const auto& s : status.snapshots) {
      if (s.held_bytes < 8 * kBlockBytes) return false;
      sum += s.held_bytes;
    }
    return sum == status.snapshot_bytes;
  };
  ASSERT_TRUE(world_.until([&] { return settled(world_.primary()); }, 10s));
  ASSERT_TRUE(world_.until([&] { return settled(world_.mirror()); }, 10s));
}

TEST_F(TimeControl, KeepsAnyMomentOfTheHistoryAsAPoint) {
  const auto history = [&](control::NodeControl& node) {
    const auto status = run(node.history("g"));
    EXPECT_TRUE(status);
    return status ? *status : HistoryStatus{};
  };
  EXPECT_FALSE(history(primary()).start.has_value());
  EXPECT_EQ(history(primary()).window, "off");
  write(1);
  ChangeSettings request{"g", "", {{"history", "1h"}, {"history.bytes", "8MiB"}}};
  ASSERT_TRUE(run(primary().change_settings(request)));
  ASSERT_TRUE(world_.until([&] { return history(primary()).start.has_value(); }, 10s));
  EXPECT_EQ(history(primary()).window, "1h");
  EXPECT_EQ(history(primary()).bytes_max, "8MiB");
  write(2);
  const LogPoint two = world_.primary().status().head;
  world_.runtime().run_for(2s);
  write(3);
  EXPECT_EQ(history(primary()).head, world_.primary().status().head);
  KeepPoint by_position{.group = "g", .lsn = two.lsn, .time = {}, .name = "", .label = "why"};
  const auto point = run(primary().keep_point(by_position));
  ASSERT_TRUE(point) << point.error().message;
  EXPECT_EQ(point->name, "point-" + std::to_string(two.lsn.value));
  EXPECT_EQ(point->kind, "point");
  EXPECT_EQ(point->label, "why");
  EXPECT_EQ(point->payload_bytes, two.payload_bytes);
  EXPECT_EQ(stamp(world_.primary(), "v@" + point->name), 2u);
  KeepPoint by_time{
      .group = "g", .lsn = {}, .time = UtcNs(two.utc.value + 1'000'000'000), .name = "t"};
  const auto again = run(primary().keep_point(by_time));
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->lsn, two.lsn);
  EXPECT_EQ(stamp(world_.primary(), "v@t"), 2u);
  // Outside of it, in words; the mirror can keep its present state.
  const auto start = history(primary()).start->lsn;
  const auto refused = run(primary().keep_point({"g", Lsn(start.value - 1), {}, "", ""}));
  EXPECT_EQ(refused.error().code, ErrorCode::kNotFound);
  EXPECT_NE(refused.error().message.find(std::to_string(start.value)), std::string::npos);
  ASSERT_TRUE(level());
  const auto there = run(mirror().keep_point({"g", {}, {}, "now", ""}));
  ASSERT_TRUE(there) << there.error().message;
  EXPECT_EQ(stamp(world_.mirror(), "v@now"), 3u);
  EXPECT_EQ(run(primary().keep_point({"g", {}, {}, "a@b", ""})).error().code, ErrorCode::kInvalid);
  // It comes back with the node, until it is not wanted any more.
  world_.primary().stop();
  ASSERT_TRUE(world_.primary().start());
  ASSERT_TRUE(level());
  EXPECT_EQ(history(primary()).start->lsn, start);
  request.changes = {{"history", ""}};
  ASSERT_TRUE(run(primary().change_settings(request)));
  EXPECT_FALSE(history(primary()).start.has_value());
  EXPECT_EQ(stamp(world_.primary(), "v@t"), 2u);
}

/// Kind, volume, size before and behind, oldest first.
std::vector<std::string> texts(const std::vector<VolumeChange>& changes) {
  std::vector<std::string> all;
  for (const auto& c : changes) {
    const char* const kinds[] = {"created", "resized", "deleted"};
    all.push_back(fmt::format("{} {} {} {}", kinds[static_cast<std::size_t>(c.kind)], c.volume,
                              c.old_bytes / kBlockBytes, c.new_bytes / kBlockBytes));
  }
  return all;
}

TEST_F(TimeControl, TheHistoryKnowsWhatBecameOfVolumes) {
  const auto history = [&](control::NodeControl& node) {
    const auto status = run(node.history("g"));
    EXPECT_TRUE(status);
    return status ? *status : HistoryStatus{};
  };
  const auto resize = [&](std::string name, std::uint64_t blocks) {
    EXPECT_TRUE(run(primary().resize_volume(std::move(name), blocks * kBlockBytes)));
    return world_.primary().status().head;
  };
  const auto restart = [&](PairNode& node) {
    node.stop();
    ASSERT_TRUE(node.start());
    ASSERT_TRUE(level());
  };
  resize("v", kBlocks + 1);
  EXPECT_TRUE(history(primary()).volume_changes.empty()) << "none is kept for anybody yet";
  for (auto* node : {&primary(), &mirror()}) {
    ASSERT_TRUE(run(node->change_settings({"g", "", {{"history", "1h"}}})));
    ASSERT_TRUE(world_.until([&] { return history(*node).start.has_value(); }, 10s));
  }
  const LogPoint grown = resize("v", kBlocks + 2);
  resize("v", kBlocks + 2);  // it has that size
  write(1);
  ASSERT_TRUE(create("one"));
  ASSERT_TRUE(run(primary().create_volume({"w", "g", 8 * kBlockBytes, 512})));
  resize("w", 600);                // its map gets a second level
  world_.runtime().run_for(600s);  // marks in between
  write(2);
  world_.runtime().run_for(600s);
  ASSERT_TRUE(run(primary().delete_volume("w")));
  ASSERT_TRUE(run(primary().create_volume({"w", "g", 9 * kBlockBytes, 512})));
  ASSERT_TRUE(level());
  // A copy of a pair keeps a beginning for its rejoin, so the first is in the history, too.
  const Names wanted = {fmt::format("resized v {} {}", kBlocks, kBlocks + 1),
                        fmt::format("resized v {} {}", kBlocks + 1, kBlocks + 2),
                        "created w 0 8",
                        "resized w 8 600",
                        "deleted w 600 0",
                        "created w 0 9"};
  const auto at_primary = history(primary());
  EXPECT_EQ(texts(at_primary.volume_changes), wanted);
  ASSERT_GT(at_primary.volume_changes.size(), 1u);
  EXPECT_EQ(at_primary.volume_changes[1].at, grown);
  EXPECT_GT(at_primary.marks.size(), 3u);
  // The same records at the mirror, and after a restart of each.
  EXPECT_EQ(history(mirror()).volume_changes, at_primary.volume_changes);
  restart(world_.primary());
  restart(world_.mirror());
  EXPECT_EQ(history(primary()).volume_changes, at_primary.volume_changes);
  EXPECT_EQ(history(mirror()).volume_changes, at_primary.volume_changes);
  // What a rollback abandoned did not happen.
  const auto back = roll_back("one", "two");
  ASSERT_TRUE(back) << back.error().message;
  ASSERT_TRUE(level());
  resize("v", kBlocks + 3);
  ASSERT_TRUE(level());
  const Names left = {wanted[0], wanted[1],
                      fmt::format("resized v {} {}", kBlocks + 2, kBlocks + 3)};
  EXPECT_EQ(texts(history(primary()).volume_changes), left);
  EXPECT_EQ(texts(history(mirror()).volume_changes), left);
}

}  // namespace
}  // namespace tandem::sim
