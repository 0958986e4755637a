// Walks the map of a volume as a checkpoint left it, from the root down, checking every node.
#pragma once

#include <cstdint>
#include <span>

#include "format/checkpoint.h"
#include "format/map_node.h"
#include "inspect/pool_view.h"

namespace tandem::inspect {

/// Where a node hangs: which one of its level, from the left; level 0 are the leaves.
struct NodePlace {
  std::uint32_t level = 0;
  std::uint64_t index = 0;
  /// First volume block below it, and how many there can be.
  std::uint64_t first_block() const { return index * span_blocks(); }
  std::uint64_t span_blocks() const { return std::uint64_t{1} << (8 * (level + 1)); }
};

class MapVisitor {
 public:
  virtual ~MapVisitor() = default;
  /// Before a node is read; false: do not descend.
  virtual bool enter(const format::MapEntry& entry, NodePlace place) = 0;
  /// It is whole: matches the checksum in `entry`, which names it.
  virtual void node(const format::MapEntry& entry, NodePlace place,
                    std::span<const std::byte> bytes) = 0;
  /// It is not; nothing below it can be seen.
  virtual void damaged(const format::MapEntry& entry, NodePlace place, const Error& error) = 0;
};

/// Depth first, left to right. Children of a whole node whose entry is neither a hole nor a leaf's
/// are entered.
void walk_map(BlockReader& reader, const format::VolumeState& volume, MapVisitor& visitor);

/// The node that `entry` names, checked.
Result<std::vector<std::byte>> read_node(BlockReader& reader, const format::MapEntry& entry);

}  // namespace tandem::inspect
