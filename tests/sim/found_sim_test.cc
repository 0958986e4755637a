// What the command simulate found, as scripts: a seed takes another path once the program changes.
#include <gtest/gtest.h>

#include "tests/sim/pair_life.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

class Found : public PairLife {
 public:
  Found() : PairLife(1) {
    mode_ = ReplicationMode::kAsync;
    complain(world_.primary().start());
    complain(world_.mirror().start());
    complain(of(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    AddMirror request{"g", world_.mirror().address(), mode_};
    complain(of(world_.primary().control().add_mirror(request)));
    level(world_.primary(), world_.mirror());
  }

  /// Seed 20: on both sides of a split a volume was made, and got the same number. The branch of
  /// the one then read as the other, from the cache that both shared. And the tail reached further
  /// than what its node followed afterwards, which tandem-inspect took for damage.
  void volumes_of_one_number() {
    PairNode& old = world_.primary();
    PairNode& next = world_.mirror();
    cut_off(next, 2s);
    complain(of(old.create_volume("of-the-tail", kBlocks * kBlockBytes)));
    Stamps tail(kBlocks), fresh(kBlocks);
    for (std::uint64_t n = 0; n < 2 * kBlocks; ++n) write(old, n % kBlocks, tail, "of-the-tail");
    promote(next);
    complain(of(next.create_volume("fresh", kBlocks * kBlockBytes)));
    for (std::uint64_t n = 0; n < 8; ++n) write(next, n, fresh, "fresh");
    world_.network().set_reachable(next.address(), true);
    complain(of(next.control().add_mirror({"g", old.address(), mode_})));
    level(next, old);
    const std::string branch = tail_on(old);
    if (!problem_.empty()) return;
    expect(old, "of-the-tail@" + branch, tail);
    complain(of(old.checkpoint()));
    check_on_disk(old);
    complain(of(old.control().delete_snapshot("g", branch)));
    check_on_disk(old);
    complain(of(next.control().demote("g")));
    promote(old);
    expect(old, "fresh", fresh);
  }

  /// Seed 52: the drain of a switchover failed because the node stopped, and it began to serve.
  void a_stop_amid_a_switchover() {
    PairNode& node = world_.primary();
    Stamps stamps(kBlocks);
    write(node, 1, stamps);
    bool answered = false;
    spawn(switch_over(node, answered));
    const auto drains = [&] { return node.status().state == "draining"; };
    if (!world_.until(drains, 1s)) complain("it does not drain");
    world_.network().swallow(node.address());
    node.stop();
    if (!answered) complain("the operator was not answered");
    complain(node.start());
    expect_service(node);
    expect(node, "v", stamps);
  }

  /// Seed 72, with compaction: while a primary handed over, the operator promoted its mirror by
  /// force. It refused to be promoted again, and the old one took the group back from it: what was
  /// held for its clients came behind what those of the new one had written.
  void a_promotion_amid_a_switchover() {
    PairNode& old = world_.primary();
    PairNode& next = world_.mirror();
    Stamps stamps(kBlocks);
    for (std::uint64_t n = 0; n < 8; ++n) write(old, n, stamps);
    std::optional<Result<SwitchedOver>> switched;
    bool promoted = false;
    spawn(promote_when_handing_over(world_, old, next, promoted));
    spawn(switch_over(old, switched));
    if (!world_.until([&] { return switched && promoted; }, 60s)) return complain("it hangs");
    if (!*switched) complain("not switched over: " + switched->error().message);
    world_.runtime().run_for(5s);
    if (old.group()->serving()) complain("the old primary took the group back");
    if (!next.group()->serving()) complain("the promoted one serves no more");
    if (next.group()->history().size() != 2) complain("there is more than one new timeline");
    expect(next, "v", stamps);
  }

 private:
  static Task<void> promote_when_handing_over(PairWorld& world, PairNode& old, PairNode& next,
                                              bool& promoted) {
    for (bool hands_over = false; !hands_over;) {
      co_await sleep_for(world.runtime(), 10us);
      auto asking = old.control().status();
      const auto status = co_await std::move(asking);
      hands_over = status.groups.at(0).state == "mirroring";
    }
    auto promoting = next.control().promote("g", true);
    const auto done = co_await std::move(promoting);
    promoted = done.has_value();
  }
  static Task<void> switch_over(PairNode& node, std::optional<Result<SwitchedOver>>& switched) {
    auto switching = node.control().switchover("g", "");
    switched = co_await std::move(switching);
  }
  Task<void> switch_over(PairNode& node, bool& answered) {
    auto switching = node.control().switchover("g", "");
    const auto done = co_await std::move(switching);
    if (done) complain("it switched over to a node that hears nothing");
    answered = true;
  }
  void level(PairNode& primary, PairNode& mirror) {
    const auto is_level = [&] {
      const auto slots = primary.status().slots;
      return PairWorld::are_level(primary, mirror) && slots[0].state == "following";
    };
    if (problem_.empty() && !world_.until(is_level, 60s)) complain("they do not become level");
  }
};

TEST(FoundBySimulate, VolumesOfOneNumberOnBothSidesOfASplitStayApart) {
  SimLog log;
  Found found;
  found.volumes_of_one_number();
  EXPECT_EQ(found.problem(), "") << log.text();
}

TEST(FoundBySimulate, AStopAmidASwitchoverThatDrainsEndsCleanly) {
  SimLog log;
  Found found;
  found.a_stop_amid_a_switchover();
  EXPECT_EQ(found.problem(), "") << log.text();
}

TEST(FoundBySimulate, WhoWasPromotedAmidASwitchoverStaysPrimary) {
  SimLog log;
  Found found;
  found.a_promotion_amid_a_switchover();
  EXPECT_EQ(found.problem(), "") << log.text();
}

/// Seed 954: a node was fenced, and promoted by force while what its clients had asked for before
/// still waited for the disk. It was confirmed then, before the new timeline was durable.
TEST(FoundBySimulate, NothingFromBeforeAFenceIsConfirmedByAPromotion) {
  SimLog log;
  SimRuntime world(7);
  const StoreShape shape;
  StoreNode node(world, StoreNode::formatted(shape, 7), shape, 7);
  ASSERT_TRUE(world.run(node.start()));
  auto made =
      world.run(node.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
  ASSERT_TRUE(made);
  store::Group& group = **made;
  group.serve(true);
  ASSERT_TRUE(world.run(group.create_volume("v", 8 * kBlockBytes, 4096)));
  auto volume = group.open_volume("v");
  ASSERT_TRUE(volume);
  ASSERT_TRUE(world.run((*volume)->write(0, IoBuffer::on_heap(kBlockBytes), {})));
  const auto ask = [](Task<Status> task, std::optional<Status>& answer) -> Task<void> {
    answer = co_await std::move(task);
  };
  std::optional<Status> flushed, created, fenced;
  std::optional<Result<LogPoint>> promoted;
  node.disk().inject(
      {.kind = IoRequest::Kind::kFlush, .effect = DiskFault::Effect::kStall, .stall = 500ms});
  spawn(ask((*volume)->flush(), flushed));
  spawn(ask(group.create_volume("w", 8 * kBlockBytes, 4096), created));
  world.run_for(100ms);
  ASSERT_FALSE(flushed || created) << "the disk stands still";
  spawn(ask(group.set_role(Role::kFenced, Timeline{5}), fenced));
  const auto promote = [](Task<Result<LogPoint>> task,
                          std::optional<Result<LogPoint>>& answer) -> Task<void> {
    answer = co_await std::move(task);
  };
  spawn(promote(group.start_timeline(), promoted));
  ASSERT_TRUE(world.run_until([&] { return flushed && created && fenced && promoted; }, 10s));
  EXPECT_TRUE(*promoted) << promoted->error().message;
  EXPECT_FALSE(*flushed) << "a flush was confirmed";
  EXPECT_FALSE(*created) << "a volume was confirmed";
  volume->reset();
  world.run(node.stop());
}

}  // namespace
}  // namespace tandem::sim
