// What the simulation notices while a pair lives, and how it judges what it finds.
#include "tests/sim/simulate/door.h"
#include "tests/sim/simulate/pair_chaos.h"

namespace tandem::sim {

using namespace std::chrono_literals;

// --- what the product says
// ------------------------------------------------------------------------

void PairChaos::on_event(const LogEvent& event) {
  if (!calm_) worst_moment(event);
  if (event.name == "slot.state") {
    side_of(event.field("mirror")).other->slot_state = event.field("state");
  } else if (event.name == "slot.gated" || event.name == "slot.degraded") {
    on_gate(event);
  } else if (event.name == "group.rewound") {
    on_rewound(event);
  } else if (event.name == "group.newer-timeline") {
    Side& fenced = *side_of(event.field("node")).other;
    if (!fenced.session || fenced.session->acknowledged_when_fenced) return;
    fenced.session->acknowledged_when_fenced = fenced.session->clients->acknowledged();
    fenced.session->fenced_at = time();
  }
}

/// In the middle of a change an operator promotes, or a machine fails: between two steps that would
/// hardly ever happen. A moment later, since this runs within the change.
void PairChaos::worst_moment(const LogEvent& event) {
  const bool ships = event.name == "slot.state" && event.field("state") != "connecting" &&
                     event.field("state") != "stopped" && event.field("state") != "refused";
  const bool turns = event.name == "group.rewound" || event.name == "group.promoted" ||
                     event.name == "slot.fetched" || event.name == "image.installed";
  if (!ships && !turns) return;
  const bool force = swarm_.weight(Act::kForce) != 0 && random_.chance(1, 24);
  const bool cut = swarm_.weight(Act::kCutAtMoment) != 0 && random_.chance(1, 16);
  if (!force && !cut) return;
  Side* side = ships ? &side_of(event.field("mirror")) : &sides_[random_.below(2)];
  const std::uint64_t moments = random_.between(1, 12);
  const Nanoseconds soon(static_cast<std::int64_t>(random_.below(800'000)));
  world_.runtime().schedule_after(soon, [this, side, force, moments] {
    if (calm_ || !can_be_asked(*side)) return;
    chronicle_.say("a moment chosen by what " + side->node->name() + " is in the middle of");
    if (!force) return side->node->disk().power_off_after(moments, {});
    if (side->orders < 2 && !side->node->group()->serving()) spawn(promote(*side, true));
  });
}

/// From "gated" on writers wait for the mirror, until "degraded": that is what it must then have.
void PairChaos::on_gate(const LogEvent& event) {
  Side& mirror = side_of(event.field("mirror"));
  if (event.name == "slot.degraded") {
    close_windows(mirror);
    mirror.gate_closed = false;
    return;
  }
  mirror.gate_closed = true;
  mirror.barrier = Lsn{event.number("lsn")};
}

/// Which node it was is not in the line; only one that does not serve ends there.
void PairChaos::on_rewound(const LogEvent& event) {
  const Lsn end{event.number("from")};
  for (Side& side : sides_) {
    const store::Group* group = side.node->group();
    if (group == nullptr || group->serving() || group->head().lsn != end) continue;
    const LineKey line = key_of(group->history());
    const Hold hold = side.hold.line == line ? side.hold : Hold{};
    if (lines_.contains(line)) side.tails[line] = Tail{hold, end, time()};
    side.hold = Hold{};  // it has only what both have in common
  }
}

/// The mirror stops being waited for, or may: what it must have is what was acknowledged until now.
void PairChaos::close_windows(Side& mirror) {
  Hold& hold = mirror.hold;
  if (hold.own || !lines_.contains(hold.line)) return;
  const StoreModel& model = *lines_.at(hold.line).models.at(hold.model);
  if (hold.written == kForever) hold.written = model.now();
  if (hold.gated_from != 0) {
    hold.durable = std::max(hold.durable, model.flushed_before(hold.gated_from, model.now() + 1));
    hold.gated_from = 0;
  }
}

// --- what is looked at between two steps
// ----------------------------------------------------------

void PairChaos::watch() {
  for (Side& side : sides_) {
    if (side.node->is_up() && side.node->disk().is_off()) {
      chronicle_.say(side.node->name() + ": its power went");
      chronicle_.mark("power-cut-at-a-moment");
      lose_cache(side);
      notice_crash(side);
    }
    if (side.node->is_paused() && time() >= side.resume_at) side.node->resume();
  }
  for (Side& side : sides_) watch_side(side);
  const store::Group* one = sides_[0].node->group();
  const store::Group* other = sides_[1].node->group();
  if (one == nullptr || other == nullptr || !one->serving() || !other->serving()) return;
  if (key_of(one->history()) == key_of(other->history()))
    return void(complain("both nodes serve the same timeline"));
  chronicle_.mark("split-brain");
}

void PairChaos::watch_side(Side& side) {
  if (side.session && side.session->over) end_session(side);
  if (!can_be_asked(side) || !problem_.empty()) return;
  watch_gate(side);
  watch_tail(side);
  const store::Group* group = side.node->group();
  if (!group->serving()) return;
  if (!is_judged(side)) judge(side);
  if (is_judged(side) && !calm_ && !side.session && side.node->group()->serving())
    begin_session(side);
}

bool PairChaos::is_judged(const Side& side) const {
  const store::Group* group = side.node->group();
  return group != nullptr && side.judged_boot == side.node->boots() &&
         side.judged == key_of(group->history());
}

/// That line is a part of this history, to its end and beyond.
bool PairChaos::went_on(const TimelineHistory& history, const LineKey& line, const Tail& tail) {
  for (std::size_t i = 0; i + 1 < history.size(); ++i) {
    const auto upto = history.begin() + static_cast<std::ptrdiff_t>(i + 1);
    if (key_of(TimelineHistory(history.begin(), upto)) == line)
      return history[i + 1].fork >= tail.end;
  }
  return false;
}

/// It holds records behind a place where another node's line parted: they must stay as a branch.
void PairChaos::watch_tail(Side& side) {
  const store::Group& group = *side.node->group();
  const LineKey line = key_of(group.history());
  // A line that went on is a part of what it became.
  const TimelineHistory history = group.history();
  std::erase_if(side.tails, [&](const auto& entry) {
    return entry.second.rewound_at == Nanoseconds{0} && went_on(history, entry.first, entry.second);
  });
  if (!lines_.contains(line)) return;
  if (lines_.parted_before(group.history(), group.head().lsn)) {
    side.tails[line] =
        Tail{side.hold.line == line ? side.hold : Hold{}, group.head().lsn, Nanoseconds{0}};
  } else if (const auto tail = side.tails.find(line);
             tail != side.tails.end() && tail->second.rewound_at == Nanoseconds{0}) {
    side.tails.erase(tail);  // a power cut has taken them
  }
}

/// While a primary's writers wait for this mirror, it has what was acknowledged.
void PairChaos::watch_gate(Side& side) {
  Side& primary = *side.other;
  if (!side.gate_closed || !is_judged(primary) || side.node->group() == nullptr) return;
  if (side.node->is_dead() || side.node->group()->serving()) return;
  if (!primary.node->group()->serving() || primary.mode == ReplicationMode::kAsync) return;
  Line& line = lines_.at(primary.judged);
  const bool level = key_of(side.node->group()->history()) == primary.judged &&
                     side.node->group()->head().lsn >= side.barrier;
  const bool is_newest =
      side.hold.line == primary.judged && !side.hold.own && side.hold.model == line.newest();
  // It may still be in front of a rollback.
  if (!is_newest && !level && line.newest() != 0) return;
  if (!is_newest) side.hold = Hold{primary.judged, line.newest()};
  if (side.hold.gated_from == 0) side.hold.gated_from = line.now().now();
  if (primary.mode == ReplicationMode::kSync && level) side.hold.written = kForever;
}

// --- judging
// --------------------------------------------------------------------------------------

/// A node began to serve: what it has is judged before anybody writes to it.
void PairChaos::judge(Side& side) {
  PairNode& node = *side.node;
  if (side.session && !end_session(side)) return;
  const TimelineHistory history = node.group()->history();
  const std::uint64_t boot = node.boots();
  auto found = node.read_all();
  const auto is_the_same = [&] {
    return can_be_asked(side) && node.boots() == boot && node.group()->serving() &&
           node.group()->history() == history;
  };
  if (!is_the_same()) return;
  for (; !found && side.read_faults_armed > 0; --side.read_faults_armed) {
    found = node.read_all();
    if (!is_the_same()) return;
  }
  if (!found && has_rot(side)) {
    found = read_again(side, "", "damage-refused");
    if (!is_the_same()) return;
  }
  if (!found) return void(complain("reading " + node.name() + ": " + found.error().message));
  if (!judge_content(side, history, *found)) return;
  const LineKey key = key_of(history);
  if (!confirmed_nothing(side, key)) side.unserved = side.hold;
  side.confirmed = lines_.at(key).now().promised(StoreModel::Crash::kProcessKilled);
  side.hold = Hold{key, lines_.at(key).newest(), /*own=*/true, kForever};
  side.judged = key;
  side.judged_boot = boot;
  side.mode = node.group()->mode();
  chronicle_.say("what " + node.name() + " serves is right");
}

/// No change was confirmed since it began to serve that line again.
bool PairChaos::confirmed_nothing(Side& side, const LineKey& line) {
  if (!side.unserved || side.hold.line != line || !side.hold.own) return false;
  const StoreModel& served = *lines_.at(line).models.at(side.hold.model);
  return served.promised(StoreModel::Crash::kProcessKilled) == side.confirmed;
}

bool PairChaos::judge_content(Side& side, const TimelineHistory& history,
                              const StoreModel::Found& found) {
  const std::string& name = side.node->name();
  const LineKey* nearest = lines_.newest_of(history);
  if (nearest == nullptr) return complain(name + " serves a history that nobody made");
  const LineKey line = *nearest;
  Hold hold = side.hold;
  if (side.fault_armed) hold.lose_cache();
  if (line == key_of(history)) {
    if (lines_.at(line).server != name) return complain(name + " serves another node's timeline");
    const bool may_go_back = confirmed_nothing(side, line);
    auto wrong = lines_.restart(line, found, hold);
    if (wrong && may_go_back && !lines_.restart(line, found, *side.unserved)) wrong.reset();
    return !wrong || complain(name + " serves again, but not what it should: " + *wrong);
  }
  if (auto wrong = lines_.check(line, found, hold))
    return complain(name + " was promoted, but not with what it should have: " + *wrong);
  lines_.begin(key_of(history), name, found);
  lines_.note_history(history);
  return true;
}

namespace {

Task<void> run_and_tell(StoreClients& clients, bool& over) {
  co_await clients.run();
  over = true;
}

}  // namespace

void PairChaos::begin_session(Side& side) {
  Mix mix = Mix::from_seed(random_.fork());
  mix.operations = random_.between(20, 120);
  mix.pause = swarm_.pauses_of_clients;
  mix.volume_bytes_max = 512 << 10;
  side.session = std::make_unique<Session>();
  Session& session = *side.session;
  session.door = std::make_unique<Door>(*side.node, side.judged);
  session.clients = std::make_unique<StoreClients>(
      world_.runtime(), *session.door, lines_.at(side.judged).now(), mix, random_.next());
  spawn(run_and_tell(*session.clients, session.over));
}

/// What if the mirror's machine failed at this moment, and its disk were promoted elsewhere?
void PairChaos::look_at_mirror() {
  for (Side& side : sides_) {
    if (!can_be_asked(side) || side.node->group()->role() != Role::kMirror) continue;
    if (side.node->group()->awaiting_image()) continue;
    watch_gate(side);
    SimRandom random = random_.fork();
    const bool killed = random.chance(1, 2);
    const SimImage image =
        killed ? side.node->disk().killed_image(random) : side.node->disk().crash_image({}, random);
    Hold hold = side.hold;
    if (!killed || side.fault_armed) hold.lose_cache();
    chronicle_.mute(true);
    Recovery copy = promote_copy(image, swarm_.shape, random.next());
    if (!copy.status && !side.rotten.empty())  // it has no peer: an error is all it can answer
      copy = promote_copy(without_rot(side, image), swarm_.shape, random.next());
    chronicle_.mute(false);
    chronicle_.mark("mirror-looked-at");
    const std::string what = killed ? "the mirror's disk as its process left it"
                                    : "the mirror's disk as a power cut left it";
    if (!copy.status) {
      complain(what + " cannot be promoted: " + copy.status.error().message);
      continue;
    }
    const LineKey* line = lines_.newest_of(copy.history);
    if (line == nullptr || *line != key_of(copy.history)) continue;  // not judged itself yet
    if (auto wrong = lines_.check(*line, copy.found, hold))
      complain(what + " is no prefix: " + *wrong);
  }
}

}  // namespace tandem::sim
