// What an operator sees of the space that a node stores in.
#pragma once

#include <cstdint>
#include <string>

#include "tandem/base/units.h"
#include "tandem/base/uuid.h"

namespace tandem {

/// All of size_bytes: fixed and other bytes, free zones, and the zones of groups (see GroupSpace).
struct PoolStatus {
  Uuid id;
  std::string path;
  std::uint64_t size_bytes = 0;
  std::uint64_t zone_bytes = 0;
  std::uint64_t zones_total = 0, zones_free = 0;
  std::uint64_t used_bytes = 0;      // of zones taken by groups: blocks in use
  std::uint64_t fixed_bytes = 0;     // superblock, anchors, zone table, and what is no whole zone
  std::uint64_t other_bytes = 0;     // zones of groups that cannot be opened, or changing hands
  std::uint64_t prepared_bytes = 0;  // of free zones: written once, so the place below holds them
  std::string state;                 // ok | warn | critical
  std::string reason;                // in words, unless it is ok
  UtcNs since;
  std::uint64_t full_percent = 0;  // of the pool: neither free zones nor free inside a group's
  std::uint64_t warn_percent = 0, critical_percent = 0;
  std::uint64_t fill_bytes_per_second =
      0;                              // over the last hour at most; 0: not filling, or unknown
  std::uint64_t full_in_seconds = 0;  // at that rate; 0: unknown
};

/// Where every byte of a group's zones is, beside what its status says of data, snapshots, log and
/// maps; together they are zone_bytes.
struct GroupSpace {
  std::uint64_t dead_bytes = 0;      // replaced, and kept for a mirror or the history
  std::uint64_t book_bytes = 0;      // descriptor, bitmaps, lists
  std::uint64_t moving_bytes = 0;    // written and not mapped yet, a full copy that arrives
  std::uint64_t freed_bytes = 0;     // free with the next checkpoint
  std::uint64_t free_bytes = 0;      // for this group's next writes
  std::uint64_t log_rest_bytes = 0;  // taken for the log and not written yet
  std::uint64_t zone_bytes = 0;
  // No part of its own but what its history needs of the others, alone or as well: of the log, of
  // what was replaced, and of what only kept states map (see HistoryStatus::bytes).
  std::uint64_t history_bytes = 0;
};

}  // namespace tandem
