// The map of a volume at the checkpoint, as runs; and the way to one block of it.
#include <nlohmann/json.hpp>

#include "format/checksum.h"
#include "inspect/log_walk.h"
#include "inspect/map_walk.h"
#include "inspect/show.h"

namespace tandem::inspect {
namespace {

using format::MapEntry;

const char* kind_of(const MapEntry& e) {
  if (e.has_data()) return "data";
  return e.is_zero() ? "zeroes" : "hole";
}

/// Joins neighbours that lie behind each other, or are zeroes both.
class RunCollector final : public MapVisitor {
 public:
  RunCollector(BlockReader& reader, std::uint64_t limit) : reader_(reader), limit_(limit) {}

  bool enter(const MapEntry& entry, NodePlace place) override {
    if (runs.size() >= limit_ || entry.is_zero() || entry.where.value >= reader_.blocks()) {
      if (runs.size() < limit_) damaged(entry, place, {ErrorCode::kCorrupt, "lies nowhere"});
      truncated |= runs.size() >= limit_;
      return false;
    }
    return true;
  }
  void damaged(const MapEntry& entry, NodePlace place, const Error& error) override {
    runs.push_back({{"block", place.first_block()},
                    {"count", place.span_blocks()},
                    {"kind", "damaged"},
                    {"where", entry.where.value},
                    {"error", error.message}});
    open_ = false;
  }
  void node(const MapEntry&, NodePlace place, std::span<const std::byte> bytes) override {
    ++nodes;
    if (place.level != 0) return;
    for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
      const MapEntry e = format::load_entry(bytes.data(), i);
      if (e.is_hole()) continue;
      add(place.first_block() + i, e);
    }
  }

  Json runs = Json::array();
  std::uint64_t nodes = 0;
  bool truncated = false;

 private:
  void add(std::uint64_t block, const MapEntry& e) {
    const bool follows = open_ && block == end_ && e.is_zero() == last_.is_zero() &&
                         (e.is_zero() || e.where == last_.where.next());
    end_ = block + 1;
    last_ = e;
    if (follows) {
      auto& run = runs.back();
      run["count"] = run["count"].get<std::uint64_t>() + 1;
      run["oldest_lsn"] = std::min(run["oldest_lsn"].get<std::uint64_t>(), e.lsn.value);
      run["newest_lsn"] = std::max(run["newest_lsn"].get<std::uint64_t>(), e.lsn.value);
      return;
    }
    open_ = runs.size() < limit_;
    if (!open_) {
      truncated = true;
      return;
    }
    runs.push_back({{"block", block},
                    {"count", 1},
                    {"kind", kind_of(e)},
                    {"where", e.has_data() ? e.where.value : 0},
                    {"oldest_lsn", e.lsn.value},
                    {"newest_lsn", e.lsn.value}});
  }
  BlockReader& reader_;
  std::uint64_t limit_;
  bool open_ = false;
  std::uint64_t end_ = 0;
  MapEntry last_;
};

Json entry_json(const MapEntry& e) {
  return {{"kind", kind_of(e)},
          {"where", e.where.value},
          {"lsn", e.lsn.value},
          {"crc32c", hex8(e.crc32c)}};
}

/// Whether the block at `where` is what `crc` says.
std::string content_state(const PoolView& pool, PoolBlock where, std::uint32_t crc) {
  auto data = read_page(pool.reader(), where);
  if (!data) return data.error().message;
  return format::crc32c(*data) == crc ? "whole" : "fails its checksum";
}

/// Records behind the checkpoint that change `block`, oldest first.
Json changes_behind(const PoolView& pool, const LogTail& tail, VolumeId volume, VolumeBlock block) {
  Json out = Json::array();
  for (const auto& page : tail.pages) {
    for (const auto& placed : page.records) {
      const auto& h = placed.record.header;
      const bool hits = h.type <= format::RecordType::kZero && h.volume == volume &&
                        block >= h.first_block && block.value - h.first_block.value < h.block_count;
      if (!hits) continue;
      Json change = {{"lsn", h.lsn.value},
                     {"kind", h.type == format::RecordType::kWrite  ? "data"
                              : h.type == format::RecordType::kZero ? "zeroes"
                                                                    : "hole"}};
      std::uint64_t skip = block.value - h.first_block.value;
      const auto index = static_cast<std::uint32_t>(skip);
      for (const auto& e : placed.extents) {
        if (skip >= e.count) {
          skip -= e.count;
          continue;
        }
        const PoolBlock where{e.start.value + skip};
        change["where"] = where.value;
        change["crc32c"] = hex8(placed.record.crc(index));
        change["content"] = content_state(pool, where, placed.record.crc(index));
        break;
      }
      out.push_back(std::move(change));
    }
  }
  return out;
}

}  // namespace

Result<format::VolumeState> find_volume(const GroupView& group, const std::string& name) {
  std::string names;
  for (const auto& v : group.descriptor.volumes) {
    if (!name.empty() && (v.name == name || std::to_string(v.id.value) == name)) return v;
    names += " " + v.name;
  }
  const auto& volumes = group.descriptor.volumes;
  if (name.empty() && volumes.size() == 1) return volumes.front();
  const std::string in = "group " + group.descriptor.name +
                         " at its checkpoint has:" + (names.empty() ? " none" : names);
  if (!name.empty()) return Error{ErrorCode::kNotFound, "no volume " + name + "; " + in};
  return Error{volumes.empty() ? ErrorCode::kNotFound : ErrorCode::kInvalid,
               "say which volume with --volume; " + in};
}

Json describe_map(const PoolView& pool, const GroupView& group, const format::VolumeState& volume,
                  std::uint64_t limit) {
  RunCollector collector(pool.reader(), limit);
  walk_map(pool.reader(), volume, collector);
  return {{"group", group.descriptor.name},
          {"volume", volume.name},
          {"checkpoint", to_json(group.descriptor.point)},
          {"blocks", blocks_for(volume.size_bytes)},
          {"allocated_blocks", volume.allocated_blocks},
          {"height", volume.height},
          {"nodes_read", collector.nodes},
          {"truncated", collector.truncated},
          {"runs", std::move(collector.runs)}};
}

std::string map_text(const Json& j) {
  const auto number = [](const Json& from, const char* key) {
    return from.contains(key) ? std::to_string(from[key].get<std::uint64_t>()) : std::string("-");
  };
  std::vector<std::vector<std::string>> rows{{"BLOCK", "COUNT", "KIND", "POOL BLOCK", "LSN"}};
  for (const auto& r : j["runs"]) {
    std::string lsns = number(r, "oldest_lsn");
    if (number(r, "newest_lsn") != lsns) lsns += "-" + number(r, "newest_lsn");
    rows.push_back({number(r, "block"), number(r, "count"), r["kind"].get<std::string>(),
                    r["kind"] == "zeroes" ? "-" : number(r, "where"),
                    r.contains("error") ? r["error"].get<std::string>() : lsns});
  }
  std::string out = table_text(rows);
  if (j["truncated"].get<bool>()) out += "… more: raise --limit\n";
  out += "volume " + j["volume"].get<std::string>() + ", " + number(j, "blocks") + " blocks, " +
         number(j, "allocated_blocks") +
         " allocated, at the checkpoint: " + point_text(j["checkpoint"]) + "\n";
  return out;
}

Json describe_block(const PoolView& pool, const GroupView& group, const format::VolumeState& volume,
                    VolumeBlock block) {
  Json out = {{"group", group.descriptor.name},
              {"volume", volume.name},
              {"block", block.value},
              {"byte", block.value * kBlockBytes}};
  Json path = Json::array();
  MapEntry entry = volume.root;
  std::string damage;
  for (std::uint32_t level = volume.height; level-- > 0 && !entry.is_hole() && damage.empty();) {
    Json step = {{"level", level}, {"index", block.value >> (8 * (level + 1))}};
    step.update(entry_json(entry));
    auto node = read_node(pool.reader(), entry);
    damage = node ? "" : node.error().message;
    step["content"] = node ? "whole" : damage;
    path.push_back(std::move(step));
    if (!node) break;
    entry = format::load_entry(node->data(),
                               static_cast<std::uint32_t>(block.value >> (8 * level)) & 255u);
  }
  out["path"] = std::move(path);
  if (damage.empty()) {
    out["at_checkpoint"] = entry_json(entry);
    if (entry.has_data()) {
      out["at_checkpoint"]["content"] = content_state(pool, entry.where, entry.crc32c);
    }
  }
  out["checkpoint"] = to_json(group.descriptor.point);
  const LogTail tail = load_log_tail(pool, group, true);
  out["changes_behind"] = changes_behind(pool, tail, volume.id, block);
  return out;
}

std::string block_text(const Json& j) {
  const auto line = [](const Json& e) {
    std::string out = e["kind"].get<std::string>();
    if (e["kind"] == "data" && e.contains("where")) {
      out += " at pool block " + std::to_string(e["where"].get<std::uint64_t>()) + ", crc32c " +
             e["crc32c"].get<std::string>();
    }
    out += ", LSN " + std::to_string(e["lsn"].get<std::uint64_t>());
    if (e.contains("content")) out += ": " + e["content"].get<std::string>();
    return out + "\n";
  };
  std::string out = "group " + j["group"].get<std::string>() + ", volume " +
                    j["volume"].get<std::string>() + ", block " +
                    std::to_string(j["block"].get<std::uint64_t>()) + "\n";
  for (const auto& step : j["path"]) {
    out += "map level " + std::to_string(step["level"].get<int>()) + "  node " +
           std::to_string(step["index"].get<std::uint64_t>()) + ": " + line(step);
  }
  out += "at checkpoint (" + point_text(j["checkpoint"]) + ")\n  ";
  out += j.contains("at_checkpoint") ? line(j["at_checkpoint"]) : "cannot be told: map damaged\n";
  for (const auto& change : j["changes_behind"]) out += "behind it\n  " + line(change);
  return out;
}

}  // namespace tandem::inspect
