// Free zones go back to what is below the pool, in time, but for a reserve; or they are prepared
// long before they are needed. No crash leaves a hole which the zone table takes for prepared.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "inspect/pool_view.h"
#include "tests/sim/store_node.h"
#include "tests/unit/inspect_fixture.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kBlocks = 2048;
constexpr std::size_t kReserve = 4;

class ReturnedSpace : public testing::Test {
 protected:
  ReturnedSpace()
      : shape_(shape()), world_(3), node_(world_, StoreNode::formatted(shape_, 3), shape_, 3) {
    CHECK(world_.run(node_.start()));
    CHECK(world_.run(
        node_.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync)));
    node_.group()->serve(true);
    make();
  }
  void TearDown() override {
    node_.disk().set_observer(nullptr);
    if (node_.is_open()) world_.run(node_.stop());
  }
  static StoreShape shape() {
    StoreShape shape;
    shape.disk_bytes = 24 << 20;
    shape.options.return_after = 10s;
    shape.options.return_reserve_zones = kReserve;
    return shape;
  }
  void make() { CHECK(world_.run(node_.group()->create_volume("v", kBlocks * kBlockBytes, 4096))); }
  void fill() {
    auto volume = node_.group()->open_volume("v");
    for (std::uint64_t at = 0; at < kBlocks; at += 64) {
      IoBuffer data = IoBuffer::on_heap(64 * kBlockBytes);
      std::memset(data.data(), static_cast<int>(1 + at % 200), data.size());
      ASSERT_TRUE(world_.run((*volume)->write(at * kBlockBytes, std::move(data), {})));
    }
  }
  void empty() {
    ASSERT_TRUE(world_.run(node_.group()->delete_volume("v")));
    world_.run_for(5s);
  }
  /// As control does, once a second.
  void pass(Nanoseconds time) {
    for (const auto end = world_.now() + time; world_.now() < end && !node_.disk().is_off();) {
      world_.run(node_.pool().return_free_zones());
      world_.run_for(1s);
    }
  }
  std::uint64_t discards() { return node_.disk().counters().discards; }

  StoreShape shape_;
  SimLog log_;
  SimRuntime world_;
  StoreNode node_;
};

TEST_F(ReturnedSpace, GoesBackAfterAWhileButForTheReserve) {
  fill();
  empty();
  const auto full = node_.pool().use();
  ASSERT_GT(full.zones_prepared, 20u);
  pass(3s);
  EXPECT_EQ(discards(), 0u) << "it may be wanted again soon";
  pass(30s);
  const auto use = node_.pool().use();
  EXPECT_EQ(use.zones_prepared, kReserve);
  EXPECT_EQ(use.zones_free, full.zones_free);
  EXPECT_EQ(discards(), full.zones_prepared - kReserve);
  EXPECT_EQ(still_unbalanced(world_, node_.pool()), "");
  pass(30s);
  EXPECT_EQ(discards(), full.zones_prepared - kReserve) << "once";
  // What is prepared is taken first; the rest is written anew.
  const auto zeroes = node_.disk().counters().zeroes;
  make();
  fill();
  EXPECT_GT(node_.disk().counters().zeroes, zeroes);
  const auto found = world_.run(node_.read_all());
  ASSERT_TRUE(found) << found.error().message;
}

TEST_F(ReturnedSpace, StaysWhenNobodyAskedForIt) {
  shape_.options.return_after.reset();
  world_.run(node_.stop());
  StoreNode other(world_, node_.disk().remains(), shape_, 4);
  ASSERT_TRUE(world_.run(other.start()));
  ASSERT_TRUE(world_.run(other.group()->delete_volume("v")));
  for (int i = 0; i < 100; ++i) {
    world_.run(other.pool().return_free_zones());
    world_.run_for(1s);
  }
  EXPECT_EQ(other.disk().counters().discards, 0u);
  world_.run(other.stop());
}

TEST_F(ReturnedSpace, IsNotPreparedOnDiskBeforeItIsAHole) {
  fill();
  empty();
  std::size_t looked = 0, wrong = 0;
  SimRandom random(1);
  node_.disk().set_observer([&](SimDisk::Moment moment, const IoRequest& request) {
    if (moment != SimDisk::Moment::kSubmitted || request.kind != IoRequest::Kind::kDiscard) return;
    // What the worst power cut would leave.
    const SimImage left = node_.disk().crash_image({.mode = CutOptions::Mode::kDropAll}, random);
    ImageReader reader(left);
    auto view = inspect::PoolView::load(reader);
    ASSERT_TRUE(view);
    const auto& s = view->superblock();
    const auto entry = view->zone(s.zone_of(PoolBlock{request.offset / kBlockBytes}));
    ASSERT_TRUE(entry);
    ++looked;
    wrong += entry->prepared || entry->owner != format::kZoneFree ? 1 : 0;
  });
  pass(30s);
  EXPECT_GT(looked, 20u);
  EXPECT_EQ(wrong, 0u);
}

TEST_F(ReturnedSpace, SurvivesACrashAtEveryMoment) {
  fill();
  empty();
  SimRandom random(2);
  pass(6s);
  ASSERT_EQ(discards(), 0u);
  std::vector<SimImage> images;
  node_.disk().set_observer([&](SimDisk::Moment, const IoRequest&) {
    if (images.size() < 60) images.push_back(node_.disk().crash_image({}, random));
  });
  pass(12s);
  node_.disk().set_observer(nullptr);
  ASSERT_GT(discards(), 20u);
  ASSERT_GT(images.size(), 20u);
  for (const auto& image : images) {
    SimRuntime world(random.next());
    StoreNode node(world, image, shape_, random.next());
    ASSERT_TRUE(world.run(node.start()));
    EXPECT_EQ(still_unbalanced(world, node.pool()), "");
    ASSERT_TRUE(world.run(node.group()->create_volume("w", kBlocks * kBlockBytes, 4096)));
    auto volume = node.group()->open_volume("w");
    for (std::uint64_t at = 0; at < kBlocks; at += 256) {
      IoBuffer data = IoBuffer::on_heap(256 * kBlockBytes);
      std::memset(data.data(), 7, data.size());
      ASSERT_TRUE(world.run((*volume)->write(at * kBlockBytes, std::move(data), {})));
    }
    ASSERT_TRUE(world.run(node.read_all()));
    world.run(node.stop());
  }
}

/// Writers and the return of zones at once: nobody is refused for a zone that is on its way.
TEST_F(ReturnedSpace, IsNoHindranceToWriters) {
  fill();
  empty();
  make();
  pass(9s);
  auto volume = node_.group()->open_volume("v");
  for (std::uint64_t at = 0; at < kBlocks; at += 64) {
    spawn(node_.pool().return_free_zones());
    IoBuffer data = IoBuffer::on_heap(64 * kBlockBytes);
    std::memset(data.data(), 9, data.size());
    ASSERT_TRUE(world_.run((*volume)->write(at * kBlockBytes, std::move(data), {})));
    world_.run_for(500ms);
  }
  EXPECT_GT(discards(), 0u);
  EXPECT_EQ(still_unbalanced(world_, node_.pool()), "");
  ASSERT_TRUE(world_.run(node_.read_all()));
}

/// Blocks that were overwritten are free again behind a checkpoint, which comes before they are
/// needed: nobody waits for it.
TEST(FreedSpace, IsThereBeforeWritersNeedIt) {
  StoreShape shape;
  shape.disk_bytes = 24 << 20;
  shape.options.flush_interval = 1h;
  SimLog log;
  SimRuntime world(9);
  StoreNode node(world, StoreNode::formatted(shape, 9), shape, 9);
  ASSERT_TRUE(world.run(node.start()));
  ASSERT_TRUE(
      world.run(node.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync)));
  node.group()->serve(true);
  ASSERT_TRUE(world.run(node.group()->create_volume("v", kBlocks * kBlockBytes, 4096)));
  auto volume = node.group()->open_volume("v");
  std::uint64_t least = node.pool().use().zones_free;
  for (std::uint64_t i = 0; i < 20 * kBlocks; i += 8) {
    IoBuffer data = IoBuffer::on_heap(8 * kBlockBytes);
    std::memset(data.data(), static_cast<int>(i % 251), data.size());
    ASSERT_TRUE(world.run((*volume)->write(i % kBlocks * kBlockBytes, std::move(data), {})));
    least = std::min(least, node.pool().use().zones_free);
  }
  EXPECT_GT(least, 5u) << "of " << node.pool().use().zones_total;
  EXPECT_EQ(still_unbalanced(world, node.pool()), "");
  volume->reset();
  world.run(node.stop());
}

class PreparedSpace : public testing::Test {
 protected:
  static StoreShape shape(bool all) {
    StoreShape shape;
    shape.disk_bytes = 24 << 20;
    shape.options.prepare_all = all;
    return shape;
  }
  static std::uint64_t unprepared(StoreNode& node) {
    const auto use = node.pool().use();
    return use.zones_free - use.zones_prepared;
  }
  void pass(StoreNode& node, int seconds) {
    for (int i = 0; i < seconds && !node.disk().is_off(); ++i) {
      world_.run(node.pool().prepare_free_zones());
      world_.run_for(1s);
    }
  }
  static Task<Status> fill(StoreNode& node) {
    auto made =
        co_await node.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync);
    if (!made) co_return Error(std::move(made.error()));
    (*made)->serve(true);
    Status created = co_await (*made)->create_volume("v", kBlocks * kBlockBytes, 4096);
    if (!created) co_return created;
    auto volume = (*made)->open_volume("v");
    for (std::uint64_t at = 0; at < kBlocks; at += 64) {
      IoBuffer data = IoBuffer::on_heap(64 * kBlockBytes);
      std::memset(data.data(), 7, data.size());
      Status written = co_await (*volume)->write(at * kBlockBytes, std::move(data), {});
      if (!written) co_return written;
    }
    co_return ok();
  }

  SimLog log_;
  SimRuntime world_{5};
};

TEST_F(PreparedSpace, NothingIsWrittenTwiceAfterwards) {
  for (const bool all : {false, true}) {
    StoreNode node(world_, StoreNode::formatted(shape(all), 5), shape(all), 5);
    ASSERT_TRUE(world_.run(node.start()));
    pass(node, 60);
    EXPECT_EQ(unprepared(node) == 0, all);
    const auto before = node.disk().counters().zeroes;
    EXPECT_EQ(before != 0, all);
    const Status filled = world_.run(fill(node));
    ASSERT_TRUE(filled) << filled.error().message;
    EXPECT_EQ(node.disk().counters().zeroes == before, all);
    EXPECT_EQ(still_unbalanced(world_, node.pool()), "");
    world_.run(node.stop());
  }
}

TEST_F(PreparedSpace, WritersGoOnMeanwhile) {
  StoreNode node(world_, StoreNode::formatted(shape(true), 6), shape(true), 6);
  ASSERT_TRUE(world_.run(node.start()));
  spawn(node.pool().prepare_free_zones());
  const Status filled = world_.run(fill(node));
  ASSERT_TRUE(filled) << filled.error().message;
  pass(node, 60);
  EXPECT_EQ(unprepared(node), 0u);
  EXPECT_EQ(still_unbalanced(world_, node.pool()), "");
  ASSERT_TRUE(world_.run(node.read_all()));
  world_.run(node.stop());
}

TEST_F(PreparedSpace, IsDurableBeforeTheTableSaysSo) {
  StoreNode node(world_, StoreNode::formatted(shape(true), 7), shape(true), 7);
  ASSERT_TRUE(world_.run(node.start()));
  SimRandom random(3);
  std::set<std::uint32_t> written, flushed, durable;
  std::size_t looked = 0;
  const auto zone_blocks = shape(true).zone_bytes / kBlockBytes;
  node.disk().set_observer([&](SimDisk::Moment moment, const IoRequest& request) {
    const bool completed = moment == SimDisk::Moment::kCompleted;
    if (request.kind == IoRequest::Kind::kZero && completed)
      written.insert(static_cast<std::uint32_t>(request.offset / kBlockBytes / zone_blocks));
    if (request.kind == IoRequest::Kind::kFlush)
      (completed ? durable : flushed) = completed ? flushed : written;
    // The table as the luckiest power cut would leave it.
    const SimImage left = node.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random);
    ImageReader reader(left);
    auto view = inspect::PoolView::load(reader);
    ASSERT_TRUE(view);
    const auto& s = view->superblock();
    for (std::uint32_t z = s.first_zone().value; z < s.zones; ++z) {
      const auto entry = view->zone(ZoneId{z});
      if (!entry || !entry->prepared) continue;
      ++looked;
      EXPECT_TRUE(durable.contains(z)) << "zone " << z;
    }
  });
  pass(node, 60);
  node.disk().set_observer(nullptr);
  EXPECT_GT(looked, 20u);
  world_.run(node.stop());
}

TEST_F(PreparedSpace, AFailureLeavesItToTheWriters) {
  for (const int error : {EIO, ENOSPC}) {
    StoreNode node(world_, StoreNode::formatted(shape(true), 8), shape(true), 8);
    ASSERT_TRUE(world_.run(node.start()));
    const auto zones = node.pool().use().zones_free;
    node.disk().inject({.kind = IoRequest::Kind::kZero, .nth = 3, .error = error});
    pass(node, 10);
    EXPECT_EQ(node.pool().use().zones_free, zones);
    EXPECT_EQ(unprepared(node), zones);
    // What the filesystem below did take of them is its own again.
    EXPECT_EQ(node.disk().counters().discards != 0, error == ENOSPC);
    EXPECT_TRUE(world_.run(fill(node)));
    EXPECT_TRUE(world_.run(node.read_all()));
    world_.run(node.stop());
  }
}

}  // namespace
}  // namespace tandem::sim
