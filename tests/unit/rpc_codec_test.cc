// The bytes of every replication message: pinned, equal to what a generated serialiser writes, and
// refused when they contradict themselves.
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>

#include "rpc/link_codec.h"
#include "rpc/wire.h"
#include "tandem/v1/replication.pb.h"
#include "tests/unit/rpc_codec_fixture.h"

namespace tandem::rpc {
namespace {

grpc::ByteBuffer buffer_of(const std::string& bytes) {
  grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

Uuid uuid(std::uint8_t first) {
  Uuid u;
  for (std::size_t i = 0; i < u.bytes.size(); ++i)
    u.bytes[i] = static_cast<std::uint8_t>(first + i);
  return u;
}

LogPoint point() {
  return {.timeline = Timeline(2),
          .lsn = Lsn(300),
          .digest = Digest(0x1122334455667788),
          .utc = UtcNs(0x0102030405060708),
          .payload_bytes = 4096};
}

TimelineHistory history() {
  return {{Timeline(1), Lsn(0), UtcNs(1)}, {Timeline(2), Lsn(200), UtcNs(2)}};
}

IoBuffer filled(std::size_t bytes, int seed) {
  auto buffer = IoBuffer::on_heap(bytes);
  std::mt19937 random(seed);
  for (auto& b : buffer.bytes()) b = static_cast<std::byte>(random());
  return buffer;
}

std::vector<std::byte> some_records(std::size_t bytes) {
  std::vector<std::byte> records(bytes);
  for (std::size_t i = 0; i < bytes; ++i) records[i] = static_cast<std::byte>(i * 7);
  return records;
}

message::Records records_message(std::size_t record_bytes, std::vector<IoBuffer> payload) {
  message::Records m;
  m.batch.first = Lsn(5);
  m.batch.last = Lsn(6);
  m.batch.before = Digest(1);
  m.batch.after = Digest(2);
  m.batch.records = some_records(record_bytes);
  m.batch.payload = std::move(payload);
  m.flush = true;
  return m;
}

std::string joined(const std::vector<IoBuffer>& payload) {
  std::string bytes;
  for (const auto& b : payload) bytes.append(reinterpret_cast<const char*>(b.data()), b.size());
  return bytes;
}

class CodecTest : public testing::Test {
 protected:
  ~CodecTest() override { EXPECT_EQ(payload_slices_outstanding(), 0u); }

  Result<Message> decoded(const std::string& bytes) { return decode(buffer_of(bytes), pool_); }
  void expect_invalid(const std::string& bytes) {
    const auto result = decoded(bytes);
    ASSERT_FALSE(result.has_value()) << hex(bytes).substr(0, 200);
    EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  }
  BufferPool pool_{8 << 20};
};

constexpr const char* kPointHex = "080210ac02198877665544332211210807060504030201288020";
constexpr const char* kForksHex =
    "320b0801190100000000000000"
    "320e080210c801190200000000000000";

TEST_F(CodecTest, HelloBytes) {
  message::Hello m;
  m.identity = {uuid(0), "g", uuid(16), "n"};
  m.role = Role::kPrimary;
  m.mode = ReplicationMode::kSync;
  m.head = point();
  m.history = history();
  const auto bytes = encoded(m);
  EXPECT_EQ(hex(bytes), std::string("0a6d0803"
                                    "122a0a10000102030405060708090a0b0c0d0e0f"
                                    "1201671a10101112131415161718191a1b1c1d1e1f22016e"
                                    "180120032a1a") +
                            kPointHex + kForksHex + "3801");
  const auto back = decoded(bytes);
  ASSERT_TRUE(back.has_value()) << back.error().message;
  const auto& hello = std::get<message::Hello>(*back);
  EXPECT_EQ(hello.versions, message::kProtocolVersions);
  EXPECT_EQ(hello.identity, m.identity);
  EXPECT_EQ(hello.role, m.role);
  EXPECT_EQ(hello.mode, m.mode);
  EXPECT_EQ(hello.head, m.head);
  EXPECT_EQ(hello.history, m.history);
}

TEST_F(CodecTest, RangesOfVersionsTravel) {
  message::Hello hello;
  hello.versions = {2, 9};
  const auto back = decoded(encoded(hello));
  ASSERT_TRUE(back.has_value()) << back.error().message;
  EXPECT_EQ(std::get<message::Hello>(*back).versions, hello.versions);
  message::Welcome welcome;
  welcome.versions = {3, 4};
  const auto answer = decoded(encoded(welcome));
  ASSERT_TRUE(answer.has_value()) << answer.error().message;
  EXPECT_EQ(std::get<message::Welcome>(*answer).versions, welcome.versions);
}

TEST_F(CodecTest, WelcomeBytes) {
  message::Welcome m;
  m.identity = {Uuid{}, "g", uuid(16), "n"};
  m.role = Role::kFenced;
  m.head = point();
  m.durable = Lsn(299);
  m.history = history();
  const auto bytes = encoded(m);
  EXPECT_EQ(hex(bytes), std::string("125e0803121812016"
                                    "71a10101112131415161718191a1b1c1d1e1f22016e"
                                    "1803221a") +
                            kPointHex + "28ab02" + kForksHex + "3801" + "4001");
  const auto back = decoded(bytes);
  ASSERT_TRUE(back.has_value()) << back.error().message;
  const auto& welcome = std::get<message::Welcome>(*back);
  EXPECT_TRUE(welcome.identity.group.is_nil());
  EXPECT_EQ(welcome.identity, m.identity);
  EXPECT_EQ(welcome.role, m.role);
  EXPECT_EQ(welcome.codecs, message::kCodecLz4);
  EXPECT_EQ(welcome.head, m.head);
  EXPECT_EQ(welcome.durable, m.durable);
  EXPECT_EQ(welcome.history, m.history);
}

TEST_F(CodecTest, RefuseBytes) {
  const auto bytes = encoded(message::Refuse{ErrorCode::kFenced, "no", history()});
  EXPECT_EQ(hex(bytes),
            "1a2308081202"
            "6e6f"
            "1a0b0801190100000000000000"
            "1a0e080210c801190200000000000000");
  const auto back = decoded(bytes);
  ASSERT_TRUE(back.has_value());
  const auto& refuse = std::get<message::Refuse>(*back);
  EXPECT_EQ(refuse.code, ErrorCode::kFenced);
  EXPECT_EQ(refuse.reason, "no");
  EXPECT_EQ(refuse.history, history());
}

TEST_F(CodecTest, EveryErrorCodeTravelsInRefuse) {
  for (int c = 0; c <= static_cast<int>(ErrorCode::kCancelled); ++c) {
    const auto code = static_cast<ErrorCode>(c);
    const auto back = decoded(encoded(message::Refuse{code, "x", {}}));
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(std::get<message::Refuse>(*back).code, code) << to_string(code);
  }
  // A code of a newer version is still a refusal.
  v1::StreamMessage newer;
  newer.mutable_refuse()->set_code(static_cast<v1::ErrorCode>(99));
  const auto back = decoded(newer.SerializeAsString());
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(std::get<message::Refuse>(*back).code, ErrorCode::kRefused);
}

TEST_F(CodecTest, SmallMessagesBytes) {
  EXPECT_EQ(hex(encoded(message::Start{Lsn(300), true})), "220508ac021001");
  EXPECT_EQ(hex(encoded(message::Ack{Lsn(3), Lsn(2), Lsn(1)})), "3206080310021801");
  EXPECT_EQ(hex(encoded(message::Heartbeat{point(), Lsn(299), UtcNs(9), true})),
            std::string("3a2a0a1a") + kPointHex + "10ab02190900000000000000" + "2001");
  EXPECT_EQ(hex(encoded(message::Heartbeat{point(), Lsn(299), UtcNs(9), true, Lsn(0)})),
            std::string("3a2c0a1a") + kPointHex + "10ab02190900000000000000" + "20012800");
  EXPECT_EQ(hex(encoded(message::ImageEnd{point()})), std::string("521c0a1a") + kPointHex);

  const auto start = decoded(encoded(message::Start{Lsn(300), true}));
  ASSERT_TRUE(start.has_value());
  EXPECT_EQ(std::get<message::Start>(*start).after, Lsn(300));
  EXPECT_TRUE(std::get<message::Start>(*start).from_image);
  const auto ack = decoded(encoded(message::Ack{Lsn(3), Lsn(2), Lsn(1)}));
  ASSERT_TRUE(ack.has_value());
  EXPECT_EQ(std::get<message::Ack>(*ack).received, Lsn(3));
  EXPECT_EQ(std::get<message::Ack>(*ack).written, Lsn(2));
  EXPECT_EQ(std::get<message::Ack>(*ack).durable, Lsn(1));
  const auto beat = decoded(encoded(message::Heartbeat{point(), Lsn(299), UtcNs(9), true}));
  ASSERT_TRUE(beat.has_value());
  EXPECT_EQ(std::get<message::Heartbeat>(*beat).head, point());
  EXPECT_EQ(std::get<message::Heartbeat>(*beat).durable, Lsn(299));
  EXPECT_EQ(std::get<message::Heartbeat>(*beat).sent, UtcNs(9));
  EXPECT_TRUE(std::get<message::Heartbeat>(*beat).flush);
  EXPECT_EQ(std::get<message::Heartbeat>(*beat).everywhere, std::nullopt);
  const auto known =
      decoded(encoded(message::Heartbeat{point(), Lsn(299), UtcNs(9), true, Lsn(298)}));
  ASSERT_TRUE(known.has_value());
  EXPECT_EQ(std::get<message::Heartbeat>(*known).everywhere, Lsn(298));
  const auto end = decoded(encoded(message::ImageEnd{point()}));
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(std::get<message::ImageEnd>(*end).point, point());
}

TEST_F(CodecTest, AllZeroMessagesKeepTheirKind) {
  EXPECT_EQ(hex(encoded(message::Start{})), "2200");
  EXPECT_EQ(hex(encoded(message::Ack{})), "3200");
  EXPECT_EQ(hex(encoded(message::Records{})), "2a00");
  EXPECT_EQ(hex(encoded(message::ImageBlocks{})), "4a00");
  EXPECT_TRUE(std::holds_alternative<message::Start>(*decoded(std::string("\x22\x00", 2))));
}

TEST_F(CodecTest, ImageBeginBytes) {
  message::ImageBegin m;
  m.point = point();
  m.history = {{Timeline(1), Lsn(0), UtcNs(1)}};
  m.volumes = {{VolumeId(3), "v", 1 << 20, 4096}};
  m.next_volume_id = 4;
  m.blocks_total = 256;
  const auto bytes = encoded(m);
  EXPECT_EQ(hex(bytes), std::string("423c0a1a") + kPointHex +
                            "120b0801190100000000000000"
                            "1a0c0803120176188080402080202004288002");
  const auto back = decoded(bytes);
  ASSERT_TRUE(back.has_value()) << back.error().message;
  const auto& begin = std::get<message::ImageBegin>(*back);
  EXPECT_EQ(begin.point, m.point);
  EXPECT_EQ(begin.history, m.history);
  ASSERT_EQ(begin.volumes.size(), 1u);
  EXPECT_EQ(begin.volumes[0].id, VolumeId(3));
  EXPECT_EQ(begin.volumes[0].name, "v");
  EXPECT_EQ(begin.volumes[0].size_bytes, 1u << 20);
  EXPECT_EQ(begin.volumes[0].logical_block_bytes, 4096u);
  EXPECT_EQ(begin.next_volume_id, 4u);
  EXPECT_EQ(begin.blocks_total, 256u);
  EXPECT_FALSE(begin.base);

  m.base = m.point;
  EXPECT_EQ(hex(encoded(m)), "4258" + hex(bytes).substr(4) + "321a" + kPointHex);
  EXPECT_EQ(std::get<message::ImageBegin>(*decoded(encoded(m))).base, m.point);
}

TEST_F(CodecTest, RecordsBytes) {
  auto m = records_message(3, {});
  EXPECT_EQ(hex(encoded(m)),
            "2a1d08051006190100000000000000210200000000000000280132030007"
            "0e");
  auto payload = IoBuffer::on_heap(4096);
  std::memset(payload.data(), 0x5a, 4096);
  m.batch.payload = {payload};
  const auto bytes = encoded(m);
  EXPECT_EQ(hex(bytes.substr(0, 36)),
            "2aa02008051006190100000000000000210200000000000000280132030007"
            "0e7a8020"
            "5a");
  EXPECT_EQ(bytes.size(), 35u + 4096u);
}

TEST_F(CodecTest, HandWrittenBytesEqualGeneratedOnes) {
  for (const std::size_t record_bytes : {2u, 200u, 4096u, 4097u, 100000u}) {
    for (const std::size_t pieces : {0u, 1u, 3u}) {
      std::vector<IoBuffer> payload;
      for (std::size_t i = 0; i < pieces; ++i) payload.push_back(filled(4096 * (i + 1), 1));
      const auto m = records_message(record_bytes, payload);
      v1::StreamMessage reference;
      auto* r = reference.mutable_records();
      r->set_first(5);
      r->set_last(6);
      r->set_before(1);
      r->set_after(2);
      r->set_flush(true);
      r->set_records(m.batch.records.data(), m.batch.records.size());
      r->set_payload(joined(payload));
      EXPECT_EQ(encoded(m), reference.SerializeAsString()) << record_bytes << " " << pieces;
      auto lone = records_message(record_bytes, payload);
      lone.lone = true;
      r->set_lone(true);
      EXPECT_EQ(encoded(lone), reference.SerializeAsString()) << record_bytes << " " << pieces;
    }
  }
  message::ImageBlocks blocks;
  blocks.volume = VolumeId(7);
  v1::StreamMessage reference;
  reference.mutable_image_blocks()->set_volume(7);
  for (std::uint64_t i = 1; i <= 3; ++i) {
    blocks.entries.push_back({VolumeBlock(i), static_cast<std::uint32_t>(i + 9), Lsn(i + 20)});
    reference.mutable_image_blocks()->add_block(i);
    reference.mutable_image_blocks()->add_crc32c(static_cast<std::uint32_t>(i + 9));
    reference.mutable_image_blocks()->add_lsn(i + 20);
  }
  blocks.payload = {filled(4096, 2), filled(8192, 3)};
  reference.mutable_image_blocks()->set_payload(joined(blocks.payload));
  EXPECT_EQ(encoded(blocks), reference.SerializeAsString());
}

IoBuffer compressible(std::size_t bytes) {
  auto buffer = IoBuffer::on_heap(bytes);
  for (std::size_t i = 0; i < bytes; ++i)
    buffer.data()[i] = static_cast<std::byte>(i % 64 < 48 ? 'a' + i % 7 : (i * i >> 9) & 0xff);
  return buffer;
}

IoBuffer incompressible(std::size_t bytes) {
  auto buffer = IoBuffer::on_heap(bytes);
  std::uint64_t state = 88172645463325252ull;
  for (std::size_t i = 0; i < bytes; ++i) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    buffer.data()[i] = static_cast<std::byte>(state >> 56);
  }
  return buffer;
}

TEST_F(CodecTest, CompressedPayloadComesBack) {
  for (const std::size_t bytes : {4096u, 1u << 20, (1u << 20) + 4096, 5u << 20}) {
    auto m = records_message(100, {compressible(4096), compressible(bytes)});
    const auto plain = encoded(m).size();
    m.compress = true;
    const auto wire = encoded(m);
    EXPECT_LT(wire.size(), plain * 7 / 8) << bytes;
    v1::StreamMessage foreign;  // any implementation of protobuf reads the same
    ASSERT_TRUE(foreign.ParseFromString(wire));
    EXPECT_EQ(foreign.records().codec(), message::kCodecLz4);
    EXPECT_EQ(foreign.records().raw_bytes(), 4096 + bytes);
    EXPECT_EQ(foreign.SerializeAsString(), wire);
    const auto back = decoded(wire);
    ASSERT_TRUE(back.has_value()) << back.error().message;
    const auto& batch = std::get<message::Records>(*back).batch;
    EXPECT_EQ(joined(batch.payload), joined(m.batch.payload));
    EXPECT_EQ(batch.records, m.batch.records);
    for (const auto& piece : batch.payload) EXPECT_TRUE(piece.is_block_aligned());
  }
  message::ImageBlocks blocks;
  blocks.compress = true;
  blocks.volume = VolumeId(7);
  for (std::uint64_t i = 1; i <= 4; ++i) blocks.entries.push_back({VolumeBlock(i), 9, Lsn(i)});
  blocks.payload = {compressible(16384)};
  const auto wire = encoded(blocks);
  EXPECT_LT(wire.size(), 16384u);
  const auto back = decoded(wire);
  ASSERT_TRUE(back.has_value()) << back.error().message;
  EXPECT_EQ(joined(std::get<message::ImageBlocks>(*back).payload), joined(blocks.payload));
}

TEST_F(CodecTest, IncompressiblePayloadIsSentAsItIs) {
  auto m = records_message(100, {incompressible(2 << 20)});
  const auto plain = encoded(m);
  m.compress = true;
  EXPECT_EQ(encoded(m), plain);
  auto mixed = records_message(100, {incompressible(1 << 20), compressible(3 << 20)});
  mixed.compress = true;
  const auto wire = encoded(mixed);
  EXPECT_LT(wire.size(), 3u << 20);
  const auto back = decoded(wire);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(joined(std::get<message::Records>(*back).batch.payload), joined(mixed.batch.payload));
}

TEST_F(CodecTest, DamagedCompressionIsRefused) {
  auto m = records_message(100, {compressible(64 << 10)});
  m.compress = true;
  v1::StreamMessage good;
  ASSERT_TRUE(good.ParseFromString(encoded(m)));
  const auto refused = [&](auto change) {
    v1::StreamMessage bad = good;
    change(*bad.mutable_records());
    const auto back = decoded(bad.SerializeAsString());
    ASSERT_FALSE(back.has_value());
    EXPECT_EQ(back.error().code, ErrorCode::kInvalid);
  };
  using Records = v1::Records;
  refused([](Records& r) { r.set_codec(2); });
  refused([](Records& r) { r.set_raw_bytes(0); });
  refused([](Records& r) { r.set_raw_bytes(r.raw_bytes() + 1); });
  refused([](Records& r) { r.set_raw_bytes(r.raw_bytes() - 1); });
  refused([](Records& r) { r.set_raw_bytes(std::uint64_t{1} << 40); });
  refused([](Records& r) { r.mutable_payload()->pop_back(); });
  refused([](Records& r) { r.mutable_payload()->push_back('x'); });
  refused([](Records& r) { (*r.mutable_payload())[1] ^= 0x40; });
}

TEST_F(CodecTest, PayloadIsSharedOnTheWayOutAndAlignedOnTheWayIn) {
  auto payload = filled(8192, 4);
  const auto* where = payload.data();
  auto bytes = encode(records_message(10, {payload}));
  ASSERT_TRUE(bytes.has_value());
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(bytes->Dump(&slices).ok());
  EXPECT_EQ(static_cast<const void*>(slices.back().begin()), where);
  EXPECT_EQ(payload_slices_outstanding(), 1u);
  const auto back = decode(*bytes, pool_);
  ASSERT_TRUE(back.has_value());
  const auto& batch = std::get<message::Records>(*back).batch;
  ASSERT_EQ(batch.payload.size(), 1u);
  EXPECT_TRUE(batch.payload[0].is_block_aligned());
  EXPECT_EQ(joined(batch.payload), joined({payload}));
  EXPECT_EQ(batch.records, some_records(10));
}

TEST_F(CodecTest, LargePayloadArrivesInPiecesOfTheBufferPool) {
  const std::vector<IoBuffer> payload = {filled(1 << 20, 5), filled(1 << 20, 6), filled(8192, 7)};
  const auto back = decoded(encoded(records_message(10, payload)));
  ASSERT_TRUE(back.has_value());
  const auto& batch = std::get<message::Records>(*back).batch;
  ASSERT_EQ(batch.payload.size(), 3u);
  EXPECT_EQ(batch.payload[0].size(), kPieceBytes);
  EXPECT_EQ(joined(batch.payload), joined(payload));
  EXPECT_EQ(pool_.heap_fallbacks(), 0u);
}

TEST_F(CodecTest, ImageBlocksRoundTrip) {
  message::ImageBlocks m;
  m.volume = VolumeId(9);
  for (int i = 0; i < 300; ++i)
    m.entries.push_back({VolumeBlock(1000 + i), 0xffffffffu - i, Lsn(5 + i)});
  m.payload = {filled(300 * 4096, 8)};
  const auto back = decoded(encoded(m));
  ASSERT_TRUE(back.has_value()) << back.error().message;
  const auto& blocks = std::get<message::ImageBlocks>(*back);
  EXPECT_EQ(blocks.volume, m.volume);
  ASSERT_EQ(blocks.entries.size(), 300u);
  EXPECT_EQ(blocks.entries[299].block, VolumeBlock(1299));
  EXPECT_EQ(blocks.entries[299].crc32c, 0xffffffffu - 299);
  EXPECT_EQ(blocks.entries[299].lsn, Lsn(304));
  EXPECT_EQ(joined(blocks.payload), joined(m.payload));
}

TEST_F(CodecTest, ImageBlocksWithoutPayloadAreHoles) {
  message::ImageBlocks m;
  m.volume = VolumeId(9);
  for (int i = 0; i < 3; ++i) m.entries.push_back({VolumeBlock(i), 7, Lsn(5 + i)});
  for (const std::size_t with_data : {2u, 0u}) {
    m.payload.clear();
    if (with_data != 0) m.payload = {filled(with_data * 4096, 8)};
    const auto back = decoded(encoded(m));
    ASSERT_TRUE(back.has_value()) << back.error().message;
    const auto& blocks = std::get<message::ImageBlocks>(*back);
    EXPECT_EQ(blocks.entries.size(), 3u);
    EXPECT_EQ(joined(blocks.payload), joined(m.payload));
  }
}

TEST_F(CodecTest, AnySlicingOfTheBytesDecodesAlike) {
  const std::vector<IoBuffer> payload = {filled(4096, 9)};
  auto message = records_message(50, payload);
  message.lone = true;
  const auto bytes = encoded(message);
  for (const std::size_t piece : {1u, 2u, 3u, 7u, 64u, 1000u}) {
    std::vector<grpc::Slice> slices;
    for (std::size_t at = 0; at < bytes.size(); at += piece)
      slices.emplace_back(bytes.substr(at, piece));
    const auto back = decode(grpc::ByteBuffer(slices.data(), slices.size()), pool_);
    ASSERT_TRUE(back.has_value()) << piece;
    const auto& batch = std::get<message::Records>(*back).batch;
    EXPECT_EQ(joined(batch.payload), joined(payload));
    EXPECT_EQ(batch.records, some_records(50));
    EXPECT_EQ(batch.first, Lsn(5));
    EXPECT_EQ(batch.after, Digest(2));
    EXPECT_TRUE(std::get<message::Records>(*back).flush);
    EXPECT_TRUE(std::get<message::Records>(*back).lone);
  }
}

TEST_F(CodecTest, UnknownFieldsAreSkipped) {
  v1::StreamMessage in;
  in.mutable_records()->set_first(1);
  in.mutable_records()->set_last(1);
  in.mutable_records()->set_records("r");
  // Field 14 of every wire type, inside the records and behind them.
  wire::Writer extra;
  extra.varint_field(14, 77);
  extra.fixed64_field(14, 77);
  extra.bytes_field(14, 2);
  extra.raw(std::as_bytes(std::span("ab", 2)));
  extra.tag(14, wire::WireType::kFixed32);
  extra.fixed32(7);
  const auto inner = in.records().SerializeAsString() + extra.out();
  const auto bytes = std::string("\x2a") + static_cast<char>(inner.size()) + inner + extra.out();
  ASSERT_LT(inner.size(), 128u);
  const auto back = decoded(bytes);
  ASSERT_TRUE(back.has_value()) << back.error().message;
  EXPECT_EQ(std::get<message::Records>(*back).batch.first, Lsn(1));
}

TEST_F(CodecTest, EveryTruncationIsRefused) {
  message::ImageBlocks blocks;
  blocks.entries = {{VolumeBlock(1), 2, Lsn(3)}};
  blocks.payload = {filled(4096, 1)};
  message::Hello hello;
  hello.identity.name = "group";
  hello.history = history();
  for (const Message& m : {Message(records_message(20, {filled(4096, 1)})), Message(blocks),
                           Message(hello), Message(message::Heartbeat{point(), {}, {}, {}})}) {
    const auto bytes = encoded(m);
    for (std::size_t length = 0; length < bytes.size(); ++length)
      expect_invalid(bytes.substr(0, length));
  }
}

TEST_F(CodecTest, RandomBytesNeverDecodeToNonsense) {
  std::mt19937 random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes(random() % 64, '\0');
    for (auto& c : bytes) c = static_cast<char>(random());
    if (!bytes.empty() && i % 2 == 0) bytes[0] = i % 4 == 0 ? '\x2a' : '\x4a';
    const auto result = decoded(bytes);
    if (!result) {
      EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
    } else if (const auto* r = std::get_if<message::Records>(&*result)) {
      EXPECT_LE(r->batch.first, r->batch.last);
      EXPECT_EQ(r->batch.empty(), r->batch.first == Lsn(0));
    }
  }
}

TEST_F(CodecTest, ContradictionsAreRefused) {
  expect_invalid("");                                  // nothing
  expect_invalid(std::string("\x5a\x00", 2));          // kind 11
  expect_invalid(std::string("\x2a\x00\x2a\x00", 4));  // two messages in one
  expect_invalid(std::string("\x28\x01", 2));          // records as a number
  v1::StreamMessage m;
  const auto expect_bad = [&] { expect_invalid(m.SerializeAsString()); };
  m.mutable_records()->set_payload("data");  // payload without records
  expect_bad();
  m.mutable_records()->set_records("rr");  // records without positions
  expect_bad();
  m.mutable_records()->set_first(7);
  m.mutable_records()->set_last(6);  // backwards
  expect_bad();
  m.mutable_records()->set_last(9);  // three records in two bytes
  expect_bad();
  m.mutable_records()->set_first(0);
  m.mutable_records()->set_last(0);
  m.mutable_records()->clear_records();
  m.mutable_records()->clear_payload();
  m.mutable_records()->set_first(3);  // a position without records
  expect_bad();
  auto* blocks = m.mutable_image_blocks();
  blocks->add_block(1);
  blocks->set_payload(std::string(4096, 'x'));  // no checksum, no LSN
  expect_bad();
  blocks->add_crc32c(1);
  blocks->add_lsn(1);
  blocks->add_lsn(2);  // arrays of different length
  expect_bad();
  blocks->mutable_lsn()->Truncate(1);
  ASSERT_TRUE(decoded(m.SerializeAsString()).has_value());
  blocks->set_payload(std::string(4095, 'x'));  // less than a block
  expect_bad();
  blocks->set_payload(std::string(8192, 'x'));  // more than its entries
  expect_bad();
  m.mutable_hello()->set_version(1);  // neither role nor mode
  expect_bad();
  m.mutable_hello()->set_role(v1::ROLE_PRIMARY);
  m.mutable_hello()->set_mode(v1::REPLICATION_MODE_SYNC);
  ASSERT_TRUE(decoded(m.SerializeAsString()).has_value());
  m.mutable_hello()->mutable_identity()->set_group("short");
  expect_bad();
  m.mutable_hello()->mutable_identity()->clear_group();
  m.mutable_hello()->mutable_identity()->set_name(std::string(kNameBytesMax + 1, 'n'));
  expect_bad();
  m.mutable_hello()->mutable_identity()->clear_name();
  for (int i = 0; i < 2; ++i) m.mutable_hello()->add_history()->set_timeline(5);  // not ascending
  expect_bad();
  m.mutable_hello()->clear_history();
  for (int i = 0; i <= kHistoryMax; ++i)
    m.mutable_hello()->add_history()->set_timeline(static_cast<std::uint64_t>(i) + 1);
  expect_bad();
  m.mutable_welcome()->set_version(0);
  expect_bad();
}

TEST_F(CodecTest, OversizedMessagesAreNotSent) {
  std::vector<IoBuffer> payload(65, filled(1 << 20, 1));
  auto big = encode(records_message(10, payload));
  ASSERT_FALSE(big.has_value());
  EXPECT_EQ(big.error().code, ErrorCode::kInvalid);
  message::ImageBlocks blocks;
  blocks.entries.resize(1);
  for (const std::size_t bytes : {8192u, 4095u}) {
    blocks.payload = {filled(bytes, 1)};
    auto other = encode(blocks);
    ASSERT_FALSE(other.has_value());
    EXPECT_EQ(other.error().code, ErrorCode::kInvalid);
  }
}

}  // namespace
}  // namespace tandem::rpc
