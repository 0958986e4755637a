// Maps that are not in memory. Writers that dirty a leaf of the map with every write, faster than a
// slow disk takes checkpoints: memory for maps stays near its bound, and what waits is written all
// the same. A mirror that needs many leaves reads them side by side.
#include <gtest/gtest.h>

#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

constexpr std::uint64_t kBlocks = 1 << 26;  // so that every write has a leaf of its own
constexpr std::size_t kCacheNodes = 256;
constexpr std::size_t kWriters = 64, kWritesEach = 190;

Task<void> write_at_random(Volume& volume, SimRandom random, std::size_t& done, Gate& gate) {
  const Gate::Holder hold(gate);
  for (std::size_t i = 0; i < kWritesEach; ++i) {
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    std::memset(data.data(), static_cast<int>(i + 1), data.size());
    const Status written =
        co_await volume.write(random.below(kBlocks) * kBlockBytes, std::move(data), {});
    if (written) ++done;
  }
}

TEST(MapMemory, IsBoundedHoweverFastWritersAre) {
  for (const std::uint64_t seed : seeds_to_run(1, 3)) {
    SCOPED_TRACE(seed);
    SimLog log;
    SimRandom random(seed);
    StoreShape shape = StoreShape::from_seed(random.fork());
    shape.disk_bytes = 192 << 20;
    shape.zone_bytes = 1 << 20;
    shape.latency_max = std::chrono::milliseconds(5);
    shape.options.map_cache_bytes = kCacheNodes * store::MapCache::kNodeBytes;
    shape.options.pages_in_flight_max = 4;
    shape.options.checkpoint_log_pages = 1 << 20;  // the map alone asks for checkpoints
    SimRuntime world(seed);
    StoreNode node(world, StoreNode::formatted(shape, seed), shape, seed);
    ASSERT_TRUE(world.run(node.start()));
    auto made =
        world.run(node.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
    ASSERT_TRUE(made);
    (*made)->serve(true);
    ASSERT_TRUE(world.run((*made)->create_volume("v", kBlocks * kBlockBytes, 4096)));
    auto volume = (*made)->open_volume("v");
    ASSERT_TRUE(volume);
    std::size_t most = 0, done = 0, seen_waiting = 0;
    node.disk().set_observer([&](SimDisk::Moment, const IoRequest&) {
      most = std::max(most, node.pool().cache().resident_nodes());
      const auto waiting = (*made)->waiting();
      if (!waiting || waiting->what != store::Group::Waiting::For::kMemory) return;
      seen_waiting += world.monotonic() - waiting->since >= std::chrono::seconds(1) ? 1 : 0;
    });
    node.disk().inject({.kind = IoRequest::Kind::kFlush,
                        .effect = DiskFault::Effect::kStall,
                        .sticky = true,
                        .stall = std::chrono::seconds(2)});
    Gate gate;
    for (std::size_t i = 0; i < kWriters; ++i)
      spawn(write_at_random(**volume, random.fork(), done, gate));
    world.run(gate.close());
    node.disk().set_observer(nullptr);
    EXPECT_EQ(done, kWriters * kWritesEach) << log.text();
    EXPECT_GT(seen_waiting, 0u) << "nobody would be told why the writers wait";
    EXPECT_FALSE((*made)->waiting().has_value());
    EXPECT_GE(most, node.pool().cache().capacity_nodes()) << "the bound was never reached";
    EXPECT_LT(most, 3 * kCacheNodes) << "what is on its way needs its leaves, too";
    volume->reset();
    world.run(node.stop());
  }
}

constexpr std::uint64_t kLeaves = 64, kLeafBlocks = 256;

Status write_to_each_leaf(SimRuntime& world, store::Group& group) {
  auto volume = group.open_volume("v");
  if (!volume) return volume.error();
  Status status = ok();
  for (std::uint64_t leaf = 0; leaf < kLeaves && status; ++leaf) {
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    std::memset(data.data(), 1, data.size());
    status = world.run((*volume)->write(leaf * kLeafBlocks * kBlockBytes, std::move(data), {}));
  }
  return status;
}

TEST(MapMemory, AMirrorReadsTheLeavesOfABatchSideBySide) {
  SimLog log;
  StoreShape shape;
  shape.latency_max = SimDisk::Options{}.latency_min;  // each request takes the same
  SimRuntime world(1);
  StoreNode source(world, StoreNode::formatted(shape, 1), shape, 1);
  auto target = std::make_unique<StoreNode>(world, StoreNode::formatted(shape, 2), shape, 2);
  ASSERT_TRUE(world.run(source.start()));
  ASSERT_TRUE(world.run(target->open()));
  ASSERT_TRUE(make_mirrored_group(world, source, *target));
  store::Group& primary = *source.group();
  primary.set_log_hold(Lsn{0});
  ASSERT_TRUE(world.run(primary.create_volume("v", kBlocks * kBlockBytes, 4096)));
  ASSERT_TRUE(write_to_each_leaf(world, primary));
  ASSERT_TRUE(follow(world, primary, *target->group()));
  world.run(target->stop());
  const SimImage left = target->disk().remains();
  target = std::make_unique<StoreNode>(world, left, shape, 3);
  ASSERT_TRUE(world.run(target->open()));

  ASSERT_TRUE(write_to_each_leaf(world, primary));
  auto batch = world.run(primary.read_after(target->group()->tail().lsn, 1 << 20));
  ASSERT_TRUE(batch && batch->last == primary.head().lsn);
  const auto reads = target->disk().counters().reads;
  const auto before = world.now();
  ASSERT_TRUE(world.run(target->group()->apply(std::move(*batch))));
  EXPECT_GE(target->disk().counters().reads - reads, kLeaves);
  // One after the other they alone would take longer than all of it may.
  EXPECT_LE(world.now() - before, kLeaves / 2 * shape.latency_max);
  world.run(source.stop());
  world.run(target->stop());
}

}  // namespace
}  // namespace tandem::sim
