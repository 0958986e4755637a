#include "inspect/log_walk.h"

#include <algorithm>

#include "format/checksum.h"

namespace tandem::inspect {
namespace {

std::string block_text(PoolBlock at) { return "block " + std::to_string(at.value); }

bool is_last_of_zone(const format::Superblock& s, PoolBlock at) {
  return at.value % s.zone_blocks == s.zone_blocks - 1u;
}

LogPoint behind(LogPoint point, const std::vector<format::PlacedRecord>& records) {
  for (const auto& placed : records) {
    const auto& h = placed.record.header;
    point.lsn = h.lsn;
    point.utc = h.utc;
    point.digest = format::chain(point.digest, placed.record.canonical);
    if (placed.record.has_data()) point.payload_bytes += h.block_count * kBlockBytes;
    if (h.type == format::RecordType::kTimeline) {
      point.timeline = *format::decode_timeline(placed.record);
    }
  }
  return point;
}

/// What keeps `page` from following `point`; empty when it does.
std::string breaks_chain(const LogPageView& page, const LogPoint& point, std::uint64_t boot) {
  const auto& h = page.header;
  if (h.before.lsn != point.lsn) {
    return "its records follow LSN " + std::to_string(h.before.lsn.value) + ", not " +
           std::to_string(point.lsn.value);
  }
  if (h.before.digest != point.digest) return "its digest is of another history";
  if (h.before != point) return "time, timeline or payload in front of it do not fit";
  if (!h.first_of_boot && h.boot != boot) return "it was written by another start of the daemon";
  return {};
}

}  // namespace

Result<LogPageView> read_log_page(const PoolView& pool, const GroupView& group, PoolBlock at) {
  LogPageView view;
  view.at = at;
  view.bytes = IoBuffer::on_heap(kBlockBytes);
  Status read = pool.reader().read(at, view.bytes.bytes());
  if (!read) return Error(std::move(read.error()));
  const format::ConstPage page(view.bytes.bytes());
  auto header = format::decode_log_page_header(page);
  if (!header) return Error(std::move(header.error()));
  view.header = *header;
  if (header->group != group.anchor.group) {
    return Error{ErrorCode::kCorrupt, "log page of group " + header->group.text()};
  }
  if (header->at != at) {
    return Error{ErrorCode::kCorrupt, "log page that belongs to " + block_text(header->at)};
  }
  auto records = format::decode_log_page_body(page, *header);
  if (!records) return Error(std::move(records.error()));
  view.records = std::move(*records);
  view.after = behind(header->before, view.records);
  return view;
}

void walk_kept_log(const PoolView& pool, const GroupView& group, Lsn from,
                   const std::function<bool(const LogPageView&)>& visit,
                   const std::function<void(PoolBlock, std::string)>& damage) {
  const auto& s = pool.superblock();
  const auto& zones = group.descriptor.log_zones;
  std::size_t i = 0;
  while (i + 1 < zones.size() && zones[i + 1].first <= from.next()) ++i;
  PoolBlock at = s.zone_start(zones[i].zone);
  LogPoint point;
  std::uint64_t boot = 0;
  bool first = true;
  while (at != group.descriptor.log_next) {
    auto page = read_log_page(pool, group, at);
    if (!page) return damage(at, page.error().message);
    if (first && page->header.before.lsn.next() != zones[i].first) {
      return damage(at, "begins with LSN " + std::to_string(page->header.before.lsn.value + 1) +
                            ", the checkpoint says " + std::to_string(zones[i].first.value));
    }
    if (!first) {
      auto broken = breaks_chain(*page, point, boot);
      if (!broken.empty()) return damage(at, std::move(broken));
    }
    first = false;
    point = page->after;
    boot = page->header.boot;
    if (page->last() > from && !visit(*page)) return;
    if (!is_last_of_zone(s, at)) {
      at = at.next();
      continue;
    }
    ++i;
    if (i == zones.size() || page->header.next_zone != zones[i].zone) {
      return damage(at, "names zone " + std::to_string(page->header.next_zone.value) +
                            " as the next, the checkpoint does not");
    }
    at = s.zone_start(zones[i].zone);
  }
  if (first) return;
  if (point != group.descriptor.point) {
    damage(at, "the log in front of the checkpoint ends at LSN " + std::to_string(point.lsn.value) +
                   " or with another digest, the checkpoint is at " +
                   std::to_string(group.descriptor.point.lsn.value));
  } else if (boot != group.descriptor.log_boot) {
    damage(at, "the checkpoint names another start of the daemon than its last log page");
  }
}

Result<std::vector<std::byte>> read_record_data(const PoolView& pool,
                                                const format::PlacedRecord& placed) {
  std::vector<std::byte> data(std::size_t{placed.record.header.block_count} * kBlockBytes);
  std::size_t at = 0;
  for (const auto& e : placed.extents) {
    Status read = pool.reader().read(e.start, std::span(data).subspan(at, e.count * kBlockBytes));
    if (!read) return Error(std::move(read.error()));
    at += e.count * kBlockBytes;
  }
  for (std::uint32_t i = 0; i < placed.record.header.block_count; ++i) {
    if (format::crc32c(std::span(data).subspan(i * kBlockBytes, kBlockBytes)) ==
        placed.record.crc(i)) {
      continue;
    }
    return Error{ErrorCode::kCorrupt,
                 "data of LSN " + std::to_string(placed.record.header.lsn.value) + ", block " +
                     std::to_string(i) + " of " + std::to_string(placed.record.header.block_count) +
                     ", fails its checksum"};
  }
  return data;
}

namespace {

void scan(const PoolView& pool, const GroupView& group, LogTail& tail) {
  const auto& s = pool.superblock();
  PoolBlock at = group.descriptor.log_next;
  std::uint64_t boot = group.descriptor.log_boot;
  std::set<ZoneId> entered{s.zone_of(at)};
  for (;;) {
    tail.end_at = at;
    auto page = read_log_page(pool, group, at);
    if (!page) {
      tail.end = page.error().message;
      if (page.error().code == ErrorCode::kUnsupported || page.error().code == ErrorCode::kIo) {
        tail.problems.push_back(block_text(at) + ": " + page.error().message);
      }
      return;
    }
    tail.end = breaks_chain(*page, tail.head, boot);
    if (!tail.end.empty()) return;
    tail.head = page->after;
    boot = page->header.boot;
    tail.durable = std::max(tail.durable, page->header.durable);
    const ZoneId next_zone = page->header.next_zone;
    tail.pages.push_back(std::move(*page));
    if (!is_last_of_zone(s, at)) {
      at = at.next();
      continue;
    }
    if (!pool.owns(group.slot, next_zone) || !entered.insert(next_zone).second) {
      tail.end = "the log goes on in zone " + std::to_string(next_zone.value);
      tail.problems.push_back(block_text(at) + ": " + tail.end +
                              ", which is not the group's or holds log already");
      return;
    }
    at = s.zone_start(next_zone);
  }
}

/// As recovery does: pages behind the end, by the same writer, may know that more was flushed.
void look_behind_end(const PoolView& pool, const GroupView& group, LogTail& tail) {
  constexpr int kOthersMax = 64;  // many more than are ever written at once
  const std::uint64_t boot =
      tail.pages.empty() ? group.descriptor.log_boot : tail.pages.back().header.boot;
  const ZoneId zone = pool.superblock().zone_of(tail.end_at);
  int others = 0;
  for (PoolBlock at = tail.end_at; pool.superblock().zone_of(at) == zone && others < kOthersMax;
       at = at.next()) {
    const auto page = read_log_page(pool, group, at);
    const bool is_ours = page && page->header.boot == boot;
    others = is_ours ? 0 : others + 1;
    if (is_ours) tail.durable = std::max(tail.durable, page->header.durable);
  }
}

}  // namespace

LogTail load_log_tail(const PoolView& pool, const GroupView& group, bool read_data) {
  LogTail tail;
  tail.head = group.descriptor.point;
  tail.durable = group.descriptor.point.lsn;
  scan(pool, group, tail);
  look_behind_end(pool, group, tail);
  if (!read_data) return tail;
  for (std::size_t i = 0; i < tail.pages.size(); ++i) {
    const auto& page = tail.pages[i];
    if (page.last() <= tail.durable) continue;
    for (const auto& placed : page.records) {
      if (!placed.record.has_data()) continue;
      auto data = read_record_data(pool, placed);
      if (data) continue;
      tail.end = data.error().message;
      tail.end_at = page.at;
      tail.head = page.header.before;
      tail.cut_pages = tail.pages.size() - i;
      tail.pages.erase(tail.pages.begin() + static_cast<std::ptrdiff_t>(i), tail.pages.end());
      return tail;
    }
  }
  return tail;
}

}  // namespace tandem::inspect
