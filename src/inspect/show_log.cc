// The log of a group, record by record.
#include <nlohmann/json.hpp>

#include "format/record.h"
#include "inspect/log_walk.h"
#include "inspect/show.h"

namespace tandem::inspect {
namespace {

using format::RecordType;

const char* type_name(RecordType type) {
  switch (type) {
    case RecordType::kWrite:
      return "write";
    case RecordType::kDiscard:
      return "discard";
    case RecordType::kZero:
      return "zero";
    case RecordType::kVolumeCreate:
      return "volume-create";
    case RecordType::kVolumeResize:
      return "volume-resize";
    case RecordType::kVolumeDelete:
      return "volume-delete";
    case RecordType::kTimeline:
      return "timeline";
    case RecordType::kSnapshot:
      return "snapshot";
    case RecordType::kRevert:
      return "revert";
  }
  return "?";
}

Json record_json(const LogPageView& page, const format::PlacedRecord& placed, Lsn checkpoint) {
  const auto& h = placed.record.header;
  Json out = {{"lsn", h.lsn.value},
              {"utc_ns", h.utc.value},
              {"type", type_name(h.type)},
              {"page", page.at.value},
              {"behind_checkpoint", h.lsn > checkpoint}};
  switch (h.type) {
    case RecordType::kWrite:
    case RecordType::kDiscard:
    case RecordType::kZero:
      out["volume"] = h.volume.value;
      out["block"] = h.first_block.value;
      out["count"] = h.block_count;
      break;
    case RecordType::kVolumeCreate:
      out["volume"] = h.volume.value;
      if (auto body = format::decode_volume_create(placed.record)) {
        out["name"] = body->name;
        out["size_bytes"] = body->size_bytes;
      }
      break;
    case RecordType::kVolumeResize:
      out["volume"] = h.volume.value;
      out["size_bytes"] = *format::decode_volume_resize(placed.record);
      break;
    case RecordType::kSnapshot:
      if (auto body = format::decode_snapshot(placed.record)) out["name"] = body->name;
      break;
    case RecordType::kRevert:
      if (auto body = format::decode_revert(placed.record)) {
        out["to_lsn"] = body->to.value;
        out["branch"] = body->branch;
      }
      break;
    case RecordType::kVolumeDelete:
      out["volume"] = h.volume.value;
      break;
    case RecordType::kTimeline:
      out["timeline"] = format::decode_timeline(placed.record)->value;
      break;
  }
  if (placed.extents.empty()) return out;
  out["places"] = Json::array();
  for (const auto& e : placed.extents) {
    out["places"].push_back({{"block", e.start.value}, {"count", e.count}});
  }
  return out;
}

}  // namespace

Json describe_log(const PoolView& pool, const GroupView& group, const LogRange& range) {
  const auto& d = group.descriptor;
  const Lsn from = range.from.value_or(d.log_zones.front().first);
  const Lsn before{from.value == 0 ? 0 : from.value - 1};
  const LogTail tail = load_log_tail(pool, group, true);
  Json problems = Json::array();
  Json records = Json::array();
  const auto show = [&](const LogPageView& page) {
    for (const auto& placed : page.records) {
      if (placed.record.header.lsn < from) continue;
      if (records.size() >= range.limit) return false;
      records.push_back(record_json(page, placed, d.point.lsn));
    }
    return true;
  };
  if (before < d.point.lsn) {
    walk_kept_log(pool, group, before, show, [&](PoolBlock at, const std::string& what) {
      problems.push_back("pool block " + std::to_string(at.value) + ": " + what);
    });
  }
  for (const auto& page : tail.pages) {
    if (!show(page)) break;
  }
  for (const auto& what : tail.problems) problems.push_back(what);
  return {{"group", d.name},
          {"kept_from", d.log_zones.front().first.value - 1},
          {"checkpoint", to_json(d.point)},
          {"head", to_json(tail.head)},
          {"durable", tail.durable.value},
          {"end", {{"block", tail.end_at.value}, {"why", tail.end}, {"cut_pages", tail.cut_pages}}},
          {"problems", std::move(problems)},
          {"records", std::move(records)}};
}

std::string log_text(const Json& j) {
  std::vector<std::vector<std::string>> rows{
      {"LSN", "TIME", "TYPE", "VOLUME", "BLOCK", "COUNT", "PAGE", "PLACES"}};
  const auto number = [](const Json& from, const char* key) {
    return from.contains(key) ? std::to_string(from[key].get<std::uint64_t>()) : std::string("-");
  };
  for (const auto& r : j["records"]) {
    std::string places;
    if (r.contains("places")) {
      for (const auto& p : r["places"]) {
        places += (places.empty() ? "" : " ") + number(p, "block") + "+" + number(p, "count");
      }
    }
    if (r.contains("name")) places += "\"" + r["name"].get<std::string>() + "\" ";
    if (r.contains("size_bytes")) places += number(r, "size_bytes") + " bytes";
    if (r.contains("timeline")) places += "timeline " + number(r, "timeline");
    rows.push_back({number(r, "lsn") + (r["behind_checkpoint"].get<bool>() ? "*" : ""),
                    utc_text(UtcNs{r["utc_ns"].get<std::uint64_t>()}), r["type"].get<std::string>(),
                    number(r, "volume"), number(r, "block"), number(r, "count"), number(r, "page"),
                    places});
  }
  std::string out = table_text(rows);
  out += "* behind the checkpoint: a restart replays it\n";
  out += "checkpoint  " + point_text(j["checkpoint"]) + "\n";
  out += "head        " + point_text(j["head"]) + "\n";
  out += "ends        at pool block " + number(j["end"], "block") + ": " +
         j["end"]["why"].get<std::string>() + "\n";
  for (const auto& p : j["problems"]) out += "PROBLEM     " + p.get<std::string>() + "\n";
  return out;
}

}  // namespace tandem::inspect
