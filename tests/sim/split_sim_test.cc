// Two copies are promoted apart from each other, to the same timeline number, and both are written.
// When they meet both go on and say so, whatever dies, until an operator chooses one: that one's
// next timeline makes the other give way, which keeps what it alone had as a branch and follows
// from where they parted, without a full copy. Then again, from whichever was chosen.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include "tests/sim/pair_life.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

struct Seen {
  std::size_t chosen_dialer = 0, chosen_other = 0, demoted_first = 0, killed = 0, copied = 0;
};

class Split : public PairLife {
 public:
  Split(std::uint64_t seed, Seen& seen) : PairLife(seed), seen_(seen) {}

  void run(std::size_t rounds) {
    complain(world_.primary().start());
    complain(world_.mirror().start());
    complain(of(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    follow(world_.primary(), world_.mirror());
    for (round_ = 1; round_ <= rounds && problem_.empty(); ++round_) one_round();
  }

 private:
  void write_some(PairNode& node, Stamps& stamps) {
    for (auto n = random_.between(0, 25); n-- != 0 && problem_.empty();) {
      write(node, random_.below(kBlocks), stamps);
      if (random_.chance(1, 20)) complain(of(node.checkpoint()));
    }
  }
  SlotStatus slot_of(PairNode& primary) {
    const auto slots = primary.status().slots;
    return slots.empty() ? SlotStatus{} : slots[0];
  }
  bool serves(PairNode& node) { return node.status().state == "serving"; }
  void kill_sometimes(PairNode& node, std::uint32_t one_in) {
    if (!problem_.empty() || !random_.chance(1, one_in)) return;
    ++seen_.killed;
    node.kill();
    world_.runtime().run_for(Nanoseconds(random_.below(2'000'000'000)));
    complain(node.start());
  }
  void follow(PairNode& primary, PairNode& mirror) {
    if (!problem_.empty()) return;
    if (primary.status().slots.empty())
      complain(of(primary.control().add_mirror({"g", mirror.address(), mode_})));
    const auto level = [&] {
      const std::string state = slot_of(primary).state;
      if (state == "image") ++seen_.copied;
      return state == "following" && PairWorld::are_level(primary, mirror);
    };
    if (!world_.until(level, 120s))
      complain(mirror.name() + " does not follow: " + slot_of(primary).reason);
  }

  /// Each goes on alone, as the primary of a timeline of the same number.
  void part(PairNode& old, PairNode& next, Stamps& olds, Stamps& nexts) {
    write_some(old, olds);
    follow(old, next);
    world_.runtime().run_for(2s);  // a moment for marks
    cut_off(next, 30s);
    nexts = olds;
    write_some(old, olds);  // a tail in front of the fork, or none
    complain(of(old.control().demote("g")));
    if (problem_.empty()) promote(old);
    if (problem_.empty()) promote(next);
    if (old.status().head.timeline != next.status().head.timeline)
      complain("the timelines have different numbers");
  }
  void write_both(PairNode& old, PairNode& next, Stamps& olds, Stamps& nexts) {
    for (PairNode* node : {&old, &next}) {
      if (problem_.empty()) expect_service(*node);
      if (problem_.empty()) write_some(*node, node == &old ? olds : nexts);
    }
  }
  /// They meet, and nothing happens but that both say so.
  void meet(PairNode& old, PairNode& next) {
    world_.network().set_reachable(next.address(), true);
    const bool both_dial = random_.chance(1, 2);
    if (both_dial && next.status().slots.empty())
      complain(of(next.control().add_mirror({"g", old.address(), mode_})));
    expect_split(old, next);
    kill_sometimes(old, 4);
    kill_sometimes(next, 4);
    expect_split(old, next);
  }
  void expect_split(PairNode& old, PairNode& next) {
    const auto both = [&] {
      return serves(old) && serves(next) && old.status().split && next.status().split;
    };
    if (problem_.empty() && !world_.until(both, 60s)) complain("they do not say that they parted");
  }
  void choose(PairNode& winner, PairNode& loser) {
    if (problem_.empty() && random_.chance(1, 4)) {
      ++seen_.demoted_first;
      complain(of(loser.control().demote("g")));
      world_.runtime().run_for(2s);
      if (!winner.status().split) complain("a demotion alone was taken for a choice");
    }
    if (!problem_.empty()) return;
    const auto chosen = of(winner.control().promote("g", true));
    if (!chosen) return complain(chosen.error().message);
    if (winner.status().head.timeline != chosen->new_timeline)
      complain("the receipt names another timeline");
    kill_sometimes(winner, 4);
    if (problem_.empty()) expect_service(winner);
    world_.runtime().run_for(Nanoseconds(random_.below(50'000'000)));
    kill_sometimes(loser, 3);
  }

  void one_round() {
    PairNode& old = world_.primary();
    PairNode& next = world_.mirror();
    Stamps olds = content_, nexts;
    part(old, next, olds, nexts);
    write_both(old, next, olds, nexts);
    if (problem_.empty()) meet(old, next);
    write_both(old, next, olds, nexts);
    if (!problem_.empty()) return;
    const bool keep_old = random_.chance(1, 2);
    ++(keep_old ? seen_.chosen_dialer : seen_.chosen_other);
    PairNode& winner = keep_old ? old : next;
    PairNode& loser = keep_old ? next : old;
    content_ = keep_old ? olds : nexts;
    choose(winner, loser);
    if (!problem_.empty()) return;
    write_some(winner, content_);
    follow(winner, loser);
    take_tail(loser, keep_old ? nexts : olds);
    if (!problem_.empty()) return;
    expect(winner, "v", content_);
    if (winner.status().split || loser.status().split) complain("it is still called a split");
    if (!keep_old) world_.swap_roles();
    world_.runtime().run_for(10s);  // the branch is taken apart
    for (PairNode* node : {&winner, &loser}) {
      complain(of(node->checkpoint()));
      check_on_disk(*node);
    }
  }

  Seen& seen_;
  Stamps content_ = Stamps(kBlocks);
};

TEST(SplitSim, BothGoOnUntilOneIsChosenAndTheOtherKeepsItsTail) {
  Seen seen;
  for (const std::uint64_t seed : seeds_to_run(1, 30)) {
    SimLog log;
    Split split(seed, seen);
    split.run(3);
    ASSERT_EQ(split.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
  }
  EXPECT_GT(seen.chosen_dialer, 0u);
  EXPECT_GT(seen.chosen_other, 0u);
  EXPECT_GT(seen.demoted_first, 0u);
  EXPECT_GT(seen.killed, 0u);
  EXPECT_EQ(seen.copied, 0u) << "the log reaches back to where they parted";
}

}  // namespace
}  // namespace tandem::sim
