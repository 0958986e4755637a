#include "store/volume_handle.h"

#include <algorithm>
#include <cstring>

#include "format/checksum.h"
#include "tandem/base/log.h"

namespace tandem::store {

using format::MapEntry;
using format::RecordHeader;
using format::RecordType;

namespace {

/// A discard or zero record covers at most this much, so that the leaves it pins are bounded.
constexpr std::uint64_t kRangeBlocksMax = 64 * 1024;

}  // namespace

/// A range entered in one of the volume's lists for as long as this lives.
class VolumeHandle::RangeEntry {
 public:
  RangeEntry(Group::VolumeCore& core, std::list<Range>& list, Range range)
      : core_(core), list_(list), at_(list.insert(list.end(), range)) {}
  RangeEntry(const RangeEntry&) = delete;
  RangeEntry& operator=(const RangeEntry&) = delete;
  ~RangeEntry() {
    list_.erase(at_);
    if (core_.range_freed.has_waiters()) core_.range_freed.notify_all();
  }

 private:
  Group::VolumeCore& core_;
  std::list<Range>& list_;
  std::list<Range>::iterator at_;
};

VolumeInfo VolumeHandle::info() const {
  return {.name = core_->state.name,
          .size_bytes = core_->state.size_bytes,
          .logical_block_bytes = core_->state.logical_block_bytes,
          .read_only = false};
}

Status VolumeHandle::check(std::uint64_t offset, std::uint64_t length) const {
  if (!group_.serving()) return group_.refusal();
  if (core_->state.being_deleted) {
    return Error{ErrorCode::kNotFound, "volume " + core_->state.name + " was deleted"};
  }
  const std::uint64_t size = core_->state.size_bytes;
  if (length == 0 || offset > size || length > size - offset) {
    return Error{ErrorCode::kInvalid, "bytes " + std::to_string(offset) + "+" +
                                          std::to_string(length) + " are outside of volume " +
                                          core_->state.name + " (" + std::to_string(size) +
                                          " bytes)"};
  }
  return ok();
}

Task<void> VolumeHandle::wait_until_free(const std::list<Range>& taken, Range range) {
  const auto is_taken = [&] {
    return std::any_of(taken.begin(), taken.end(), [&](const Range& r) { return r.overlaps(range); });
  };
  while (is_taken()) co_await core_->range_freed.wait();
}

// --- reading -----------------------------------------------------------------------------------

Task<Result<IoBuffer>> VolumeHandle::read(std::uint64_t offset, std::uint64_t length) {
  auto hold = group_.gate_.hold();
  Status fits = check(offset, length);
  if (!fits) co_return Error(std::move(fits.error()));
  const Range range{offset / kBlockBytes,
                    blocks_for(offset + length) - offset / kBlockBytes};
  auto blocks = co_await read_blocks(range);
  if (!blocks) co_return Error(std::move(blocks.error()));
  co_return blocks->slice(offset - range.first * kBlockBytes, length);
}

/// Appends the entries of `range`.
Task<Status> VolumeHandle::read_entries(Range range, std::vector<MapEntry>& entries) {
  const std::uint64_t end = range.first + range.count;
  for (std::uint64_t block = range.first; block < end;) {
    const std::uint64_t leaf = block / format::kMapFanout;
    const std::uint64_t leaf_end = std::min(end, (leaf + 1) * format::kMapFanout);
    NodeRef node = group_.cache_.peek(core_->tree, 0, leaf);
    if (!node) {
      auto loaded = co_await group_.cache_.load(core_->tree, 0, leaf, false);
      if (!loaded) co_return Error(std::move(loaded.error()));
      node = std::move(*loaded);
    }
    for (; block < leaf_end; ++block) {
      entries.push_back(node ? node->entry(block % format::kMapFanout) : MapEntry{});
    }
  }
  co_return ok();
}

Task<Result<IoBuffer>> VolumeHandle::read_blocks(Range range) {
  IoBuffer out = group_.pool_.buffers().allocate(range.count * kBlockBytes);
  for (int attempt = 0;; ++attempt) {
    std::vector<MapEntry> entries;
    entries.reserve(range.count);
    Status found = co_await read_entries(range, entries);
    if (!found) co_return Error(std::move(found.error()));
    IoBatch io(group_.device_);
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
    Status again = co_await read_entries({range.first + *bad, 1}, now);
    if (!again) co_return Error(std::move(again.error()));
    if (now[0] == entries[*bad] || attempt == 100) {
      co_return Error{ErrorCode::kCorrupt,
                      "volume " + core_->state.name + ": block " +
                          std::to_string(range.first + *bad) + " (byte " +
                          std::to_string((range.first + *bad) * kBlockBytes) +
                          ") fails its checksum at pool block " +
                          std::to_string(entries[*bad].where.value) +
                          "; restore it from the mirror or a backup"};
    }
  }
}

Task<Result<std::vector<AllocationExtent>>> VolumeHandle::allocation(std::uint64_t offset,
                                                                     std::uint64_t length,
                                                                     std::size_t extents_max) {
  auto hold = group_.gate_.hold();
  Status fits = check(offset, length);
  if (!fits) co_return Error(std::move(fits.error()));
  constexpr std::size_t kLeavesMax = 256;
  const std::uint64_t end = offset + length;
  auto leaves = co_await group_.cache_.load_newer(
      core_->tree, offset / kBlockBytes / format::kMapFanout, Lsn{}, kLeavesMax);
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

// --- writing -----------------------------------------------------------------------------------

/// Queues the records of one request together and waits until the last is acknowledged. Their
/// leaves are pinned, and no co_await lies between the first and the last.
Task<Status> VolumeHandle::submit(std::vector<Group::Pending> records) {
  if (!group_.serving()) co_return group_.refusal();
  Group::Completion completion;
  std::uint64_t blocks = 0;
  for (const auto& r : records) blocks += r.data.size() / kBlockBytes;
  records.front().request_blocks = blocks;
  records.back().completion = &completion;
  for (auto& record : records) group_.enqueue(std::move(record));
  co_return co_await completion;
}

Task<Status> VolumeHandle::write_blocks(Range range, IoBuffer data) {
  std::vector<Group::Pending> records;
  std::vector<std::uint32_t> crcs;
  for (std::uint64_t done = 0; done < range.count; done += crcs.size()) {
    const auto n = std::min<std::uint64_t>(range.count - done, format::kRecordBlocksMax);
    crcs.clear();
    for (std::uint64_t i = 0; i < n; ++i) {
      crcs.push_back(format::crc32c(data.bytes().subspan((done + i) * kBlockBytes, kBlockBytes)));
    }
    RecordHeader header{.type = RecordType::kWrite,
                        .volume = core_->state.id,
                        .first_block = VolumeBlock{range.first + done},
                        .block_count = static_cast<std::uint32_t>(n)};
    Group::Pending pending;
    pending.canonical.resize(format::write_record_bytes(static_cast<std::uint32_t>(n)));
    format::Encoder out(pending.canonical);
    format::encode_write(out, header, crcs);
    pending.data = data.slice(done * kBlockBytes, n * kBlockBytes);
    records.push_back(std::move(pending));
  }
  for (auto& pending : records) {
    format::Decoder in(pending.canonical);
    auto record = format::decode_record(in);
    CHECK(record.has_value());
    Status pinned = co_await group_.pin_leaves(*core_, *record, pending.pins);
    if (!pinned) co_return pinned;
  }
  co_return co_await submit(std::move(records));
}

/// A part of one block: read, merge, write back, with the block locked against other writes.
Task<Status> VolumeHandle::write_part(std::uint64_t offset, IoBuffer data) {
  const Range range{offset / kBlockBytes, 1};
  co_await wait_until_free(core_->locked, range);
  RangeEntry lock(*core_, core_->locked, range);
  // Writes to this block that are under way come first; new ones wait for the lock.
  co_await wait_until_free(core_->writing, range);
  auto before = co_await read_blocks(range);
  if (!before) co_return Error(std::move(before.error()));
  IoBuffer merged = group_.pool_.buffers().allocate(kBlockBytes);
  std::memcpy(merged.data(), before->data(), kBlockBytes);
  std::memcpy(merged.data() + offset % kBlockBytes, data.data(), data.size());
  co_return co_await write_blocks(range, std::move(merged));
}

Task<Status> VolumeHandle::write(std::uint64_t offset, IoBuffer data, WriteOptions options) {
  auto hold = group_.gate_.hold();
  Status done = check(offset, data.size());
  if (!done) co_return done;
  const std::uint64_t end = offset + data.size();
  const std::uint64_t first_whole = blocks_for(offset), last_whole = end / kBlockBytes;
  std::uint64_t at = offset;
  if (offset % kBlockBytes != 0) {
    const std::uint64_t to = std::min(end, first_whole * kBlockBytes);
    done = co_await write_part(offset, data.slice(0, to - offset));
    if (!done) co_return done;
    at = to;
  }
  if (at < end && last_whole > at / kBlockBytes) {
    const Range range{at / kBlockBytes, last_whole - at / kBlockBytes};
    co_await wait_until_free(core_->locked, range);
    RangeEntry under_way(*core_, core_->writing, range);
    done = co_await write_blocks(range, data.slice(at - offset, range.count * kBlockBytes));
    if (!done) co_return done;
    at = last_whole * kBlockBytes;
  }
  if (at < end) {
    done = co_await write_part(at, data.slice(at - offset, end - at));
    if (!done) co_return done;
  }
  if (options.fua) co_return co_await group_.flush_to(group_.head_.lsn, true);
  co_return ok();
}

Task<Status> VolumeHandle::flush() {
  auto hold = group_.gate_.hold();
  if (!group_.serving()) co_return group_.refusal();
  co_return co_await group_.flush_to(group_.head_.lsn, true);
}

Task<Status> VolumeHandle::change_range(RecordType type, Range range) {
  for (std::uint64_t done = 0; done < range.count;) {
    const std::uint64_t n = std::min(range.count - done, kRangeBlocksMax);
    const Range piece{range.first + done, n};
    co_await wait_until_free(core_->locked, piece);
    RangeEntry under_way(*core_, core_->writing, piece);
    RecordHeader header{.type = type,
                        .volume = core_->state.id,
                        .first_block = VolumeBlock{piece.first},
                        .block_count = static_cast<std::uint32_t>(n)};
    Group::Pending pending;
    pending.canonical.resize(format::kRecordHeaderBytes);
    format::Encoder out(pending.canonical);
    format::encode_range(out, header);
    format::Decoder in(pending.canonical);
    auto record = format::decode_record(in);
    CHECK(record.has_value());
    Status pinned = co_await group_.pin_leaves(*core_, *record, pending.pins);
    if (!pinned) co_return pinned;
    // A discard of what was never written needs no record.
    if (type == RecordType::kDiscard && pending.pins.empty()) {
      done += n;
      continue;
    }
    std::vector<Group::Pending> records;
    records.push_back(std::move(pending));
    Status logged = co_await submit(std::move(records));
    if (!logged) co_return logged;
    done += n;
  }
  co_return ok();
}

Task<Status> VolumeHandle::discard(std::uint64_t offset, std::uint64_t length,
                                   WriteOptions options) {
  auto hold = group_.gate_.hold();
  Status done = check(offset, length);
  if (!done) co_return done;
  // The last block of a volume may be partial: it ends with the volume.
  const std::uint64_t end = offset + length;
  const std::uint64_t to = end == core_->state.size_bytes ? blocks_for(end) : end / kBlockBytes;
  const std::uint64_t from = blocks_for(offset);
  if (from >= to) co_return co_await write_zeroes(offset, length, options);
  if (offset % kBlockBytes != 0) {
    const std::uint64_t part = from * kBlockBytes - offset;
    IoBuffer zeroes = group_.pool_.buffers().allocate(part);
    std::memset(zeroes.data(), 0, part);
    done = co_await write(offset, std::move(zeroes), WriteOptions{});
    if (!done) co_return done;
  }
  done = co_await change_range(RecordType::kDiscard, {from, to - from});
  if (done && to * kBlockBytes < end) {
    const std::uint64_t part = end - to * kBlockBytes;
    IoBuffer zeroes = group_.pool_.buffers().allocate(part);
    std::memset(zeroes.data(), 0, part);
    done = co_await write(to * kBlockBytes, std::move(zeroes), WriteOptions{});
  }
  if (done && options.fua) co_return co_await group_.flush_to(group_.head_.lsn, true);
  co_return done;
}

Task<Status> VolumeHandle::write_zeroes(std::uint64_t offset, std::uint64_t length,
                                        WriteOptions options) {
  auto hold = group_.gate_.hold();
  Status done = check(offset, length);
  if (!done) co_return done;
  const std::uint64_t end = offset + length;
  const std::uint64_t from = blocks_for(offset), to = end / kBlockBytes;
  if (from >= to || offset % kBlockBytes != 0 || end % kBlockBytes != 0) {
    // The ragged ends, or all of it, as ordinary writes.
    const std::uint64_t head = from >= to ? length : from * kBlockBytes - offset;
    const std::uint64_t tail = from >= to ? 0 : end - to * kBlockBytes;
    for (const auto& [at, bytes] : {std::pair{offset, head}, std::pair{end - tail, tail}}) {
      if (bytes == 0) continue;
      IoBuffer zeroes = group_.pool_.buffers().allocate(bytes);
      std::memset(zeroes.data(), 0, bytes);
      done = co_await write(at, std::move(zeroes), WriteOptions{});
      if (!done) co_return done;
    }
  }
  if (from < to) {
    const auto type = options.no_hole ? RecordType::kZero : RecordType::kDiscard;
    done = co_await change_range(type, {from, to - from});
  }
  if (done && options.fua) co_return co_await group_.flush_to(group_.head_.lsn, true);
  co_return done;
}

}  // namespace tandem::store
