// Points of a backup as JSON, and in words.
#pragma once

#include "backup/repository.h"
#include "ctl/json.h"

namespace tandem::ctl {

/// "full", "increment" or "damaged".
std::string kind_of(const backup::Point& point);
/// "v 1 MiB, w 8 MiB".
std::string volumes_text(const backup::Manifest& manifest);
/// Bytes of its data files.
std::uint64_t file_bytes_of(const backup::Manifest& manifest);
Json to_json(const backup::Point& point);

}  // namespace tandem::ctl
