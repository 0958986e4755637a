// VolumeReader: the content that a map names, every block checked against its checksum. Of a live
// volume it returns what is there when it looks; of a snapshot, the map never changes. A damaged
// block comes from a peer (repair.h), or is an error.
//
// Thread: the group's reactor. What is referred to must outlive every call under way.
#pragma once

#include <optional>
#include <vector>

#include "format/checkpoint.h"
#include "store/map.h"
#include "tandem/base/buffer.h"
#include "tandem/port/block_device.h"
#include "tandem/volume.h"

namespace tandem::store {

/// Blocks [first, first+count) of a volume.
struct BlockRange {
  std::uint64_t first = 0, count = 0;
  bool overlaps(const BlockRange& o) const {
    return first < o.first + o.count && o.first < first + count;
  }
};

class Repair;

class VolumeReader {
 public:
  VolumeReader(BlockDevice& device, BufferPool& buffers, MapCache& cache, MapTree& tree,
               const format::VolumeState& state, Repair& repair)
      : device_(device),
        buffers_(buffers),
        cache_(cache),
        tree_(tree),
        state_(state),
        repair_(repair) {}

  /// Bytes inside the volume; the caller has checked that. Errors: kCorrupt, kIo.
  Task<Result<IoBuffer>> read(std::uint64_t offset, std::uint64_t length);
  Task<Result<IoBuffer>> read_blocks(BlockRange range);
  /// Reads and checks the blocks from `first` on that `entries`, from this map, name; holes among
  /// them are left out. Returns those that were damaged: repaired, or with why they are not.
  struct BadBlock {
    std::uint64_t block = 0;
    std::optional<Error> error;
  };
  Task<std::vector<BadBlock>> check(std::uint64_t first,
                                    const std::vector<format::MapEntry>& entries);
  /// See Volume::allocation.
  Task<Result<std::vector<AllocationExtent>>> allocation(std::uint64_t offset, std::uint64_t length,
                                                         std::size_t extents_max);

 private:
  Task<Status> read_entries(BlockRange range, std::vector<format::MapEntry>& entries);
  Task<std::vector<std::uint64_t>> read_data(const std::vector<format::MapEntry>& entries,
                                             std::span<std::byte> out);
  enum class Again { kWhole, kMoved, kGivenBack };
  Task<Result<Again>> look_again(std::uint64_t block, const format::MapEntry& entry,
                                 std::span<std::byte> out);

  BlockDevice& device_;
  BufferPool& buffers_;
  MapCache& cache_;
  MapTree& tree_;
  const format::VolumeState& state_;
  Repair& repair_;
};

}  // namespace tandem::store
