#include "tests/fuzz/hostile_peer.h"

#include <cstring>
#include <string>

#include "format/checksum.h"
#include "format/record.h"
#include "replication/handshake.h"

namespace tandem::fuzz {
namespace {

using format::RecordType;
using replication::current_timeline;

constexpr std::size_t kRecordBytesMax = 1 << 10;

Lsn moved(Lsn from, std::uint8_t by) {
  return Lsn{from.value + static_cast<std::uint64_t>(static_cast<std::int8_t>(by))};
}

}  // namespace

void HostilePeer::agree() { point_ = log_.tail(); }

GroupIdentity HostilePeer::identity() const {
  GroupIdentity identity = log_.identity();
  identity.pool = Uuid::from_random(5, 5);
  identity.node = "hostile";
  return identity;
}

TimelineHistory HostilePeer::history(std::uint8_t flags) const {
  TimelineHistory history = log_.history();
  if (flags & 1)
    history.push_back({Timeline{history.back().timeline.value + 1},
                       moved(log_.tail().lsn, flags >> 2), point_.utc});
  if (flags & 2 && history.size() > 1) history.erase(history.begin());
  return history;
}

LogPoint HostilePeer::head(Input& input) const {
  LogPoint head = point_;
  head.lsn = moved(head.lsn, input.u8());
  return head;
}

Message HostilePeer::hello(Input& input) {
  agree();
  message::Hello hello;
  hello.identity = identity();
  hello.role = input.u8() % 8 ? Role::kPrimary : Role::kMirror;
  hello.history = history(input.u8());
  hello.head = head(input);
  hello.head.timeline = current_timeline(hello.history);
  return hello;
}

Message HostilePeer::welcome(Input& input) {
  agree();
  message::Welcome welcome;
  welcome.identity = identity();
  welcome.role = input.u8() % 8 ? Role::kMirror : Role::kPrimary;
  welcome.history = history(input.u8());
  welcome.head = head(input);
  welcome.head.timeline = current_timeline(welcome.history);
  if (input.u8() & 1) welcome.head = LogPoint{};
  welcome.durable = moved(welcome.head.lsn, input.u8());
  return welcome;
}

IoBuffer HostilePeer::block(std::uint8_t stamp) const {
  IoBuffer data = buffers_.allocate(kBlockBytes);
  std::memset(data.data(), stamp, data.size());
  return data;
}

/// Type, volume, where, how much, and what its type has.
void HostilePeer::record(Input& input, RecordBatch& batch) {
  std::byte bytes[kRecordBytesMax] = {};
  format::Encoder out{std::span(bytes).subspan(format::kRecordHeaderBytes)};
  const auto kind = input.u8();
  const auto type = static_cast<RecordType>(kind % 11);
  const auto volume = input.u8();
  const std::uint64_t first = kind & 0x80 ? input.u64() : input.u8();
  std::uint32_t count =
      type <= RecordType::kZero ? (kind & 0x40 ? input.u32() : input.u8() % 66) : 0;
  const auto text = "n" + std::to_string(input.u8() % 8);
  switch (type) {
    case RecordType::kWrite:
      count = std::min<std::uint32_t>(count, format::kRecordBlocksMax + 1);
      for (std::uint32_t i = 0; i < count; ++i) {
        batch.payload.push_back(block(static_cast<std::uint8_t>(volume + i)));
        out.u32(format::crc32c(batch.payload.back().bytes()) ^ (kind & 0x20 ? i : 0));
      }
      break;
    case RecordType::kVolumeCreate:
      out.u64(kind & 0x20 ? input.u64() : std::uint64_t{input.u16()} * kBlockBytes);
      out.u32(512);
      out.text(text);
      break;
    case RecordType::kVolumeResize:
      out.u64(kind & 0x20 ? input.u64() : std::uint64_t{input.u16()} * kBlockBytes);
      break;
    case RecordType::kTimeline:
      out.u64(point_.timeline.value + input.u8() % 4);
      break;
    case RecordType::kSnapshot:
      out.u8(input.u8() % 4);
      out.text(text);
      out.text("");
      break;
    case RecordType::kRevert:
      out.u64(kind & 0x20 ? input.u8() : log_.history().back().fork.value + input.u8());
      out.text(text);
      break;
    default:
      break;
  }
  const std::size_t body_bytes = out.position();
  point_.lsn = point_.lsn.next();
  point_.utc.value += input.u8();
  if (type == RecordType::kTimeline)
    point_.timeline = Timeline{format::load_le(bytes + format::kRecordHeaderBytes, 8)};
  format::Encoder header{std::span(bytes)};
  header.u8(static_cast<std::uint8_t>(type));
  header.u8(0);
  header.u16(static_cast<std::uint16_t>(body_bytes));
  header.u32(volume);
  header.u64(point_.lsn.value);
  header.u64(point_.utc.value);
  header.u64(first);
  header.u32(count);
  header.u32(0);
  const auto canonical = std::span(bytes).first(format::kRecordHeaderBytes + body_bytes);
  point_.digest = format::chain(point_.digest, canonical);
  batch.records.insert(batch.records.end(), canonical.begin(), canonical.end());
}

Message HostilePeer::records(Input& input) {
  message::Records records;
  auto& batch = records.batch;
  batch.first = point_.lsn.next();
  batch.before = point_.digest;
  const auto bits = input.u8();
  for (int left = bits % 8; left >= 0; --left) record(input, batch);
  batch.last = point_.lsn;
  batch.after = point_.digest;
  records.flush = bits & 8;
  if (bits & 0x10) batch.last = moved(batch.last, input.u8());
  if (bits & 0x20 && !batch.payload.empty()) batch.payload.pop_back();
  return records;
}

Message HostilePeer::image_begin(Input& input) {
  message::ImageBegin begin;
  begin.history = history(input.u8());
  begin.point = head(input);
  begin.point.timeline = current_timeline(begin.history);
  for (int left = input.u8() % 4; left > 0; --left) {
    const auto id = input.u8();
    begin.volumes.push_back({VolumeId{id % 8u}, "v" + std::to_string(id % 5),
                             id & 0x80 ? input.u64() : std::uint64_t{input.u16()} * kBlockBytes,
                             id & 0x40 ? input.u32() : 512});
  }
  begin.next_volume_id = input.u8();
  begin.blocks_total = input.u8();
  return begin;
}

Message HostilePeer::image_blocks(Input& input) {
  message::ImageBlocks blocks;
  blocks.volume = VolumeId{input.u8() % 8u};
  const auto bits = input.u8();
  std::uint64_t at = bits & 0x80 ? input.u64() : input.u8();
  for (int left = bits % 8; left >= 0; --left) {
    const auto stamp = input.u8();
    blocks.payload.push_back(block(stamp));
    blocks.entries.push_back(
        {VolumeBlock{at}, format::crc32c(blocks.payload.back().bytes()) ^ (bits & 0x40 ? 1u : 0u),
         Lsn{bits & 0x20 ? input.u64() : input.u8()}});
    at += stamp % 4;
  }
  if (bits & 0x10) blocks.payload.pop_back();
  return blocks;
}

BlockVersion HostilePeer::version(Input& input) const {
  BlockVersion version{VolumeId{input.u8()}, VolumeBlock{input.u8()}, Lsn{input.u8()}, 0};
  version.crc32c = format::crc32c(block(input.u8()).bytes());
  return version;
}

std::optional<Message> HostilePeer::next(Input& input) {
  const auto kind = input.u8();
  switch (kind % 14) {
    case 0:
      return hello(input);
    case 1:
      return welcome(input);
    case 2:
      return message::Start{moved(point_.lsn, input.u8()), (kind & 0x80) != 0};
    case 3:
    case 4:
      return records(input);
    case 5:
      return message::Heartbeat{head(input), moved(point_.lsn, input.u8()), UtcNs{1},
                                (kind & 0x80) != 0};
    case 6:
      return image_begin(input);
    case 7:
      return image_blocks(input);
    case 8:
      return message::ImageEnd{head(input)};
    case 9: {
      message::Ack ack;
      ack.received = moved(log_.tail().lsn, input.u8());
      ack.written = moved(ack.received, input.u8());
      ack.durable = moved(ack.written, input.u8());
      ack.agreed = moved(ack.durable, input.u8());
      return ack;
    }
    case 10:
      return message::BlockRequest{input.u8(), version(input)};
    case 11: {
      message::BlockAnswer answer;
      answer.id = input.u8();
      if (kind & 0x80)
        answer.refusal = Error{ErrorCode::kNotFound, "no"};
      else
        answer.data = block(input.u8());
      return answer;
    }
    case 12:
      return message::Refuse{static_cast<ErrorCode>(input.u8() % 13), "hostile",
                             history(input.u8())};
    default:
      agree();
      return std::nullopt;
  }
}

}  // namespace tandem::fuzz
