// Promise 4: a node never returns a block whose checksum does not match: it repairs it from its
// peer, or answers an I/O error. Rot, lost and misdirected writes on one node of a pair, on the
// primary, on the mirror and in snapshots; the same block damaged on both; with a link that breaks
// and a mirror that is promoted at that moment.
#include <gtest/gtest.h>

#include "format/checksum.h"
#include "tests/sim/damaged_pair.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

/// Rewriting happens behind the reader's back.
bool wait_repaired(DamagedPair& pair, PairNode& node, std::uint64_t blocks) {
  return pair.world.until([&] { return pair.damage(node).repaired_blocks >= blocks; }, 10s);
}

std::vector<std::uint64_t> some_blocks(SimRandom& random, std::size_t count) {
  std::set<std::uint64_t> chosen;
  while (chosen.size() < count) chosen.insert(random.below(kBlocks));
  return {chosen.begin(), chosen.end()};
}

std::vector<std::uint32_t> stamps_of(const std::vector<std::uint64_t>& blocks, const Stamps& all) {
  std::vector<std::uint32_t> out;
  for (const auto block : blocks) out.push_back(all[block]);
  return out;
}

TEST(Damage, RotOnThePrimaryComesBackFromTheMirror) {
  SimLog log;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok()) << "seed " << seed << "\n" << log.text();
    PairNode& primary = pair.world.primary();
    const Places places = pair.places(primary);
    const auto rotten = some_blocks(pair.random, 7);
    pair.rot(primary, stamps_of(rotten, pair.expected));
    auto found = pair.read(primary, "v");
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(*found, pair.expected) << "seed " << seed;
    ASSERT_TRUE(wait_repaired(pair, primary, rotten.size())) << "seed " << seed;
    for (const auto block : rotten) {
      const auto stamp = pair.expected[block];
      EXPECT_TRUE(pair.is_whole(primary, stamp, places.at(stamp))) << "seed " << seed;
    }
    const DamageStatus damage = pair.damage(primary);
    EXPECT_EQ(damage.fetched_blocks, rotten.size());
    EXPECT_EQ(damage.repaired_blocks, rotten.size());
    EXPECT_EQ(damage.unrepairable_blocks, 0u);
    EXPECT_EQ(damage.last_volume, "v");
    EXPECT_EQ(pair.damage(pair.world.mirror()).fetched_blocks, 0u);
    // Nothing is asked for again.
    ASSERT_TRUE(pair.read(primary, "v"));
    EXPECT_EQ(pair.damage(primary).fetched_blocks, rotten.size());
  }
}

TEST(Damage, RotInASnapshotOfTheMirrorComesBackFromThePrimary) {
  SimLog log;
  std::size_t overwritten = 0;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok()) << "seed " << seed;
    PairNode& mirror = pair.world.mirror();
    ASSERT_TRUE(pair.snapshot("s"));
    const Stamps then = pair.expected;
    // The primary keeps some of what the snapshot maps only in its own snapshot.
    const auto changed = some_blocks(pair.random, kBlocks / 2);
    ASSERT_TRUE(pair.write(changed));
    ASSERT_TRUE(pair.level());
    const auto rotten = some_blocks(pair.random, 9);
    pair.rot(mirror, stamps_of(rotten, then));
    for (const auto block : rotten) {
      overwritten += then[block] != pair.expected[block] ? 1 : 0;
    }
    auto found = pair.read(mirror, "v@s");
    ASSERT_TRUE(found) << "seed " << seed << ": " << found.error().message << "\n" << log.text();
    EXPECT_EQ(*found, then);
    ASSERT_TRUE(wait_repaired(pair, mirror, rotten.size())) << "seed " << seed;
    EXPECT_EQ(pair.damage(mirror).unrepairable_blocks, 0u);
  }
  EXPECT_GT(overwritten, 10u);
}

TEST(Damage, WhatACopyOverwroteAMomentAgoIsFoundInItsLog) {
  SimLog log;
  DamagedPair pair(3);
  ASSERT_TRUE(pair.ok());
  store::Group& group = *pair.world.mirror().group();
  ASSERT_TRUE(pair.run(group.checkpoint()));
  ASSERT_TRUE(pair.write({5}));
  IoBuffer block = IoBuffer::on_heap(kBlockBytes);
  stamp_block(block, pair.expected[5]);
  const BlockVersion version{group.volumes().at(0).id, VolumeBlock{5}, group.tail().lsn,
                             format::crc32c(block.bytes())};
  ASSERT_TRUE(pair.write({5}));
  ASSERT_TRUE(pair.level());
  {
    auto found = pair.run(group.find_block(version));
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(std::memcmp(found->data(), block.data(), kBlockBytes), 0);
  }
  for (const int wrong : {0, 1, 2, 3}) {
    BlockVersion other = version;
    if (wrong == 0) other.lsn = version.lsn.next();  // the newer one, with the older's checksum
    if (wrong == 1) other.crc32c ^= 1;
    if (wrong == 2) other.block = VolumeBlock{6};
    if (wrong == 3) other.volume = VolumeId{77};
    auto found = pair.run(group.find_block(other));
    ASSERT_FALSE(found) << wrong;
    EXPECT_EQ(found.error().code, ErrorCode::kNotFound) << found.error().message;
  }
}

TEST(Damage, LostAndMisdirectedWritesAreRepaired) {
  SimLog log;
  for (std::uint64_t seed = 21; seed <= 30; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok());
    PairNode& primary = pair.world.primary();
    const Places places = pair.places(primary);
    const auto two = some_blocks(pair.random, 2);
    const auto victim = pair.expected[two[0]], writer = pair.expected[two[1]];
    // The write of one landed on the other; in its own place is something older.
    pair.plant(primary, places.at(victim), writer);
    pair.plant(primary, places.at(writer), 0xdead);
    auto found = pair.read(primary, "v");
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(*found, pair.expected) << "seed " << seed;
    ASSERT_TRUE(wait_repaired(pair, primary, 2));
    EXPECT_TRUE(pair.is_whole(primary, victim, places.at(victim)));
    EXPECT_TRUE(pair.is_whole(primary, writer, places.at(writer)));
  }
}

TEST(Damage, ASectorThatCannotBeReadIsGivenBackAndWritten) {
  SimLog log;
  DamagedPair pair(5);
  ASSERT_TRUE(pair.ok());
  PairNode& primary = pair.world.primary();
  pair.rot(primary, {pair.expected[9]});
  // The run fails as a whole, and the block once more by itself.
  for (std::uint64_t nth : {1, 2}) {
    primary.disk().inject({.kind = IoRequest::Kind::kRead, .nth = nth});
  }
  auto found = pair.read_block(primary, "v", 9);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_TRUE(wait_repaired(pair, primary, 1));
}

TEST(Damage, TheReaderGetsTheBlockAlsoWhenItCannotBeWrittenHere) {
  SimLog log;
  DamagedPair pair(6);
  ASSERT_TRUE(pair.ok());
  PairNode& primary = pair.world.primary();
  pair.rot(primary, {pair.expected[40]});
  primary.disk().inject({.kind = IoRequest::Kind::kWrite, .nth = 1});
  auto found = pair.read_block(primary, "v", 40);
  ASSERT_TRUE(found) << found.error().message;
  ASSERT_TRUE(pair.world.until(
      [&] {
        return pair.damage(primary).last_outcome.find("cannot be written") != std::string::npos;
      },
      10s))
      << pair.damage(primary).last_outcome;
  EXPECT_EQ(pair.damage(primary).repaired_blocks, 0u);
  EXPECT_FALSE(primary.group()->stopped());
  // The disk is well again: the next reader repairs it.
  ASSERT_TRUE(pair.read_block(primary, "v", 40));
  EXPECT_TRUE(wait_repaired(pair, primary, 1));
}

TEST(Damage, OnBothNodesItIsAnIoErrorForThatBlockAlone) {
  SimLog log;
  for (std::uint64_t seed = 31; seed <= 36; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok());
    PairNode& primary = pair.world.primary();
    const auto lost = pair.random.below(kBlocks);
    pair.rot(primary, {pair.expected[lost]});
    pair.rot(pair.world.mirror(), {pair.expected[lost]});
    for (std::uint64_t block = 0; block < kBlocks; ++block) {
      auto found = pair.read_block(primary, "v", block);
      EXPECT_EQ(found.has_value(), block != lost);
      if (!found) {
        EXPECT_EQ(found.error().code, ErrorCode::kCorrupt);
        EXPECT_NE(found.error().message.find("damaged there too"), std::string::npos)
            << found.error().message;
      }
    }
    ASSERT_FALSE(pair.read_block(primary, "v", lost));
    EXPECT_EQ(pair.damage(primary).unrepairable_blocks, 1u);
    // The owner of the data can make it good, on both nodes.
    ASSERT_TRUE(pair.write({lost}));
    ASSERT_TRUE(pair.level());
    auto found = pair.read(primary, "v");
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(*found, pair.expected);
  }
}

TEST(Damage, WithoutItsPeerItIsAnErrorAndGoodAgainWithIt) {
  SimLog log;
  DamagedPair pair(8);
  ASSERT_TRUE(pair.ok());
  PairNode& primary = pair.world.primary();
  const auto stamp = pair.expected[17];
  pair.rot(primary, {stamp});
  pair.world.network().set_reachable(pair.world.mirror().address(), false);
  pair.world.network().cut(pair.world.mirror().address());
  ASSERT_TRUE(pair.world.until([&] { return !pair.is_following(); }, 10s));
  const auto began = pair.world.runtime().now();
  auto found = pair.read_block(primary, "v", 17);
  ASSERT_FALSE(found);
  EXPECT_LT(pair.world.runtime().now() - began, 5s);
  EXPECT_EQ(pair.damage(primary).unrepairable_blocks, 1u);
  pair.world.network().set_reachable(pair.world.mirror().address(), true);
  ASSERT_TRUE(pair.level());
  found = pair.read_block(primary, "v", 17);
  ASSERT_TRUE(found) << found.error().message;
  EXPECT_EQ(pair.damage(primary).unrepairable_blocks, 0u);
}

TEST(Damage, ASilentPeerDelaysTheReaderNoLongerThanItsTimeLimit) {
  SimLog log;
  DamagedPair pair(9);
  ASSERT_TRUE(pair.ok());
  PairNode& primary = pair.world.primary();
  pair.rot(primary, {pair.expected[17]});
  pair.world.network().swallow(pair.world.mirror().address());
  const auto began = pair.world.runtime().now();
  ASSERT_FALSE(pair.read_block(primary, "v", 17));
  EXPECT_GE(pair.world.runtime().now() - began, 500ms);
  EXPECT_LT(pair.world.runtime().now() - began, 5s);
}

/// Reads a block at some moment and keeps what came of it.
Task<void> read_into(std::shared_ptr<Volume> volume, std::uint64_t block,
                     std::optional<Result<IoBuffer>>& out) {
  auto got = co_await volume->read(block * kBlockBytes, kBlockBytes);
  out = std::move(got);
}

TEST(Damage, APromotionInTheMiddleLeavesNoReaderWaiting) {
  SimLog log;
  std::size_t right = 0, failed = 0;
  for (std::uint64_t seed = 41; seed <= 80; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok());
    PairNode& primary = pair.world.primary();
    const auto block = pair.random.below(kBlocks);
    pair.rot(primary, {pair.expected[block]});
    auto volume = primary.open_volume("v");
    ASSERT_TRUE(volume);
    std::optional<Result<IoBuffer>> got;
    spawn(read_into(*volume, block, got));
    pair.world.runtime().run_for(Nanoseconds(pair.random.below(1'000'000)));
    if (seed % 2 != 0) pair.world.network().cut(pair.world.mirror().address());
    auto receipt = pair.run(pair.world.mirror().control().promote("g", true));
    ASSERT_TRUE(receipt) << receipt.error().message;
    ASSERT_TRUE(pair.world.until([&] { return got.has_value(); }, 10s)) << "seed " << seed;
    if (*got) {
      std::uint32_t stamp = 0;
      std::memcpy(&stamp, (*got)->data(), 4);
      EXPECT_EQ(stamp, pair.expected[block]);
      ++right;
    } else {
      ++failed;
    }
    pair.world.swap_roles();
    auto found = pair.read(pair.world.primary(), "v");
    ASSERT_TRUE(found) << found.error().message;
    EXPECT_EQ(*found, pair.expected);
  }
  EXPECT_GT(right, 0u);
  EXPECT_GT(failed, 0u);
}

/// Where the block is known from is read from the disk, states that nobody has read since the start
/// among it: replication may end meanwhile.
TEST(Damage, AStopInTheMiddleLeavesNoReaderWaiting) {
  SimLog log;
  std::size_t failed = 0;
  for (std::uint64_t seed = 101; seed <= 140; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok());
    PairNode& primary = pair.world.primary();
    const auto block = pair.random.below(kBlocks);
    ASSERT_TRUE(pair.snapshot("s") && pair.write({(block + 1) % kBlocks}) && pair.snapshot("t"));
    primary.stop();
    ASSERT_TRUE(primary.start());
    ASSERT_TRUE(pair.level());
    pair.rot(primary, {pair.expected[block]});
    auto volume = primary.open_volume("v");
    ASSERT_TRUE(volume);
    std::optional<Result<IoBuffer>> got;
    spawn(read_into(*volume, block, got));
    pair.world.runtime().run_for(Nanoseconds(pair.random.below(2'000'000)));
    volume->reset();
    primary.stop();
    ASSERT_TRUE(got) << "seed " << seed;
    failed += *got ? 0 : 1;
  }
  EXPECT_GT(failed, 0u);
}

Task<void> write_into(std::shared_ptr<Volume> volume, IoBuffer data, std::optional<Status>& out) {
  auto done = co_await volume->write(0, std::move(data), {});
  out = std::move(done);
}

/// A power cut took records from the mirror, which the primary then cannot read either. Each time
/// that the mirror was back, as it seemed, the writers waited for it anew.
TEST(Damage, WritersDoNotWaitForAMirrorThatCannotBeFed) {
  SimLog log;
  std::size_t tested = 0;
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok());
    PairNode& primary = pair.world.primary();
    PairNode& mirror = pair.world.mirror();
    if (primary.pool().options().recent_bytes_max > 64 << 10) continue;  // it would not read
    ASSERT_TRUE(pair.write({17}));
    const Lsn lacking = primary.group()->tail().lsn;
    auto volume = primary.open_volume("v");
    ASSERT_TRUE(volume);
    IoBuffer more = IoBuffer::on_heap(40 * kBlockBytes);
    stamp_block(more, 1);
    ASSERT_TRUE(pair.run((*volume)->write(20 * kBlockBytes, std::move(more), {})));
    pair.rot(primary, {pair.expected[17]});
    primary.pause();  // it does not see its mirror away
    mirror.disk().power_off({.mode = CutOptions::Mode::kDropAll});
    mirror.bury();
    ASSERT_TRUE(mirror.start());
    primary.resume();
    if (mirror.group()->head().lsn >= lacking) continue;
    ++tested;
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    stamp_block(data, 1);
    std::optional<Status> done;
    spawn(write_into(*volume, std::move(data), done));
    ASSERT_TRUE(pair.world.until([&] { return done.has_value(); }, 30s)) << seed << log.text();
    EXPECT_TRUE(*done);
    const auto slot = primary.status().slots.at(0);
    EXPECT_FALSE(slot.in_sync);
    EXPECT_NE(log.text().find("event=slot.degraded"), std::string::npos);
  }
  EXPECT_GT(tested, 0u);
}

/// Lives in which one node at a time rots, at places that are in use or not, while a client writes,
/// snapshots come and go and the link breaks. Whoever reads gets the right bytes or an error, and
/// once the link holds, the right bytes.
class RottingLife {
 public:
  explicit RottingLife(std::uint64_t seed) : seed_(seed), pair_(seed, mode_of(seed)) {}

  void run(std::size_t rounds) {
    ASSERT_TRUE(pair_.ok()) << "seed " << seed_;
    for (std::size_t round = 0; round < rounds && !::testing::Test::HasFatalFailure(); ++round) {
      one_round(round);
    }
  }
  std::uint64_t repaired() {
    return pair_.damage(pair_.world.primary()).repaired_blocks +
           pair_.damage(pair_.world.mirror()).repaired_blocks;
  }
  std::size_t refused = 0;

 private:
  static ReplicationMode mode_of(std::uint64_t seed) {
    return static_cast<ReplicationMode>(seed % 3);
  }

  void one_round(std::size_t round) {
    auto& random = pair_.random;
    PairNode& primary = pair_.world.primary();
    PairNode& victim = random.chance(1, 2) ? primary : pair_.world.mirror();
    const std::string snapshot = "s" + std::to_string(round);
    ASSERT_TRUE(pair_.snapshot(snapshot));
    const Stamps then = pair_.expected;
    ASSERT_TRUE(pair_.write(some_blocks(random, random.between(1, 30))));
    ASSERT_TRUE(pair_.level()) << "seed " << seed_;
    const Places places = pair_.places(victim);
    for (const auto& [stamp, at] : places) {
      if (random.chance(1, 6)) victim.disk().corrupt(at, kBlockBytes);
    }
    const bool cut = random.chance(1, 3);
    if (cut) pair_.world.network().cut(pair_.world.mirror().address());
    if (&victim == &primary) {
      look(primary, "v", pair_.expected, cut);
      ASSERT_TRUE(pair_.write(some_blocks(random, 5)));  // whole blocks need no old content
      ASSERT_TRUE(pair_.run(primary.checkpoint()));
      look(primary, "v", pair_.expected, cut);
    }
    look(victim, "v@" + snapshot, then, cut);
    ASSERT_TRUE(pair_.level()) << "seed " << seed_;
    look(victim, "v@" + snapshot, then, false);
    if (&victim == &primary) look(primary, "v", pair_.expected, false);
    // All that rotted must be whole before the other node may rot.
    for (std::size_t old = 0; old <= round; ++old) {
      const auto kept = pair_.read(victim, "v@s" + std::to_string(old));
      ASSERT_TRUE(kept || kept.error().code == ErrorCode::kNotFound) << kept.error().message;
    }
    heal_newest_state(victim);
    if (round >= 2 && random.chance(1, 2)) {
      const std::string gone = "s" + std::to_string(round - 2);
      (void)pair_.run(primary.control().delete_snapshot("g", gone));
      (void)pair_.run(pair_.world.mirror().control().delete_snapshot("g", gone));
    }
  }

  /// A mirror's newest state is not exported; a snapshot of it is, and maps the same blocks.
  void heal_newest_state(PairNode& victim) {
    if (&victim == &pair_.world.primary()) return;
    const std::string name = "now" + std::to_string(++looks_);
    ASSERT_TRUE(pair_.snapshot(name));
    look(victim, "v@" + name, pair_.expected, false);
    ASSERT_TRUE(pair_.run(pair_.world.primary().control().delete_snapshot("g", name)));
    ASSERT_TRUE(pair_.run(victim.control().delete_snapshot("g", name)));
  }

  void look(PairNode& node, const std::string& name, const Stamps& expected, bool may_fail) {
    auto found = pair_.read(node, name);
    if (!found) {
      ASSERT_TRUE(may_fail) << "seed " << seed_ << ": " << found.error().message;
      ++refused;
      return;
    }
    ASSERT_EQ(*found, expected) << "seed " << seed_ << ", " << node.name() << ", " << name;
  }

  std::uint64_t seed_;
  DamagedPair pair_;
  std::size_t looks_ = 0;
};

TEST(Damage, ManyRottingLives) {
  SimLog log;
  std::uint64_t repaired = 0;
  std::size_t refused = 0;
  for (const std::uint64_t seed : seeds_to_run(100, 25)) {
    RottingLife life(seed);
    life.run(8);
    repaired += life.repaired();
    refused += life.refused;
    if (HasFatalFailure()) FAIL() << "seed " << seed << "\n" << log.text();
  }
  if (std::getenv("TANDEM_SEED") == nullptr) {
    EXPECT_GT(repaired, 200u);
    EXPECT_GT(refused, 5u);
  }
}

}  // namespace
}  // namespace tandem::sim
