#include "rpc/link_codec.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "rpc/inquiry_codec.h"
#include "rpc/payload_codec.h"
#include "rpc/source_codec.h"
#include "rpc/translation.h"
#include "rpc/wire.h"

// gRPC, not built with the thread sanitizer, has filled the slices that are read here on a thread
// and in an order that it does not see: it would report every word of every payload.
#if defined(__SANITIZE_THREAD__)
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);
#endif

namespace tandem::rpc {
namespace {

struct TrustForeignMemory {
#if defined(__SANITIZE_THREAD__)
  TrustForeignMemory() { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~TrustForeignMemory() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
#endif
};

using rpc::fill;
using rpc::from_proto;
using rpc::take;
using rpc::to_proto;
using wire::Reader;
using wire::WireType;
using wire::Writer;

constexpr std::uint32_t kCodecField = 7, kRawBytesField = 8, kLoneField = 9, kPayloadField = 15;
/// Larger runs of records travel as a slice of their own instead of being copied.
constexpr std::size_t kRecordsCopyMax = 4096;

std::atomic<std::size_t> payload_slices{0};

void drop_buffer(void* buffer) {
  delete static_cast<IoBuffer*>(buffer);
  payload_slices.fetch_sub(1, std::memory_order_release);
}
void drop_string(void* text) { delete static_cast<std::string*>(text); }
void drop_records(void* records) { delete static_cast<std::vector<std::byte>*>(records); }

Error invalid(std::string what) {
  return Error{ErrorCode::kInvalid, "replication message: " + std::move(what)};
}

// ---- encoding -------------------------------------------------------------------------------

std::size_t total_bytes(const std::vector<IoBuffer>& payload) {
  std::size_t bytes = 0;
  for (const auto& buffer : payload) bytes += buffer.size();
  return bytes;
}

/// Payload as it goes over the wire: the buffers themselves, or what they were compressed to.
struct WirePayload {
  std::vector<IoBuffer> buffers;
  std::optional<std::string> packed;
  std::size_t bytes = 0;
};

WirePayload wire_payload(std::vector<IoBuffer> payload, bool wants_compression, Writer& fields) {
  WirePayload out;
  out.bytes = total_bytes(payload);
  if (wants_compression && out.bytes != 0) out.packed = compress(payload);
  if (!out.packed) {
    out.buffers = std::move(payload);
    return out;
  }
  fields.varint_field(kCodecField, message::kCodecLz4);
  fields.varint_field(kRawBytesField, out.bytes);
  out.bytes = out.packed->size();
  return out;
}

void append_payload(std::vector<IoBuffer> payload, std::vector<grpc::Slice>& slices) {
  for (auto& buffer : payload) {
    if (buffer.empty()) continue;
    auto* held = new IoBuffer(std::move(buffer));
    payload_slices.fetch_add(1, std::memory_order_relaxed);
    slices.emplace_back(held->data(), held->size(), &drop_buffer, held);
  }
}

void append_payload(WirePayload payload, std::vector<grpc::Slice>& slices) {
  if (!payload.packed) return append_payload(std::move(payload.buffers), slices);
  auto* held = new std::string(std::move(*payload.packed));
  slices.emplace_back(held->data(), held->size(), &drop_string, held);
}

/// The head of a StreamMessage whose `kind` is `inner` followed by `trailing` more bytes.
Writer envelope(std::uint32_t kind, const Writer& inner, std::size_t trailing) {
  Writer head;
  head.bytes_field(kind, inner.size() + trailing);
  head.append(inner);
  return head;
}

Result<grpc::ByteBuffer> encode_records(message::Records message) {
  auto& batch = message.batch;
  const auto raw_bytes = total_bytes(batch.payload);
  if (batch.records.size() + raw_bytes > kMessageBytesMax - 256)
    return invalid("a batch of records is larger than 64 MiB; send it in parts");
  if (batch.empty() && raw_bytes != 0) return invalid("payload without records");

  Writer fields;
  fields.varint_field(1, batch.first.value);
  fields.varint_field(2, batch.last.value);
  fields.fixed64_field(3, batch.before.value);
  fields.fixed64_field(4, batch.after.value);
  fields.varint_field(5, message.flush ? 1 : 0);

  // What follows the fields: the records (copied behind them when small) and the payload.
  const bool copy_records = batch.records.size() <= kRecordsCopyMax;
  Writer payload_head;
  auto payload = wire_payload(std::move(batch.payload), message.compress, payload_head);
  payload_head.varint_field(kLoneField, message.lone ? 1 : 0);
  const auto payload_bytes = payload.bytes;
  if (payload_bytes != 0) payload_head.bytes_field(kPayloadField, payload_bytes);
  if (!batch.records.empty()) fields.bytes_field(6, batch.records.size());
  if (copy_records) fields.raw(batch.records);
  const auto trailing =
      (copy_records ? 0 : batch.records.size()) + payload_head.size() + payload_bytes;
  auto head = envelope(v1::StreamMessage::kRecords, fields, trailing);

  std::vector<grpc::Slice> slices;
  slices.reserve(4 + payload.buffers.size());
  if (copy_records) {
    head.append(payload_head);
    slices.emplace_back(head.out().data(), head.size());
  } else {
    slices.emplace_back(head.out().data(), head.size());
    auto* held = new std::vector<std::byte>(std::move(batch.records));
    slices.emplace_back(held->data(), held->size(), &drop_records, held);
    if (payload_head.size() != 0)
      slices.emplace_back(payload_head.out().data(), payload_head.size());
  }
  append_payload(std::move(payload), slices);
  return grpc::ByteBuffer(slices.data(), slices.size());
}

Result<grpc::ByteBuffer> encode_image_blocks(message::ImageBlocks message) {
  const auto raw_bytes = total_bytes(message.payload);
  const auto count = message.entries.size();
  if (count > kImageEntriesMax - 512)
    return invalid("an image message is larger than 64 MiB; send it in parts");
  if (raw_bytes % kBlockBytes != 0 || raw_bytes > count * kBlockBytes)
    return invalid("an image message's payload does not match its entries");

  Writer fields;
  fields.varint_field(1, message.volume.value);
  if (count != 0) {
    fields.bytes_field(2, count * 8);
    for (const auto& entry : message.entries) fields.fixed64(entry.block.value);
    fields.bytes_field(3, count * 4);
    for (const auto& entry : message.entries) fields.fixed32(entry.crc32c);
    fields.bytes_field(4, count * 8);
    for (const auto& entry : message.entries) fields.fixed64(entry.lsn.value);
  }
  auto payload = wire_payload(std::move(message.payload), message.compress, fields);
  if (payload.bytes != 0) fields.bytes_field(kPayloadField, payload.bytes);
  const auto head = envelope(v1::StreamMessage::kImageBlocks, fields, payload.bytes);
  std::vector<grpc::Slice> slices;
  slices.reserve(1 + payload.buffers.size());
  slices.emplace_back(head.out().data(), head.size());
  append_payload(std::move(payload), slices);
  return grpc::ByteBuffer(slices.data(), slices.size());
}

void to_proto(const GroupIdentity& identity, v1::GroupIdentity* out) {
  out->set_group(uuid_bytes(identity.group));
  out->set_name(wire::utf8(identity.name));
  out->set_pool(uuid_bytes(identity.pool));
  out->set_node(wire::utf8(identity.node));
}

/// A range of one version is written as releases did that spoke only one.
std::uint32_t oldest_field(const message::VersionRange& versions) {
  return versions.oldest == versions.newest ? 0 : versions.oldest;
}

void fill(const message::Hello& m, v1::StreamMessage& out) {
  auto* p = out.mutable_hello();
  p->set_version(m.versions.newest);
  p->set_version_oldest(oldest_field(m.versions));
  to_proto(m.identity, p->mutable_identity());
  p->set_role(to_proto(m.role));
  p->set_mode(to_proto(m.mode));
  to_proto(m.head, p->mutable_head());
  to_proto(m.history, p->mutable_history());
  to_proto(m.sources, p->mutable_sources());
}
void fill(const message::Welcome& m, v1::StreamMessage& out) {
  auto* p = out.mutable_welcome();
  p->set_version(m.versions.newest);
  p->set_version_oldest(oldest_field(m.versions));
  to_proto(m.identity, p->mutable_identity());
  p->set_role(to_proto(m.role));
  to_proto(m.head, p->mutable_head());
  p->set_durable(m.durable.value);
  p->set_codecs(m.codecs);
  to_proto(m.history, p->mutable_history());
}
void fill(const message::Refuse& m, v1::StreamMessage& out) {
  auto* p = out.mutable_refuse();
  p->set_code(to_proto(m.code));
  p->set_reason(wire::utf8(m.reason));
  to_proto(m.history, p->mutable_history());
}
void fill(const message::Start& m, v1::StreamMessage& out) {
  out.mutable_start()->set_after(m.after.value);
  out.mutable_start()->set_from_image(m.from_image);
}
void fill(const message::Ack& m, v1::StreamMessage& out) {
  auto* p = out.mutable_ack();
  p->set_received(m.received.value);
  p->set_written(m.written.value);
  p->set_durable(m.durable.value);
  p->set_agreed(m.agreed.value);
}
void fill(const message::Heartbeat& m, v1::StreamMessage& out) {
  auto* p = out.mutable_heartbeat();
  to_proto(m.head, p->mutable_head());
  p->set_durable(m.durable.value);
  p->set_sent_utc_ns(m.sent.value);
  p->set_flush(m.flush);
  if (m.everywhere) p->set_everywhere(m.everywhere->value);
}
void fill(const message::ImageBegin& m, v1::StreamMessage& out) {
  auto* p = out.mutable_image_begin();
  to_proto(m.point, p->mutable_point());
  to_proto(m.history, p->mutable_history());
  for (const auto& volume : m.volumes) {
    auto* v = p->add_volumes();
    v->set_id(volume.id.value);
    v->set_name(wire::utf8(volume.name));
    v->set_size_bytes(volume.size_bytes);
    v->set_logical_block_bytes(volume.logical_block_bytes);
  }
  p->set_next_volume_id(m.next_volume_id);
  p->set_blocks_total(m.blocks_total);
  if (m.base) to_proto(*m.base, p->mutable_base());
}
void fill(const message::ImageEnd& m, v1::StreamMessage& out) {
  to_proto(m.point, out.mutable_image_end()->mutable_point());
}

template <class M>
Result<grpc::ByteBuffer> encode_small(const M& message) {
  v1::StreamMessage out;
  fill(message, out);
  const auto bytes = out.SerializeAsString();
  if (bytes.size() > kMessageBytesMax) return invalid("larger than 64 MiB");
  grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// ---- decoding -------------------------------------------------------------------------------

/// How a payload that follows is packed; both come before it.
struct Packing {
  std::uint64_t codec = 0;
  std::uint64_t raw_bytes = 0;
};

bool read_packed(Reader& reader, std::uint64_t length, const Packing& packing, BufferPool& pool,
                 std::vector<IoBuffer>& payload) {
  if (packing.codec != message::kCodecLz4 || packing.raw_bytes == 0) return false;
  std::vector<std::byte> packed(length);
  return reader.copy(packed) && decompress(packed, packing.raw_bytes, pool, payload);
}

bool read_payload(Reader& reader, std::uint64_t length, const Packing& packing, BufferPool& pool,
                  std::vector<IoBuffer>& payload) {
  if (length > reader.remaining() || !payload.empty()) return false;
  if (packing.codec != 0) return read_packed(reader, length, packing, pool, payload);
  while (length > 0) {
    auto piece = pool.allocate(std::min<std::uint64_t>(length, kPieceBytes));
    if (!reader.copy(piece.bytes())) return false;
    length -= piece.size();
    payload.push_back(std::move(piece));
  }
  return true;
}

Result<Message> decode_records(Reader& reader, std::size_t end, BufferPool& pool) {
  message::Records out;
  auto& batch = out.batch;
  std::uint32_t field;
  WireType type;
  std::uint64_t value = 0;
  Packing packing;
  while (reader.position() < end) {
    bool good = reader.tag(field, type);
    if (good && field == 1 && type == WireType::kVarint) {
      good = reader.varint(batch.first.value);
    } else if (good && field == 2 && type == WireType::kVarint) {
      good = reader.varint(batch.last.value);
    } else if (good && field == 3 && type == WireType::kFixed64) {
      good = reader.fixed64(batch.before.value);
    } else if (good && field == 4 && type == WireType::kFixed64) {
      good = reader.fixed64(batch.after.value);
    } else if (good && field == 5 && type == WireType::kVarint) {
      good = reader.flag(out.flush);
    } else if (good && field == 6 && type == WireType::kBytes) {
      good = reader.varint(value) && value <= reader.remaining() && batch.records.empty();
      if (good) batch.records.resize(value);
      good = good && reader.copy(batch.records);
    } else if (good && field == kCodecField && type == WireType::kVarint) {
      good = reader.varint(packing.codec);
    } else if (good && field == kRawBytesField && type == WireType::kVarint) {
      good = reader.varint(packing.raw_bytes);
    } else if (good && field == kLoneField && type == WireType::kVarint) {
      good = reader.flag(out.lone);
    } else if (good && field == kPayloadField && type == WireType::kBytes) {
      good = reader.varint(value) && read_payload(reader, value, packing, pool, batch.payload);
    } else {
      good = good && reader.skip_value(type);
    }
    if (!good) return invalid("malformed records");
  }
  if (reader.position() != end) return invalid("records that overrun their length");
  const bool numbered = batch.first.value != 0;
  if (batch.empty() ? numbered || !batch.payload.empty()
                    : !numbered || batch.last < batch.first ||
                          batch.last.value - batch.first.value >= batch.records.size())
    return invalid("records whose positions do not match their bytes");
  return Message(std::move(out));
}

/// Reads a packed field of `item_bytes` an item; 0 items and more than the limit are malformed.
bool read_count(Reader& reader, std::size_t item_bytes, std::size_t& count) {
  std::uint64_t length;
  if (!reader.varint(length) || length > reader.remaining() || length % item_bytes != 0)
    return false;
  count = length / item_bytes;
  return count != 0 && count <= kImageEntriesMax;
}

/// Reads one of the three arrays into the member that `set` names.
template <class Set>
bool read_array(Reader& reader, std::size_t item_bytes, std::vector<message::ImageEntry>& entries,
                Set set) {
  std::size_t count;
  if (!read_count(reader, item_bytes, count)) return false;
  if (entries.empty()) entries.resize(count);
  if (entries.size() != count) return false;
  for (auto& entry : entries) {
    std::uint64_t wide = 0;
    std::uint32_t narrow = 0;
    if (!(item_bytes == 8 ? reader.fixed64(wide) : reader.fixed32(narrow))) return false;
    set(entry, item_bytes == 8 ? wide : narrow);
  }
  return true;
}

Result<Message> decode_image_blocks(Reader& reader, std::size_t end, BufferPool& pool) {
  message::ImageBlocks out;
  std::uint32_t field;
  WireType type;
  std::uint64_t value = 0;
  Packing packing;
  unsigned arrays = 0;  // bit per array seen: each exactly once
  while (reader.position() < end) {
    bool good = reader.tag(field, type);
    if (good && field == 1 && type == WireType::kVarint) {
      good = reader.varint(value) && value <= UINT32_MAX;
      out.volume.value = static_cast<std::uint32_t>(value);
    } else if (good && field >= 2 && field <= 4) {
      const unsigned bit = 1u << field;
      good = type == WireType::kBytes && (arrays & bit) == 0;
      arrays |= bit;
      if (good && field == 2)
        good = read_array(reader, 8, out.entries,
                          [](auto& entry, std::uint64_t v) { entry.block.value = v; });
      if (good && field == 3)
        good = read_array(reader, 4, out.entries, [](auto& entry, std::uint64_t v) {
          entry.crc32c = static_cast<std::uint32_t>(v);
        });
      if (good && field == 4)
        good = read_array(reader, 8, out.entries,
                          [](auto& entry, std::uint64_t v) { entry.lsn.value = v; });
    } else if (good && field == kCodecField && type == WireType::kVarint) {
      good = reader.varint(packing.codec);
    } else if (good && field == kRawBytesField && type == WireType::kVarint) {
      good = reader.varint(packing.raw_bytes);
    } else if (good && field == kPayloadField && type == WireType::kBytes) {
      good = reader.varint(value) && read_payload(reader, value, packing, pool, out.payload);
    } else {
      good = good && reader.skip_value(type);
    }
    if (!good) return invalid("malformed image blocks");
  }
  constexpr unsigned kAllArrays = 1u << 2 | 1u << 3 | 1u << 4;
  if (reader.position() != end) return invalid("image blocks that overrun their length");
  if (arrays != 0 && arrays != kAllArrays) return invalid("image blocks without all their arrays");
  const auto raw_bytes = total_bytes(out.payload);
  if (raw_bytes % kBlockBytes != 0 || raw_bytes > out.entries.size() * kBlockBytes)
    return invalid("image blocks whose payload does not match their entries");
  return Message(std::move(out));
}

Status check_name(const std::string& name, const char* what) {
  if (name.size() > kNameBytesMax) return invalid(std::string(what) + " is too long");
  return ok();
}

Status from_proto(const v1::GroupIdentity& in, GroupIdentity& out) {
  if (!parse_uuid(in.group(), out.group) || !parse_uuid(in.pool(), out.pool))
    return invalid("an identity is not 16 bytes long");
  TANDEM_TRY(check_name(in.name(), "a group's name"));
  TANDEM_TRY(check_name(in.node(), "a node's name"));
  out.name = in.name();
  out.node = in.node();
  return ok();
}

Status read_history(const google::protobuf::RepeatedPtrField<v1::TimelineFork>& in,
                    TimelineHistory& out) {
  if (in.size() > kHistoryMax) return invalid("an absurd number of timelines");
  out = from_proto(in);
  for (std::size_t i = 1; i < out.size(); ++i) {
    if (out[i].timeline <= out[i - 1].timeline) return invalid("a timeline history out of order");
  }
  return ok();
}

/// A peer that does not say its oldest version speaks only the one that it names.
bool read_versions(std::uint32_t newest, std::uint32_t oldest, message::VersionRange& out) {
  out = {oldest == 0 ? newest : oldest, newest};
  return newest != 0 && out.oldest <= newest;
}
Result<Message> take(const v1::Hello& in) {
  message::Hello out;
  const auto role = from_proto(in.role());
  const auto mode = from_proto(in.mode());
  if (!read_versions(in.version(), in.version_oldest(), out.versions) || !role || !mode)
    return invalid("a hello without version, role or mode");
  out.role = *role;
  out.mode = *mode;
  out.head = from_proto(in.head());
  TANDEM_TRY(from_proto(in.identity(), out.identity));
  TANDEM_TRY(read_history(in.history(), out.history));
  TANDEM_TRY(from_proto(in.sources(), out.sources));
  return Message(std::move(out));
}
Result<Message> take(const v1::Welcome& in) {
  message::Welcome out;
  const auto role = from_proto(in.role());
  if (!read_versions(in.version(), in.version_oldest(), out.versions) || !role)
    return invalid("a welcome without version or role");
  out.role = *role;
  out.head = from_proto(in.head());
  out.durable = Lsn(in.durable());
  out.codecs = in.codecs();
  TANDEM_TRY(from_proto(in.identity(), out.identity));
  TANDEM_TRY(read_history(in.history(), out.history));
  return Message(std::move(out));
}
Result<Message> take(const v1::Refuse& in) {
  message::Refuse out;
  out.code = from_proto(in.code()).value_or(ErrorCode::kRefused);
  out.reason = in.reason().substr(0, 16384);
  TANDEM_TRY(read_history(in.history(), out.history));
  return Message(std::move(out));
}
Result<Message> take(const v1::Start& in) {
  return Message(message::Start{.after = Lsn(in.after()), .from_image = in.from_image()});
}
Result<Message> take(const v1::Ack& in) {
  return Message(message::Ack{.received = Lsn(in.received()),
                              .written = Lsn(in.written()),
                              .durable = Lsn(in.durable()),
                              .agreed = Lsn(in.agreed())});
}
Result<Message> take(const v1::Heartbeat& in) {
  message::Heartbeat out{.head = from_proto(in.head()),
                         .durable = Lsn(in.durable()),
                         .sent = UtcNs(in.sent_utc_ns()),
                         .flush = in.flush()};
  if (in.has_everywhere()) out.everywhere = Lsn(in.everywhere());
  return Message(out);
}
Result<Message> take(const v1::ImageBegin& in) {
  message::ImageBegin out;
  if (in.volumes_size() > kImageVolumesMax) return invalid("an absurd number of volumes");
  out.point = from_proto(in.point());
  TANDEM_TRY(read_history(in.history(), out.history));
  for (const auto& volume : in.volumes()) {
    TANDEM_TRY(check_name(volume.name(), "a volume's name"));
    out.volumes.push_back({.id = VolumeId(volume.id()),
                           .name = volume.name(),
                           .size_bytes = volume.size_bytes(),
                           .logical_block_bytes = volume.logical_block_bytes()});
  }
  out.next_volume_id = in.next_volume_id();
  out.blocks_total = in.blocks_total();
  if (in.has_base()) out.base = from_proto(in.base());
  return Message(std::move(out));
}
Result<Message> take(const v1::ImageEnd& in) {
  return Message(message::ImageEnd{.point = from_proto(in.point())});
}

Result<Message> decode_small(const std::vector<grpc::Slice>& slices, BufferPool& pool) {
  std::string bytes;
  for (const auto& slice : slices)
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  v1::StreamMessage in;
  if (!in.ParseFromString(bytes)) return invalid("not a message of this protocol");
  switch (in.kind_case()) {
    case v1::StreamMessage::kHello:
      return take(in.hello());
    case v1::StreamMessage::kWelcome:
      return take(in.welcome());
    case v1::StreamMessage::kRefuse:
      return take(in.refuse());
    case v1::StreamMessage::kStart:
      return take(in.start());
    case v1::StreamMessage::kAck:
      return take(in.ack());
    case v1::StreamMessage::kHeartbeat:
      return take(in.heartbeat());
    case v1::StreamMessage::kImageBegin:
      return take(in.image_begin());
    case v1::StreamMessage::kImageEnd:
      return take(in.image_end());
    case v1::StreamMessage::kBlockRequest:
      return take(in.block_request());
    case v1::StreamMessage::kBlockAnswer:
      return take(in.block_answer(), pool);
    case v1::StreamMessage::kRecords:
    case v1::StreamMessage::kImageBlocks:
    case v1::StreamMessage::KIND_NOT_SET:
      break;
  }
  return invalid("of an unknown kind; the peer may be of a newer version");
}

}  // namespace

Result<grpc::ByteBuffer> encode(Message message) {
  if (auto* records = std::get_if<message::Records>(&message))
    return encode_records(std::move(*records));
  if (auto* blocks = std::get_if<message::ImageBlocks>(&message))
    return encode_image_blocks(std::move(*blocks));
  return std::visit(
      [](auto& small) -> Result<grpc::ByteBuffer> {
        using M = std::decay_t<decltype(small)>;
        if constexpr (std::is_same_v<M, message::Records> ||
                      std::is_same_v<M, message::ImageBlocks>) {
          return invalid("unreachable");
        } else {
          return encode_small(small);
        }
      },
      message);
}

Result<Message> decode(const grpc::ByteBuffer& bytes, BufferPool& pool) {
  if (bytes.Length() > kMessageBytesMax) return invalid("larger than 64 MiB");
  [[maybe_unused]] const TrustForeignMemory trust;
  std::vector<grpc::Slice> slices;
  if (!bytes.Dump(&slices).ok()) return invalid("not readable");
  Reader reader(slices);
  std::uint32_t field;
  WireType type;
  std::uint64_t length;
  Result<Message> hot = invalid("empty");
  int kinds = 0;
  while (reader.remaining() > 0) {
    if (!reader.tag(field, type)) return invalid("not a message of this protocol");
    const bool is_records = field == v1::StreamMessage::kRecords;
    if (!is_records && field != v1::StreamMessage::kImageBlocks) {
      if (!reader.skip_value(type)) return invalid("not a message of this protocol");
      continue;
    }
    if (type != WireType::kBytes || !reader.varint(length) || length > reader.remaining() ||
        ++kinds > 1)
      return invalid("not a message of this protocol");
    const auto end = reader.position() + length;
    hot = is_records ? decode_records(reader, end, pool) : decode_image_blocks(reader, end, pool);
    if (!hot) return hot;
  }
  return kinds == 0 ? decode_small(slices, pool) : std::move(hot);
}

std::size_t payload_slices_outstanding() { return payload_slices.load(std::memory_order_acquire); }

}  // namespace tandem::rpc
