// GroupUse: the balance of a group's space.
#pragma once

#include <cstdint>

namespace tandem::store {

/// Where every block of a group's zones is.
struct GroupUse {
  std::uint64_t data_blocks = 0;      // that the newest position maps
  std::uint64_t dead_blocks = 0;      // waiting until no mirror needs them
  std::uint64_t snapshot_blocks = 0;  // mapped by snapshots only: data and map nodes
  std::uint64_t map_blocks = 0;
  std::uint64_t book_blocks = 0;    // descriptor, bitmap, chunks of lists
  std::uint64_t moving_blocks = 0;  // on their way: written and not mapped yet, or between lists
  std::uint64_t freed_blocks = 0;   // free once the next checkpoint is durable
  std::uint64_t free_blocks = 0;
  std::uint64_t log_blocks = 0;       // pages in log zones
  std::uint64_t log_rest_blocks = 0;  // log zones that are not written yet
  std::uint64_t zones = 0;
  /// They are all: zones times blocks of a zone.
  std::uint64_t sum() const {
    return data_blocks + dead_blocks + snapshot_blocks + map_blocks + book_blocks + moving_blocks +
           freed_blocks + free_blocks + log_blocks + log_rest_blocks;
  }
};

}  // namespace tandem::store
