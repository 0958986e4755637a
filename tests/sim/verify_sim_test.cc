// What copies say of their content: the same on both nodes however it got there, another exactly
// where another snapshot differs, and what is damaged is named whether or not a peer can help.
#include <gtest/gtest.h>

#include "tests/sim/damaged_pair.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

Result<ContentReport> ask(DamagedPair& pair, PairNode& node, const std::string& snapshot,
                          bool read = true, std::uint64_t first = 0, bool detail = false) {
  ContentRequest request{"g", snapshot, "v", first, read, detail};
  return pair.run(node.control().check_content(std::move(request)));
}

/// The volume is smaller than a piece: one answer is all.
ContentReport content(DamagedPair& pair, PairNode& node, const std::string& snapshot,
                      bool read = true) {
  const auto report = ask(pair, node, snapshot, read);
  EXPECT_TRUE(report) << report.error().message;
  EXPECT_TRUE(report && report->end);
  return report ? *report : ContentReport{};
}

std::vector<std::uint64_t> some(SimRandom& random, std::size_t count) {
  std::set<std::uint64_t> chosen;
  while (chosen.size() < count) chosen.insert(random.below(kBlocks));
  return {chosen.begin(), chosen.end()};
}

void expect_equal(const ContentReport& a, const ContentReport& b) {
  ASSERT_EQ(a.pieces.size(), b.pieces.size());
  for (std::size_t i = 0; i < a.pieces.size(); ++i) {
    EXPECT_EQ(a.pieces[i].number, b.pieces[i].number);
    EXPECT_EQ(a.pieces[i].digest, b.pieces[i].digest);
    EXPECT_TRUE(a.pieces[i].readable && b.pieces[i].readable);
  }
}

TEST(Verify, BothCopiesSayTheSame) {
  SimLog log;
  for (std::uint64_t seed = 1; seed <= 10; ++seed) {
    DamagedPair pair(seed, static_cast<ReplicationMode>(seed % 3));
    ASSERT_TRUE(pair.ok());
    std::set<std::uint64_t> digests;
    for (const std::string name : {"s1", "s2", "s3"}) {
      ASSERT_TRUE(pair.snapshot(name));
      ASSERT_TRUE(pair.write(some(pair.random, pair.random.between(1, 30))));
      auto volume = pair.world.primary().open_volume("v");
      ASSERT_TRUE(volume);
      const std::uint64_t at = pair.random.below(kBlocks - 8) * kBlockBytes;
      const bool zero = pair.random.chance(1, 2);
      ASSERT_TRUE(pair.run(zero ? (*volume)->write_zeroes(at, 8 * kBlockBytes, {})
                                : (*volume)->discard(at, 8 * kBlockBytes, {})));
    }
    ASSERT_TRUE(pair.level());
    for (const std::string name : {"s1", "s2", "s3"}) {
      const ContentReport a = content(pair, pair.world.primary(), name);
      const ContentReport b = content(pair, pair.world.mirror(), name);
      expect_equal(a, b);
      expect_equal(a, content(pair, pair.world.primary(), name, false));
      EXPECT_EQ(a.bad_blocks + b.bad_blocks, 0u);
      for (const auto& piece : a.pieces) digests.insert(piece.digest.value);
    }
    EXPECT_EQ(digests.size(), 3u) << "three states";
  }
}

TEST(Verify, DetailNamesEachBlockAndItsRecord) {
  SimLog log;
  DamagedPair pair(3);
  ASSERT_TRUE(pair.ok());
  ASSERT_TRUE(pair.snapshot("s1"));
  ASSERT_TRUE(pair.write({5, 9}));
  ASSERT_TRUE(pair.snapshot("s2"));
  PairNode& mirror = pair.world.mirror();
  const auto one = ask(pair, mirror, "s1", false, 0, true);
  const auto two = ask(pair, mirror, "s2", false, 0, true);
  ASSERT_TRUE(one && two);
  ASSERT_EQ(one->blocks.size(), kBlocks);
  ASSERT_EQ(two->blocks.size(), kBlocks);
  for (std::size_t i = 0; i < kBlocks; ++i) {
    EXPECT_EQ(one->blocks[i].number, i);
    const bool changed = i == 5 || i == 9;
    EXPECT_EQ(one->blocks[i].crc32c != two->blocks[i].crc32c, changed) << i;
    EXPECT_EQ(one->blocks[i].lsn < two->blocks[i].lsn, changed) << i;
  }
}

TEST(Verify, NamesWhatIsDamagedOnWhichNode) {
  SimLog log;
  for (std::uint64_t seed = 21; seed <= 25; ++seed) {
    DamagedPair pair(seed);
    ASSERT_TRUE(pair.ok());
    ASSERT_TRUE(pair.snapshot("s"));
    const Stamps then = pair.expected;
    PairNode& mirror = pair.world.mirror();
    const auto rotten = some(pair.random, 5);
    std::vector<std::uint32_t> stamps;
    for (const auto block : rotten) stamps.push_back(then[block]);
    pair.rot(mirror, stamps);
    // The map alone does not show it.
    EXPECT_EQ(content(pair, mirror, "s", false).bad_blocks, 0u);
    const ContentReport found = content(pair, mirror, "s");
    EXPECT_EQ(found.bad_blocks, 5u);
    EXPECT_EQ(found.repaired_blocks, 5u);
    ASSERT_EQ(found.findings.size(), 5u);
    for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(found.findings[i].byte, rotten[i] * kBlockBytes);
    EXPECT_EQ(content(pair, pair.world.primary(), "s").bad_blocks, 0u);
    ASSERT_TRUE(pair.world.until([&] { return pair.damage(mirror).repaired_blocks == 5; }, 60s));
    EXPECT_EQ(content(pair, mirror, "s").bad_blocks, 0u);
    // On both: the mirror cannot help. (The primary may still have it in memory.)
    pair.rot(mirror, {then[rotten[0]]});
    pair.rot(pair.world.primary(), {then[rotten[0]]});
    const ContentReport lost = content(pair, pair.world.primary(), "s");
    EXPECT_EQ(lost.bad_blocks, 1u);
    EXPECT_EQ(lost.repaired_blocks, 0u);
  }
}

TEST(Verify, BelowADamagedMapNodeNothingIsKnown) {
  SimLog log;
  DamagedPair pair(6);
  ASSERT_TRUE(pair.ok());
  ASSERT_TRUE(pair.snapshot("s"));
  PairNode& primary = pair.world.primary();
  primary.stop();
  ASSERT_TRUE(primary.start());
  ASSERT_TRUE(pair.level());
  const auto root = primary.group()->snapshots().at(0).volumes.at(0).root;
  primary.disk().corrupt(root.where.value * kBlockBytes, kBlockBytes);
  const ContentReport found = content(pair, primary, "s");
  ASSERT_EQ(found.pieces.size(), 1u);
  EXPECT_FALSE(found.pieces[0].readable);
  ASSERT_EQ(found.findings.size(), 1u);
  EXPECT_NE(found.findings[0].outcome.find("map node"), std::string::npos);
  EXPECT_TRUE(content(pair, pair.world.mirror(), "s").pieces.at(0).readable);
}

TEST(Verify, GoesThroughALargeVolumeInBoundedSteps) {
  SimLog log;
  DamagedPair pair(7);
  ASSERT_TRUE(pair.ok());
  PairNode& primary = pair.world.primary();
  constexpr std::uint64_t kPieces = 40000;
  ASSERT_TRUE(pair.run(primary.create_volume("w", kPieces << 20)));
  auto volume = primary.open_volume("w");
  ASSERT_TRUE(volume);
  std::set<std::uint64_t> written;
  for (int i = 0; i < 10; ++i) {
    const std::uint64_t piece = pair.random.below(kPieces);
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    stamp_block(data, 1'000'000 + static_cast<std::uint32_t>(i));
    ASSERT_TRUE(pair.run((*volume)->write(piece << 20, std::move(data), {})));
    written.insert(piece);
  }
  ASSERT_TRUE(pair.snapshot("s"));
  std::set<std::uint64_t> found;
  int calls = 0;
  for (std::uint64_t first = 0;;) {
    ContentRequest request{"g", "s", "w", first, true, false};
    const auto report = pair.run(pair.world.mirror().control().check_content(request));
    ASSERT_TRUE(report) << report.error().message;
    for (const auto& piece : report->pieces) found.insert(piece.number);
    ++calls;
    if (report->end) break;
    ASSERT_GT(report->next, first);
    first = report->next;
  }
  EXPECT_EQ(found, written);
  EXPECT_EQ(calls, 3);
}

TEST(Verify, WhatIsNotThereIsSaid) {
  SimLog log;
  DamagedPair pair(8);
  ASSERT_TRUE(pair.ok());
  ASSERT_TRUE(pair.snapshot("s"));
  PairNode& primary = pair.world.primary();
  const auto code = [&](ContentRequest request) {
    return pair.run(primary.control().check_content(std::move(request))).error().code;
  };
  EXPECT_EQ(code({"none", "s", "v"}), ErrorCode::kNotFound);
  EXPECT_EQ(code({"g", "t", "v"}), ErrorCode::kNotFound);
  EXPECT_EQ(code({"g", "s", "w"}), ErrorCode::kNotFound);
  const auto beyond = ask(pair, primary, "s", true, 99);
  ASSERT_TRUE(beyond);
  EXPECT_TRUE(beyond->end && beyond->pieces.empty());
}

}  // namespace
}  // namespace tandem::sim
