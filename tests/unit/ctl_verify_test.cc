// tandem verify: copies are compared piece by piece however much each answers at once, and where
// they differ it is said which one is older; the state that is compared is made and deleted again.
#include <random>

#include "ctl/content_compare.h"
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

constexpr std::uint64_t kPieceBlocks = 256;
constexpr std::uint32_t kZeroes = 0x98f94189;  // CRC-32C of a block of zeroes

/// What a node holds of one volume, by block.
struct FakeCopy {
  std::map<std::uint64_t, ContentBlock> blocks;
  std::set<std::uint64_t> unreadable;  // pieces
  std::uint64_t pieces = 4;
  std::uint64_t at_once = 1;  // pieces per answer

  void put(std::uint64_t number, std::uint64_t lsn, std::uint32_t crc) {
    blocks[number] = {number, Lsn(lsn), crc};
  }
  ContentPiece piece(std::uint64_t number) const {
    ContentPiece piece{.number = number, .digest = {}, .blocks = 0, .readable = true};
    if (unreadable.count(number) != 0) {
      piece.readable = false;
      return piece;
    }
    const auto end = blocks.lower_bound((number + 1) * kPieceBlocks);
    for (auto it = blocks.lower_bound(number * kPieceBlocks); it != end; ++it) {
      ++piece.blocks;
      if (it->second.crc32c == kZeroes) continue;
      piece.digest = Digest((piece.digest.value * 31 + it->first) * 31 + it->second.crc32c + 1);
    }
    return piece;
  }
  ContentReport answer(const ContentRequest& request) const {
    ContentReport report;
    report.next = std::min(pieces, request.first + (request.detail ? 1 : at_once));
    report.end = report.next == pieces;
    for (auto number = request.first; number < report.next; ++number) {
      const auto held = piece(number);
      if (held.blocks != 0 || !held.readable) report.pieces.push_back(held);
      if (!request.detail || !held.readable) continue;
      for (const auto& [block, content] : blocks) {
        if (block / kPieceBlocks == number) report.blocks.push_back(content);
      }
    }
    return report;
  }
};

class VerifyCommand : public CommandTest {
 protected:
  VerifyCommand() {
    SnapshotStatus snapshot;
    snapshot.name = "s";
    snapshot.lsn = Lsn(300);
    snapshot.volumes = {{"disk", kPieceBlocks * kBlockBytes * 4}};
    for (auto* node : {&nodes["a:1"], &nodes["b:1"]}) {
      node->status.groups[0].snapshots = {snapshot};
      node->snapshot = snapshot;
    }
    for (auto* copy : {&a_, &b_}) {
      for (std::uint64_t block = 0; block < 600; block += 3)
        copy->put(block, 10 + block, static_cast<std::uint32_t>(block));
    }
    nodes["a:1"].content = [this](const ContentRequest& r) { return a_.answer(r); };
    nodes["b:1"].content = [this](const ContentRequest& r) { return b_.answer(r); };
  }
  bool called(const std::string& address, const std::string& call) {
    const auto& calls = nodes[address].calls;
    return std::find(calls.begin(), calls.end(), call) != calls.end();
  }
  FakeCopy a_, b_;
};

TEST_F(VerifyCommand, EqualCopiesAreSaidToBe) {
  b_.at_once = 3;
  EXPECT_EQ(at_a("verify vms --snapshot s"), 0) << err.str();
  EXPECT_TRUE(says("Group vms at record 300, all data read and checked")) << out.str();
  EXPECT_TRUE(says("alpha: 200 blocks, none damaged"));
  EXPECT_TRUE(says("beta: 200 blocks, none damaged"));
  EXPECT_TRUE(says("the copies are identical"));
  EXPECT_TRUE(called("b:1", "check disk@s of vms from 0 reading"));
  EXPECT_FALSE(called("a:1", "delete snapshot vms s"));
  EXPECT_EQ(at_a("verify vms --snapshot s --quick --json"), 0);
  EXPECT_EQ(json()["good"], true);
  EXPECT_EQ(json()["read"], false);
  EXPECT_EQ(json()["copies"][1]["blocks"], 200);
  EXPECT_TRUE(called("b:1", "check disk@s of vms from 0"));
}

TEST_F(VerifyCommand, WithoutASnapshotItMakesOneAndDeletesItEverywhere) {
  EXPECT_EQ(at_a("verify vms"), 0) << err.str();
  ASSERT_FALSE(nodes["a:1"].calls.empty());
  EXPECT_EQ(nodes["a:1"].calls.front().rfind("snapshot vms verify-", 0), 0u);
  EXPECT_EQ(nodes["a:1"].calls.back(), "delete snapshot vms s");
  EXPECT_EQ(nodes["b:1"].calls.back(), "delete snapshot vms s");
  // Also when it ends badly.
  nodes["b:1"].content = [](const ContentRequest&) {
    return Error{ErrorCode::kIo, "the device is gone"};
  };
  EXPECT_EQ(at_a("verify vms"), 1);
  EXPECT_TRUE(complains("node beta: the device is gone")) << err.str();
  EXPECT_EQ(nodes["a:1"].calls.back(), "delete snapshot vms s");
}

TEST_F(VerifyCommand, TheOlderVersionIsTheBadCopy) {
  b_.put(30, 39, 1234);
  b_.put(300, 310, 99);  // the same record as alpha's
  a_.put(301, 311, 5);
  EXPECT_EQ(at_a("verify vms --snapshot s"), 6);
  EXPECT_TRUE(says("THE COPIES DIFFER in 3 blocks")) << out.str();
  EXPECT_TRUE(
      says("disk at byte 122880: alpha has what was written by record 40, beta has what was "
           "written by record 39; the bad copy is that of beta"));
  EXPECT_TRUE(says("one record and different content: which copy is right cannot be told"));
  EXPECT_TRUE(says("beta has zeroes of unknown age"));
  EXPECT_EQ(at_a("verify vms --snapshot s --json"), 6);
  const auto result = json();
  EXPECT_EQ(result["good"], false);
  EXPECT_EQ(result["differing_blocks"], 3);
  EXPECT_EQ(result["copies"][0]["older_blocks"], 0);
  EXPECT_EQ(result["copies"][1]["older_blocks"], 1);
  EXPECT_EQ(result["differences"][0]["byte"], 30 * 4096);
  EXPECT_EQ(result["differences"][0]["versions"][1]["lsn"], 39);
}

TEST_F(VerifyCommand, ZeroesAreEqualHoweverTheyCame) {
  b_.put(1, 77, kZeroes);
  EXPECT_EQ(at_a("verify vms --snapshot s"), 0);
  EXPECT_TRUE(says("identical"));
}

TEST_F(VerifyCommand, DamageIsAttentionThoughTheCopiesAgree) {
  nodes["b:1"].content = [this](const ContentRequest& r) {
    auto report = b_.answer(r);
    if (r.first == 0 && r.read) {
      report.bad_blocks = 2;
      report.repaired_blocks = 1;
      report.findings = {{"disk", "s", 8192, "given back by a peer"}};
    }
    return report;
  };
  EXPECT_EQ(at_a("verify vms --snapshot s"), 6);
  EXPECT_TRUE(says("beta: 200 blocks, 2 DAMAGED (1 given back by a peer)")) << out.str();
  EXPECT_TRUE(says("disk at byte 8192: given back by a peer"));
  EXPECT_TRUE(says("identical"));
  nodes["b:1"].content = [this](const ContentRequest& r) { return b_.answer(r); };
  b_.unreadable = {1};
  EXPECT_EQ(at_a("verify vms --snapshot s"), 6);
  EXPECT_TRUE(says("1 MiB below damaged map nodes")) << out.str();
}

TEST_F(VerifyCommand, WhatIsMissingIsSaid) {
  EXPECT_EQ(at_a("verify none"), 5);
  EXPECT_EQ(at_a("verify vms --snapshot t"), 4);
  EXPECT_TRUE(complains("does not have snapshot t")) << err.str();
  EXPECT_EQ(at_a("verify vms --rate much"), 2);
  EXPECT_EQ(at_b("verify vms"), 4);  // the mirror alone makes no snapshot
  EXPECT_TRUE(complains("--snapshot")) << err.str();
  EXPECT_EQ(at_b("verify vms --snapshot s"), 0);
  EXPECT_TRUE(says("no other copy to compare it with")) << out.str();
  nodes["b:1"].status.groups[0].snapshots[0].lsn = Lsn(299);
  EXPECT_EQ(at_a("verify vms --snapshot s"), 4);
  EXPECT_TRUE(complains("not the same state everywhere")) << err.str();
  nodes["a:1"].up = nodes["b:1"].up = false;
  EXPECT_EQ(at_a("verify vms"), 3);
}

/// Against a model: three copies with random differences, each answering as much as it likes.
TEST(ContentCompare, FindsExactlyWhatDiffers) {
  std::size_t different = 0;
  for (unsigned seed = 1; seed <= 200; ++seed) {
    std::mt19937 random(seed);
    const auto below = [&](std::uint64_t n) { return random() % n; };
    std::vector<FakeCopy> copies(3);
    std::set<std::uint64_t> differ;
    for (auto& copy : copies) {
      copy.pieces = 20;
      copy.at_once = 1 + below(7);
    }
    for (std::uint64_t i = 0; i < 200; ++i) {
      const auto block = below(20 * kPieceBlocks);
      const auto lsn = 1 + below(1000);
      for (auto& copy : copies) copy.put(block, lsn, static_cast<std::uint32_t>(block));
    }
    for (std::uint64_t i = below(6); i > 0; --i) {
      const auto block = below(20 * kPieceBlocks);
      copies[below(3)].put(block, 5000 + i, static_cast<std::uint32_t>(70000 + i));
      differ.insert(block);
    }
    ContentCompare compare({"a", "b", "c"});
    compare.begin("v");
    while (!compare.is_done()) {
      for (const auto copy : compare.behind())
        compare.take(copy, copies[copy].answer({.volume = "v", .first = compare.next(copy)}));
      for (const auto piece : compare.settle()) {
        std::vector<ContentReport> reports;
        for (const auto& copy : copies)
          reports.push_back(copy.answer({.volume = "v", .first = piece, .detail = true}));
        compare.take_detail(reports);
      }
    }
    const auto result = compare.json();
    ASSERT_EQ(result["differing_blocks"], differ.size()) << "seed " << seed;
    std::set<std::uint64_t> found;
    for (const auto& difference : result["differences"])
      found.insert(difference["byte"].get<std::uint64_t>() / kBlockBytes);
    EXPECT_EQ(found, differ) << "seed " << seed;
    EXPECT_EQ(compare.all_good(), differ.empty());
    different += differ.size();
  }
  EXPECT_GT(different, 100u);
}

}  // namespace
}  // namespace tandem::ctl
