// Going back in time: into a clone, beside which everything goes on, or in place.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/json.h"
#include "ctl/moment.h"
#include "ctl/places.h"
#include "ctl/rollback.h"
#include "ctl/temporary_points.h"

namespace tandem::ctl {
namespace {

/// A bare name is never a clone's volume.
bool holds_volume(const GroupStatus& group, const std::string& name) {
  return std::any_of(group.volumes.begin(), group.volumes.end(), [&](const VolumeStatus& v) {
    return (v.name == name && !group.clone_of) || export_name(group, v.name) == name;
  });
}

/// The group of that name, else the one that has a volume of that name. Null: neither.
const GroupStatus* group_with(const NodeStatus& node, const std::string& name) {
  for (const auto& group : node.groups)
    if (group.name == name) return &group;
  for (const auto& group : node.groups)
    if (holds_volume(group, name)) return &group;
  return nullptr;
}

/// "vms-2026-05-03T030937Z": when it was, in letters that a group's name may have.
std::string clone_name(const NodeStatus& node, const std::string& group, UtcNs time) {
  std::string when = time_text(time).substr(0, 19);
  when[10] = 'T';
  std::erase(when, ':');
  const std::string name = group + "-" + when + "Z";
  std::string free = name;
  const auto taken = [&] {
    return std::any_of(node.groups.begin(), node.groups.end(),
                       [&](const auto& g) { return g.name == free; });
  };
  for (int i = 2; taken(); ++i) free = name + "-" + std::to_string(i);
  return free;
}

struct CloneWork {
  CloneGroup request;
  SnapshotStatus of;
  bool only_for_this = false;  // `of` was kept for the clone: its name goes
};

/// The clone keeps the state that it began as, also when that has no name any more.
Exit make_clone(Context& context, rpc::ControlClient& client, const std::string& node,
                const CloneWork& work) {
  const auto& [request, of, only_for_this] = work;
  const auto done = client.clone_group(request);
  if (only_for_this) let_go(context, client, request.origin, of.name);
  if (!done) return fail(context, done.error(), client.reached());
  GroupStatus clone;
  clone.name = request.name;
  clone.clone_of = CloneOrigin{request.origin, of.name, of.lsn, of.utc};
  std::vector<std::string> exports;
  for (const auto& volume : of.volumes) exports.push_back(export_name(clone, volume.name));
  if (context.settings.json) {
    context.out << json_text({{"group", request.name},
                              {"node", node},
                              {"clone_of", to_json(*clone.clone_of)},
                              {"exports", exports}});
    return Exit::kOk;
  }
  std::string list;
  for (const auto& name : exports) list += (list.empty() ? "" : ", ") + name;
  context.out << "Group " << request.name << " on node " << node << " is a clone of group "
              << request.origin << " as of record " << of.lsn.value << " (" << time_text(of.utc)
              << "). Exports, writable: " << (list.empty() ? "none" : list)
              << ". 'tandem group delete " << request.name << "' discards it.\n";
  return Exit::kOk;
}

/// A node, and the group on it that is spoken of.
struct Found {
  Client client;
  Exit exit = Exit::kOk;
  NodeStatus node;
  const GroupStatus* group = nullptr;
};

/// At the only --node whatever its role is; of several the primary.
Found find_origin(Context& context, const std::string& name) {
  Found found;
  auto chosen = choose(context, patient(context.settings), "group " + name + " as primary",
                       [&](const NodeStatus& node) {
                         const auto* group = group_with(node, name);
                         return group != nullptr && group->role == Role::kPrimary;
                       });
  found.exit = chosen.exit;
  if (!chosen.client) return found;
  auto status = chosen.client->status();
  if (!status) {
    found.exit = fail(context, status.error(), chosen.client->reached());
    return found;
  }
  found.node = std::move(*status);
  found.group = group_with(found.node, name);
  if (found.group == nullptr) {
    found.exit = fail(context, no_such_group(name));
    return found;
  }
  found.client = std::move(chosen.client);
  return found;
}

/// What a clone of the present state begins as. On a primary a snapshot, with the commands around
/// it; on a mirror, which makes none, a point.
Result<CloneWork> present_state(rpc::ControlClient& client, const GroupStatus& group,
                                const std::string& clone) {
  CloneWork work;
  const std::string label = "for clone " + clone;
  if (group.role == Role::kPrimary) {
    auto made = client.create_snapshot({group.name, "clone-" + clone, label});
    if (!made) return made.error();
    work.of = std::move(*made);
  } else {
    KeepPoint request;
    request.group = group.name;
    request.label = label;
    auto kept = client.keep_point(request);
    if (!kept) return kept.error();
    work.of = std::move(*kept);
    work.only_for_this = true;
  }
  return work;
}

/// The point was kept to show what going back to it undoes; it stays when it was done.
Exit recover_in_place(Context& context, Found at, const SnapshotStatus& point,
                      const RecoverOptions& options) {
  const auto& group = *at.group;
  const Exit end = roll_back(context, *at.client,
                             {at.node.now, group, point, options.branch, group.name, options.yes});
  if (end != Exit::kOk) let_go(context, *at.client, group.name, point.name);
  return end;
}

}  // namespace

Exit run_clone(Context& context, const std::string& source, const std::string& name) {
  const auto sign = source.find('@');
  const std::string group = source.substr(0, sign);
  auto at = find_origin(context, group);
  if (!at.client) return at.exit;
  CloneWork work;
  if (sign == std::string::npos) {
    auto present = present_state(*at.client, *at.group, name);
    if (!present) return fail(context, present.error(), at.client->reached());
    work = std::move(*present);
  } else {
    const auto* kept = find_snapshot(*at.group, source.substr(sign + 1));
    if (kept == nullptr) {
      return fail(context,
                  {ErrorCode::kNotFound, "there is no snapshot " + source.substr(sign + 1) +
                                             " of group " + group + " on node " + at.node.node +
                                             "; 'tandem snapshot list' shows all"});
    }
    work.of = *kept;
  }
  work.request = {at.group->name, work.of.name, name};
  return make_clone(context, *at.client, at.node.node, work);
}

Exit run_point_create(Context& context, const PointOptions& options) {
  auto at = find_origin(context, options.group);
  if (!at.client) return at.exit;
  const auto moment = parse_moment(options.at, at.node.now);
  if (!moment) return fail_usage(context, moment.error().message);
  const auto& group = at.group->name;
  const auto kept =
      at.client->keep_point({group, moment->lsn, moment->time, options.name, options.label});
  if (!kept) return fail(context, kept.error(), at.client->reached());
  if (context.settings.json) {
    Json out = {{"group", group}, {"node", at.node.node}};
    out.update(to_json(*kept));
    context.out << json_text(out);
    return Exit::kOk;
  }
  context.out << "Point " << kept->name << " of group " << group << " keeps record "
              << kept->lsn.value << " (" << time_text(kept->utc) << ") on node " << at.node.node
              << ", and there only. Exports, read-only: " << exports_text(*at.group, *kept)
              << ". 'tandem snapshot delete " << group << " " << kept->name << "' lets it go.\n";
  return Exit::kOk;
}

Exit run_recover(Context& context, const RecoverOptions& options) {
  if (options.in_place && !options.name.empty())
    return fail_usage(context, "--in-place makes no new group, so --name says nothing");
  if (!options.in_place && !options.branch.empty())
    return fail_usage(context, "--branch is for --in-place: a clone abandons nothing");
  auto at = find_origin(context, options.what);
  if (!at.client) return at.exit;
  const auto& group = *at.group;
  if (options.in_place && group.role != Role::kPrimary)
    return fail(context, only_primary(at.node, group));
  const auto moment = parse_moment(options.at, at.node.now);
  if (!moment) return fail_usage(context, moment.error().message);
  if (options.in_place && !can_confirm(context, options.yes)) return Exit::kRefused;
  KeepPoint request{group.name, moment->lsn, moment->time, "", "recovered by hand"};
  const auto point = at.client->keep_point(request);
  if (!point) return fail(context, point.error(), at.client->reached());
  if (options.in_place) return recover_in_place(context, std::move(at), *point, options);
  CloneWork work{{group.name, point->name, options.name}, *point, /*only_for_this=*/true};
  if (options.name.empty()) work.request.name = clone_name(at.node, group.name, point->utc);
  return make_clone(context, *at.client, at.node.node, work);
}

}  // namespace tandem::ctl
