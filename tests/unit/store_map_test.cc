// MapCache and MapDiff against std::map: random changes through a cache much smaller than the map,
// with checkpoints in between and under way.
#include "store/map.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>

#include "format/checksum.h"
#include "store/map_diff.h"
#include "tests/support/sim_disk.h"

namespace tandem::store {
namespace {

using Model = std::map<std::uint64_t, MapEntry>;  // by volume block; absent: never touched

constexpr std::uint64_t kDiskBlocks = 64 << 10;

std::uint32_t index_in_leaf(std::uint64_t block) {
  return static_cast<std::uint32_t>(block % format::kMapFanout);
}

/// A tree with its cache and disk; does to them what a group and its checkpoints do.
class MapWorld {
 public:
  explicit MapWorld(std::uint64_t seed, std::size_t cache_nodes = 16)
      : world(seed),
        disk(world, sim::SimImage(kDiskBlocks * kBlockBytes), {.seed = seed}),
        cache(disk, cache_nodes * MapCache::kNodeBytes) {
    tree.group_slot = 3;
    tree.volume = VolumeId{7};
  }

  std::uint64_t blocks_max() const {
    std::uint64_t blocks = 1;
    for (std::uint32_t i = 0; i < tree.height; ++i) blocks *= format::kMapFanout;
    return blocks;
  }

  // What follows is called in long rows, and what it needs is often in the cache. Sanitizers keep
  // the compiler from tail calls, so a row that never suspends would take stack for each: a turn
  // each.

  Task<Status> set(std::uint64_t block, MapEntry entry) {
    co_await next_turn(world);
    auto leaf = co_await cache.load(tree, 0, block / format::kMapFanout, true);
    TANDEM_CO_TRY(leaf);
    const MapEntry before =
        cache.change(tree, 0, block / format::kMapFanout, index_in_leaf(block), entry);
    const auto old = model.find(block);
    EXPECT_EQ(before, old == model.end() ? MapEntry{} : old->second) << "block " << block;
    model[block] = entry;
    co_return ok();
  }

  /// A random change near the others, so that leaves are hit again.
  Task<Status> random_change() {
    co_await next_turn(world);
    auto& random = world.random();
    const std::uint64_t leaves = blocks_max() / format::kMapFanout;
    const std::uint64_t leaf = random.chance(1, 2)
                                   ? random.below(std::min<std::uint64_t>(40, leaves))
                                   : random.below(leaves);
    const std::uint64_t block = leaf * format::kMapFanout + random.below(format::kMapFanout);
    lsn = lsn.next();
    MapEntry entry{PoolBlock{2 + random.below(1 << 30)}, lsn,
                   static_cast<std::uint32_t>(random.next())};
    if (random.chance(1, 8)) entry = {PoolBlock{}, lsn, 0};  // discarded
    if (random.chance(1, 8)) entry = {format::kZeroBlock, lsn, entry.crc32c};
    co_return co_await set(block, entry);
  }

  Task<Result<MapEntry>> get(MapCache& from, MapTree& in, std::uint64_t block) {
    auto leaf = co_await from.load(in, 0, block / format::kMapFanout, false);
    TANDEM_CO_TRY(leaf);
    co_return *leaf ? (*leaf)->entry(index_in_leaf(block)) : MapEntry{};
  }

  /// What Checkpoint does, with `changes` random changes of the live map before each write of a
  /// node. Leaves the model as of the freeze in `frozen`, and its tree in `on_disk`.
  Task<Status> checkpoint(std::size_t changes) {
    frozen = model;
    on_disk = tree;
    changes_left = 40;
    auto leaves = cache.freeze(tree.group_slot);
    EXPECT_EQ(cache.dirty_leaves(tree.group_slot), 0u);
    Status done = co_await write_level(0, leaves, changes);
    TANDEM_CO_TRY(done);
    for (std::uint32_t level = 1; level < on_disk.height; ++level) {
      auto nodes = cache.dirty_inner(tree, level);
      done = co_await write_level(level, nodes, changes);
      TANDEM_CO_TRY(done);
    }
    if (!kept) {
      for (auto block : given_back) free.push_back(block);
      given_back.clear();
    }
    co_return ok();
  }

  Task<Status> write_level(std::uint32_t level, const std::vector<NodeRef>& nodes,
                           std::size_t changes) {
    for (const auto& node : nodes) {
      for (std::size_t i = 0; i < changes && changes_left != 0; ++i, --changes_left) {
        const Status changed = co_await random_change();
        TANDEM_CO_TRY(changed);
      }
      MapEntry entry;
      if (!node->is_empty()) {
        entry = {PoolBlock{take()}, node->newest(), format::crc32c(node->bytes())};
        IoBatch io(disk);
        io.write(entry.where.value * kBlockBytes, node->bytes());
        const Status written = co_await io.run();
        TANDEM_CO_TRY(written);
      }
      const std::uint64_t index = node->key().index;
      MapEntry before;
      if (level + 1 == tree.height) {
        before = std::exchange(tree.root, entry);
      } else {
        auto above = co_await cache.load(tree, level + 1, index / format::kMapFanout, true);
        TANDEM_CO_TRY(above);
        before = cache.change(tree, level + 1, index / format::kMapFanout,
                              static_cast<std::uint32_t>(index % format::kMapFanout), entry);
      }
      if (level + 1 == on_disk.height) on_disk.root = entry;
      if (before.has_data()) given_back.push_back(before.where.value);
      cache.written(node);
      // The leaf is clean, and the way to it is not on disk yet.
      if (world.random().chance(1, 8)) {
        const Status walks = co_await expect_walks(Lsn{}, 0, UINT64_MAX / 2);
        TANDEM_CO_TRY(walks);
      }
      if (world.random().chance(1, 32)) {
        const Status differences = co_await expect_differences();
        TANDEM_CO_TRY(differences);
      }
    }
    co_return ok();
  }

  std::uint64_t take() {
    if (free.empty()) return next_block++;
    const auto block = free.back();
    free.pop_back();
    return block;
  }

  /// The checkpoint as a restarted node would see it.
  Task<Status> expect_on_disk() {
    MapCache fresh(disk, 8 * kBlockBytes);
    MapTree again = on_disk;
    for (const auto& [block, entry] : frozen) {
      auto found = co_await get(fresh, again, block);
      TANDEM_CO_TRY(found);
      EXPECT_EQ(*found, entry) << "block " << block;
    }
    co_return ok();
  }

  Task<Status> expect_live() {
    for (const auto& [block, entry] : model) {
      auto found = co_await get(cache, tree, block);
      TANDEM_CO_TRY(found);
      EXPECT_EQ(*found, entry) << "block " << block;
    }
    co_return ok();
  }

  /// Both walks, against the model.
  Task<Status> expect_walks(Lsn since, std::uint64_t first, std::uint64_t last) {
    std::set<std::uint64_t> newer, existing;
    for (const auto& [block, entry] : model) {
      const std::uint64_t leaf = block / format::kMapFanout;
      if (leaf >= first && entry.lsn > since) newer.insert(leaf);
      if (leaf >= first && leaf <= last) existing.insert(leaf);
    }
    std::set<std::uint64_t> found;
    for (std::uint64_t next = first;;) {
      co_await next_turn(world);
      auto leaves = co_await cache.load_newer(tree, next, since, 3);
      TANDEM_CO_TRY(leaves);
      EXPECT_LE(leaves->size(), 3u);
      for (const auto& leaf : *leaves) {
        EXPECT_GE(leaf->key().index, next);
        EXPECT_TRUE(found.insert(leaf->key().index).second);
        next = leaf->key().index + 1;
      }
      if (leaves->size() < 3) break;
    }
    EXPECT_EQ(found, newer);
    co_await next_turn(world);
    auto range = co_await cache.load_range(tree, first, last);
    TANDEM_CO_TRY(range);
    found.clear();
    for (const auto& leaf : *range) found.insert(leaf->key().index);
    EXPECT_EQ(found, existing);
    co_return ok();
  }

  /// Keeps the state of the last checkpoint, as a snapshot does.
  void keep() {
    kept = on_disk;
    kept->volume = VolumeId{next_kept_id++};
    kept_model = frozen;
  }

  /// The kept tree against the live one, from a random place on.
  Task<Status> expect_differences() {
    if (!kept) co_return ok();
    std::set<std::uint64_t> wanted, found;
    const std::uint64_t start =
        world.random().chance(1, 2)
            ? 0
            : world.random().below(std::min<std::uint64_t>(blocks_max(), 20000));
    for (const auto* side : {&model, &kept_model}) {
      for (const auto& [block, entry] : *side) {
        const auto a = kept_model.find(block), b = model.find(block);
        const MapEntry then = a == kept_model.end() ? MapEntry{} : a->second;
        const MapEntry now = b == model.end() ? MapEntry{} : b->second;
        const bool zeroes = !then.has_data() && !now.has_data();
        if (block >= start && !zeroes && then != now) wanted.insert(block);
      }
    }
    const std::uint64_t end = blocks_max() * kBlockBytes;
    std::uint64_t at = start * kBlockBytes;
    bool more = true;
    while (at < end && more) {
      co_await next_turn(world);
      MapDiff diff(cache, *kept, tree);
      const std::size_t extents_max = world.random().between(1, 400);
      auto runs = co_await diff.run(at, end - at, extents_max);
      TANDEM_CO_TRY(runs);
      more = !runs->empty() && runs->size() <= extents_max;
      EXPECT_TRUE(more) << runs->size();
      for (const auto& run : *runs) {
        for (std::uint64_t b = at; run.changed && b < at + run.length_bytes; b += kBlockBytes)
          found.insert(b / kBlockBytes);
        at += run.length_bytes;
      }
    }
    EXPECT_EQ(at, end);
    EXPECT_EQ(found, wanted);
    differences += wanted.size();
    co_return ok();
  }

  sim::SimRuntime world;
  sim::SimDisk disk;
  MapCache cache;
  MapTree tree, on_disk;
  std::optional<MapTree> kept;
  std::uint32_t next_kept_id = 100;
  Model kept_model;
  std::size_t differences = 0;
  Model model, frozen;
  Lsn lsn;
  std::size_t changes_left = 0;  // of a running checkpoint
  std::uint64_t next_block = 2;
  std::vector<std::uint64_t> free, given_back;
};

Task<Status> random_life(MapWorld& w, std::uint32_t height_max) {
  auto& random = w.world.random();
  for (int round = 0; round < 8; ++round) {
    for (int i = 0; i < 60; ++i) {
      const Status changed = co_await w.random_change();
      TANDEM_CO_TRY(changed);
    }
    if (w.tree.height < height_max && random.chance(1, 3)) w.cache.grow(w.tree, w.tree.height + 1);
    const Status written = co_await w.checkpoint(random.below(4));
    TANDEM_CO_TRY(written);
    const Status on_disk = co_await w.expect_on_disk();
    TANDEM_CO_TRY(on_disk);
    const Status live = co_await w.expect_live();
    TANDEM_CO_TRY(live);
    const std::uint64_t first = random.below(60);
    const Status walks = co_await w.expect_walks(Lsn{random.below(w.lsn.value + 1)}, first,
                                                 first + random.below(5000));
    TANDEM_CO_TRY(walks);
    const Status all = co_await w.expect_walks(Lsn{}, 0, UINT64_MAX / 2);
    TANDEM_CO_TRY(all);
  }
  co_return ok();
}

TEST(MapCache, BehavesAsAMapThroughCheckpointsAndMisses) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    MapWorld w(seed);
    w.tree.height = static_cast<std::uint32_t>(1 + seed % 3);
    const Status done = w.world.run(random_life(w, 1 + seed % 4));
    ASSERT_TRUE(done.has_value()) << done.error().message;
    // What is written and not pinned does not stay beyond the bound.
    const Status last = w.world.run(w.checkpoint(0));
    ASSERT_TRUE(last.has_value());
    w.cache.drop_volume(w.tree);
    const Status read = w.world.run(w.expect_live());
    ASSERT_TRUE(read.has_value());
    EXPECT_LE(w.cache.resident_nodes(), w.cache.capacity_nodes());
  }
}

Task<Status> fill_leaves(MapWorld& w, std::uint64_t leaves) {
  for (std::uint64_t leaf = 0; leaf < leaves; ++leaf) {
    w.lsn = w.lsn.next();
    const Status done =
        co_await w.set(leaf * format::kMapFanout, {PoolBlock{100 + leaf}, w.lsn, 5});
    TANDEM_CO_TRY(done);
  }
  co_return co_await w.checkpoint(0);
}

Task<Status> compared_life(MapWorld& w, std::uint32_t height_max) {
  auto& random = w.world.random();
  for (int round = 0; round < 6; ++round) {
    for (int i = 0; i < 60; ++i) {
      const Status changed = co_await w.random_change();
      TANDEM_CO_TRY(changed);
    }
    const Status live = co_await w.expect_differences();
    TANDEM_CO_TRY(live);
    if (w.tree.height < height_max && random.chance(1, 2)) w.cache.grow(w.tree, w.tree.height + 1);
    const Status written = co_await w.checkpoint(random.below(4));
    TANDEM_CO_TRY(written);
    const Status after = co_await w.expect_differences();
    TANDEM_CO_TRY(after);
    if (random.chance(1, 3)) w.keep();
  }
  co_return ok();
}

TEST(MapDiff, FindsWhatDiffersWhateverCheckpointsDo) {
  std::size_t differences = 0, grown = 0;
  for (std::uint64_t seed = 1; seed <= 9; ++seed) {
    SCOPED_TRACE(seed);
    MapWorld w(seed);
    w.tree.height = static_cast<std::uint32_t>(1 + seed % 3);
    w.on_disk = w.tree;
    w.keep();  // of nothing
    const Status done = w.world.run(compared_life(w, 1 + seed % 4));
    ASSERT_TRUE(done.has_value()) << done.error().message;
    differences += w.differences;
    grown += w.kept->height != w.tree.height ? 1 : 0;
  }
  EXPECT_GT(differences, 5000u);
  EXPECT_GE(grown, 1u);
}

Task<Status> fill_leaves(MapWorld& w, std::uint64_t leaves);

TEST(MapDiff, ReadsOnlyWhatDiffers) {
  MapWorld w(1, 8);
  w.tree.height = 3;
  ASSERT_TRUE(w.world.run(fill_leaves(w, 600)).has_value());
  w.keep();
  w.lsn = w.lsn.next();
  ASSERT_TRUE(w.world.run(w.set(300 * format::kMapFanout, {PoolBlock{9}, w.lsn, 1})).has_value());
  ASSERT_TRUE(w.world.run(w.checkpoint(0)).has_value());
  w.cache.drop_volume(w.tree);
  const auto misses = w.cache.misses();
  MapDiff diff(w.cache, *w.kept, w.tree);
  const auto runs = w.world.run(diff.run(0, w.blocks_max() * kBlockBytes, 100));
  ASSERT_TRUE(runs.has_value());
  ASSERT_EQ(runs->size(), 3u);
  EXPECT_EQ((*runs)[1], (ChangeExtent{kBlockBytes, true}));
  EXPECT_EQ(w.cache.misses() - misses, 6u);  // of each tree the path to the leaf
}

/// What a full copy or a compaction does: other places, the same records.
TEST(MapDiff, ABlockThatOnlyMovedIsTheSame) {
  MapWorld w(2);
  ASSERT_TRUE(w.world.run(w.set(5, {PoolBlock{50}, Lsn{1}, 9})).has_value());
  ASSERT_TRUE(w.world.run(w.set(6, {PoolBlock{51}, Lsn{2}, 9})).has_value());
  ASSERT_TRUE(w.world.run(w.set(7, {PoolBlock{52}, Lsn{3}, 9})).has_value());
  ASSERT_TRUE(w.world.run(w.checkpoint(0)).has_value());
  w.keep();
  ASSERT_TRUE(w.world.run(w.set(5, {PoolBlock{70}, Lsn{1}, 9})).has_value());
  ASSERT_TRUE(w.world.run(w.set(6, {PoolBlock{71}, Lsn{4}, 9})).has_value());  // same bytes, again
  ASSERT_TRUE(w.world.run(w.set(7, {PoolBlock{72}, Lsn{3}, 8})).has_value());  // another timeline's
  MapDiff diff(w.cache, *w.kept, w.tree);
  const auto runs = w.world.run(diff.run(0, 256 * kBlockBytes, 100));
  ASSERT_TRUE(runs.has_value());
  const std::vector<ChangeExtent> wanted{
      {6 * kBlockBytes, false}, {2 * kBlockBytes, true}, {248 * kBlockBytes, false}};
  EXPECT_EQ(*runs, wanted);
}

TEST(MapCache, MapFarLargerThanTheCacheIsReadBack) {
  MapWorld w(1, 8);
  w.tree.height = 2;
  ASSERT_TRUE(w.world.run(fill_leaves(w, 200)).has_value());
  w.cache.drop_volume(w.tree);
  const auto misses = w.cache.misses();
  ASSERT_TRUE(w.world.run(w.expect_live()).has_value());
  EXPECT_GE(w.cache.misses() - misses, 190u);
  EXPECT_LE(w.cache.resident_nodes(), 8u);
}

TEST(MapCache, CopiesOfFrozenLeavesCountToo) {
  constexpr std::size_t kCopies = 10;
  MapWorld w(4, 32);
  w.tree.height = 2;
  ASSERT_TRUE(w.world.run(fill_leaves(w, 40)).has_value());
  w.cache.drop_volume(w.tree);
  const auto change_some = [&w](Lsn lsn) {
    for (std::uint64_t leaf = 0; leaf < kCopies; ++leaf) {
      const auto block = leaf * format::kMapFanout;
      ASSERT_TRUE(w.world.run(w.set(block, {PoolBlock{9}, lsn, 1})).has_value());
    }
  };
  change_some(Lsn{1000});
  auto frozen = w.cache.freeze(w.tree.group_slot);
  EXPECT_EQ(frozen.size(), kCopies);
  change_some(Lsn{1001});
  for (std::uint64_t leaf = 20; leaf < 40; ++leaf)
    ASSERT_TRUE(w.world.run(w.cache.load(w.tree, 0, leaf, false)).has_value());
  EXPECT_LE(w.cache.resident_nodes(), w.cache.capacity_nodes() - kCopies);
  frozen.clear();
  w.cache.drop_volume(w.tree);
}

TEST(MapCache, GrowingKeepsWhatIsThere) {
  MapWorld w(2);
  ASSERT_TRUE(w.world.run(w.set(5, {PoolBlock{50}, Lsn{1}, 9})).has_value());
  ASSERT_TRUE(w.world.run(w.checkpoint(0)).has_value());
  w.cache.grow(w.tree, 4);
  EXPECT_EQ(w.tree.height, 4u);
  ASSERT_TRUE(w.world.run(w.expect_live()).has_value());
  ASSERT_TRUE(w.world.run(w.set(10'000'000, {PoolBlock{51}, Lsn{2}, 9})).has_value());
  ASSERT_TRUE(w.world.run(w.checkpoint(0)).has_value());
  EXPECT_EQ(w.on_disk.height, 4u);
  EXPECT_EQ(w.on_disk.root.lsn, Lsn{2});
  ASSERT_TRUE(w.world.run(w.expect_on_disk()).has_value());
}

Task<void> count_loads(MapWorld& w, std::uint64_t leaf, int* done) {
  auto loaded = co_await w.cache.load(w.tree, 0, leaf, false);
  EXPECT_TRUE(loaded && *loaded != nullptr);
  ++*done;
}

TEST(MapCache, ManyReadersOfOneNodeReadItOnce) {
  MapWorld w(3, 64);
  w.tree.height = 2;
  ASSERT_TRUE(w.world.run(fill_leaves(w, 4)).has_value());
  w.cache.drop_volume(w.tree);
  EXPECT_EQ(w.cache.resident_nodes(), 0u);
  const auto misses = w.cache.misses();
  int done = 0;
  for (int i = 0; i < 10; ++i) spawn(count_loads(w, 2, &done));
  ASSERT_TRUE(w.world.run_until([&] { return done == 10; }));
  EXPECT_EQ(w.cache.misses() - misses, 2u);  // the root and the leaf
}

TEST(MapCache, EmptiedNodesLeaveNothingOnDisk) {
  MapWorld w(4);
  w.tree.height = 2;
  ASSERT_TRUE(w.world.run(fill_leaves(w, 3)).has_value());
  for (std::uint64_t leaf = 0; leaf < 3; ++leaf) {
    ASSERT_TRUE(w.world.run(w.set(leaf * format::kMapFanout, MapEntry{})).has_value());
  }
  ASSERT_TRUE(w.world.run(w.checkpoint(0)).has_value());
  EXPECT_TRUE(w.tree.root.is_hole());
}

TEST(MapCache, DamageIsNamedAndDoesNotSpread) {
  MapWorld w(5);
  w.tree.height = 2;
  ASSERT_TRUE(w.world.run(fill_leaves(w, 2)).has_value());
  auto root = w.world.run(w.cache.load(w.tree, 1, 0, false));
  ASSERT_TRUE(root.has_value());
  const PoolBlock where = (*root)->entry(1).where;
  root->reset();
  w.cache.drop_volume(w.tree);
  w.disk.corrupt(where.value * kBlockBytes, 512);
  const auto bad = w.world.run(w.cache.load(w.tree, 0, 1, false));
  ASSERT_FALSE(bad.has_value());
  EXPECT_EQ(bad.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(bad.error().message.find(std::to_string(where.value)), std::string::npos)
      << bad.error().message;
  const auto good = w.world.run(w.cache.load(w.tree, 0, 0, false));
  EXPECT_TRUE(good.has_value());
  w.disk.set_error_rate(IoRequest::Kind::kRead, 1, 1, 5);
  w.cache.drop_volume(w.tree);
  const auto unreadable = w.world.run(w.cache.load(w.tree, 0, 0, false));
  ASSERT_FALSE(unreadable.has_value());
  EXPECT_EQ(unreadable.error().code, ErrorCode::kIo);
}

TEST(MapCache, DroppingAGroupForgetsDirtyNodesToo) {
  MapWorld w(6);
  w.tree.height = 2;
  ASSERT_TRUE(w.world.run(fill_leaves(w, 2)).has_value());
  ASSERT_TRUE(w.world.run(w.set(3, {PoolBlock{77}, Lsn{9}, 1})).has_value());
  EXPECT_EQ(w.cache.dirty_leaves(3), 1u);
  w.cache.drop_group(3);
  EXPECT_EQ(w.cache.dirty_leaves(3), 0u);
  EXPECT_EQ(w.cache.resident_nodes(), 0u);
  EXPECT_TRUE(w.cache.freeze(3).empty());
}

}  // namespace
}  // namespace tandem::store
