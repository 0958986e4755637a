#include "store/volume_reader.h"

#include <algorithm>
#include <cstring>

#include "format/checksum.h"

namespace tandem::store {

using format::MapEntry;

Task<Result<IoBuffer>> VolumeReader::read(std::uint64_t offset, std::uint64_t length) {
  const BlockRange range{offset / kBlockBytes, blocks_for(offset + length) - offset / kBlockBytes};
  auto blocks = co_await read_blocks(range);
  if (!blocks) co_return Error(std::move(blocks.error()));
  co_return blocks->slice(offset - range.first * kBlockBytes, length);
}

/// Appends the entries of `range`.
Task<Status> VolumeReader::read_entries(BlockRange range, std::vector<MapEntry>& entries) {
  const std::uint64_t end = range.first + range.count;
  for (std::uint64_t block = range.first; block < end;) {
    const std::uint64_t leaf = block / format::kMapFanout;
    const std::uint64_t leaf_end = std::min(end, (leaf + 1) * format::kMapFanout);
    NodeRef node = cache_.peek(tree_, 0, leaf);
    if (!node) {
      auto loaded = co_await cache_.load(tree_, 0, leaf, false);
      if (!loaded) co_return Error(std::move(loaded.error()));
      node = std::move(*loaded);
    }
    for (; block < leaf_end; ++block) {
      entries.push_back(node ? node->entry(block % format::kMapFanout) : MapEntry{});
    }
  }
  co_return ok();
}

Task<Result<IoBuffer>> VolumeReader::read_blocks(BlockRange range) {
  IoBuffer out = buffers_.allocate(range.count * kBlockBytes);
  for (int attempt = 0;; ++attempt) {
    std::vector<MapEntry> entries;
    entries.reserve(range.count);
    Status found = co_await read_entries(range, entries);
    if (!found) co_return Error(std::move(found.error()));
    IoBatch io(device_);
    for (std::uint64_t i = 0; i < range.count;) {
      std::uint64_t n = 1;
      if (entries[i].has_data()) {
        while (i + n < range.count && entries[i + n].has_data() &&
               entries[i + n].where.value == entries[i].where.value + n) {
          ++n;
        }
        io.read(entries[i].where.value * kBlockBytes,
                out.bytes().subspan(i * kBlockBytes, n * kBlockBytes));
      } else {
        std::memset(out.data() + i * kBlockBytes, 0, kBlockBytes);
      }
      i += n;
    }
    Status read = co_await io.run();
    if (!read) co_return Error(std::move(read.error()));
    std::optional<std::uint64_t> bad;
    for (std::uint64_t i = 0; i < range.count && !bad; ++i) {
      const auto block = out.bytes().subspan(i * kBlockBytes, kBlockBytes);
      if (entries[i].has_data() && format::crc32c(block) != entries[i].crc32c) bad = i;
    }
    if (!bad) co_return out;
    // While we read, the block may have been overwritten and its place reused: look again.
    std::vector<MapEntry> now;
    const BlockRange suspect{range.first + *bad, 1};
    Status again = co_await read_entries(suspect, now);
    if (!again) co_return Error(std::move(again.error()));
    if (now[0] == entries[*bad] || attempt == 100) {
      co_return Error{ErrorCode::kCorrupt, "volume " + state_.name + ": block " +
                                               std::to_string(range.first + *bad) + " (byte " +
                                               std::to_string((range.first + *bad) * kBlockBytes) +
                                               ") fails its checksum at pool block " +
                                               std::to_string(entries[*bad].where.value) +
                                               "; restore it from the mirror or a backup"};
    }
  }
}

Task<Result<std::vector<AllocationExtent>>> VolumeReader::allocation(std::uint64_t offset,
                                                                     std::uint64_t length,
                                                                     std::size_t extents_max) {
  constexpr std::size_t kLeavesMax = 256;
  const std::uint64_t end = offset + length;
  auto leaves = co_await cache_.load_newer(tree_, offset / kBlockBytes / format::kMapFanout, Lsn{},
                                           kLeavesMax);
  if (!leaves) co_return Error(std::move(leaves.error()));

  std::vector<AllocationExtent> out;
  std::uint64_t at = offset;
  const auto add = [&](std::uint64_t to, bool hole, bool zero) {
    to = std::min(to, end);
    if (to <= at) return;
    if (!out.empty() && out.back().hole == hole && out.back().zero == zero) {
      out.back().length_bytes += to - at;
    } else {
      out.push_back({to - at, hole, zero});
    }
    at = to;
  };
  for (const auto& leaf : *leaves) {
    const std::uint64_t first = leaf->key().index * format::kMapFanout;
    if (first * kBlockBytes >= end || out.size() > extents_max) break;
    add(first * kBlockBytes, true, true);
    for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
      const MapEntry entry = leaf->entry(i);
      add((first + i + 1) * kBlockBytes, entry.is_hole(), !entry.has_data());
    }
  }
  if (leaves->size() < kLeavesMax && out.size() <= extents_max) add(end, true, true);
  if (out.size() > extents_max) out.resize(extents_max);
  co_return out;
}

}  // namespace tandem::store
