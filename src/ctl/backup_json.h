// Points of a backup as JSON.
#pragma once

#include "backup/repository.h"
#include "ctl/json.h"

namespace tandem::ctl {

/// "full", "increment" or "damaged".
std::string kind_of(const backup::Point& point);
/// Bytes of its data files.
std::uint64_t file_bytes_of(const backup::Manifest& manifest);
Json to_json(const backup::Point& point);

}  // namespace tandem::ctl
