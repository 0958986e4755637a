// A former primary comes back with records that only it holds: they become a branch that reads as
// the node's volume did, it follows the new primary from where the logs part, without a full copy,
// and nothing that the new primary holds is touched, nor what the node kept before. It may be cut
// off meanwhile, or killed; and it may happen again the other way round.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include "store/compaction.h"
#include "tests/sim/pair_life.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

class Rejoin : public PairLife {
 public:
  explicit Rejoin(std::uint64_t seed) : PairLife(seed) {}

  void run(std::size_t rounds) {
    complain(world_.primary().start());
    complain(world_.mirror().start());
    complain(of(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    pair_up();
    for (round_ = 1; round_ <= rounds && problem_.empty(); ++round_) one_round();
  }
  std::size_t rejoined = 0, copied = 0, moved = 0;
  /// Blocks change their places all the time, on both nodes.
  void keep_compacting() { compacting_ = true; }

 private:
  void compact(PairNode& node) {
    if (!node.is_up() || node.group() == nullptr) return;
    auto& compaction = node.group()->compaction();
    compaction.set_slack(random_.below(64));
    compaction.set_rate(std::uint64_t{1} << random_.between(18, 28));
    const auto before = compaction.report();
    if (compaction.start(false)) moved += before.blocks_moved;
  }
  void write_some(PairNode& node, Stamps& stamps) {
    for (auto n = random_.between(1, 30); n-- != 0 && problem_.empty();) {
      write(node, random_.below(kBlocks), stamps);
      if (random_.chance(1, 20)) complain(of(node.checkpoint()));
      if (!compacting_ || !random_.chance(1, 6)) continue;
      compact(world_.primary());
      compact(world_.mirror());
    }
  }
  std::string slot_state() {
    const auto slots = world_.primary().status().slots;
    return slots.empty() ? "" : slots[0].state;
  }
  void pair_up() {
    if (!problem_.empty()) return;
    if (world_.primary().status().slots.empty()) {
      AddMirror request{"g", world_.mirror().address(), mode_};
      complain(of(world_.primary().control().add_mirror(request)));
    }
    level();
  }
  void level() {
    const bool done = world_.until(
        [&] {
          if (slot_state() == "image") saw_image_ = true;
          return world_.is_level() && slot_state() == "following";
        },
        120s);
    if (done) return;
    const auto slots = world_.primary().status().slots;
    complain("the two do not become level: " + (slots.empty() ? "no slot" : slots[0].reason));
  }

  /// The primary goes on alone, the mirror is promoted, both are written; then they meet.
  void one_round() {
    PairNode& old = world_.primary();
    PairNode& next = world_.mirror();
    write_some(old, content_);
    take_snapshot();
    // Else it is the very state that the other comes back to.
    if (random_.chance(1, 2)) write_some(old, content_);
    level();
    world_.runtime().run_for(2s);  // a moment for marks
    cut_off(next, 30s);
    const Stamps common = content_;
    Stamps tail = common;
    write_some(old, tail);
    const bool killed = random_.chance(1, 2);
    if (killed) old.kill();
    promote(next);
    if (!problem_.empty()) return;
    world_.swap_roles();
    expect(next, "v", common);
    write_some(next, content_);
    world_.network().set_reachable(next.address(), true);
    if (killed) complain(old.start());
    saw_image_ = false;
    pair_up();
    if (!problem_.empty()) return;
    ++(saw_image_ ? copied : rejoined);
    expect(next, "v", content_);
    take_tail(old, tail);
    // What it follows with is what the other has: it takes over in turn.
    write_some(next, content_);
    level();
    complain(of(next.control().demote("g")));
    promote(old);
    if (!problem_.empty()) return;
    world_.swap_roles();
    expect(old, "v", content_);
    level();
    check_kept_states(old);
    check_kept_states(next);
  }
  void take_snapshot() {
    const std::string name = "before-" + std::to_string(round_);
    const auto taken = of(world_.primary().control().create_snapshot({"g", name, ""}));
    if (!taken) complain(taken.error().message);
    kept_[name] = content_;
  }
  /// They read as ever, and so they do from the disk alone.
  void check_kept_states(PairNode& node) {
    complain(of(node.checkpoint()));
    for (const auto& [name, stamps] : kept_) expect(node, "v@" + name, stamps);
    check_on_disk(node);
  }

  Stamps content_ = Stamps(kBlocks);
  std::map<std::string, Stamps> kept_;  // snapshots, by name
  bool saw_image_ = false;
  bool compacting_ = false;
};

struct Seen {
  std::size_t rejoined = 0, copied = 0;
};

void run_lives(const std::vector<std::uint64_t>& seeds, Seen& seen) {
  for (const std::uint64_t seed : seeds) {
    SimLog log;
    Rejoin rejoin(seed);
    rejoin.run(3);
    ASSERT_EQ(rejoin.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    seen.rejoined += rejoin.rejoined;
    seen.copied += rejoin.copied;
  }
}

/// The same while each node moves its blocks: what they hold and how they compare stays the same.
TEST(Rejoins, GoOnThroughCompaction) {
  std::size_t rejoined = 0, copied = 0, moved = 0;
  for (const std::uint64_t seed : seeds_to_run(601, 24)) {
    SimLog log;
    Rejoin rejoin(seed);
    rejoin.keep_compacting();
    rejoin.run(3);
    ASSERT_EQ(rejoin.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    rejoined += rejoin.rejoined;
    copied += rejoin.copied;
    moved += rejoin.moved;
  }
  EXPECT_GT(rejoined, 4 * copied);
  EXPECT_GT(moved, 0u);
}

TEST(Rejoins, KeepTheTailAndMoveOnlyTheDifference) {
  Seen seen;
  ASSERT_NO_FATAL_FAILURE(run_lives(seeds_to_run(1, 40), seen));
  EXPECT_GT(seen.rejoined, 4 * seen.copied);
}

/// A history that begins at a named snapshot, and a restart: the first checkpoint must not let the
/// log go that leads from there.
TEST(Rejoins, ComeBackAfterARestartWithoutAMark) {
  Seen seen;
  ASSERT_NO_FATAL_FAILURE(run_lives({374, 396, 398, 461}, seen));
}

/// What died on the abandoned way is no record's that a mirror may still ask for.
TEST(Rejoins, GiveBackWhatDiedOnTheAbandonedWayAtOnce) {
  Seen seen;
  ASSERT_NO_FATAL_FAILURE(run_lives({164, 218, 224}, seen));
}

}  // namespace
}  // namespace tandem::sim
