#include "format/record.h"

namespace tandem::format {
namespace {

void encode_header(Encoder& out, const RecordHeader& h, std::size_t body_bytes) {
  CHECK(body_bytes <= 0xffff);
  out.u8(static_cast<std::uint8_t>(h.type));
  out.u8(0);  // flags
  out.u16(static_cast<std::uint16_t>(body_bytes));
  out.u32(h.volume.value);
  out.u64(h.lsn.value);
  out.u64(h.utc.value);
  out.u64(h.first_block.value);
  out.u32(h.block_count);
  out.u32(0);
}

Error corrupt(const RecordHeader& h, const char* what) {
  return {ErrorCode::kCorrupt, "record with LSN " + std::to_string(h.lsn.value) + ": " + what};
}

bool is_volume_size(std::uint64_t bytes) { return bytes >= 1 && bytes <= kVolumeBytesMax; }

bool body_fits(const RecordHeader& h, std::size_t body_bytes) {
  switch (h.type) {
    case RecordType::kWrite:
      return h.block_count >= 1 && h.block_count <= kRecordBlocksMax &&
             body_bytes == 4 * static_cast<std::size_t>(h.block_count);
    case RecordType::kDiscard:
    case RecordType::kZero:
      return h.block_count >= 1 && h.block_count <= kRangeBlocksMax && body_bytes == 0;
    case RecordType::kVolumeCreate:
      return body_bytes >= 14;
    case RecordType::kVolumeResize:
      return body_bytes == 8;
    case RecordType::kVolumeDelete:
      return body_bytes == 0;
    case RecordType::kTimeline:
      return body_bytes == 8;
    case RecordType::kSnapshot:
      return body_bytes >= 6;
    case RecordType::kRevert:
      return body_bytes >= 11;
  }
  return false;
}

}  // namespace

void encode_write(Encoder& out, const RecordHeader& header, std::span<const std::uint32_t> crcs) {
  CHECK(crcs.size() == header.block_count && crcs.size() <= kRecordBlocksMax);
  encode_header(out, header, 4 * crcs.size());
  for (auto crc : crcs) out.u32(crc);
}

void encode_range(Encoder& out, const RecordHeader& header) { encode_header(out, header, 0); }

void encode_volume_create(Encoder& out, const RecordHeader& header, const VolumeCreateBody& body) {
  CHECK(body.name.size() <= kVolumeNameBytesMax);
  encode_header(out, header, 8 + 4 + 2 + body.name.size());
  out.u64(body.size_bytes);
  out.u32(body.logical_block_bytes);
  out.text(body.name);
}

void encode_volume_resize(Encoder& out, const RecordHeader& header, std::uint64_t size_bytes) {
  encode_header(out, header, 8);
  out.u64(size_bytes);
}

void encode_timeline(Encoder& out, const RecordHeader& header, Timeline timeline) {
  encode_header(out, header, 8);
  out.u64(timeline.value);
}

void encode_snapshot(Encoder& out, const RecordHeader& header, const SnapshotBody& body) {
  CHECK(!body.name.empty() && body.name.size() <= kSnapshotNameBytesMax &&
        body.label.size() <= kSnapshotLabelBytesMax);
  encode_header(out, header, 1 + 2 + body.name.size() + 2 + body.label.size());
  out.u8(static_cast<std::uint8_t>(body.consistency));
  out.text(body.name);
  out.text(body.label);
}

void encode_revert(Encoder& out, const RecordHeader& header, const RevertBody& body) {
  CHECK(!body.branch.empty() && body.branch.size() <= kSnapshotNameBytesMax);
  encode_header(out, header, 8 + 2 + body.branch.size());
  out.u64(body.to.value);
  out.text(body.branch);
}

void set_consistency(std::span<std::byte> canonical, Consistency consistency) {
  canonical[kRecordHeaderBytes] = static_cast<std::byte>(consistency);
}

Result<Record> decode_record(Decoder& in) {
  Decoder probe = in;
  Record record;
  auto& h = record.header;
  h.type = static_cast<RecordType>(in.u8());
  const auto flags = in.u8();
  const std::size_t body_bytes = in.u16();
  h.volume = VolumeId{in.u32()};
  h.lsn = Lsn{in.u64()};
  h.utc = UtcNs{in.u64()};
  h.first_block = VolumeBlock{in.u64()};
  h.block_count = in.u32();
  const auto reserved = in.u32();
  record.body = in.raw(body_bytes);
  if (in.failed()) return Error{ErrorCode::kCorrupt, "record is cut short"};
  if (flags != 0 || reserved != 0) {
    return Error{ErrorCode::kUnsupported,
                 "record with LSN " + std::to_string(h.lsn.value) +
                     " uses a feature this version does not know; upgrade this node"};
  }
  if (!body_fits(h, body_bytes)) return corrupt(h, "type or size of its body is wrong");
  if (h.first_block.value > kVolumeBytesMax / kBlockBytes) return corrupt(h, "block out of range");
  // Checked here because whoever applies a resize takes its size as it is.
  if (h.type == RecordType::kVolumeResize && !is_volume_size(load_le(record.body.data(), 8))) {
    return corrupt(h, "size of the volume is out of range");
  }
  record.canonical = probe.raw(kRecordHeaderBytes + body_bytes);
  return record;
}

Result<SnapshotBody> decode_snapshot(const Record& record) {
  Decoder in(record.body);
  SnapshotBody body;
  const auto consistency = in.u8();
  body.consistency = static_cast<Consistency>(consistency);
  body.name = in.text();
  body.label = in.text();
  if (in.failed() || in.remaining() != 0 || consistency > 2 || body.name.empty() ||
      body.name.size() > kSnapshotNameBytesMax || body.label.size() > kSnapshotLabelBytesMax) {
    return corrupt(record.header, "snapshot description is wrong");
  }
  return body;
}

Result<RevertBody> decode_revert(const Record& record) {
  Decoder in(record.body);
  RevertBody body;
  body.to = Lsn{in.u64()};
  body.branch = in.text();
  if (in.failed() || in.remaining() != 0 || body.to >= record.header.lsn || body.branch.empty() ||
      body.branch.size() > kSnapshotNameBytesMax) {
    return corrupt(record.header, "description of a rollback is wrong");
  }
  return body;
}

Result<VolumeCreateBody> decode_volume_create(const Record& record) {
  Decoder in(record.body);
  VolumeCreateBody body;
  body.size_bytes = in.u64();
  body.logical_block_bytes = in.u32();
  body.name = in.text();
  if (in.failed() || in.remaining() != 0 || body.name.empty() ||
      body.name.size() > kVolumeNameBytesMax ||
      (body.logical_block_bytes != 512 && body.logical_block_bytes != 4096) ||
      !is_volume_size(body.size_bytes) || body.size_bytes % body.logical_block_bytes != 0) {
    return corrupt(record.header, "volume description is wrong");
  }
  return body;
}

Result<std::uint64_t> decode_volume_resize(const Record& record) {
  Decoder in(record.body);
  return in.u64();
}

Result<Timeline> decode_timeline(const Record& record) {
  Decoder in(record.body);
  return Timeline{in.u64()};
}

}  // namespace tandem::format
