#include "inspect/map_walk.h"

#include "format/checksum.h"

namespace tandem::inspect {
namespace {

void walk(BlockReader& reader, const format::MapEntry& entry, NodePlace place,
          MapVisitor& visitor) {
  if (!visitor.enter(entry, place)) return;
  auto node = read_node(reader, entry);
  if (!node) return visitor.damaged(entry, place, node.error());
  visitor.node(entry, place, *node);
  if (place.level == 0) return;
  for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
    const format::MapEntry child = format::load_entry(node->data(), i);
    if (child.is_hole()) continue;
    walk(reader, child, {place.level - 1, place.index * format::kMapFanout + i}, visitor);
  }
}

}  // namespace

Result<std::vector<std::byte>> read_node(BlockReader& reader, const format::MapEntry& entry) {
  auto node = read_page(reader, entry.where);
  if (node && format::crc32c(*node) != entry.crc32c) {
    return Error{ErrorCode::kCorrupt, "fails its checksum"};
  }
  return node;
}

void walk_map(BlockReader& reader, const format::VolumeState& volume, MapVisitor& visitor) {
  if (volume.root.is_hole()) return;
  walk(reader, volume.root, {volume.height - 1, 0}, visitor);
}

}  // namespace tandem::inspect
