// SpaceMap and DeadList against plain models.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "store/dead_list.h"
#include "store/space_map.h"
#include "tests/support/sim_disk.h"

namespace tandem::store {
namespace {

/// Zones of 24,576 blocks lie across the pages of the bitmap, which hold 32,768.
format::Superblock geometry(std::uint32_t zone_blocks = 24576, std::uint32_t zones = 16) {
  format::Superblock s;
  s.zone_blocks = zone_blocks;
  s.zones = zones;
  s.blocks = std::uint64_t{zone_blocks} * zones;
  return s;
}

enum class State : std::uint8_t { kForeign, kFree, kUsed, kHeld };

struct SpaceWorld {
  explicit SpaceWorld(std::uint64_t seed) : random(seed), shape(geometry()), space(shape) {
    model.assign(shape.blocks, State::kForeign);
    persisted.assign(pages(), std::vector<std::byte>(kBlockBytes));
  }
  std::uint32_t pages() const { return SpaceMap::page_of(PoolBlock{shape.blocks - 1}) + 1; }
  std::uint64_t count(State s) const {
    return static_cast<std::uint64_t>(std::count(model.begin(), model.end(), s));
  }
  std::uint64_t zone_base(ZoneId z) const { return shape.zone_start(z).value; }

  void add_zone() {
    const ZoneId z{static_cast<std::uint32_t>(1 + random.below(shape.zones - 1))};
    if (space.owns(z)) return;
    space.add_zone(z);
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(zone_base(z)), shape.zone_blocks,
                State::kFree);
  }
  void close_or_open_a_zone() {
    const auto uses = space.zone_uses();
    if (uses.empty()) return;
    const auto& use = uses[random.below(uses.size())];
    ASSERT_EQ(use.closed, closed.count(use.zone) != 0);
    if (use.closed) {
      space.open_zone(use.zone);
      closed.erase(use.zone);
    } else {
      space.close_zone(use.zone);
      closed.insert(use.zone);
    }
  }
  /// Free, in zones that are open, or in those that are not.
  std::uint64_t count_free(bool in_closed) const {
    std::uint64_t n = 0;
    for (std::uint64_t block = 0; block < model.size(); ++block) {
      const bool is_closed = closed.count(shape.zone_of(PoolBlock{block})) != 0;
      n += model[block] == State::kFree && is_closed == in_closed ? 1 : 0;
    }
    return n;
  }
  void give_up_empty_zone() {
    const auto empty = space.empty_zones();
    if (empty.empty()) return;
    const ZoneId z = empty[random.below(empty.size())];
    for (std::uint32_t i = 0; i < shape.zone_blocks; ++i) {
      ASSERT_EQ(model[zone_base(z) + i], State::kFree);
      model[zone_base(z) + i] = State::kForeign;
    }
    space.remove_zone(z);
    closed.erase(z);
  }
  void allocate() {
    const auto wanted =
        static_cast<std::uint32_t>(1 + random.below(random.chance(1, 4) ? 6000 : 40));
    const auto run = space.allocate(wanted);
    if (!run) {
      ASSERT_EQ(count_free(false), 0u);
      return;
    }
    ASSERT_GE(run->count, 1u);
    ASSERT_LE(run->count, wanted);
    ASSERT_EQ(closed.count(shape.zone_of(run->start)), 0u);
    ASSERT_EQ(shape.zone_of(run->start),
              shape.zone_of(PoolBlock{run->start.value + run->count - 1}));
    for (std::uint32_t i = 0; i < run->count; ++i) {
      ASSERT_EQ(model[run->start.value + i], State::kFree) << run->start.value + i;
      model[run->start.value + i] = State::kUsed;
    }
    if (random.chance(1, 5)) {
      space.undo_allocate(*run);
      std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(run->start.value), run->count,
                  State::kFree);
    } else {
      runs.push_back(*run);
    }
  }
  /// A whole run, or one block of it, dies.
  void release() {
    if (runs.empty()) return;
    std::swap(runs[random.below(runs.size())], runs.back());
    auto& run = runs.back();
    const bool whole = random.chance(1, 2);
    while (run.count != 0) {
      --run.count;
      const PoolBlock block{run.start.value + run.count};
      space.release(block);
      model[block.value] = State::kHeld;
      if (!whole) break;
    }
    if (run.count == 0) runs.pop_back();
  }
  void commit() {
    space.commit_released();
    std::replace(model.begin(), model.end(), State::kHeld, State::kFree);
  }
  std::vector<std::byte> page_of_model(std::uint32_t index, const std::vector<State>& from) const {
    std::vector<std::byte> bits(kBlockBytes);
    const std::uint64_t base = std::uint64_t{index} * format::kBitsPerBitmapPage;
    for (std::uint64_t i = 0; i < format::kBitsPerBitmapPage && base + i < from.size(); ++i) {
      if (from[base + i] == State::kUsed) bits[i / 8] |= static_cast<std::byte>(1u << (i % 8));
    }
    return bits;
  }
  /// Changes go on between the freeze and the writing of its pages.
  void checkpoint() {
    const auto at_freeze = model;
    const auto dirty = space.freeze();
    for (auto n = random.below(20); n-- != 0;) random.chance(1, 2) ? allocate() : release();
    for (auto index : dirty) space.frozen_page(index, persisted[index]);
    for (std::uint32_t index = 0; index < pages(); ++index) {
      ASSERT_EQ(persisted[index], page_of_model(index, at_freeze)) << "page " << index;
    }
    space.thaw();
  }
  void expect_counts() const {
    ASSERT_EQ(space.free_blocks(), count_free(false));
    ASSERT_EQ(space.closed_blocks(), count_free(true));
    ASSERT_EQ(space.used_blocks(), count(State::kUsed));
    ASSERT_EQ(space.held_blocks(), count(State::kHeld));
  }

  sim::SimRandom random;
  format::Superblock shape;
  SpaceMap space;
  std::vector<State> model;
  std::set<ZoneId> closed;
  std::vector<Extent> runs;
  std::vector<std::vector<std::byte>> persisted;
};

TEST(SpaceMap, BehavesAsASetOfBlocks) {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    SCOPED_TRACE(seed);
    SpaceWorld w(seed);
    for (int i = 0; i < 3; ++i) w.add_zone();
    for (int step = 0; step < 400; ++step) {
      switch (w.random.below(16)) {
        case 0:
          w.commit();
          break;
        case 1:
          w.checkpoint();
          break;
        case 2:
          w.random.chance(1, 3) ? w.add_zone() : w.give_up_empty_zone();
          break;
        case 3:
          w.close_or_open_a_zone();
          break;
        case 4:
        case 5:
        case 6:
        case 7:
          w.release();
          break;
        default:
          w.allocate();
          break;
      }
      ASSERT_FALSE(testing::Test::HasFatalFailure()) << "step " << step;
    }
    w.expect_counts();
  }
}

TEST(SpaceMap, PagesLoadedAnewGiveTheSameState) {
  SpaceWorld w(42);
  for (int i = 0; i < 6; ++i) w.add_zone();
  for (int i = 0; i < 300; ++i) w.random.chance(2, 3) ? w.allocate() : w.release();
  w.checkpoint();
  SpaceMap again(w.shape);
  for (ZoneId z{1}; z.value < w.shape.zones; z = z.next()) {
    if (w.space.owns(z)) again.add_zone(z);
  }
  std::uint64_t used = 0;
  for (std::uint32_t index = 0; index < w.pages(); ++index) {
    ASSERT_TRUE(again.load_page(index, w.persisted[index]));
    for (auto byte : w.persisted[index]) used += std::popcount(std::to_integer<unsigned>(byte));
  }
  EXPECT_EQ(again.used_blocks(), used);
  EXPECT_EQ(again.free_blocks(), again.zone_count() * w.shape.zone_blocks - used);
  again.forget_changes();
  EXPECT_TRUE(again.freeze().empty());
}

TEST(SpaceMap, RefusesPagesAndRunsOfOthers) {
  const auto shape = geometry(64, 8);
  SpaceMap space(shape);
  space.add_zone(ZoneId{2});
  std::vector<std::byte> bits(kBlockBytes);
  bits[128 / 8] = std::byte{1};  // the first block of zone 2
  EXPECT_TRUE(space.load_page(0, bits));
  EXPECT_TRUE(space.is_used(PoolBlock{128}));
  EXPECT_FALSE(space.load_page(0, bits));  // taken already
  bits[128 / 8] = std::byte{};
  bits[192 / 8] = std::byte{1};  // zone 3
  EXPECT_FALSE(space.load_page(0, bits));
  EXPECT_FALSE(space.mark_used({PoolBlock{128}, 1}));
  EXPECT_FALSE(space.mark_used({PoolBlock{191}, 2}));  // leaves the zone
  EXPECT_TRUE(space.mark_used({PoolBlock{130}, 3}));
  EXPECT_FALSE(space.is_used(PoolBlock{400}));
}

/// Lists on disk say what is released: a wrong one must not end the process, nor free anything.
TEST(SpaceMap, WhatIsReleasedTwiceIsAContradiction) {
  SpaceMap space(geometry(64, 4));
  space.add_zone(ZoneId{1});
  ASSERT_TRUE(space.allocate(8).has_value());
  space.release(PoolBlock{64});
  EXPECT_EQ(space.contradiction(), std::nullopt);
  space.release(PoolBlock{64});
  EXPECT_EQ(space.contradiction(), PoolBlock{64});
  space.release(PoolBlock{1 << 20});  // in nobody's zone
  EXPECT_EQ(space.contradiction(), PoolBlock{64}) << "the first one";
  EXPECT_EQ(space.used_blocks(), 7u);
  EXPECT_EQ(space.held_blocks(), 1u);
}

TEST(SpaceMap, HeldBlocksAreNotGivenAway) {
  SpaceMap space(geometry(64, 4));
  space.add_zone(ZoneId{1});
  const auto all = space.allocate(64);
  ASSERT_TRUE(all.has_value());
  EXPECT_EQ(all->count, 64u);
  space.release(PoolBlock{70});
  EXPECT_FALSE(space.allocate(1).has_value());
  EXPECT_TRUE(space.empty_zones().empty());
  space.commit_released();
  const auto again = space.allocate(8);
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(*again, (Extent{PoolBlock{70}, 1}));
}

TEST(SpaceMap, EveryPageOfALongExtentMustBeWrittenAgain) {
  SpaceMap space(geometry());
  // A checkpoint leaves out the blocks of an unfinished full copy, here three pages of them and a
  // bit of two more. A page that the next checkpoint did not write would call them free for good.
  const std::uint64_t page = format::kBitsPerBitmapPage;
  space.mark_dirty({PoolBlock{2 * page - 1}, static_cast<std::uint32_t>(3 * page + 2)});
  EXPECT_EQ(space.freeze(), (std::vector<std::uint32_t>{1, 2, 3, 4, 5}));
}

/// `zones` of 64 blocks each, full but for every `n`th block.
SpaceMap with_holes(std::uint32_t zones, std::uint32_t n) {
  SpaceMap space(geometry(64, 32));
  for (std::uint32_t z = 1; z <= zones; ++z) {
    space.add_zone(ZoneId{z});
    for (std::uint32_t i = 0; i < 64; ++i) {
      if (i % n == 0) continue;
      EXPECT_TRUE(space.mark_used({PoolBlock{64 * z + i}, 1}));
    }
  }
  return space;
}

TEST(SpaceMap, SmallWritesFillHolesAndLongOnesGetZonesWithoutAny) {
  auto space = with_holes(8, 2);
  for (std::uint32_t z = 9; z <= 10; ++z) space.add_zone(ZoneId{z});
  for (int i = 0; i < 100; ++i) {
    const auto small = space.allocate(1);
    ASSERT_TRUE(small.has_value());
    EXPECT_LT(small->start.value, 64u * 9) << i;
  }
  const auto whole = space.allocate(64);
  ASSERT_TRUE(whole.has_value());
  EXPECT_EQ(whole->count, 64u);
  EXPECT_GE(whole->start.value, 64u * 9);
  // The end of a long write stays with it.
  const auto most = space.allocate(40);
  const auto rest = space.allocate(8, 48);
  ASSERT_TRUE(most && rest);
  EXPECT_EQ(rest->start.value, most->start.value + most->count);
}

TEST(SpaceMap, LongWritesAskForZonesWithoutHolesAndTakeThemAtOnce) {
  auto space = with_holes(8, 4);
  EXPECT_FALSE(space.wants_clean_zones());
  ASSERT_TRUE(space.allocate(1).has_value());
  EXPECT_FALSE(space.wants_clean_zones());  // small writes do not
  const auto hole = space.allocate(32);
  ASSERT_TRUE(hole.has_value());
  EXPECT_EQ(hole->count, 1u);
  EXPECT_TRUE(space.wants_clean_zones());
  space.add_zone(ZoneId{20});
  space.add_zone(ZoneId{21});
  EXPECT_FALSE(space.wants_clean_zones());
  const auto whole = space.allocate(32);
  ASSERT_TRUE(whole.has_value());
  EXPECT_EQ(whole->count, 32u);
  EXPECT_TRUE(space.wants_clean_zones());
}

TEST(SpaceMap, SmallWritesTakeZonesWithoutHolesOnceManyAreLeft) {
  auto space = with_holes(8, 2);
  for (std::uint32_t z = 9; z <= 16; ++z) space.add_zone(ZoneId{z});
  std::set<std::uint64_t> clean;
  while (space.free_blocks() != 0) {
    const auto small = space.allocate(1);
    ASSERT_TRUE(small.has_value());
    if (small->start.value >= 64u * 9) {
      clean.insert(small->start.value / 64);
    } else if (clean.size() < 8) {
      EXPECT_GE(clean.size(), 6u);  // an eighth of sixteen is left, as long as others have holes
    }
  }
  EXPECT_EQ(clean.size(), 8u);
}

TEST(SpaceMap, FillsLongRunsFirst) {
  SpaceMap space(geometry(128, 8));
  for (std::uint32_t z = 1; z <= 3; ++z) space.add_zone(ZoneId{z});
  // Zone 1 becomes a comb with every second block in use, zone 2 and 3 stay empty.
  for (std::uint32_t i = 0; i < 128; i += 2) {
    ASSERT_TRUE(space.mark_used({PoolBlock{128 + i}, 1}));
  }
  ASSERT_TRUE(space.mark_used({PoolBlock{129}, 1}));  // now less than half of it is free
  const auto run = space.allocate(100);
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(run->count, 100u);
  EXPECT_NE(geometry(128, 8).zone_of(run->start), ZoneId{1});
}

// --- DeadList ------------------------------------------------------------------------------------

struct DeadWorld {
  explicit DeadWorld(std::uint64_t seed)
      : world(seed),
        disk(world, sim::SimImage(16 << 20), {.seed = seed}),
        space(geometry(1024, 4)),
        chunks_io(disk, space, Uuid{}),
        dead(std::make_unique<DeadList>(chunks_io)) {
    for (std::uint32_t z = 1; z < 4; ++z) space.add_zone(ZoneId{z});
  }
  /// `count` blocks that are in use die one after the other.
  void kill(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      const auto run = space.allocate(1);
      ASSERT_TRUE(run.has_value());
      if (world.random().chance(1, 2)) lsn = lsn.next();
      const DeadBlock block{run->start, Lsn{world.random().below(lsn.value + 1)}, lsn};
      dead->add(block);
      waiting[run->start] = lsn;
    }
  }
  /// A checkpoint; `meanwhile` more blocks die between its freeze and its settle.
  void settle(Lsn horizon, std::size_t meanwhile) {
    const auto due = waiting;
    dead->freeze();
    kill(meanwhile);
    std::vector<Extent> taken;
    std::vector<PoolBlock> released;
    auto queue = world.run(settled(horizon, taken, released));
    ASSERT_TRUE(queue.has_value()) << queue.error().message;
    for (const auto& run : taken) {
      for (std::uint32_t i = 0; i < run.count; ++i) {
        EXPECT_TRUE(chunks.insert(PoolBlock{run.start.value + i}).second);
        EXPECT_TRUE(space.is_used(PoolBlock{run.start.value + i}));
      }
    }
    for (auto block : released) {
      EXPECT_FALSE(space.is_used(block));
      if (chunks.erase(block) != 0) continue;
      const auto it = due.find(block);
      ASSERT_NE(it, due.end()) << "released, but not in the frozen list: " << block.value;
      EXPECT_LE(it->second, horizon);
      EXPECT_EQ(waiting.erase(block), 1u) << "released twice: " << block.value;
    }
    space.commit_released();
    EXPECT_EQ(dead->waiting(), waiting.size());
    EXPECT_EQ(chunks.size(), queue->chunks + (queue->tail.value != 0 ? 1 : 0));
    EXPECT_EQ(space.used_blocks(), waiting.size() + chunks.size());
    last = *queue;
  }
  /// Only what is on disk survives a restart; what died since dies again when the log is replayed.
  void restart() {
    dead = std::make_unique<DeadList>(chunks_io);
    dead->restore(last);
    EXPECT_EQ(dead->waiting(), last.entries);
  }

  /// As a checkpoint does it when no kept state holds anything.
  Task<Result<format::DeadChain>> settled(Lsn horizon, std::vector<Extent>& taken,
                                          std::vector<PoolBlock>& released) {
    std::vector<DeadBlock> wait;
    for (const auto& block : dead->take_frozen()) {
      if (block.death > horizon) {
        wait.push_back(block);
      } else {
        chunks_io.release(block.where, released);
      }
    }
    return dead->settle(horizon, std::move(wait), taken, released);
  }

  sim::SimRuntime world;
  sim::SimDisk disk;
  SpaceMap space;
  DeadChunks chunks_io;
  std::unique_ptr<DeadList> dead;
  std::map<PoolBlock, Lsn> waiting;
  std::set<PoolBlock> chunks;
  format::DeadChain last;
  Lsn lsn{1};
};

TEST(DeadList, ReleasesEachBlockOnceAndNeverTooEarly) {
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(seed);
    DeadWorld w(seed);
    Lsn horizon;
    for (int round = 0; round < 12; ++round) {
      w.kill(w.world.random().below(300));
      horizon = Lsn{w.world.random().between(horizon.value, w.lsn.value)};
      w.settle(horizon, w.world.random().below(20));
      ASSERT_FALSE(testing::Test::HasFailure());
      if (w.world.random().chance(1, 3)) {
        w.settle(horizon, 0);  // everything is in the chain now
        w.restart();
      }
    }
    w.settle(w.lsn, 0);
    w.settle(w.lsn, 0);
    EXPECT_TRUE(w.waiting.empty());
    EXPECT_LE(w.chunks.size(), 1u);  // the place reserved for the next chunk
  }
}

TEST(DeadList, WhatMayGoAtOnceNeverTouchesTheDisk) {
  DeadWorld w(1);
  w.kill(500);
  const auto writes = w.disk.counters().writes;
  w.settle(w.lsn, 0);
  EXPECT_EQ(w.disk.counters().writes, writes);
  EXPECT_TRUE(w.waiting.empty());
  EXPECT_TRUE(w.chunks.empty());
}

TEST(DeadList, ChunksThatMustStayStayWhole) {
  DeadWorld w(2);
  w.kill(450);
  const Lsn middle = w.lsn;
  w.settle(Lsn{}, 0);
  EXPECT_EQ(w.last.chunks, 3u);
  EXPECT_EQ(w.last.entries, 450u);
  w.lsn = w.lsn.next();
  w.kill(10);
  w.settle(middle, 0);
  EXPECT_EQ(w.last.chunks, 1u);
  EXPECT_EQ(w.last.entries, 10u);
}

TEST(DeadList, ADamagedChunkIsAnError) {
  DeadWorld w(3);
  w.kill(10);
  w.settle(Lsn{}, 0);
  w.disk.corrupt(w.last.head.value * kBlockBytes, 512);
  w.dead->freeze();
  std::vector<Extent> taken;
  std::vector<PoolBlock> released;
  const auto queue = w.world.run(w.dead->settle(w.lsn, {}, taken, released));
  ASSERT_FALSE(queue.has_value());
  EXPECT_EQ(queue.error().code, ErrorCode::kCorrupt);
  EXPECT_TRUE(released.empty());
}

}  // namespace
}  // namespace tandem::store
