// Snapshots of a pair, as an operator and the front ends see them. Lives in which writers never
// rest: every snapshot is a state between what was acknowledged before it was asked for and what
// was begun before it was acknowledged, reads the same on both nodes for ever, and is there after
// every crash, promotion and full copy that it must survive. Each node deletes its own.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include <set>

#include "tests/sim/stamped_volume.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kWriters = 4;

enum class Trouble {
  kNone,
  kNetwork,
  kMirrorPower,
  kMirrorKill,
  kPrimaryPower,
  kPrimaryKill,
  kFailover,
  kFullCopy
};
constexpr std::uint64_t kTroubles = 8;

/// A snapshot as the test remembers it.
struct Kept {
  Stamps least, most;             // what each block must be between
  std::optional<Stamps> content;  // once it was read
  bool acknowledged = false;
};

class SnapshotPair {
 public:
  explicit SnapshotPair(std::uint64_t seed)
      : seed_(seed), random_(seed * 1299709), world_(seed, roomy(seed)) {
    mode_ = static_cast<ReplicationMode>(random_.below(3));
  }

  void run(std::size_t rounds) {
    if (!begin()) return;
    for (round_ = 1; round_ <= rounds && problem_.empty(); ++round_) {
      one_round(static_cast<Trouble>(random_.below(kTroubles)));
    }
  }
  const std::string& problem() const { return problem_; }
  std::size_t made = 0, compared = 0, promoted = 0, copied = 0, deleted = 0, in_doubt = 0;

 private:
  /// The log is never given up: a difference has no snapshots in it.
  static StoreShape roomy(std::uint64_t seed) {
    StoreShape shape = shape_of(seed);
    shape.disk_bytes = 96 << 20;
    return shape;
  }
  bool complain(const std::string& what) {
    if (problem_.empty()) {
      problem_ = "seed " + std::to_string(seed_) + ", round " + std::to_string(round_) +
                 ", trouble " + std::to_string(static_cast<int>(trouble_)) + ", mode " +
                 to_string(mode_) + ": " + what;
    }
    return false;
  }
  template <class T>
  T run(Task<T> task) {
    return world_.runtime().run(std::move(task));
  }
  bool start(PairNode& node) {
    const Status up = node.start();
    return up ? true : complain(node.name() + " does not start: " + up.error().message);
  }

  bool begin() {
    if (!start(world_.primary()) || !start(world_.mirror())) return false;
    const Status made = run(world_.primary().create_volume("v", kBlocks * kBlockBytes));
    if (!made) return complain(made.error().message);
    return pair_up() && level();
  }
  bool pair_up() {
    AddMirror request{"g", world_.mirror().address(), mode_};
    const Status added = run(world_.primary().control().add_mirror(request));
    return added ? true : complain("add_mirror: " + added.error().message);
  }
  bool is_following() {
    const GroupStatus status = world_.primary().status();
    return !status.slots.empty() && status.slots[0].state == "following" &&
           (mode_ != ReplicationMode::kSync || status.slots[0].in_sync);
  }
  bool level() {
    if (world_.until([&] { return world_.is_level() && is_following(); }, 120s)) return true;
    const GroupStatus status = world_.primary().status();
    return complain("the two do not become level: " + status.state + " " + status.reason +
                    (status.slots.empty() ? "" : "; " + status.slots[0].reason));
  }

  // --- writers ----------------------------------------------------------------------------------

  Task<void> write_on(std::size_t writer) {
    auto volume = world_.primary().open_volume("v");
    while (volume && !enough_) {
      const std::uint64_t block =
          random_.below(kBlocks / kWriters) * kWriters + writer;  // nobody else's
      const std::uint32_t stamp = ++stamp_;
      IoBuffer data = IoBuffer::on_heap(kBlockBytes);
      stamp_block(data, stamp);
      begun_[block] = stamp;
      auto writing = (*volume)->write(block * kBlockBytes, std::move(data), {});
      const Status done = co_await std::move(writing);
      if (!done) break;
      acknowledged_[block] = stamp;
      // Slowly enough that the log reaches back through every outage.
      if (random_.chance(1, 2)) co_await sleep_for(world_.runtime(), pause());
    }
    --writing_;
  }
  Nanoseconds pause() { return Nanoseconds(random_.between(1, 20) * 1'000'000); }
  void begin_writing() {
    enough_ = false;
    for (std::size_t i = 0; i < kWriters; ++i) {
      ++writing_;
      spawn(write_on(i));
    }
  }
  bool end_writing() {
    enough_ = true;
    return world_.until([&] { return writing_ == 0; }, 600s) ? true : complain("writers hang");
  }
  /// After a crash: what is there now is the ground for what follows.
  bool look_anew() {
    auto found = run(read_stamps(world_.primary(), "v"));
    if (!found) return complain("reading the primary: " + found.error().message);
    acknowledged_ = begun_ = *found;
    return true;
  }

  // --- snapshots --------------------------------------------------------------------------------

  Task<void> snapshot(std::string name) {
    Kept& kept = kept_[name];
    kept.least = acknowledged_;
    auto making = world_.primary().control().create_snapshot({"g", name, "round"});
    const auto done = co_await std::move(making);
    kept.most = begun_;
    kept.acknowledged = done.has_value();
    if (done) ++made;
    if (!done) refusal_ = done.error().message;
    --snapshotting_;
  }
  std::string begin_snapshot() {
    const std::string name = "s" + std::to_string(names_++);
    ++snapshotting_;
    spawn(snapshot(name));
    return name;
  }
  bool take_snapshot() {
    const std::string name = begin_snapshot();
    if (!world_.until([&] { return snapshotting_ == 0; }, 600s)) return complain("no answer");
    if (!kept_[name].acknowledged) return complain("refused: " + refusal_);
    for (PairNode* node : {&world_.primary(), &world_.mirror()}) expected_[node].insert(name);
    return true;
  }

  std::set<std::string> names_at(PairNode& node) {
    std::set<std::string> names;
    for (const auto& snapshot : node.status().snapshots) names.insert(snapshot.name);
    return names;
  }

  /// Everything that this node must keep is there, and reads as it always did.
  bool check(PairNode& node) {
    const auto names = names_at(node);
    for (const auto& name : expected_[&node]) {
      if (!names.contains(name)) return complain(node.name() + " has lost snapshot " + name);
    }
    for (const auto& name : names) {
      if (!kept_.contains(name)) return complain(node.name() + " has a snapshot " + name);
      Kept& kept = kept_[name];
      auto found = run(read_stamps(node, "v@" + name));
      if (!found) return complain(name + " on " + node.name() + ": " + found.error().message);
      for (std::size_t i = 0; i < kBlocks; ++i) {
        const std::uint32_t stamp = (*found)[i];
        const bool possible =
            stamp >= kept.least[i] && (kept.most.empty() || stamp <= kept.most[i]);
        if (!possible)
          return complain(name + " on " + node.name() + ", block " + std::to_string(i) + ": has " +
                          std::to_string(stamp) + ", wanted at least " +
                          std::to_string(kept.least[i]));
      }
      if (!kept.content) {
        kept.content = *found;
      } else if (*kept.content != *found) {
        return complain(name + " on " + node.name() + " is not what it was");
      } else {
        ++compared;
      }
    }
    return true;
  }

  bool delete_some() {
    PairNode& node = random_.chance(1, 2) ? world_.primary() : world_.mirror();
    const auto names = names_at(node);
    if (names.size() < 3) return true;
    for (const auto& name : names) {
      if (!random_.chance(1, 3)) continue;
      const Status gone = run(node.control().delete_snapshot("g", name));
      if (!gone) return complain("deleting " + name + ": " + gone.error().message);
      expected_[&node].erase(name);
      if (names_at(node).contains(name)) return complain(name + " is still there");
      ++deleted;
    }
    return true;
  }

  // --- a round ----------------------------------------------------------------------------------

  void pass(std::uint64_t up_to_ms) {
    world_.runtime().run_for(Nanoseconds(random_.between(1, up_to_ms) * 1'000'000));
  }

  void one_round(Trouble trouble) {
    trouble_ = trouble;
    begin_writing();
    pass(40);
    if (!take_snapshot()) return;
    pass(40);
    bool fine = true;
    switch (trouble) {
      case Trouble::kNone:
        break;
      case Trouble::kNetwork:
        fine = break_network();
        break;
      case Trouble::kMirrorPower:
      case Trouble::kMirrorKill:
        trouble == Trouble::kMirrorPower ? world_.mirror().power_cut() : world_.mirror().kill();
        pass(2000);
        fine = take_snapshot() && start(world_.mirror());
        break;
      case Trouble::kPrimaryPower:
      case Trouble::kPrimaryKill:
        fine = crash_primary();
        break;
      case Trouble::kFailover:
        fine = fail_over();
        break;
      case Trouble::kFullCopy:
        fine = copy_again();
        break;
    }
    if (!fine || !take_snapshot() || !end_writing() || !level()) return;
    if (!check(world_.primary()) || !check(world_.mirror()) || !delete_some()) return;
    check(world_.primary()) && check(world_.mirror());
  }

  bool break_network() {
    world_.network().set_reachable(world_.mirror().address(), false);
    world_.network().cut(world_.mirror().address());
    pass(3000);
    const bool fine = take_snapshot();
    world_.network().set_reachable(world_.mirror().address(), true);
    pass(300);
    world_.network().cut(world_.mirror().address());
    return fine;
  }

  /// Ends the primary with a snapshot under way, which may be there afterwards or not.
  bool strike_primary(bool power) {
    begin_snapshot();
    pass(3);
    power ? world_.primary().power_cut() : world_.primary().kill();
    if (!world_.until([&] { return snapshotting_ == 0 && writing_ == 0; }, 600s))
      return complain("not everybody was answered");
    ++in_doubt;
    return true;
  }

  bool crash_primary() {
    if (!strike_primary(trouble_ == Trouble::kPrimaryPower)) return false;
    if (!start(world_.primary())) return false;
    if (!world_.until([&] { return world_.primary().status().state == "serving"; }, 60s))
      return complain("the primary does not serve again");
    if (!look_anew() || !check(world_.primary())) return false;
    begin_writing();
    return true;
  }

  /// What was acknowledged while the mirror was in sync is on the new primary. The old one's disk
  /// is replaced.
  bool fail_over() {
    PairNode& old = world_.primary();
    PairNode& next = world_.mirror();
    if (!strike_primary(random_.chance(1, 2))) return false;
    const bool done =
        world_.until([&] { return run(next.control().promote("g", false)).has_value(); }, 60s);
    if (!done) return complain("the promotion is refused");
    world_.swap_roles();
    if (!world_.until([&] { return next.status().state == "serving"; }, 60s))
      return complain("the promoted node does not serve");
    if (mode_ != ReplicationMode::kSync) {
      // The last ones may not have arrived: those may be gone, the others not.
      const auto names = names_at(next);
      std::erase_if(expected_[&next], [&](const auto& name) {
        return !names.contains(name) && !kept_[name].content;
      });
    }
    ++promoted;
    if (!look_anew() || !check(next)) return false;
    old.format();
    expected_[&old].clear();
    if (!start(old) || !pair_up()) return false;
    begin_writing();
    return copied_while_writing();
  }

  /// An empty mirror is filled while snapshots are made: it gets those made behind the state that
  /// it is sent, and that may be any of those made meanwhile.
  bool copy_again() {
    PairNode& mirror = world_.mirror();
    mirror.stop();
    mirror.format();
    if (!start(mirror)) return false;
    for (int i = 0; i < 3; ++i) {
      if (!take_snapshot()) return false;
      pass(20);
    }
    expected_[&mirror].clear();
    return copied_while_writing();
  }

  /// What was taken before the state that is sent does not come with it.
  bool copied_while_writing() {
    if (!world_.until([&] { return is_following(); }, 120s)) return complain("not copied");
    ++copied;
    return true;
  }

  std::uint64_t seed_;
  SimRandom random_;
  PairWorld world_;
  ReplicationMode mode_;
  Trouble trouble_ = Trouble::kNone;
  std::size_t round_ = 0;
  Stamps begun_ = Stamps(kBlocks), acknowledged_ = Stamps(kBlocks);
  std::uint32_t stamp_ = 0;
  bool enough_ = false;
  std::size_t writing_ = 0, snapshotting_ = 0, names_ = 0;
  std::string refusal_;
  std::map<std::string, Kept> kept_;
  std::map<PairNode*, std::set<std::string>> expected_;
  std::string problem_;
};

TEST(PairSnapshots, AreTheSameOnBothNodesThroughAllTrouble) {
  std::size_t made = 0, compared = 0, promoted = 0, copied = 0, deleted = 0, in_doubt = 0;
  for (const std::uint64_t seed : seeds_to_run(1, 24)) {
    SimLog log;
    SnapshotPair pair(seed);
    pair.run(5);
    ASSERT_EQ(pair.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    made += pair.made;
    compared += pair.compared;
    promoted += pair.promoted;
    copied += pair.copied;
    deleted += pair.deleted;
    in_doubt += pair.in_doubt;
  }
  EXPECT_GT(compared, made);
  if (std::getenv("TANDEM_SEED") != nullptr) return;
  EXPECT_GT(promoted, 2u);
  EXPECT_GT(copied, 2u);
  EXPECT_GT(deleted, 10u);
  EXPECT_GT(in_doubt, promoted);
}

}  // namespace
}  // namespace tandem::sim
