// What 'tandem history' shows: how much was written when, and what happened in between.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "ctl/json.h"
#include "tandem/control.h"

namespace tandem::ctl {

/// One node's history of a group, and the part of it that was asked for.
struct HistoryView {
  std::string node;
  const GroupStatus* group = nullptr;
  HistoryStatus history;
  UtcNs from{0}, to{UINT64_MAX};
};

/// Positions of the view, oldest first, the last at `now` at the latest; of each what was written
/// since the one before.
struct Sample {
  UtcNs utc;
  Lsn lsn;
  std::uint64_t payload_bytes = 0;
  std::uint64_t bytes = 0;
  double bytes_per_second = 0;
};
std::vector<Sample> samples(const HistoryView& view);

/// Bytes in each of `columns` equal parts of the samples' time.
std::vector<std::uint64_t> columns_of(const std::vector<Sample>& samples, std::size_t columns);
/// One character for each: '.' for nothing, then eight heights.
std::string sparkline(const std::vector<std::uint64_t>& values);

std::string history_text(const HistoryView& view);
Json to_json(const HistoryView& view);

}  // namespace tandem::ctl
