#include "backup/manifest.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace tandem::backup {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "tandem-backup";
constexpr std::uint32_t kVersionPlain = 1;  // without `seed`
constexpr std::uint32_t kVersionSeed = 2;   // with it

Json to_json(const VolumePart& v) {
  return {{"name", v.name},
          {"size_bytes", v.size_bytes},
          {"logical_block_bytes", v.logical_block_bytes},
          {"based", v.based},
          {"file", v.file},
          {"file_bytes", v.summary.file_bytes},
          {"chunks", v.summary.chunks},
          {"data_bytes", v.summary.data_bytes},
          {"zero_bytes", v.summary.zero_bytes},
          {"sha256", v.summary.sha256}};
}

Json to_json(const SnapshotId& s) {
  return {{"name", s.name}, {"lsn", s.lsn.value}, {"utc_ns", s.utc.value}};
}

/// Sixteen digits: many readers of JSON would round it.
std::string hex_of(Digest digest) {
  char digits[17];
  std::snprintf(digits, sizeof digits, "%016llx", static_cast<unsigned long long>(digest.value));
  return digits;
}

Json to_json(const SeedPoint& seed) {
  Json j = {{"timeline", seed.point.timeline.value},
            {"digest", hex_of(seed.point.digest)},
            {"payload_bytes", seed.point.payload_bytes},
            {"next_volume_id", seed.next_volume_id},
            {"history", Json::array()},
            {"volumes", Json::array()}};
  for (const auto& fork : seed.history) {
    j["history"].push_back({{"timeline", fork.timeline.value},
                            {"behind_lsn", fork.fork.value},
                            {"utc_ns", fork.utc.value}});
  }
  for (const auto& v : seed.volumes) {
    j["volumes"].push_back({{"id", v.id.value},
                            {"name", v.name},
                            {"size_bytes", v.size_bytes},
                            {"logical_block_bytes", v.logical_block_bytes}});
  }
  return j;
}

/// get<>() would take a negative or a broken one, too.
std::uint64_t number(const Json& j, const char* key) {
  return j.at(key).get_ref<const Json::number_unsigned_t&>();
}
std::uint32_t small_number(const Json& j, const char* key) {
  return static_cast<std::uint32_t>(number(j, key));
}
std::string text(const Json& j, const char* key) { return j.at(key).get<std::string>(); }

SnapshotId snapshot_from(const Json& j) {
  return {text(j, "name"), Lsn(number(j, "lsn")), UtcNs(number(j, "utc_ns"))};
}

Result<Digest> digest_from(const std::string& hex) {
  std::uint64_t value = 0;
  const auto end = hex.data() + hex.size();
  const auto [at, failed] = std::from_chars(hex.data(), end, value, 16);
  if (hex.size() != 16 || failed != std::errc() || at != end)
    return Error{ErrorCode::kCorrupt, "its digest is none"};
  return Digest(value);
}

/// Position and time are those of the snapshot.
Result<SeedPoint> seed_from(const Json& j, const SnapshotId& snapshot) {
  SeedPoint seed;
  const auto digest = digest_from(text(j, "digest"));
  if (!digest) return digest.error();
  seed.point = {Timeline(small_number(j, "timeline")), snapshot.lsn, *digest, snapshot.utc,
                number(j, "payload_bytes")};
  seed.next_volume_id = small_number(j, "next_volume_id");
  for (const auto& fork : j.at("history")) {
    seed.history.push_back({Timeline(small_number(fork, "timeline")),
                            Lsn(number(fork, "behind_lsn")), UtcNs(number(fork, "utc_ns"))});
  }
  for (const auto& v : j.at("volumes")) {
    seed.volumes.push_back({VolumeId(small_number(v, "id")), text(v, "name"),
                            number(v, "size_bytes"), small_number(v, "logical_block_bytes")});
  }
  return seed;
}

VolumePart volume_from(const Json& j) {
  VolumePart v;
  v.name = text(j, "name");
  v.size_bytes = number(j, "size_bytes");
  v.logical_block_bytes = small_number(j, "logical_block_bytes");
  v.based = j.at("based").get<bool>();
  v.file = text(j, "file");
  v.summary = {number(j, "file_bytes"), number(j, "chunks"), number(j, "data_bytes"),
               number(j, "zero_bytes"), text(j, "sha256")};
  return v;
}

Result<Manifest> manifest_from(const Json& j, bool with_seed) {
  Manifest m;
  m.number = small_number(j, "number");
  m.group = text(j.at("group"), "name");
  m.group_id = text(j.at("group"), "id");
  m.node = text(j, "node");
  m.snapshot = snapshot_from(j.at("snapshot"));
  m.consistency = text(j, "consistency");
  m.snapshot_is_ours = j.at("snapshot_is_ours").get<bool>();
  if (const auto& f = j.at("from"); !f.is_null())
    m.from = From{small_number(f, "number"), snapshot_from(f), text(f, "manifest_sha256")};
  m.created = UtcNs(number(j, "created_utc_ns"));
  if (with_seed) {
    auto seed = seed_from(j.at("seed"), m.snapshot);
    if (!seed) return std::move(seed.error());
    m.seed = std::move(*seed);
  }
  for (const auto& volume : j.at("volumes")) m.volumes.push_back(volume_from(volume));
  return m;
}

/// File names come from the manifest: none may lead out of its directory.
bool is_plain(const VolumePart& volume) {
  return !volume.name.empty() && !volume.file.empty() &&
         volume.file.find('/') == std::string::npos && volume.file.front() != '.';
}

}  // namespace

const VolumePart* Manifest::find(const std::string& volume) const {
  const auto found = std::find_if(volumes.begin(), volumes.end(),
                                  [&](const VolumePart& v) { return v.name == volume; });
  return found == volumes.end() ? nullptr : &*found;
}

std::string to_text(const Manifest& m) {
  Json j = {{"format", kFormat},
            {"version", m.seed ? kVersionSeed : kVersionPlain},
            {"number", m.number},
            {"group", {{"name", m.group}, {"id", m.group_id}}},
            {"node", m.node},
            {"snapshot", to_json(m.snapshot)},
            {"consistency", m.consistency},
            {"snapshot_is_ours", m.snapshot_is_ours},
            {"from", nullptr},
            {"created_utc_ns", m.created.value}};
  if (m.seed) j["seed"] = to_json(*m.seed);
  j["volumes"] = Json::array();
  if (m.from) {
    j["from"] = to_json(m.from->snapshot);
    j["from"]["number"] = m.from->number;
    j["from"]["manifest_sha256"] = m.from->manifest_sha256;
  }
  for (const auto& volume : m.volumes) j["volumes"].push_back(to_json(volume));
  return j.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

Result<Manifest> parse_manifest(const std::string& text) {
  try {
    const Json j = Json::parse(text);
    if (j.at("format") != kFormat) return Error{ErrorCode::kCorrupt, "it is not a backup's"};
    const auto version = number(j, "version");
    if (version != kVersionPlain && version != kVersionSeed)
      return Error{ErrorCode::kUnsupported, "it is of version " + std::to_string(version) +
                                                ", which this tandem cannot read"};
    auto m = manifest_from(j, version == kVersionSeed);
    if (!m) return m;
    if (!std::all_of(m->volumes.begin(), m->volumes.end(), is_plain))
      return Error{ErrorCode::kCorrupt, "it names a file that cannot be a volume's"};
    return m;
  } catch (const nlohmann::json::exception& error) {
    return Error{ErrorCode::kCorrupt, std::string("it is no manifest: ") + error.what()};
  }
}

}  // namespace tandem::backup
