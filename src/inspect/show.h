// What tandem-inspect prints: each command makes one JSON document, and the text form is drawn from
// that document, so that both always say the same.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "inspect/pool_view.h"
#include "inspect/verify.h"

namespace tandem::inspect {

using Json = nlohmann::ordered_json;

// show_pool.cc
Json describe_superblock(const PoolView& pool);
Json describe_zones(const PoolView& pool);
Json describe_groups(const PoolView& pool);
std::string superblock_text(const Json& json);
std::string zones_text(const Json& json);
std::string groups_text(const Json& json);

// show_log.cc
struct LogRange {
  std::optional<Lsn> from;  // the first record to show; nullopt: the oldest that is kept
  std::uint64_t limit = 100;
};
Json describe_log(const PoolView& pool, const GroupView& group, const LogRange& range);
std::string log_text(const Json& json);

// show_map.cc
/// The only volume of the group, or the one of that name. Errors: kNotFound, kInvalid.
Result<format::VolumeState> find_volume(const GroupView& group, const std::string& name);
Json describe_map(const PoolView& pool, const GroupView& group, const format::VolumeState& volume,
                  std::uint64_t limit);
Json describe_block(const PoolView& pool, const GroupView& group, const format::VolumeState& volume,
                    VolumeBlock block);
std::string map_text(const Json& json);
std::string block_text(const Json& json);

// show_verify.cc
Json describe_report(const VerifyReport& report);
std::string report_text(const Json& json);

// Shared pieces.
Json to_json(const LogPoint& point);
std::string hex16(std::uint64_t value);  // 64 bits that JSON readers would round
std::string hex8(std::uint32_t value);
std::string utc_text(UtcNs utc);
/// As status shows it: `timeline 1, LSN 12, 2024-01-01T00:00:00Z`.
std::string point_text(const Json& point);
/// Columns padded to the widest cell; the first row is the head.
std::string table_text(const std::vector<std::vector<std::string>>& rows);

}  // namespace tandem::inspect
