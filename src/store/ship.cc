// Group as replication sees it: reading the log for a mirror, appending a primary's records.
#include <cstring>

#include "format/checksum.h"
#include "store/group.h"

namespace tandem::store {

using format::RecordType;

namespace {

/// Leaves that are read ahead take at most this part of the cache.
constexpr std::size_t kAheadShare = 4;

Error log_gone(const std::string& group, Lsn after, Lsn start) {
  return {ErrorCode::kNotFound, "group " + group + ": the log behind LSN " +
                                    std::to_string(after.value) + " is gone (it starts behind " +
                                    std::to_string(start.value) + ")"};
}

}  // namespace

GroupIdentity Group::identity() const {
  return {.group = id_, .name = name_, .pool = pool_.superblock().pool, .node = node_};
}

void Group::set_append_listener(std::function<void()> listener) {
  append_listener_ = std::move(listener);
  recent_.enable(append_listener_ != nullptr);
}

/// Records behind `after` from disk, as far as they are applied.
Task<Result<RecordBatch>> Group::read_log(Lsn after, std::size_t bytes_max) {
  const Lsn end = head_.lsn;
  if (after >= end) co_return RecordBatch{};
  if (after < log_start()) co_return log_gone(name_, after, log_start());
  auto batch = co_await log_streams_.read(log_source(), after, end, bytes_max, !writes_wait());
  const bool is_gone = !batch && batch.error().code == ErrorCode::kNotFound;
  if (is_gone || after < log_start()) co_return log_gone(name_, after, log_start());
  co_return batch;
}

Task<Result<RecordBatch>> Group::read_after(Lsn after, std::size_t bytes_max) {
  auto hold = gate_.hold();
  if (after >= tail_.lsn) co_return RecordBatch{};
  if (const auto start = recent_.start(); start && *start <= after) {
    co_return recent_.read_after(after, bytes_max);
  }
  // Not kept in memory, and maybe still on its way to the device.
  if (after >= head_.lsn) co_await wait_applied(after.next());
  co_return co_await read_log(after, bytes_max);
}

Task<Result<Digest>> Group::digest_at(Lsn at) {
  auto hold = gate_.hold();
  if (at == tail_.lsn) co_return tail_.digest;
  if (at == head_.lsn) co_return head_.digest;
  if (at < log_.start()) {
    const auto kept = on_line(at);
    if (kept) co_return kept->state.at.digest;
    co_return log_gone(name_, at, log_.start());
  }
  if (at > head_.lsn) co_await wait_applied(at);
  if (at > head_.lsn) co_return refusal();
  if (at == head_.lsn) co_return head_.digest;
  // More than one page only if the search passed over a damaged one: then that is read, and told.
  const Lsn end = head_.lsn;
  LogReader reader(log_source(), at);
  Digest digest;
  Lsn last;
  do {
    auto page = co_await reader.next(end);
    if (!page) co_return Error(std::move(page.error()));
    digest = page->header.before.digest;
    last = page->header.before.lsn;
    for (const auto& placed : page->records) {
      if (placed.record.header.lsn > at) break;
      digest = format::chain(digest, placed.record.canonical);
      last = placed.record.header.lsn;
    }
  } while (last < at);
  co_return digest;
}

// --- a mirror's side -----------------------------------------------------------------------------

struct Group::Incoming {
  format::Record record;
  IoBuffer data;
};

/// Leaves for one batch: pinned until its records have pinned them.
struct Group::LeavesAhead {
  explicit LeavesAhead(std::size_t& of_all) : of_all(of_all) {}
  ~LeavesAhead() { let_go(); }
  void let_go() {
    leaves.clear();
    of_all -= std::exchange(begun, 0);
  }
  std::size_t& of_all;  // batches of the group
  std::size_t begun = 0;
  std::vector<NodeRef> leaves;
  Gate reading;
};

/// Cuts a batch into records with their data, checking all of it first.
Result<std::vector<Group::Incoming>> Group::unpack(const RecordBatch& batch, BufferPool& buffers) {
  std::vector<Incoming> out;
  format::Decoder in(batch.records);
  Digest digest = batch.before;
  Lsn expected = batch.first;
  std::size_t piece = 0, offset = 0;
  while (in.remaining() != 0) {
    auto record = format::decode_record(in);
    if (!record) return Error(std::move(record.error()));
    if (record->header.lsn != expected) {
      return Error{ErrorCode::kInvalid, "records do not follow each other"};
    }
    expected = expected.next();
    digest = format::chain(digest, record->canonical);
    Incoming incoming{*record, {}};
    std::size_t wanted = record->has_data() ? record->header.block_count * kBlockBytes : 0;
    const std::size_t total = wanted;
    while (wanted != 0) {
      while (piece < batch.payload.size() && offset == batch.payload[piece].size()) {
        ++piece, offset = 0;
      }
      if (piece == batch.payload.size()) {
        return Error{ErrorCode::kCorrupt, "records come with too little data"};
      }
      const auto n = std::min(wanted, batch.payload[piece].size() - offset);
      if (n == total) {
        incoming.data = batch.payload[piece].slice(offset, n);
      } else {
        if (incoming.data.empty()) incoming.data = buffers.allocate(total);
        std::memcpy(incoming.data.data() + (total - wanted), batch.payload[piece].data() + offset,
                    n);
      }
      offset += n;
      wanted -= n;
    }
    for (std::uint32_t i = 0; record->has_data() && i < record->header.block_count; ++i) {
      const auto block = incoming.data.bytes().subspan(i * kBlockBytes, kBlockBytes);
      if (format::crc32c(block) != record->crc(i)) {
        return Error{ErrorCode::kCorrupt,
                     "data of LSN " + std::to_string(expected.value - 1) + " arrived damaged"};
      }
    }
    out.push_back(std::move(incoming));
  }
  if (out.empty() || expected != batch.last.next() || digest != batch.after) {
    return Error{ErrorCode::kCorrupt, "records arrived that do not match their digest"};
  }
  return out;
}

/// Whether the volumes as they are, on `timeline`, can take the record: a primary's bug must not
/// reach the log, and what a log holds must not be believed.
Status Group::check_record(const format::Record& record, Timeline timeline) const {
  const auto& h = record.header;
  const auto bad = [&](const char* why) {
    return Error{ErrorCode::kCorrupt,
                 "LSN " + std::to_string(h.lsn.value) + " cannot be applied: " + why};
  };
  switch (h.type) {
    case RecordType::kVolumeCreate: {
      const auto body = format::decode_volume_create(record);
      if (!body) return body.error();
      return volumes_.count(h.volume) != 0 ? Status(bad("volume id is in use")) : ok();
    }
    case RecordType::kTimeline: {
      const auto next = format::decode_timeline(record);
      return *next <= timeline ? Status(bad("timeline runs backwards")) : ok();
    }
    case RecordType::kSnapshot: {
      auto body = format::decode_snapshot(record);
      return body ? ok() : Status(std::move(body.error()));
    }
    case RecordType::kRevert: {
      const auto body = format::decode_revert(record);
      if (!body) return body.error();
      const auto target = snapshot_at(body->to);
      if (target && !target->state.being_deleted) return ok();
      return Error{ErrorCode::kNotFound, "the primary went back to LSN " +
                                             std::to_string(body->to.value) +
                                             ", which this copy does not keep"};
    }
    default:
      break;
  }
  const auto volume = find_volume(h.volume);
  if (!volume) return bad("no such volume");
  if (h.type == RecordType::kVolumeResize) {
    return *format::decode_volume_resize(record) < volume->state.size_bytes
               ? Status(bad("volume shrinks"))
               : ok();
  }
  if (h.type == RecordType::kVolumeDelete) return ok();
  const std::uint64_t blocks = blocks_for(volume->state.size_bytes);
  if (h.first_block.value >= blocks || h.block_count > blocks - h.first_block.value) {
    return bad("range is outside of its volume");
  }
  return ok();
}

Task<void> Group::wait_queue_applied() {
  while ((!queue_.empty() || head_.lsn < tail_.lsn || turn_) && !stopped_ && !closing_) {
    co_await applied_.wait();
  }
}

/// Begins to read the leaves that a record will change and that are not in memory. One that cannot
/// be read is the error of pin_leaves(), which asks for it again.
void Group::read_leaves_ahead(const format::Record& record, LeavesAhead& ahead) {
  const auto& h = record.header;
  if (h.type != RecordType::kWrite && h.type != RecordType::kZero) return;
  if (h.block_count == 0 || !check_record(record, tail_.timeline)) return;
  const VolumePtr volume = find_volume(h.volume);
  const std::uint64_t first = h.first_block.value / format::kMapFanout;
  const std::uint64_t last = (h.first_block.value + h.block_count - 1) / format::kMapFanout;
  for (std::uint64_t leaf = first; leaf <= last; ++leaf) {
    if (leaves_ahead_ >= cache_.capacity_nodes() / kAheadShare) return;
    if (cache_.peek(volume->tree, 0, leaf)) continue;
    ++leaves_ahead_, ++ahead.begun;
    spawn(read_leaf_ahead(volume, leaf, ahead));
  }
}

Task<void> Group::read_leaf_ahead(VolumePtr volume, std::uint64_t leaf, LeavesAhead& ahead) {
  auto hold = ahead.reading.hold();
  auto loaded = co_await cache_.load(volume->tree, 0, leaf, false);
  if (loaded && *loaded) ahead.leaves.push_back(std::move(*loaded));
}

/// Batches are queued one after the other, but read what they need of the map side by side.
Task<Status> Group::apply(RecordBatch batch) {
  auto hold = gate_.hold();
  if (batch.empty()) co_return ok();
  auto incoming = unpack(batch, pool_.buffers());
  if (!incoming) co_return Error(std::move(incoming.error()));
  LeavesAhead ahead(leaves_ahead_);
  for (const auto& in : *incoming) read_leaves_ahead(in.record, ahead);
  Completion completion;
  {
    auto lock = co_await apply_lock_.lock();
    co_await ahead.reading.close();
    // Not before this copy is a mirror on stable storage, too: a crash would leave a primary on the
    // timeline that another node opened.
    while (role_ != Role::kPrimary && last_checkpoint_.role == Role::kPrimary) {
      Status kept = co_await checkpoint();
      if (!kept) co_return kept;
    }
    Status queued = co_await queue_incoming(batch, std::move(*incoming), completion);
    if (!queued) co_return queued;
  }
  ahead.let_go();
  co_return co_await completion;
}

/// Checks a batch and queues its records; `completion` rides on the last one. Volumes change only
/// between records that are applied, so a record that changes them waits for those in front of it,
/// and those behind it wait for it.
Task<Status> Group::queue_incoming(const RecordBatch& batch, std::vector<Incoming> incoming,
                                   Completion& completion) {
  if (stopped_ || closing_) co_return refusal();
  if (serving_) {
    co_return Error{ErrorCode::kRefused, "group " + name_ + " serves here; it follows nobody"};
  }
  const LogPoint& last = queue_.empty() ? tail_ : queued_;
  if (batch.first != last.lsn.next() || batch.before != last.digest) {
    co_return Error{ErrorCode::kInvalid, "records from LSN " + std::to_string(batch.first.value) +
                                             " on do not follow LSN " +
                                             std::to_string(last.lsn.value)};
  }
  std::vector<Pending> pendings;
  bool wait_first = false;
  for (std::size_t i = 0; i < incoming.size(); ++i) {
    auto& in = incoming[i];
    const bool changes_volumes = in.record.header.type >= RecordType::kVolumeCreate;
    if (changes_volumes || wait_first) {
      for (auto& pending : pendings) enqueue(std::move(pending));
      pendings.clear();
      co_await wait_queue_applied();
      if (stopped_ || closing_) co_return refusal();
      if (tail_.lsn.next() != in.record.header.lsn) {
        co_return Error{ErrorCode::kNoSpace, "pool " + device_.name() + " is full"};
      }
    }
    wait_first = changes_volumes;
    Status fits = check_record(in.record, tail_.timeline);
    if (!fits) co_return fits;
    Pending pending;
    pending.canonical.assign(in.record.canonical.begin(), in.record.canonical.end());
    pending.data = std::move(in.data);
    pending.replicated = true;
    if (!changes_volumes) {
      const VolumePtr volume = find_volume(in.record.header.volume);
      Status pinned = co_await pin_leaves(*volume, in.record, pending.pins);
      if (!pinned) co_return pinned;
    }
    if (in.record.header.type == RecordType::kRevert) {
      pending.target = snapshot_at(format::decode_revert(in.record)->to);
      pending.pin = std::make_unique<SnapshotPin>(pending.target->readers);
    }
    if (i + 1 == incoming.size()) pending.completion = &completion;
    pendings.push_back(std::move(pending));
  }
  for (auto& pending : pendings) enqueue(std::move(pending));
  queued_.lsn = batch.last;
  queued_.digest = batch.after;
  if (wait_first) co_await wait_queue_applied();
  co_return ok();
}

}  // namespace tandem::store
