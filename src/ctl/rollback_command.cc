// Rollback: an older state is the newest again, and what it undoes is shown first.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/places.h"
#include "ctl/rollback.h"

namespace tandem::ctl {
namespace {

template <class List>
auto named(const List& list, const std::string& name) {
  return std::find_if(list.begin(), list.end(), [&](const auto& v) { return v.name == name; });
}

std::string volumes_text(const Undone& undone) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : "; ") + part; };
  for (const auto& name : undone.disappear) add(name + " disappears");
  for (const auto& name : undone.come_back) add(name + " comes back");
  for (const auto& r : undone.resized) {
    add(r.volume + (r.to_bytes < r.from_bytes ? " shrinks from " : " grows from ") +
        size_text(r.from_bytes) + " to " + size_text(r.to_bytes));
  }
  return text.empty() ? "the same, with the same sizes" : text;
}

}  // namespace

Undone undone_by(const GroupStatus& group, const SnapshotStatus& to) {
  Undone undone;
  const auto past = [](std::uint64_t now, std::uint64_t then) {
    return now > then ? now - then : 0;
  };
  undone.records = past(group.head.lsn.value, to.lsn.value);
  undone.bytes = past(group.head.payload_bytes, to.payload_bytes);
  undone.seconds = past(group.head.utc.value, to.utc.value) / 1'000'000'000;
  for (const auto& volume : group.volumes) {
    const auto then = named(to.volumes, volume.name);
    if (then == to.volumes.end()) {
      undone.disappear.push_back(volume.name);
    } else if (then->size_bytes != volume.size_bytes) {
      undone.resized.push_back({volume.name, volume.size_bytes, then->size_bytes});
    }
  }
  for (const auto& volume : to.volumes) {
    if (named(group.volumes, volume.name) == group.volumes.end())
      undone.come_back.push_back(volume.name);
  }
  return undone;
}

std::string undone_text(const GroupStatus& group, const SnapshotStatus& to, UtcNs now) {
  const Undone undone = undone_by(group, to);
  std::string out = "Rolling group " + group.name + " back to " + to.kind + " " + to.name + ":\n";
  const auto line = [&](std::string name, const std::string& value) {
    name.resize(14, ' ');
    out += "  " + name + value + "\n";
  };
  line("to", "record " + std::to_string(to.lsn.value) + " of " + time_text(to.utc) + ", " +
                 age_text(to.utc, now));
  line("undoes", count_text(undone.records, "record") + " with " + size_text(undone.bytes) +
                     " of data, up to record " + std::to_string(group.head.lsn.value) + " of " +
                     time_text(group.head.utc));
  line("volumes", volumes_text(undone));
  line("kept", "all of that, as a branch: it can be read, compared, and rolled back to");
  line("clients",
       "get errors from what they have open: unmount or shut down first, then open anew");
  return out;
}

Json to_json(const Undone& undone) {
  Json out = {{"records", undone.records},
              {"bytes", undone.bytes},
              {"seconds", undone.seconds},
              {"volumes_disappear", undone.disappear},
              {"volumes_come_back", undone.come_back},
              {"volumes_resized", Json::array()}};
  for (const auto& r : undone.resized) {
    out["volumes_resized"].push_back(
        {{"name", r.volume}, {"from_bytes", r.from_bytes}, {"to_bytes", r.to_bytes}});
  }
  return out;
}

Error only_primary(const NodeStatus& node, const GroupStatus& group) {
  const std::string primary = group.upstream ? group.upstream->primary : "";
  return {ErrorCode::kReadOnly, "group " + group.name + " is a " + to_string(group.role) +
                                    " on node " + node.node + ": its primary" +
                                    (primary.empty() ? "" : ", node " + primary + ",") +
                                    " rolls it back, and the mirrors follow"};
}

Serving find_serving(Context& context, const std::string& group) {
  Serving found;
  auto chosen = choose(context, patient(context.settings), "group " + group + " as primary",
                       holds_group(group, Role::kPrimary));
  if (!chosen.client) {
    found.exit = chosen.exit;
    return found;
  }
  auto status = chosen.client->status();
  if (!status) {
    found.exit = fail(context, status.error(), chosen.client->reached());
    return found;
  }
  found.node = std::move(*status);
  const auto at = named(found.node.groups, group);
  if (at == found.node.groups.end()) {
    found.exit = fail(context, no_such_group(group));
    return found;
  }
  if (at->role != Role::kPrimary) {
    found.exit = fail(context, only_primary(found.node, *at));
    return found;
  }
  found.group = &*at;
  found.client = std::move(chosen.client);
  return found;
}

MirrorsReady prepare_mirrors(Context& context, const GroupStatus& group, const SnapshotStatus& to) {
  MirrorsReady ready;
  for (const auto& slot : group.slots) {
    const std::string mirror = slot.node.empty() ? slot.address : slot.node;
    const auto client = context.connect(slot.address, context.settings.timeout);
    const auto status = client ? (*client)->status() : Result<NodeStatus>(client.error());
    if (!status) {
      ready.full_copies.push_back(mirror +
                                  ", unless it keeps that state, since it does not answer");
      continue;
    }
    const auto* copy = find_group(status, group.name);
    const bool keeps =
        copy != nullptr && std::any_of(copy->snapshots.begin(), copy->snapshots.end(),
                                       [&](const auto& s) { return s.lsn == to.lsn; });
    if (keeps) continue;
    const auto kept = (*client)->keep_point({group.name, to.lsn, {}, to.name, to.label});
    if (kept) {
      ready.kept.push_back({slot.address, kept->name});
    } else {
      ready.full_copies.push_back(mirror +
                                  ", since it has that state no more: " + kept.error().message);
    }
  }
  return ready;
}

void forget_mirrors(Context& context, const std::string& group, const MirrorsReady& ready) {
  for (const auto& [address, name] : ready.kept) {
    const auto client = context.connect(address, context.settings.timeout);
    const Status done = client ? (*client)->delete_snapshot(group, name) : Status(client.error());
    if (!done)
      context.err << "tandem: point " << name << " was kept at " << address
                  << " for this and stays: " << done.error().message << "\n";
  }
}

namespace {

void say_rolled_back(Context& context, const RollbackPlan& plan, const RolledBack& done) {
  const auto& [to, branch] = done;
  const auto& group = plan.group.name;
  context.out << "Group " << group << " is as it was at " << to.kind << " " << to.name << " ("
              << time_text(to.utc) << "). ";
  if (branch.name.empty()) {
    context.out << "Nothing had happened since, so there is no branch.\n";
    return;
  }
  context.out << "What was newest until now is branch " << branch.name << " (record "
              << branch.lsn.value << " of " << time_text(branch.utc)
              << "); exports, read-only: " << exports_text(plan.group, branch)
              << ". 'tandem snapshot rollback " << group << " " << branch.name
              << "' brings it back, 'tandem snapshot delete " << group << " " << branch.name
              << "' gives its space back.\n";
}

}  // namespace

Exit roll_back(Context& context, rpc::ControlClient& client, const RollbackPlan& plan) {
  const auto& [now, group, to, branch, name, yes] = plan;
  const bool json = context.settings.json;
  if (!json) context.out << undone_text(group, to, now) << std::flush;
  if (!can_confirm(context, yes)) return Exit::kRefused;
  const auto mirrors = prepare_mirrors(context, group, to);
  if (!json) {
    for (const auto& mirror : mirrors.full_copies)
      context.out << "  full copy     of mirror " << mirror << "\n";
  }
  if (!confirmed(context, yes, "This undoes what is above.", name)) {
    forget_mirrors(context, group.name, mirrors);
    return Exit::kRefused;
  }
  const auto done = client.rollback({group.name, to.name, branch});
  if (!done) {
    forget_mirrors(context, group.name, mirrors);
    return fail(context, done.error(), client.reached());
  }
  if (!json) {
    say_rolled_back(context, plan, *done);
    return Exit::kOk;
  }
  Json out = {{"group", group.name}, {"to", to_json(done->to)}, {"branch", nullptr}};
  if (!done->branch.name.empty()) out["branch"] = to_json(done->branch);
  out["undone"] = to_json(undone_by(group, to));
  out["full_copies"] = mirrors.full_copies;
  context.out << json_text(out);
  return Exit::kOk;
}

Exit run_snapshot_rollback(Context& context, const Rollback& request, bool yes) {
  auto at = find_serving(context, request.group);
  if (!at.client) return at.exit;
  const auto* to = find_snapshot(*at.group, request.snapshot);
  if (to == nullptr) {
    return fail(context,
                {ErrorCode::kNotFound, "there is no snapshot " + request.snapshot + " of group " +
                                           request.group + " on node " + at.node.node +
                                           "; 'tandem snapshot list' shows all"});
  }
  return roll_back(context, *at.client,
                   {at.node.now, *at.group, *to, request.branch, request.snapshot, yes});
}

}  // namespace tandem::ctl
