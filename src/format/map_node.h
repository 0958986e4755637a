// Map nodes: 256 entries of 16 bytes, one format at every level. See FORMAT.md, "Map node".
//
// At a leaf an entry is a block of the volume; above, a child node. The entry carries the checksum
// of what it points to, so the tree verifies itself from the root, and the newest LSN below, so
// that "what changed since x" descends only where something is newer.
#pragma once

#include <cstdint>
#include <span>

#include "format/bytes.h"
#include "tandem/base/units.h"

namespace tandem::format {

inline constexpr std::uint32_t kMapFanout = 256;
inline constexpr std::uint32_t kMapHeightMax = 6;  // levels
inline constexpr std::size_t kMapEntryBytes = 16;
inline constexpr std::uint64_t kPoolBlockMax = 0xffffffffffull;
/// `where` of a block that was written with zeroes and must count as allocated: it has no copy on
/// disk. Pool block 1 is the second superblock, so no data can be there.
inline constexpr PoolBlock kZeroBlock{1};

struct MapEntry {
  PoolBlock where;  // 40 bits on disk; 0: nothing there (a hole)
  Lsn lsn;          // 56 bits on disk; 0: never written
  std::uint32_t crc32c = 0;
  bool is_hole() const { return where.value == 0; }
  bool is_zero() const { return where == kZeroBlock; }
  bool has_data() const { return where.value > kZeroBlock.value; }
  bool operator==(const MapEntry&) const = default;
};

inline MapEntry load_entry(const std::byte* node, std::uint32_t index) {
  const std::byte* p = node + kMapEntryBytes * index;
  const std::uint64_t a = load_le(p, 8), b = load_le(p + 8, 8);
  MapEntry e;
  e.where = PoolBlock{a & kPoolBlockMax};
  e.lsn = Lsn{(a >> 40) | ((b & 0xffffffffull) << 24)};
  e.crc32c = static_cast<std::uint32_t>(b >> 32);
  return e;
}

inline void store_entry(std::byte* node, std::uint32_t index, const MapEntry& e) {
  CHECK(e.where.value <= kPoolBlockMax && e.lsn.value <= 0xffffffffffffffull);
  std::byte* p = node + kMapEntryBytes * index;
  store_le(p, e.where.value | (e.lsn.value << 40), 8);
  store_le(p + 8, (e.lsn.value >> 24) | (static_cast<std::uint64_t>(e.crc32c) << 32), 8);
}

/// Levels that a volume of `blocks` blocks needs; 1 is a single leaf.
constexpr std::uint32_t map_height(std::uint64_t blocks) {
  std::uint32_t height = 1;
  for (std::uint64_t reach = kMapFanout; reach < blocks; ++height) reach *= kMapFanout;
  return height;
}

}  // namespace tandem::format
