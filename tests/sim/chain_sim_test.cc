// A primary, its mirror, and a further one that the mirror feeds: A -> B -> C. Links are cut, nodes
// die and come back, B or C is promoted, and the chain is built anew from there.
//
// At every moment C is a prefix of what B holds durably; what was acknowledged in mode sync is on B
// when that is promoted; and once the faults end, all of the chain holds the same.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include <array>

#include "tests/sim/pair_life.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

class Chain : public PairLife {
 public:
  explicit Chain(std::uint64_t seed) : PairLife(seed) {}

  void run(std::size_t rounds) {
    nodes_ = {&world_.primary(), &world_.mirror(), &world_.third()};
    for (PairNode* node : nodes_) complain(node->start());
    complain(of(first().create_volume("v", kBlocks * kBlockBytes)));
    build();
    for (round_ = 1; round_ <= rounds && problem_.empty(); ++round_) one_round();
  }
  std::size_t given_up = 0, images = 0, branches = 0, power_cuts = 0, failovers = 0,
              far_promotions = 0;

 private:
  PairNode& first() { return *nodes_[0]; }
  PairNode& middle() { return *nodes_[1]; }
  PairNode& far() { return *nodes_[2]; }

  SlotStatus slot_of(PairNode& from, PairNode& to) {
    if (!from.is_up()) return {};
    for (const auto& slot : from.status().slots)
      if (slot.address == to.address()) return slot;
    return {};
  }
  void add(PairNode& from, PairNode& to, ReplicationMode mode) {
    if (!problem_.empty()) return;
    const SlotStatus slot = slot_of(from, to);
    const auto relay = slot.settings.find("relay");
    const bool relays = relay != slot.settings.end() && relay->second == "on";
    if (!slot.address.empty() && (from.status().role == Role::kPrimary || relays)) return;
    complain(of(from.control().add_mirror({"g", to.address(), mode})));
  }
  void remove(PairNode& from, PairNode& to) {
    if (!problem_.empty() || slot_of(from, to).address.empty()) return;
    complain(of(from.control().remove_mirror("g", to.address())));
  }
  /// A -> B -> C, and nothing else.
  void build() {
    remove(first(), far());
    remove(middle(), first());
    remove(far(), first());
    remove(far(), middle());
    add(first(), middle(), mode_);
    level(first(), middle());
    add(middle(), far(), ReplicationMode::kAsync);
    whole();
  }
  /// C is a prefix of what is durable on B.
  void check_order() {
    if (!problem_.empty() || middle().group() == nullptr || far().group() == nullptr) return;
    const auto end = far().group()->head();
    const auto durable = middle().group()->durable();
    if (end.lsn > durable) {
      complain("the far mirror is at LSN " + std::to_string(end.lsn.value) +
               ", durable on the one that feeds it is " + std::to_string(durable.value));
    }
    if (end.lsn == Lsn{0}) return;
    auto digest = of(middle().group()->digest_at(end.lsn));
    if (digest && *digest != end.digest) complain("the far mirror holds other records");
  }
  bool until(const std::function<bool()>& done, Nanoseconds limit) {
    return world_.until(
        [&] {
          images += slot_of(middle(), far()).state == "image" ? 1 : 0;
          return !problem_.empty() || done();
        },
        limit);
  }
  bool is_level(PairNode& from, PairNode& to) {
    return PairWorld::are_level(from, to) && slot_of(from, to).state == "following";
  }
  bool is_too_far_behind(PairNode& from, PairNode& to) {
    const SlotStatus slot = slot_of(from, to);
    return gives_up_ && slot.state == "refused" &&
           slot.reason.find("is not possible") != std::string::npos;
  }
  void level(PairNode& from, PairNode& to) {
    if (!problem_.empty()) return;
    const auto is_done = [&] { return is_level(from, to) || is_too_far_behind(from, to); };
    if (until(is_done, 120s) && !is_too_far_behind(from, to)) return;
    if (is_too_far_behind(from, to)) {
      // The primary keeps nothing for who its mirror feeds: after that one's promotion it may not
      // be able to go back so far. Its operator gives its copy up.
      ++given_up;
      complain(of(to.control().delete_group("g")));
      gives_up_ = false;
      return level(from, to);
    }
    complain(to.name() + " does not follow " + from.name() + ": " + slot_of(from, to).state + ", " +
             slot_of(from, to).reason);
  }
  /// Liveness: both links are up, and C has all that A has.
  void whole() {
    level(first(), middle());
    level(middle(), far());
    if (problem_.empty() && !PairWorld::are_level(first(), far())) complain("not level");
    check_order();
  }
  void write_some(std::uint64_t most) {
    for (auto n = random_.between(1, most); n-- != 0 && problem_.empty();) {
      write(first(), random_.below(kBlocks), content_);
      if (random_.chance(1, 20)) checkpoint_somewhere();
    }
  }
  void checkpoint_somewhere() {
    PairNode& node = *nodes_[random_.below(nodes_.size())];
    if (node.is_up()) complain(of(node.checkpoint()));
  }

  void disturb() {
    PairNode& mirror = random_.chance(1, 2) ? middle() : far();
    switch (random_.below(6)) {
      case 0:
        world_.network().cut(mirror.address());
        break;
      case 1:
        PairLife::cut_off(mirror, Nanoseconds(random_.below(3'000'000'000)));
        world_.network().set_reachable(mirror.address(), true);
        break;
      case 2:
        mirror.kill();
        complain(mirror.start());
        break;
      case 3:
      case 4:
        ++power_cuts;
        mirror.power_cut();
        check_order();
        if (random_.chance(1, 2)) write_some(20);
        complain(mirror.start());
        break;
      default:
        first().kill();
        complain(first().start());
        expect_service(first());
        break;
    }
    check_order();
  }

  void one_round() {
    for (auto n = random_.between(1, 8); n-- != 0 && problem_.empty();) {
      write_some(40);
      check_order();
      disturb();
      world_.runtime().run_for(Nanoseconds(random_.below(1'500'000'000)));
      check_order();
    }
    whole();
    if (!problem_.empty()) return;
    switch (random_.below(3)) {
      case 0:
        fail_over();
        break;
      case 1:
        promote_the_far_one();
        break;
      default:
        break;
    }
    whole();
    compare();
  }
  /// The volume as all of them hold it.
  void compare() {
    if (!problem_.empty()) return;
    const std::string name = "round-" + std::to_string(round_);
    complain(of(first().control().create_snapshot({.group = "g", .name = name})).has_value()
                 ? std::string()
                 : "no snapshot");
    whole();
    for (PairNode* node : nodes_) {
      expect(*node, "v@" + name, content_);
      complain(of(node->checkpoint()));
      check_on_disk(*node);
    }
  }
  void bring_back(PairNode& node) {
    world_.network().set_reachable(node.address(), true);
    if (!node.is_up()) complain(node.start());
  }

  /// A is gone. In mode sync B has all that was acknowledged, whatever C has.
  void fail_over() {
    ++failovers;
    const bool lags = random_.chance(1, 2);
    if (lags) PairLife::cut_off(far(), 500ms);
    const bool in_sync = until([&] { return slot_of(first(), middle()).in_sync; }, 5s);
    if (!in_sync) write_some(30), level(first(), middle());
    if (in_sync) write_some(60);
    PairNode& old = first();
    PairNode& next = middle();
    world_.network().set_reachable(old.address(), false);
    world_.network().cut(old.address());
    if (random_.chance(1, 2)) old.power_cut();
    promote(next);
    if (!problem_.empty()) return;
    expect(next, "v", content_);
    std::swap(nodes_[0], nodes_[1]);  // B, A, C
    write_some(40);
    bring_back(far());
    level(next, far());  // B's slot goes on as a primary's
    write_some(40);
    bring_back(old);
    add(next, old, mode_);
    level(next, old);
    write_some(40);
    build();  // C behind A now
  }
  /// A and B go on without C, which becomes primary with what it has; then they come back.
  void promote_the_far_one() {
    ++far_promotions;
    PairLife::cut_off(far(), 2s);
    const Stamps least = content_;
    const bool ahead = random_.chance(1, 2);
    if (ahead) write_some(60), level(first(), middle());
    promote(far());
    if (!problem_.empty()) return;
    content_ = least;
    expect(far(), "v", content_);
    nodes_ = {&far(), &middle(), &first()};  // C, B, A
    write_some(40);
    bring_back(first());
    if (ahead) world_.runtime().run_for(2s);
    add(first(), middle(), mode_);
    level(first(), middle());
    // A meets the newer timeline at B, which then feeds it.
    const auto is_fenced = [&] { return far().status().role != Role::kPrimary; };
    if (problem_.empty() && !until(is_fenced, 60s)) complain("the old primary was not fenced");
    write_some(40);
    gives_up_ = ahead;
    build();
    gives_up_ = false;
    for (const auto& snapshot : far().status().snapshots)
      branches += snapshot.name.find("tail-of-timeline") == 0 ? 1 : 0;
  }

  std::array<PairNode*, 3> nodes_{};  // in the order of the chain
  bool gives_up_ = false;
  Stamps content_ = Stamps(kBlocks);
};

TEST(ChainSim, TheFarOneIsAlwaysAPrefixAndCatchesUp) {
  Chain sum(0);
  for (const std::uint64_t seed : seeds_to_run(1, 30)) {
    SimLog log;
    Chain chain(seed);
    chain.run(4);
    ASSERT_EQ(chain.problem(), "") << "\nreplay with TANDEM_SEED=" << seed << "\n" << log.text();
    sum.images += chain.images;
    sum.given_up += chain.given_up;
    sum.branches += chain.branches;
    sum.power_cuts += chain.power_cuts;
    sum.failovers += chain.failovers;
    sum.far_promotions += chain.far_promotions;
  }
  EXPECT_GT(sum.images, 0u);
  EXPECT_GT(sum.branches, 0u);
  EXPECT_GT(sum.power_cuts, 20u);
  EXPECT_GT(sum.failovers, 10u);
  EXPECT_GT(sum.far_promotions, 10u);
  EXPECT_LT(sum.given_up, sum.far_promotions / 2);
}

}  // namespace
}  // namespace tandem::sim
