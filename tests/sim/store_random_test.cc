// Long seeded lives of one store: run, end somehow (clean stop, killed process, power cut, device
// errors, failed flush, full pool), start again, compare with the model, and so on.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include <cerrno>

#include "tests/sim/store_client.h"
#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

using Crash = StoreModel::Crash;
using Kind = IoRequest::Kind;

enum class End { kStop, kKill, kPowerCut, kWriteError, kFlushError, kReadErrors };

class Life {
 public:
  explicit Life(std::uint64_t seed)
      : seed_(seed),
        random_(seed * 7919),
        shape_(StoreShape::from_seed(random_.fork())),
        image_(StoreNode::formatted(shape_, seed)) {}

  void run(std::size_t boots, std::size_t operations) {
    for (std::size_t boot = 0; boot < boots && problem_.empty(); ++boot) {
      boot_ = boot;
      one_boot(operations, static_cast<End>(random_.below(6)));
    }
  }
  const std::string& problem() const { return problem_; }
  std::uint64_t trace() const { return trace_; }
  std::size_t acknowledged() const { return acknowledged_; }
  std::size_t refused() const { return refused_; }
  std::size_t balanced() const { return balanced_; }

 private:
  void complain(const std::string& what) {
    problem_ = "seed " + std::to_string(seed_) + ", boot " + std::to_string(boot_) + ": " + what;
  }

  /// How the last boot ended decides what this one must find.
  enum class Ended { kCleanly, kKilled, kPowerCut };

  /// What the last boot left must be what the model allows; then it becomes the new ground.
  bool settle(StoreNode& node, SimRuntime& world) {
    const auto found = world.run(node.read_all());
    if (!found) return complain(found.error().message), false;
    const Crash crash = ended_ == Ended::kPowerCut ? Crash::kPowerCut : Crash::kProcessKilled;
    if (auto wrong = model_.check_recovered(*found, crash)) return complain(*wrong), false;
    if (ended_ == Ended::kKilled) {
      model_.restarted_after_kill(*found);
    } else {
      model_ = StoreModel::settled(*found, model_.next_op());
    }
    return true;
  }

  void arm(StoreNode& node, End end) {
    SimDisk& disk = node.disk();
    const std::uint64_t soon = random_.between(1, 200);
    switch (end) {
      case End::kStop:
        break;
      case End::kKill:
        kill_after_ = soon;
        break;
      case End::kPowerCut:
        disk.power_off_after(soon * 3, {});
        break;
      case End::kWriteError:
        disk.inject({.kind = Kind::kWrite, .nth = soon});
        break;
      case End::kFlushError:
        disk.inject({.kind = Kind::kFlush, .nth = random_.between(1, 20)});
        break;
      case End::kReadErrors:
        disk.set_error_rate(Kind::kRead, 1, 10, EIO);
        break;
    }
    if (end != End::kKill) return;
    disk.set_observer([this, &disk](SimDisk::Moment, const IoRequest&) {
      if (kill_after_ != 0 && --kill_after_ == 0 && !disk.is_off()) disk.kill();
    });
  }

  void one_boot(std::size_t operations, End end) {
    SimRuntime world(random_.next());
    StoreNode node(world, image_, shape_, random_.next());
    const Status started = world.run(node.start());
    if (!started) return complain("start: " + started.error().message);
    Mix mix = Mix::from_seed(random_.fork());
    mix.operations = operations;
    StoreClients clients(world, node, model_, mix, random_.next());
    if (node.group() == nullptr) {
      const Status made = world.run(node.make_group(clients, model_, 3, 512 << 10));
      if (!made) return complain("make_group: " + made.error().message);
    } else if (!settle(node, world)) {
      return world.run(node.stop());
    }
    arm(node, end);
    world.run(clients.run());
    if (!clients.complaint().empty()) complain(clients.complaint());
    if (!node.group()->stopped() && !node.disk().is_off()) {
      const auto wrong = still_unbalanced(world, node.pool());
      const bool alive = !node.group()->stopped() && !node.disk().is_off();
      if (alive && !wrong.empty()) complain(wrong);
      balanced_ += alive ? 1 : 0;
    }
    acknowledged_ += clients.acknowledged();
    refused_ += clients.refused();
    // A group that stopped for an error promises what a power cut leaves; so that is what comes.
    if (node.group()->stopped() && !node.disk().is_off()) node.disk().power_off({});
    const bool killed = node.disk().is_off() && end == End::kKill;
    node.disk().clear_faults();
    node.disk().set_observer(nullptr);
    // The power may also go in the middle of stop(), if the planned moment is still to come.
    world.run(node.stop());
    ended_ = killed ? Ended::kKilled : node.disk().is_off() ? Ended::kPowerCut : Ended::kCleanly;
    if (!world.run_until([&] { return node.disk().in_flight() == 0; })) complain("I/O hangs");
    // A clean stop must keep everything, even when the power goes right after it.
    if (!node.disk().is_off()) node.disk().power_off({.mode = CutOptions::Mode::kDropAll});
    image_ = node.disk().remains();
    trace_ ^= world.trace_hash();
  }

  std::uint64_t seed_;
  SimRandom random_;
  StoreShape shape_;
  SimImage image_;
  StoreModel model_;
  Ended ended_ = Ended::kCleanly;
  std::uint64_t kill_after_ = 0;
  std::size_t boot_ = 0, acknowledged_ = 0, refused_ = 0, balanced_ = 0;
  std::uint64_t trace_ = 0;
  std::string problem_;
};

TEST(StoreRandom, ManyLives) {
  std::size_t acknowledged = 0, balanced = 0;
  for (const std::uint64_t seed : seeds_to_run(1, 40)) {
    SimLog log;
    Life life(seed);
    life.run(8, 150);
    ASSERT_EQ(life.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    acknowledged += life.acknowledged();
    balanced += life.balanced();
  }
  EXPECT_GT(acknowledged, 50u);
  EXPECT_GT(balanced, 0u);
}

TEST(StoreRandom, SameSeedSameLife) {
  for (const std::uint64_t seed : seeds_to_run(5, 3)) {
    SimLog log;
    Life first(seed), again(seed);
    first.run(4, 100);
    again.run(4, 100);
    EXPECT_EQ(first.trace(), again.trace()) << "seed " << seed;
    EXPECT_EQ(first.acknowledged(), again.acknowledged()) << "seed " << seed;
  }
}

/// After a failed flush a group answers nothing any more, and what it promised before is there.
TEST(StoreRandom, AFailedFlushStopsTheGroup) {
  std::size_t stopped = 0;
  for (const std::uint64_t seed : seeds_to_run(601, 10)) {
    for (std::uint64_t part = 0; part < 10; ++part) {
      SimLog log;
      SimRandom random(seed * 100 + part);
      const std::uint64_t nth = random.between(1, 80);
      const StoreShape shape = StoreShape::from_seed(random.fork());
      SimRuntime world(seed);
      StoreNode node(world, StoreNode::formatted(shape, seed), shape, seed);
      StoreModel model;
      Mix mix;
      mix.operations = 250;
      mix.depth = 12;
      mix.flush = 10;
      mix.checkpoint = 10;
      mix.fua_of_16 = 4;
      StoreClients clients(world, node, model, mix, random.next());
      ASSERT_TRUE(world.run(node.start()).has_value());
      ASSERT_TRUE(world.run(node.make_group(clients, model, 2, 512 << 10)).has_value());
      node.disk().inject({.kind = Kind::kFlush, .nth = nth});
      world.run(clients.run());
      stopped += node.group()->stopped().has_value();
      if (node.group()->stopped()) {
        auto volume = node.group()->open_volume("v0");
        const bool writes = volume && world.run((*volume)->write(0, IoBuffer::on_heap(512), {}));
        const bool flushes = volume && world.run((*volume)->flush());
        EXPECT_FALSE(writes || flushes) << "seed " << seed << ": a stopped group goes on";
      }
      // Let whatever is still under way write what it wants to write, then look at the disk.
      world.run(node.stop());
      node.disk().power_off({.mode = CutOptions::Mode::kKeepAll});
      const Recovery after = recover(node.disk().remains(), shape, random.next());
      ASSERT_TRUE(after.status.has_value())
          << "seed " << seed << ", failed flush " << nth << ": " << after.status.error().message;
      const auto wrong = model.check_recovered(after.found, Crash::kPowerCut);
      ASSERT_FALSE(wrong.has_value())
          << "seed " << seed << ", failed flush " << nth << ": " << *wrong << "\n"
          << log.text();
    }
  }
  EXPECT_GT(stopped, 0u);
}

Task<void> flush_group(store::Group* group) { (void)co_await group->flush_local(); }

/// A flush that failed may have lost anything, and the next one may claim success: nothing that was
/// written before, by whomever, may be built upon. Here the flush of one group fails at every
/// moment of another one's checkpoint; whatever the checkpoint does then must not cost what was
/// there.
TEST(StoreRandom, AFailedFlushIsNotTrustedByACheckpointElsewhere) {
  std::size_t other_failed = 0;
  for (const std::uint64_t seed : seeds_to_run(651, 3)) {
    bool over = false;
    for (std::uint64_t moment = 1; !over; ++moment) {
      SimLog log;
      SimRandom random(seed);
      StoreShape shape = StoreShape::from_seed(random.fork());
      shape.options.flush_interval = std::chrono::hours(1);  // no flush but ours
      SimRuntime world(seed * 1000 + moment);
      StoreNode node(world, StoreNode::formatted(shape, seed), shape, seed * 1000 + moment);
      StoreModel model;
      Mix mix;
      mix.operations = 60;
      StoreClients clients(world, node, model, mix, random.next());
      ASSERT_TRUE(world.run(node.start()).has_value());
      ASSERT_TRUE(world.run(node.make_group(clients, model, 2, 512 << 10)).has_value());
      auto other = world.run(
          node.pool().create_group("other", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
      ASSERT_TRUE(other.has_value());
      const OpId made = model.begin_create("w", 64 << 10);
      ASSERT_TRUE(world.run((*other)->create_volume("w", 64 << 10, 512)).has_value());
      model.acknowledge(made);
      store::Group* group = node.pool().find("g");
      world.run(clients.run());
      ASSERT_EQ(clients.complaint(), "");
      // Something for the other group to flush.
      (*other)->serve(true);
      const auto volume = (*other)->open_volume("w");
      ASSERT_TRUE(volume.has_value());
      IoBuffer data = IoBuffer::on_heap(kBlockBytes);
      const OpId write = model.begin_write("w", 0, kBlockBytes, false);
      stamp(write, "w", 0, data.bytes());
      ASSERT_TRUE(world.run((*volume)->write(0, data, {})).has_value());
      model.doubt(write);
      const OpId flush = model.begin_flush();
      ASSERT_TRUE(world.run(group->flush_local()).has_value());
      model.acknowledge(flush);

      std::uint64_t seen = 0;
      node.disk().set_observer([&](SimDisk::Moment, const IoRequest&) {
        if (++seen != moment) return;
        world.post([&] {
          node.disk().inject({.kind = Kind::kFlush});
          spawn(flush_group(*other));
        });
      });
      (void)world.run(group->checkpoint());
      node.disk().set_observer(nullptr);
      over = seen < moment;
      // The fault must have met the other group's flush, not the checkpoint's.
      world.run_for(std::chrono::milliseconds(100));
      const auto& why = (*other)->stopped();
      other_failed += why && why->message.find("checkpoint") == std::string::npos;
      world.run(node.stop());
      const auto mode =
          random.chance(1, 2) ? CutOptions::Mode::kKeepAll : CutOptions::Mode::kDropAll;
      node.disk().power_off({.mode = mode});
      const Recovery after = recover(node.disk().remains(), shape, random.next());
      ASSERT_TRUE(after.status.has_value())
          << "seed " << seed << ", moment " << moment << ": " << after.status.error().message;
      const auto wrong = model.check_recovered(after.found, Crash::kPowerCut);
      ASSERT_FALSE(wrong.has_value()) << "seed " << seed << ", moment " << moment << ": " << *wrong;
    }
  }
  EXPECT_GT(other_failed, 5u);
}

/// Changes of the same bytes that are in flight together take effect in some order, which the
/// contract leaves open; but a restart must replay the very order that was served.
TEST(StoreRandom, OverlappingChangesAreReplayedAsTheyWereServed) {
  std::size_t acknowledged = 0;
  for (const std::uint64_t seed : seeds_to_run(201, 40)) {
    SimLog log;
    SimRandom random(seed);
    StoreShape shape = StoreShape::from_seed(random.fork());
    shape.options.checkpoint_log_pages = random.chance(1, 2) ? 16384 : 8;
    SimRuntime world(seed);
    StoreNode node(world, StoreNode::formatted(shape, seed), shape, seed);
    StoreModel model;
    Mix mix;
    mix.operations = 150;
    mix.depth = 12;
    mix.large_write = 3;
    mix.read = 0;  // the model knows one order only: that of the calls
    mix.overlap = true;
    mix.checkpoint = random.chance(1, 2) ? 0 : 2;
    StoreClients clients(world, node, model, mix, random.next());
    ASSERT_TRUE(world.run(node.start()).has_value());
    ASSERT_TRUE(world.run(node.make_group(clients, model, 2, 2 << 20)).has_value());
    world.run(clients.run());
    acknowledged += clients.acknowledged();
    const auto served = world.run(node.read_all());
    ASSERT_TRUE(served.has_value()) << served.error().message;
    const LogPoint head = node.group()->head();
    node.disk().kill();
    world.run(node.stop());
    const Recovery after = recover(node.disk().remains(), shape, random.next());
    ASSERT_TRUE(after.status.has_value()) << after.status.error().message;
    EXPECT_EQ(after.head.lsn, head.lsn) << "seed " << seed;
    EXPECT_EQ(after.head.digest, head.digest) << "seed " << seed;
    ASSERT_TRUE(after.found == *served) << "seed " << seed << ": replay differs from what was read";
  }
  EXPECT_GT(acknowledged, 50u);
}

/// A pool that is too small for its volumes: refused writes leave no trace, space comes back.
TEST(StoreRandom, AFullPoolRefusesAndRecovers) {
  std::size_t refused = 0;
  for (const std::uint64_t seed : seeds_to_run(301, 6)) {
    SimLog log;
    SimRandom random(seed);
    StoreShape shape = StoreShape::from_seed(random.fork());
    shape.disk_bytes = 6 << 20;
    SimRuntime world(seed);
    StoreNode node(world, StoreNode::formatted(shape, seed), shape, seed);
    StoreModel model;
    Mix mix;
    mix.operations = 600;
    mix.large_write = 20;
    mix.discard = 1;
    mix.resize = mix.create = 0;
    mix.volume_bytes_max = 8 << 20;
    StoreClients clients(world, node, model, mix, random.next());
    ASSERT_TRUE(world.run(node.start()).has_value());
    ASSERT_TRUE(world.run(node.make_group(clients, model, 2, 4 << 20)).has_value());
    world.run(clients.run());
    EXPECT_EQ(clients.complaint(), "") << "seed " << seed;
    EXPECT_FALSE(node.group()->stopped().has_value()) << "seed " << seed << log.text();
    refused += clients.refused();
    auto found = world.run(node.read_all());
    ASSERT_TRUE(found.has_value()) << found.error().message;
    auto wrong = model.check_recovered(*found, Crash::kProcessKilled);
    ASSERT_FALSE(wrong.has_value()) << "seed " << seed << ": " << *wrong;

    // Discarding everything must make room again for a good part of the pool.
    for (const auto& name : model.volume_names()) {
      auto volume = node.group()->open_volume(name);
      ASSERT_TRUE(volume.has_value());
      const Status gone = world.run((*volume)->discard(0, model.size_of(name), {}));
      ASSERT_TRUE(gone.has_value()) << "seed " << seed << ": " << gone.error().message;
    }
    ASSERT_TRUE(world.run(node.group()->checkpoint()).has_value());
    auto volume = node.group()->open_volume(model.volume_names().front());
    IoBuffer data = IoBuffer::on_heap(1 << 20);
    stamp(model.next_op(), "any", 0, data.bytes());
    const Status written = world.run((*volume)->write(0, data, {}));
    EXPECT_TRUE(written.has_value()) << "seed " << seed << ": " << written.error().message;
    world.run(node.stop());
    const Recovery after = recover(node.disk().remains(), shape, random.next());
    EXPECT_TRUE(after.status.has_value()) << after.status.error().message;
  }
  EXPECT_GT(refused, 0u);
}

/// Every block of a cleanly stopped pool, damaged one at a time: what comes back is either the same
/// or an error, never something else.
TEST(StoreRandom, DamageIsAnErrorNeverWrongData) {
  for (const std::uint64_t seed : seeds_to_run(401, 1)) {
    SimLog log;
    SimRandom random(seed);
    const StoreShape shape = StoreShape::from_seed(random.fork());
    SimRuntime world(seed);
    StoreNode node(world, StoreNode::formatted(shape, seed), shape, seed);
    StoreModel model;
    Mix mix;
    mix.operations = 120;
    StoreClients clients(world, node, model, mix, random.next());
    ASSERT_TRUE(world.run(node.start()).has_value());
    ASSERT_TRUE(world.run(node.make_group(clients, model, 2, 512 << 10)).has_value());
    world.run(clients.run());
    const StoreModel::Found before = world.run(node.read_all()).value();
    world.run(node.stop());
    const SimImage image = node.disk().remains();
    std::size_t errors = 0, same = 0;
    for (const auto& [page, content] : image.durable()) {
      SimImage damaged = image;
      damaged.corrupt(page * kBlockBytes + 512 * random.below(8), 1, random);
      const Recovery after = recover(damaged, shape, random.next());
      if (!after.status) {
        ++errors;
        EXPECT_EQ(after.status.error().code, ErrorCode::kCorrupt) << after.status.error().message;
        continue;
      }
      ASSERT_TRUE(after.found == before)
          << "seed " << seed << ": block " << page << " was damaged, and nobody noticed";
      ++same;
    }
    EXPECT_GT(errors, 0u);
    EXPECT_GT(same, 0u);
  }
}

/// A device that puts data elsewhere, or nowhere, and says that all is well: reads must notice.
TEST(StoreRandom, LostAndMisdirectedWritesAreNoticedByReads) {
  std::size_t failed = 0;
  for (const std::uint64_t seed : seeds_to_run(501, 20)) {
    SimLog log;
    SimRandom random(seed);
    const StoreShape shape = StoreShape::from_seed(random.fork());
    SimRuntime world(seed);
    StoreNode node(world, StoreNode::formatted(shape, seed), shape, seed);
    StoreModel model;
    Mix mix;
    mix.operations = 200;
    mix.read = 30;
    StoreClients clients(world, node, model, mix, random.next());
    ASSERT_TRUE(world.run(node.start()).has_value());
    ASSERT_TRUE(world.run(node.make_group(clients, model, 2, 256 << 10)).has_value());
    const bool lose = random.chance(1, 2);
    for (std::uint64_t nth = 5; nth < 60; nth += 11) {
      const auto zones = node.pool().superblock();
      const std::uint64_t target = zones.zone_start(zones.first_zone()).value * kBlockBytes;
      node.disk().inject({.kind = Kind::kWrite,
                          .effect = lose ? DiskFault::Effect::kLose : DiskFault::Effect::kMisdirect,
                          .nth = nth,
                          .misdirect_to = target + kBlockBytes * random.below(500)});
    }
    world.run(clients.run());
    ASSERT_EQ(clients.complaint(), "") << "seed " << seed << log.text();
    failed += clients.failed();
    if (!node.disk().is_off()) node.disk().power_off({});
    world.run(node.stop());
  }
  EXPECT_GT(failed, 0u);
}

}  // namespace
}  // namespace tandem::sim
