// What a volume says of its allocation against a plain set of written blocks: for any range and any
// number of extents the answer covers a prefix, is right, and brings a reader to the end; of sparse
// volumes too, in which hundreds of written leaves lie behind a hole.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

constexpr std::uint64_t kLeafBlocks = 256;

class SparseVolume {
 public:
  explicit SparseVolume(std::uint64_t seed)
      : random_(seed * 977),
        shape_(StoreShape::from_seed(random_.fork())),
        world_(seed),
        node_(world_, StoreNode::formatted(big(shape_), seed), shape_, seed) {}

  static StoreShape& big(StoreShape& shape) {
    shape.disk_bytes = 48 << 20;
    return shape;
  }

  void run() {
    ASSERT_TRUE(world_.run(node_.start()).has_value());
    auto made =
        world_.run(node_.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
    ASSERT_TRUE(made.has_value());
    store::Group& group = **made;
    group.serve(true);
    ASSERT_TRUE(world_.run(group.create_volume("v", kBlocks * kBlockBytes, 4096)));
    auto volume = group.open_volume("v");
    ASSERT_TRUE(volume.has_value());
    ask(**volume);  // nothing there yet
    // A hole at both ends; between them a few hundred leaves with one run each, and gaps.
    for (std::uint64_t leaf = 300; leaf < 1100; ++leaf) {
      if (random_.chance(1, 3)) continue;
      const auto first = leaf * kLeafBlocks + random_.below(kLeafBlocks - 3);
      ASSERT_TRUE(world_.run(write(**volume, first, 1 + random_.below(3))));
    }
    ask(**volume);
    ASSERT_TRUE(world_.run(group.create_snapshot({.name = "s", .label = ""})).has_value());
    ASSERT_TRUE(world_.run(group.checkpoint()));
    ask(**volume);
    auto kept = group.open_snapshot("s", "v");
    ASSERT_TRUE(kept.has_value());
    ask(**kept);
    world_.run(node_.stop());
  }

  std::size_t holes_only() const { return holes_only_; }

 private:
  static constexpr std::uint64_t kBlocks = 1400 * kLeafBlocks;

  Task<Status> write(Volume& volume, std::uint64_t first, std::uint64_t count) {
    for (auto block = first; block < first + count; ++block) written_.insert(block);
    IoBuffer data = IoBuffer::on_heap(count * kBlockBytes);
    std::memset(data.data(), 7, data.size());
    co_return co_await volume.write(first * kBlockBytes, std::move(data), {});
  }

  void ask(Volume& volume) {
    constexpr std::uint64_t kSize = kBlocks * kBlockBytes;
    constexpr std::size_t kNumbers[] = {1, 2, 7, 1000, 100'000};
    for (int i = 0; i < 40; ++i) {
      const auto offset = random_.below(kSize);
      const auto length = 1 + random_.below(random_.chance(1, 2) ? kSize - offset : 64 << 20);
      ask(volume, offset, std::min(length, kSize - offset), kNumbers[random_.below(5)]);
    }
    std::size_t questions = 0;
    for (std::uint64_t at = 0; at < kSize; ++questions)
      at += ask(volume, at, kSize - at, kNumbers[3]);
    EXPECT_LT(questions, 20u);
  }

  /// How far the answer reaches.
  std::uint64_t ask(Volume& volume, std::uint64_t offset, std::uint64_t length,
                    std::size_t extents_max) {
    const auto extents = world_.run(volume.allocation(offset, length, extents_max));
    EXPECT_TRUE(extents.has_value() && !extents->empty()) << offset << "+" << length;
    if (!extents || extents->empty()) return length;
    EXPECT_LE(extents->size(), extents_max);
    auto at = offset;
    for (std::size_t i = 0; i < extents->size(); ++i) {
      const auto& extent = (*extents)[i];
      EXPECT_GT(extent.length_bytes, 0u);
      EXPECT_EQ(extent.hole, extent.zero);
      EXPECT_TRUE(i == 0 || extent.hole != (*extents)[i - 1].hole);
      check(at, at + extent.length_bytes, extent.hole);
      at += extent.length_bytes;
    }
    EXPECT_LE(at, offset + length);
    holes_only_ += extents->size() == 1 && extents->front().hole && at == offset + length ? 1 : 0;
    return at - offset;
  }

  void check(std::uint64_t from, std::uint64_t to, bool hole) {
    const auto first = from / kBlockBytes, last = (to - 1) / kBlockBytes;
    const auto there = std::distance(written_.lower_bound(first), written_.upper_bound(last));
    EXPECT_EQ(there, hole ? 0 : static_cast<std::ptrdiff_t>(last - first + 1))
        << from << " to " << to;
  }

  SimRandom random_;
  StoreShape shape_;
  SimRuntime world_;
  StoreNode node_;
  std::set<std::uint64_t> written_;
  std::size_t holes_only_ = 0;
};

TEST(Allocation, OfSparseVolumes) {
  std::size_t holes_only = 0;
  for (const std::uint64_t seed : seeds_to_run(701, 6)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    SparseVolume volume(seed);
    volume.run();
    holes_only += volume.holes_only();
  }
  // Ranges in the hole in front of it all, the case that was wrong once.
  EXPECT_GT(holes_only, 20u);
}

}  // namespace
}  // namespace tandem::sim
