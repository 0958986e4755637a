// Compaction of a group's zones: what lies scattered comes back to the pool, for another group to
// use; kept states and clones read as they were, wherever it is cut. The lives are in
// snapshot_test.cc, store_random_test.cc and rejoin_sim_test.cc.
#include "store/compaction.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "tests/sim/store_node.h"
#include "tests/unit/inspect_fixture.h"

namespace tandem::sim {
namespace {

using State = store::CompactionReport::State;

/// One pool whose blocks carry a number each.
class Scattered {
 public:
  explicit Scattered(std::uint64_t disk_bytes = 24 << 20)
      : shape_(shape_of(disk_bytes)),
        world_(5),
        node_(world_, StoreNode::formatted(shape_, 5), shape_, 5) {
    CHECK(world_.run(node_.start()));
  }

  store::Group& make(const std::string& name, std::uint64_t blocks) {
    auto made = world_.run(
        node_.pool().create_group(name, Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
    CHECK(made.has_value());
    (*made)->serve(true);
    (*made)->set_history_policy({});
    CHECK(world_.run((*made)->create_volume(name, blocks * kBlockBytes, 4096)));
    return **made;
  }
  store::Group& group(const std::string& name) { return *node_.pool().find(name); }

  Status write(const std::string& name, std::uint64_t block, std::uint32_t number,
               std::size_t blocks = 1) {
    auto volume = group(name).open_volume(name);
    if (!volume) return volume.error();
    IoBuffer data = IoBuffer::on_heap(blocks * kBlockBytes);
    for (std::size_t i = 0; i < data.size(); i += 4) {
      const auto n = static_cast<std::uint32_t>(number + i / kBlockBytes);
      std::memcpy(data.data() + i, &n, 4);
    }
    Status done = world_.run((*volume)->write(block * kBlockBytes, std::move(data), {}));
    for (std::size_t i = 0; done && i < blocks; ++i)
      wanted_[name][block + i] = static_cast<std::uint32_t>(number + i);
    return done;
  }
  /// Blocks that are left out by `keep` are discarded.
  void thin_out(const std::string& name, std::uint64_t blocks, std::uint64_t keep_each) {
    auto volume = group(name).open_volume(name);
    CHECK(volume.has_value());
    for (std::uint64_t block = 0; block < blocks; ++block) {
      if (block % keep_each == 0) continue;
      CHECK(world_.run((*volume)->discard(block * kBlockBytes, kBlockBytes, {})));
      wanted_[name].erase(block);
    }
    settle(name);
  }
  /// Nothing waits any more for a checkpoint.
  void settle(const std::string& name) {
    for (int i = 0; i < 3; ++i) CHECK(world_.run(group(name).checkpoint()));
  }
  void fill(const std::string& name, std::uint64_t blocks) {
    for (std::uint64_t block = 0; block < blocks; block += 8)
      CHECK(write(name, block, static_cast<std::uint32_t>(block + 1), 8));
  }

  store::CompactionReport compact(const std::string& name) {
    auto& compaction = group(name).compaction();
    const Status started = compaction.start(false);
    EXPECT_TRUE(started) << started.error().message;
    world_.run_until([&] { return compaction.report().state != State::kRunning; });
    settle(name);
    return compaction.report();
  }

  using Content = std::map<std::uint64_t, std::uint32_t>;
  const Content& wanted(const std::string& name) { return wanted_[name]; }
  /// Empty, or what is wrong with it.
  static std::string differs(SimRuntime& world, Volume& volume, const Content& wanted) {
    constexpr std::uint64_t kPiece = 64;
    const std::uint64_t blocks = volume.info().size_bytes / kBlockBytes;
    for (std::uint64_t first = 0; first < blocks; first += kPiece) {
      const auto count = std::min(kPiece, blocks - first);
      auto data = world.run(volume.read(first * kBlockBytes, count * kBlockBytes));
      if (!data) return volume.info().name + ": " + data.error().message;
      for (std::size_t i = 0; i < count * kBlockBytes; i += 4) {
        const std::uint64_t block = first + i / kBlockBytes;
        const auto found = wanted.find(block);
        std::uint32_t n;
        std::memcpy(&n, data->data() + i, 4);
        if (n == (found == wanted.end() ? 0 : found->second)) continue;
        return volume.info().name + ", block " + std::to_string(block) + ": has " +
               std::to_string(n);
      }
    }
    return "";
  }
  void expect_content(Volume& volume, const Content& wanted) {
    EXPECT_EQ(differs(world_, volume, wanted), "");
  }
  void expect_content(const std::string& name) {
    auto volume = group(name).open_volume(name);
    ASSERT_TRUE(volume);
    expect_content(**volume, wanted_[name]);
  }
  void expect_sound() {
    EXPECT_EQ(still_unbalanced(world_, node_.pool()), "");
    world_.run(node_.stop());
    world_.run_until([&] { return node_.disk().in_flight() == 0; });
    const auto report = inspect::verify(node_.disk().remains());
    EXPECT_TRUE(report.sound()) << report.text();
  }
  std::uint64_t zones_free() { return node_.pool().use().zones_free; }
  StoreNode& node() { return node_; }
  SimRuntime& world() { return world_; }
  const StoreShape& shape() const { return shape_; }

 private:
  static StoreShape shape_of(std::uint64_t disk_bytes) {
    StoreShape shape;
    shape.disk_bytes = disk_bytes;
    shape.options.map_cache_bytes = 64 * kBlockBytes;
    return shape;
  }
  StoreShape shape_;
  SimRuntime world_;
  StoreNode node_;
  std::map<std::string, Content> wanted_;
};

/// One block in four of every zone stays; the zones are of no use to anybody else before.
TEST(Compaction, GivesWholeZonesBack) {
  Scattered s;
  s.make("a", 2048);
  s.fill("a", 2048);
  s.thin_out("a", 2048, 4);
  const auto before = s.group("a").use().zones;
  const auto free_before = s.zones_free();
  const auto report = s.compact("a");
  EXPECT_EQ(report.state, State::kFinished) << report.outcome;
  EXPECT_EQ(report.outcome, "");
  EXPECT_GE(report.zones_chosen, 12u);
  EXPECT_EQ(report.zones_emptied, report.zones_chosen);
  EXPECT_EQ(report.zones_waiting, 0u);
  EXPECT_EQ(report.bad_blocks, 0u);
  EXPECT_LE(s.group("a").use().zones + 10, before);
  EXPECT_GE(s.zones_free(), free_before + 10);
  // What it cost: less than the zones that came back.
  EXPECT_LE(report.blocks_moved, report.zones_chosen * 64 / 3);
  s.expect_content("a");
  const auto again = s.group("a").compaction().start(false);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().code, ErrorCode::kRefused) << again.error().message;
  EXPECT_NE(again.error().message.find("nothing to gain"), std::string::npos);
  s.expect_sound();
}

/// A nearly full pool: the second group is refused until the first one's scattered blocks are
/// zones again.
TEST(Compaction, LetsAnotherGroupHaveTheSpace) {
  Scattered s(16 << 20);
  s.make("a", 4096);
  s.make("b", 4096);
  std::uint64_t filled = 0;
  while (s.write("a", filled, static_cast<std::uint32_t>(filled + 1), 8)) filled += 8;
  s.thin_out("a", filled, 3);
  std::uint64_t b = 0;
  while (s.write("b", b, static_cast<std::uint32_t>(b + 1), 8)) b += 8;
  const auto refused_at = b;
  ASSERT_LT(s.zones_free(), 2u);
  const auto report = s.compact("a");
  EXPECT_EQ(report.state, State::kFinished) << report.outcome;
  ASSERT_GE(report.zones_emptied, 8u) << report.outcome;
  while (s.write("b", b, static_cast<std::uint32_t>(b + 1), 8)) b += 8;
  EXPECT_GE(b, refused_at + 6 * 64);
  s.expect_content("a");
  s.expect_content("b");
  s.expect_sound();
}

/// What a snapshot holds is not there twice afterwards; it and its clone read as before.
TEST(Compaction, LeavesWhatSnapshotsAndClonesHold) {
  Scattered s;
  auto& group = s.make("a", 2048);
  s.fill("a", 1024);
  ASSERT_TRUE(s.world().run(group.create_snapshot({.name = "s", .label = ""})));
  const auto then = s.wanted("a");
  auto clone = s.world().run(s.node().pool().clone_group(group, "s", "c"));
  ASSERT_TRUE(clone) << clone.error().message;
  (*clone)->serve(true);
  for (std::uint64_t block = 1024; block < 2048; block += 8)
    ASSERT_TRUE(s.write("a", block, static_cast<std::uint32_t>(block + 1), 8));
  s.thin_out("a", 2048, 4);
  const auto use = group.use();
  const auto report = s.compact("a");
  EXPECT_EQ(report.state, State::kFinished) << report.outcome;
  EXPECT_GE(report.zones_emptied, 6u) << report.outcome;
  const auto after = group.use();
  EXPECT_EQ(after.data_blocks, use.data_blocks);
  EXPECT_LE(after.snapshot_blocks, use.snapshot_blocks + 16);  // map nodes
  s.expect_content("a");
  auto snapshot = group.open_snapshot("s", "a");
  ASSERT_TRUE(snapshot);
  s.expect_content(**snapshot, then);
  auto cloned = (*clone)->open_volume("a");
  ASSERT_TRUE(cloned);
  s.expect_content(**cloned, then);
  cloned->reset();
  ASSERT_TRUE(s.world().run(s.node().pool().delete_group("c")));
  ASSERT_TRUE(s.world().run(group.delete_snapshot("s")));
  s.world().run_for(std::chrono::seconds(5));
  s.settle("a");
  EXPECT_EQ(group.use().snapshot_blocks, 0u);
  EXPECT_TRUE(group.kept_states().empty());
  s.expect_sound();
}

/// With a history the old places are kept for it; the zones come back when it has passed, and any
/// position of it reads as it was, in front of the moves and behind them.
TEST(Compaction, WaitsForTheHistory) {
  Scattered s;
  auto& group = s.make("a", 2048);
  group.set_history_policy({std::chrono::hours(1)});
  s.fill("a", 2048);
  s.thin_out("a", 2048, 4);
  s.world().run_for(std::chrono::minutes(10));
  ASSERT_TRUE(s.write("a", 4, 77));
  const Lsn in_front = group.head().lsn;
  const auto then = s.wanted("a");
  ASSERT_TRUE(s.write("a", 8, 78));
  // What was thinned out is kept for the history, too.
  s.world().run_for(std::chrono::hours(2));
  ASSERT_TRUE(s.write("a", 12, 79));
  s.settle("a");
  const Lsn before = group.head().lsn;
  const auto wanted_before = s.wanted("a");
  const auto report = s.compact("a");
  EXPECT_EQ(report.state, State::kFinished) << report.outcome;
  EXPECT_GE(report.zones_waiting + report.zones_emptied, 8u) << report.outcome;
  ASSERT_TRUE(s.write("a", 16, 80));
  const Lsn behind = group.head().lsn;
  const auto wanted_behind = s.wanted("a");
  ASSERT_TRUE(s.write("a", 20, 81));
  EXPECT_FALSE(s.world().run(group.keep_point(in_front, "gone", "")));
  for (const auto& [at, name, wanted] :
       {std::tuple(before, "before", wanted_before), std::tuple(behind, "behind", wanted_behind)}) {
    const auto kept = s.world().run(group.keep_point(at, name, ""));
    ASSERT_TRUE(kept) << kept.error().message;
    auto point = group.open_snapshot(name, "a");
    ASSERT_TRUE(point);
    s.expect_content(**point, wanted);
  }
  for (const char* name : {"before", "behind"})
    ASSERT_TRUE(s.world().run(group.delete_snapshot(name)));
  s.world().run_for(std::chrono::hours(2));
  ASSERT_TRUE(s.write("a", 24, 82));
  s.world().run_for(std::chrono::minutes(10));
  s.settle("a");
  const auto end = group.compaction().report();
  EXPECT_EQ(end.zones_waiting, 0u);
  EXPECT_EQ(end.zones_emptied, end.zones_chosen);
  s.expect_content("a");
  s.expect_sound();
}

/// Blocks that cannot be read stay where they are, and so does their zone; the rest is moved.
TEST(Compaction, LeavesDamagedBlocksAlone) {
  Scattered s;
  auto& group = s.make("a", 2048);
  s.fill("a", 2048);
  s.thin_out("a", 2048, 4);
  // Something that is read now and then fails for a while, as often as it is asked for.
  auto& compaction = group.compaction();
  compaction.set_rate(1 << 20);
  ASSERT_TRUE(compaction.start(false));
  s.world().run_until([&] { return compaction.report().zones_chosen != 0; });
  s.node().disk().set_error_rate(IoRequest::Kind::kRead, 1, 3, EIO);
  s.world().run_until([&] { return compaction.report().state != State::kRunning; });
  s.node().disk().clear_faults();
  ASSERT_FALSE(group.stopped());
  s.settle("a");
  EXPECT_GT(compaction.report().bad_blocks, 0u) << compaction.report().outcome;
  s.expect_content("a");
  s.expect_sound();
}

/// The group itself needs what is being emptied.
TEST(Compaction, GivesWayToTheGroup) {
  Scattered s(16 << 20);
  auto& group = s.make("a", 8192);
  std::uint64_t filled = 0;
  while (s.write("a", filled, static_cast<std::uint32_t>(filled + 1), 8)) filled += 8;
  s.thin_out("a", filled, 3);
  auto& compaction = group.compaction();
  compaction.set_rate(64 << 10);
  ASSERT_TRUE(compaction.start(false));
  s.world().run_until([&] { return compaction.report().zones_chosen != 0; });
  std::uint64_t at = filled;
  while (at + 8 < 8192 && s.write("a", at, static_cast<std::uint32_t>(at + 1), 8)) at += 8;
  EXPECT_GE(at, filled + filled / 2) << "it kept what the group needed";
  s.world().run_until([&] { return compaction.report().state != State::kRunning; });
  EXPECT_EQ(compaction.report().state, State::kStopped);
  EXPECT_NE(compaction.report().outcome.find("gave way"), std::string::npos)
      << compaction.report().outcome;
  s.expect_content("a");
  s.expect_sound();
}

/// What a crash at this moment leaves: everything, since nothing is written meanwhile.
std::string recovered(const SimImage& image, Scattered& s, const std::string& snapshot,
                      const Scattered::Content& then) {
  SimRuntime world(3);
  StoreNode node(world, image, s.shape(), 4);
  const Status started = world.run(node.start());
  if (!started) return started.error().message;
  auto volume = node.group()->open_volume("a");
  if (!volume) return volume.error().message;
  std::string wrong = Scattered::differs(world, **volume, s.wanted("a"));
  if (wrong.empty() && !snapshot.empty()) {
    auto kept = node.group()->open_snapshot(snapshot, "a");
    if (!kept) return kept.error().message;
    wrong = Scattered::differs(world, **kept, then);
  }
  node.group()->set_history_policy({});
  world.run_for(std::chrono::seconds(3));
  if (wrong.empty()) wrong = still_unbalanced(world, node.pool());
  world.run(node.stop());
  world.run_until([&] { return node.disk().in_flight() == 0; });
  const auto report = inspect::verify(node.disk().remains());
  return !wrong.empty() || report.sound() ? wrong : report.text();
}

/// Without anything else, with a snapshot that holds some of it, and with a history.
TEST(Compaction, SurvivesACrashAtEveryMoment) {
  for (const std::string kind : {"plain", "snapshot", "history"}) {
    SCOPED_TRACE(kind);
    Scattered s(16 << 20);
    auto& group = s.make("a", 1024);
    if (kind == "history") group.set_history_policy({std::chrono::seconds(5)});
    s.fill("a", 256);
    if (kind == "snapshot") {
      ASSERT_TRUE(s.world().run(group.create_snapshot({.name = "s", .label = ""})));
    }
    const auto then = s.wanted("a");
    for (std::uint64_t block = 256; block < 1024; block += 8)
      ASSERT_TRUE(s.write("a", block, static_cast<std::uint32_t>(block + 1), 8));
    s.thin_out("a", 1024, 4);
    if (kind == "history") s.world().run_for(std::chrono::seconds(8));
    ASSERT_TRUE(s.world().run(group.flush_local()));
    s.settle("a");
    SimRandom random(11);
    std::string problem;
    std::size_t moments = 0;
    s.node().disk().set_observer([&](SimDisk::Moment, const IoRequest&) {
      if (!problem.empty()) return;
      ++moments;
      const bool power = random.chance(1, 2);
      const SimImage image =
          power ? s.node().disk().crash_image({}, random) : s.node().disk().killed_image(random);
      problem = recovered(image, s, kind == "snapshot" ? "s" : "", then);
      if (!problem.empty())
        problem = "moment " + std::to_string(moments) + (power ? " (power): " : ": ") + problem;
    });
    const auto report = s.compact("a");
    s.world().run_for(std::chrono::seconds(8));
    s.settle("a");
    s.node().disk().set_observer(nullptr);
    ASSERT_EQ(problem, "");
    EXPECT_GT(moments, 100u);
    EXPECT_GT(report.blocks_moved, 30u) << report.outcome;
    s.expect_content("a");
    s.expect_sound();
  }
}

/// Several batches of a run have a mark each, at one position; those that wait to be joined are
/// bases for points all the same, also after a restart.
TEST(Compaction, MarksThatWaitAreWholeAfterARestart) {
  Scattered s(40 << 20);
  auto& group = s.make("a", 6144);  // more leaves than a batch may pin
  group.set_history_policy({std::chrono::hours(1)});
  s.fill("a", 6144);
  s.thin_out("a", 6144, 4);
  s.world().run_for(std::chrono::hours(2));
  ASSERT_TRUE(s.write("a", 12, 79));
  s.settle("a");
  const auto report = s.compact("a");
  ASSERT_GT(report.blocks_moved, 64u) << report.outcome;
  const Lsn before = group.head().lsn;
  const auto wanted_before = s.wanted("a");
  ASSERT_TRUE(s.write("a", 16, 80));
  const Lsn behind = group.head().lsn;
  const auto wanted_behind = s.wanted("a");
  ASSERT_TRUE(s.write("a", 20, 81));
  ASSERT_TRUE(s.world().run(group.flush_local()));
  const auto states = group.kept_states();
  const auto waits = [](const auto* state) {
    return state->being_deleted && state->moved_from != Lsn{};
  };
  ASSERT_TRUE(std::any_of(states.begin(), states.end(), waits));

  SimRandom random(13);
  SimRuntime world(6);
  StoreNode node(world, s.node().disk().crash_image({}, random), s.shape(), 7);
  ASSERT_TRUE(world.run(node.start()));
  node.group()->set_history_policy({std::chrono::hours(1)});
  for (const auto& [at, name, wanted] :
       {std::tuple(before, "before", wanted_before), std::tuple(behind, "behind", wanted_behind)}) {
    const auto kept = world.run(node.group()->keep_point(at, name, ""));
    ASSERT_TRUE(kept) << kept.error().message;
    auto point = node.group()->open_snapshot(name, "a");
    ASSERT_TRUE(point);
    EXPECT_EQ(Scattered::differs(world, **point, wanted), "") << name;
  }
  EXPECT_EQ(still_unbalanced(world, node.pool()), "");
  world.run(node.stop());
  world.run_until([&] { return node.disk().in_flight() == 0; });
  const auto verified = inspect::verify(node.disk().remains());
  EXPECT_TRUE(verified.sound()) << verified.text();
}

TEST(Compaction, EndsWhenItIsToldTo) {
  Scattered s;
  auto& group = s.make("a", 2048);
  s.fill("a", 2048);
  s.thin_out("a", 2048, 4);
  auto& compaction = group.compaction();
  EXPECT_EQ(compaction.stop().error().code, ErrorCode::kNotFound);
  compaction.set_rate(256 << 10);
  ASSERT_TRUE(compaction.start(false));
  EXPECT_EQ(compaction.start(false).error().code, ErrorCode::kBusy);
  s.world().run_until([&] { return compaction.report().zones_chosen != 0; });
  s.world().run_for(std::chrono::milliseconds(500));
  ASSERT_TRUE(compaction.stop());
  s.world().run_until([&] { return compaction.report().state != State::kRunning; });
  EXPECT_EQ(compaction.report().state, State::kStopped);
  EXPECT_EQ(compaction.report().zones_waiting, 0u);
  s.settle("a");
  EXPECT_EQ(imbalance(s.node().pool()), "");
  s.expect_content("a");
  compaction.set_rate(1 << 30);
  EXPECT_EQ(s.compact("a").state, State::kFinished);
  s.expect_content("a");
  s.expect_sound();
}

}  // namespace
}  // namespace tandem::sim
