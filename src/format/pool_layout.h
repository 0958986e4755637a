// What lies at fixed places of a pool: superblock, anchors, zone table. See FORMAT.md, "Pool".
//
// Everything here that changes is written alternately to two places, so that a torn write never
// costs both; the newer valid copy counts.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tandem/base/result.h"
#include "tandem/base/units.h"
#include "tandem/base/uuid.h"

namespace tandem::format {

using Page = std::span<std::byte, kBlockBytes>;
using ConstPage = std::span<const std::byte, kBlockBytes>;

inline constexpr std::uint32_t kPoolFormatVersion = 1;
/// Groups that a pool can hold.
inline constexpr std::uint32_t kGroupSlots = 256;

/// Block 0, with a copy in block 1; written once, when the pool is made.
struct Superblock {
  Uuid pool;
  std::uint64_t blocks = 0;       // size of the pool in 4 KiB blocks
  std::uint32_t zone_blocks = 0;  // blocks in a zone
  std::uint32_t zones = 0;        // whole zones, those of the fixed places included
  UtcNs created;
  bool operator==(const Superblock&) const = default;

  // Fixed places, derived: [superblock ×2][anchors ×2 per slot][zone table pages ×2].
  std::uint32_t table_pages() const;
  PoolBlock anchor_at(std::uint32_t slot, std::uint32_t copy) const;
  PoolBlock table_at(std::uint32_t page, std::uint32_t copy) const;
  std::uint64_t fixed_blocks() const;
  /// The first zone that a group may own.
  ZoneId first_zone() const;
  PoolBlock zone_start(ZoneId zone) const {
    return PoolBlock{std::uint64_t{zone.value} * zone_blocks};
  }
  /// A block behind the pool is in a zone that nobody owns.
  ZoneId zone_of(PoolBlock block) const {
    const std::uint64_t zone = block.value / zone_blocks;
    return ZoneId{static_cast<std::uint32_t>(zone < zones ? zone : UINT32_MAX)};
  }
};
void encode_superblock(Page page, const Superblock& superblock);
Result<Superblock> decode_superblock(ConstPage page);

/// The root of everything a group has: names its newest checkpoint. One 4 KiB block per slot and
/// copy; writing it is the moment at which a checkpoint takes effect.
struct Anchor {
  Uuid pool;
  std::uint32_t slot = 0;
  std::uint64_t sequence = 0;  // the larger valid one counts; 0: never written
  bool live = false;           // false: the slot is free (again)
  Uuid group;
  PoolBlock descriptor;  // first block of the descriptor's chain
  std::uint32_t descriptor_crc32c = 0;
  std::uint64_t descriptor_bytes = 0;
  Lsn checkpoint;
  bool operator==(const Anchor&) const = default;
};
void encode_anchor(Page page, const Anchor& anchor);
Result<Anchor> decode_anchor(ConstPage page);

inline constexpr std::uint32_t kZonesPerTablePage = 1008;
inline constexpr std::uint16_t kZoneFree = 0xffff;

/// Who owns each zone. A zone is entered here before its first use and struck out after the
/// checkpoint that no longer needs it.
struct ZoneEntry {
  std::uint16_t owner = kZoneFree;  // group slot
  bool prepared = false;            // every block was written once: no unwritten extent below
  bool operator==(const ZoneEntry&) const = default;
};
struct ZoneTablePage {
  std::uint32_t index = 0;
  std::uint64_t sequence = 0;
  std::vector<ZoneEntry> entries;  // kZonesPerTablePage
};
void encode_zone_table(Page page, const Uuid& pool, const ZoneTablePage& table);
Result<ZoneTablePage> decode_zone_table(ConstPage page, const Uuid& pool);

}  // namespace tandem::format
