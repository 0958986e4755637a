// What the operator does in the safety phase: orders that run while faults strike.
#include "store/compaction.h"
#include "tests/sim/simulate/door.h"
#include "tests/sim/simulate/pair_chaos.h"

namespace tandem::sim {

using namespace std::chrono_literals;

Task<void> PairChaos::promote(Side& side, bool force) {
  ++side.orders;
  side.promoting = true;
  const bool was_fenced = side.node->group()->role() == Role::kFenced;
  const bool was_behind = side.other->slot_state == "catch-up";
  chronicle_.say("operator: promote " + side.node->name() + (force ? " by force" : ""));
  auto promoting = side.node->control().promote("g", force);
  const auto done = co_await std::move(promoting);
  side.promoting = false;
  --side.orders;
  if (!done) {
    chronicle_.say(side.node->name() + " is not promoted: " + done.error().message);
    if (done.error().code == ErrorCode::kRefused) chronicle_.mark("promotion-refused");
    co_return;
  }
  chronicle_.say(side.node->name() + " is promoted at lsn " +
                 std::to_string(done->recovers_to.lsn.value) + ", " +
                 std::to_string(done->missing_records) + " records are known to be missing");
  chronicle_.mark("promoted");
  if (done->primary_reachable) chronicle_.mark("promoted-by-force");
  if (was_fenced) chronicle_.mark("promoted-from-fenced");
  if (was_behind) chronicle_.mark("promoted-while-catching-up");
  if (done->missing_records != 0) chronicle_.mark("promoted-with-known-loss");
}

Task<void> PairChaos::demote(Side& side) {
  ++side.orders;
  chronicle_.say("operator: demote " + side.node->name());
  auto demoting = side.node->control().demote("g");
  const Status done = co_await std::move(demoting);
  --side.orders;
  if (done) chronicle_.mark("demoted");
  chronicle_.say(side.node->name() + (done ? " is demoted" : ": " + done.error().message));
}

Task<void> PairChaos::switch_over(Side& side) {
  ++side.orders;
  chronicle_.say("operator: switchover from " + side.node->name());
  auto switching = side.node->control().switchover("g", "");
  const auto done = co_await std::move(switching);
  --side.orders;
  chronicle_.mark(done ? "switched-over" : "switchover-failed");
  chronicle_.say("switchover from " + side.node->name() +
                 (done ? ": done" : ": " + done.error().message));
}

Task<void> PairChaos::add_mirror(Side& side) {
  if (!side.node->group()->slots().empty()) co_return;
  ++side.orders;
  chronicle_.say("operator: add a mirror to " + side.node->name());
  close_windows(*side.other);
  side.mode = ReplicationMode::kAsync;
  const std::size_t order = ++side.mode_orders;  // it comes with a mode
  auto adding = side.node->control().add_mirror({"g", side.other->node->address(), swarm_.mode});
  const Status done = co_await std::move(adding);
  --side.orders;
  if (done && can_be_asked(side) && order == side.mode_orders) side.mode = swarm_.mode;
  if (!done) chronicle_.say("no mirror of " + side.node->name() + ": " + done.error().message);
}

Task<void> PairChaos::set_mode(Side& side, ReplicationMode mode) {
  ++side.orders;
  chronicle_.say("operator: mode " + std::string(to_string(mode)) + " on " + side.node->name());
  // Until it is known which of the two holds, nothing is expected of the mirror.
  close_windows(*side.other);
  side.mode = ReplicationMode::kAsync;
  const std::size_t order = ++side.mode_orders;
  auto setting = side.node->control().set_mode("g", mode);
  const Status done = co_await std::move(setting);
  --side.orders;
  if (!done || !can_be_asked(side) || order != side.mode_orders) co_return;
  chronicle_.mark("mode-changed");
  side.mode = mode;
  // No event tells that it opened; a mode with a gate tells when that closes.
  if (mode == ReplicationMode::kAsync) side.other->gate_closed = false;
  side.other->barrier = side.node->group()->tail().lsn;
}

Task<void> PairChaos::take_snapshot(Side& side) {
  ++side.orders;
  const std::string name = "s" + std::to_string(names_++);
  const LineKey line = side.judged;
  const std::uint64_t called = lines_.at(line).now().now();
  auto taking = side.node->control().create_snapshot({"g", name, ""});
  const auto done = co_await std::move(taking);
  --side.orders;
  chronicle_.say("snapshot " + name + " on " + side.node->name() +
                 (done ? "" : ": " + done.error().message));
  if (!lines_.contains(line)) co_return;
  Snapshot& snapshot = snapshots_[name];
  snapshot.node = side.node->name();
  snapshot.line = line;
  snapshot.called = called;
  snapshot.acknowledged = done.has_value() && !side.node->is_dead();
  snapshot.model = std::make_unique<StoreModel>(lines_.at(line).now());
}

Task<void> PairChaos::drop_snapshot(Side& side, std::string name) {
  ++side.orders;
  chronicle_.say("operator: delete snapshot " + name + " on " + side.node->name());
  // It may be gone from now on, wherever the order ends.
  if (snapshots_.at(name).node == side.node->name()) snapshots_.at(name).durable = false;
  // A tail that ended with it is kept as this snapshot: nothing happened since.
  for (const auto& state : side.node->group()->snapshots()) {
    const Lsn end = state.name == name ? state.at.lsn : Lsn{};
    if (end != Lsn{}) std::erase_if(side.tails, [&](const auto& t) { return t.second.end == end; });
  }
  auto dropping = side.node->control().delete_snapshot("g", name);
  (void)co_await std::move(dropping);
  --side.orders;
}

Task<void> PairChaos::checkpoint(Side& side) {
  ++side.orders;
  auto writing = side.node->checkpoint();
  (void)co_await std::move(writing);
  --side.orders;
}

/// Goes on in the background.
void PairChaos::tidy(Act act, Side& side) {
  if (!can_be_asked(side)) return;
  chronicle_.say(std::string("operator: ") + name_of(act) + " " + side.node->name());
  if (act == Act::kScrub) return void(run(side.node->control().start_scrub("g")));
  // As little room as it can do with: in a pool of one group few zones are worth it.
  if (auto& compaction = side.node->group()->compaction(); random_.chance(1, 2))
    compaction.set_slack(random_.below(64));
  (void)run(side.node->control().start_compaction("g"));
}

/// Ends what its clients do: all of them are answered.
bool PairChaos::end_session(Side& side) {
  Session& session = *side.session;
  session.door->shut();
  if (!world_.until([&] { return session.over; }, 600s))
    return complain("clients of " + side.node->name() + " hang");
  acknowledged_ += session.clients->acknowledged();
  if (session.clients->refused() != 0) chronicle_.mark("pool-full");
  const std::string complaint = session.clients->complaint();
  if (session.acknowledged_when_fenced && time() - session.fenced_at > 1ms &&
      session.clients->acknowledged() > *session.acknowledged_when_fenced) {
    complain(side.node->name() + " acknowledged a change after it saw a newer timeline");
  }
  side.session.reset();
  return complaint.empty() || complain("on " + side.node->name() + ": " + complaint);
}

/// With nobody writing, so that it is known what is abandoned. Whether it happened tells what the
/// node serves afterwards: see judge().
void PairChaos::roll_back(Side& side, const std::string& name) {
  if (side.orders != 0 || (side.session && !end_session(side))) return;
  if (!can_be_asked(side) || !is_judged(side) || !side.node->group()->serving()) return;
  const LineKey key = side.judged;
  const auto found = side.node->read_all(name);
  if (!found || found->empty() || !can_be_asked(side) || !side.node->group()->serving()) return;
  const Snapshot& to = snapshots_.at(name);
  if (auto wrong = to.model->check_recovered(*found, StoreModel::Demand{to.called, false}))
    return void(complain("snapshot " + name + ": " + *wrong));
  const std::string branch = "left-" + std::to_string(names_++);
  chronicle_.say("operator: roll " + side.node->name() + " back to " + name);
  close_windows(*side.other);
  Line& line = lines_.at(key);
  Snapshot& left = snapshots_[branch];
  left.node = side.node->name();
  left.line = key;
  left.model = std::make_unique<StoreModel>(line.now());
  left.called = line.now().now();
  lines_.may_become(key, *found);
  const auto rolled = run(side.node->control().rollback({"g", name, branch}));
  chronicle_.say(rolled ? "rolled back" : "not rolled back: " + rolled.error().message);
  if (rolled) side.hold.model = line.newest();
  // A mirror whose writers are still waited for may be in front of it, too.
  if (const auto* group = side.node->group())
    side.other->barrier = std::max(side.other->barrier, group->tail().lsn);
  left.acknowledged = rolled && !rolled->branch.name.empty() && !side.node->is_dead();
  side.judged = {};
}

}  // namespace tandem::sim
