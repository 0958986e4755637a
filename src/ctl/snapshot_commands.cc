// Snapshots: every node keeps its own; what is done to one is said with the node.
#include <algorithm>
#include <cctype>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/json.h"

namespace tandem::ctl {
namespace {

bool has_snapshot(const Answer& answer, const std::string& group, const std::string& name) {
  const auto* g = find_group(answer.status, group);
  return g != nullptr && std::any_of(g->snapshots.begin(), g->snapshots.end(),
                                     [&](const auto& s) { return s.name == name; });
}

std::string snapshot_text(const std::string& node, const GroupStatus& group,
                          const SnapshotStatus& s) {
  std::string out = s.kind + " " + s.name + " of group " + group.name + " on node " + node + "\n";
  out[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(out[0])));
  const auto line = [&](std::string name, const std::string& value) {
    name.resize(14, ' ');
    out += "  " + name + value + "\n";
  };
  if (!s.label.empty()) line("label", s.label);
  line("position", "record " + std::to_string(s.lsn.value) + " (" + time_text(s.utc) + ")");
  line("out of", s.parent.empty() ? "none that is kept" : s.parent);
  line("consistency", s.consistency);
  line("goes", goes_text(s));
  line("held", size_text(s.held_bytes) + "; deleting it gives back " + size_text(s.unique_bytes));
  for (const auto& volume : s.volumes) {
    line("export", export_name(group, volume.name) + "@" + s.name + ", " +
                       size_text(volume.size_bytes) + ", read-only");
  }
  return out;
}

/// Where the snapshot is: at the only --node, unasked; at the only node that has it; or, with
/// `everywhere`, at each. Empty: the message was given, and `exit` is how to end.
std::vector<std::string> places(Context& context, const std::string& group, const std::string& name,
                                bool everywhere, Exit& exit) {
  const auto& nodes = context.settings.nodes;
  if (!everywhere && nodes.size() == 1) return nodes;
  const auto answers =
      everywhere ? collect(context) : ask(context, nodes, true, context.settings.timeout);
  std::vector<std::string> found;
  const Answer* silent = nullptr;
  for (const auto& answer : answers) {
    if (!answer.status) silent = &answer;
    if (has_snapshot(answer, group, name)) found.push_back(answer.address);
  }
  if (everywhere && silent != nullptr) {
    exit = fail(context,
                {silent->status.error().code, "nothing was done, since not every node answers: " +
                                                  silent->status.error().message +
                                                  "; a single --node acts on that one alone"},
                false);
    return {};
  }
  if (found.empty() && silent != nullptr) {
    exit = fail(context, silent->status.error(), false);
  } else if (found.empty()) {
    exit = fail(context, {ErrorCode::kNotFound, "there is no snapshot " + name + " of group " +
                                                    group + "; 'tandem snapshot list' shows all"});
  } else if (found.size() > 1 && !everywhere) {
    std::string list;
    for (const auto& address : found) list += " " + address;
    exit = refuse(context, "more than one node has it:" + list +
                               "; say which one with a single --node, or --everywhere");
    found.clear();
  }
  return found;
}

/// Does `call` at each place until one fails.
Exit at_each(Context& context, const std::vector<std::string>& places,
             const std::function<Status(rpc::ControlClient&)>& call, const std::string& done) {
  Json at = Json::array();
  for (const auto& address : places) {
    const auto client = context.connect(address, patient(context.settings));
    if (!client) return fail(context, client.error(), false);
    const auto status = call(**client);
    if (!status) return fail(context, status.error(), (*client)->reached());
    at.push_back(address);
    if (!context.settings.json) context.out << done << " at " << address << ".\n" << std::flush;
  }
  if (context.settings.json) context.out << json_text({{"ok", true}, {"nodes", std::move(at)}});
  return Exit::kOk;
}

}  // namespace

Exit run_snapshot_create(Context& context, const CreateSnapshot& request) {
  const auto& group = request.group;
  auto chosen = choose(context, patient(context.settings), "group " + group + " as primary",
                       holds_group(group, Role::kPrimary));
  if (!chosen.client) return chosen.exit;
  const auto made = chosen.client->create_snapshot(request);
  if (!made) return fail(context, made.error(), chosen.client->reached());
  const auto status = chosen.client->status();
  const auto* in = find_group(status, group);
  if (context.settings.json) {
    Json out = {{"group", group}};
    out.update(to_json(*made));
    out["warning"] = made->warning;
    context.out << json_text(out);
  } else {
    context.out << "Snapshot " << made->name << " of group " << group << " was made at record "
                << made->lsn.value << " (" << time_text(made->utc) << "), " << made->consistency
                << ". Exports, read-only: "
                << exports_text(in == nullptr ? GroupStatus{} : *in, *made) << ".\n";
    if (!made->warning.empty()) context.err << "warning: " << made->warning << "\n";
  }
  return Exit::kOk;
}

Exit run_snapshot_list(Context& context, const std::string& group) {
  const auto answers = collect(context);
  auto list = Json::array();
  bool known = group.empty();
  Table table({"NODE", "GROUP", "SNAPSHOT", "KIND", "OUT OF", "LSN", "TIME", "CONSISTENCY", "HELD",
               "GOES", "LABEL"});
  for (const auto& answer : answers) {
    if (!answer.status) continue;
    for (const auto& g : answer.status->groups) {
      if (!group.empty() && g.name != group) continue;
      known = true;
      for (const auto& s : g.snapshots) {
        Json entry = {{"node", answer.status->node}, {"group", g.name}};
        entry.update(to_json(s));
        list.push_back(std::move(entry));
        table.row({answer.status->node, g.name, s.name, s.kind, s.parent,
                   std::to_string(s.lsn.value), time_text(s.utc), s.consistency,
                   size_text(s.held_bytes), goes_text(s), s.label});
      }
    }
  }
  if (!known && answered(answers)) return fail(context, no_such_group(group));
  if (context.settings.json) {
    context.out << json_text({{"snapshots", std::move(list)}});
  } else if (!table.empty()) {
    context.out << table.text();
  } else if (answered(answers)) {
    context.out << "No snapshots yet: 'tandem snapshot create GROUP' makes one.\n";
  }
  warn_silent(context, answers);
  return listing_end(context, answers);
}

Exit run_snapshot_show(Context& context, const std::string& group, const std::string& name) {
  const auto answers = collect(context);
  auto list = Json::array();
  for (const auto& answer : answers) {
    if (!has_snapshot(answer, group, name)) continue;
    const auto client = context.connect(answer.address, context.settings.timeout);
    if (!client) return fail(context, client.error(), false);
    const auto shown = (*client)->show_snapshot(group, name);
    if (!shown) return fail(context, shown.error(), (*client)->reached());
    Json entry = {{"node", answer.status->node}, {"group", group}};
    entry.update(to_json(*shown));
    entry["unique_bytes"] = shown->unique_bytes;
    list.push_back(std::move(entry));
    if (!context.settings.json)
      context.out << snapshot_text(answer.status->node, *find_group(answer.status, group), *shown);
  }
  if (list.empty() && answered(answers)) {
    return fail(context, {ErrorCode::kNotFound, "there is no snapshot " + name + " of group " +
                                                    group + "; 'tandem snapshot list' shows all"});
  }
  if (context.settings.json && !list.empty())
    context.out << json_text({{"snapshots", std::move(list)}});
  warn_silent(context, answers);
  return listing_end(context, answers);
}

Exit run_snapshot_delete(Context& context, const std::string& group, const std::string& name,
                         bool everywhere, bool yes) {
  Exit exit = Exit::kOk;
  const auto at = places(context, group, name, everywhere, exit);
  if (at.empty()) return exit;
  std::string list;
  for (const auto& address : at) list += (list.empty() ? "" : " and ") + address;
  if (!confirmed(context, yes,
                 "This deletes snapshot " + name + " of group " + group + " at " + list + ".",
                 name))
    return Exit::kRefused;
  return at_each(
      context, at, [&](rpc::ControlClient& client) { return client.delete_snapshot(group, name); },
      "Snapshot " + name + " of group " + group + " was deleted");
}

Exit run_snapshot_rename(Context& context, const RenameSnapshot& request, bool everywhere) {
  Exit exit = Exit::kOk;
  const auto at = places(context, request.group, request.name, everywhere, exit);
  if (at.empty()) return exit;
  return at_each(
      context, at, [&](rpc::ControlClient& client) { return client.rename_snapshot(request); },
      "Snapshot " + request.name + " of group " + request.group + " is " + request.new_name +
          " now");
}

}  // namespace tandem::ctl
