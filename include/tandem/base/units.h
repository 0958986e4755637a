// Units as types: positions and names that must never be swapped silently.
//
// Every quantity that has a unit is its own type with an explicit constructor, so that
// passing a volume block where a pool block is wanted does not compile. Use `.value`
// to leave the type system, at the edge (encoding, arithmetic with another unit).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace tandem {

template <class Tag, class Rep = std::uint64_t>
struct Named {
  using rep = Rep;
  Rep value{};
  constexpr Named() = default;
  constexpr explicit Named(Rep v) : value(v) {}
  constexpr auto operator<=>(const Named&) const = default;
  constexpr Named next() const { return Named(static_cast<Rep>(value + 1)); }
};

/// Position in a group's log, one per record, strictly increasing; 0 is "before the first record".
using Lsn = Named<struct LsnTag>;
/// A number that a promotion increments; the first timeline of a group is 1.
using Timeline = Named<struct TimelineTag>;
/// A 4 KiB block of the pool (byte address / kBlockBytes); 0 holds the superblock, so 0 means
/// "none".
using PoolBlock = Named<struct PoolBlockTag>;
/// A 4 KiB block of a volume (byte address / kBlockBytes).
using VolumeBlock = Named<struct VolumeBlockTag>;
/// A zone of the pool.
using ZoneId = Named<struct ZoneIdTag, std::uint32_t>;
/// A volume within its group; never reused within a group.
using VolumeId = Named<struct VolumeIdTag, std::uint32_t>;
/// Digest chained along a group's log; equal digests at an LSN mean equal histories up to it.
using Digest = Named<struct DigestTag>;
/// UTC in nanoseconds since 1970.
using UtcNs = Named<struct UtcNsTag>;

/// The unit of allocation, mapping and checksumming.
inline constexpr std::size_t kBlockBytes = 4096;

constexpr std::uint64_t blocks_for(std::uint64_t bytes) {
  return bytes / kBlockBytes + (bytes % kBlockBytes != 0);
}

}  // namespace tandem

template <class Tag, class Rep>
struct std::hash<tandem::Named<Tag, Rep>> {
  std::size_t operator()(const tandem::Named<Tag, Rep>& n) const noexcept {
    return std::hash<Rep>{}(n.value);
  }
};
