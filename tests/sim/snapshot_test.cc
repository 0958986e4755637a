// Kept states against a plain model that keeps every version: whatever is written, discarded,
// resized, deleted and rolled back afterwards, in whatever order snapshots and branches go, and
// wherever the power is cut, every one reads as it was; nothing it needs is reused, and nothing
// that it alone needed is lost when it goes (tandem-inspect's verification counts every block of
// the pool). Positions of the history are kept as points later, and read as they were, too.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "store/compaction.h"
#include "tests/sim/store_node.h"
#include "tests/unit/inspect_fixture.h"

namespace tandem::sim {
namespace {

/// What a block may hold: one of two stamps (they differ only while it is being written). 0:
/// zeroes.
struct Block {
  std::uint32_t now = 0, maybe = 0;
  bool allows(std::uint32_t stamp) const { return stamp == now || stamp == maybe; }
};
using Content = std::map<std::string, std::vector<Block>>;  // by volume

void stamp_block(std::span<std::byte> block, std::uint32_t stamp) {
  for (std::size_t i = 0; i < block.size(); i += 4) std::memcpy(&block[i], &stamp, 4);
}

/// The stamp of a block, or nullopt when it is not one block's content.
std::optional<std::uint32_t> stamp_of(std::span<const std::byte> block) {
  std::uint32_t first, each;
  std::memcpy(&first, block.data(), 4);
  for (std::size_t i = 4; i < block.size(); i += 4) {
    std::memcpy(&each, &block[i], 4);
    if (each != first) return std::nullopt;
  }
  return first;
}

struct Snapped {
  Content content;
  bool surely = false;  // it was acknowledged, and nobody has begun to delete it
};

struct Model {
  Content live;
  std::map<std::string, Snapped> snapshots;
};

Task<Result<std::string>> compare(Volume& volume, const std::vector<Block>& wanted) {
  constexpr std::size_t kPiece = 128;
  for (std::size_t at = 0; at < wanted.size(); at += kPiece) {
    const std::size_t count = std::min(kPiece, wanted.size() - at);
    auto data = co_await volume.read(at * kBlockBytes, count * kBlockBytes);
    if (!data) co_return Error(std::move(data.error()));
    for (std::size_t i = 0; i < count; ++i) {
      const auto found = stamp_of(data->bytes().subspan(i * kBlockBytes, kBlockBytes));
      if (found && wanted[at + i].allows(*found)) continue;
      co_return volume.info().name + ", block " + std::to_string(at + i) + ": has " +
          (found ? std::to_string(*found) : "a mixture") + ", wanted " +
          std::to_string(wanted[at + i].now) + " or " + std::to_string(wanted[at + i].maybe);
    }
  }
  co_return std::string{};
}

/// Empty, or what is wrong with what the store holds. Blocks that could be either are settled.
std::string check(SimRuntime& world, store::Group& group, Model& model, bool settle) {
  for (auto& [name, snapped] : model.snapshots) {
    const auto states = group.snapshots();
    const bool there =
        std::any_of(states.begin(), states.end(), [&](const auto& s) { return s.name == name; });
    if (!there && snapped.surely) return "snapshot " + name + " is gone";
    if (!there) continue;
    for (auto& [volume, wanted] : snapped.content) {
      auto opened = group.open_snapshot(name, volume);
      if (!opened) return opened.error().message;
      auto differs = world.run(compare(**opened, wanted));
      if (!differs) return differs.error().message;
      if (!differs->empty()) return *differs;
      if (!settle) continue;
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        if (wanted[i].now == wanted[i].maybe) continue;
        auto data = world.run((*opened)->read(i * kBlockBytes, kBlockBytes));
        if (!data) return data.error().message;
        wanted[i].now = wanted[i].maybe = *stamp_of(data->bytes());
      }
    }
  }
  for (const auto& [volume, wanted] : model.live) {
    auto opened = group.open_volume(volume);
    if (!opened) return opened.error().message;
    auto differs = world.run(compare(**opened, wanted));
    if (!differs) return differs.error().message;
    if (!differs->empty()) return *differs;
  }
  return "";
}

std::string sound(const SimImage& image) {
  const auto report = inspect::verify(image);
  if (!report.sound()) return report.text();
  for (const auto& g : report.groups) {
    const auto sum = g.data_blocks + g.dead_blocks + g.snapshot_blocks + g.map_blocks +
                     g.book_blocks + g.log_blocks + g.free_blocks;
    if (sum != g.zone_blocks) return "blocks do not add up in group " + g.name;
  }
  return "";
}

class SnapshotLife {
 public:
  SnapshotLife(std::uint64_t seed, bool cut_everywhere, std::uint64_t disk_bytes = 24 << 20)
      : seed_(seed),
        random_(seed * 31),
        shape_(shape(random_, disk_bytes)),
        cut_everywhere_(cut_everywhere),
        world_(seed),
        node_(world_, StoreNode::formatted(shape_, seed), shape_, seed) {}

  static StoreShape shape(SimRandom& random, std::uint64_t disk_bytes) {
    StoreShape shape = StoreShape::from_seed(random.fork());
    shape.disk_bytes = disk_bytes;
    return shape;
  }

  void run(std::size_t operations) {
    ASSERT_TRUE(world_.run(node_.start()).has_value());
    auto made =
        world_.run(node_.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
    ASSERT_TRUE(made.has_value());
    group_ = *made;
    group_->serve(true);
    const bool has_history = random_.chance(2, 3);
    group_->set_history_policy(
        {has_history ? Nanoseconds(random_.between(1, 20) * 1'000'000'000) : Nanoseconds{0}});
    for (const std::size_t blocks : {40, 700}) create_volume(blocks);
    if (compacting_) group_->compaction().set_slack(random_.between(0, 128));
    if (cut_everywhere_) {
      node_.disk().set_observer([this](SimDisk::Moment, const IoRequest&) { crash_here(); });
    }
    for (std::size_t i = 0; i < operations && problem_.empty(); ++i) {
      one();
      if (compacting_ && random_.chance(1, 4)) compact();
      if (!cut_everywhere_ && random_.chance(1, 12)) complain(check(world_, *group_, model_, true));
    }
    node_.disk().set_observer(nullptr);
    complain(check(world_, *group_, model_, true));
    if (problem_.empty()) end();
    world_.run(node_.stop());
  }

  const std::string& problem() const { return problem_; }
  std::size_t crashes() const { return crashes_; }
  std::size_t made() const { return made_; }
  std::size_t deleted() const { return deleted_; }
  std::size_t refused() const { return refused_; }
  std::size_t rolled_back() const { return rolled_back_; }
  std::size_t points() const { return points_; }
  std::size_t moved() const { return moved_; }
  /// Compaction runs all the time, at some rate; whatever happens meanwhile.
  void keep_compacting() { compacting_ = true; }

 private:
  void complain(const std::string& what) {
    if (what.empty() || !problem_.empty()) return;
    problem_ =
        "seed " + std::to_string(seed_) + ", operation " + std::to_string(operation_) + ": " + what;
  }
  /// True when it was done; a full pool is an answer, too, and leaves no trace.
  bool expect(const Status& status) {
    if (status) return true;
    if (status.error().code != ErrorCode::kNoSpace) complain(status.error().message);
    ++refused_;
    return false;
  }
  std::string any_volume() {
    auto it = model_.live.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random_.below(model_.live.size())));
    return it->first;
  }

  void create_volume(std::size_t blocks) {
    const std::string name = "v" + std::to_string(names_++);
    if (expect(world_.run(group_->create_volume(name, blocks * kBlockBytes, 4096)))) {
      model_.live[name].resize(blocks);
    }
  }

  Task<void> write(std::string name, std::size_t first, std::size_t count, std::uint32_t stamp) {
    auto volume = group_->open_volume(name);
    CHECK(volume.has_value());
    IoBuffer data = IoBuffer::on_heap(count * kBlockBytes);
    if (stamp != 0) stamp_block(data.bytes(), stamp);
    Status done;
    if (stamp != 0) {
      done = co_await (*volume)->write(first * kBlockBytes, std::move(data), {});
    } else if (stamp_ % 2 == 0) {
      done = co_await (*volume)->discard(first * kBlockBytes, count * kBlockBytes, {});
    } else {
      done = co_await (*volume)->write_zeroes(first * kBlockBytes, count * kBlockBytes, {});
    }
    const bool written = expect(done);
    auto& blocks = model_.live[name];
    for (std::size_t i = first; i < first + count; ++i) {
      (written ? blocks[i].now : blocks[i].maybe) = written ? stamp : blocks[i].now;
    }
    --writing_;
  }
  /// Begins a write or a clear of a range of its own.
  void begin_write(std::size_t place, std::size_t places) {
    const std::string name = any_volume();
    auto& blocks = model_.live[name];
    const std::size_t share = blocks.size() / places;
    if (share == 0) return;
    const std::size_t first = place * share + random_.below(share);
    const std::size_t count = random_.between(
        1, std::min<std::size_t>(share * (place + 1) - first, random_.chance(1, 8) ? 100 : 4));
    const std::uint32_t stamp = random_.chance(1, 5) ? 0 : ++stamp_;
    if (stamp == 0) ++stamp_;
    for (std::size_t i = first; i < first + count; ++i) blocks[i].maybe = stamp;
    ++writing_;
    spawn(write(name, first, count, stamp));
  }

  void snapshot() {
    if (model_.snapshots.size() > 12) return;
    const std::string name = "s" + std::to_string(names_++);
    // Whatever is being written may be in it or not.
    auto& snapped = model_.snapshots[name];
    snapped.content = model_.live;
    auto made = world_.run(group_->create_snapshot({.name = name, .label = "l"}));
    if (!made) {
      if (made.error().code != ErrorCode::kNoSpace) return complain(made.error().message);
      ++refused_;
      model_.snapshots.erase(name);
      return;
    }
    snapped.surely = true;
    ++made_;
  }

  void delete_snapshot() {
    if (model_.snapshots.empty()) return;
    auto it = model_.snapshots.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random_.below(model_.snapshots.size())));
    const std::string name = it->first;
    it->second.surely = false;
    expect(world_.run(group_->delete_snapshot(name)));
    model_.snapshots.erase(name);
    ++deleted_;
  }

  void roll_back() {
    if (model_.snapshots.empty() || model_.snapshots.size() > 12) return;
    auto it = model_.snapshots.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random_.below(model_.snapshots.size())));
    complain(check(world_, *group_, model_, true));  // settles what a block of it is
    const std::string branch = "b" + std::to_string(names_++);
    auto& left = model_.snapshots[branch];
    left.content = model_.live;
    turning_ = true;
    auto done = world_.run(group_->rollback(it->first, branch));
    turning_ = false;
    if (!done) {
      if (done.error().code != ErrorCode::kNoSpace) return complain(done.error().message);
      ++refused_;
      model_.snapshots.erase(branch);
      return;
    }
    ++rolled_back_;
    model_.live = it->second.content;
    const auto states = group_->snapshots();
    left.surely =
        std::any_of(states.begin(), states.end(), [&](const auto& s) { return s.name == branch; });
    if (!left.surely) model_.snapshots.erase(branch);  // nothing happened since
  }

  /// Everything at rest is a position that can be had again.
  void remember() {
    const auto status = group_->history_status();
    std::erase_if(
        past_, [&](const auto& entry) { return !status.start || entry.first < status.start->lsn; });
    if (writing_ != 0 || past_.size() > 60) return;
    complain(check(world_, *group_, model_, true));
    past_[group_->head().lsn] = model_.live;
  }

  void keep_point() {
    remember();
    if (past_.empty() || model_.snapshots.size() > 12) return;
    auto it = past_.begin();
    std::advance(it, static_cast<std::ptrdiff_t>(random_.below(past_.size())));
    const std::string name = "p" + std::to_string(names_++);
    auto& point = model_.snapshots[name];
    point.content = it->second;
    auto done = world_.run(group_->keep_point(it->first, name, ""));
    if (!done) {
      // What a full pool gave up, or what was rolled back, is gone from the history.
      const bool may_be =
          done.error().code == ErrorCode::kNoSpace || done.error().code == ErrorCode::kNotFound;
      if (!may_be) return complain(done.error().message);
      if (done.error().code == ErrorCode::kNotFound) past_.erase(it);
      ++refused_;
      model_.snapshots.erase(name);
      return;
    }
    point.surely = true;
    ++points_;
  }

  void compact() {
    auto& compaction = group_->compaction();
    const auto state = [&] { return compaction.report().state; };
    if (state() == store::CompactionReport::State::kRunning) {
      if (random_.chance(1, 4)) (void)compaction.stop();
      if (random_.chance(1, 2)) {
        compaction.set_rate(1 << 30);
        world_.run_until([&] { return state() != store::CompactionReport::State::kRunning; });
      }
      return;
    }
    moved_ += compaction.report().blocks_moved;
    // With named states everywhere hardly anything may be moved.
    if (random_.chance(1, 6)) {
      while (!model_.snapshots.empty() && problem_.empty()) delete_snapshot();
    }
    compaction.set_rate(std::uint64_t{1} << random_.between(18, 28));
    (void)compaction.start(random_.chance(1, 2));  // it may have nothing to gain
  }

  void one() {
    ++operation_;
    if (random_.chance(1, 3)) remember();
    const auto dice = random_.below(100);
    if (dice < 55) {
      const std::size_t places = random_.between(1, 4);
      for (std::size_t i = 0; i < places; ++i) begin_write(i, places);
      if (random_.chance(1, 6)) snapshot();  // in the middle of it
      world_.run_until([this] { return writing_ == 0; });
    } else if (dice < 70) {
      snapshot();
      if (random_.chance(1, 3)) snapshot();  // nothing lies between
    } else if (dice < 80) {
      delete_snapshot();
      if (random_.chance(1, 3)) delete_snapshot();
    } else if (dice < 84) {
      roll_back();
    } else if (dice < 87) {
      keep_point();
    } else if (dice < 90) {
      expect(world_.run(group_->checkpoint()));
    } else if (dice < 93 && model_.live.size() < 4) {
      create_volume(random_.between(1, 300));
    } else if (dice < 95 && model_.live.size() > 2) {
      const std::string name = any_volume();
      // A full pool may refuse even that, and then it stays.
      auto blocks = model_.live.extract(name);
      if (!expect(world_.run(group_->delete_volume(name)))) model_.live.insert(std::move(blocks));
    } else if (dice < 97) {
      const std::string name = any_volume();
      auto& blocks = model_.live[name];
      const std::size_t size = blocks.size() + random_.between(1, 60);
      if (size > 900) return;
      if (expect(world_.run(group_->resize_volume(name, size * kBlockBytes)))) blocks.resize(size);
    } else {
      expect(world_.run(group_->flush_local()));
    }
  }

  /// A process killed at this moment; now and then a power cut, which may cost what was not flushed
  /// but no snapshot that was acknowledged.
  void crash_here() {
    if (!problem_.empty()) return;
    ++moments_;
    const bool power = random_.chance(1, 2);
    const SimImage image =
        power ? node_.disk().crash_image({}, random_) : node_.disk().killed_image(random_);
    ++crashes_;
    Model then = model_;
    if (power || turning_) then.live.clear();
    const std::string wrong = recovered(image, then);
    if (!wrong.empty()) {
      complain("moment " + std::to_string(moments_) + (power ? " (power cut): " : " (killed): ") +
               wrong);
    }
  }

  std::string recovered(const SimImage& image, Model& then) {
    SimRuntime world(random_.next());
    StoreNode node(world, image, shape_, random_.next());
    const Status started = world.run(node.start());
    if (!started) return "start: " + started.error().message;
    // Volumes that are being made or deleted are another test's matter.
    for (auto it = then.live.begin(); it != then.live.end();) {
      it = node.group()->open_volume(it->first) ? std::next(it) : then.live.erase(it);
    }
    std::string wrong = check(world, *node.group(), then, false);
    world.run(node.stop());
    world.run_until([&] { return node.disk().in_flight() == 0; });
    if (wrong.empty()) wrong = sound(node.disk().remains());
    return wrong;
  }

  /// Everything is deleted: all space must come back.
  void end() {
    group_->set_history_policy({});
    (void)group_->compaction().stop();
    while (!model_.snapshots.empty()) delete_snapshot();
    while (!model_.live.empty()) {
      const std::string name = model_.live.begin()->first;
      expect(world_.run(group_->delete_volume(name)));
      model_.live.erase(name);
    }
    world_.run_for(std::chrono::seconds(5));
    expect(world_.run(group_->checkpoint()));
    complain(still_unbalanced(world_, node_.pool()));
    const auto use = group_->use();
    if (use.data_blocks + use.dead_blocks + use.snapshot_blocks + use.map_blocks != 0) {
      complain("all is deleted, but data=" + std::to_string(use.data_blocks) +
               " dead=" + std::to_string(use.dead_blocks) + " snapshots=" +
               std::to_string(use.snapshot_blocks) + " maps=" + std::to_string(use.map_blocks));
    }
    world_.run(node_.stop());
    world_.run_until([&] { return node_.disk().in_flight() == 0; });
    complain(sound(node_.disk().remains()));
  }

  std::uint64_t seed_;
  SimRandom random_;
  StoreShape shape_;
  bool cut_everywhere_;
  SimRuntime world_;
  StoreNode node_;
  store::Group* group_ = nullptr;
  Model model_;
  std::uint32_t stamp_ = 0;
  std::size_t names_ = 0, writing_ = 0, operation_ = 0, moments_ = 0;
  std::size_t crashes_ = 0, made_ = 0, deleted_ = 0, refused_ = 0, rolled_back_ = 0, points_ = 0;
  std::map<Lsn, Content> past_;
  bool compacting_ = false;
  std::size_t moved_ = 0;
  bool turning_ = false;  // a rollback is under way: the newest state is the one or the other
  std::string problem_;
};

TEST(Snapshots, ReadAsTheyWereThroughLongLives) {
  std::size_t made = 0, deleted = 0, rolled_back = 0, points = 0;
  for (const std::uint64_t seed : seeds_to_run(1, 12)) {
    SimLog log;
    SnapshotLife life(seed, /*cut_everywhere=*/false);
    life.run(250);
    ASSERT_EQ(life.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    made += life.made();
    deleted += life.deleted();
    rolled_back += life.rolled_back();
    points += life.points();
  }
  EXPECT_GT(points, 20u);
  EXPECT_GT(made, 50u);
  EXPECT_GT(deleted, 50u);
  EXPECT_GT(rolled_back, 30u);
}

/// A branch that is deleted at once, behind marks that are still to join it: they have let blocks
/// go which their maps name, and must not become the end of the line.
TEST(Snapshots, AnEndWaitsForWhatIsToJoinIt) {
  SimLog log;
  SnapshotLife life(18, /*cut_everywhere=*/false);
  life.run(250);
  ASSERT_EQ(life.problem(), "") << "\n" << log.text();
}

/// Snapshots hold what is overwritten, so the pool fills; deleting them makes room again, and
/// nothing ever stops the group.
TEST(Snapshots, FillAPoolAndGiveItBack) {
  std::size_t refused = 0;
  for (const std::uint64_t seed : seeds_to_run(201, 12)) {
    SimLog log;
    SnapshotLife life(seed, /*cut_everywhere=*/false, /*disk_bytes=*/8 << 20);
    life.run(300);
    ASSERT_EQ(life.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    refused += life.refused();
  }
  EXPECT_GT(refused, 20u);
}

TEST(Snapshots, SurviveACrashAtEveryMoment) {
  std::size_t crashes = 0, rolled_back = 0;
  for (const std::uint64_t seed : seeds_to_run(101, 3)) {
    SimLog log;
    SnapshotLife life(seed, /*cut_everywhere=*/true);
    life.run(40);
    ASSERT_EQ(life.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    ASSERT_GT(life.crashes(), 0u) << "seed " << seed;
    crashes += life.crashes();
    rolled_back += life.rolled_back();
  }
  EXPECT_GT(crashes, 100u);
  EXPECT_GT(rolled_back, 0u);
}

/// The same lives, and blocks change their places all the time.
TEST(Snapshots, ReadAsTheyWereThroughCompaction) {
  std::size_t moved = 0, points = 0, rolled_back = 0;
  for (const std::uint64_t seed : seeds_to_run(301, 20)) {
    SimLog log;
    const bool is_small = seed % 4 == 0;
    SnapshotLife life(seed, /*cut_everywhere=*/false, (is_small ? 8 : 24) << 20);
    life.keep_compacting();
    life.run(250);
    ASSERT_EQ(life.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    moved += life.moved();
    points += life.points();
    rolled_back += life.rolled_back();
  }
  EXPECT_GT(moved, 1000u);
  EXPECT_GT(points, 20u);
  EXPECT_GT(rolled_back, 30u);
}

/// Both have copies of what changed since the state in front of them, each its own.
TEST(Points, TwoAtOnePositionGoOneByOne) {
  SimLog log;
  SimRuntime world(1);
  SimRandom random(1);
  StoreShape shape = StoreShape::from_seed(random.fork());
  shape.disk_bytes = 24 << 20;
  StoreNode node(world, StoreNode::formatted(shape, 1), shape, 1);
  ASSERT_TRUE(world.run(node.start()));
  auto made =
      world.run(node.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
  ASSERT_TRUE(made);
  store::Group& group = **made;
  group.serve(true);
  group.set_history_policy({std::chrono::hours(1)});
  ASSERT_TRUE(world.run(group.create_volume("v", 64 * kBlockBytes, 4096)));
  const auto write = [&](std::size_t block, std::uint32_t stamp) {
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    stamp_block(data.bytes(), stamp);
    auto volume = group.open_volume("v");
    ASSERT_TRUE(volume && world.run((*volume)->write(block * kBlockBytes, data, {})));
  };
  ASSERT_TRUE(world.run(group.create_snapshot({.name = "base", .label = ""})));
  write(1, 11);
  const Lsn at = group.head().lsn;
  write(1, 12);
  write(2, 13);
  ASSERT_TRUE(world.run(group.create_snapshot({.name = "behind", .label = ""})));
  ASSERT_TRUE(world.run(group.keep_point(at, "one", "")));
  ASSERT_TRUE(world.run(group.keep_point(at, "two", "")));
  std::vector<Block> wanted(64);
  wanted[1] = {11, 11};
  for (const std::string gone : {"two", "behind", "one"}) {
    for (const std::string name : {"one", "two"}) {
      auto kept = group.open_snapshot(name, "v");
      if (!kept) continue;
      auto differs = world.run(compare(**kept, wanted));
      ASSERT_TRUE(differs) << differs.error().message;
      EXPECT_EQ(*differs, "") << name;
    }
    group.set_history_policy({});
    ASSERT_TRUE(world.run(group.delete_snapshot(gone)));
    for (std::uint32_t i = 0; i < 40; ++i) write(i, 100 + i);  // reuses what came free
    world.run_for(std::chrono::seconds(3));
  }
  EXPECT_EQ(still_unbalanced(world, node.pool()), "");
  world.run(node.stop());
  world.run_until([&] { return node.disk().in_flight() == 0; });
  EXPECT_EQ(sound(node.disk().remains()), "");
}

}  // namespace
}  // namespace tandem::sim
