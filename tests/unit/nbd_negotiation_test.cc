// Every option of the handshake, right and wrong, against a server on a Unix socket.
#include "tests/interop/nbd_fixture.h"

namespace tandem::test {
namespace {

namespace option = nbd::option;
namespace rep = nbd::rep;
namespace info = nbd::info;
namespace can = nbd::can;

class NbdNegotiation : public NbdServerTest {};

TEST_F(NbdNegotiation, Greeting) {
  start();
  auto client = connect();
  const Bytes hello = client.receive(nbd::kHelloBytes);
  EXPECT_EQ(get_be<std::uint64_t>(hello, 0), nbd::kInitMagic);
  EXPECT_EQ(get_be<std::uint64_t>(hello, 8), nbd::kOptionMagic);
  EXPECT_EQ(get_be<std::uint16_t>(hello, 16), nbd::kFixedNewstyle | nbd::kNoZeroes);
}

TEST_F(NbdNegotiation, UnknownClientFlagsEndTheConnection) {
  start();
  auto client = connect();
  client.greet(0x80);
  EXPECT_TRUE(client.at_end());
  eventually([this] { return server_->stats().violations_total == 1; });
}

TEST_F(NbdNegotiation, ExportNameWithAndWithoutPadding) {
  start();
  for (const bool padded : {false, true}) {
    auto client = connect();
    client.greet(nbd::kFixedNewstyle | (padded ? 0 : nbd::kNoZeroes));
    client.send_option(option::kExportName, bytes_of("disk"));
    const Bytes reply = client.receive(padded ? 134 : 10);
    EXPECT_EQ(get_be<std::uint64_t>(reply, 0), kVolumeBytes);
    const auto flags = get_be<std::uint16_t>(reply, 8);
    EXPECT_EQ(flags, can::kHasFlags | can::kFlush | can::kFua | can::kTrim | can::kWriteZeroes |
                         can::kMultiConn | can::kCache | can::kFastZero);
    EXPECT_EQ(client.call({.type = nbd::command::kFlush, .cookie = 5}).cookie, 5u);
  }
}

TEST_F(NbdNegotiation, ExportNameThatDoesNotExistEndsTheConnection) {
  start();
  auto client = connect();
  client.greet();
  client.send_option(option::kExportName, bytes_of("nothing"));
  EXPECT_TRUE(client.at_end());
  eventually([this] { return server_->stats().handshakes_failed_total == 1; });
}

TEST_F(NbdNegotiation, AbortIsAcknowledged) {
  start();
  auto client = connect();
  client.greet();
  const auto replies = client.ask(option::kAbort);
  ASSERT_EQ(replies.size(), 1u);
  EXPECT_EQ(replies[0].type, rep::kAck);
  EXPECT_TRUE(client.at_end());
}

TEST_F(NbdNegotiation, ListNamesEveryExport) {
  start();
  auto client = connect();
  client.greet();
  const auto replies = client.ask(option::kList);
  ASSERT_EQ(replies.size(), 3u);
  EXPECT_EQ(replies[0].type, rep::kServer);
  EXPECT_EQ(replies[0].data, [] {
    Bytes data;
    put_be<std::uint32_t>(data, 4);
    put_text(data, "disk");
    return data;
  }());
  EXPECT_EQ(replies[1].type, rep::kServer);
  EXPECT_EQ(client.ask(option::kList, bytes_of("x")).back().type, rep::kErrInvalid);
}

TEST_F(NbdNegotiation, InfoThenGo) {
  start();
  auto client = connect();
  client.greet();
  const auto wanted = {info::kExport, info::kName, info::kBlockSize, std::uint16_t{77}};
  for (const auto which : {option::kInfo, option::kGo}) {
    const auto replies = client.ask(which, RawClient::export_request("disk", wanted));
    ASSERT_EQ(replies.size(), 4u);
    EXPECT_EQ(replies[0].option, which);
    EXPECT_EQ(get_be<std::uint16_t>(replies[0].data, 0), info::kExport);
    EXPECT_EQ(get_be<std::uint64_t>(replies[0].data, 2), kVolumeBytes);
    EXPECT_EQ(get_be<std::uint16_t>(replies[1].data, 0), info::kName);
    EXPECT_EQ(replies[1].data.size(), 2u + 4u);
    EXPECT_EQ(get_be<std::uint16_t>(replies[2].data, 0), info::kBlockSize);
    EXPECT_EQ(get_be<std::uint32_t>(replies[2].data, 2), 512u);
    EXPECT_EQ(get_be<std::uint32_t>(replies[2].data, 6), 4096u);
    EXPECT_EQ(get_be<std::uint32_t>(replies[2].data, 10), 32u << 20);
    EXPECT_EQ(replies[3].type, rep::kAck);
  }
  EXPECT_EQ(client.call({.type = nbd::command::kFlush, .cookie = 9}).cookie, 9u);
}

TEST_F(NbdNegotiation, LogicalBlockOf4096IsTheMinimum) {
  add("big", {.size_bytes = kVolumeBytes, .logical_block_bytes = 4096});
  start();
  auto client = connect();
  client.greet();
  const auto replies =
      client.ask(option::kInfo, RawClient::export_request("big", {info::kBlockSize}));
  ASSERT_EQ(replies.size(), 3u);
  EXPECT_EQ(get_be<std::uint32_t>(replies[1].data, 2), 4096u);
}

TEST_F(NbdNegotiation, WithoutAskingOnlyTheExportIsDescribed) {
  start();
  auto client = connect();
  client.greet();
  EXPECT_EQ(client.ask(option::kInfo, RawClient::export_request("disk")).size(), 2u);
}

TEST_F(NbdNegotiation, ReadOnlyExportSaysSo) {
  start();
  auto client = connect();
  client.greet();
  client.ask(option::kStructuredReply);
  const auto replies = client.ask(option::kInfo, RawClient::export_request("readonly"));
  EXPECT_EQ(get_be<std::uint16_t>(replies[0].data, 10), can::kHasFlags | can::kReadOnly |
                                                            can::kFlush | can::kFua | can::kDf |
                                                            can::kMultiConn | can::kCache);
}

TEST_F(NbdNegotiation, RefusalsCarryTheReasonAndTheHandshakeGoesOn) {
  directory_.refuse("mirrored", {ErrorCode::kReadOnly, "this node is the mirror of 'mirrored'"});
  directory_.refuse("starting", {ErrorCode::kUnavailable, "the group is starting"});
  start();
  auto client = connect();
  client.greet();
  auto reply = client.ask(option::kGo, RawClient::export_request("nothing")).back();
  EXPECT_EQ(reply.type, rep::kErrUnknown);
  EXPECT_EQ(reply.data, bytes_of("no volume 'nothing' here"));
  reply = client.ask(option::kGo, RawClient::export_request("mirrored")).back();
  EXPECT_EQ(reply.type, rep::kErrPolicy);
  EXPECT_EQ(reply.data, bytes_of("this node is the mirror of 'mirrored'"));
  EXPECT_EQ(client.ask(option::kGo, RawClient::export_request("starting")).back().type,
            rep::kErrPolicy);
  EXPECT_EQ(client.ask(option::kGo, RawClient::export_request("")).back().type, rep::kErrUnknown);
  EXPECT_EQ(client.ask(option::kGo, RawClient::export_request("disk")).back().type, rep::kAck);
}

TEST_F(NbdNegotiation, MalformedInfoIsInvalid) {
  start();
  auto client = connect();
  client.greet();
  Bytes data = RawClient::export_request("disk", {info::kBlockSize});
  data.pop_back();
  EXPECT_EQ(client.ask(option::kInfo, data).back().type, rep::kErrInvalid);
  EXPECT_EQ(client.ask(option::kGo, bytes_of("abc")).back().type, rep::kErrInvalid);
}

TEST_F(NbdNegotiation, UnknownOptionsAreUnsupported) {
  start();
  auto client = connect();
  client.greet();
  for (const std::uint32_t unknown : {4u, 11u, 4711u, 0xffffffffu}) {
    const auto replies = client.ask(unknown, bytes_of("whatever"));
    EXPECT_EQ(replies.back().type, rep::kErrUnsup);
    EXPECT_EQ(replies.back().option, unknown);
  }
  EXPECT_EQ(client.ask(option::kStartTls).back().type, rep::kErrUnsup);
  EXPECT_EQ(client.ask(option::kGo, RawClient::export_request("disk")).back().type, rep::kAck);
}

TEST_F(NbdNegotiation, TooLongDataIsSkipped) {
  start();
  auto client = connect();
  client.greet();
  EXPECT_EQ(client.ask(option::kInfo, Bytes(1 << 20)).back().type, rep::kErrTooBig);
  EXPECT_EQ(client.ask(option::kGo, RawClient::export_request("disk")).back().type, rep::kAck);
}

TEST_F(NbdNegotiation, AbsurdLengthEndsTheConnection) {
  start();
  for (const std::uint32_t which : {option::kInfo, option::kExportName}) {
    auto client = connect();
    client.greet();
    Bytes header;
    put_be<std::uint64_t>(header, nbd::kOptionMagic);
    put_be<std::uint32_t>(header, which);
    put_be<std::uint32_t>(header, 0xfffffff0);
    client.send(header);
    EXPECT_TRUE(client.at_end());
  }
}

TEST_F(NbdNegotiation, MetaContextsNeedStructuredReplies) {
  start();
  auto client = connect();
  client.greet();
  const Bytes query = RawClient::meta_request("disk", {nbd::kBaseAllocation});
  EXPECT_EQ(client.ask(option::kSetMetaContext, query).back().type, rep::kErrInvalid);
  EXPECT_EQ(client.ask(option::kListMetaContext, query).back().type, rep::kErrInvalid);
  EXPECT_EQ(client.ask(option::kStructuredReply, bytes_of("x")).back().type, rep::kErrInvalid);
  EXPECT_EQ(client.ask(option::kStructuredReply).back().type, rep::kAck);
  const auto replies = client.ask(option::kSetMetaContext, query);
  ASSERT_EQ(replies.size(), 2u);
  EXPECT_EQ(replies[0].type, rep::kMetaContext);
  EXPECT_EQ(get_be<std::uint32_t>(replies[0].data, 0), nbd::kBaseAllocationId);
}

TEST_F(NbdNegotiation, MetaContextQueries) {
  start();
  auto client = connect();
  client.greet();
  client.ask(option::kStructuredReply);
  const auto found = [&](std::uint32_t which, std::vector<std::string_view> queries) {
    return client.ask(which, RawClient::meta_request("disk", std::move(queries))).size() - 1;
  };
  EXPECT_EQ(found(option::kListMetaContext, {}), 1u);
  EXPECT_EQ(found(option::kListMetaContext, {"base:"}), 1u);
  EXPECT_EQ(found(option::kListMetaContext, {"qemu:dirty-bitmap:x"}), 0u);
  EXPECT_EQ(found(option::kSetMetaContext, {}), 0u);
  EXPECT_EQ(found(option::kSetMetaContext, {"base:"}), 0u);
  EXPECT_EQ(found(option::kSetMetaContext, {"x-other:1", "base:allocation"}), 1u);
  EXPECT_EQ(client.ask(option::kSetMetaContext, RawClient::meta_request("nothing", {"base:"}))
                .back()
                .type,
            rep::kErrUnknown);
  EXPECT_EQ(client.ask(option::kListMetaContext, bytes_of("12")).back().type, rep::kErrInvalid);
}

// The last SET_META_CONTEXT counts, and only for the export that it named.
TEST_F(NbdNegotiation, MetaContextOfAnotherExportIsNotActive) {
  start();
  for (const bool same : {true, false}) {
    auto client = connect();
    client.greet();
    client.ask(option::kStructuredReply);
    client.ask(option::kSetMetaContext,
               RawClient::meta_request(same ? "disk" : "readonly", {nbd::kBaseAllocation}));
    client.ask(option::kGo, RawClient::export_request("disk"));
    const Reply reply =
        client.call({.type = nbd::command::kBlockStatus, .cookie = 1, .length = 4096});
    EXPECT_EQ(reply.type, same ? nbd::chunk::kBlockStatus : nbd::chunk::kError);
  }
}

TEST_F(NbdNegotiation, WrongOptionMagicEndsTheConnection) {
  start();
  auto client = connect();
  client.greet();
  client.send(bytes_of("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_TRUE(client.at_end());
  eventually([this] { return server_->stats().violations_total == 1; });
}

TEST_F(NbdNegotiation, OptionsByteByByte) {
  start();
  auto client = connect();
  client.greet();
  Bytes out;
  put_be<std::uint64_t>(out, nbd::kOptionMagic);
  put_be<std::uint32_t>(out, option::kGo);
  const Bytes data = RawClient::export_request("disk", {info::kBlockSize});
  put_be<std::uint32_t>(out, static_cast<std::uint32_t>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
  for (const std::byte one : out) client.send({&one, 1});
  EXPECT_EQ(client.option_reply().type, rep::kInfo);
  EXPECT_EQ(client.option_reply().type, rep::kInfo);
  EXPECT_EQ(client.option_reply().type, rep::kAck);
}

TEST_F(NbdNegotiation, ClientThatLeavesAtAnyByteOfTheHandshake) {
  start();
  Bytes out;
  put_be<std::uint32_t>(out, 3);
  put_be<std::uint64_t>(out, nbd::kOptionMagic);
  put_be<std::uint32_t>(out, option::kGo);
  const Bytes data = RawClient::export_request("disk");
  put_be<std::uint32_t>(out, static_cast<std::uint32_t>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
  for (std::size_t size = 0; size <= out.size(); ++size) {
    auto client = connect();
    client.send(ByteView(out).first(size));
  }
  eventually([&] {
    const auto now = server_->stats();
    return now.connections_total == out.size() + 1 && now.connections_open == 0;
  });
}

}  // namespace
}  // namespace tandem::test
