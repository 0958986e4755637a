// What an operator sees of the tree of kept states: parents with names, and each block once.
#include <gtest/gtest.h>

#include "control/kept_tree.h"

namespace tandem::control {
namespace {

using format::SnapshotId;
using format::SnapshotKind;
using format::SnapshotState;

SnapshotState state(std::uint32_t id, std::uint32_t parent, std::uint64_t mapped,
                    std::uint64_t held, SnapshotKind kind = SnapshotKind::kSnapshot) {
  SnapshotState s;
  s.id = SnapshotId(id);
  s.parent = SnapshotId(parent);
  s.kind = kind;
  s.name = kind == SnapshotKind::kMark ? "" : "s" + std::to_string(id);
  s.volumes.emplace_back().data_blocks = mapped;
  s.held.entries = held;
  return s;
}

KeptStates seen(const std::vector<SnapshotState>& states) {
  KeptStates all;
  for (const auto& state : states) all.push_back(&state);
  return all;
}

std::map<SnapshotId, KeptUse> uses_of(const std::vector<SnapshotState>& states, SnapshotId parent,
                                      std::uint64_t blocks) {
  return control::uses_of(seen(states), parent, blocks);
}

TEST(KeptTree, OfARowHoldsWhatItsSuccessorGaveUp) {
  const auto uses =
      uses_of({state(1, 0, 100, 0), state(2, 1, 110, 10), state(3, 2, 90, 40)}, SnapshotId(3), 65);
  ASSERT_EQ(uses.size(), 3u);
  EXPECT_EQ(uses.at(SnapshotId(1)).held_blocks, 10u);
  EXPECT_EQ(uses.at(SnapshotId(2)).held_blocks, 40u);
  EXPECT_EQ(uses.at(SnapshotId(3)).held_blocks, 15u) << "the rest: what the live state gave up";
  EXPECT_EQ(uses.at(SnapshotId(1)).parent, "");
  EXPECT_EQ(uses.at(SnapshotId(3)).parent, "s2");
}

TEST(KeptTree, OfABranchHoldsWhatItAloneMaps) {
  // s2 and s3 were abandoned by a rollback to s1: 30 blocks of s2's are new, 25 of s3's.
  const auto uses = uses_of(
      {state(1, 0, 100, 0), state(2, 1, 110, 20), state(3, 2, 105, 30, SnapshotKind::kBranch)},
      SnapshotId(1), 62);
  EXPECT_EQ(uses.at(SnapshotId(2)).held_blocks, 30u);
  EXPECT_EQ(uses.at(SnapshotId(3)).held_blocks, 25u);
  EXPECT_EQ(uses.at(SnapshotId(1)).held_blocks, 7u) << "replaced since by the live state";
  EXPECT_EQ(uses.at(SnapshotId(3)).parent, "s2");
}

TEST(KeptTree, WithoutNamesCountsForWhatCameBefore) {
  auto deleted = state(3, 2, 100, 5);
  deleted.being_deleted = true;
  const auto uses = uses_of({state(1, 0, 100, 0), state(2, 1, 100, 10, SnapshotKind::kMark),
                             deleted, state(4, 3, 100, 20, SnapshotKind::kPoint)},
                            SnapshotId(4), 36);
  ASSERT_EQ(uses.size(), 2u);
  EXPECT_EQ(uses.at(SnapshotId(1)).held_blocks, 35u);
  EXPECT_EQ(uses.at(SnapshotId(4)).held_blocks, 1u);
  EXPECT_EQ(uses.at(SnapshotId(4)).parent, "s1");
}

TEST(KeptTree, KnowsTheNearestName) {
  const std::vector<SnapshotState> states = {state(1, 0, 1, 0),
                                             state(2, 1, 1, 0, SnapshotKind::kMark),
                                             state(3, 0, 1, 0, SnapshotKind::kMark)};
  EXPECT_EQ(nearest_name(seen(states), SnapshotId(1)), "s1");
  EXPECT_EQ(nearest_name(seen(states), SnapshotId(2)), "s1");
  EXPECT_EQ(nearest_name(seen(states), SnapshotId(3)), "");
  EXPECT_EQ(nearest_name(seen(states), SnapshotId(0)), "");
}

TEST(KeptTree, KnowsTheNewestConsistentState) {
  const auto at = [](SnapshotState s, std::uint64_t lsn, bool consistent = true) {
    s.at.lsn = Lsn(lsn);
    if (consistent) s.consistency = format::Consistency::kApplication;
    return s;
  };
  const auto name = [](const std::vector<SnapshotState>& states, std::uint32_t parent) {
    const auto* found = newest_consistent(seen(states), SnapshotId(parent));
    return found == nullptr ? "none" : found->name;
  };
  std::vector<SnapshotState> states = {at(state(1, 0, 1, 0), 10), at(state(2, 1, 1, 0), 20),
                                       at(state(3, 2, 1, 0), 30, false)};
  states[2].consistency = format::Consistency::kHookFailed;
  EXPECT_EQ(name({}, 0), "none");
  EXPECT_EQ(name(states, 3), "s2");
  EXPECT_EQ(name(states, 2), "s2");
  EXPECT_EQ(name(states, 1), "s1") << "rolled back: what came after s1 was abandoned";
  EXPECT_EQ(name({states[2]}, 3), "none");
  EXPECT_EQ(name(states, 0), "s2") << "after a full copy the states from before stand alone";
  states.push_back(at(state(4, 2, 1, 0, SnapshotKind::kBranch), 25, false));
  states.push_back(at(state(5, 4, 1, 0), 24));
  EXPECT_EQ(name(states, 3), "s2");
  states[1].being_deleted = true;
  EXPECT_EQ(name(states, 3), "s1") << "and what it led to is still abandoned";
  const std::vector<SnapshotState> circle = {at(state(1, 2, 1, 0), 10), at(state(2, 1, 1, 0), 20)};
  EXPECT_EQ(name(circle, 0), "s2") << "whatever the states say, it ends";
}

TEST(KeptTree, BeingTakenApartHoldsLess) {
  auto branch = state(2, 1, 150, 0, SnapshotKind::kBranch);
  branch.reaped.freed_blocks = 20;
  const auto uses = uses_of({state(1, 0, 100, 0), branch}, SnapshotId(1), 30);
  EXPECT_EQ(uses.at(SnapshotId(2)).held_blocks, 30u);
}

TEST(KeptTree, NeverCountsMoreThanThereIs) {
  EXPECT_TRUE(uses_of({}, SnapshotId(0), 17).empty());
  const auto lost = uses_of({state(2, 1, 10, 500)}, SnapshotId(9), 3);
  EXPECT_EQ(lost.at(SnapshotId(2)).held_blocks, 3u);
  // Not even of states that lead to each other.
  const auto circle = uses_of({state(1, 2, 1, 4), state(2, 1, 1, 4)}, SnapshotId(1), 100);
  EXPECT_LE(circle.at(SnapshotId(1)).held_blocks + circle.at(SnapshotId(2)).held_blocks, 100u);
}

}  // namespace
}  // namespace tandem::control
