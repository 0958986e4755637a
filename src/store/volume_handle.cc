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

/// A discard pins the leaves that exist, so nothing may be awaited between it and the queue.
constexpr bool kDiscardsLast[] = {false, true};

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

/// Counted from when it may begin until it is answered: a change of the primary waits for it.
class VolumeHandle::Change {
 public:
  explicit Change(Group& group) : group_(group) { ++group_.changes_under_way_; }
  Change(const Change&) = delete;
  Change& operator=(const Change&) = delete;
  ~Change() { --group_.changes_under_way_; }

 private:
  Group& group_;
};

VolumeInfo VolumeHandle::info() const {
  return {.name = core_->state.name,
          .size_bytes = core_->state.size_bytes,
          .logical_block_bytes = core_->state.logical_block_bytes,
          .read_only = false};
}

/// Whether its volume is still the group's, and the group serves.
Status VolumeHandle::check() const {
  if (!group_.serving() || group_.reverting_) return group_.refusal();
  if (core_->state.being_deleted()) {
    return Error{ErrorCode::kNotFound, "volume " + core_->state.name + " was deleted"};
  }
  if (core_->left) {
    return Error{ErrorCode::kNotFound, "volume " + core_->state.name +
                                           " was rolled back to another state; open it again"};
  }
  return ok();
}

Status VolumeHandle::check(std::uint64_t offset, std::uint64_t length) const {
  Status there = check();
  if (!there) return there;
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
    return std::any_of(taken.begin(), taken.end(),
                       [&](const Range& r) { return r.overlaps(range); });
  };
  while (is_taken()) co_await core_->range_freed.wait();
}

// --- reading -----------------------------------------------------------------------------------

Task<Result<IoBuffer>> VolumeHandle::read(std::uint64_t offset, std::uint64_t length) {
  auto hold = group_.gate_.hold();
  const Nanoseconds called = group_.runtime_.clock.monotonic();
  if (group_.holds(/*change=*/false)) co_await group_.until_admitted(/*change=*/false);
  Status fits = check(offset, length);
  if (!fits) co_return Error(std::move(fits.error()));
  auto read = co_await reader_.read(offset, length);
  if (read) group_.times_.add(Stage::kRead, group_.runtime_.clock.monotonic() - called);
  co_return read;
}

Task<Result<std::vector<AllocationExtent>>> VolumeHandle::allocation(std::uint64_t offset,
                                                                     std::uint64_t length,
                                                                     std::size_t extents_max) {
  auto hold = group_.gate_.hold();
  if (group_.holds(/*change=*/false)) co_await group_.until_admitted(/*change=*/false);
  Status fits = check(offset, length);
  if (!fits) co_return Error(std::move(fits.error()));
  co_return co_await reader_.allocation(offset, length, extents_max);
}

// --- writing -----------------------------------------------------------------------------------

/// Appends the records that write `data` to whole blocks from `first` on.
void VolumeHandle::add_write(std::vector<Group::Pending>& records, std::uint64_t first,
                             const IoBuffer& data) const {
  const std::uint64_t count = data.size() / kBlockBytes;
  std::vector<std::uint32_t> crcs;
  for (std::uint64_t done = 0; done < count; done += crcs.size()) {
    const auto n = std::min<std::uint64_t>(count - done, format::kRecordBlocksMax);
    crcs.clear();
    for (std::uint64_t i = 0; i < n; ++i) {
      crcs.push_back(format::crc32c(data.bytes().subspan((done + i) * kBlockBytes, kBlockBytes)));
    }
    const RecordHeader header{.type = RecordType::kWrite,
                              .volume = core_->state.id,
                              .first_block = VolumeBlock{first + done},
                              .block_count = static_cast<std::uint32_t>(n)};
    Group::Pending pending;
    pending.canonical.resize(format::write_record_bytes(header.block_count));
    format::Encoder out(pending.canonical);
    format::encode_write(out, header, crcs);
    pending.data = data.slice(done * kBlockBytes, n * kBlockBytes);
    records.push_back(std::move(pending));
  }
}

/// Appends the record that discards or zeroes whole blocks.
void VolumeHandle::add_range(std::vector<Group::Pending>& records, RecordType type,
                             Range range) const {
  const RecordHeader header{.type = type,
                            .volume = core_->state.id,
                            .first_block = VolumeBlock{range.first},
                            .block_count = static_cast<std::uint32_t>(range.count)};
  Group::Pending pending;
  pending.canonical.resize(format::kRecordHeaderBytes);
  format::Encoder out(pending.canonical);
  format::encode_range(out, header);
  records.push_back(std::move(pending));
}

/// Queues the records of one request together and waits until the last is acknowledged: all of it
/// happens or, without space, nothing. No co_await lies between the last pin and the queue.
/// `called`: when the client asked for it, monotonic.
Task<Status> VolumeHandle::submit(std::vector<Group::Pending> records, Nanoseconds called) {
  std::uint64_t blocks = 0;
  for (const bool discards : kDiscardsLast) {
    for (auto& pending : records) {
      format::Decoder in(pending.canonical);
      auto record = format::decode_record(in);
      CHECK(record.has_value());
      pending.discards = record->header.type == RecordType::kDiscard;
      if (pending.discards != discards) continue;
      blocks += pending.data.size() / kBlockBytes;
      Status pinned = co_await group_.pin_leaves(*core_, *record, pending.pins);
      if (!pinned) co_return pinned;
    }
  }
  // A discard of what was never written needs no record.
  std::erase_if(records, [](const auto& r) { return r.discards && r.pins.empty(); });
  Status there = check();
  if (!there || records.empty()) co_return there;
  Group::Completion completion;
  completion.called = called;
  records.front().request_blocks = blocks;
  records.back().completion = &completion;
  for (auto& record : records) group_.enqueue(std::move(record));
  co_return co_await completion;
}

/// A block that is about to be written in part; it must be locked.
Task<Result<IoBuffer>> VolumeHandle::read_edge(std::uint64_t block) {
  return reader_.read_blocks({block, 1});
}

/// A write that covers blocks in part: read their rest, merge, write whole blocks, with the range
/// locked against other writes meanwhile.
Task<Status> VolumeHandle::write_unaligned(std::uint64_t offset, IoBuffer data,
                                           Nanoseconds called) {
  const std::uint64_t end = offset + data.size();
  const Range range{offset / kBlockBytes, blocks_for(end) - offset / kBlockBytes};
  co_await wait_until_free(core_->locked, range);
  RangeEntry lock(*core_, core_->locked, range);
  // Writes that are under way here come first; new ones wait for the lock.
  co_await wait_until_free(core_->writing, range);
  IoBuffer merged = group_.pool_.buffers().allocate(range.count * kBlockBytes);
  if (offset % kBlockBytes != 0) {
    auto edge = co_await read_edge(range.first);
    if (!edge) co_return Error(std::move(edge.error()));
    std::memcpy(merged.data(), edge->data(), kBlockBytes);
  }
  if (end % kBlockBytes != 0) {
    auto edge = co_await read_edge(range.first + range.count - 1);
    if (!edge) co_return Error(std::move(edge.error()));
    const std::size_t kept_from = end % kBlockBytes;
    std::memcpy(merged.data() + merged.size() - kBlockBytes + kept_from, edge->data() + kept_from,
                kBlockBytes - kept_from);
  }
  std::memcpy(merged.data() + offset % kBlockBytes, data.data(), data.size());
  std::vector<Group::Pending> records;
  add_write(records, range.first, merged);
  co_return co_await submit(std::move(records), called);
}

Task<Status> VolumeHandle::write(std::uint64_t offset, IoBuffer data, WriteOptions options) {
  auto hold = group_.gate_.hold();
  const Nanoseconds called = group_.runtime_.clock.monotonic();
  if (group_.holds(/*change=*/true)) co_await group_.until_admitted(/*change=*/true);
  const Change counted(group_);
  Status done = check(offset, data.size());
  if (!done) co_return done;
  if (offset % kBlockBytes != 0 || data.size() % kBlockBytes != 0) {
    done = co_await write_unaligned(offset, std::move(data), called);
  } else {
    const Range range{offset / kBlockBytes, data.size() / kBlockBytes};
    if (!core_->locked.empty()) co_await wait_until_free(core_->locked, range);
    RangeEntry under_way(*core_, core_->writing, range);
    std::vector<Group::Pending> records;
    add_write(records, range.first, data);
    done = co_await submit(std::move(records), called);
  }
  if (done && options.fua) done = co_await group_.flush_to(group_.head_.lsn, true);
  co_return done;
}

Task<Status> VolumeHandle::flush() {
  auto hold = group_.gate_.hold();
  if (group_.holds(/*change=*/true)) co_await group_.until_admitted(/*change=*/true);
  const Change counted(group_);
  Status done = check();
  if (done) done = co_await group_.flush_to(group_.head_.lsn, true);
  co_return done;
}

/// Adds a write of block `block` with zeroes in [from, to) of it.
Task<Status> VolumeHandle::add_zeroed_edge(std::vector<Group::Pending>& records,
                                           std::uint64_t block, std::size_t from, std::size_t to) {
  auto edge = co_await read_edge(block);
  if (!edge) co_return Error(std::move(edge.error()));
  std::memset(edge->data() + from, 0, to - from);
  add_write(records, block, *edge);
  co_return ok();
}

/// Makes [offset, offset+length) read as zeroes: whole blocks by a record of `type`, ragged ends as
/// data. The ends and the first piece happen together; a very long range goes on in more pieces.
Task<Status> VolumeHandle::clear(RecordType type, std::uint64_t offset, std::uint64_t length) {
  Nanoseconds called = group_.runtime_.clock.monotonic();  // of each piece
  // The last block of a volume may be short: it ends with the volume.
  const bool to_the_end = offset + length == core_->state.size_bytes;
  const std::uint64_t end =
      to_the_end ? blocks_for(offset + length) * kBlockBytes : offset + length;
  const Range range{offset / kBlockBytes, blocks_for(end) - offset / kBlockBytes};
  const std::uint64_t from = blocks_for(offset), to = end / kBlockBytes;
  const bool ragged = offset % kBlockBytes != 0 || end % kBlockBytes != 0;
  co_await wait_until_free(core_->locked, range);
  RangeEntry entry(*core_, ragged ? core_->locked : core_->writing, range);
  std::vector<Group::Pending> records;
  if (ragged) {
    co_await wait_until_free(core_->writing, range);
    const bool one_block = range.count == 1;
    if (offset % kBlockBytes != 0) {
      const std::size_t edge_end = one_block ? (end - 1) % kBlockBytes + 1 : kBlockBytes;
      Status edge = co_await add_zeroed_edge(records, range.first, offset % kBlockBytes, edge_end);
      if (!edge) co_return edge;
    }
    if (end % kBlockBytes != 0 && (!one_block || offset % kBlockBytes == 0)) {
      Status edge =
          co_await add_zeroed_edge(records, range.first + range.count - 1, 0, end % kBlockBytes);
      if (!edge) co_return edge;
    }
  }
  for (std::uint64_t at = from; at < to || !records.empty();) {
    const Range piece{at, at < to ? std::min<std::uint64_t>(to - at, format::kRangeBlocksMax) : 0};
    if (piece.count != 0) add_range(records, type, piece);
    Status done = co_await submit(std::exchange(records, {}), called);
    if (!done) co_return done;
    called = group_.runtime_.clock.monotonic();
    at += piece.count;
  }
  co_return ok();
}

Task<Status> VolumeHandle::discard(std::uint64_t offset, std::uint64_t length,
                                   WriteOptions options) {
  auto hold = group_.gate_.hold();
  if (group_.holds(/*change=*/true)) co_await group_.until_admitted(/*change=*/true);
  const Change counted(group_);
  Status done = check(offset, length);
  if (!done) co_return done;
  done = co_await clear(RecordType::kDiscard, offset, length);
  if (done && options.fua) done = co_await group_.flush_to(group_.head_.lsn, true);
  co_return done;
}

Task<Status> VolumeHandle::write_zeroes(std::uint64_t offset, std::uint64_t length,
                                        WriteOptions options) {
  auto hold = group_.gate_.hold();
  if (group_.holds(/*change=*/true)) co_await group_.until_admitted(/*change=*/true);
  const Change counted(group_);
  Status done = check(offset, length);
  if (!done) co_return done;
  const auto type = options.no_hole ? RecordType::kZero : RecordType::kDiscard;
  done = co_await clear(type, offset, length);
  if (done && options.fua) done = co_await group_.flush_to(group_.head_.lsn, true);
  co_return done;
}

}  // namespace tandem::store
