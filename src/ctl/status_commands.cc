// What is: nodes, pools, groups, volumes, and what the mirrors lack.
#include <algorithm>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/integrity_text.h"
#include "ctl/json.h"
#include "ctl/verdict.h"

namespace tandem::ctl {
namespace {

/// Each group's views, by name in order of first sight. Two nodes may have made groups of one name.
std::vector<std::pair<std::string, std::vector<View>>> by_group(
    const std::vector<Answer>& answers) {
  std::vector<std::pair<std::string, std::vector<View>>> groups;
  for (const auto& answer : answers) {
    if (!answer.status) continue;
    for (const auto& group : answer.status->groups) {
      auto at = std::find_if(groups.begin(), groups.end(), [&](const auto& entry) {
        return entry.first == group.name && entry.second.front().group->id == group.id;
      });
      if (at == groups.end()) at = groups.insert(at, {group.name, {}});
      at->second.push_back({answer.status->node, answer.status->now, &group});
    }
  }
  return groups;
}

std::string pool_text(const PoolStatus& pool) {
  const auto percent = pool.zones_total == 0 ? 0 : pool.zones_free * 100 / pool.zones_total;
  return size_text(pool.size_bytes) + ", " + size_text(pool.zones_free * pool.zone_bytes) +
         " free (" + std::to_string(percent) + " %)";
}

/// The other side of a group, as this node sees it.
std::string partner_text(const View& view) {
  std::string text;
  for (const auto& slot : view.group->slots) {
    if (!text.empty()) text += "; ";
    text += "mirror " + (slot.node.empty() ? slot.address : slot.node) + " " + slot.state;
    if (slot.in_sync) text += ", in sync";
    text += ", " + missing_text(slot);
  }
  if (const auto& up = view.group->upstream) {
    if (!text.empty()) text += "; ";
    text += (up->is_relay() ? "fed by " : "primary ") + upstream_text(*up) + " " + up->state +
            ", heard " + age_text(up->last_contact, view.now);
  }
  return text.empty() ? "none" : text;
}

std::string position_text(const LogPoint& head) {
  return std::to_string(head.timeline.value) + ":" + std::to_string(head.lsn.value);
}

/// "3, 12 MiB"
std::string snapshots_text(const GroupStatus& group) {
  if (group.snapshots.empty() && group.snapshot_bytes == 0) return "none";
  return std::to_string(group.snapshots.size()) + ", " + size_text(group.snapshot_bytes);
}

/// Only what needs attention.
std::string pools_text(const std::vector<Answer>& answers) {
  std::string out;
  for (const auto& answer : answers) {
    if (!answer.status) continue;
    const auto pool = judge(answer.status->node, answer.status->pool);
    if (!pool.good) out += pool.text + ".\n";
  }
  return out;
}

std::string status_text(const std::vector<Answer>& answers) {
  std::string out;
  for (const auto& answer : answers) {
    if (!answer.status) {
      out += "NODE " + answer.address + ": NOT ANSWERING: " + answer.status.error().message + "\n";
      continue;
    }
    const auto& node = *answer.status;
    out += "NODE " + node.node + " at " + answer.address + ": up " +
           duration_text(std::chrono::seconds(node.uptime_seconds)) + ", version " + node.version +
           "; pool " + node.pool.path + ": " + pool_text(node.pool) + "\n";
  }
  const auto groups = by_group(answers);
  if (groups.empty()) {
    if (answered(answers)) out += "\nNo groups yet: 'tandem volume create NAME --size 10GiB'.\n";
    return out + pools_text(answers);
  }
  Table table({"GROUP", "NODE", "ROLE", "STATE", "MODE", "HEAD", "SNAPSHOTS", "PARTNER"});
  for (const auto& [name, views] : groups) {
    for (const auto& view : views) {
      const auto& g = *view.group;
      table.row({name, view.node, to_string(g.role), g.state, to_string(g.mode),
                 position_text(g.head), snapshots_text(g), partner_text(view)});
    }
  }
  out += "\n" + table.text() + "\n";
  const auto silent = silent_nodes(answers);
  for (const auto& [name, views] : groups) out += name + ": " + judge(views, silent).text + ".\n";
  return out + pools_text(answers);
}

Json error_json(const Error& error) {
  return {{"code", to_string(error.code)}, {"message", error.message}};
}

Json status_json(const std::vector<Answer>& answers) {
  Json out = {{"nodes", Json::array()}, {"verdicts", Json::array()}};
  for (const auto& answer : answers) {
    Json node = {{"address", answer.address},
                 {"named", answer.named},
                 {"reachable", answer.status.has_value()}};
    if (answer.status) {
      node.update(to_json(*answer.status));
    } else {
      node["error"] = error_json(answer.status.error());
    }
    out["nodes"].push_back(std::move(node));
  }
  const auto silent = silent_nodes(answers);
  for (const auto& [name, views] : by_group(answers)) {
    const auto verdict = judge(views, silent);
    out["verdicts"].push_back({{"group", name}, {"good", verdict.good}, {"text", verdict.text}});
  }
  out["pools"] = Json::array();
  for (const auto& answer : answers) {
    if (!answer.status) continue;
    const auto pool = judge(answer.status->node, answer.status->pool);
    out["pools"].push_back(
        {{"node", answer.status->node}, {"good", pool.good}, {"text", pool.text}});
  }
  return out;
}

bool all_good(const std::vector<Answer>& answers) {
  const auto silent = silent_nodes(answers);
  bool good = silent.empty();
  for (const auto& [name, views] : by_group(answers)) good &= judge(views, silent).good;
  for (const auto& answer : answers) {
    if (answer.status) good &= judge(answer.status->node, answer.status->pool).good;
  }
  return good;
}

}  // namespace

Exit run_status(Context& context, std::optional<std::chrono::milliseconds> watch, bool check) {
  for (;;) {
    const auto answers = collect(context);
    if (context.settings.json) {
      context.out << json_text(status_json(answers));
    } else {
      if (watch && context.terminal) context.out << "\x1b[H\x1b[2J";
      context.out << status_text(answers);
    }
    context.out << std::flush;
    if (!watch) {
      const Exit end = listing_end(context, answers);
      return check && end == Exit::kOk && !all_good(answers) ? Exit::kAttention : end;
    }
    if (!context.out) return Exit::kFailed;
    std::this_thread::sleep_for(*watch);
  }
}

Exit run_volume_list(Context& context) {
  const auto answers = ask(context, context.settings.nodes, true, context.settings.timeout);
  auto list = Json::array();
  Table table({"VOLUME", "GROUP", "NODE", "ROLE", "SIZE", "ALLOCATED", "BLOCK"});
  for (const auto& a : answers) {
    if (!a.status) continue;
    for (const auto& group : a.status->groups) {
      for (const auto& volume : group.volumes) {
        Json entry = to_json(volume);
        entry.update(
            {{"group", group.name}, {"node", a.status->node}, {"role", to_string(group.role)}});
        list.push_back(std::move(entry));
        table.row({export_name(group, volume.name), group.name, a.status->node,
                   to_string(group.role), size_text(volume.size_bytes),
                   size_text(volume.allocated_bytes), std::to_string(volume.logical_block_bytes)});
      }
    }
  }
  if (context.settings.json) {
    context.out << json_text({{"volumes", std::move(list)}});
  } else if (!table.empty()) {
    context.out << table.text();
  } else if (answered(answers)) {
    context.out << "No volumes yet: 'tandem volume create NAME --size 10GiB'.\n";
  }
  warn_silent(context, answers);
  return listing_end(context, answers);
}

Exit run_group_list(Context& context) {
  const auto answers = ask(context, context.settings.nodes, true, context.settings.timeout);
  auto list = Json::array();
  Table table({"GROUP", "NODE", "ROLE", "STATE", "MODE", "VOLUMES", "DATA", "LOG", "HEAD"});
  for (const auto& a : answers) {
    if (!a.status) continue;
    for (const auto& group : a.status->groups) {
      Json entry = {{"node", a.status->node}};
      entry.update(to_json(group));
      list.push_back(std::move(entry));
      table.row({group.name, a.status->node, to_string(group.role), group.state,
                 to_string(group.mode), std::to_string(group.volumes.size()),
                 size_text(group.data_bytes), size_text(group.log_bytes),
                 position_text(group.head)});
    }
  }
  if (context.settings.json) {
    context.out << json_text({{"groups", std::move(list)}});
  } else if (!table.empty()) {
    context.out << table.text();
  } else if (answered(answers)) {
    context.out << "No groups yet: 'tandem volume create NAME --size 10GiB' makes one.\n";
  }
  warn_silent(context, answers);
  return listing_end(context, answers);
}

namespace {

std::string settings_text(const tandem::Settings& settings) {
  std::string text;
  for (const auto& [key, value] : settings) {
    const bool quote = value.find(' ') != std::string::npos;
    text += (text.empty() ? "" : ", ") + key + "=" + (quote ? "\"" + value + "\"" : value);
  }
  return text.empty() ? "not known to this node" : text;
}

std::string policy_text(const PolicyStatus& policy, UtcNs now) {
  if (policy.state == "normal") return "normal";
  return policy.state + " since " + age_text(policy.since, now) + ": " + policy.reason;
}

std::string writers_text(const WritersStatus& writers, UtcNs now) {
  std::string text = writers.state;
  if (writers.state != "answered")
    text += (writers.state == "waiting" ? " since " : ", the last ") +
            age_text(writers.since, now) +
            (writers.cause.empty() ? "" : " (" + writers.cause + ")") + ": " + writers.reason;
  if (writers.refused != 0)
    text += "; refused for want of space: " + std::to_string(writers.refused);
  return text;
}

/// "96, the next to go is auto-2026-… on 2026-… (keep)".
std::string automatic_text(const GroupStatus& group) {
  std::size_t count = 0;
  const SnapshotStatus* next = nullptr;
  for (const auto& s : group.snapshots) {
    if (!s.automatic) continue;
    ++count;
    const bool ends = s.goes.value != 0 || s.kept_by.empty();
    if (ends && (next == nullptr || s.goes < next->goes)) next = &s;
  }
  if (count == 0) return "none";
  return std::to_string(count) +
         (next == nullptr ? ", none goes by time"
                          : ", the next to go is " + next->name + ": " + goes_text(*next));
}

std::string hook_text(const HookStatus& hook, UtcNs now) {
  if (hook.since.value == 0) return "configured, not run yet";
  return hook.state + ", " + age_text(hook.since, now) +
         (hook.reason.empty() ? "" : ": " + hook.reason);
}

/// Everything about one node's copy of a group.
std::string group_text(const View& view) {
  const auto& g = *view.group;
  std::string out = "Group " + g.name + " on node " + view.node + "\n";
  const auto line = [&](std::string name, const std::string& value) {
    name.resize(std::max<std::size_t>(name.size(), 14), ' ');
    out += "  " + name + value + "\n";
  };
  line("id", g.id.text());
  line("role", to_string(g.role));
  line("state", g.state + (g.reason.empty() ? "" : " (" + g.reason + ")") + ", since " +
                    age_text(g.since, view.now));
  line("mode", to_string(g.mode));
  if (g.clone_of) line("clone of", clone_text(*g.clone_of));
  line("settings", settings_text(g.settings));
  if (g.role == Role::kPrimary) {
    line("policy", policy_text(g.policy, view.now));
    line("writers", writers_text(g.writers, view.now));
  }
  if (g.split)
    line("SPLIT", "with " + g.split->with + ", seen " + age_text(g.split->since, view.now) + ": " +
                      g.split->reason);
  line("head", point_text(g.head));
  line("durable", "record " + std::to_string(g.durable.value) + "; checkpoint at " +
                      std::to_string(g.checkpoint.value) + ", log from " +
                      std::to_string(g.log_start.value));
  std::string history;
  for (const auto& fork : g.history) {
    history += (history.empty() ? "" : ", ") + std::to_string(fork.timeline.value) + " from " +
               std::to_string(fork.fork.value);
  }
  line("timelines", history);
  line("space", "data " + size_text(g.data_bytes) + ", log " + size_text(g.log_bytes) + ", map " +
                    size_text(g.map_bytes) + ", to be freed " + size_text(g.space.dead_bytes));
  line("snapshots",
       snapshots_text(g) +
           (g.snapshots.empty() ? "" : " held; 'tandem snapshot list " + g.name + "' shows them"));
  line("automatic", automatic_text(g));
  if (g.hook.state != "none") line("hook", hook_text(g.hook, view.now));
  for (const auto& volume : g.volumes)
    line("volume", export_name(g, volume.name) + ": " + size_text(volume.size_bytes) +
                       ", allocated " + size_text(volume.allocated_bytes) + ", blocks of " +
                       std::to_string(volume.logical_block_bytes));
  for (const auto& slot : g.slots) {
    line("mirror", (slot.node.empty() ? "" : slot.node + " at ") + slot.address + ": " +
                       slot.state + (slot.reason.empty() ? "" : " (" + slot.reason + ")") +
                       (slot.in_sync ? ", in sync, " : ", ") + missing_text(slot) + "; received " +
                       std::to_string(slot.received.value) + ", written " +
                       std::to_string(slot.written.value) + ", durable " +
                       std::to_string(slot.durable.value) + "; heard " +
                       age_text(slot.last_contact, view.now) + "; " + settings_text(slot.settings));
  }
  if (g.upstream) {
    line(g.upstream->is_relay() ? "fed by" : "primary",
         upstream_text(*g.upstream) + ": " + g.upstream->state +
             (g.upstream->reason.empty() ? "" : " (" + g.upstream->reason + ")") + ", heard " +
             age_text(g.upstream->last_contact, view.now) + ", then at " +
             point_text(g.upstream->primary_head));
  }
  for (const auto& [name, value] : integrity_lines(view)) line(name, value);
  return out;
}

}  // namespace

Exit run_group_show(Context& context, const std::string& group) {
  const auto answers = ask(context, context.settings.nodes, true, context.settings.timeout);
  auto list = Json::array();
  bool found = false;
  for (const auto& [name, views] : by_group(answers)) {
    if (name != group) continue;
    found = true;
    for (const auto& view : views) {
      Json entry = {{"node", view.node}};
      entry.update(to_json(*view.group));
      list.push_back(std::move(entry));
      if (!context.settings.json) context.out << group_text(view);
    }
    if (!context.settings.json) context.out << judge(views, silent_nodes(answers)).text << ".\n";
  }
  if (!found && answered(answers)) return fail(context, no_such_group(group));
  if (context.settings.json && found) context.out << json_text({{"groups", std::move(list)}});
  warn_silent(context, answers);
  return listing_end(context, answers);
}

}  // namespace tandem::ctl
