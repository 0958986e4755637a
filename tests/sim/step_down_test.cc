// A primary that steps down follows the one that was promoted, perhaps before its own disk has
// taken the new role. Whenever the power goes, it must not come back as a primary on the other's
// timeline.
#include <gtest/gtest.h>

#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

Status write(SimRuntime& world, store::Group& group, std::uint64_t block) {
  auto volume = group.open_volume("v");
  if (!volume) return volume.error();
  IoBuffer data = IoBuffer::on_heap(kBlockBytes);
  std::memset(data.data(), static_cast<int>(block), data.size());
  return world.run((*volume)->write(block * kBlockBytes, std::move(data), {}));
}

Task<void> step_down(store::Group& group, std::optional<Status>& done) {
  auto kept = co_await group.set_role(Role::kMirror);
  done = std::move(kept);
}

TEST(StepDown, NoCrashLeavesAPrimaryOnAnothersTimeline) {
  std::size_t followed = 0;
  for (const std::uint64_t seed : seeds_to_run(1, 20)) {
    SCOPED_TRACE(seed);
    SimLog log;
    SimRandom random(seed);
    const StoreShape shape = StoreShape::from_seed(random.fork());
    SimRuntime world(seed);
    StoreNode a(world, StoreNode::formatted(shape, seed), shape, seed);
    StoreNode b(world, StoreNode::formatted(shape, seed + 1), shape, seed + 1);
    ASSERT_TRUE(world.run(a.start()));
    ASSERT_TRUE(world.run(b.open()));
    ASSERT_TRUE(make_mirrored_group(world, a, b));
    a.group()->set_log_hold(Lsn{0});
    ASSERT_TRUE(world.run(a.group()->create_volume("v", 64 * kBlockBytes, 4096)));
    for (std::uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(write(world, *a.group(), i));
    ASSERT_TRUE(follow(world, *a.group(), *b.group()));
    ASSERT_TRUE(world.run(b.group()->start_timeline()));
    b.group()->serve(true);
    for (std::uint64_t i = 0; i < 8; ++i) ASSERT_TRUE(write(world, *b.group(), i));

    std::vector<SimImage> images;
    a.disk().set_observer([&](SimDisk::Moment, const IoRequest&) {
      const auto cut = random.chance(1, 2) ? CutOptions::Mode::kKeepAll : CutOptions::Mode::kRandom;
      images.push_back(a.disk().crash_image({.mode = cut}, random));
    });
    std::optional<Status> done;
    spawn(step_down(*a.group(), done));
    ASSERT_TRUE(follow(world, *b.group(), *a.group()));
    ASSERT_TRUE(world.run_until([&] { return done.has_value(); }));
    a.disk().set_observer(nullptr);
    EXPECT_TRUE(*done);
    for (const auto& image : images) {
      SimRuntime after(seed);
      StoreNode left(after, image, shape, seed);
      ASSERT_TRUE(after.run(left.open()));
      const bool has_others = left.group()->history().back().timeline != Timeline{1};
      EXPECT_FALSE(has_others && left.group()->role() == Role::kPrimary);
      followed += has_others ? 1 : 0;
      after.run(left.stop());
    }
    world.run(a.stop());
    world.run(b.stop());
  }
  EXPECT_GT(followed, 0u);
}

// Nobody dials the slots of a fenced copy, so nobody tells what they hold. The next checkpoint let
// the log go up to the head, or to the first mark, and when the fenced copy was promoted again, the
// mirror behind such a slot was sent what changed instead of the log.
TEST(StepDown, AFencedCopyKeepsTheLogThatItsSlotsNeed) {
  SimRuntime world(1);
  StoreShape shape;
  StoreNode a(world, StoreNode::formatted(shape, 1), shape, 1);
  StoreNode b(world, StoreNode::formatted(shape, 2), shape, 2);
  ASSERT_TRUE(world.run(a.start()));
  ASSERT_TRUE(world.run(b.open()));
  ASSERT_TRUE(make_mirrored_group(world, a, b));
  store::Group& group = *a.group();
  group.set_log_hold(Lsn{0});
  ASSERT_TRUE(world.run(group.create_volume("v", 64 * kBlockBytes, 4096)));
  const Lsn held = group.head().lsn;
  group.set_log_hold(held);
  for (std::uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(write(world, group, i));
  ASSERT_TRUE(world.run(group.checkpoint()));
  for (std::uint64_t i = 4; i < 8; ++i) ASSERT_TRUE(write(world, group, i));
  ASSERT_TRUE(world.run(group.set_role(Role::kFenced)));
  group.set_log_hold(std::nullopt);
  ASSERT_TRUE(world.run(group.checkpoint()));
  EXPECT_LE(group.log_start(), held);
  ASSERT_TRUE(world.run(group.start_timeline()));
  EXPECT_LE(group.log_start(), held);
  EXPECT_TRUE(world.run(group.digest_at(held)));
  world.run(a.stop());
  world.run(b.stop());
}

}  // namespace
}  // namespace tandem::sim
