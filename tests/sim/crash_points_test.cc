// Promise 2, exhaustively on short workloads: the power is cut (or the process killed) at every
// moment at which a crash could look different, several ways each, and whatever is left must be
// recovered to a prefix of the log that holds everything it must. Recovery is cut at every moment
// too, and what it found must not change. Then the recovered store goes on and crashes again.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed> and the test's filter, with the log
// on standard error if TANDEM_LOG is set. TANDEM_SEEDS_FACTOR=100 makes a campaign of it.
#include <gtest/gtest.h>

#include "tests/sim/store_client.h"
#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

using Crash = StoreModel::Crash;

/// Everything that one seed decides before its run begins.
struct Plan {
  explicit Plan(std::uint64_t seed) : seed(seed), random(seed * 1000) {
    shape = StoreShape::from_seed(random.fork());
    mix = Mix::from_seed(random.fork());
  }
  std::uint64_t seed;
  SimRandom random;
  StoreShape shape;
  Mix mix;
};

class CrashPoints {
 public:
  CrashPoints(Plan plan, std::size_t cut_recovery_every)
      : plan_(std::move(plan)),
        cut_recovery_every_(cut_recovery_every),
        world_(plan_.seed),
        node_(world_, StoreNode::formatted(plan_.shape, plan_.seed), plan_.shape, plan_.seed),
        clients_(world_, node_, model_, plan_.mix, plan_.seed) {}

  void run(std::size_t volumes, std::uint64_t volume_bytes) {
    const Status started = world_.run(node_.start());
    ASSERT_TRUE(started.has_value()) << started.error().message;
    const Status made = world_.run(node_.make_group(clients_, model_, volumes, volume_bytes));
    ASSERT_TRUE(made.has_value()) << made.error().message;
    node_.disk().set_observer([this](SimDisk::Moment, const IoRequest&) { crash_here(); });
    world_.run(clients_.run());
    if (problem_.empty()) crash_here();
    node_.disk().set_observer(nullptr);
    if (problem_.empty()) problem_ = clients_.complaint();
    world_.run(node_.stop());
  }

  const std::string& problem() const { return problem_; }
  std::size_t crashes() const { return crashes_; }
  std::size_t moments() const { return moments_; }
  std::size_t subsets() const { return subsets_; }
  std::size_t second_crashes() const { return second_crashes_; }
  std::size_t recoveries_cut() const { return recoveries_cut_; }
  std::size_t acknowledged() const { return clients_.acknowledged(); }

 private:
  /// Crashes that could happen at this moment, each judged on its own.
  void crash_here() {
    if (!problem_.empty()) return;
    ++moments_;
    SimRandom& random = plan_.random;
    const auto cut = [&](CutOptions::Mode mode) {
      return node_.disk().crash_image({.mode = mode}, random);
    };
    judge(cut(CutOptions::Mode::kDropAll), Crash::kPowerCut, "everything volatile dropped");
    judge(cut(CutOptions::Mode::kRandom), Crash::kPowerCut, "random cut");
    judge(cut(CutOptions::Mode::kRandom), Crash::kPowerCut, "random cut");
    judge(node_.disk().killed_image(random), Crash::kProcessKilled, "process killed");
    // Every subset of a few pending writes.
    const std::size_t pending = node_.disk().pending_writes();
    if (pending <= 4 && random.chance(1, 4)) {
      for (std::uint64_t mask = 1; mask < (std::uint64_t{1} << pending); ++mask) {
        const CutOptions options{.mode = CutOptions::Mode::kByMask, .keep_mask = mask};
        judge(node_.disk().crash_image(options, random), Crash::kPowerCut, "subset of writes");
        ++subsets_;
      }
    }
  }

  void complain(const std::string& how, const std::string& what) {
    problem_ = "seed " + std::to_string(plan_.seed) + ", moment " + std::to_string(moments_) +
               " (" + how + "): " + what;
  }

  void judge(const SimImage& image, Crash crash, const std::string& how) {
    if (!problem_.empty()) return;
    ++crashes_;
    const Recovery first = recover(image, plan_.shape, plan_.random.next());
    if (!first.status) return complain(how, "recovery failed: " + first.status.error().message);
    if (auto wrong = model_.check_recovered(first.found, crash)) return complain(how, *wrong);
    if (auto wrong = check_head(first)) return complain(how, *wrong);
    if (crashes_ % cut_recovery_every_ == 0) cut_recovery(image, first, how);
    if (crashes_ % 3 == 0) go_on(first, how);
  }

  /// The recovered log ends between what was durable and what had an LSN, with the digest that the
  /// log had there when it ran.
  std::optional<std::string> check_head(const Recovery& recovery) {
    store::Group* group = node_.group();
    digests_[group->head().lsn] = group->head().digest;
    digests_[group->tail().lsn] = group->tail().digest;
    const Lsn head = recovery.head.lsn;
    if (head < group->durable() || head > group->tail().lsn) {
      return "head " + std::to_string(head.value) + " is not in [" +
             std::to_string(group->durable().value) + ", " +
             std::to_string(group->tail().lsn.value) + "]";
    }
    const auto known = digests_.find(head);
    if (known != digests_.end() && known->second != recovery.head.digest) {
      return "the digest at " + std::to_string(head.value) + " is not what it was";
    }
    return std::nullopt;
  }

  /// Cuts the recovery of `image` at each of its own moments: whatever was found once must be found
  /// again.
  void cut_recovery(const SimImage& image, const Recovery& first, const std::string& how) {
    std::vector<SimImage> images;
    SimRandom random = plan_.random.fork();
    recover(image, plan_.shape, random.next(), [&](StoreNode& node) {
      node.disk().set_observer([&](SimDisk::Moment, const IoRequest&) {
        const auto mode =
            random.chance(1, 3) ? CutOptions::Mode::kDropAll : CutOptions::Mode::kRandom;
        images.push_back(node.disk().crash_image({.mode = mode}, random));
      });
    });
    if (images.empty()) return complain(how, "its recovery had no moment to be cut at");
    for (std::size_t i = 0; i < images.size() && problem_.empty(); ++i) {
      ++recoveries_cut_;
      const Recovery again = recover(images[i], plan_.shape, random.next());
      const std::string where = how + ", recovery cut at its moment " + std::to_string(i + 1);
      if (!again.status) return complain(where, again.status.error().message);
      const bool volatile_before = image.volatile_writes() != 0;
      if (!volatile_before && (again.found != first.found || again.head.lsn != first.head.lsn)) {
        return complain(where, "the second recovery found another state, head " +
                                   std::to_string(again.head.lsn.value) + " instead of " +
                                   std::to_string(first.head.lsn.value));
      }
      if (auto wrong = model_.check_recovered(again.found, Crash::kPowerCut)) {
        return complain(where, *wrong);
      }
    }
  }

  /// The recovered store works: it takes more writes, and survives another crash.
  void go_on(const Recovery& first, const std::string& how) {
    SimRandom random = plan_.random.fork();
    SimRuntime world(random.next());
    StoreNode node(world, first.image, plan_.shape, random.next());
    StoreModel model = StoreModel::settled(first.found, model_.next_op());
    Mix mix = plan_.mix;
    mix.operations = 12;
    StoreClients clients(world, node, model, mix, random.next());
    const Status started = world.run(node.start());
    if (!started) return complain(how + ", second start", started.error().message);
    if (node.group() == nullptr || model.volume_names().empty()) return world.run(node.stop());
    node.disk().power_off_after(random.between(1, 60), {});
    world.run(clients.run());
    if (!node.disk().is_off()) node.disk().power_off({});
    ++second_crashes_;
    world.run(node.stop());
    if (!clients.complaint().empty()) return complain(how + ", second run", clients.complaint());
    const Recovery second = recover(node.disk().remains(), plan_.shape, random.next());
    if (!second.status) return complain(how + ", second crash", second.status.error().message);
    if (auto wrong = model.check_recovered(second.found, Crash::kPowerCut)) {
      return complain(how + ", second crash", *wrong);
    }
  }

  Plan plan_;
  std::size_t cut_recovery_every_;
  SimRuntime world_;
  StoreNode node_;
  StoreModel model_;
  StoreClients clients_;
  std::map<Lsn, Digest> digests_;
  std::size_t moments_ = 0, crashes_ = 0, subsets_ = 0, second_crashes_ = 0, recoveries_cut_ = 0;
  std::string problem_;
};

void run_seeds(std::uint64_t first, std::size_t count, std::size_t operations,
               std::size_t cut_recovery_every) {
  std::size_t crashes = 0, subsets = 0, second_crashes = 0, cut = 0, acknowledged = 0;
  for (const std::uint64_t seed : seeds_to_run(first, count)) {
    SimLog log;
    Plan plan(seed);
    plan.mix.operations = operations;
    CrashPoints points(std::move(plan), cut_recovery_every);
    points.run(2, 256 << 10);
    ASSERT_EQ(points.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    // A test that crashes nothing proves nothing: each workload has moments, and four crashes or
    // more at each.
    ASSERT_GT(points.moments(), 0u) << "seed " << seed;
    ASSERT_GE(points.crashes(), 4 * points.moments()) << "seed " << seed;
    crashes += points.crashes();
    subsets += points.subsets();
    second_crashes += points.second_crashes();
    cut += points.recoveries_cut();
    acknowledged += points.acknowledged();
  }
  EXPECT_GT(crashes, operations * 4);
  EXPECT_GT(subsets, 0u);
  EXPECT_GT(second_crashes, 0u);
  EXPECT_GT(cut, 0u);
  EXPECT_GT(acknowledged, 0u);
  testing::Test::RecordProperty("crashes", std::to_string(crashes));
  testing::Test::RecordProperty("recoveries_cut", std::to_string(cut));
}

TEST(CrashPoints, EveryMomentOfShortWorkloads) { run_seeds(1, 4, 25, 40); }

TEST(CrashPoints, EveryMomentOfEveryRecoveryOfTinyWorkloads) { run_seeds(101, 2, 4, 2); }

}  // namespace
}  // namespace tandem::sim
