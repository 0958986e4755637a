// The liveness phase: the faults are over, an operator does what the runbook says, and within a
// bounded time one node serves, the other follows, and everything that was promised is there.
#include <algorithm>

#include "inspect/verify.h"
#include "tests/sim/simulate/door.h"
#include "tests/sim/simulate/pair_chaos.h"
#include "tests/support/image_reader.h"

namespace tandem::sim {

using namespace std::chrono_literals;

namespace {

/// What a refusal gets to pass by itself, and a pair without a primary.
constexpr Nanoseconds kPatience = 8s;
constexpr Nanoseconds kLimit = 300s;

std::string difference(const StoreModel::Found& one, const StoreModel::Found& other) {
  for (const auto& [name, bytes] : one) {
    const auto there = other.find(name);
    if (there == other.end()) return name + " is missing";
    if (there->second.size() != bytes.size()) return name + " has another size";
    const auto at = std::mismatch(bytes.begin(), bytes.end(), there->second.begin()).first;
    if (at != bytes.end()) return name + " at byte " + std::to_string(at - bytes.begin());
  }
  return one.size() == other.size() ? "" : "a volume more";
}

/// A scrub reads what clients can reach. What was overwritten or deleted since stays for a while in
/// the log, and in the marks from which older states can be made; it is checked when it is used.
bool is_out_of_reach(const inspect::Finding& finding) {
  const bool of_mark = finding.part == "data" && finding.place.find("@,") != std::string::npos;
  return finding.severity == inspect::Finding::Severity::kNote || finding.part == "log" || of_mark;
}

}  // namespace

void PairChaos::liveness_phase() {
  chronicle_.say("--- liveness phase of episode " + std::to_string(episode_));
  heal();
  for (Side& side : sides_) {
    side.node->resume();
    side.cut_in_start = false;
    if (side.node->is_up()) side.node->disk().clear_faults();
  }
  watch();
  for (Side& side : sides_) {
    if (side.session && problem_.empty()) end_session(side);
  }
  refused_since_ = nobody_since_ = time();
  new_timelines_ = 0;
  const Nanoseconds end = time() + kLimit;
  while (problem_.empty() && !calm_step()) {
    if (time() >= end) {
      report();
      Side* primary = serving_side();
      std::string why = primary == nullptr ? "nobody serves" : "";
      if (primary != nullptr && can_be_asked(*primary)) {
        for (const auto& slot : primary->node->status().slots)
          why += slot.state + " " + slot.reason;
      }
      complain("the two do not come together again: " + why);
      return;
    }
    world_.runtime().run_for(250ms);
    watch();
  }
  if (problem_.empty()) verify();
}

/// True when the pair is whole.
bool PairChaos::calm_step() {
  for (Side& side : sides_) {
    const bool stopped =
        can_be_asked(side) && side.node->group() != nullptr && side.node->group()->stopped();
    if (!side.node->is_up() || stopped) start_node(side);
    if (!problem_.empty()) return false;
    if (side.orders != 0) return false;
  }
  watch();
  if (!problem_.empty()) return false;
  std::size_t serving = 0;
  for (Side& side : sides_)
    serving += side.node->group() != nullptr && side.node->group()->serving() ? 1 : 0;
  if (serving == 0) {
    choose_primary();
    return false;
  }
  nobody_since_ = time();
  if (serving == 2) {
    settle_two_primaries();
    return false;
  }
  Side& primary = *serving_side();
  if (!is_judged(primary)) return false;
  return pair_up(primary);
}

/// Nobody serves: the copy that knows the newest timeline has the most, by its receipt.
void PairChaos::choose_primary() {
  if (time() - nobody_since_ < kPatience) return;  // one may be starting, and hear its mirror
  Side* best = nullptr;
  const auto rank = [](const store::Group& group) {
    return std::pair(group.history().back().timeline, group.head().lsn);
  };
  for (Side& side : sides_) {
    const store::Group* group = side.node->group();
    if (group == nullptr || group->awaiting_image()) continue;
    if (best == nullptr || rank(*group) > rank(*best->node->group())) best = &side;
  }
  if (best == nullptr) return void(complain("no node has a copy to promote"));
  chronicle_.say("operator: nobody serves; promote " + best->node->name());
  const auto promoted = run(best->node->control().promote("g", true));
  if (!promoted) chronicle_.say("not promoted: " + promoted.error().message);
  nobody_since_ = time();
}

/// The one with the newest timeline is told of the other, which hears of it then. Of two timelines
/// with one number neither is newer: the operator demotes both, and decides.
void PairChaos::settle_two_primaries() {
  Side& primary = *serving_side();
  Side& other = *primary.other;
  const auto timeline = [](const Side& side) {
    return side.node->group()->history().back().timeline;
  };
  if (timeline(primary) != timeline(other)) return void(pair_up(primary));
  chronicle_.say("operator: two primaries on timelines of one number; demote both");
  for (Side* side : {&primary, &other}) (void)run(side->node->control().demote("g"));
  nobody_since_ = time() - kPatience;
}

bool PairChaos::is_following(Side& primary) {
  const GroupStatus status = primary.node->status();
  return status.state == "serving" && status.slots.size() == 1 &&
         status.slots[0].state == "following" &&
         (status.mode != ReplicationMode::kSync || status.slots[0].in_sync);
}

bool PairChaos::pair_up(Side& primary) {
  const GroupStatus status = primary.node->status();
  if (status.slots.empty()) {
    chronicle_.say("operator: name the mirror of " + primary.node->name());
    const Status added =
        run(primary.node->control().add_mirror({"g", primary.other->node->address(), swarm_.mode}));
    if (!added) chronicle_.say("no mirror: " + added.error().message);
    return false;
  }
  if (is_following(primary) && PairWorld::are_level(*primary.node, *primary.other->node) &&
      primary.orders == 0)
    return true;
  // Refused, or begun again and again: either way it does not get there.
  const store::Group* mirror = primary.other->node->group();
  const Lsn reached = mirror == nullptr ? Lsn{} : mirror->head().lsn;
  if (reached != std::exchange(reached_, reached)) refused_since_ = time();
  if (time() - refused_since_ > kPatience) give_up_copy(primary, status.slots[0]);
  return false;
}

/// The other copy does not follow: first a new timeline, on which its tail would be a branch,
/// then, if that does not help, its copy is given up, as the refusal says.
bool PairChaos::give_up_copy(Side& primary, const SlotStatus& slot) {
  chronicle_.say("operator: the mirror is refused: " + slot.reason);
  refused_since_ = time();
  Side& other = *primary.other;
  const auto says = [&](const char* what) { return slot.reason.find(what) != std::string::npos; };
  if (says("checksum") && has_rot(primary)) {
    chronicle_.mark("damage-stopped-a-copy");
    give_back(primary);
    return false;
  }
  if (says("full") && make_room(other)) return false;
  const bool is_hopeless = says("hold different records") || says("full");
  if (!is_hopeless && new_timelines_++ == 0) {
    (void)run(primary.node->control().demote("g"));
    (void)run(primary.node->control().promote("g", true));
    return false;
  }
  give_back(primary);  // which has the only copy then
  const Status deleted = run(other.node->control().delete_group("g"));
  chronicle_.say("operator: the copy on " + other.node->name() + " is deleted" +
                 (deleted ? "" : ": " + deleted.error().message));
  chronicle_.mark("copy-given-up");
  other.tails.clear();
  for (auto& [name, snapshot] : snapshots_) {
    if (snapshot.node == other.node->name()) snapshot.durable = false;
  }
  return true;
}

/// As the refusal says: what is kept there is looked at, and let go. False: nothing is kept.
bool PairChaos::make_room(Side& side) {
  if (!can_be_asked(side) || side.node->group()->awaiting_image()) return false;
  std::vector<std::string> names;
  for (const auto& state : side.node->group()->snapshots()) names.push_back(state.name);
  if (names.empty()) return false;
  if (!verify_snapshots(side) || !verify_tails(side)) return true;
  for (const auto& name : names) {
    const auto ours = snapshots_.find(name);
    if (ours != snapshots_.end() && ours->second.node == side.node->name())
      ours->second.durable = false;
    const Status gone = run(side.node->control().delete_snapshot("g", name));
    chronicle_.say("operator: to make room on " + side.node->name() + " " + name + " is deleted" +
                   (gone ? "" : ": " + gone.error().message));
  }
  chronicle_.mark("room-made");
  return true;
}

// --- what must be there
// ---------------------------------------------------------------------------

void PairChaos::verify() {
  Side& primary = *serving_side();
  Side& mirror = *primary.other;
  const auto found = primary.node->read_all();
  if (!found) return void(complain("reading the primary: " + found.error().message));
  if (!judge_content(primary, primary.node->group()->history(), *found)) return;
  for (Side& side : sides_) {
    if (swarm_.rots() && !scrub_whole(side)) return;
  }
  for (Side& side : sides_) {
    if (!verify_snapshots(side) || !verify_tails(side)) return;
  }
  if (!world_.until([&] { return PairWorld::are_level(*primary.node, *mirror.node); }, 60s))
    return void(complain("the two do not stay level"));
  for (const bool killed : {true, false}) {
    SimRandom random = random_.fork();
    const SimImage image = killed ? mirror.node->disk().killed_image(random)
                                  : mirror.node->disk().crash_image({}, random);
    chronicle_.mute(true);
    const Recovery copy = promote_copy(image, swarm_.shape, random.next());
    chronicle_.mute(false);
    if (!copy.status)
      return void(complain("the level mirror, promoted: " + copy.status.error().message));
    const std::string differs = difference(*found, copy.found);
    if (!differs.empty()) return void(complain("the level mirror differs: " + differs));
  }
  clean_up();
  for (Side& side : sides_) {
    if (problem_.empty() && !verify_disk(side)) return;
  }
  const LineKey key = key_of(primary.node->group()->history());
  lines_.settle(key, primary.node->name(), *found);
  primary.hold = Hold{key, 0, /*own=*/true, kForever};
  mirror.hold = Hold{key, 0};
  primary.judged = key;
  primary.judged_boot = primary.node->boots();
  primary.mode = primary.node->group()->mode();
  chronicle_.say("everything is there");
}

bool PairChaos::verify_snapshots(Side& side) {
  std::vector<std::string> names;
  for (const auto& state : side.node->group()->snapshots()) names.push_back(state.name);
  for (const auto& [name, snapshot] : snapshots_) {
    const bool is_here = std::find(names.begin(), names.end(), name) != names.end();
    if (!is_here) {
      const bool must_be =
          snapshot.acknowledged && snapshot.durable && snapshot.node == side.node->name();
      if (must_be) return complain(side.node->name() + " has lost " + name);
      continue;
    }
    auto found = side.node->read_all(name);
    if (!found && has_rot(side)) found = read_again(side, name, "damage-in-a-kept-state");
    if (!found) return complain(name + " on " + side.node->name() + ": " + found.error().message);
    const StoreModel::Demand demand{snapshot.called, false};
    if (auto wrong = snapshot.model->check_recovered(*found, demand))
      return complain(name + " on " + side.node->name() + ": " + *wrong);
    chronicle_.mark("snapshot-verified");
  }
  return true;
}

/// What it served, and the other node's timeline does not have, is a branch.
bool PairChaos::verify_tails(Side& side) {
  const TimelineHistory history = side.node->group()->history();
  for (const auto& [line, tail] : side.tails) {
    // Unless that very line went on, and the other timeline did not.
    const bool lives = key_of(history) == line || went_on(history, line, tail);
    if (lives || !lines_.contains(line)) continue;
    std::string why = "there is no branch";
    for (const auto& state : side.node->group()->snapshots()) {
      // A snapshot of its very end will do.
      auto found = side.node->read_all(state.name);
      if (!found && has_rot(side)) found = read_again(side, state.name, "damage-in-a-kept-state");
      if (!found) {
        why = state.name + ": " + found.error().message;
        continue;
      }
      const auto wrong = lines_.check(line, *found, tail.hold);
      why = wrong ? state.name + ": " + *wrong : "";
      if (why.empty()) break;
    }
    if (!why.empty()) {
      return complain("what only " + side.node->name() + " served on timeline " +
                      std::to_string(line.timeline.value) + " is not kept: " + why);
    }
    chronicle_.mark("branch-verified");
  }
  side.tails.clear();
  return true;
}

/// The operator lets go of what was looked at, so that every world goes on with room.
void PairChaos::clean_up() {
  // One more record on both: a page that a recovery cut off may lie where the next one goes, and
  // what it says of zones is long not true any more.
  Side& primary = *serving_side();
  const auto last = run(primary.node->control().create_snapshot({"g", "last", ""}));
  if (!last) return void(complain("a last snapshot: " + last.error().message));
  // A mirror that has the record shows the snapshot with its next checkpoint.
  const auto arrived = [&] {
    return PairWorld::are_level(*primary.node, *primary.other->node) &&
           std::all_of(sides_.begin(), sides_.end(), [](Side& side) {
             const auto kept = side.node->group()->snapshots();
             return std::any_of(kept.begin(), kept.end(),
                                [](const auto& state) { return state.name == "last"; });
           });
  };
  if (!world_.until(arrived, 60s)) return void(complain("a last record does not arrive"));
  for (Side& side : sides_) {
    for (const auto& state : side.node->group()->snapshots()) {
      const Status gone = run(side.node->control().delete_snapshot("g", state.name));
      if (!gone) return void(complain("deleting " + state.name + ": " + gone.error().message));
    }
  }
  snapshots_.clear();
}

/// Every block is accounted for, in memory and on the disk.
bool PairChaos::verify_disk(Side& side) {
  PairNode& node = *side.node;
  const Status written = run(node.checkpoint());
  if (!written) return complain("checkpoint of " + node.name() + ": " + written.error().message);
  const std::string wrong = still_unbalanced(world_.runtime(), node.pool());
  if (!wrong.empty()) return complain(node.name() + ": " + wrong);
  const SimImage image = node.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random_);
  ImageReader reader(image);
  auto report = inspect::verify_pool(reader, {});
  if (report && !report->sound() && has_rot(side) &&
      std::all_of(report->findings.begin(), report->findings.end(), is_out_of_reach)) {
    chronicle_.mark("damage-out-of-reach");
    const SimImage good = without_rot(side, image);
    ImageReader again(good);
    report = inspect::verify_pool(again, {});
  }
  if (!report) return complain("verifying " + node.name() + ": " + report.error().message);
  return report->sound() || complain("verifying " + node.name() + ": " + report->text());
}

}  // namespace tandem::sim
