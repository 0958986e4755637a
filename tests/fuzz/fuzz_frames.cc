// What a peer sends and what a disk holds, decoded: messages of the replication stream, records,
// and each structure of a pool by itself. Whatever is accepted must survive being written and
// read again.
//
// The first byte chooses what the rest is. Of structures with a page checksum the second byte says
// whether they are sealed first, so that the fuzzer gets behind the checksum.
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "format/checkpoint.h"
#include "format/checksum.h"
#include "format/log_page.h"
#include "rpc/link_codec.h"
#include "tests/fuzz/input.h"

namespace tandem::fuzz {
namespace {

using namespace format;

// ---- messages -------------------------------------------------------------------------------

std::string flat(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  CHECK(buffer.Dump(&slices).ok());
  std::string bytes;
  for (const auto& s : slices) bytes.append(reinterpret_cast<const char*>(s.begin()), s.size());
  return bytes;
}

/// In slices of `slice_bytes`, as a transport may deliver them.
grpc::ByteBuffer sliced(std::span<const std::byte> bytes, std::size_t slice_bytes) {
  std::vector<grpc::Slice> slices;
  for (std::size_t at = 0; at < bytes.size(); at += slice_bytes)
    slices.emplace_back(bytes.data() + at, std::min(slice_bytes, bytes.size() - at));
  return grpc::ByteBuffer(slices.data(), slices.size());
}

void try_records(std::span<const std::byte> bytes);

void try_message(Input& input) {
  static HeapBuffers buffers;
  const std::size_t slice_bytes = std::size_t{1} + input.u8();
  auto message = rpc::decode(sliced(input.rest(), slice_bytes), buffers.pool());
  if (!message) return;
  if (const auto* records = std::get_if<message::Records>(&*message))
    try_records(records->batch.records);
  const auto once = rpc::encode(std::move(*message));
  if (!once) return;
  auto again = rpc::decode(*once, buffers.pool());
  CHECK(again.has_value());
  const auto twice = rpc::encode(std::move(*again));
  CHECK(twice.has_value() && flat(*once) == flat(*twice));
}

// ---- records --------------------------------------------------------------------------------

void try_record(const Record& record) {
  switch (record.header.type) {
    case RecordType::kWrite:
      for (std::uint32_t i = 0; i < record.header.block_count; ++i) (void)record.crc(i);
      break;
    case RecordType::kVolumeCreate:
      (void)decode_volume_create(record);
      break;
    case RecordType::kVolumeResize:
      (void)decode_volume_resize(record);
      break;
    case RecordType::kTimeline:
      (void)decode_timeline(record);
      break;
    case RecordType::kSnapshot:
      (void)decode_snapshot(record);
      break;
    case RecordType::kRevert:
      (void)decode_revert(record);
      break;
    default:
      break;
  }
}

void try_records(std::span<const std::byte> bytes) {
  Decoder in(bytes);
  while (in.remaining() > 0) {
    const auto record = decode_record(in);
    if (!record) return;
    CHECK(record->canonical.size() == kRecordHeaderBytes + record->body.size());
    try_record(*record);
  }
}

// ---- structures of a pool -------------------------------------------------------------------

using Block = std::vector<std::byte>;

/// A whole block of what is left, sealed if the input says so.
Block block_of(Input& input) {
  const bool sealed = input.u8() & 1;
  Block block(kBlockBytes);
  const auto bytes = input.bytes(kBlockBytes);
  std::copy(bytes.begin(), bytes.end(), block.begin());
  if (sealed) seal_page(block, 8);
  return block;
}

template <class Decode, class Encode>
void round_trip(Input& input, Decode decode, Encode encode) {
  const Block block = block_of(input);
  const auto one = decode(ConstPage(block));
  if (!one) return;
  Block written(kBlockBytes);
  encode(Page(written), *one);
  const auto two = decode(ConstPage(written));
  CHECK(two.has_value());
  Block again(kBlockBytes);
  encode(Page(again), *two);
  CHECK(written == again);
}

void try_log_page(Input& input) {
  Block page = block_of(input);
  const auto header = decode_log_page_header(ConstPage(page));
  if (!header) return;
  const auto records = decode_log_page_body(ConstPage(page), *header);
  if (!records) return;
  CHECK(records->size() == header->record_count);
  for (const auto& placed : *records) {
    std::uint64_t blocks = 0;
    for (const auto& extent : placed.extents) blocks += extent.count;
    CHECK(blocks == (placed.record.has_data() ? placed.record.header.block_count : 0));
    try_record(placed.record);
  }
  finish_log_page(Page(page), *header);
  const auto again = decode_log_page_header(ConstPage(page));
  CHECK(again.has_value() && *again == *header);
}

void try_descriptor(Input& input) {
  const auto bytes = input.rest();
  const auto descriptor = decode_descriptor(bytes);
  if (!descriptor) return;
  const auto written = encode_descriptor(*descriptor);
  const auto again = decode_descriptor(written);
  CHECK(again.has_value() && *again == *descriptor);
}

void try_zone_table(Input& input) {
  const auto bytes = input.bytes(16);
  Uuid pool;
  std::memcpy(pool.bytes.data(), bytes.data(), bytes.size());
  round_trip(
      input, [&](ConstPage page) { return decode_zone_table(page, pool); },
      [&](Page page, const ZoneTablePage& table) { encode_zone_table(page, pool, table); });
}

}  // namespace
}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem::fuzz;
  Input input(data, size);
  switch (input.u8() % 9) {
    case 0:
      try_message(input);
      break;
    case 1:
      try_records(input.rest());
      break;
    case 2:
      try_log_page(input);
      break;
    case 3:
      try_descriptor(input);
      break;
    case 4:
      try_zone_table(input);
      break;
    case 5:
      round_trip(input, decode_superblock, encode_superblock);
      break;
    case 6:
      round_trip(input, decode_anchor, encode_anchor);
      break;
    case 7:
      round_trip(input, decode_chain_block, encode_chain_block);
      break;
    case 8:
      round_trip(input, decode_dead_chunk, encode_dead_chunk);
      break;
  }
  CHECK(tandem::rpc::payload_slices_outstanding() == 0);
  return 0;
}
