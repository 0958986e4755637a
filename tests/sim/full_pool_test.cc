// A pool that is full to the last block, with snapshots and a mirror that is away: what gives way
// in which order, and that everything which makes room again works there.
#include <gtest/gtest.h>

#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

constexpr std::uint64_t kVolumeBlocks = 4096;  // more than the pool has

class FullPool {
 public:
  explicit FullPool(std::uint64_t seed)
      : random_(seed),
        shape_(shape_of(random_)),
        world_(seed),
        node_(world_, StoreNode::formatted(shape_, seed), shape_, seed) {
    CHECK(world_.run(node_.start()));
    CHECK(world_.run(
        node_.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync)));
    group().serve(true);
    for (const char* name : {"a", "b"})
      CHECK(world_.run(group().create_volume(name, kVolumeBlocks * kBlockBytes, 4096)));
  }
  store::Group& group() { return *node_.group(); }
  SimRandom& random() { return random_; }
  SimRuntime& world() { return world_; }

  Status write(const std::string& name, std::uint64_t block, std::size_t blocks = 1) {
    auto volume = group().open_volume(name);
    if (!volume) return volume.error();
    IoBuffer data = IoBuffer::on_heap(blocks * kBlockBytes);
    for (std::size_t i = 0; i < data.size(); i += 512)
      data.data()[i] = static_cast<std::byte>(random_.next());
    return world_.run((*volume)->write(block * kBlockBytes, std::move(data), {}));
  }
  /// Until nothing fits any more, large and small, here and there. True when it was refused so.
  bool fill(const std::string& name) {
    int refused = 0;
    for (int i = 0; i < 20000 && refused < 5; ++i) {
      const std::size_t blocks = random_.chance(1, 3) ? 8 : 1;
      const Status done = write(name, random_.below(kVolumeBlocks - 8), blocks);
      if (!done && done.error().code != ErrorCode::kNoSpace) {
        ADD_FAILURE() << done.error().message;
        return false;
      }
      refused += done ? 0 : 1;
    }
    return refused == 5;
  }
  std::vector<std::string> snapshots() {
    std::vector<std::string> names;
    for (const auto& s : group().snapshots()) names.push_back(s.name);
    return names;
  }
  void expect_sound(const std::string& after) {
    ASSERT_FALSE(group().stopped()) << after << ": " << group().stopped()->message;
    EXPECT_EQ(still_unbalanced(world_, node_.pool()), "") << after;
  }
  /// Stops it and reads all of it.
  void end() {
    world_.run(node_.stop());
    world_.run_until([&] { return node_.disk().in_flight() == 0; });
    const Recovery after = recover(node_.disk().remains(), shape_, 7);
    EXPECT_TRUE(after.status) << after.status.error().message;
  }

 private:
  static StoreShape shape_of(SimRandom& random) {
    StoreShape shape = StoreShape::from_seed(random.fork());
    shape.disk_bytes = 8 << 20;
    return shape;
  }
  SimRandom random_;
  StoreShape shape_;
  SimRuntime world_;
  StoreNode node_;
};

Status discard_some(FullPool& pool) {
  auto volume = pool.group().open_volume("a");
  const auto blocks = 64 + pool.random().below(2000);
  return pool.world().run((*volume)->discard(0, blocks * kBlockBytes, {}));
}

Status delete_a_volume(FullPool& pool) {
  const Status gone = pool.world().run(pool.group().delete_volume("b"));
  if (!gone) return gone;
  pool.world().run_for(std::chrono::seconds(5));
  return pool.world().run(pool.group().create_volume("b", kVolumeBlocks * kBlockBytes, 4096));
}

Status demote_and_promote(FullPool& pool) {
  const Status demoted = pool.world().run(pool.group().set_role(Role::kMirror));
  if (!demoted) return demoted;
  const auto promoted = pool.world().run(pool.group().start_timeline());
  if (!promoted) return promoted.error();
  pool.group().serve(true);
  return ok();
}

/// Some snapshots, so that what is overwritten is held. A pool that is full may refuse one.
void take_snapshots(FullPool& pool, std::size_t& made) {
  for (std::uint64_t i = pool.random().below(3); i != 0; --i) {
    for (std::uint64_t n = pool.random().below(60); n != 0; --n)
      (void)pool.write("a", pool.random().below(kVolumeBlocks));
    const auto name = "s" + std::to_string(made++);
    const auto taken = pool.world().run(pool.group().create_snapshot({.name = name}));
    if (!taken) {
      EXPECT_EQ(taken.error().code, ErrorCode::kNoSpace) << taken.error().message;
    }
  }
}

TEST(FullPools, CountWhatTheyRefuse) {
  SimLog log;
  FullPool pool(3);
  EXPECT_EQ(pool.group().refusals().count, 0u);
  ASSERT_TRUE(pool.fill("a"));
  EXPECT_EQ(pool.group().refusals().count, 5u);
  EXPECT_NE(pool.group().refusals().last, UtcNs{});
  EXPECT_FALSE(pool.group().waiting().has_value()) << "refused is answered, too";
}

/// Each of these begins with a pool that has just refused a write.
TEST(FullPools, WhatMakesRoomWorks) {
  std::map<std::string, std::size_t> done;
  for (const std::uint64_t seed : seeds_to_run(1, 10)) {
    SCOPED_TRACE(seed);
    SimLog log;
    FullPool pool(seed);
    std::size_t made = 0;
    for (int round = 0; round < 12 && !testing::Test::HasFailure(); ++round) {
      take_snapshots(pool, made);
      ASSERT_TRUE(pool.fill(pool.random().chance(1, 2) ? "a" : "b")) << "round " << round;
      const auto names = pool.snapshots();
      std::string what;
      Status worked = ok();
      switch (pool.random().below(6)) {
        case 0:
          what = "checkpoint";
          worked = pool.world().run(pool.group().checkpoint());
          break;
        case 1:
        case 2:
          if (names.empty()) continue;
          what = "delete a snapshot";
          worked = pool.world().run(
              pool.group().delete_snapshot(names[pool.random().below(names.size())]));
          break;
        case 3:
          what = "discard";
          worked = discard_some(pool);
          break;
        case 4:
          what = "delete a volume";
          worked = delete_a_volume(pool);
          break;
        default:
          what = "demote";
          worked = demote_and_promote(pool);
          break;
      }
      EXPECT_TRUE(worked) << what << ": " << worked.error().message << log.text();
      pool.expect_sound(what);
      ++done[what];
    }
    // All of it comes back.
    for (const auto& name : pool.snapshots())
      EXPECT_TRUE(pool.world().run(pool.group().delete_snapshot(name)));
    for (const char* name : {"a", "b"})
      EXPECT_TRUE(pool.world().run(pool.group().delete_volume(name)));
    pool.world().run_for(std::chrono::seconds(10));
    pool.expect_sound("deleting all");
    EXPECT_EQ(pool.group().use().data_blocks + pool.group().use().snapshot_blocks, 0u);
    pool.end();
  }
  for (const char* what :
       {"checkpoint", "delete a snapshot", "discard", "delete a volume", "demote"})
    EXPECT_GT(done[what], 0u) << what << " was never tried";
}

/// History goes first, then the log of a mirror that is away, before a write is refused; snapshots
/// never do.
TEST(FullPools, GiveWayInTheStatedOrder) {
  std::size_t in_steps = 0;
  for (const std::uint64_t seed : seeds_to_run(50, 6)) {
    SCOPED_TRACE(seed);
    SimLog log;
    FullPool pool(seed);
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(pool.write("a", static_cast<std::uint64_t>(i)));
    ASSERT_TRUE(pool.world().run(pool.group().create_snapshot({.name = "kept"})));
    pool.group().set_history_policy({std::chrono::hours(24)});
    ASSERT_TRUE(pool.world().run(pool.group().checkpoint()));
    const auto first = pool.group().history_status().start;
    ASSERT_TRUE(first);
    const Lsn held = pool.group().head().lsn;
    pool.group().set_log_hold(held);
    // What the history begins with, each time that it was another position.
    std::vector<Lsn> starts = {first->lsn};
    bool log_went = false;
    std::string last_lines;  // when it went
    for (int i = 0; i < 20000; ++i) {
      const Status done = pool.write("a", pool.random().below(200), 8);
      const auto start = pool.group().history_status().start;
      if (!log_went && pool.group().log_start() > held) {
        log_went = true;
        last_lines = log.text();
        EXPECT_TRUE(!start || start->lsn > held) << "history from behind it is still kept";
      }
      if (!log_went && start && start->lsn != starts.back()) starts.push_back(start->lsn);
      if (!done || (log_went && i > 4000)) break;
    }
    EXPECT_TRUE(std::is_sorted(starts.begin(), starts.end())) << "it goes from its beginning on";
    in_steps += starts.size() > 2 ? 1 : 0;
    const auto history_went = last_lines.find("history.given-up");
    const auto then_the_log = last_lines.find("log.given-up");
    EXPECT_TRUE(log_went) << "writers were refused while the log was still kept";
    ASSERT_NE(then_the_log, std::string::npos);
    EXPECT_LT(history_went, then_the_log) << "history goes before what a mirror needs";
    EXPECT_TRUE(pool.fill("b"));
    EXPECT_EQ(pool.snapshots(), std::vector<std::string>{"kept"});
    pool.expect_sound("filling");
    pool.end();
  }
  EXPECT_GT(in_steps, 0u) << "of history no more goes than has to";
}

/// Without a history.
TEST(FullPools, GiveUpTheLogBeforeAWriteIsRefused) {
  for (const std::uint64_t seed : seeds_to_run(50, 6)) {
    SCOPED_TRACE(seed);
    SimLog log;
    FullPool pool(seed);
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(pool.write("a", static_cast<std::uint64_t>(i)));
    ASSERT_TRUE(pool.world().run(pool.group().create_snapshot({.name = "kept"})));
    const Lsn held = pool.group().head().lsn;
    pool.group().set_log_hold(held);
    bool given_up = false;
    for (int i = 0; i < 20000; ++i) {
      const Status done = pool.write("a", pool.random().below(200), 8);
      given_up |= pool.group().log_start() > held;
      if (!done || (given_up && i > 4000)) break;
    }
    EXPECT_TRUE(given_up) << "writers were refused while the log was still kept";
    EXPECT_TRUE(pool.fill("b"));
    EXPECT_EQ(pool.snapshots(), std::vector<std::string>{"kept"});
    pool.expect_sound("filling");
    pool.end();
  }
}

/// A record of one block and a page of the log for it, as long as the mirror takes them.
Status follow_block_by_block(SimRuntime& world, store::Group& primary, store::Group& mirror) {
  auto volume = primary.open_volume("v");
  if (!volume) return volume.error();
  const WriteOptions kept{.no_hole = true};
  for (std::uint64_t i = 0; i < 4000; ++i) {
    const std::uint64_t at = i % 64 * kBlockBytes;
    const Status zeroed = world.run((*volume)->write_zeroes(at, kBlockBytes, kept));
    if (!zeroed) return zeroed;
    auto batch = world.run(primary.read_after(mirror.tail().lsn, 1));
    if (!batch) return batch.error();
    const Status applied = world.run(mirror.apply(std::move(*batch)));
    if (!applied) return applied;
  }
  return ok();
}

/// It looked for room for its log without end, and nothing else of its node ran.
TEST(FullPools, AMirrorWithoutRoomForItsLogGoesOnWhenItMayLetGo) {
  SimLog log;
  StoreShape large, small;
  large.disk_bytes = 64 << 20;
  small.disk_bytes = 8 << 20;
  SimRuntime world(1);
  StoreNode source(world, StoreNode::formatted(large, 1), large, 1);
  StoreNode target(world, StoreNode::formatted(small, 2), small, 2);
  ASSERT_TRUE(world.run(source.start()));
  ASSERT_TRUE(world.run(target.open()));
  ASSERT_TRUE(make_mirrored_group(world, source, target));
  store::Group& primary = *source.group();
  store::Group& mirror = *target.group();
  ASSERT_TRUE(world.run(primary.create_volume("v", 64 * kBlockBytes, 4096)));
  ASSERT_TRUE(world.run(mirror.apply(*world.run(primary.read_after(Lsn{0}, 1)))));

  const Status refused = follow_block_by_block(world, primary, mirror);
  ASSERT_FALSE(refused) << "it need not keep what its primary does not hold durably";
  EXPECT_EQ(refused.error().code, ErrorCode::kNoSpace) << refused.error().message;
  world.run_for(std::chrono::seconds(10));
  mirror.set_primary_durable(mirror.head().lsn, mirror.head().lsn);
  auto batch = world.run(primary.read_after(mirror.tail().lsn, 1));
  ASSERT_TRUE(batch) << batch.error().message;
  EXPECT_TRUE(world.run(mirror.apply(std::move(*batch))));
  world.run(source.stop());
  world.run(target.stop());
}

/// A point costs map nodes of its own: where these do not fit, it is refused, and nothing else
/// changes.
TEST(FullPools, KeepAPointOrRefuseIt) {
  // So wide that nearly every record behind a mark needs a leaf of its own.
  constexpr std::uint64_t kWideBlocks = 1 << 20;
  std::size_t kept = 0, refused = 0;
  for (const std::uint64_t seed : seeds_to_run(100, 8)) {
    SCOPED_TRACE(seed);
    SimLog log;
    FullPool pool(seed);
    pool.group().set_history_policy({std::chrono::hours(24)});
    ASSERT_TRUE(
        pool.world().run(pool.group().create_volume("wide", kWideBlocks * kBlockBytes, 4096)));
    ASSERT_TRUE(pool.world().run(pool.group().create_snapshot({.name = "first"})));
    bool is_full = false;
    for (int i = 0; i < 3000 && !is_full && !testing::Test::HasFailure(); ++i) {
      is_full = !pool.write("wide", pool.random().below(kWideBlocks));
      const auto history = pool.group().history_status();
      if (i % 10 != 0 || !history.start) continue;
      const std::uint64_t first = history.start->lsn.value;
      const Lsn at{first + pool.random().below(pool.group().head().lsn.value - first + 1)};
      const auto point = pool.world().run(pool.group().keep_point(at, "p", ""));
      pool.expect_sound("a point");
      if (!point) {
        ASSERT_EQ(point.error().code, ErrorCode::kNoSpace) << point.error().message;
        ++refused;
        continue;
      }
      ++kept;
      ASSERT_TRUE(pool.world().run(pool.group().delete_snapshot("p")));
    }
    EXPECT_TRUE(pool.fill("b"));
    pool.expect_sound("filling");
    EXPECT_TRUE(pool.world().run(pool.group().delete_volume("wide")));
    pool.world().run_for(std::chrono::seconds(10));
    pool.end();
  }
  EXPECT_GT(kept, 0u);
  EXPECT_GT(refused, 0u);
}

}  // namespace
}  // namespace tandem::sim
