// The space of each node's pool: where every byte of it is.
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "ctl/answers.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/holders.h"
#include "ctl/json.h"
#include "ctl/verdict.h"

namespace tandem::ctl {
namespace {

struct Part {
  const char* key;   // in JSON
  const char* text;  // for people
  std::uint64_t bytes;
};

std::vector<Part> parts_of(const GroupStatus& g) {
  return {{"data", "data of volumes", g.data_bytes},
          {"snapshots", "only for kept states", g.snapshot_bytes},
          {"dead", "replaced, kept for mirrors or history", g.space.dead_bytes},
          {"maps", "maps", g.map_bytes},
          {"books", "descriptor, bitmaps, lists", g.space.book_bytes},
          {"moving", "on their way", g.space.moving_bytes},
          {"freed", "free with the next checkpoint", g.space.freed_bytes},
          {"log", "log", g.log_bytes},
          {"log_rest", "taken for the log, not written yet", g.space.log_rest_bytes},
          {"free", "free in the group's zones", g.space.free_bytes}};
}

/// All of a pool; the sum is its size, or the node counts wrongly.
std::vector<Part> parts_of(const NodeStatus& node) {
  std::vector<Part> all = parts_of(GroupStatus{});
  for (const auto& group : node.groups) {
    const auto parts = parts_of(group);
    for (std::size_t i = 0; i < parts.size(); ++i) all[i].bytes += parts[i].bytes;
  }
  const auto& pool = node.pool;
  all.push_back({"free_zones", "free zones", pool.zones_free * pool.zone_bytes});
  all.push_back({"fixed", "superblock, anchors, zone table", pool.fixed_bytes});
  all.push_back({"other", "zones of groups that cannot be opened", pool.other_bytes});
  return all;
}

std::uint64_t sum(const std::vector<Part>& parts) {
  return std::accumulate(parts.begin(), parts.end(), std::uint64_t{0},
                         [](std::uint64_t n, const Part& part) { return n + part.bytes; });
}

Json to_json(const std::vector<Part>& parts) {
  Json out;
  for (const auto& part : parts) out[part.key] = part.bytes;
  out["sum"] = sum(parts);
  return out;
}

/// Of the parts, not beside them.
std::uint64_t history_bytes(const NodeStatus& node) {
  std::uint64_t bytes = 0;
  for (const auto& group : node.groups) bytes += group.space.history_bytes;
  return bytes;
}

Json pool_json(const NodeStatus& node) {
  Json out = {{"node", node.node}};
  out.update(ctl::to_json(node.pool));
  out["space"] = to_json(parts_of(node));
  out["history_bytes"] = history_bytes(node);
  out["groups"] = Json::array();
  for (const auto& group : node.groups) {
    Json entry = {{"group", group.name}, {"zone_bytes", group.space.zone_bytes}};
    entry["space"] = to_json(parts_of(group));
    entry["history_bytes"] = group.space.history_bytes;
    entry["compaction"] = ctl::to_json(group.compaction);
    out["groups"].push_back(std::move(entry));
  }
  return out;
}

std::string compaction_text(const GroupStatus& group, UtcNs now) {
  const auto& c = group.compaction;
  std::string text = "  Compaction of group " + group.name + ": " + c.state + ", ";
  text += c.state == "running" ? "since " + age_text(c.started, now) : age_text(c.ended, now);
  text += ": " + size_text(c.moved_bytes) + " of about " + size_text(c.total_bytes) + " moved, " +
          std::to_string(c.zones_emptied) + " of " + count_text(c.zones_chosen, "zone") +
          " given back";
  if (c.zones_waiting != 0)
    text +=
        ", " + std::to_string(c.zones_waiting) + " when the history or a mirror needs them no more";
  if (c.bad_blocks != 0) text += "; " + count_text(c.bad_blocks, "bad block") + " left where it is";
  if (c.by_itself) text += "; began by itself, because free zones were short";
  return text + (c.outcome.empty() ? "" : "; " + c.outcome) + ".\n";
}

std::string pool_text(const NodeStatus& node) {
  const auto& pool = node.pool;
  std::string out = "Pool of node " + node.node + ": " + pool.path + ", " +
                    size_text(pool.size_bytes) + ", " + std::to_string(pool.full_percent) +
                    " % full\n";
  std::vector<std::string> head = {"", "POOL"};
  for (const auto& group : node.groups) head.push_back(group.name);
  Table rows(std::move(head));
  const auto all = parts_of(node);
  std::vector<std::vector<Part>> groups;
  for (const auto& group : node.groups) groups.push_back(parts_of(group));
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::vector<std::string> row = {std::string("  ") + all[i].text, size_text(all[i].bytes)};
    for (const auto& parts : groups)
      row.push_back(i < parts.size() ? size_text(parts[i].bytes) : "");
    rows.row(std::move(row));
  }
  std::vector<std::string> total = {"  together", size_text(sum(all))};
  for (const auto& parts : groups) total.push_back(size_text(sum(parts)));
  rows.row(std::move(total));
  if (history_bytes(node) != 0) {
    std::vector<std::string> history = {"  of which the history needs",
                                        size_text(history_bytes(node))};
    for (const auto& group : node.groups) history.push_back(size_text(group.space.history_bytes));
    rows.row(std::move(history));
  }
  out += rows.text();
  out += "  Of the free zones " + size_text(pool.prepared_bytes) +
         " have been written once and are kept below the pool.\n";
  if (sum(all) != pool.size_bytes) {
    out += "  THIS DOES NOT BALANCE: the pool has " + count_text(pool.size_bytes, "byte") +
           ", the parts are " + count_text(sum(all), "byte") + "; report it as a defect\n";
  }
  for (const auto& group : node.groups) {
    if (group.compaction.state != "never") out += compaction_text(group, node.now);
  }
  out += "  " + judge(node.node, pool).text + ".\n";
  return out;
}

}  // namespace

Exit run_pool_show(Context& context) {
  const auto answers = ask(context, context.settings.nodes, true, context.settings.timeout);
  auto list = Json::array();
  std::string text;
  for (const auto& a : answers) {
    if (!a.status) continue;
    list.push_back(pool_json(*a.status));
    text += (text.empty() ? "" : "\n") + pool_text(*a.status);
  }
  context.out << (context.settings.json ? json_text({{"pools", std::move(list)}}) : text);
  if (!context.settings.json) warn_silent(context, answers);
  return listing_end(context, answers);
}

Exit run_pool_compact(Context& context, const std::string& group, bool stop) {
  return at_holders(
      context, group,
      [&](rpc::ControlClient& client) {
        return stop ? client.stop_compaction(group) : client.start_compaction(group);
      },
      stop ? "The compaction of group " + group + " ends"
           : "A compaction of group " + group + " began");
}

}  // namespace tandem::ctl
