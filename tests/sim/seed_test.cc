// A mirror that was seeded: its maps name every block by the position of the point, the primary's
// by the record that wrote it. Each gives the other what is damaged there, and only what is
// provably the same; and the point is found again, by the digest that is kept with a state, once
// the log is gone.
#include <gtest/gtest.h>

#include <map>

#include "format/checksum.h"
#include "tests/sim/image_messages.h"
#include "tests/sim/store_client.h"
#include "tests/sim/store_node.h"
#include "tests/unit/inspect_fixture.h"

namespace tandem::sim {
namespace {

struct Named {
  Lsn lsn;
  std::uint32_t crc32c = 0;
};
using Maps = std::map<std::pair<VolumeId, VolumeBlock>, Named>;

class Seeded {
 public:
  explicit Seeded(std::uint64_t seed)
      : random_(seed),
        shape_(shape_of(random_)),
        world_(seed),
        source_(world_, StoreNode::formatted(shape_, seed), shape_, seed),
        target_(world_, StoreNode::formatted(shape_, seed + 1), shape_, seed + 1) {
    mix_.create = mix_.resize = 0;
  }

  void run() {
    StoreClients clients(world_, source_, model_, mix_, random_.next());
    good(world_.run(source_.start()));
    good(world_.run(source_.make_group(clients, model_, 2, 512 << 10)));
    good(world_.run(target_.open()));
    auto made = world_.run(target_.pool().create_group("g", primary().identity().group,
                                                       Role::kMirror, ReplicationMode::kAsync));
    ASSERT_TRUE(made) << made.error().message;
    primary().set_history_policy({});
    mirror().set_history_policy({});
    change();
    seed();
    blocks_are_found_in_both_directions();
    difference();
    world_.run(source_.stop());
    world_.run(target_.stop());
  }

 private:
  static StoreShape shape_of(SimRandom& random) {
    StoreShape shape = StoreShape::from_seed(random.fork());
    shape.disk_bytes = 24 << 20;
    return shape;
  }
  store::Group& primary() { return *source_.group(); }
  store::Group& mirror() { return *target_.group(); }
  static void good(const Status& status) {
    ASSERT_TRUE(status.has_value()) << status.error().message;
  }
  void change() {
    StoreClients clients(world_, source_, model_, mix_, random_.next());
    world_.run(clients.run());
  }

  static Maps maps_of(const Image& image) {
    Maps maps;
    for (const auto& blocks : image.blocks) {
      for (const auto& e : blocks.entries) maps[{blocks.volume, e.block}] = {e.lsn, e.crc32c};
    }
    return maps;
  }

  /// As a backup of a snapshot has it: whichever record wrote a block.
  void seed() {
    const auto taken = world_.run(primary().create_snapshot({.name = "backup"}));
    ASSERT_TRUE(taken) << taken.error().message;
    const auto point = primary().seed_point("backup");
    ASSERT_TRUE(point);
    auto image = world_.run(take_image(primary(), std::nullopt));
    ASSERT_TRUE(image) << image.error().message;
    ASSERT_EQ(image->begin.point, point->point);
    EXPECT_EQ(image->begin.history, point->history);
    EXPECT_EQ(image->begin.next_volume_id, point->next_volume_id);
    ASSERT_EQ(image->begin.volumes.size(), point->volumes.size());
    before_ = maps_of(*image);
    seed_ = point->point;
    for (auto& blocks : image->blocks) {
      for (auto& e : blocks.entries) e.lsn = seed_.lsn;
    }
    good(world_.run(install(mirror(), std::move(*image))));
    EXPECT_EQ(mirror().head(), seed_);
    seeded_ = content_of_mirror();
  }

  Result<IoBuffer> ask(store::Group& group, const std::pair<VolumeId, VolumeBlock>& at, Lsn lsn,
                       std::uint32_t crc, Lsn through) {
    return world_.run(group.find_block({at.first, at.second, lsn, crc, through}));
  }

  void blocks_are_found_in_both_directions() {
    const auto zero = format::crc32c_of_zero_block();
    std::size_t older = 0;
    for (const auto& [at, named] : before_) {
      if (named.crc32c == zero) continue;
      ASSERT_TRUE(ask(mirror(), at, named.lsn, named.crc32c, seed_.lsn));
      ASSERT_TRUE(ask(primary(), at, seed_.lsn, named.crc32c, seed_.lsn));
      EXPECT_FALSE(ask(mirror(), at, named.lsn, named.crc32c ^ 1, seed_.lsn));
      if (named.lsn == seed_.lsn) continue;
      ++older;
      // Not known for as long: it may have been another block with that checksum.
      const Lsn shorter{seed_.lsn.value - 1};
      for (const auto through : {Lsn{}, std::max(named.lsn, shorter)}) {
        if (through == seed_.lsn) continue;
        const auto found = ask(mirror(), at, named.lsn, named.crc32c, through);
        ASSERT_FALSE(found);
        EXPECT_EQ(found.error().code, ErrorCode::kNotFound);
      }
      EXPECT_FALSE(ask(primary(), at, seed_.lsn, named.crc32c, Lsn{}));
    }
    EXPECT_GT(older, 20u);
  }

  /// The log goes, the snapshot stays: what changed since is found from its maps.
  void difference() {
    for (int i = 0; i < 4; ++i) {
      change();
      good(world_.run(primary().checkpoint()));
    }
    primary().set_log_hold(std::nullopt);
    const auto digest = world_.run(primary().digest_at(seed_.lsn));
    ASSERT_TRUE(digest) << digest.error().message;
    EXPECT_EQ(*digest, seed_.digest);
    auto image = world_.run(take_image(primary(), seed_));
    ASSERT_TRUE(image) << image.error().message;
    ASSERT_TRUE(image->begin.base);
    const auto after = world_.run(source_.read_all());
    ASSERT_TRUE(after);
    good(world_.run(install(mirror(), *image)));
    EXPECT_TRUE(content_of_mirror() == *after);
    EXPECT_FALSE(seeded_ == *after);
    // A state whose point has another digest is no base.
    LogPoint other = seed_;
    other.digest = Digest(seed_.digest.value + 1);
    auto whole = world_.run(take_image(primary(), other));
    ASSERT_TRUE(whole);
    EXPECT_FALSE(whole->begin.base);
    mirror().set_primary_durable(mirror().head().lsn, mirror().head().lsn);
    world_.run_for(std::chrono::seconds(5));
    good(world_.run(mirror().checkpoint()));
    const auto disk = target_.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random_);
    const auto report = inspect::verify(disk);
    EXPECT_TRUE(report.sound()) << report.text();
  }

  StoreModel::Found content_of_mirror() {
    auto left = target_.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random_);
    const Recovery found = promote_copy(left, shape_, random_.next());
    EXPECT_TRUE(found.status) << found.status.error().message;
    return found.found;
  }

  SimRandom random_;
  StoreShape shape_;
  SimRuntime world_;
  StoreNode source_, target_;
  StoreModel model_;
  Mix mix_;
  Maps before_;
  LogPoint seed_;
  StoreModel::Found seeded_;
};

TEST(SeededMirrors, GiveAndTakeBlocksAndAreFoundByTheDigest) {
  for (const std::uint64_t seed : seeds_to_run(1, 8)) {
    SimLog log;
    SCOPED_TRACE("replay with TANDEM_SEED=" + std::to_string(seed));
    Seeded(seed).run();
    if (testing::Test::HasFailure()) FAIL() << log.text();
  }
}

}  // namespace
}  // namespace tandem::sim
