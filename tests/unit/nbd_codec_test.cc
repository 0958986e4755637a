// Golden bytes of every NBD message. They are the wire format: they never change.
#include "frontend/nbd/codec.h"

#include <gtest/gtest.h>

#include <cstdio>

#include "tests/interop/nbd_raw_client.h"

namespace tandem::nbd {
namespace {

using test::bytes_of;
using test::put_be;
using test::RawClient;

std::string hex(ByteView bytes) {
  std::string text;
  char pair[3];
  for (const std::byte b : bytes) {
    std::snprintf(pair, sizeof pair, "%02x", static_cast<unsigned>(b));
    text += pair;
  }
  return text;
}

Bytes from_hex(std::string_view text) {
  Bytes out;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2)
    out.push_back(static_cast<std::byte>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  return out;
}

TEST(NbdCodec, Hello) {
  Bytes out;
  append_hello(out, kFixedNewstyle | kNoZeroes);
  EXPECT_EQ(hex(out), "4e42444d4147494349484156454f50540003");
  EXPECT_EQ(out.size(), kHelloBytes);
}

TEST(NbdCodec, ExportNameReply) {
  Bytes out;
  append_export_name_reply(out, 0x0102030405060708, 0x1234, false);
  EXPECT_EQ(hex(out), "01020304050607081234");
  out.clear();
  append_export_name_reply(out, 0x0102030405060708, 0x1234, true);
  EXPECT_EQ(hex(out), "01020304050607081234" + std::string(248, '0'));
}

TEST(NbdCodec, OptionReplies) {
  Bytes out;
  append_option_reply(out, option::kList, rep::kAck);
  EXPECT_EQ(hex(out), "0003e889045565a9000000030000000100000000");
  out.clear();
  append_option_error(out, option::kStartTls, rep::kErrUnsup, "no");
  EXPECT_EQ(hex(out), "0003e889045565a90000000580000001000000026e6f");
  out.clear();
  append_server(out, option::kList, "vm1");
  EXPECT_EQ(hex(out),
            "0003e889045565a9000000030000000200000007"
            "00000003"
            "766d31");
  out.clear();
  append_info_export(out, option::kGo, 0x10000, 0x0d6d);
  EXPECT_EQ(hex(out),
            "0003e889045565a900000007000000030000000c"
            "0000"
            "0000000000010000"
            "0d6d");
  out.clear();
  append_info_name(out, option::kInfo, "vm1");
  EXPECT_EQ(hex(out),
            "0003e889045565a9000000060000000300000005"
            "0001"
            "766d31");
  out.clear();
  append_info_block_size(out, option::kGo, {.minimum = 512, .preferred = 4096, .maximum = 1 << 25});
  EXPECT_EQ(hex(out),
            "0003e889045565a900000007000000030000000e"
            "0003"
            "00000200"
            "00001000"
            "02000000");
  out.clear();
  append_meta_context(out, option::kSetMetaContext, 1, kBaseAllocation);
  EXPECT_EQ(hex(out),
            "0003e889045565a90000000a0000000400000013"
            "00000001"
            "626173653a616c6c6f636174696f6e");
}

TEST(NbdCodec, ErrorMessagesAreCut) {
  const std::string longest(kStringBytesMax + 100, 'x');
  Bytes out;
  append_option_error(out, option::kGo, rep::kErrUnknown, longest);
  EXPECT_EQ(out.size(), 20 + kStringBytesMax);
  out.clear();
  append_error_chunk(out, 1, WireError::kIo, longest);
  EXPECT_EQ(out.size(), kChunkHeaderBytes + 6 + kStringBytesMax);
}

TEST(NbdCodec, OptionHeader) {
  const Bytes good = from_hex("49484156454f50540000000700000020");
  const auto header = decode_option_header(ByteView(good).first<kOptionHeaderBytes>());
  ASSERT_TRUE(header);
  EXPECT_EQ(header->option, option::kGo);
  EXPECT_EQ(header->length, 32u);
  const Bytes bad = from_hex("49484156454f50550000000700000020");
  EXPECT_FALSE(decode_option_header(ByteView(bad).first<kOptionHeaderBytes>()));
}

TEST(NbdCodec, ClientFlags) {
  const Bytes bytes = from_hex("00000103");
  EXPECT_EQ(decode_client_flags(ByteView(bytes).first<kClientFlagsBytes>()), 0x103u);
}

TEST(NbdCodec, ExportRequest) {
  const Bytes good = from_hex("00000003766d31000200000003");
  const auto request = decode_export_request(good);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->name, "vm1");
  EXPECT_EQ(request->info, (std::vector<std::uint16_t>{info::kExport, info::kBlockSize}));
  EXPECT_EQ(hex(RawClient::export_request("vm1", {0, 3})), hex(good));
  // Every truncation and every extension is invalid.
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(decode_export_request(ByteView(good).first(size))) << size;
  Bytes longer = good;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(decode_export_request(longer));
}

TEST(NbdCodec, NamesThatAreNot) {
  EXPECT_TRUE(decode_name(bytes_of("")));
  EXPECT_FALSE(decode_name(bytes_of(std::string_view("a\0b", 3))));
  EXPECT_TRUE(decode_name(bytes_of(std::string(kStringBytesMax, 'n'))));
  EXPECT_FALSE(decode_name(bytes_of(std::string(kStringBytesMax + 1, 'n'))));
  EXPECT_FALSE(decode_export_request(from_hex("ffffffff766d310000")));
}

TEST(NbdCodec, MetaContextRequest) {
  const Bytes good =
      from_hex("00000001610000000200000005626173653a0000000f626173653a616c6c6f636174696f6e");
  const auto request = decode_meta_context_request(good);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->export_name, "a");
  EXPECT_EQ(request->queries, (std::vector<std::string>{"base:", kBaseAllocation}));
  EXPECT_EQ(hex(RawClient::meta_request("a", {"base:", kBaseAllocation})), hex(good));
  for (std::size_t size = 0; size < good.size(); ++size)
    EXPECT_FALSE(decode_meta_context_request(ByteView(good).first(size))) << size;
  // A count without its queries must not make the decoder allocate for it.
  EXPECT_FALSE(decode_meta_context_request(from_hex("0000000161ffffffff")));
}

TEST(NbdCodec, Request) {
  const Bytes bytes = from_hex(
      "25609513"
      "0001"
      "0006"
      "a1a2a3a4a5a6a7a8"
      "0000000100000200"
      "00001000");
  const auto request = decode_request(ByteView(bytes).first<kRequestBytes>());
  ASSERT_TRUE(request);
  const Request wanted{.flags = flag::kFua,
                       .type = command::kWriteZeroes,
                       .cookie = 0xa1a2a3a4a5a6a7a8,
                       .offset = 0x100000200,
                       .length = 4096};
  EXPECT_EQ(*request, wanted);
  EXPECT_EQ(hex(RawClient::request_bytes(wanted)), hex(bytes));
  Bytes bad = bytes;
  bad[0] = std::byte{0};
  EXPECT_FALSE(decode_request(ByteView(bad).first<kRequestBytes>()));
}

TEST(NbdCodec, Replies) {
  Bytes out;
  append_simple_reply(out, 0x0102030405060708, WireError::kNoSpace);
  EXPECT_EQ(hex(out),
            "67446698"
            "0000001c"
            "0102030405060708");
  EXPECT_EQ(out.size(), kSimpleReplyBytes);
  out.clear();
  append_offset_data_head(out, 2, true, 0x1000, 0x200);
  EXPECT_EQ(hex(out),
            "668e33ef"
            "0001"
            "0001"
            "0000000000000002"
            "00000208"
            "0000000000001000");
  out.clear();
  append_offset_hole(out, 2, false, 0x1000, 0x200);
  EXPECT_EQ(hex(out),
            "668e33ef"
            "0000"
            "0002"
            "0000000000000002"
            "0000000c"
            "0000000000001000"
            "00000200");
  out.clear();
  append_error_chunk(out, 2, WireError::kIo, "bad");
  EXPECT_EQ(hex(out),
            "668e33ef"
            "0001"
            "8001"
            "0000000000000002"
            "00000009"
            "00000005"
            "0003"
            "626164");
  out.clear();
  const StatusExtent extents[] = {{4096, 0}, {8192, kStateHole | kStateZero}};
  append_block_status(out, 2, true, 1, extents);
  EXPECT_EQ(hex(out),
            "668e33ef"
            "0001"
            "0005"
            "0000000000000002"
            "00000014"
            "00000001"
            "00001000"
            "00000000"
            "00002000"
            "00000003");
  out.clear();
  append_block_status(out, 2, false, 2, std::span(extents).first(1));
  EXPECT_EQ(hex(out),
            "668e33ef"
            "0000"
            "0005"
            "0000000000000002"
            "0000000c"
            "00000002"
            "00001000"
            "00000000");
}

TEST(NbdCodec, ClientsCannotWriteLogLines) {
  EXPECT_EQ(printable("vm 1/\xc3\xa4"), "vm 1/\xc3\xa4");
  EXPECT_EQ(printable("a\nevent=x \"b\"\x7f"), "a?event=x ?b??");
  EXPECT_EQ(printable(std::string(1000, 'x')).size(), 256u);
}

TEST(NbdCodec, ErrorsOfTheVolumeBecomeErrorsOfTheWire) {
  EXPECT_EQ(wire_error(ErrorCode::kNoSpace), WireError::kNoSpace);
  EXPECT_EQ(wire_error(ErrorCode::kReadOnly), WireError::kPerm);
  EXPECT_EQ(wire_error(ErrorCode::kInvalid), WireError::kInvalid);
  EXPECT_EQ(wire_error(ErrorCode::kCancelled), WireError::kShutdown);
  for (const auto code :
       {ErrorCode::kIo, ErrorCode::kCorrupt, ErrorCode::kFenced, ErrorCode::kUnavailable})
    EXPECT_EQ(wire_error(code), WireError::kIo) << to_string(code);
}

}  // namespace
}  // namespace tandem::nbd
