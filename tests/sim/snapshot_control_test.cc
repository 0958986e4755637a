// What an operator and the front ends can do with the snapshots of a pair, and what they are told.
#include <gtest/gtest.h>

#include "tests/sim/stamped_volume.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

class SnapshotControl : public testing::Test {
 protected:
  SnapshotControl() : world_(5, shape_of(5)) {
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
  Result<SnapshotStatus> create(std::string name, std::string label = "") {
    return run(primary().create_snapshot({"g", std::move(name), std::move(label)}));
  }
  void write(std::uint64_t block, std::uint32_t stamp) {
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    stamp_block(data, stamp);
    auto volume = primary().open("v");
    ASSERT_TRUE(volume);
    ASSERT_TRUE(run((*volume)->write(block * kBlockBytes, std::move(data), {})));
  }
  std::uint32_t stamp(PairNode& node, const std::string& name, std::uint64_t block) {
    const auto stamps = run(read_stamps(node, name));
    EXPECT_TRUE(stamps) << stamps.error().message;
    return stamps ? (*stamps)[block] : ~0u;
  }

  SimLog log_;
  PairWorld world_;
};

TEST_F(SnapshotControl, HasANameATimeVolumesAndALabel) {
  write(3, 7);
  const auto made = create("before", "the last good one");
  ASSERT_TRUE(made) << made.error().message;
  EXPECT_EQ(made->name, "before");
  EXPECT_EQ(made->label, "the last good one");
  EXPECT_EQ(made->consistency, "crash-consistent");
  EXPECT_EQ(made->lsn, world_.primary().status().head.lsn);
  EXPECT_GT(made->utc.value, 0u);
  ASSERT_EQ(made->volumes.size(), 1u);
  EXPECT_EQ(made->volumes[0].name, "v");
  EXPECT_EQ(made->volumes[0].size_bytes, kBlocks * kBlockBytes);
  // Without a name it is the time; twice in a second is no trouble.
  const auto first = create(""), second = create("");
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->name.size(), 20u) << first->name;
  EXPECT_EQ(first->name.back(), 'Z');
  EXPECT_EQ(first->name[10], 'T');
  EXPECT_NE(first->name, second->name);
  ASSERT_TRUE(level());
  EXPECT_EQ(world_.primary().status().snapshots.size(), 3u);
  EXPECT_TRUE(world_.until([&] { return world_.mirror().status().snapshots.size() == 3; }, 10s));
  EXPECT_EQ(world_.mirror().status().snapshots[0].label, "the last good one");
}

TEST_F(SnapshotControl, RefusesInWords) {
  ASSERT_TRUE(create("s"));
  EXPECT_EQ(create("s").error().code, ErrorCode::kExists);
  for (const char* bad : {"a@b", "a b", "-a", "a/b", "\n"})
    EXPECT_EQ(create(bad).error().code, ErrorCode::kInvalid) << bad;
  EXPECT_EQ(create(std::string(129, 'a')).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(create("t", std::string(513, 'a')).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(run(primary().create_snapshot({"none", "t", ""})).error().code, ErrorCode::kNotFound);
  const auto there = run(mirror().create_snapshot({"g", "t", ""}));
  EXPECT_EQ(there.error().code, ErrorCode::kReadOnly);
  EXPECT_NE(there.error().message.find("its primary is node a"), std::string::npos);
  EXPECT_EQ(run(primary().delete_snapshot("g", "t")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(run(primary().show_snapshot("g", "t")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(run(primary().rename_snapshot({"g", "t", "u", {}})).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(run(primary().rename_snapshot({"g", "s", "u@v", {}})).error().code,
            ErrorCode::kInvalid);
  // Nor can a volume or a group be taken for one.
  EXPECT_EQ(run(primary().create_volume({"v@s", "", 1 << 20, 512})).error().code,
            ErrorCode::kInvalid);
  EXPECT_EQ(run(primary().create_volume({"w", "g@s", 1 << 20, 512})).error().code,
            ErrorCode::kInvalid);
}

TEST_F(SnapshotControl, IsAnExportOnBothNodes) {
  write(1, 10);
  ASSERT_TRUE(create("s"));
  write(1, 11);
  ASSERT_TRUE(level());
  const auto list = primary().list();
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0].name, "v");
  EXPECT_FALSE(list[0].read_only);
  EXPECT_EQ(list[1].name, "v@s");
  EXPECT_TRUE(list[1].read_only);
  EXPECT_EQ(list[1].size_bytes, kBlocks * kBlockBytes);
  const auto there = mirror().list();
  ASSERT_EQ(there.size(), 1u) << "a mirror exports nothing else";
  EXPECT_EQ(there[0].name, "v@s");
  EXPECT_EQ(stamp(world_.primary(), "v", 1), 11u);
  EXPECT_EQ(stamp(world_.primary(), "v@s", 1), 10u);
  EXPECT_EQ(stamp(world_.mirror(), "v@s", 1), 10u);
  EXPECT_EQ(primary().open("v@none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(primary().open("none@s").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(primary().open("@").error().code, ErrorCode::kNotFound);
  auto opened = mirror().open("v@s");
  ASSERT_TRUE(opened);
  EXPECT_EQ(run((*opened)->write(0, IoBuffer::on_heap(kBlockBytes), {})).error().code,
            ErrorCode::kReadOnly);
  EXPECT_EQ(run((*opened)->discard(0, kBlockBytes, {})).error().code, ErrorCode::kReadOnly);
  EXPECT_TRUE(run((*opened)->flush()));
  // The volume may go; what the snapshot keeps of it stays.
  ASSERT_TRUE(run(primary().delete_volume("v")));
  EXPECT_EQ(stamp(world_.primary(), "v@s", 1), 10u);
}

TEST_F(SnapshotControl, IsDeletedAndRenamedByEachNodeForItself) {
  for (std::uint32_t i = 0; i < 8; ++i) write(i, 20 + i);
  ASSERT_TRUE(create("s"));
  for (std::uint32_t i = 0; i < 8; ++i) write(i, 30 + i);
  ASSERT_TRUE(level());
  // A checkpoint or two settle what died, once both nodes are durable.
  const auto holds_them = [&](PairNode& node) {
    return run(node.group()->checkpoint()) && node.status().snapshot_bytes >= 8 * kBlockBytes;
  };
  ASSERT_TRUE(world_.until([&] { return holds_them(world_.primary()); }, 10s));
  ASSERT_TRUE(world_.until([&] { return holds_them(world_.mirror()); }, 10s));
  const GroupStatus before = world_.primary().status();
  EXPECT_EQ(before.snapshots.at(0).held_bytes, before.snapshot_bytes);
  const auto shown = run(mirror().show_snapshot("g", "s"));
  ASSERT_TRUE(shown);
  EXPECT_GE(shown->unique_bytes, 8 * kBlockBytes);
  ASSERT_TRUE(run(mirror().rename_snapshot({"g", "s", "kept", "here only"})));
  EXPECT_EQ(world_.mirror().status().snapshots.at(0).name, "kept");
  EXPECT_EQ(world_.primary().status().snapshots.at(0).name, "s");
  ASSERT_TRUE(run(mirror().rename_snapshot({"g", "kept", "still", {}})));
  EXPECT_EQ(world_.mirror().status().snapshots.at(0).label, "here only") << "not given: it stays";
  auto reader = primary().open("v@s");
  ASSERT_TRUE(reader);
  ASSERT_TRUE(run(primary().delete_snapshot("g", "s")));
  EXPECT_EQ(run((*reader)->read(0, kBlockBytes)).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(primary().list().size(), 1u);
  ASSERT_TRUE(world_.until([&] { return world_.primary().status().snapshot_bytes == 0; }, 60s));
  EXPECT_EQ(stamp(world_.mirror(), "v@still", 3), 23u);
  // A name given again comes to the mirror beside what it still has.
  ASSERT_TRUE(create("still"));
  ASSERT_TRUE(level());
  EXPECT_TRUE(world_.until([&] { return world_.mirror().status().snapshots.size() == 2; }, 10s));
  EXPECT_EQ(stamp(world_.mirror(), "v@still", 3), 33u);
}

TEST_F(SnapshotControl, OfAStoppedGroupIsNotTouched) {
  ASSERT_TRUE(create("s"));
  world_.primary().group()->stop({ErrorCode::kIo, "a disk died"});
  ASSERT_TRUE(world_.until([&] { return world_.primary().status().state == "stopped"; }, 5s));
  EXPECT_EQ(create("t").error().code, ErrorCode::kFenced);
  EXPECT_EQ(run(primary().delete_snapshot("g", "s")).error().code, ErrorCode::kFenced);
  EXPECT_EQ(run(primary().rename_snapshot({"g", "s", "t", {}})).error().code, ErrorCode::kFenced);
  const auto shown = run(primary().show_snapshot("g", "s"));
  EXPECT_EQ(shown.error().code, ErrorCode::kFenced);
  EXPECT_NE(shown.error().message.find("a disk died"), std::string::npos);
  EXPECT_EQ(primary().open("v@s").error().code, ErrorCode::kFenced);
  EXPECT_EQ(stamp(world_.mirror(), "v@s", 0), 0u) << "the mirror's is there";
}

TEST_F(SnapshotControl, ThatIsReadKeepsItsGroupFromBeingDeleted) {
  ASSERT_TRUE(create("s"));
  ASSERT_TRUE(level());
  auto reader = mirror().open("v@s");
  ASSERT_TRUE(reader);
  ASSERT_TRUE(run(primary().remove_mirror("g", world_.mirror().address())));
  EXPECT_EQ(run(mirror().delete_group("g")).error().code, ErrorCode::kBusy);
  reader->reset();
  EXPECT_TRUE(run(mirror().delete_group("g")));
}

TEST_F(SnapshotControl, StayThroughAFullCopyOverAnOlderState) {
  for (std::uint32_t i = 0; i < kBlocks; ++i) write(i, 100 + i);
  ASSERT_TRUE(create("s1"));
  ASSERT_TRUE(level());
  const Lsn held = world_.mirror().group()->head().lsn;
  world_.mirror().stop();
  // So much that the log back to there is given up.
  for (int round = 0; round < 300 && world_.primary().group()->log_start() <= held; ++round) {
    for (std::uint32_t i = 0; i < kBlocks; ++i) write(i, 1000 * (round + 1) + i);
  }
  ASSERT_GT(world_.primary().group()->log_start(), held) << "nothing to prove";
  ASSERT_TRUE(create("s2"));
  ASSERT_TRUE(world_.mirror().start());
  ASSERT_TRUE(level());
  write(7, 1);
  ASSERT_TRUE(create("s3"));
  ASSERT_TRUE(level());
  EXPECT_EQ(stamp(world_.primary(), "v@s1", 50), 150u);
  EXPECT_EQ(stamp(world_.mirror(), "v@s1", 50), 150u);
  EXPECT_EQ(stamp(world_.mirror(), "v@s3", 7), 1u);
  EXPECT_EQ(stamp(world_.mirror(), "v@s3", 50), stamp(world_.primary(), "v@s2", 50));
  world_.mirror().power_cut();
  ASSERT_TRUE(world_.mirror().start());
  EXPECT_EQ(stamp(world_.mirror(), "v@s1", 50), 150u);
}

TEST_F(SnapshotControl, KeepAnEmptyGroupFromBeingDeleted) {
  ASSERT_TRUE(create("s"));
  ASSERT_TRUE(run(primary().delete_volume("v")));
  EXPECT_EQ(run(primary().delete_group("g")).error().code, ErrorCode::kRefused);
  ASSERT_TRUE(run(primary().delete_snapshot("g", "s")));
  EXPECT_TRUE(run(primary().delete_group("g")));
}

TEST_F(SnapshotControl, AreTakenByScheduleAndKeptByEachNodeAsItLikes) {
  const auto count = [&](PairNode& node) {
    std::size_t automatic = 0;
    for (const auto& s : node.status().snapshots) automatic += s.name.starts_with("auto-") ? 1 : 0;
    return automatic;
  };
  const auto set = [&](control::NodeControl& node, std::string key, std::string value) {
    ChangeSettings request{.group = "g", .mirror = "", .changes = {}};
    request.changes[std::move(key)] = std::move(value);
    return run(node.change_settings(std::move(request)));
  };
  EXPECT_FALSE(set(primary(), "snapshots.every", "1s"));
  ASSERT_TRUE(create("mine"));
  ASSERT_TRUE(level());
  world_.runtime().run_for(60s);
  EXPECT_EQ(count(world_.primary()), 0u) << "nobody asked for any";
  ASSERT_TRUE(set(mirror(), "snapshots.keep", "2"));
  ASSERT_TRUE(set(primary(), "snapshots.keep", "35s"));
  ASSERT_TRUE(set(primary(), "snapshots.every", "10s"));
  world_.runtime().run_for(2s);
  EXPECT_EQ(count(world_.primary()), 1u) << "the first at once";
  world_.runtime().run_for(120s);
  EXPECT_GE(count(world_.primary()), 4u);
  EXPECT_LE(count(world_.primary()), 5u);
  EXPECT_EQ(count(world_.mirror()), 2u);
  // A restart in the middle of a period takes no other, and the settings are still there.
  const auto newest = [&] { return world_.primary().status().snapshots.back().name; };
  const std::string before = newest();
  ASSERT_TRUE(world_.until([&] { return newest() != before; }, 15s));
  const std::string last = newest();
  world_.primary().stop();
  ASSERT_TRUE(world_.primary().start());
  world_.runtime().run_for(3s);
  EXPECT_EQ(newest(), last);
  ASSERT_TRUE(world_.until([&] { return newest() != last; }, 15s));
  ASSERT_TRUE(set(primary(), "snapshots.every", ""));
  const std::string final = newest();
  world_.runtime().run_for(60s);
  EXPECT_EQ(newest(), final);
  EXPECT_EQ(count(world_.primary()), 1u) << "the newest stays";
  EXPECT_EQ(world_.primary().status().snapshots.front().name, "mine");
}

}  // namespace
}  // namespace tandem::sim
