// A former primary comes back with records that only it holds: they become a branch that reads as
// the node's volume did, it follows the new primary from where the logs part, without a full copy,
// and nothing that the new primary holds is touched, nor what the node kept before. It may be cut
// off meanwhile, or killed; and it may happen again the other way round.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include "tests/sim/stamped_volume.h"
#include "tests/unit/inspect_fixture.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

class Rejoin {
 public:
  explicit Rejoin(std::uint64_t seed)
      : seed_(seed), random_(seed * 15485863), world_(seed, shape_of(seed)) {
    mode_ = static_cast<ReplicationMode>(random_.below(3));
  }

  void run(std::size_t rounds) {
    complain(world_.primary().start());
    complain(world_.mirror().start());
    complain(of(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    pair_up();
    for (round_ = 1; round_ <= rounds && problem_.empty(); ++round_) one_round();
  }
  const std::string& problem() const { return problem_; }
  std::size_t rejoined = 0, copied = 0;

 private:
  void complain(const std::string& what) {
    if (!problem_.empty() || what.empty()) return;
    problem_ = "seed " + std::to_string(seed_) + ", round " + std::to_string(round_) + ", mode " +
               to_string(mode_) + ": " + what;
  }
  void complain(const Status& status) {
    if (!status) complain(status.error().message);
  }
  template <class T>
  T of(Task<T> task) {
    return world_.runtime().run(std::move(task));
  }
  void write_some(PairNode& node, Stamps& stamps) {
    auto volume = node.open_volume("v");
    if (!volume) return complain(volume.error().message);
    for (auto n = random_.between(1, 30); n-- != 0 && problem_.empty();) {
      const std::uint64_t block = random_.below(kBlocks);
      IoBuffer data = IoBuffer::on_heap(kBlockBytes);
      stamp_block(data, ++stamp_);
      complain(of((*volume)->write(block * kBlockBytes, std::move(data), {})));
      stamps[block] = stamp_;
      if (random_.chance(1, 20)) complain(of(node.checkpoint()));
    }
  }
  void expect(PairNode& node, const std::string& name, const Stamps& wanted) {
    auto found = of(read_stamps(node, name));
    if (!found) return complain(name + " on " + node.name() + ": " + found.error().message);
    for (std::size_t i = 0; i < kBlocks; ++i) {
      if ((*found)[i] == wanted[i]) continue;
      return complain(name + " on " + node.name() + ", block " + std::to_string(i) + " has " +
                      std::to_string((*found)[i]) + ", wanted " + std::to_string(wanted[i]));
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
    world_.network().set_reachable(next.address(), false);
    world_.network().cut(next.address());
    world_.runtime().run_for(30s);
    const Stamps common = content_;
    Stamps tail = common;
    write_some(old, tail);
    const bool killed = random_.chance(1, 2);
    if (killed) old.kill();
    const auto promoted = of(next.control().promote("g", true));
    if (!promoted) return complain(promoted.error().message);
    world_.swap_roles();
    if (!world_.until([&] { return next.status().state == "serving"; }, 60s))
      return complain("the promoted node does not serve");
    expect(next, "v", common);
    write_some(next, content_);
    world_.network().set_reachable(next.address(), true);
    if (killed) complain(old.start());
    saw_image_ = false;
    pair_up();
    if (!problem_.empty()) return;
    ++(saw_image_ ? copied : rejoined);
    expect(next, "v", content_);
    const auto kept = of(old.control().status());
    std::string branch;
    for (const auto& snapshot : kept.groups[0].snapshots) {
      if (snapshot.name.find("tail-of-timeline") == 0) branch = snapshot.name;
    }
    if (branch.empty()) return complain("the tail is gone");
    expect(old, "v@" + branch, tail);
    complain(of(old.control().delete_snapshot("g", branch)));
    // What it follows with is what the other has: it takes over in turn.
    write_some(next, content_);
    level();
    complain(of(next.control().demote("g")));
    const auto back = of(old.control().promote("g", true));
    if (!back) return complain(back.error().message);
    world_.swap_roles();
    if (!world_.until([&] { return old.status().state == "serving"; }, 60s))
      return complain("it does not take over");
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
    const auto image = node.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random_);
    const auto report = inspect::verify(image);
    if (!report.sound()) complain(node.name() + ": " + report.text());
  }

  std::uint64_t seed_;
  SimRandom random_;
  PairWorld world_;
  ReplicationMode mode_;
  Stamps content_ = Stamps(kBlocks);
  std::map<std::string, Stamps> kept_;  // snapshots, by name
  std::uint32_t stamp_ = 0;
  std::size_t round_ = 0;
  bool saw_image_ = false;
  std::string problem_;
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
