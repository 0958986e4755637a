#include "ctl/verdict.h"

#include <algorithm>

#include "ctl/format.h"
#include "ctl/integrity_text.h"

namespace tandem::ctl {
namespace {

std::string because(const std::string& reason) { return reason.empty() ? "" : " (" + reason + ")"; }

std::string name_of(const SlotStatus& slot) { return slot.node.empty() ? slot.address : slot.node; }

std::string mode_of(const View& primary, const SlotStatus& slot) {
  const auto own = slot.settings.find("mode");
  return own == slot.settings.end() || own->second == "group" ? to_string(primary.group->mode)
                                                              : own->second;
}

/// A primary's mirror, as the primary sees it.
Verdict judge_slot(const View& primary, const SlotStatus& slot) {
  const auto name = name_of(slot);
  if (slot.state == "following") {
    if (slot.in_sync)
      return {true, name + " is in sync: every write is on both nodes before it is acknowledged"};
    if (slot.missing_records == 0)
      return {true, name + " follows (" + mode_of(primary, slot) + ") and lacks nothing now"};
    return {true, name + " follows (" + mode_of(primary, slot) + ") and " + missing_text(slot)};
  }
  auto text = "NOT PROTECTED: " + name + " is not following: " + slot.state + because(slot.reason);
  if (slot.progress_total != 0)
    text += ", " + std::to_string(slot.progress_done * 100 / slot.progress_total) + " % of it done";
  if (slot.since.value != 0) text += ", since " + age_text(slot.since, primary.now);
  return {false, text + "; it " + missing_text(slot)};
}

bool is_held(const PolicyStatus& policy) {
  return policy.state == "blocked" || policy.state == "stalled" || policy.state == "throttled";
}

/// A sentence about writers that are not answered, or "". What a policy does to them is told where
/// the policy is.
std::string writers_complaint(const View& primary) {
  const auto& writers = primary.group->writers;
  if (writers.state == "refused")
    return ". WRITES ARE REFUSED (" + count_text(writers.refused, "time") + " so far, the last " +
           age_text(writers.since, primary.now) + "): " + writers.reason;
  if (writers.state != "waiting" || is_held(primary.group->policy)) return "";
  return ". WRITERS WAIT since " + age_text(writers.since, primary.now) + ": " + writers.reason;
}

Verdict judge_primary(const View& primary) {
  const auto& group = *primary.group;
  auto head = primary.node + " serves";
  if (group.state == "starting") head = primary.node + " is starting" + because(group.reason);
  if (group.state != "serving" && group.state != "starting")
    return {false, "NOT SERVED: " + primary.node + " is primary but " + group.state +
                       because(group.reason)};
  const auto complaint = writers_complaint(primary);
  if (group.slots.empty() && group.clone_of) {
    return {group.state == "serving" && complaint.empty(),
            head + " this clone of " + clone_text(*group.clone_of) +
                ", which is not mirrored; 'tandem group delete " + group.name + "' discards it" +
                complaint};
  }
  if (group.slots.empty())
    return {false, head + complaint + ". NOT PROTECTED: it has no mirror; 'tandem mirror add " +
                       group.name + " HOST:PORT' gives it one"};
  Verdict all{group.state == "serving" && complaint.empty(), head};
  if (const auto& policy = group.policy; is_held(policy)) {
    all.good = false;
    all.text += ", but WRITERS ARE " +
                std::string(policy.state == "throttled" ? "SLOWED" : "HELD") + " (" + policy.state +
                " since " + age_text(policy.since, primary.now) + "): " + policy.reason;
  } else if (policy.state == "degraded") {
    all.good = false;
    all.text += ", DEGRADED since " + age_text(policy.since, primary.now) + ": " + policy.reason;
  }
  all.text += complaint;
  for (const auto& slot : group.slots) {
    const auto one = judge_slot(primary, slot);
    all.good = all.good && one.good;
    all.text += ". " + one.text;
  }
  return all;
}

Verdict judge_mirror_alone(const View& mirror) {
  const auto& group = *mirror.group;
  const auto& up = group.upstream;
  if (up && !up->state.empty() && up->state != "lost" && up->state != "never") {
    return {true, mirror.node + " mirrors " +
                      (up->node.empty() ? "its primary" : upstream_text(*up)) + ": " + up->state +
                      because(up->reason) + ", last heard " +
                      age_text(up->last_contact, mirror.now)};
  }
  std::string text = "NOT SERVED by any node that answers: " + mirror.node + " is a mirror";
  if (up && up->last_contact.value != 0) {
    text += std::string(" that last heard ") + (up->is_relay() ? "" : "its primary ") +
            (up->node.empty() ? "" : upstream_text(*up) + " ") +
            age_text(up->last_contact, mirror.now);
  } else {
    text += " without a primary";
  }
  return {false, text + ". If the primary is gone for good: 'tandem receipt " + group.name +
                     "' shows what a promotion would lose, 'tandem promote " + group.name +
                     "' makes this node serve"};
}

Verdict judge_split(const std::vector<const View*>& primaries) {
  Verdict split{false, "SPLIT: more than one node is primary:"};
  for (const auto* view : primaries)
    split.text += " " + view->node + " (timeline " +
                  std::to_string(view->group->head.timeline.value) + ", " + view->group->state +
                  ")";
  const auto is_old = [&](const View* view) {
    return view->group->head.timeline != primaries.front()->group->head.timeline;
  };
  if (std::any_of(primaries.begin(), primaries.end(), is_old))
    split.text += ". The lower timeline is the old one: keep clients away from that node";
  return split;
}

/// What a node says of a copy that was promoted apart from its own: once, the newest.
void add_split(const std::vector<View>& views, Verdict& verdict) {
  const View* said = nullptr;
  for (const auto& view : views)
    if (view.group->split && (!said || view.group->split->since > said->group->split->since))
      said = &view;
  if (said == nullptr) return;
  verdict.good = false;
  verdict.text += ". SPLIT, as " + said->node + " sees it: " + said->group->split->reason;
}

}  // namespace

std::string missing_text(const SlotStatus& slot) {
  if (slot.missing_records == 0 && slot.missing_blocks == 0 && slot.missing_bytes == 0)
    return "lacks nothing";
  return "lacks " + count_text(slot.missing_records, "record") + " (" +
         size_text(slot.missing_bytes) + " of data, " + count_text(slot.missing_blocks, "block") +
         ")";
}

Verdict judge(const std::vector<View>& views, const std::vector<std::string>& silent) {
  std::vector<const View*> primaries;
  const View* mirror = nullptr;
  const View* fenced = nullptr;
  for (const auto& view : views) {
    switch (view.group->role) {
      case Role::kPrimary:
        primaries.push_back(&view);
        break;
      case Role::kMirror:
        mirror = mirror ? mirror : &view;
        break;
      case Role::kFenced:
        fenced = fenced ? fenced : &view;
        break;
    }
  }
  Verdict verdict;
  if (primaries.size() > 1) {
    verdict = judge_split(primaries);
  } else if (primaries.size() == 1) {
    verdict = judge_primary(*primaries.front());
  } else if (mirror) {
    verdict = judge_mirror_alone(*mirror);
  } else {
    verdict = {false, "NOT SERVED by any node that answers"};
  }
  if (fenced) {
    verdict.good = false;
    verdict.text += ". " + fenced->node + " is fenced" + because(fenced->group->reason) +
                    ": it serves nothing and keeps its data";
  }
  add_split(views, verdict);
  for (const auto* primary : primaries) {
    if (primary->group->hook.state != "failed") continue;
    verdict.good = false;
    verdict.text += ". HOOK FAILED around the last snapshot on " + primary->node + ": " +
                    primary->group->hook.reason;
  }
  for (const auto& view : views) {
    const auto complaint = integrity_complaint(view);
    if (complaint.empty()) continue;
    verdict.good = false;
    verdict.text += ". " + complaint;
  }
  if (primaries.empty() && !silent.empty()) {
    verdict.text += ". Not answering:";
    for (const auto& node : silent) verdict.text += " " + node;
  }
  return verdict;
}

Verdict judge(const std::string& node, const PoolStatus& pool) {
  Verdict verdict{true,
                  "The pool of " + node + " is " + std::to_string(pool.full_percent) + " % full"};
  if (pool.state == "warn" || pool.state == "critical") {
    verdict = {false, "POOL " + std::string(pool.state == "warn" ? "FILLS UP" : "ALMOST FULL") +
                          " on " + node + ": " + pool.reason};
  }
  if (pool.full_in_seconds != 0) {
    verdict.text += "; at the rate of the last hour, " + size_text(pool.fill_bytes_per_second) +
                    " a second, it is full in " +
                    duration_text(std::chrono::seconds(pool.full_in_seconds));
  }
  return verdict;
}

}  // namespace tandem::ctl
