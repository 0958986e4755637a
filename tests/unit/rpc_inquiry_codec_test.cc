// The bytes of questions and answers between copies: pinned, and refused when they contradict
// themselves.
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "rpc/link_codec.h"
#include "tandem/v1/replication.pb.h"
#include "tests/unit/rpc_codec_fixture.h"

namespace tandem::rpc {
namespace {

class InquiryCodec : public testing::Test {
 protected:
  Result<Message> decoded(const std::string& bytes) {
    grpc::Slice slice(bytes);
    return decode(grpc::ByteBuffer(&slice, 1), pool_);
  }
  void expect_invalid(const v1::StreamMessage& message) {
    const auto result = decoded(message.SerializeAsString());
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  }
  BufferPool pool_{8 << 20};
};

const BlockVersion kVersion{VolumeId(3), VolumeBlock(0x102030), Lsn(300), 0xe3069283};

TEST_F(InquiryCodec, AnAckSaysThroughWhereDigestsAreEqual) {
  const auto bytes = encoded(message::Ack{Lsn(3), Lsn(2), Lsn(1), Lsn(300)});
  EXPECT_EQ(hex(bytes), "320908031002180120ac02");
  const auto back = decoded(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(std::get<message::Ack>(*back).durable, Lsn(1));
  EXPECT_EQ(std::get<message::Ack>(*back).agreed, Lsn(300));
}

TEST_F(InquiryCodec, BlockRequestBytes) {
  const auto bytes = encoded(message::BlockRequest{7, kVersion});
  EXPECT_EQ(hex(bytes), "a201150807100319302010000000000020ac022d839206e3");
  const auto back = decoded(bytes);
  ASSERT_TRUE(back);
  const auto& request = std::get<message::BlockRequest>(*back);
  EXPECT_EQ(request.id, 7u);
  EXPECT_EQ(request.version, kVersion);
}

TEST_F(InquiryCodec, ABlockRequestSaysHowLongTheBlockIsTheSame) {
  BlockVersion version = kVersion;
  version.through = Lsn(301);
  const auto bytes = encoded(message::BlockRequest{7, version});
  EXPECT_EQ(hex(bytes), "a201180807100319302010000000000020ac022d839206e330ad02");
  const auto back = decoded(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(std::get<message::BlockRequest>(*back).version, version);
}

TEST_F(InquiryCodec, BlockAnswerBytes) {
  message::BlockAnswer answer{7, std::nullopt, IoBuffer::on_heap(kBlockBytes)};
  for (std::size_t i = 0; i < kBlockBytes; ++i) answer.data.data()[i] = std::byte(i * 7);
  const auto bytes = encoded(answer);
  ASSERT_EQ(bytes.size(), 4u + 2 + 3 + kBlockBytes);
  EXPECT_EQ(hex(bytes.substr(0, 14)), "aa018520080722802000070e151c");
  const auto back = decoded(bytes);
  ASSERT_TRUE(back);
  const auto& there = std::get<message::BlockAnswer>(*back);
  EXPECT_EQ(there.id, 7u);
  EXPECT_FALSE(there.refusal);
  ASSERT_TRUE(there.data.is_block_aligned());
  EXPECT_EQ(std::memcmp(there.data.data(), answer.data.data(), kBlockBytes), 0);
}

TEST_F(InquiryCodec, BlockRefusalBytes) {
  const auto bytes = encoded(message::BlockAnswer{300, Error{ErrorCode::kNotFound, "another"}, {}});
  EXPECT_EQ(hex(bytes), "aa010e08ac0210051a07616e6f74686572");
  const auto back = decoded(bytes);
  ASSERT_TRUE(back);
  const auto& answer = std::get<message::BlockAnswer>(*back);
  EXPECT_EQ(answer.id, 300u);
  ASSERT_TRUE(answer.refusal);
  EXPECT_EQ(answer.refusal->code, ErrorCode::kNotFound);
  EXPECT_EQ(answer.refusal->message, "another");
  EXPECT_TRUE(answer.data.empty());
}

TEST_F(InquiryCodec, WhatContradictsItselfIsRefused) {
  v1::StreamMessage message;
  message.mutable_block_answer()->set_id(1);
  expect_invalid(message);  // neither data nor a refusal
  message.mutable_block_answer()->set_data(std::string(kBlockBytes - 1, 'x'));
  expect_invalid(message);
  message.mutable_block_answer()->set_data(std::string(kBlockBytes + 1, 'x'));
  expect_invalid(message);
  message.mutable_block_answer()->set_data(std::string(kBlockBytes, 'x'));
  message.mutable_block_answer()->set_code(v1::ERROR_CODE_CORRUPT);
  expect_invalid(message);  // both
}

TEST_F(InquiryCodec, TheWayToAMirrorTravelsInItsHello) {
  message::Hello m;
  m.role = Role::kMirror;
  m.versions = {3, 3};
  for (std::uint64_t i = 0; i < 16; ++i) m.sources.push_back({Uuid::from_random(i, i), "a"});
  const auto back = decoded(encoded(m));
  ASSERT_TRUE(back.has_value()) << back.error().message;
  EXPECT_EQ(std::get<message::Hello>(*back).sources, m.sources);
  m.sources.push_back({Uuid::from_random(1, 2), "one too many"});
  EXPECT_FALSE(decoded(encoded(m)).has_value());
}

TEST_F(InquiryCodec, ARefusalForAReasonOfANewerReleaseIsOne) {
  v1::StreamMessage message;
  message.mutable_block_answer()->set_id(1);
  message.mutable_block_answer()->set_code(static_cast<v1::ErrorCode>(99));
  const auto back = decoded(message.SerializeAsString());
  ASSERT_TRUE(back);
  ASSERT_TRUE(std::get<message::BlockAnswer>(*back).refusal);
  EXPECT_EQ(std::get<message::BlockAnswer>(*back).refusal->code, ErrorCode::kRefused);
}

}  // namespace
}  // namespace tandem::rpc
