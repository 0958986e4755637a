// Free zones go back to what is below the pool: in time, but for a reserve, and so that no crash
// leaves a hole which the zone table takes for prepared.
#include <gtest/gtest.h>

#include <cstring>

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

}  // namespace
}  // namespace tandem::sim
