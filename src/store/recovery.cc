#include "store/recovery.h"

#include "format/checksum.h"
#include "store/image.h"
#include "tandem/base/log.h"

namespace tandem::store {

namespace {

constexpr std::uint64_t kScanBlocks = 64;  // log pages read at once

Error corrupt(std::string what) { return {ErrorCode::kCorrupt, std::move(what)}; }

}  // namespace

Task<Status> Recovery::run() {
  Status done = co_await read_descriptor();
  if (!done) co_return done;
  done = adopt_descriptor();
  if (!done) co_return done;
  done = co_await read_bitmaps();
  if (!done) co_return done;
  done = co_await scan();
  if (!done) co_return done;
  done = co_await verify();
  if (!done) co_return done;
  done = co_await replay();
  if (!done) co_return done;
  done = co_await group_.pool_.flush();
  if (!done) co_return done;
  group_.tail_ = group_.head_;
  group_.durable_ = group_.head_.lsn;
  log_event(Level::kInfo, "group.recovered",
            "group={} role={} timeline={} lsn={} checkpoint={} pages={}", group_.name_,
            to_string(group_.role_), group_.head_.timeline.value, group_.head_.lsn.value,
            group_.checkpoint_lsn_.value, pages_.size());
  co_return ok();
}

Task<Status> Recovery::read_descriptor() {
  std::vector<std::byte> bytes;
  PoolBlock at = anchor_.descriptor;
  std::uint32_t crc = anchor_.descriptor_crc32c;
  while (at.value != 0) {
    const std::uint64_t blocks = group_.pool_.superblock().blocks;
    if (at.value >= blocks || bytes.size() > anchor_.descriptor_bytes ||
        group_.descriptor_blocks_.size() == blocks) {
      co_return corrupt("group descriptor: its chain leads nowhere");
    }
    IoBuffer page = IoBuffer::on_heap(kBlockBytes);
    IoBatch io(group_.device_);
    io.read(at.value * kBlockBytes, page.bytes());
    Status read = co_await io.run();
    if (!read) co_return read;
    if (format::crc32c(page.bytes()) != crc) {
      co_return corrupt("group descriptor: block " + std::to_string(at.value) +
                        " fails its checksum");
    }
    auto block = format::decode_chain_block(format::ConstPage(page.bytes()));
    if (!block) co_return Error(std::move(block.error()));
    bytes.insert(bytes.end(), block->payload.begin(), block->payload.end());
    group_.descriptor_blocks_.push_back(at);
    at = block->next;
    crc = block->next_crc32c;
  }
  if (bytes.size() != anchor_.descriptor_bytes) {
    co_return corrupt("group descriptor: its length is wrong");
  }
  auto descriptor = format::decode_descriptor(bytes);
  if (!descriptor) co_return Error(std::move(descriptor.error()));
  descriptor_ = std::move(*descriptor);
  if (descriptor_.group != anchor_.group) co_return corrupt("descriptor of another group");
  co_return ok();
}

Status Recovery::adopt_descriptor() {
  auto& g = group_;
  const auto& d = descriptor_;
  g.name_ = d.name;
  g.head_ = d.point;
  g.history_ = d.history;
  g.role_ = d.role;
  g.mode_ = d.mode;
  g.fenced_by_ = d.fenced_by;
  g.next_volume_id_ = d.next_volume_id;
  g.origin_ = d.origin;
  g.origin_state_ = d.origin_state;
  g.slots_ = d.slots;
  g.settings_ = d.settings;
  g.anchor_sequence_ = anchor_.sequence;
  g.checkpoint_lsn_ = d.point.lsn;
  g.data_horizon_ = d.data_horizon;
  g.head_boot_ = d.log_boot;
  for (const auto& s : d.slots) {
    if (s.needs_image) continue;
    g.hold_ = g.hold_ ? std::min(*g.hold_, s.durable) : s.durable;
  }
  g.dead_.restore(d.dead);
  g.held_ = d.held;
  g.parent_ = d.parent;
  g.next_snapshot_id_ = d.next_snapshot_id;
  g.skipped_ = d.skipped;
  g.nodes_upto_ = d.nodes_upto;
  for (const auto& s : d.snapshots) {
    g.snapshot_is_ready(*g.add_snapshot(s));
  }
  // Whether the taking apart had begun is not kept. It had not where a clone, or a second state
  // that came out of it, still needs all of it: points are made from it as long as that is so.
  for (const auto& [id, snapshot] : g.snapshots_) {
    const auto& s = snapshot->state;
    snapshot->reaping = s.being_deleted && s.clones == 0 && g.successors_of(id) <= 1;
  }
  for (const auto& v : d.volumes) {
    auto volume = std::make_shared<Group::VolumeCore>();
    volume->state = v;
    volume->tree = {static_cast<std::uint16_t>(g.slot_), v.id, v.height, v.root, 0};
    if (!g.volumes_.emplace(v.id, std::move(volume)).second) return corrupt("volume listed twice");
  }
  for (const auto& z : d.log_zones) {
    if (!g.pool_.owns(g.slot_, z.zone)) {
      return corrupt("log zone " + std::to_string(z.zone.value) + " belongs to somebody else");
    }
  }
  if (g.pool_.superblock().zone_of(d.log_next) != d.log_zones.back().zone) {
    return corrupt("the log's end is not in its last zone");
  }
  g.log_.restore(d.log_zones, d.log_next);
  for (const auto& [id, snapshot] : g.snapshots_) {
    if (!g.may_join(*snapshot)) snapshot->reaping = false;  // it waits, and is whole
  }
  // Other copies may still come back, until it is said that all of them have slots.
  const bool is_promoted = d.role == Role::kPrimary && d.history.size() > 1;
  if (is_promoted && d.history.back().fork >= g.log_start()) g.unnamed_hold_ = g.log_start();
  for (auto zone : g.pool_.zones_of(g.slot_)) {
    if (!g.log_.contains(zone)) g.space_.add_zone(zone);
  }
  return ok();
}

Task<Status> Recovery::read_bitmaps() {
  for (const auto& page : descriptor_.bitmap) {
    if (page.where.value >= group_.pool_.superblock().blocks) {
      co_return corrupt("bitmap page is out of the pool");
    }
    IoBuffer bits = group_.pool_.buffers().allocate(kBlockBytes);
    IoBatch io(group_.device_);
    io.read(page.where.value * kBlockBytes, bits.bytes());
    Status read = co_await io.run();
    if (!read) co_return read;
    if (format::crc32c(bits.bytes()) != page.crc32c) {
      co_return corrupt("bitmap page " + std::to_string(page.index) + " fails its checksum");
    }
    if (!group_.space_.load_page(page.index, bits.bytes())) {
      co_return corrupt("bitmap page " + std::to_string(page.index) +
                        " claims blocks outside of the group's zones");
    }
    group_.bitmap_[page.index] = page;
  }
  group_.space_.forget_changes();
  co_return ok();
}

/// Follows the chain of whole pages. Does not touch the group but for the log's end.
Task<Status> Recovery::scan() {
  auto& g = group_;
  const auto& geometry = g.pool_.superblock();
  LogPoint point = g.head_;
  std::uint64_t boot = g.head_boot_;
  PoolBlock at = g.log_.next();
  for (;;) {
    const std::uint64_t to_zone_end = geometry.zone_blocks - at.value % geometry.zone_blocks;
    const std::uint64_t count = std::min(kScanBlocks, to_zone_end);
    IoBuffer buffer = IoBuffer::on_heap(count * kBlockBytes);
    IoBatch io(g.device_);
    io.read(at.value * kBlockBytes, buffer.bytes());
    Status read = co_await io.run();
    if (!read) co_return read;
    for (std::uint64_t i = 0; i < count; ++i) {
      std::span<const std::byte, kBlockBytes> page(buffer.data() + i * kBlockBytes, kBlockBytes);
      auto header = format::decode_log_page_header(page);
      if (!header && header.error().code == ErrorCode::kUnsupported) {
        co_return Error(std::move(header.error()));
      }
      if (!header || header->group != g.id_ || header->at != at || header->before != point ||
          (!header->first_of_boot && header->boot != boot)) {
        co_return co_await check_end(at, point.lsn, boot);
      }
      auto records = format::decode_log_page_body(page, *header);
      if (!records) co_return co_await check_end(at, point.lsn, boot);
      for (const auto& placed : *records) {
        point.lsn = placed.record.header.lsn;
        point.utc = placed.record.header.utc;
        point.digest = format::chain(point.digest, placed.record.canonical);
        if (placed.record.has_data()) {
          point.payload_bytes += placed.record.header.block_count * kBlockBytes;
        }
        if (placed.record.header.type == format::RecordType::kTimeline) {
          point.timeline = *format::decode_timeline(placed.record);
        }
      }
      boot = header->boot;
      pages_.push_back({buffer, page, *header, at});
      if (at.value % geometry.zone_blocks != geometry.zone_blocks - 1u) {
        at = at.next();
        continue;
      }
      if (!g.pool_.owns(g.slot_, header->next_zone)) {
        // Wrong only if the page counts: one that an earlier recovery cut off may lie here still,
        // and the zone that it leads to was given back since.
        leads_nowhere_ =
            corrupt("the log goes on in zone " + std::to_string(header->next_zone.value) +
                    ", which is not the group's");
        co_return ok();
      }
      at = geometry.zone_start(header->next_zone);
    }
  }
}

/// A crash ends the log with what was not flushed. When a page behind the end, by the same writer,
/// knows of more that was, the page at the end was damaged later. Who has a peer can get it again.
Task<Status> Recovery::check_end(PoolBlock end, Lsn last, std::uint64_t boot) {
  auto& g = group_;
  const auto zone_blocks = g.pool_.superblock().zone_blocks;
  const std::uint64_t zone_end = (end.value / zone_blocks + 1) * zone_blocks;
  Lsn flushed = last;
  bool has_pages = true;
  for (std::uint64_t at = end.value; at < zone_end && has_pages; at += kScanBlocks) {
    const std::uint64_t count = std::min(kScanBlocks, zone_end - at);
    IoBuffer buffer = IoBuffer::on_heap(count * kBlockBytes);
    IoBatch io(g.device_);
    io.read(at * kBlockBytes, buffer.bytes());
    Status read = co_await io.run();
    if (!read) co_return ok();
    has_pages = false;
    for (std::uint64_t i = 0; i < count; ++i) {
      std::span<const std::byte, kBlockBytes> page(buffer.data() + i * kBlockBytes, kBlockBytes);
      const auto header = format::decode_log_page_header(page);
      if (!header || header->group != g.id_ || header->at.value != at + i || header->boot != boot) {
        continue;
      }
      has_pages = true;
      flushed = std::max(flushed, header->durable);
    }
  }
  if (flushed == last) co_return ok();
  const std::string what = "the log page at block " + std::to_string(end.value) +
                           " is damaged: LSN " + std::to_string(last.value + 1) + " to " +
                           std::to_string(flushed.value) + " were flushed and cannot be read";
  log_event(Level::kError, "log.damaged", "group={} error=\"{}\"", g.name_, what);
  if (g.role_ == Role::kPrimary && descriptor_.slots.empty()) co_return corrupt(what);
  co_return ok();
}

/// Cuts off the first page whose data did not reach the disk, and all behind it.
Task<Status> Recovery::verify() {
  Lsn durable = group_.checkpoint_lsn_;
  for (const auto& page : pages_) durable = std::max(durable, page.header.durable);
  for (std::size_t i = 0; i < pages_.size(); ++i) {
    const auto& scanned = pages_[i];
    if (scanned.header.before.lsn.value + scanned.header.record_count <= durable.value) continue;
    auto records = format::decode_log_page_body(scanned.page, scanned.header);
    CHECK(records.has_value());
    auto whole = co_await data_is_whole(*records);
    if (!whole) co_return Error(std::move(whole.error()));
    if (*whole) continue;
    log_event(Level::kInfo, "log.cut", "group={} behind={} pages={}", group_.name_,
              scanned.header.before.lsn.value, pages_.size() - i);
    pages_.erase(pages_.begin() + static_cast<std::ptrdiff_t>(i), pages_.end());
    co_return ok();
  }
  if (leads_nowhere_) co_return Error(std::move(*leads_nowhere_));
  co_return ok();
}

Task<Result<bool>> Recovery::data_is_whole(const std::vector<format::PlacedRecord>& records) {
  const std::uint64_t blocks_end = group_.pool_.superblock().blocks;
  IoBatch io(group_.device_);
  std::vector<IoBuffer> contents;
  for (const auto& placed : records) {
    if (!placed.record.has_data()) continue;
    contents.push_back(IoBuffer::on_heap(placed.record.header.block_count * kBlockBytes));
    std::size_t offset = 0;
    for (const auto& e : placed.extents) {
      if (e.start.value + e.count > blocks_end) {
        co_return corrupt("the log places data outside of the pool");
      }
      io.read(e.start.value * kBlockBytes,
              contents.back().bytes().subspan(offset, e.count * kBlockBytes));
      offset += e.count * kBlockBytes;
    }
  }
  Status read = co_await io.run();
  if (!read) co_return Error(std::move(read.error()));
  std::size_t next = 0;
  for (const auto& placed : records) {
    if (!placed.record.has_data()) continue;
    const auto& content = contents[next++];
    for (std::uint32_t i = 0; i < placed.record.header.block_count; ++i) {
      const auto block = content.bytes().subspan(i * kBlockBytes, kBlockBytes);
      if (format::crc32c(block) != placed.record.crc(i)) co_return false;
    }
  }
  co_return true;
}

Task<Status> Recovery::replay() {
  auto& g = group_;
  // Zones that the log entered since the checkpoint hold pages, not data.
  for (const auto& page : pages_) {
    const bool last_of_zone = page.header.next_zone.value != 0;
    if (!last_of_zone || !g.space_.owns(page.header.next_zone)) continue;
    if (!g.space_.is_empty(page.header.next_zone)) {
      co_return corrupt("the log goes on in zone " + std::to_string(page.header.next_zone.value) +
                        ", which holds data");
    }
    g.space_.remove_zone(page.header.next_zone);
  }
  Status marked = mark_places();
  if (!marked) co_return marked;
  std::size_t places_done = 0;
  g.recovering_ = true;
  for (const auto& scanned : pages_) {
    // Other groups have their turn, also between pages that need no I/O.
    co_await next_turn(g.runtime_.executor);
    auto records = format::decode_log_page_body(scanned.page, scanned.header);
    CHECK(records.has_value());
    for (const auto& placed : *records) {
      if (g.state_is_due()) co_return corrupt("a snapshot's record is not the last of its page");
      places_done += placed.extents.size();
      if (placed.record.header.type == format::RecordType::kRevert) {
        Status possible = co_await prepare_revert(placed.record, places_done);
        if (!possible) co_return possible;
      }
      Status applied = co_await replay_record(placed);
      if (!applied) co_return applied;
      auto& head = g.head_;
      head.lsn = placed.record.header.lsn;
      head.utc = placed.record.header.utc;
      head.digest = format::chain(head.digest, placed.record.canonical);
      if (placed.record.has_data()) {
        head.payload_bytes += placed.record.header.block_count * kBlockBytes;
      }
      if (placed.record.header.type == format::RecordType::kTimeline) {
        head.timeline = *format::decode_timeline(placed.record);
      }
    }
    g.head_boot_ = scanned.header.boot;
    if (!g.log_.follow(scanned.header.next_zone, g.head_.lsn)) {
      co_return corrupt("the last log page of a zone names no successor");
    }
    if (!g.state_is_due()) continue;
    // The state is now or never.
    g.not_replayed_.assign(places_.begin() + static_cast<std::ptrdiff_t>(places_done),
                           places_.end());
    Status kept = co_await g.checkpoint();
    g.not_replayed_.clear();
    if (!kept) co_return kept;
  }
  g.recovering_ = false;
  g.log_pages_since_checkpoint_ = pages_.size();
  co_return ok();
}

/// What a rollback needs: its target, and nothing left of volumes that were deleted.
Task<Status> Recovery::prepare_revert(const format::Record& record, std::size_t places_done) {
  auto& g = group_;
  const auto body = format::decode_revert(record);
  if (!body) co_return body.error();
  if (!g.snapshot_at(body->to)) {
    co_return corrupt("LSN " + std::to_string(record.header.lsn.value) +
                      " goes back to a state that is not kept here");
  }
  if (!g.has_doomed_volumes()) co_return ok();
  g.not_replayed_.assign(places_.begin() + static_cast<std::ptrdiff_t>(places_done), places_.end());
  co_await g.reap_deleted();
  g.not_replayed_.clear();
  co_return g.has_doomed_volumes() ? corrupt("a deleted volume cannot be taken apart") : ok();
}

/// Before anything is written, so that nothing lands on data that is still to be replayed.
Status Recovery::mark_places() {
  for (const auto& scanned : pages_) {
    auto records = format::decode_log_page_body(scanned.page, scanned.header);
    CHECK(records.has_value());
    for (const auto& placed : *records) {
      for (const auto& e : placed.extents) {
        if (!group_.space_.mark_used(e)) {
          return corrupt("LSN " + std::to_string(placed.record.header.lsn.value) +
                         " places data in blocks that are taken");
        }
        places_.push_back(e);
      }
    }
  }
  return ok();
}

Task<Status> Recovery::replay_record(const format::PlacedRecord& placed) {
  auto& g = group_;
  std::vector<NodeRef> pins;
  const auto type = placed.record.header.type;
  const auto volume = g.find_volume(placed.record.header.volume);
  // Records of a volume may have passed the one that deleted it; rollbacks were judged before.
  const bool is_of_volume =
      type <= format::RecordType::kVolumeDelete && type != format::RecordType::kVolumeCreate;
  if (is_of_volume ? volume != nullptr : type != format::RecordType::kRevert) {
    Status possible = g.check_record(placed.record, g.head_.timeline);
    if (!possible) co_return possible;
  }
  if (type <= format::RecordType::kZero) {
    if (volume) {
      Status pinned = co_await g.pin_leaves(*volume, placed.record, pins);
      if (!pinned) co_return pinned;
    }
  }
  g.apply_record(placed.record, placed.extents);
  co_return ok();
}

}  // namespace tandem::store
