// The fixed places of a pool: superblock, zones, groups.
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "inspect/show.h"

namespace tandem::inspect {
namespace {

template <class T>
std::string state_of(const Copies<T>& copies, std::size_t i) {
  if (!copies.copy[i]) return copies.copy[i].error().message;
  return copies.current == i ? "whole, counts" : "whole";
}

std::string owner_name(const PoolView& pool, std::uint32_t slot) {
  auto group = load_group(pool, slot);
  if (group) return group->descriptor.name;
  const auto* anchor = pool.anchors()[slot].get();
  return anchor != nullptr && anchor->live ? anchor->group.text() + " (damaged)" : "(no group)";
}

Json volume_json(const format::VolumeState& v) {
  return {{"id", v.id.value},
          {"name", v.name},
          {"size_bytes", v.size_bytes},
          {"logical_block_bytes", v.logical_block_bytes},
          {"allocated_blocks", v.allocated_blocks},
          {"data_blocks", v.data_blocks},
          {"map_height", v.height},
          {"map_root", v.root.where.value},
          {"newest_lsn", v.root.lsn.value},
          {"being_deleted", v.being_deleted()}};
}

Json history_json(const TimelineHistory& history) {
  Json list = Json::array();
  for (const auto& f : history) {
    list.push_back(
        {{"timeline", f.timeline.value}, {"fork", f.fork.value}, {"utc_ns", f.utc.value}});
  }
  return list;
}

Json group_json(const PoolView& pool, std::uint32_t slot) {
  const auto& copies = pool.anchors()[slot];
  Json out = {{"slot", slot}};
  if (copies.current && copies.get()->live) {
    out["id"] = copies.get()->group.text();
    out["anchor_sequence"] = copies.get()->sequence;
  }
  auto group = load_group(pool, slot);
  if (!group) {
    out["error"] = group.error().message;
    return out;
  }
  const auto& d = group->descriptor;
  out["name"] = d.name;
  out["role"] = to_string(d.role);
  out["mode"] = to_string(d.mode);
  out["fenced_by"] = d.fenced_by.value;
  out["awaiting_image"] = d.awaiting_image;
  out["checkpoint"] = to_json(d.point);
  out["history"] = history_json(d.history);
  out["zones"] = group->zones.size();
  out["log"] = {{"zones", d.log_zones.size()},
                {"start", d.log_zones.front().first.value - 1},
                {"next_block", d.log_next.value},
                {"boot", hex16(d.log_boot)},
                {"data_horizon", d.data_horizon.value}};
  out["dead"] = {{"entries", d.dead.entries}, {"chunks", d.dead.chunks}};
  out["snapshots"] = Json::array();
  for (const auto& s : d.snapshots) {
    out["snapshots"].push_back({{"name", s.name},
                                {"id", s.id.value},
                                {"parent", s.parent.value},
                                {"kind", to_text(s.kind)},
                                {"label", s.label},
                                {"at", to_json(s.at)},
                                {"being_deleted", s.being_deleted},
                                {"held_in_front", s.held.entries},
                                {"volumes", s.volumes.size()}});
  }
  out["parent"] = d.parent.value;
  out["held"] = {{"entries", d.held.entries}, {"chunks", d.held.chunks}};
  std::uint64_t map_nodes = 0;
  for (const auto& v : d.volumes) map_nodes += v.map_nodes;
  out["map_nodes"] = map_nodes;
  out["bitmap_pages"] = d.bitmap.size();
  out["descriptor"] = {{"first_block", group->chain.front().value},
                       {"blocks", group->chain.size()},
                       {"bytes", group->anchor.descriptor_bytes}};
  out["slots"] = Json::array();
  for (const auto& s : d.slots) {
    out["slots"].push_back({{"address", s.address},
                            {"written", s.written.value},
                            {"durable", s.durable.value},
                            {"needs_image", s.needs_image}});
  }
  out["volumes"] = Json::array();
  for (const auto& v : d.volumes) out["volumes"].push_back(volume_json(v));
  return out;
}

}  // namespace

std::string hex16(std::uint64_t value) {
  char out[17];
  std::snprintf(out, sizeof out, "%016llx", static_cast<unsigned long long>(value));
  return out;
}

std::string hex8(std::uint32_t value) {
  char out[9];
  std::snprintf(out, sizeof out, "%08x", value);
  return out;
}

std::string utc_text(UtcNs utc) {
  const std::time_t seconds = static_cast<std::time_t>(utc.value / 1'000'000'000);
  std::tm parts{};
  char out[32];
  ::gmtime_r(&seconds, &parts);
  std::strftime(out, sizeof out, "%Y-%m-%dT%H:%M:%S", &parts);
  char fraction[16];
  std::snprintf(fraction, sizeof fraction, ".%03uZ",
                static_cast<unsigned>(utc.value / 1'000'000 % 1000));
  return std::string(out) + fraction;
}

Json to_json(const LogPoint& point) {
  return {{"timeline", point.timeline.value},    {"lsn", point.lsn.value},
          {"digest", hex16(point.digest.value)}, {"utc_ns", point.utc.value},
          {"utc", utc_text(point.utc)},          {"payload_bytes", point.payload_bytes}};
}

std::string point_text(const Json& point) {
  return "timeline " + std::to_string(point["timeline"].get<std::uint64_t>()) + ", LSN " +
         std::to_string(point["lsn"].get<std::uint64_t>()) + ", digest " +
         point["digest"].get<std::string>() + ", " + point["utc"].get<std::string>();
}

std::string table_text(const std::vector<std::vector<std::string>>& rows) {
  std::vector<std::size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      out += row[i];
      if (i + 1 < row.size()) out.append(widths[i] - row[i].size() + 2, ' ');
    }
    out += "\n";
  }
  return out;
}

Json describe_superblock(const PoolView& pool) {
  const auto& s = pool.superblock();
  Json out = {{"pool", s.pool.text()},
              {"path", pool.reader().name()},
              {"format_version", format::kPoolFormatVersion},
              {"created", utc_text(s.created)},
              {"blocks", s.blocks},
              {"bytes", s.blocks * kBlockBytes},
              {"file_blocks", pool.reader().blocks()},
              {"zone_blocks", s.zone_blocks},
              {"zone_bytes", std::uint64_t{s.zone_blocks} * kBlockBytes},
              {"zones", s.zones},
              {"first_zone", s.first_zone().value},
              {"group_slots", format::kGroupSlots},
              {"table_pages", s.table_pages()},
              {"fixed_blocks", s.fixed_blocks()}};
  out["copies"] = {state_of(pool.superblocks(), 0), state_of(pool.superblocks(), 1)};
  return out;
}

std::string superblock_text(const Json& j) {
  const auto number = [&](const char* key) { return std::to_string(j[key].get<std::uint64_t>()); };
  std::string out;
  out += "pool            " + j["pool"].get<std::string>() + "\n";
  out += "created         " + j["created"].get<std::string>() + "\n";
  out += "format version  " + number("format_version") + "\n";
  out += "size            " + number("bytes") + " bytes, " + number("blocks") +
         " blocks (the file has " + number("file_blocks") + ")\n";
  out += "zones           " + number("zones") + " of " + number("zone_bytes") +
         " bytes; groups may own those from " + number("first_zone") + " on\n";
  out += "fixed places    " + number("fixed_blocks") +
         " blocks: 2 superblocks, 2 anchors for each of " + number("group_slots") +
         " groups, 2 copies of " + number("table_pages") + " zone table pages\n";
  out += "copy in block 0 " + j["copies"][0].get<std::string>() + "\n";
  out += "copy in block 1 " + j["copies"][1].get<std::string>() + "\n";
  return out;
}

Json describe_zones(const PoolView& pool) {
  const auto& s = pool.superblock();
  Json out = {{"first", s.first_zone().value}, {"end", s.zones}, {"free", 0}, {"damaged", 0}};
  std::uint64_t free = 0, damaged = 0;
  std::map<std::uint32_t, GroupView> groups;
  for (auto slot : pool.live_slots()) {
    if (auto group = load_group(pool, slot)) groups.emplace(slot, std::move(*group));
  }
  Json runs = Json::array();
  for (ZoneId z = s.first_zone(); z.value < s.zones; z = z.next()) {
    const auto entry = pool.zone(z);
    Json run = {{"first", z.value}, {"count", 1}};
    if (!entry) {
      ++damaged;
      run["use"] = "unknown: its page of the table is damaged";
    } else if (entry->owner == format::kZoneFree) {
      ++free;
      run["use"] = entry->prepared ? "free, prepared" : "free";
    } else {
      const auto group = groups.find(entry->owner);
      run["use"] = group != groups.end() && group->second.is_log_zone(z) ? "log" : "data";
      run["slot"] = entry->owner;
      run["group"] =
          group != groups.end() ? group->second.descriptor.name : owner_name(pool, entry->owner);
    }
    const bool extends = !runs.empty() && runs.back()["use"] == run["use"] &&
                         runs.back().value("slot", -1) == run.value("slot", -1);
    if (extends) {
      runs.back()["count"] = runs.back()["count"].get<std::uint64_t>() + 1;
    } else {
      runs.push_back(std::move(run));
    }
  }
  out["free"] = free;
  out["damaged"] = damaged;
  out["runs"] = std::move(runs);
  return out;
}

std::string zones_text(const Json& j) {
  std::vector<std::vector<std::string>> rows{{"ZONES", "COUNT", "USE", "GROUP"}};
  for (const auto& run : j["runs"]) {
    const auto first = run["first"].get<std::uint64_t>();
    const auto count = run["count"].get<std::uint64_t>();
    std::string range = std::to_string(first);
    if (count > 1) range += "-" + std::to_string(first + count - 1);
    rows.push_back({range, std::to_string(count), run["use"].get<std::string>(),
                    run.contains("slot") ? run["group"].get<std::string>() + " (slot " +
                                               std::to_string(run["slot"].get<int>()) + ")"
                                         : "-"});
  }
  return table_text(rows) + std::to_string(j["free"].get<std::uint64_t>()) + " of " +
         std::to_string(j["end"].get<std::uint64_t>() - j["first"].get<std::uint64_t>()) +
         " zones are free\n";
}

Json describe_groups(const PoolView& pool) {
  Json out = Json::array();
  for (std::uint32_t slot = 0; slot < pool.anchors().size(); ++slot) {
    const auto& copies = pool.anchors()[slot];
    if (copies.current && !copies.get()->live) continue;
    out.push_back(group_json(pool, slot));
  }
  return {{"groups", std::move(out)}};
}

std::string groups_text(const Json& j) {
  std::string out;
  for (const auto& g : j["groups"]) {
    const std::string slot = std::to_string(g["slot"].get<int>());
    if (g.contains("error")) {
      out += "group " + g.value("id", "?") + " (slot " + slot +
             "): DAMAGED: " + g["error"].get<std::string>() + "\n";
      continue;
    }
    const auto number = [&](const Json& from, const char* key) {
      return std::to_string(from[key].get<std::uint64_t>());
    };
    out += "group " + g["name"].get<std::string>() + " (slot " + slot + ", " +
           g["id"].get<std::string>() + ")\n";
    out +=
        "  role        " + g["role"].get<std::string>() + ", mode " + g["mode"].get<std::string>() +
        (g["awaiting_image"].get<bool>() ? ", waits for its first full copy" : "") +
        (g["fenced_by"].get<std::uint64_t>() != 0 ? ", fenced by timeline " + number(g, "fenced_by")
                                                  : "") +
        "\n";
    out += "  checkpoint  " + point_text(g["checkpoint"]) + "\n";
    out += "  zones       " + number(g, "zones") + ", of these log " + number(g["log"], "zones") +
           "; the log is kept from LSN " + number(g["log"], "start") + " on\n";
    out += "  maps        " + number(g, "map_nodes") + " nodes; bitmap " +
           number(g, "bitmap_pages") + " pages; descriptor " + number(g["descriptor"], "blocks") +
           " blocks\n";
    out += "  dead        " + number(g["dead"], "entries") + " blocks wait in " +
           number(g["dead"], "chunks") + " chunks\n";
    for (const auto& s : g["snapshots"]) {
      std::string kind = s["kind"].get<std::string>();
      kind.resize(12, ' ');
      out += "  " + kind + s["name"].get<std::string>() + " at LSN " + number(s["at"], "lsn") +
             (s["being_deleted"].get<bool>() ? ", being deleted" : "") + "\n";
    }
    for (const auto& f : g["history"]) {
      out +=
          "  timeline    " + number(f, "timeline") + " from behind LSN " + number(f, "fork") + "\n";
    }
    for (const auto& s : g["slots"]) {
      out += "  mirror      " + s["address"].get<std::string>() + ", durable up to LSN " +
             number(s, "durable") + (s["needs_image"].get<bool>() ? ", needs a full copy" : "") +
             "\n";
    }
    for (const auto& v : g["volumes"]) {
      out += "  volume      " + v["name"].get<std::string>() + " (id " + number(v, "id") + "), " +
             number(v, "size_bytes") + " bytes, " + number(v, "allocated_blocks") +
             " blocks allocated" + (v["being_deleted"].get<bool>() ? ", being deleted" : "") + "\n";
    }
  }
  return out.empty() ? "no groups\n" : out;
}

}  // namespace tandem::inspect
