// A full copy as the receiving store sees it: whenever the power goes, the copy is there as a whole
// or not at all, and what was called durable is.
#include <gtest/gtest.h>

#include "tests/sim/image_messages.h"
#include "tests/sim/store_client.h"
#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

Task<void> flush_often(SimRuntime& world, store::Group& group, const bool& over) {
  while (!over) {
    (void)co_await group.flush_local();
    co_await sleep_for(world, std::chrono::microseconds(50));
  }
}

TEST(FullCopy, IsWholeOrNotThereAndDurableOnlyWhenItIs) {
  std::size_t moments = 0, old_found = 0, new_found = 0;
  for (const std::uint64_t seed : seeds_to_run(701, 4)) {
    SimLog log;
    SimRandom random(seed);
    StoreShape shape = StoreShape::from_seed(random.fork());
    shape.disk_bytes = 16 << 20;
    SimRuntime world(seed);
    StoreNode source(world, StoreNode::formatted(shape, seed), shape, seed);
    StoreNode target(world, StoreNode::formatted(shape, seed + 1), shape, seed + 1);
    StoreModel model;
    Mix mix;
    mix.operations = 80;
    StoreClients clients(world, source, model, mix, random.next());
    ASSERT_TRUE(world.run(source.start()).has_value());
    ASSERT_TRUE(world.run(source.make_group(clients, model, 2, 256 << 10)).has_value());
    ASSERT_TRUE(world.run(target.open()).has_value());
    auto made = world.run(target.pool().create_group("g", source.group()->identity().group,
                                                     Role::kMirror, ReplicationMode::kAsync));
    ASSERT_TRUE(made.has_value());
    store::Group& mirror = **made;

    // The first copy meets an empty mirror, the second replaces what the first brought.
    StoreModel::Found before;
    Lsn before_lsn;
    for (int copy = 0; copy < 2; ++copy) {
      StoreClients more(world, source, model, mix, random.next());
      world.run(more.run());
      auto image = world.run(take_image(*source.group(), std::nullopt));
      ASSERT_TRUE(image.has_value()) << image.error().message;
      const auto after = world.run(source.read_all());
      ASSERT_TRUE(after.has_value());
      const Lsn after_lsn = image->begin.point.lsn;

      std::string problem;
      const std::size_t moments_before = moments;
      target.disk().set_observer([&](SimDisk::Moment, const IoRequest&) {
        if (!problem.empty() || !random.chance(1, 3)) return;
        ++moments;
        const Lsn durable = mirror.durable();
        const auto left = target.disk().crash_image({}, random);
        const Recovery found = promote_copy(left, shape, random.next());
        if (!found.status) {
          // Nothing can be promoted out of a mirror that never had a copy.
          if (before.empty() && durable == Lsn{}) return void(++old_found);
          problem = found.status.error().message;
        } else if (found.found == *after) {
          ++new_found;
        } else if (found.found == before && durable <= before_lsn) {
          ++old_found;
        } else if (found.found == before) {
          problem = "LSN " + std::to_string(durable.value) + " was durable, but a power cut left " +
                    std::to_string(before_lsn.value);
        } else {
          problem = "a power cut left half a copy";
        }
      });
      bool over = false;
      spawn(flush_often(world, mirror, over));
      const Status installed = world.run(install(mirror, std::move(*image)));
      over = true;
      world.run_for(std::chrono::milliseconds(1));
      target.disk().set_observer(nullptr);
      ASSERT_TRUE(installed.has_value()) << installed.error().message;
      ASSERT_EQ(problem, "") << "copy " << copy << ", seed " << seed << "\n" << log.text();
      ASSERT_GT(moments, moments_before)
          << "copy " << copy << " of seed " << seed << " was not cut";
      ASSERT_EQ(mirror.durable(), after_lsn);
      before = *after;
      before_lsn = after_lsn;
    }
    world.run(source.stop());
    world.run(target.stop());
  }
  EXPECT_GT(moments, 50u);
  EXPECT_GT(old_found, 20u);
  EXPECT_GT(new_found, 2u);
}

}  // namespace
}  // namespace tandem::sim
