// The contract's structures as JSON: exact numbers, the contract's own names, times in nanoseconds.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tandem/control.h"

namespace tandem::ctl {

using Json = nlohmann::ordered_json;

Json to_json(const LogPoint& point);
Json to_json(const VolumeStatus& volume);
Json to_json(const SnapshotStatus& snapshot);
Json to_json(const CloneOrigin& origin);
Json to_json(const GroupStatus& group);
Json to_json(const CompactionStatus& compaction);
Json to_json(const PoolStatus& pool);
Json to_json(const NodeStatus& node);
Json to_json(const Receipt& receipt);

/// One line; bytes that are no UTF-8 are replaced.
std::string json_text(const Json& value);

}  // namespace tandem::ctl
