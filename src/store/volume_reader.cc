#include "store/volume_reader.h"

#include <algorithm>
#include <cstring>

#include "format/checksum.h"
#include "store/repair.h"

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

/// Reads what the entries name, in runs as long as possible. Returns those that failed.
Task<std::vector<std::uint64_t>> VolumeReader::read_data(const std::vector<MapEntry>& entries,
                                                         std::span<std::byte> out) {
  // Lies right behind the entry in front, and is read with it.
  const auto goes_on = [&entries](std::uint64_t i) {
    return i != 0 && entries[i].has_data() && entries[i - 1].has_data() &&
           entries[i].where.value == entries[i - 1].where.value + 1;
  };
  IoBatch io(device_);
  for (std::uint64_t i = 0, n = 1; i < entries.size(); i += n) {
    n = 1;
    if (!entries[i].has_data()) {
      std::memset(out.data() + i * kBlockBytes, 0, kBlockBytes);
      continue;
    }
    while (i + n < entries.size() && goes_on(i + n)) ++n;
    io.read(entries[i].where.value * kBlockBytes, out.subspan(i * kBlockBytes, n * kBlockBytes));
  }
  const Status read = co_await io.run();
  std::vector<std::uint64_t> failed;
  std::size_t runs = 0;
  for (std::uint64_t i = 0; i < entries.size(); ++i) {
    if (!entries[i].has_data()) continue;
    if (!goes_on(i)) ++runs;
    const auto block = out.subspan(i * kBlockBytes, kBlockBytes);
    const bool refused = !read && io.error_of(runs - 1) != 0;
    if (refused || format::crc32c(block) != entries[i].crc32c) failed.push_back(i);
  }
  co_return failed;
}

/// A block that failed, by itself: a device may refuse a run for one bad sector. What stays damaged
/// is had from a peer, unless the map names another place by now.
Task<Result<VolumeReader::Again>> VolumeReader::look_again(std::uint64_t block,
                                                           const MapEntry& entry,
                                                           std::span<std::byte> out) {
  IoBatch io(device_);
  io.read(entry.where.value * kBlockBytes, out);
  const Status read = co_await io.run();
  if (read && format::crc32c(out) == entry.crc32c) co_return Again::kWhole;
  // While we read, the block may have been overwritten and its place reused.
  std::vector<MapEntry> now;
  Status found = co_await read_entries({block, 1}, now);
  if (!found) co_return Error(std::move(found.error()));
  if (!(now[0] == entry)) co_return Again::kMoved;
  DamagedBlock damaged{.version = {state_.id, VolumeBlock{block}, entry.lsn, entry.crc32c},
                       .where = entry.where,
                       .volume = state_.name,
                       .found = {read ? ErrorCode::kCorrupt : ErrorCode::kIo,
                                 "volume " + state_.name + ": block " + std::to_string(block) +
                                     " (byte " + std::to_string(block * kBlockBytes) + ") " +
                                     (read ? "fails its checksum" : "cannot be read") +
                                     " at pool block " + std::to_string(entry.where.value) +
                                     (read ? "" : " (" + read.error().message + ")")}};
  auto recovering = repair_.recover(std::move(damaged));
  auto right = co_await std::move(recovering);
  if (!right) co_return Error(std::move(right.error()));
  std::memcpy(out.data(), right->data(), kBlockBytes);
  co_return Again::kGivenBack;
}

Task<Result<IoBuffer>> VolumeReader::read_blocks(BlockRange range) {
  constexpr int kAttemptsMax = 100;
  IoBuffer out = buffers_.allocate(range.count * kBlockBytes);
  for (int attempt = 0; attempt < kAttemptsMax; ++attempt) {
    std::vector<MapEntry> entries;
    entries.reserve(range.count);
    Status found = co_await read_entries(range, entries);
    if (!found) co_return Error(std::move(found.error()));
    const auto failed = co_await read_data(entries, out.bytes());
    bool moved = false;
    for (std::size_t i = 0; i < failed.size() && !moved; ++i) {
      const auto block = out.bytes().subspan(failed[i] * kBlockBytes, kBlockBytes);
      auto whole = co_await look_again(range.first + failed[i], entries[failed[i]], block);
      if (!whole) co_return Error(std::move(whole.error()));
      moved = *whole == Again::kMoved;
    }
    if (!moved) co_return out;
  }
  co_return Error{ErrorCode::kIo, "volume " + state_.name + ": block " +
                                      std::to_string(range.first) +
                                      " and those behind it change faster than they can be read"};
}

Task<std::vector<VolumeReader::BadBlock>> VolumeReader::check(
    std::uint64_t first, const std::vector<MapEntry>& entries) {
  std::vector<BadBlock> bad;
  IoBuffer space = buffers_.allocate(entries.size() * kBlockBytes);
  const auto failed = co_await read_data(entries, space.bytes());
  for (const auto i : failed) {
    const auto block = space.bytes().subspan(i * kBlockBytes, kBlockBytes);
    auto again = co_await look_again(first + i, entries[i], block);
    if (!again) {
      bad.push_back({first + i, std::move(again.error())});
    } else if (*again == Again::kGivenBack) {
      bad.push_back({first + i, std::nullopt});
    }
  }
  co_return bad;
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
  bool more = leaves->size() == kLeavesMax;  // leaves that were not asked for may be in the range
  for (const auto& leaf : *leaves) {
    const std::uint64_t first = leaf->key().index * format::kMapFanout;
    if (first * kBlockBytes >= end) more = false;
    if (first * kBlockBytes >= end || out.size() > extents_max) break;
    add(first * kBlockBytes, true, true);
    for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
      const MapEntry entry = leaf->entry(i);
      add((first + i + 1) * kBlockBytes, entry.is_hole(), !entry.has_data());
    }
  }
  if (!more && out.size() <= extents_max) add(end, true, true);
  if (out.size() > extents_max) out.resize(extents_max);
  co_return out;
}

}  // namespace tandem::store
