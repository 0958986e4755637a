// Compaction that a node begins by itself, and what an operator is told: only where another group
// can have what comes back.
#include <gtest/gtest.h>

#include "tests/sim/stamped_volume.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kVolumeBlocks = 2048;

class CompactionControl : public testing::Test {
 protected:
  CompactionControl() : world_(5, shape()) { CHECK(node().start()); }
  static StoreShape shape() {
    StoreShape shape;
    shape.disk_bytes = 8 << 20;
    shape.options.map_cache_bytes = 64 * kBlockBytes;
    return shape;
  }
  PairNode& node() { return world_.primary(); }
  template <class T>
  T run(Task<T> task) {
    return world_.runtime().run(std::move(task));
  }
  void make(const std::string& name) {
    CreateVolume request{name, name, kVolumeBlocks * kBlockBytes, 4096};
    ASSERT_TRUE(run(node().control().create_volume(request)));
  }
  bool write(const std::string& name, std::uint64_t block, std::size_t blocks) {
    auto volume = node().open_volume(name);
    if (!volume) return false;
    IoBuffer data = IoBuffer::on_heap(blocks * kBlockBytes);
    for (std::size_t i = 0; i < data.size(); i += 4) {
      const auto stamp = static_cast<std::uint32_t>(block + i / kBlockBytes + 1);
      std::memcpy(data.data() + i, &stamp, 4);
    }
    return run((*volume)->write(block * kBlockBytes, std::move(data), {})).has_value();
  }
  /// Until nothing fits any more. How many blocks there are then.
  std::uint64_t fill(const std::string& name, std::uint64_t from = 0) {
    while (from + 8 <= kVolumeBlocks && write(name, from, 8)) from += 8;
    return from;
  }
  /// Of each three blocks, one stays.
  void thin_out(const std::string& name, std::uint64_t blocks) {
    auto volume = node().open_volume(name);
    ASSERT_TRUE(volume);
    for (std::uint64_t at = 0; at < blocks; ++at) {
      if (at % 3 == 0) continue;
      ASSERT_TRUE(run((*volume)->discard(at * kBlockBytes, kBlockBytes, {})));
    }
    ASSERT_TRUE(run(node().control().set_mode(name, ReplicationMode::kAsync)));  // a checkpoint
  }
  void expect_thinned(const std::string& name, std::uint64_t blocks) {
    auto volume = node().open_volume(name);
    ASSERT_TRUE(volume);
    for (std::uint64_t at = 0; at < blocks; ++at) {
      auto data = run((*volume)->read(at * kBlockBytes, kBlockBytes));
      ASSERT_TRUE(data) << data.error().message;
      std::uint32_t stamp = 0;
      std::memcpy(&stamp, data->data() + 512, 4);
      ASSERT_EQ(stamp, at % 3 == 0 ? at + 1 : 0) << "block " << at;
    }
  }
  CompactionStatus compaction(const std::string& name) {
    for (const auto& group : run(node().control().status()).groups) {
      if (group.name == name) return group.compaction;
    }
    return {};
  }

  SimLog log_;
  PairWorld world_;
};

TEST_F(CompactionControl, BeginsByItselfForAnotherGroup) {
  make("a");
  make("b");
  const auto a = fill("a");
  thin_out("a", a);
  auto b = fill("b");  // it has one zone of data until more come back
  ASSERT_TRUE(world_.until([&] { return compaction("a").zones_emptied != 0; }, 120s))
      << compaction("a").outcome;
  ASSERT_TRUE(world_.until([&] { return compaction("a").state != "running"; }, 120s));
  EXPECT_TRUE(compaction("a").by_itself);
  b = fill("b", b);
  EXPECT_GE(b, 5 * 64u);
  expect_thinned("a", a);
  // Not again at once: nothing was written to it.
  const auto started = compaction("a").started;
  world_.runtime().run_for(30min);
  EXPECT_EQ(compaction("a").started, started);
}

TEST_F(CompactionControl, DoesNothingInAPoolOfOneGroup) {
  make("a");
  const auto a = fill("a");
  thin_out("a", a);
  world_.runtime().run_for(10min);
  EXPECT_EQ(compaction("a").state, "never");
  // But it does what it is told.
  const auto none = run(node().control().start_compaction("none"));
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  EXPECT_EQ(run(node().control().stop_compaction("a")).error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(run(node().control().start_compaction("a")));
  ASSERT_TRUE(world_.until([&] { return compaction("a").state == "finished"; }, 120s));
  EXPECT_FALSE(compaction("a").by_itself);
  EXPECT_GT(compaction("a").zones_emptied, 3u);
  EXPECT_GT(compaction("a").moved_bytes, 0u);
  expect_thinned("a", a);
}

}  // namespace
}  // namespace tandem::sim
