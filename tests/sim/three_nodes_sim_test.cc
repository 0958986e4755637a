// A primary with two mirrors, of which one has less than the other, and that less than the primary.
// The primary goes, either mirror is promoted, and the two others follow it, in either order:
// without a full copy, with what only they held kept as a branch that reads as their volume did.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include <array>

#include "tests/sim/stamped_volume.h"
#include "tests/unit/inspect_fixture.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

class ThreeNodes {
 public:
  explicit ThreeNodes(std::uint64_t seed)
      : seed_(seed), random_(seed * 15485863), world_(seed, shape_of(seed)) {
    mode_ = static_cast<ReplicationMode>(random_.below(3));
  }

  void run(std::size_t rounds) {
    nodes_ = {&world_.primary(), &world_.mirror(), &world_.third()};
    for (PairNode* node : nodes_) complain(node->start());
    complain(of(nodes_[0]->create_volume("v", kBlocks * kBlockBytes)));
    for (std::size_t i : {1, 2}) follow(*nodes_[0], *nodes_[i]);
    for (round_ = 1; round_ <= rounds && problem_.empty(); ++round_) one_round();
  }
  const std::string& problem() const { return problem_; }
  std::size_t followed = 0, copied = 0, branches = 0;

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
  void write_some(PairNode& node) {
    auto volume = node.open_volume("v");
    if (!volume) return complain(volume.error().message);
    for (auto n = random_.between(1, 60); n-- != 0 && problem_.empty();) {
      const std::uint64_t block = random_.below(kBlocks);
      IoBuffer data = IoBuffer::on_heap(kBlockBytes);
      stamp_block(data, ++stamp_);
      complain(of((*volume)->write(block * kBlockBytes, std::move(data), {})));
      content_[block] = stamp_;
      if (random_.chance(1, 20)) checkpoint_somewhere();
    }
  }
  void checkpoint_somewhere() {
    PairNode& node = *nodes_[random_.below(nodes_.size())];
    if (node.is_up()) complain(of(node.checkpoint()));
  }
  void expect(PairNode& node, const std::string& name, const Stamps& wanted) {
    auto found = of(read_stamps(node, name));
    if (!found) return complain(name + " on " + node.name() + ": " + found.error().message);
    if (*found != wanted) complain(name + " on " + node.name() + " is not what it was");
  }
  SlotStatus slot_of(PairNode& primary, PairNode& mirror) {
    for (const auto& slot : primary.status().slots)
      if (slot.address == mirror.address()) return slot;
    return {};
  }
  void add(PairNode& primary, PairNode& mirror) {
    if (!problem_.empty() || !slot_of(primary, mirror).address.empty()) return;
    complain(of(primary.control().add_mirror({"g", mirror.address(), mode_})));
  }
  void follow(PairNode& primary, PairNode& mirror) {
    add(primary, mirror);
    if (!problem_.empty()) return;
    bool saw_image = false;
    const auto level = [&] {
      const std::string state = slot_of(primary, mirror).state;
      saw_image |= state == "image";
      return PairWorld::are_level(primary, mirror) && state == "following";
    };
    if (!world_.until(level, 120s)) {
      complain(mirror.name() + " does not follow " + primary.name() + ": " +
               slot_of(primary, mirror).reason);
    }
    image_seen_ = saw_image;
  }
  void cut_off(PairNode& node) {
    world_.network().set_reachable(node.address(), false);
    world_.network().cut(node.address());
    world_.runtime().run_for(random_.chance(1, 2) ? 30s : 2s);
  }
  void come_back(PairNode& node, PairNode& primary) {
    world_.network().set_reachable(node.address(), true);
    if (!node.is_up()) complain(node.start());
    follow(primary, node);
    ++(image_seen_ ? copied : followed);
  }

  void one_round() {
    PairNode& old = *nodes_[0];
    if (random_.chance(1, 2)) std::swap(nodes_[1], nodes_[2]);
    PairNode& less = *nodes_[1];
    PairNode& more = *nodes_[2];
    write_some(old);
    for (std::size_t i : {1, 2}) follow(old, *nodes_[i]);
    cut_off(less);
    const Stamps least = content_;
    write_some(old);
    follow(old, more);
    world_.runtime().run_for(2s);  // heartbeats, and a moment for marks
    for (int i = 0; i < 4; ++i) checkpoint_somewhere();
    cut_off(more);
    const Stamps middle = content_;
    write_some(old);
    const Stamps most = content_;
    cut_off(old);
    if (random_.chance(1, 2)) old.kill();

    const bool takes_less = random_.chance(1, 2);
    PairNode& next = takes_less ? less : more;
    PairNode& other = takes_less ? more : less;
    content_ = takes_less ? least : middle;
    const auto promoted = of(next.control().promote("g", true));
    if (!promoted) return complain(promoted.error().message);
    if (!world_.until([&] { return next.status().state == "serving"; }, 60s))
      return complain("the promoted node does not serve");
    expect(next, "v", content_);
    restart_sometimes(next);
    write_some(next);
    world_.network().set_reachable(next.address(), true);
    // Both are named before either follows: the log stays for those that are named.
    add(next, old);
    add(next, other);
    // One that lives would make the other follow it once more, and take its tail.
    const bool old_first = old.is_up() || random_.chance(1, 2);
    come_back(old_first ? old : other, next);
    write_some(next);
    come_back(old_first ? other : old, next);
    take_branch(old, most);
    if (takes_less) take_branch(other, middle);
    if (!problem_.empty()) return;
    nodes_ = {&next, &old, &other};
    write_some(next);
    for (std::size_t i : {1, 2}) follow(next, *nodes_[i]);
    for (PairNode* node : nodes_) check_on_disk(*node);
  }
  /// What the promotion kept in its log must still be there.
  void restart_sometimes(PairNode& node) {
    if (!problem_.empty() || !random_.chance(1, 3)) return;
    node.kill();
    complain(node.start());
    if (!world_.until([&] { return node.status().state == "serving"; }, 60s))
      complain("the promoted node does not serve again");
  }
  void take_branch(PairNode& node, const Stamps& wanted) {
    if (!problem_.empty()) return;
    std::string branch;
    for (const auto& snapshot : node.status().snapshots)
      if (snapshot.name.find("tail-of-timeline") == 0) branch = snapshot.name;
    if (branch.empty()) return complain("the tail of " + node.name() + " is gone");
    expect(node, "v@" + branch, wanted);
    complain(of(node.control().delete_snapshot("g", branch)));
    ++branches;
  }
  void check_on_disk(PairNode& node) {
    complain(of(node.checkpoint()));
    const auto image = node.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random_);
    const auto report = inspect::verify(image);
    if (!report.sound()) complain(node.name() + ": " + report.text());
  }

  std::uint64_t seed_;
  SimRandom random_;
  PairWorld world_;
  ReplicationMode mode_;
  std::array<PairNode*, 3> nodes_{};  // the primary first
  Stamps content_ = Stamps(kBlocks);
  std::uint32_t stamp_ = 0;
  std::size_t round_ = 0;
  bool image_seen_ = false;  // by the last follow()
  std::string problem_;
};

TEST(ThreeNodesSim, TheOthersFollowWhicheverIsPromoted) {
  std::size_t followed = 0, copied = 0, branches = 0;
  for (const std::uint64_t seed : seeds_to_run(1, 30)) {
    SimLog log;
    ThreeNodes nodes(seed);
    nodes.run(3);
    ASSERT_EQ(nodes.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    followed += nodes.followed;
    copied += nodes.copied;
    branches += nodes.branches;
  }
  EXPECT_GT(branches, 0u);
  EXPECT_GT(followed, 20 * copied);
}

}  // namespace
}  // namespace tandem::sim
