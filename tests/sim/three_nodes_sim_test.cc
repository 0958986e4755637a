// A primary with two mirrors, of which one has less than the other, and that less than the primary.
// The primary goes, either mirror is promoted, and the two others follow it, in either order:
// without a full copy, with what only they held kept as a branch that reads as their volume did.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include <array>

#include "tests/sim/pair_life.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

class ThreeNodes : public PairLife {
 public:
  explicit ThreeNodes(std::uint64_t seed) : PairLife(seed) {}

  void run(std::size_t rounds) {
    nodes_ = {&world_.primary(), &world_.mirror(), &world_.third()};
    for (PairNode* node : nodes_) complain(node->start());
    complain(of(nodes_[0]->create_volume("v", kBlocks * kBlockBytes)));
    for (std::size_t i : {1, 2}) follow(*nodes_[0], *nodes_[i]);
    for (round_ = 1; round_ <= rounds && problem_.empty(); ++round_) one_round();
  }
  std::size_t followed = 0, copied = 0, branches = 0;

 private:
  void write_some(PairNode& node) {
    for (auto n = random_.between(1, 60); n-- != 0 && problem_.empty();) {
      write(node, random_.below(kBlocks), content_);
      if (random_.chance(1, 20)) checkpoint_somewhere();
    }
  }
  void checkpoint_somewhere() {
    PairNode& node = *nodes_[random_.below(nodes_.size())];
    if (node.is_up()) complain(of(node.checkpoint()));
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
  void cut_off(PairNode& node) { PairLife::cut_off(node, random_.chance(1, 2) ? 30s : 2s); }
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
    promote(next);
    if (!problem_.empty()) return;
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
    for (PairNode* node : nodes_) {
      complain(of(node->checkpoint()));
      check_on_disk(*node);
    }
  }
  /// What the promotion kept in its log must still be there.
  void restart_sometimes(PairNode& node) {
    if (!problem_.empty() || !random_.chance(1, 3)) return;
    node.kill();
    complain(node.start());
    expect_service(node);
  }
  void take_branch(PairNode& node, const Stamps& wanted) {
    if (!problem_.empty()) return;
    take_tail(node, wanted);
    ++branches;
  }

  std::array<PairNode*, 3> nodes_{};  // the primary first
  Stamps content_ = Stamps(kBlocks);
  bool image_seen_ = false;  // by the last follow()
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
