#include "tests/sim/simulate/pair_chaos.h"

#include <cerrno>

#include "tests/sim/simulate/door.h"

namespace tandem::sim {

using namespace std::chrono_literals;
using Kind = IoRequest::Kind;
using Effect = DiskFault::Effect;

namespace {

Nanoseconds between(SimRandom& random, Nanoseconds low, Nanoseconds high) {
  return Nanoseconds(static_cast<std::int64_t>(random.between(
      static_cast<std::uint64_t>(low.count()), static_cast<std::uint64_t>(high.count()))));
}

}  // namespace

PairChaos::PairChaos(std::uint64_t seed, const Swarm& swarm, Chronicle& chronicle)
    : seed_(seed),
      swarm_(swarm),
      chronicle_(chronicle),
      random_(seed * 15485863 + 11),
      world_(seed, swarm.shape) {
  for (std::size_t i : {0, 1}) {
    sides_[i].node = &world_.node(i);
    sides_[i].other = &sides_[1 - i];
  }
  chronicle_.follow([this] { return world_.runtime().now(); },
                    [this](const LogEvent& event) { on_event(event); });
}

PairChaos::~PairChaos() {
  calm_ = true;
  chronicle_.mute(true);
  for (Side& side : sides_) {
    side.node->resume();
    if (side.node->is_up() && !side.node->disk().is_off()) side.node->disk().kill();
    side.node->stop();
  }
  // Whoever still sleeps ends before what he refers to does.
  world_.until(
      [&] {
        bool over = true;
        for (const Side& side : sides_)
          over = over && side.orders == 0 && (!side.session || side.session->over);
        return over;
      },
      60s);
  chronicle_.follow(nullptr, nullptr);
  chronicle_.mute(false);
}

bool PairChaos::complain(const std::string& what) {
  if (problem_.empty() && !what.empty()) {
    problem_ = "episode " + std::to_string(episode_) + ", at " +
               std::to_string(std::chrono::duration<double>(time()).count()) + " s: " + what;
    chronicle_.say("WRONG: " + what);
  }
  return false;
}

void PairChaos::run() {
  begin();
  for (episode_ = 1; episode_ <= swarm_.episodes && problem_.empty(); ++episode_) {
    calm_ = false;
    safety_phase();
    calm_ = true;
    if (problem_.empty()) liveness_phase();
  }
}

/// Two nodes that hold the same: the ground on which the first episode stands.
void PairChaos::begin() {
  Side& first = sides_[0];
  for (Side& side : sides_) {
    const Status up = side.node->start();
    if (!up) return void(complain(up.error().message));
  }
  StoreModel nothing;
  StoreClients maker(world_.runtime(), *first.node, nothing, {}, random_.next());
  const Status made = run(maker.make_volumes(2, 256 << 10));
  if (!made) return void(complain("volumes: " + made.error().message));
  const Status added =
      run(first.node->control().add_mirror({"g", first.other->node->address(), swarm_.mode}));
  if (!added) return void(complain("add_mirror: " + added.error().message));
  const auto found = first.node->read_all();
  if (!found) return void(complain(found.error().message));
  lines_.settle(key_of(first.node->group()->history()), first.node->name(), *found);
  calm_ = true;
  liveness_phase();
}

PairChaos::Side& PairChaos::side_of(std::string_view name) {
  return sides_[0].node->name() == name || sides_[0].node->address() == name ? sides_[0]
                                                                             : sides_[1];
}

PairChaos::Side* PairChaos::serving_side() {
  Side* newest = nullptr;
  for (Side& side : sides_) {
    const store::Group* group = side.node->group();
    if (group == nullptr || !group->serving()) continue;
    const bool newer = newest == nullptr || group->history().back().timeline >
                                                newest->node->group()->history().back().timeline;
    if (newer) newest = &side;
  }
  return newest;
}

bool PairChaos::can_be_asked(const Side& side) const {
  return !side.node->is_dead() && !side.node->is_paused() && side.node->group() != nullptr;
}

// --- the safety phase
// -----------------------------------------------------------------------------

void PairChaos::safety_phase() {
  chronicle_.say("--- safety phase of episode " + std::to_string(episode_));
  for (std::size_t step = 0; step < swarm_.steps && problem_.empty(); ++step) {
    world_.runtime().run_for(between(random_, 200us, swarm_.pace));
    watch();
    if (!problem_.empty()) return;
    strike(draw_act());
    report();
    watch();
  }
}

Act PairChaos::draw_act() {
  std::uint64_t total = 0;
  for (const auto weight : swarm_.weights) total += weight;
  std::uint64_t point = random_.below(total);
  std::size_t chosen = 0;
  while (point >= swarm_.weights[chosen]) point -= swarm_.weights[chosen++];
  return static_cast<Act>(chosen);
}

void PairChaos::strike(Act act) {
  Side& side = sides_[random_.below(2)];
  if (act == Act::kWait) {
    world_.runtime().run_for(between(random_, 100ms, 3s));
  } else if (act == Act::kLook) {
    look_at_mirror();
  } else if (act == Act::kRot) {
    rot(side);
  } else if (act == Act::kScrub || act == Act::kCompact) {
    tidy(act, side);
  } else if (act == Act::kStart || act <= Act::kCutInStart || act == Act::kPause ||
             act == Act::kClock) {
    strike_node(act, side);
  } else if (act <= Act::kFlushError) {
    strike_disk(act, side);
  } else if (act <= Act::kHeal) {
    strike_network(act, side);
  } else {
    order(act, side);
  }
}

void PairChaos::strike_node(Act act, Side& side) {
  PairNode& node = *side.node;
  switch (act) {
    case Act::kStart:
      for (Side& each : sides_) {
        const bool stopped = can_be_asked(each) && each.node->group()->stopped();
        if (!each.node->is_up() || stopped) start_node(each);
      }
      return;
    case Act::kCutInStart:
      side.cut_in_start = true;
      return;
    case Act::kClock:
      chronicle_.say("clock of " + node.name() + " is set");
      return node.step_clock(random_.chance(1, 2) ? between(random_, 0ms, 60s)
                                                  : -between(random_, 0ms, 60s));
    case Act::kPause:
      return pause(side);
    default:
      break;
  }
  if (node.is_dead()) return;
  if (act != Act::kCutAtMoment) return crash(side, act == Act::kPowerCut);
  const std::uint64_t moments = random_.between(1, 40);
  chronicle_.say("power of " + node.name() + " goes " + std::to_string(moments) +
                 " moments of its disk from now");
  node.disk().power_off_after(moments, {});
}

void PairChaos::pause(Side& side) {
  if (side.node->is_dead() || side.node->is_paused()) return;
  const Nanoseconds length =
      random_.chance(1, 2) ? between(random_, 1ms, 300ms) : between(random_, 1s, 4s);
  chronicle_.say(side.node->name() + " stands still for " +
                 std::to_string(length.count() / 1'000'000) + " ms");
  chronicle_.mark("paused");
  if (length > 1s) chronicle_.mark("paused-past-time-out");
  side.resume_at = time() + length;
  side.node->pause();
}

void PairChaos::strike_disk(Act act, Side& side) {
  if (side.node->is_dead()) return;
  DiskFault fault;
  fault.nth = random_.between(1, 20);
  switch (act) {
    case Act::kStall:
      fault.kind = random_.chance(1, 2) ? Kind::kWrite : Kind::kFlush;
      fault.effect = Effect::kStall;
      fault.stall = between(random_, 50ms, 4s);
      break;
    case Act::kReadError:
      fault.kind = Kind::kRead;
      ++side.read_faults_armed;
      break;
    case Act::kWriteError:
      fault.kind = Kind::kWrite;
      side.fault_armed = true;
      break;
    default:
      fault.kind = Kind::kFlush;
      side.fault_armed = true;
      break;
  }
  chronicle_.say(std::string(name_of(act)) + " of " + side.node->name() + " at request " +
                 std::to_string(fault.nth));
  side.node->disk().inject(fault);
}

void PairChaos::strike_network(Act act, Side& side) {
  SimNetwork& network = world_.network();
  const std::string& address = side.node->address();
  chronicle_.say(std::string("network: ") + name_of(act) + " " + side.node->name());
  switch (act) {
    case Act::kCut:
      return network.cut(address);
    case Act::kSwallow:
      return network.swallow(address);
    case Act::kUnreachable:
      side.unreachable = true;
      network.set_reachable(address, false);
      return network.cut(address);
    case Act::kOneWay:
      chronicle_.mark("one-way-partition");
      return network.set_blocked(address, side.other->node->address(), true);
    default:
      return heal();
  }
}

void PairChaos::heal() {
  SimNetwork& network = world_.network();
  for (Side& side : sides_) {
    side.unreachable = false;
    network.set_reachable(side.node->address(), true);
    network.set_blocked(side.node->address(), side.other->node->address(), false);
  }
}

void PairChaos::order(Act act, Side& side) {
  // What the operator asks of a node is asked of one that can answer; two orders may overlap.
  if (!can_be_asked(side) || side.orders >= 2) return;
  const store::Group& group = *side.node->group();
  const bool serves = group.serving();
  if (act == Act::kPromote || act == Act::kForce) {
    if (!serves) spawn(promote(side, act == Act::kForce));
    return;
  }
  if (act == Act::kCheckpoint) return spawn(checkpoint(side));
  if (act == Act::kDropSnapshot) {
    const auto kept = group.snapshots();
    if (kept.empty()) return;
    const auto& chosen = kept[random_.below(kept.size())];
    // Branches stay until they were looked at.
    if (snapshots_.contains(chosen.name)) spawn(drop_snapshot(side, chosen.name));
    return;
  }
  if (!serves || !is_judged(side)) return;
  if (act == Act::kDemote) return spawn(demote(side));
  if (act == Act::kSwitchover) return spawn(switch_over(side));
  if (act == Act::kAddMirror) return spawn(add_mirror(side));
  if (act == Act::kMode)
    return spawn(set_mode(side, static_cast<ReplicationMode>(random_.below(3))));
  if (act == Act::kSnapshot) return spawn(take_snapshot(side));
  std::vector<std::string> names;
  for (const auto& [name, snapshot] : snapshots_) {
    if (snapshot.acknowledged && snapshot.line == key_of(group.history())) names.push_back(name);
  }
  if (!names.empty()) roll_back(side, names[random_.below(names.size())]);
}

// --- crashes and starts
// ---------------------------------------------------------------------------

void PairChaos::start_node(Side& side) {
  PairNode& node = *side.node;
  if (node.is_up()) {
    chronicle_.say(node.name() + " is stopped");
    node.stop();
    if (side.session && !end_session(side)) return;
  }
  if (side.fault_armed) lose_cache(side);
  side.fault_armed = false;
  side.read_faults_armed = 0;
  const bool cut = std::exchange(side.cut_in_start, false) && !calm_;
  const Status up = node.start(cut ? random_.between(1, 12) : 0);
  if (up && has_rot(side)) chronicle_.mark("damage-outlived-a-start");
  chronicle_.say(node.name() + (up ? " starts" : " does not start: " + up.error().message));
  if (up) return;
  if (!cut || !node.disk().is_off())
    return void(complain(node.name() + " does not start: " + up.error().message));
  chronicle_.mark("crash-in-recovery");
  lose_cache(side);
  node.bury();
}

/// What a node holds is looked at before it goes; then it goes, and nobody hears of it any more.
void PairChaos::crash(Side& side, bool power) {
  side.node->resume();
  watch_gate(side);
  watch_gate(*side.other);
  chronicle_.say(side.node->name() + (power ? ": its power goes" : ": its process is killed"));
  chronicle_.mark(power ? "power-cut" : "killed");
  power ? side.node->disk().power_off({}) : side.node->disk().kill();
  if (power) lose_cache(side);
  notice_crash(side);
}

/// A power cut, or a flush that failed: what was only written may be gone, also of a tail, unless
/// the checkpoint that keeps it as a branch came long before.
void PairChaos::lose_cache(Side& side) {
  side.hold.lose_cache();
  if (side.unserved) side.unserved->lose_cache();
  for (auto& [line, tail] : side.tails) {
    const bool is_kept = tail.rewound_at != Nanoseconds{0} && time() - tail.rewound_at > 30s;
    if (!is_kept) tail.hold.lose_cache();
  }
}

/// Its disk is off already.
void PairChaos::notice_crash(Side& side) {
  close_windows(*side.other);
  if (side.fault_armed) lose_cache(side);
  if (side.promoting) chronicle_.mark("crash-in-promotion");
  if (chronicle_.is_copying()) chronicle_.mark("copy-interrupted");
  world_.network().set_reachable(side.node->address(), false);
  side.node->bury();
  world_.network().set_reachable(side.node->address(), !side.unreachable);
  side.gate_closed = side.other->gate_closed = false;
  side.fault_armed = false;
  side.read_faults_armed = 0;
  side.judged = {};
  if (side.session) end_session(side);
}

void PairChaos::report() {
  std::string line;
  for (Side& side : sides_) {
    const store::Group* group = side.node->group();
    line += side.node->name() + ": ";
    if (group == nullptr) {
      line += side.node->is_up() ? "no copy" : "down";
    } else {
      line += std::string(to_string(group->role())) + (group->serving() ? " serves" : "") + " tl " +
              std::to_string(group->history().back().timeline.value) + " lsn " +
              std::to_string(group->head().lsn.value) + "/" +
              std::to_string(group->durable().value);
      if (group->stopped()) line += " STOPPED";
      if (side.node->is_paused()) line += " paused";
      if (!side.slot_state.empty()) line += " -> " + side.slot_state;
    }
    line += "    ";
  }
  chronicle_.say(line);
}

}  // namespace tandem::sim
