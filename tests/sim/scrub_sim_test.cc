// Scrubs: every block that a copy can reach is read once, however many snapshots share it; what
// rotted is found, on the mirror too, and repaired from the other node; nothing whole is ever
// called damaged while writers, checkpoints, deletions and full copies go on; a restart goes on
// with it.
#include <gtest/gtest.h>

#include "store/scrub.h"
#include "tests/sim/damaged_pair.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

std::vector<std::uint64_t> some_blocks(SimRandom& random, std::size_t count) {
  std::set<std::uint64_t> chosen;
  while (chosen.size() < count) chosen.insert(random.below(kBlocks));
  return {chosen.begin(), chosen.end()};
}

ScrubStatus scrub(DamagedPair& pair, PairNode& node) {
  const Status started = pair.run(node.control().start_scrub("g"));
  EXPECT_TRUE(started) << started.error().message;
  EXPECT_TRUE(pair.world.until([&] { return node.status().scrub.state == "finished"; }, 1h));
  return node.status().scrub;
}

Status set(DamagedPair& pair, PairNode& node, const std::string& key, const std::string& value) {
  ChangeSettings request{"g", "", {{key, value}}};
  return pair.run(node.control().change_settings(request));
}

TEST(Scrub, ReadsEveryVersionOnce) {
  SimLog log;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok());
    std::set<std::uint32_t> versions(pair.expected.begin(), pair.expected.end());
    for (int i = 0; i < 5; ++i) {
      ASSERT_TRUE(pair.snapshot("s" + std::to_string(i)));
      ASSERT_TRUE(pair.write(some_blocks(pair.random, pair.random.between(1, 20))));
      versions.insert(pair.expected.begin(), pair.expected.end());
    }
    ASSERT_TRUE(pair.level());
    for (PairNode* node : {&pair.world.primary(), &pair.world.mirror()}) {
      const ScrubStatus done = scrub(pair, *node);
      EXPECT_EQ(done.blocks_read, versions.size()) << "seed " << seed << " " << node->name();
      EXPECT_GE(done.nodes_read, 6u);
      EXPECT_EQ(done.bad_blocks + done.bad_map_nodes, 0u);
      EXPECT_TRUE(done.findings.empty());
      EXPECT_GT(done.ended, done.started);
    }
  }
}

TEST(Scrub, FindsAndRepairsWhatRottedOnEitherNode) {
  SimLog log;
  for (std::uint64_t seed = 11; seed <= 20; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok());
    std::set<std::uint32_t> versions(pair.expected.begin(), pair.expected.end());
    ASSERT_TRUE(pair.snapshot("s"));
    const Stamps then = pair.expected;
    ASSERT_TRUE(pair.write(some_blocks(pair.random, 40)));
    ASSERT_TRUE(pair.level());
    versions.insert(pair.expected.begin(), pair.expected.end());
    for (PairNode* node : {&pair.world.mirror(), &pair.world.primary()}) {
      const Places places = pair.places(*node);
      std::vector<std::uint32_t> rotten;
      for (const auto stamp : versions) {
        if (pair.random.chance(1, 5)) rotten.push_back(stamp);
      }
      pair.rot(*node, rotten);
      const ScrubStatus done = scrub(pair, *node);
      EXPECT_EQ(done.blocks_read, versions.size());
      EXPECT_EQ(done.bad_blocks, rotten.size()) << "seed " << seed;
      EXPECT_EQ(done.repaired_blocks, rotten.size());
      ASSERT_EQ(done.findings.size(), std::min<std::size_t>(rotten.size(), 16));
      for (const auto& finding : done.findings) {
        EXPECT_EQ(finding.volume, "v");
        const auto block = finding.byte / kBlockBytes;
        const auto stamp = finding.snapshot.empty() ? pair.expected[block] : then[block];
        EXPECT_TRUE(std::find(rotten.begin(), rotten.end(), stamp) != rotten.end());
      }
      ASSERT_TRUE(pair.world.until(
          [&] { return pair.damage(*node).repaired_blocks >= rotten.size(); }, 60s));
      for (const auto stamp : rotten) EXPECT_TRUE(pair.is_whole(*node, stamp, places.at(stamp)));
      EXPECT_EQ(scrub(pair, *node).bad_blocks, 0u);
    }
  }
}

TEST(Scrub, WhatNobodyHasIsReportedUntilItIsGone) {
  SimLog log;
  DamagedPair pair(3);
  ASSERT_TRUE(pair.ok());
  PairNode& primary = pair.world.primary();
  pair.rot(primary, {pair.expected[8]});
  pair.rot(pair.world.mirror(), {pair.expected[8]});
  const ScrubStatus done = scrub(pair, primary);
  EXPECT_EQ(done.bad_blocks, 1u);
  EXPECT_EQ(done.repaired_blocks, 0u);
  ASSERT_EQ(done.findings.size(), 1u);
  EXPECT_EQ(done.findings[0].byte, 8 * kBlockBytes);
  EXPECT_NE(done.findings[0].outcome.find("damaged there too"), std::string::npos);
  EXPECT_EQ(pair.damage(primary).unrepairable_blocks, 1u);
  // It is looked at again long before the next one would be due.
  pair.world.runtime().run_for(23h);
  EXPECT_EQ(primary.status().scrub.started, done.started);
  pair.world.runtime().run_for(2h);
  EXPECT_GT(primary.status().scrub.started, done.started);
  EXPECT_EQ(primary.status().scrub.bad_blocks, 1u);
  EXPECT_EQ(pair.world.mirror().status().scrub.state, "never");
  ASSERT_TRUE(pair.write({8}));
  EXPECT_EQ(pair.damage(primary).unrepairable_blocks, 1u);  // nobody has looked yet
  EXPECT_EQ(scrub(pair, primary).bad_blocks, 0u);
  EXPECT_EQ(pair.damage(primary).unrepairable_blocks, 0u);
}

TEST(Scrub, ANodeOfTheMapIsWrittenAgainFromMemory) {
  SimLog log;
  DamagedPair pair(4);
  ASSERT_TRUE(pair.ok());
  PairNode& primary = pair.world.primary();
  ASSERT_TRUE(pair.run(primary.checkpoint()));
  ASSERT_TRUE(pair.read(primary, "v"));  // so that it is in memory
  const auto root = primary.group()->volumes().at(0).root;
  primary.disk().corrupt(root.where.value * kBlockBytes, kBlockBytes);
  ScrubStatus done = scrub(pair, primary);
  EXPECT_EQ(done.bad_map_nodes, 1u);
  EXPECT_EQ(done.repaired_map_nodes, 1u);
  EXPECT_EQ(scrub(pair, primary).bad_map_nodes, 0u);
  primary.stop();
  ASSERT_TRUE(primary.start());
  ASSERT_TRUE(pair.level());
  {
    const auto found = pair.read(primary, "v");
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(*found, pair.expected);
  }
  // Not in memory any more: nobody has it.
  primary.stop();
  ASSERT_TRUE(primary.start());
  const auto again = primary.group()->volumes().at(0).root;
  primary.disk().corrupt(again.where.value * kBlockBytes, kBlockBytes);
  ASSERT_TRUE(pair.level());
  ASSERT_FALSE(pair.read(primary, "v"));
  EXPECT_EQ(pair.damage(primary).damaged_map_nodes, 1u);
  done = scrub(pair, primary);
  EXPECT_EQ(done.bad_map_nodes, 1u);
  EXPECT_EQ(done.repaired_map_nodes, 0u);
  EXPECT_EQ(done.blocks_read, 0u);
}

TEST(Scrub, KeepsToItsRateAndCanBeStopped) {
  SimLog log;
  DamagedPair pair(5);
  ASSERT_TRUE(pair.ok());
  PairNode& primary = pair.world.primary();
  ASSERT_TRUE(set(pair, primary, "scrub.rate", "128KiB"));
  const auto began = pair.world.runtime().now();
  (void)scrub(pair, primary);
  const auto took = pair.world.runtime().now() - began;  // 384 KiB
  EXPECT_GE(took, 2900ms);
  EXPECT_LE(took, 4s);
  ASSERT_TRUE(pair.run(primary.control().start_scrub("g")));
  EXPECT_EQ(pair.run(primary.control().start_scrub("g")).error().code, ErrorCode::kBusy);
  pair.world.runtime().run_for(1s);
  EXPECT_EQ(primary.status().scrub.state, "running");
  ASSERT_TRUE(pair.run(primary.control().stop_scrub("g")));
  ASSERT_TRUE(pair.world.until([&] { return primary.status().scrub.state == "stopped"; }, 1s));
  EXPECT_LT(primary.status().scrub.blocks_read, kBlocks);
  EXPECT_GT(primary.status().scrub.blocks_read, 0u);
  EXPECT_EQ(pair.run(primary.control().stop_scrub("g")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(pair.run(primary.control().start_scrub("none")).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(set(pair, primary, "scrub.rate", "1KiB"));
  EXPECT_FALSE(set(pair, primary, "scrub.every", "5m"));
}

TEST(Scrub, BeginsByItselfWhenItIsDue) {
  SimLog log;
  DamagedPair pair(6);
  ASSERT_TRUE(pair.ok());
  PairNode& mirror = pair.world.mirror();
  ASSERT_TRUE(set(pair, mirror, "scrub.every", "1h"));
  pair.world.runtime().run_for(30min);
  EXPECT_EQ(mirror.status().scrub.state, "never");
  pair.world.runtime().run_for(40min);
  ASSERT_EQ(mirror.status().scrub.state, "finished");
  EXPECT_EQ(pair.world.primary().status().scrub.state, "never");  // that node's own matter
  const UtcNs first = mirror.status().scrub.started;
  // The result outlives a restart, and so does the time of the next.
  mirror.stop();
  ASSERT_TRUE(mirror.start());
  EXPECT_EQ(mirror.status().scrub.started, first);
  EXPECT_EQ(mirror.status().scrub.blocks_read, kBlocks);
  pair.world.runtime().run_for(30min);
  EXPECT_EQ(mirror.status().scrub.started, first);
  pair.world.runtime().run_for(40min);
  EXPECT_GT(mirror.status().scrub.started, first);
  ASSERT_TRUE(set(pair, mirror, "scrub.every", "off"));
  const UtcNs last = mirror.status().scrub.started;
  pair.world.runtime().run_for(3h);
  EXPECT_EQ(mirror.status().scrub.started, last);
}

TEST(Scrub, GoesOnAfterARestart) {
  SimLog log;
  std::size_t in_the_middle = 0;
  for (std::uint64_t seed = 31; seed <= 40; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok());
    std::set<std::uint32_t> versions(pair.expected.begin(), pair.expected.end());
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(pair.snapshot("s" + std::to_string(i)));
      ASSERT_TRUE(pair.write(some_blocks(pair.random, 20)));
      versions.insert(pair.expected.begin(), pair.expected.end());
    }
    ASSERT_TRUE(pair.level());
    PairNode& mirror = pair.world.mirror();
    ASSERT_TRUE(set(pair, mirror, "scrub.rate", "64KiB"));
    pair.world.runtime().run_for(2s);
    ASSERT_TRUE(pair.run(mirror.control().start_scrub("g")));
    pair.world.runtime().run_for(Nanoseconds(pair.random.between(1, 10) * 1'000'000'000));
    const std::uint64_t before = mirror.status().scrub.blocks_read;
    const bool clean = seed % 2 == 0;
    clean ? mirror.stop() : mirror.kill();
    ASSERT_TRUE(mirror.start());
    if (!clean && mirror.status().scrub.state == "never") continue;  // in front of any checkpoint
    ASSERT_EQ(mirror.status().scrub.state, "running");
    EXPECT_LE(mirror.status().scrub.blocks_read, before);
    in_the_middle += mirror.status().scrub.blocks_read > 0 ? 1 : 0;
    ASSERT_TRUE(pair.world.until([&] { return mirror.status().scrub.state == "finished"; }, 600s));
    // A leaf that was interrupted is read again from its beginning.
    EXPECT_GE(mirror.status().scrub.blocks_read, versions.size()) << "seed " << seed;
    EXPECT_LE(mirror.status().scrub.blocks_read, versions.size() + kBlocks) << "seed " << seed;
    EXPECT_EQ(mirror.status().scrub.bad_blocks, 0u);
  }
  EXPECT_GT(in_the_middle, 2u);
}

TEST(Scrub, AKillCostsAMinuteOfItAtMost) {
  SimLog log;
  constexpr std::uint64_t kMore = 1280;  // 80 seconds at the slowest rate
  DamagedPair pair(7);
  ASSERT_TRUE(pair.ok());
  PairNode& primary = pair.world.primary();
  PairNode& mirror = pair.world.mirror();
  ASSERT_TRUE(pair.run(primary.create_volume("w", kMore * kBlockBytes)));
  auto volume = primary.open_volume("w");
  ASSERT_TRUE(volume);
  for (std::uint64_t at = 0; at < kMore; at += 64) {
    IoBuffer data = IoBuffer::on_heap(64 * kBlockBytes);
    std::memset(data.data(), 7, data.size());
    ASSERT_TRUE(pair.run((*volume)->write(at * kBlockBytes, std::move(data), {})));
  }
  ASSERT_TRUE(pair.level());
  ASSERT_TRUE(set(pair, mirror, "scrub.rate", "64KiB"));
  ASSERT_TRUE(pair.run(mirror.control().start_scrub("g")));
  pair.world.runtime().run_for(75s);
  const std::uint64_t before = mirror.status().scrub.blocks_read;
  mirror.kill();
  ASSERT_TRUE(mirror.start());
  EXPECT_EQ(mirror.status().scrub.state, "running");
  EXPECT_LE(mirror.status().scrub.blocks_read, before);
  EXPECT_GE(mirror.status().scrub.blocks_read + 60 * 16 + 256, before);
  EXPECT_GT(mirror.status().scrub.blocks_read, 500u);
  ASSERT_TRUE(pair.world.until([&] { return mirror.status().scrub.state == "finished"; }, 600s));
  EXPECT_GE(mirror.status().scrub.blocks_read, kBlocks + kMore);
}

/// Scrub after scrub on both nodes, while everything changes under them. Nothing is damaged, so
/// nothing may be found.
class BusyLife {
 public:
  explicit BusyLife(std::uint64_t seed)
      : seed_(seed), mode_(static_cast<ReplicationMode>(seed % 3)), pair_(seed, mode_) {}

  void run(std::size_t steps) {
    ASSERT_TRUE(pair_.ok());
    for (PairNode* node : both()) {
      const std::string rate = pair_.random.chance(1, 2) ? "1MiB" : "100MiB";
      ASSERT_TRUE(set(pair_, *node, "scrub.rate", rate));
    }
    for (std::size_t i = 0; i < steps && !::testing::Test::HasFatalFailure(); ++i) {
      keep_scrubbing();
      one_step(i);
    }
    for (PairNode* node : both()) {
      (void)pair_.world.until([&] { return node->status().scrub.state != "running"; }, 600s);
      demand_nothing(*node);
    }
  }
  std::size_t finished = 0, copied = 0;

 private:
  std::array<PairNode*, 2> both() { return {&pair_.world.primary(), &pair_.world.mirror()}; }

  void demand_nothing(PairNode& node) {
    const ScrubStatus now = node.status().scrub;
    ASSERT_EQ(now.bad_blocks + now.bad_map_nodes, 0u)
        << "seed " << seed_ << " " << node.name() << ": "
        << (now.findings.empty() ? "" : now.findings[0].outcome);
  }

  void keep_scrubbing() {
    for (PairNode* node : both()) {
      demand_nothing(*node);
      const std::string state = node->status().scrub.state;
      if (state == "running") continue;
      finished += state == "finished" ? 1 : 0;
      ASSERT_TRUE(pair_.run(node->control().start_scrub("g")));
    }
  }

  void change_snapshots(std::size_t i) {
    PairNode& primary = pair_.world.primary();
    PairNode& node = pair_.random.chance(1, 2) ? primary : pair_.world.mirror();
    const auto snapshots = node.status().snapshots;
    if (snapshots.empty() || pair_.random.chance(1, 2)) {
      const std::string name = "s" + std::to_string(i);
      ASSERT_TRUE(pair_.run(primary.control().create_snapshot({"g", name, ""})));
    } else {
      const std::string victim = snapshots[pair_.random.below(snapshots.size())].name;
      ASSERT_TRUE(pair_.run(node.control().delete_snapshot("g", victim)));
    }
  }

  void change_volumes() {
    PairNode& primary = pair_.world.primary();
    if (other_) {
      ASSERT_TRUE(pair_.run(primary.delete_volume("w")));
    } else {
      ASSERT_TRUE(pair_.run(primary.create_volume("w", kBlocks * kBlockBytes)));
      auto volume = primary.open_volume("w");
      ASSERT_TRUE(volume);
      IoBuffer data = IoBuffer::on_heap(kBlocks * kBlockBytes);
      std::memset(data.data(), 7, data.size());
      ASSERT_TRUE(pair_.run((*volume)->write(0, std::move(data), {})));
    }
    other_ = !other_;
  }

  /// The log is let go while the mirror is away: everything lies elsewhere there in one step.
  void copy_anew() {
    PairNode& primary = pair_.world.primary();
    const std::string address = pair_.world.mirror().address();
    ASSERT_TRUE(pair_.run(primary.control().remove_mirror("g", address)));
    const Lsn mirror_at = pair_.world.mirror().group()->head().lsn;
    for (int i = 0; i < 50 && primary.group()->log_start() <= mirror_at; ++i) {
      ASSERT_TRUE(pair_.write(some_blocks(pair_.random, 20)));
      ASSERT_TRUE(pair_.run(primary.checkpoint()));
    }
    copied += primary.group()->log_start() > mirror_at ? 1 : 0;
    AddMirror request{"g", address, mode_};
    ASSERT_TRUE(pair_.run(primary.control().add_mirror(request)));
    ASSERT_TRUE(pair_.level()) << "seed " << seed_;
  }

  void one_step(std::size_t i) {
    auto& random = pair_.random;
    switch (random.below(12)) {
      case 0:
      case 1:
        change_snapshots(i);
        break;
      case 2: {
        PairNode& node = random.chance(1, 2) ? pair_.world.primary() : pair_.world.mirror();
        ASSERT_TRUE(pair_.run(node.checkpoint()));
        break;
      }
      case 3:
        change_volumes();
        break;
      case 4:
        if (random.chance(1, 3)) copy_anew();
        break;
      default:
        ASSERT_TRUE(pair_.write(some_blocks(random, random.between(1, 60))));
    }
    pair_.world.runtime().run_for(Nanoseconds(random.below(100'000'000)));
  }

  std::uint64_t seed_;
  ReplicationMode mode_;
  DamagedPair pair_;
  bool other_ = false;
};

TEST(Scrub, CallsNothingDamagedThatIsNot) {
  SimLog log;
  std::size_t finished = 0, copied = 0;
  for (const std::uint64_t seed : seeds_to_run(200, 20)) {
    BusyLife life(seed);
    life.run(60);
    finished += life.finished;
    copied += life.copied;
    if (HasFatalFailure()) FAIL() << "seed " << seed << "\n" << log.text();
  }
  if (std::getenv("TANDEM_SEED") == nullptr) {
    EXPECT_GT(finished, 100u);
    EXPECT_GT(copied, 5u);
  }
}

}  // namespace
}  // namespace tandem::sim
