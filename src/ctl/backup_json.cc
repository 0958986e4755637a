#include "ctl/backup_json.h"

#include <nlohmann/json.hpp>

#include "ctl/format.h"

namespace tandem::ctl {

std::string kind_of(const backup::Point& point) {
  if (!point.manifest) return "damaged";
  return point.manifest->from ? "increment" : "full";
}

std::uint64_t file_bytes_of(const backup::Manifest& manifest) {
  std::uint64_t bytes = 0;
  for (const auto& volume : manifest.volumes) bytes += volume.summary.file_bytes;
  return bytes;
}

std::string volumes_text(const backup::Manifest& manifest) {
  std::string text;
  for (const auto& volume : manifest.volumes)
    text += (text.empty() ? "" : ", ") + volume.name + " " + size_text(volume.size_bytes);
  return text;
}

Json to_json(const backup::Point& point) {
  Json out = {{"number", point.number}, {"path", point.path.string()}, {"kind", kind_of(point)}};
  if (!point.manifest) {
    out["error"] = point.manifest.error().message;
    return out;
  }
  const auto& m = *point.manifest;
  out["from"] = m.from ? Json(m.from->number) : Json(nullptr);
  out["group"] = m.group;
  out["node"] = m.node;
  out["snapshot"] = {
      {"name", m.snapshot.name}, {"lsn", m.snapshot.lsn.value}, {"utc_ns", m.snapshot.utc.value}};
  out["created_utc_ns"] = m.created.value;
  out["can_seed"] = m.seed.has_value();
  out["file_bytes"] = file_bytes_of(m);
  auto volumes = Json::array();
  for (const auto& v : m.volumes) {
    volumes.push_back({{"name", v.name},
                       {"size_bytes", v.size_bytes},
                       {"based", v.based},
                       {"file_bytes", v.summary.file_bytes},
                       {"data_bytes", v.summary.data_bytes},
                       {"zero_bytes", v.summary.zero_bytes}});
  }
  out["volumes"] = std::move(volumes);
  return out;
}

}  // namespace tandem::ctl
