// The way of a record through a group: queue, page, device, map, acknowledgement. See group.h.
#include <cstring>

#include "format/checksum.h"
#include "store/group.h"
#include "tandem/base/log.h"

namespace tandem::store {
namespace {

using format::RecordType;

constexpr std::size_t kLsnOffset = 8, kUtcOffset = 16;
/// Data of one page: what becomes durable and is acknowledged together.
constexpr std::uint64_t kPageBlocksMax = 256;
/// Nanoseconds; a record's time may be ahead of the clock by as much.
constexpr std::uint64_t kTimelineSpread = 1'000'000;
/// Smaller pieces are copied next to each other, so that a page's data is few, long writes.
constexpr std::size_t kStageBytesMax = 64 << 10;

format::Record parse(std::span<const std::byte> canonical) {
  format::Decoder in(canonical);
  auto record = format::decode_record(in);
  CHECK(record.has_value());
  return *record;
}

}  // namespace

RecordType Group::type_of(const Pending& pending) {
  return static_cast<RecordType>(pending.canonical[0]);
}

Error Group::refusal() const {
  if (stopped_) {
    return {ErrorCode::kFenced, "group " + name_ + " stopped: " + stopped_->message};
  }
  if (closing_) return {ErrorCode::kCancelled, "group " + name_ + " is closing"};
  if (role_ == Role::kFenced) {
    return {ErrorCode::kFenced, "group " + name_ + " is fenced: timeline " +
                                    std::to_string(fenced_by_.value) +
                                    " was opened elsewhere; its data is kept"};
  }
  if (role_ == Role::kMirror) {
    return {ErrorCode::kReadOnly, "group " + name_ + " is a mirror here; promote it to write"};
  }
  if (reverting_) return {ErrorCode::kUnavailable, "group " + name_ + " is being rolled back"};
  return {ErrorCode::kUnavailable, "group " + name_ + " does not serve yet"};
}

void Group::enqueue(Pending pending) {
  if (!writes_wait()) writes_answered_ = runtime_.clock.monotonic();
  queue_.push_back(std::move(pending));
  schedule_pump();
}

/// One pump a turn: everything that arrives in the same turn shares a page.
void Group::schedule_pump() {
  if (pump_scheduled_ || queue_.empty()) return;
  pump_scheduled_ = true;
  runtime_.executor.post([this, hold = std::make_shared<Gate::Holder>(gate_)] {
    pump_scheduled_ = false;
    pump();
  });
}

void Group::pump() {
  if (stopped_) return fail_waiting(refusal());
  bool appended = false;
  if (!queue_.empty() && checkpoint_is_due()) checkpoint_soon();
  while (!queue_.empty() && in_flight_.size() < pool_.options().pages_in_flight_max && !starved_ &&
         !is_held_back()) {
    auto page = form_page();
    if (!page) break;
    in_flight_.push_back(std::move(page));
    appended = true;
    spawn(run_page(*in_flight_.back()));
  }
  supply_if_low();
  if (appended) tell_appended();
}

/// Memory for maps is bounded: writers wait for the checkpoint that cleans what they dirtied.
bool Group::is_held_back() const {
  return cache_.is_full_of_dirt() && cache_.dirty_leaves(static_cast<std::uint16_t>(slot_)) != 0;
}

/// A turn later: the device gets its writes first, shipping them costs more than handing them over.
void Group::tell_appended() {
  if (!append_listener_ || appended_posted_) return;
  appended_posted_ = true;
  runtime_.executor.post([this, hold = std::make_shared<Gate::Holder>(gate_)] {
    appended_posted_ = false;
    if (append_listener_) append_listener_();
  });
}

std::unique_ptr<Group::PageInFlight> Group::form_page() {
  if (!log_.can_place()) {
    starved_ = true;
    return nullptr;
  }
  auto page = std::make_unique<PageInFlight>();
  page->page = pool_.buffers().allocate(kBlockBytes);
  page->before = tail_;
  format::Encoder body(page->page.bytes().subspan(format::kLogPageHeaderBytes));
  std::uint64_t blocks = 0;
  while (!queue_.empty() && blocks < kPageBlocksMax) {
    const auto type = type_of(queue_.front());
    if (type == RecordType::kRevert && !page->records.empty()) break;  // alone in its page
    if (!place_record(*page, queue_.front(), body)) break;
    blocks += queue_.front().data.size() / kBlockBytes;
    page->records.push_back(std::move(queue_.front()));
    queue_.pop_front();
    if (type == RecordType::kSnapshot || type == RecordType::kRevert) break;  // the last of it
  }
  if (page->records.empty()) return nullptr;
  page->after = tail_;

  const LogZones::Place place = log_.take(tail_.lsn);
  page->at = place.at;
  format::LogPageHeader header;
  header.group = id_;
  header.at = place.at;
  header.before = page->before;
  header.record_count = static_cast<std::uint32_t>(page->records.size());
  header.used_bytes = static_cast<std::uint32_t>(body.position());
  header.boot = boot_;
  header.first_of_boot = !boot_page_written_;
  header.durable = durable_;
  header.next_zone = place.next_zone;
  boot_page_written_ = true;
  format::finish_log_page(std::span<std::byte, kBlockBytes>(page->page.bytes()), header);
  ++log_pages_since_checkpoint_;

  page->io = std::make_unique<IoBatch>(device_);
  stage_data(*page);
  page->io->write(page->at.value * kBlockBytes, page->page.bytes());
  return page;
}

/// Gives the record places, an LSN and room in the page. False: not in this page.
bool Group::place_record(PageInFlight& page, Pending& pending, format::Encoder& body) {
  const std::uint64_t blocks = pending.data.size() / kBlockBytes;
  if (blocks != 0 && promised_blocks_ == 0) {
    // The whole request must fit, so that a refused one leaves no trace.
    const std::uint64_t needed = std::max(blocks, pending.request_blocks);
    if (available() < needed) {
      starved_ = page.records.empty();
      return false;
    }
    promised_blocks_ = needed;
  }
  std::vector<Extent> places;
  for (std::uint64_t placed = 0; placed < blocks;) {
    auto run = space_.allocate(static_cast<std::uint32_t>(blocks - placed),
                               static_cast<std::uint32_t>(blocks));
    CHECK(run.has_value());
    placed += run->count;
    places.push_back(*run);
  }
  const auto bytes = format::placed_record_bytes(pending.canonical.size(), places.size());
  if (body.position() + bytes > format::kLogPageBodyBytes) {
    for (const auto& run : places) space_.undo_allocate(run);
    return false;
  }
  promised_blocks_ -= std::min(promised_blocks_, blocks);

  auto* canonical = pending.canonical.data();
  if (pending.replicated) {
    CHECK(format::load_le(canonical + kLsnOffset, 8) == tail_.lsn.value + 1);
  } else {
    std::uint64_t utc = std::max(runtime_.clock.utc().value, tail_.utc.value + 1);
    // Its time is part of a timeline's name: copies that are promoted apart from each other, with
    // clocks that are behind the log, must not open the same one.
    if (type_of(pending) == RecordType::kTimeline) utc += runtime_.random.next() % kTimelineSpread;
    format::store_le(canonical + kLsnOffset, tail_.lsn.value + 1, 8);
    format::store_le(canonical + kUtcOffset, utc, 8);
    if (pending.consistent_until && runtime_.clock.monotonic() > *pending.consistent_until)
      format::set_consistency(pending.canonical, format::Consistency::kHookFailed);
  }
  tail_.lsn = Lsn{format::load_le(canonical + kLsnOffset, 8)};
  tail_.utc = UtcNs{format::load_le(canonical + kUtcOffset, 8)};
  tail_.digest = format::chain(tail_.digest, pending.canonical);
  tail_.payload_bytes += pending.data.size();
  if (type_of(pending) == RecordType::kTimeline) {
    tail_.timeline = *format::decode_timeline(parse(pending.canonical));
  }
  if (pending.completion) pending.completion->last = tail_.lsn;
  body.raw(pending.canonical);
  format::encode_placement(body, places);
  page.places.push_back(std::move(places));
  return true;
}

/// Turns the data of a page into as few writes as its places allow, and keeps the records for a
/// mirror that follows.
void Group::stage_data(PageInFlight& page) {
  std::size_t staged = 0;
  const auto must_stage = [](const Pending& p) {
    return p.data.size() < kStageBytesMax || !p.data.is_block_aligned();
  };
  for (const auto& p : page.records) staged += must_stage(p) ? p.data.size() : 0;
  IoBuffer staging = staged != 0 ? pool_.buffers().allocate(staged) : IoBuffer{};
  std::size_t at = 0;
  RecordBatch recent;
  std::uint64_t run_offset = 0;
  std::span<std::byte> run;
  for (std::size_t i = 0; i < page.records.size(); ++i) {
    auto& p = page.records[i];
    if (recent_.enabled()) {
      recent.records.insert(recent.records.end(), p.canonical.begin(), p.canonical.end());
    }
    if (p.data.empty()) continue;
    if (must_stage(p)) {
      std::memcpy(staging.data() + at, p.data.data(), p.data.size());
      p.data = staging.slice(at, p.data.size());
      at += p.data.size();
    }
    if (recent_.enabled()) recent.payload.push_back(p.data);
    std::byte* from = p.data.data();
    for (const auto& place : page.places[i]) {
      const std::uint64_t offset = place.start.value * kBlockBytes;
      const std::size_t bytes = place.count * kBlockBytes;
      if (!run.empty() && run_offset + run.size() == offset && run.data() + run.size() == from) {
        run = {run.data(), run.size() + bytes};
      } else {
        if (!run.empty()) page.io->write(run_offset, run);
        run_offset = offset;
        run = {from, bytes};
      }
      from += bytes;
    }
  }
  if (!run.empty()) page.io->write(run_offset, run);
  note_formed(page);
  if (recent_.enabled()) {
    recent.appended = page.formed;
    recent.first = page.before.lsn.next();
    recent.last = page.after.lsn;
    recent.before = page.before.digest;
    recent.after = page.after.digest;
    recent_.add(std::move(recent));
  }
}

Task<void> Group::run_page(PageInFlight& page) {
  auto hold = gate_.hold();
  page.status = co_await page.io->run();
  page.came_back = runtime_.clock.monotonic();
  page.done = true;
  advance();
}

/// Applies finished pages in log order and acknowledges what may be. Behind the record of a
/// snapshot or a rollback it goes on when a checkpoint has frozen that state, which is at once
/// unless another checkpoint is still running.
void Group::advance() {
  if (advancing_) return;
  advancing_ = true;
  while (!in_flight_.empty() && in_flight_.front()->done && !stopped_ && !state_is_due()) {
    if (in_flight_.front()->status && !may_apply(*in_flight_.front())) break;
    auto page = std::move(in_flight_.front());
    in_flight_.pop_front();
    if (!page->status) {
      in_flight_.push_front(std::move(page));
      stop(in_flight_.front()->status.error());
      break;
    }
    apply_page(*page);
    if (state_is_due()) spawn(checkpoint_in_background());
  }
  // Once stopped, pages only have to come back from the device.
  while (stopped_ && !in_flight_.empty() && in_flight_.front()->done) in_flight_.pop_front();
  advancing_ = false;
  flush_if_much();
  release_acks();
  applied_.notify_all();
  schedule_pump();
}

void Group::advance_soon() {
  runtime_.executor.post([this, hold = std::make_shared<Gate::Holder>(gate_)] { advance(); });
}

/// A rollback waits for what must not be under way; who does it calls advance() at its end.
bool Group::may_apply(const PageInFlight& page) {
  if (type_of(page.records.front()) != RecordType::kRevert) return true;
  const auto target = page.records.front().target;
  CHECK(target != nullptr);
  if (has_doomed_volumes()) reap_deleted_soon();
  return !has_doomed_volumes() && target->ready && !point_target_;
}

void Group::apply_page(PageInFlight& page) {
  for (std::size_t i = 0; i < page.records.size(); ++i) {
    apply_record(parse(page.records[i].canonical), page.places[i]);
    if (page.records[i].completion) acks_.push_back(page.records[i].completion);
  }
  head_ = page.after;
  head_boot_ = boot_;
  note_applied(page);
}

void Group::apply_record(const format::Record& record, const std::vector<Extent>& places) {
  const auto& h = record.header;
  switch (h.type) {
    case RecordType::kVolumeCreate: {
      auto volume = core_of(record);
      // A map of its own in the cache: the tail of a former primary, kept as a branch, may have
      // made another volume of this number.
      volume->state.height = volume->tree.height;
      volume->tree = cores_of({volume->state}).front()->tree;
      volumes_[h.volume] = std::move(volume);
      next_volume_id_ = std::max(next_volume_id_, h.volume.value + 1);
      return;
    }
    case RecordType::kTimeline: {
      const auto timeline = format::decode_timeline(record);
      history_.push_back({*timeline, Lsn{h.lsn.value - 1}, h.utc});
      return;
    }
    case RecordType::kSnapshot: {
      auto body = format::decode_snapshot(record);
      CHECK(body.has_value() && !state_is_due());
      snapshot_due_ = SnapshotDue{std::move(*body)};
      return;
    }
    case RecordType::kRevert: {
      auto body = format::decode_revert(record);
      CHECK(body.has_value() && !state_is_due());
      turn_back(*body);
      return;
    }
    default:
      break;
  }
  const VolumePtr volume = find_volume(h.volume);
  if (!volume) {
    // The write passed the record that deleted its volume: nobody maps its blocks.
    for (const auto& e : places) {
      for (std::uint32_t i = 0; i < e.count; ++i) {
        dead_.add({PoolBlock{e.start.value + i}, h.lsn, h.lsn});
      }
    }
    return;
  }
  switch (h.type) {
    case RecordType::kWrite:
      return apply_write(*volume, record, places, &dead_);
    case RecordType::kDiscard:
    case RecordType::kZero:
      return apply_range(*volume, record, &dead_);
    case RecordType::kVolumeResize:
      return apply_resize(*volume, record);
    case RecordType::kVolumeDelete:
      volume->state.deleted_at = h.lsn;
      return;
    default:
      CHECK(false);
  }
}

/// The empty volume that a record creates.
Group::VolumePtr Group::core_of(const format::Record& record) const {
  const auto body = format::decode_volume_create(record);
  CHECK(body.has_value());
  auto volume = std::make_shared<VolumeCore>();
  volume->state.id = record.header.volume;
  volume->state.name = body->name;
  volume->state.size_bytes = body->size_bytes;
  volume->state.logical_block_bytes = body->logical_block_bytes;
  volume->tree = {static_cast<std::uint16_t>(slot_), record.header.volume,
                  format::map_height(blocks_for(body->size_bytes)), MapEntry{}, 0};
  return volume;
}

void Group::apply_resize(VolumeCore& volume, const format::Record& record) {
  set_size(volume, *format::decode_volume_resize(record), record.header.lsn);
}

/// At least as large as it was.
void Group::set_size(VolumeCore& volume, std::uint64_t bytes, Lsn at) {
  volume.state.size_bytes = bytes;
  const auto height = format::map_height(blocks_for(bytes));
  for (auto level = volume.tree.height; level < height; ++level) {
    volume.state.level_born[level] = at;
  }
  cache_.grow(volume.tree, height);
}

/// The volume does not map that copy any more. It is listed in `dead`, unless the state that is
/// changed is a past one, or the copy is another group's.
void Group::let_die(VolumeCore& volume, const MapEntry& entry, Lsn death, DeadList* dead) {
  if (is_borrowed(entry.where)) {
    --volume.state.borrowed_data;
  } else if (dead != nullptr) {
    dead->add({entry.where, entry.lsn, death});
  }
}

void Group::apply_write(VolumeCore& volume, const format::Record& record,
                        const std::vector<Extent>& places, DeadList* dead) {
  std::uint32_t i = 0;
  for (const auto& place : places) {
    for (std::uint32_t n = 0; n < place.count; ++n, ++i) {
      const std::uint64_t block = record.header.first_block.value + i;
      const MapEntry entry{PoolBlock{place.start.value + n}, record.header.lsn, record.crc(i)};
      const MapEntry old =
          cache_.change(volume.tree, 0, block / format::kMapFanout,
                        static_cast<std::uint32_t>(block % format::kMapFanout), entry);
      if (old.is_hole()) ++volume.state.allocated_blocks;
      if (old.has_data()) {
        let_die(volume, old, record.header.lsn, dead);
      } else {
        ++volume.state.data_blocks;
      }
    }
  }
}

/// Discards and zeroes touch only what exists: the leaves were pinned when the record was queued.
void Group::apply_range(VolumeCore& volume, const format::Record& record, DeadList* dead) {
  const bool zero = record.header.type == RecordType::kZero;
  const MapEntry entry =
      zero ? MapEntry{format::kZeroBlock, record.header.lsn, format::crc32c_of_zero_block()}
           : MapEntry{PoolBlock{}, record.header.lsn, 0};
  std::uint64_t block = record.header.first_block.value;
  const std::uint64_t end = block + record.header.block_count;
  while (block < end) {
    const std::uint64_t leaf = block / format::kMapFanout;
    const std::uint64_t leaf_end = std::min(end, (leaf + 1) * format::kMapFanout);
    const NodeRef node = cache_.peek(volume.tree, 0, leaf);
    for (; node && block < leaf_end; ++block) {
      const auto i = static_cast<std::uint32_t>(block % format::kMapFanout);
      const MapEntry now = cache_.peek(volume.tree, 0, leaf)->entry(i);
      if (!zero && now.is_hole()) continue;
      cache_.change(volume.tree, 0, leaf, i, entry);
      if (now.is_hole()) ++volume.state.allocated_blocks;
      if (!zero) --volume.state.allocated_blocks;
      if (!now.has_data()) continue;
      let_die(volume, now, record.header.lsn, dead);
      --volume.state.data_blocks;
    }
    block = leaf_end;
  }
}

void Group::release_acks() {
  const auto may_ack = [this](Lsn lsn) { return !remote_.written || lsn <= *remote_.written; };
  const auto may_answer = [&] {
    return !acks_.empty() && !stopped_ && may_ack(acks_.front()->last);
  };
  if (!may_answer()) return;
  const Nanoseconds now = writes_answered_ = runtime_.clock.monotonic();
  while (may_answer()) {
    auto* completion = acks_.front();
    acks_.pop_front();
    note_answered(*completion, now);
    completion->complete(ok());
  }
}

/// Answers everything that waits; records already on their way may still reach the log.
void Group::fail_waiting(const Error& error) {
  auto queue = std::exchange(queue_, {});
  auto acks = std::exchange(acks_, {});
  promised_blocks_ = 0;
  for (auto& page : in_flight_) {
    for (auto& pending : page->records) {
      if (pending.completion) acks.push_back(std::exchange(pending.completion, nullptr));
    }
  }
  for (auto& pending : queue) {
    if (pending.completion) acks.push_back(pending.completion);
  }
  for (auto* completion : acks) completion->complete(error);
}

void Group::stop(Error error) {
  if (stopped_) return;
  log_event(Level::kError, "group.stopped", "group={} head={} error=\"{}\"", name_, head_.lsn.value,
            error.message);
  stopped_ = std::move(error);
  serving_ = false;
  fail_waiting(refusal());
  applied_.notify_all();
  flushed_.notify_all();
  remote_changed_.notify_all();
  space_news_.notify_all();
  admit(Admits::kAll);
  wake_snapshot_readers();
}

Task<void> Group::wait_applied(Lsn lsn) {
  while (head_.lsn < lsn && !stopped_) co_await applied_.wait();
}

}  // namespace tandem::store
