// Integrity: what a node knows of the soundness of its copy of a group. A part of Control.
#pragma once

#include <cstdint>
#include <string>

#include "tandem/base/units.h"

namespace tandem {

/// Damage that this node met since it started, in reads and in scrubs.
struct DamageStatus {
  std::uint64_t fetched_blocks = 0;       // damaged here, and given back by a peer
  std::uint64_t repaired_blocks = 0;      // of those, whole again in their places
  std::uint64_t unrepairable_blocks = 0;  // no peer could give them back so far: reads fail
  std::uint64_t damaged_map_nodes = 0;    // cannot be had from a peer: what lies below fails
  UtcNs last_at;                          // of a block; 0: never
  std::string last_volume;
  std::uint64_t last_byte = 0;
  std::string last_outcome;
  bool any() const { return fetched_blocks + unrepairable_blocks + damaged_map_nodes != 0; }
  /// Something cannot be read now.
  bool is_bad() const { return unrepairable_blocks + damaged_map_nodes != 0; }
};

}  // namespace tandem
