#include "format/log_page.h"

#include "format/checksum.h"
#include "format/map_node.h"

namespace tandem::format {
namespace {

constexpr std::uint32_t kMagic = 0x474f4c54;  // "TLOG"
constexpr std::uint16_t kVersion = 1;
constexpr std::size_t kCrcOffset = 8;
constexpr std::uint16_t kFlagFirstOfBoot = 1;

/// A map entry holds 40 bits of block number; the two lowest blocks are the superblock's.
bool is_possible(const Extent& e) {
  return e.count >= 1 && e.count <= kRecordBlocksMax && e.start > kZeroBlock &&
         e.start.value + e.count - 1 <= kPoolBlockMax;
}

}  // namespace

void encode_placement(Encoder& out, std::span<const Extent> extents) {
  out.u32(static_cast<std::uint32_t>(extents.size()));
  for (const auto& e : extents) {
    out.u64(e.start.value);
    out.u32(e.count);
  }
}

void finish_log_page(std::span<std::byte, kBlockBytes> page, const LogPageHeader& h) {
  CHECK(h.used_bytes <= kLogPageBodyBytes);
  Encoder out(page.first(kLogPageHeaderBytes));
  out.u32(kMagic);
  out.u16(kVersion);
  out.u16(h.first_of_boot ? kFlagFirstOfBoot : 0);
  out.u32(0);  // crc
  out.u32(h.used_bytes);
  out.uuid(h.group);
  out.u64(h.at.value);
  out.u64(h.before.lsn.value);
  out.u32(h.record_count);
  out.u32(h.next_zone.value);
  out.u64(h.before.digest.value);
  out.u64(h.boot);
  out.u64(h.durable.value);
  out.u64(h.before.timeline.value);
  out.u64(h.before.payload_bytes);
  out.u64(h.before.utc.value);
  out.zeroes(kLogPageHeaderBytes - out.position());
  auto body = page.subspan(kLogPageHeaderBytes);
  std::memset(body.data() + h.used_bytes, 0, body.size() - h.used_bytes);
  seal_page(page, kCrcOffset);
}

Result<LogPageHeader> decode_log_page_header(std::span<const std::byte, kBlockBytes> page) {
  Decoder in(page);
  LogPageHeader h;
  if (in.u32() != kMagic) return Error{ErrorCode::kCorrupt, "not a log page"};
  const auto version = in.u16();
  const auto flags = in.u16();
  in.skip(4);
  h.used_bytes = in.u32();
  h.group = in.uuid();
  h.at = PoolBlock{in.u64()};
  h.before.lsn = Lsn{in.u64()};
  h.record_count = in.u32();
  h.next_zone = ZoneId{in.u32()};
  h.before.digest = Digest{in.u64()};
  h.boot = in.u64();
  h.durable = Lsn{in.u64()};
  h.before.timeline = Timeline{in.u64()};
  h.before.payload_bytes = in.u64();
  h.before.utc = UtcNs{in.u64()};
  h.first_of_boot = (flags & kFlagFirstOfBoot) != 0;
  if (!page_is_whole(page, kCrcOffset)) return Error{ErrorCode::kCorrupt, "log page is torn"};
  if (version != kVersion) {
    return Error{ErrorCode::kUnsupported, "log page has format version " + std::to_string(version) +
                                              ", this build knows version 1; upgrade this node"};
  }
  if ((flags & ~kFlagFirstOfBoot) != 0) {
    return Error{ErrorCode::kUnsupported,
                 "log page uses a feature this build does not know; upgrade this node"};
  }
  // Without a record it would follow itself, and the log go round in a circle.
  if (h.record_count == 0) return Error{ErrorCode::kCorrupt, "log page has no record"};
  if (h.used_bytes > kLogPageBodyBytes) return Error{ErrorCode::kCorrupt, "log page overflows"};
  return h;
}

Result<std::vector<PlacedRecord>> decode_log_page_body(std::span<const std::byte, kBlockBytes> page,
                                                       const LogPageHeader& header) {
  Decoder in(page.subspan(kLogPageHeaderBytes, header.used_bytes));
  std::vector<PlacedRecord> records;
  Lsn expected = header.before.lsn;
  for (std::uint32_t i = 0; i < header.record_count; ++i) {
    auto record = decode_record(in);
    if (!record) return Error(std::move(record.error()));
    expected = expected.next();
    if (record->header.lsn != expected) {
      return Error{ErrorCode::kCorrupt, "log page holds LSN " +
                                            std::to_string(record->header.lsn.value) + " where " +
                                            std::to_string(expected.value) + " is due"};
    }
    PlacedRecord placed{*record, {}};
    const auto extents = in.u32();
    if (extents > kRecordBlocksMax) return Error{ErrorCode::kCorrupt, "placement is wrong"};
    std::uint64_t blocks = 0;
    for (std::uint32_t e = 0; e < extents; ++e) {
      Extent extent{PoolBlock{in.u64()}, in.u32()};
      if (!is_possible(extent)) return Error{ErrorCode::kCorrupt, "placement is wrong"};
      blocks += extent.count;
      placed.extents.push_back(extent);
    }
    if (in.failed() || blocks != (record->has_data() ? record->header.block_count : 0)) {
      return Error{ErrorCode::kCorrupt, "placement is wrong"};
    }
    records.push_back(std::move(placed));
  }
  if (in.remaining() != 0) return Error{ErrorCode::kCorrupt, "log page has bytes left over"};
  return records;
}

}  // namespace tandem::format
