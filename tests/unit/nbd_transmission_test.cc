// Every command of the transmission phase, right and wrong.
#include <algorithm>
#include <set>

#include "tests/interop/nbd_fixture.h"

namespace tandem::test {
namespace {

namespace command = nbd::command;
namespace flag = nbd::flag;
namespace chunk = nbd::chunk;
using nbd::Request;
using nbd::WireError;

constexpr auto error_number(WireError error) { return static_cast<std::uint32_t>(error); }

Bytes pattern(std::size_t bytes, unsigned seed) {
  Bytes data(bytes);
  for (std::size_t i = 0; i < bytes; ++i)
    data[i] = static_cast<std::byte>((i * 131 + seed * 7919 + i / 4096) & 0xff);
  return data;
}

class NbdTransmission : public NbdServerTest {
 protected:
  RawClient open(std::string_view name = "disk", bool structured = false, bool allocation = false) {
    auto client = connect();
    EXPECT_EQ(client.go(name, structured, allocation), nbd::rep::kAck);
    return client;
  }
  Bytes content(std::uint64_t offset, std::size_t bytes) {
    return on_reactor([&] {
      const auto part = volume_->content().subspan(offset, bytes);
      return Bytes(part.begin(), part.end());
    });
  }
};

TEST_F(NbdTransmission, WriteThenReadSimple) {
  start();
  auto client = open();
  const Bytes data = pattern(8192, 1);
  const Reply written = client.call(
      {.type = command::kWrite, .cookie = 0xfeed, .offset = 4096, .length = 8192}, data);
  EXPECT_FALSE(written.structured);
  EXPECT_EQ(written.error, 0u);
  EXPECT_EQ(written.cookie, 0xfeedu);
  EXPECT_EQ(content(4096, 8192), data);
  const Reply read = client.call({.type = command::kRead, .offset = 4096, .length = 8192});
  EXPECT_EQ(read.error, 0u);
  EXPECT_EQ(read.data, data);
}

TEST_F(NbdTransmission, ReadStructured) {
  start();
  auto client = open("disk", true);
  const Bytes data = pattern(4096, 2);
  client.call({.type = command::kWrite, .offset = 512, .length = 4096}, data);
  const Reply read =
      client.call({.type = command::kRead, .cookie = 3, .offset = 512, .length = 4096});
  ASSERT_TRUE(read.structured);
  EXPECT_EQ(read.type, chunk::kOffsetData);
  EXPECT_EQ(read.flags, chunk::kDone);
  EXPECT_EQ(read.cookie, 3u);
  EXPECT_EQ(get_be<std::uint64_t>(read.data, 0), 512u);
  EXPECT_EQ(Bytes(read.data.begin() + 8, read.data.end()), data);
}

TEST_F(NbdTransmission, AnyAlignmentAndSize) {
  start();
  auto client = open();
  Bytes model(kVolumeBytes);
  std::uint32_t random = 12345;
  for (int i = 0; i < 200; ++i) {
    random = random * 1664525 + 1013904223;
    const std::uint32_t length = 1 + (random >> 8) % (i % 10 == 0 ? 1500000 : 9000);
    random = random * 1664525 + 1013904223;
    const std::uint64_t offset = (random >> 4) % (kVolumeBytes - length);
    if (i % 3 == 2) {
      const Reply read = client.call({.type = command::kRead, .offset = offset, .length = length});
      ASSERT_TRUE(std::equal(read.data.begin(), read.data.end(), model.begin() + offset)) << i;
    } else {
      const Bytes data = pattern(length, i);
      client.call({.type = command::kWrite, .offset = offset, .length = length}, data);
      std::copy(data.begin(), data.end(), model.begin() + offset);
    }
  }
  EXPECT_EQ(content(0, kVolumeBytes), model);
}

TEST_F(NbdTransmission, SparseReadSendsHolesAsHoles) {
  start();
  auto client = open("disk", true);
  const Bytes data = pattern(65536, 3);
  client.call({.type = command::kWrite, .offset = 131072, .length = 65536}, data);
  client.request({.type = command::kRead, .cookie = 8, .offset = 65536, .length = 262144});
  Bytes got(262144, std::byte{0xee});
  std::vector<std::uint16_t> types;
  for (bool done = false; !done;) {
    const Reply reply = client.reply();
    EXPECT_EQ(reply.cookie, 8u);
    types.push_back(reply.type);
    done = (reply.flags & chunk::kDone) != 0;
    const auto at = get_be<std::uint64_t>(reply.data, 0) - 65536;
    if (reply.type == chunk::kOffsetHole) {
      const auto hole = get_be<std::uint32_t>(reply.data, 8);
      std::fill_n(got.begin() + at, hole, std::byte{0});
    } else {
      std::copy(reply.data.begin() + 8, reply.data.end(), got.begin() + at);
    }
  }
  EXPECT_EQ(types, (std::vector<std::uint16_t>{chunk::kOffsetHole, chunk::kOffsetData,
                                               chunk::kOffsetHole}));
  EXPECT_EQ(got, content(65536, 262144));
}

TEST_F(NbdTransmission, DontFragmentIsObeyed) {
  start();
  auto client = open("disk", true);
  client.call({.type = command::kWrite, .offset = 65536, .length = 4096}, pattern(4096, 4));
  const Reply read = client.call(
      {.flags = flag::kDf, .type = command::kRead, .cookie = 8, .offset = 0, .length = 262144});
  EXPECT_EQ(read.type, chunk::kOffsetData);
  EXPECT_EQ(read.flags, chunk::kDone);
  EXPECT_EQ(read.data.size(), 8u + 262144);
}

TEST_F(NbdTransmission, FlagsReachTheVolume) {
  start();
  auto client = open("disk", true);
  EXPECT_EQ(
      client.call({.flags = flag::kFua, .type = command::kWrite, .length = 512}, pattern(512, 1))
          .error,
      0u);
  EXPECT_EQ(counters().fua, 1u);
  client.call({.flags = flag::kFua, .type = command::kTrim, .length = 4096});
  EXPECT_EQ(counters().fua, 2u);
  client.call({.flags = flag::kFua | flag::kNoHole | flag::kFastZero,
               .type = command::kWriteZeroes,
               .length = 4096});
  EXPECT_EQ(counters().fua, 3u);
  EXPECT_EQ(counters().no_hole, 1u);
  // FUA is allowed, and has no effect, on all others.
  EXPECT_EQ(client.call({.flags = flag::kFua, .type = command::kFlush}).error, 0u);
  EXPECT_EQ(client.call({.flags = flag::kFua, .type = command::kCache, .length = 1}).error, 0u);
  EXPECT_EQ(client.call({.flags = flag::kFua, .type = command::kRead, .length = 1}).error, 0u);
}

TEST_F(NbdTransmission, TrimAndWriteZeroes) {
  start();
  auto client = open();
  client.call({.type = command::kWrite, .length = 65536}, pattern(65536, 1));
  EXPECT_EQ(client.call({.type = command::kTrim, .offset = 4096, .length = 8192}).error, 0u);
  EXPECT_EQ(content(4096, 8192), Bytes(8192));
  EXPECT_EQ(client.call({.type = command::kWriteZeroes, .offset = 20000, .length = 100}).error, 0u);
  EXPECT_EQ(content(20000, 100), Bytes(100));
  const Bytes untouched = pattern(65536, 1);
  EXPECT_EQ(content(20100, 4), Bytes(untouched.begin() + 20100, untouched.begin() + 20104));
  // Lengths of commands without payload are not bound by the payload limit.
  EXPECT_EQ(client.call({.type = command::kWriteZeroes, .length = kVolumeBytes}).error, 0u);
  const auto now = counters();
  EXPECT_EQ(now.discards, 1u);
  EXPECT_EQ(now.zeroes, 2u);
}

TEST_F(NbdTransmission, BlockStatus) {
  start();
  auto client = open("disk", true, true);
  client.call({.type = command::kWrite, .offset = 8192, .length = 4096}, pattern(4096, 1));
  client.call(
      {.flags = flag::kNoHole, .type = command::kWriteZeroes, .offset = 16384, .length = 4096});
  Reply reply = client.call({.type = command::kBlockStatus, .cookie = 5, .length = 65536});
  ASSERT_EQ(reply.type, chunk::kBlockStatus);
  EXPECT_EQ(reply.flags, chunk::kDone);
  EXPECT_EQ(get_be<std::uint32_t>(reply.data, 0), nbd::kBaseAllocationId);
  std::vector<std::pair<std::uint32_t, std::uint32_t>> extents;
  for (std::size_t at = 4; at < reply.data.size(); at += 8)
    extents.emplace_back(get_be<std::uint32_t>(reply.data, at),
                         get_be<std::uint32_t>(reply.data, at + 4));
  const std::uint32_t hole = nbd::kStateHole | nbd::kStateZero;
  EXPECT_EQ(extents,
            (std::vector<std::pair<std::uint32_t, std::uint32_t>>{
                {8192, hole}, {4096, 0}, {4096, hole}, {4096, nbd::kStateZero}, {45056, hole}}));
  reply = client.call(
      {.flags = flag::kReqOne, .type = command::kBlockStatus, .offset = 1, .length = 65536});
  ASSERT_EQ(reply.data.size(), 12u);
  EXPECT_EQ(get_be<std::uint32_t>(reply.data, 4), 8191u);
}

TEST_F(NbdTransmission, BlockStatusWithoutContextIsInvalid) {
  start();
  auto client = open("disk", true, false);
  const Reply reply = client.call({.type = command::kBlockStatus, .length = 4096});
  EXPECT_EQ(reply.error, error_number(WireError::kInvalid));
}

// Each bad request gets its error, with and without structured replies, and the connection lives.
TEST_F(NbdTransmission, RequestsAreJudged) {
  start();
  struct Case {
    const char* what;
    Request request;
    WireError error;
  };
  const Case cases[] = {
      {"read behind the end",
       {.type = command::kRead, .offset = kVolumeBytes - 1, .length = 2},
       WireError::kInvalid},
      {"read far behind the end",
       {.type = command::kRead, .offset = ~0ull, .length = 4096},
       WireError::kInvalid},
      {"write behind the end",
       {.type = command::kWrite, .offset = kVolumeBytes - 1, .length = 2},
       WireError::kNoSpace},
      {"zeroes behind the end",
       {.type = command::kWriteZeroes, .offset = kVolumeBytes, .length = 1},
       WireError::kNoSpace},
      {"trim behind the end",
       {.type = command::kTrim, .offset = kVolumeBytes, .length = 1},
       WireError::kInvalid},
      {"cache behind the end",
       {.type = command::kCache, .offset = kVolumeBytes, .length = 1},
       WireError::kInvalid},
      {"empty read", {.type = command::kRead}, WireError::kInvalid},
      {"empty write", {.type = command::kWrite}, WireError::kInvalid},
      {"flush with a length", {.type = command::kFlush, .length = 1}, WireError::kInvalid},
      {"flush with an offset", {.type = command::kFlush, .offset = 1}, WireError::kInvalid},
      {"unknown command", {.type = 8}, WireError::kInvalid},
      {"unknown command", {.type = 0xffff, .length = 3}, WireError::kInvalid},
      {"unknown flag", {.flags = 1 << 9, .type = command::kFlush}, WireError::kInvalid},
      {"flag of another command",
       {.flags = flag::kNoHole, .type = command::kRead, .length = 1},
       WireError::kInvalid},
      {"REQ_ONE on a write",
       {.flags = flag::kReqOne, .type = command::kWrite, .length = 9},
       WireError::kInvalid},
      {"read above the maximum",
       {.type = command::kRead, .length = (32 << 20) + 1},
       WireError::kInvalid},
  };
  for (const bool structured : {false, true}) {
    auto client = open("disk", structured);
    std::uint64_t cookie = 100;
    for (Case test : cases) {
      test.request.cookie = ++cookie;
      Bytes payload;
      if (test.request.type == command::kWrite) payload = pattern(test.request.length, 1);
      const Reply reply = client.call(test.request, payload);
      EXPECT_EQ(reply.error, error_number(test.error)) << test.what;
      EXPECT_EQ(reply.cookie, cookie) << test.what;
      EXPECT_EQ(reply.structured, structured) << test.what;
      if (structured) {
        EXPECT_EQ(reply.type, chunk::kError) << test.what;
        EXPECT_EQ(reply.flags, chunk::kDone) << test.what;
        EXPECT_GT(reply.data.size(), 6u) << test.what;
      }
    }
    EXPECT_EQ(client.call({.type = command::kFlush, .cookie = 7}).error, 0u);
  }
  EXPECT_EQ(counters().writes, 0u);
  EXPECT_EQ(stats().errors_total, 2 * std::size(cases));
}

TEST_F(NbdTransmission, OverlongPayloadIsDrainedNotObeyed) {
  add("large", {.size_bytes = std::uint64_t{256} << 20});
  start({.bytes_max = 1 << 20, .payload_bytes_max = 1 << 20});
  auto client = open("large");
  const Bytes data((1 << 20) + 1);
  const Reply reply = client.call(
      {.type = command::kWrite, .length = static_cast<std::uint32_t>(data.size())}, data);
  EXPECT_EQ(reply.error, error_number(WireError::kInvalid));
  EXPECT_EQ(client.call({.type = command::kWrite, .length = 512}, pattern(512, 1)).error, 0u);
}

TEST_F(NbdTransmission, DfAboveTheMaximumOverflows) {
  add("large", {.size_bytes = std::uint64_t{256} << 20});
  start({.payload_bytes_max = 1 << 20});
  auto client = open("large", true);
  const Reply reply =
      client.call({.flags = flag::kDf, .type = command::kRead, .length = (1 << 20) + 1});
  EXPECT_EQ(reply.error, error_number(WireError::kOverflow));
  auto simple = open("large", false);
  EXPECT_EQ(simple.call({.flags = flag::kDf, .type = command::kRead, .length = 512}).error,
            error_number(WireError::kInvalid));
}

TEST_F(NbdTransmission, ReadOnlyExport) {
  start();
  auto client = open("readonly");
  EXPECT_EQ(client.call({.type = command::kWrite, .length = 512}, pattern(512, 1)).error,
            error_number(WireError::kPerm));
  EXPECT_EQ(client.call({.type = command::kTrim, .length = 512}).error,
            error_number(WireError::kPerm));
  EXPECT_EQ(client.call({.type = command::kWriteZeroes, .length = 512}).error,
            error_number(WireError::kPerm));
  EXPECT_EQ(client.call({.type = command::kFlush}).error, 0u);
  EXPECT_EQ(client.call({.type = command::kRead, .length = 512}).error, 0u);
}

TEST_F(NbdTransmission, ErrorsOfTheVolumeAreTold) {
  start();
  const auto fail = [&](ErrorCode code) {
    on_reactor([&] {
      volume_->set_fault([code](VolumeCall, std::uint64_t, std::uint64_t) {
        return std::optional<Error>(Error{code, "because of the test"});
      });
    });
  };
  auto simple = open();
  auto structured = open("disk", true, true);
  const Request requests[] = {
      {.type = command::kRead, .length = 512},  {.type = command::kRead, .length = 1 << 20},
      {.type = command::kWrite, .length = 512}, {.type = command::kFlush},
      {.type = command::kTrim, .length = 512},  {.type = command::kWriteZeroes, .length = 512}};
  const std::pair<ErrorCode, WireError> errors[] = {
      {ErrorCode::kIo, WireError::kIo},           {ErrorCode::kNoSpace, WireError::kNoSpace},
      {ErrorCode::kFenced, WireError::kIo},       {ErrorCode::kCorrupt, WireError::kIo},
      {ErrorCode::kInvalid, WireError::kInvalid}, {ErrorCode::kCancelled, WireError::kShutdown}};
  for (const auto& [code, wire] : errors) {
    fail(code);
    for (const Request& request : requests) {
      const Bytes payload(request.type == command::kWrite ? request.length : 0);
      EXPECT_EQ(simple.call(request, payload).error, error_number(wire)) << to_string(code);
      const Reply reply = structured.call(request, payload);
      EXPECT_EQ(reply.error, error_number(wire)) << to_string(code);
      EXPECT_EQ(Bytes(reply.data.begin() + 6, reply.data.end()), bytes_of("because of the test"));
    }
    EXPECT_EQ(structured.call({.type = command::kBlockStatus, .length = 512}).error,
              error_number(wire));
  }
}

/// Its node became a mirror: an error would reach the guest, a lost connection makes it ask
/// elsewhere.
TEST_F(NbdTransmission, AVolumeThatMovedEndsItsConnectionsUnanswered) {
  start();
  for (const bool structured : {false, true}) {
    for (const Request& request :
         {Request{.type = command::kRead, .length = 512},
          Request{.type = command::kWrite, .length = 512}, Request{.type = command::kFlush},
          Request{.type = command::kTrim, .length = 512}}) {
      auto client = open("disk", structured);
      EXPECT_EQ(client.call({.type = command::kFlush}).error, 0u);
      on_reactor([&] {
        volume_->set_fault([](VolumeCall, std::uint64_t, std::uint64_t) {
          return std::optional<Error>(Error{ErrorCode::kReadOnly, "a mirror now"});
        });
      });
      for (int i = 0; i < 3; ++i)
        client.request(request, Bytes(request.type == command::kWrite ? request.length : 0));
      EXPECT_TRUE(client.at_end()) << "type " << request.type;
      on_reactor([&] { volume_->set_fault(nullptr); });
    }
  }
  EXPECT_EQ(stats().errors_total, 0u);
  EXPECT_GE(stats().unanswered_total, 8u);
}

TEST_F(NbdTransmission, PartOfASparseReadThatFailsIsAnError) {
  start();
  auto client = open("disk", true);
  client.call({.type = command::kWrite, .offset = 65536, .length = 4096}, pattern(4096, 1));
  on_reactor([&] {
    volume_->set_fault([](VolumeCall call, std::uint64_t, std::uint64_t) {
      return call == VolumeCall::kRead ? std::optional<Error>(Error{ErrorCode::kCorrupt, "bad"})
                                       : std::nullopt;
    });
  });
  const Reply reply = client.call({.type = command::kRead, .length = 131072});
  EXPECT_EQ(reply.type, chunk::kError);
  EXPECT_EQ(reply.flags, chunk::kDone);
}

TEST_F(NbdTransmission, ManyRequestsInOneSegment) {
  start();
  auto client = open();
  Bytes out;
  for (std::uint64_t i = 0; i < 200; ++i) {
    const Bytes head = RawClient::request_bytes(
        {.type = command::kWrite, .cookie = i, .offset = i * 512, .length = 512});
    out.insert(out.end(), head.begin(), head.end());
    const Bytes data = pattern(512, static_cast<unsigned>(i));
    out.insert(out.end(), data.begin(), data.end());
  }
  client.send(out);
  std::set<std::uint64_t> cookies;
  for (int i = 0; i < 200; ++i) {
    const Reply reply = client.reply();
    EXPECT_EQ(reply.error, 0u);
    EXPECT_TRUE(cookies.insert(reply.cookie).second);
  }
  for (std::uint64_t i = 0; i < 200; ++i)
    EXPECT_EQ(content(i * 512, 512), pattern(512, static_cast<unsigned>(i)));
}

TEST_F(NbdTransmission, RequestsByteByByte) {
  start();
  auto client = open();
  Bytes out = RawClient::request_bytes({.type = command::kWrite, .cookie = 1, .length = 100});
  const Bytes data = pattern(100, 5);
  out.insert(out.end(), data.begin(), data.end());
  const Bytes next = RawClient::request_bytes({.type = command::kRead, .cookie = 2, .length = 100});
  out.insert(out.end(), next.begin(), next.end());
  for (const std::byte one : out) client.send({&one, 1});
  EXPECT_EQ(client.reply().cookie, 1u);
  EXPECT_EQ(client.reply(100).data, data);
}

TEST_F(NbdTransmission, WhatCompletesOutOfOrderIsAnsweredOutOfOrder) {
  std::vector<std::coroutine_handle<>> calls;
  start();
  auto client = open();
  on_reactor(
      [&] { volume_->set_later([&](std::coroutine_handle<> call) { calls.push_back(call); }); });
  for (std::uint64_t i = 0; i < 8; ++i)
    client.request({.type = command::kRead, .cookie = i, .offset = i * 4096, .length = 4096});
  eventually([&] { return calls.size() == 8; });
  on_reactor([&] {
    for (auto call = calls.rbegin(); call != calls.rend(); ++call) call->resume();
    volume_->set_later({});
  });
  for (std::uint64_t i = 8; i-- > 0;) EXPECT_EQ(client.reply(4096).cookie, i);
}

TEST_F(NbdTransmission, DisconnectAnswersWhatIsUnderWay) {
  start();
  auto client = open();
  hold();
  client.request({.type = command::kWrite, .cookie = 1, .length = 4096}, pattern(4096, 1));
  client.request({.type = command::kFlush, .cookie = 2});
  client.request({.type = command::kDisc});
  eventually([this] { return volume_->counters().flushes == 1; });
  release();
  EXPECT_EQ(client.reply().cookie, 1u);
  EXPECT_EQ(client.reply().cookie, 2u);
  EXPECT_TRUE(client.at_end());
}

TEST_F(NbdTransmission, SeveralClientsShareAVolume) {
  start();
  auto one = open();
  auto two = open("disk", true);
  one.call({.type = command::kWrite, .length = 4096}, pattern(4096, 1));
  EXPECT_EQ(one.call({.type = command::kFlush}).error, 0u);
  const Reply read = two.call({.type = command::kRead, .length = 4096});
  EXPECT_EQ(Bytes(read.data.begin() + 8, read.data.end()), pattern(4096, 1));
}

// The size that the client was told stays valid; a grown volume needs a new connection.
TEST_F(NbdTransmission, GrowthIsSeenByTheNextConnection) {
  const auto volume = add("growing", {.size_bytes = 1 << 20});
  on_reactor([&] { volume->grow(1 << 19); });
  start();
  auto client = open("growing");
  on_reactor([&] { volume->grow(1 << 20); });
  const Request behind{.type = command::kRead, .offset = 1 << 19, .length = 512};
  EXPECT_EQ(client.call(behind).error, error_number(WireError::kInvalid));
  auto next = open("growing");
  EXPECT_EQ(next.call(behind).error, 0u);
}

TEST_F(NbdTransmission, WhatIsExportedNoMoreLosesItsClients) {
  add("other", {.size_bytes = 1 << 20});
  add("ours@yesterday", {.size_bytes = 1 << 20, .read_only = true});
  start();
  auto moved = open(), stays = open("other"), reader = open("ours@yesterday"), asking = connect();
  on_reactor([&] {
    directory_.remove("disk");
    directory_.remove("ours@yesterday");
    server_->end_unserved();
  });
  EXPECT_TRUE(moved.at_end());
  for (auto* client : {&stays, &reader})
    EXPECT_EQ(client->call({.type = command::kRead, .length = 512}).error, 0u);
  EXPECT_EQ(asking.go("other", false, false), nbd::rep::kAck);
}

TEST_F(NbdTransmission, CountersCount) {
  start();
  auto client = open("disk", true, true);
  client.call({.type = command::kWrite, .length = 4096}, pattern(4096, 1));
  client.call({.type = command::kRead, .length = 512});
  client.call({.type = command::kFlush});
  client.call({.type = command::kTrim, .length = 512});
  client.call({.type = command::kWriteZeroes, .length = 512});
  client.call({.type = command::kCache, .length = 512});
  client.call({.type = command::kBlockStatus, .length = 512});
  const auto now = stats();
  EXPECT_EQ(now.writes_total, 1u);
  EXPECT_EQ(now.written_bytes_total, 4096u);
  EXPECT_EQ(now.reads_total, 1u);
  EXPECT_EQ(now.read_bytes_total, 512u);
  EXPECT_EQ(now.flushes_total, 1u);
  EXPECT_EQ(now.trims_total, 1u);
  EXPECT_EQ(now.zeroes_total, 1u);
  EXPECT_EQ(now.caches_total, 1u);
  EXPECT_EQ(now.block_status_total, 1u);
  EXPECT_EQ(now.connections_open, 1u);
  EXPECT_EQ(now.errors_total, 0u);
}

}  // namespace
}  // namespace tandem::test
