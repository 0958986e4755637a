// Link over real gRPC on the loopback interface: order, back-pressure, ends, hostile bytes.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "rpc/link_codec.h"
#include "rpc/sockets.h"
#include "rpc/stream.h"
#include "tests/support/grpc_node.h"
#include "tests/support/poll_readiness.h"

namespace tandem::rpc {
namespace {

using test::ThreadExecutor;

IoBuffer filled(BufferPool& pool, std::size_t bytes, std::uint32_t seed) {
  auto buffer = pool.allocate(bytes);
  for (std::size_t i = 0; i < bytes; ++i)
    buffer.data()[i] = static_cast<std::byte>((i * 2654435761u + seed * 40503u) >> 13);
  return buffer;
}

bool same(const std::vector<IoBuffer>& pieces, const IoBuffer& whole) {
  std::size_t at = 0;
  for (const auto& piece : pieces) {
    if (at + piece.size() > whole.size()) return false;
    if (std::memcmp(piece.data(), whole.data() + at, piece.size()) != 0) return false;
    at += piece.size();
  }
  return at == whole.size();
}

message::Records records(std::uint64_t lsn, std::vector<IoBuffer> payload = {}) {
  message::Records m;
  m.batch.first = m.batch.last = Lsn(lsn);
  m.batch.records.resize(16, static_cast<std::byte>(lsn));
  m.batch.payload = std::move(payload);
  return m;
}

/// Both ends of a stream. Members are the reactor's.
struct Pair {
  std::unique_ptr<Link> dialer;
  std::unique_ptr<Link> acceptor;
};

/// The parameter: the reactor serves gRPC's sockets; else gRPC's thread does.
class LinkTest : public testing::TestWithParam<bool> {
 protected:
  ~LinkTest() override {
    executor_.run([this] {
      pair_.dialer.reset();
      pair_.acceptor.reset();
    });
    for (auto* node : {&a_, &b_}) node->stop();
    EXPECT_EQ(payload_slices_outstanding(), 0u);
  }

  /// Dials b from a and exchanges one Hello.
  static Task<void> connect(LinkTest& t) {
    t.pair_.dialer = t.a_.service->dialer().dial(t.b_.address());
    t.pair_.dialer->send(message::Hello{});
    auto next = next_link(t.executor_, t.b_);
    t.pair_.acceptor = co_await std::move(next);
    EXPECT_NE(t.pair_.acceptor, nullptr);
    if (!t.pair_.acceptor) co_return;
    auto first = co_await t.pair_.acceptor->receive();
    EXPECT_TRUE(first.has_value()) << (first ? "" : first.error().message);
    EXPECT_TRUE(first && std::holds_alternative<message::Hello>(*first));
  }
  /// Runs `body(*this)` on the reactor with the two connected.
  void run(Task<void> (*body)(LinkTest&)) {
    executor_.run_task([this] { return connect(*this); });
    executor_.run_task([this, body] { return body(*this); });
  }

 public:
  ThreadExecutor executor_;
  test::PollReadiness sockets_{executor_};
  TestNode a_{executor_, TestNode::plain(), GetParam() ? &sockets_ : nullptr};
  TestNode b_{executor_, TestNode::plain(), GetParam() ? &sockets_ : nullptr};
  Pair pair_;
};

INSTANTIATE_TEST_SUITE_P(ServedBy, LinkTest, testing::Bool(), [](const auto& info) {
  return std::string(info.param ? "TheReactor" : "AThread");
});

Task<void> exchange_every_kind(LinkTest& t) {
  auto& there = *t.pair_.dialer;
  auto& here = *t.pair_.acceptor;
  message::ImageBlocks blocks;
  blocks.entries = {{VolumeBlock(1), 2, Lsn(3)}};
  blocks.payload = {filled(t.a_.pool, 4096, 1)};
  const std::vector<Message> all = {message::Hello{},
                                    message::Welcome{},
                                    message::Refuse{ErrorCode::kBusy, "why", {}},
                                    message::Start{Lsn(4), 1},
                                    records(5),
                                    message::Ack{Lsn(3), Lsn(2), Lsn(1)},
                                    message::Heartbeat{},
                                    message::ImageBegin{},
                                    blocks,
                                    message::ImageEnd{}};
  for (auto* way : {&there, &here}) {
    auto& other = way == &there ? here : there;
    for (const auto& m : all) way->send(m);
    for (const auto& m : all) {
      auto got = co_await other.receive();
      EXPECT_TRUE(got.has_value()) << (got ? "" : got.error().message);
      if (!got) co_return;
      EXPECT_EQ(got->index(), m.index());
      const auto* image = std::get_if<message::ImageBlocks>(&*got);
      EXPECT_TRUE(!image || same(image->payload, blocks.payload[0]));
    }
  }
  EXPECT_EQ(there.peer(), "");  // no TLS, no name
}
TEST_P(LinkTest, EveryKindOfMessageInBothDirections) { run(exchange_every_kind); }

constexpr std::uint64_t kMany = 10000;

Task<void> acknowledge_many(LinkTest& t, std::uint64_t& last) {
  for (std::uint64_t lsn = 1; lsn <= kMany; ++lsn) {
    auto got = co_await t.pair_.acceptor->receive();
    EXPECT_TRUE(got.has_value()) << (got ? "" : got.error().message);
    if (!got) co_return;
    const auto* r = std::get_if<message::Records>(&*got);
    EXPECT_TRUE(r && r->batch.first == Lsn(lsn)) << lsn;
    if (!r) co_return;
    EXPECT_EQ(r->batch.payload.size(), 1u);
    EXPECT_EQ(static_cast<std::uint8_t>(r->batch.payload[0].data()[4095]),
              static_cast<std::uint8_t>(lsn));
    t.pair_.acceptor->send(message::Ack{Lsn(lsn), Lsn(lsn), Lsn(lsn)});
    last = lsn;
  }
}

Task<void> send_many(LinkTest& t) {
  std::uint64_t received = 0;
  spawn(acknowledge_many(t, received));
  for (std::uint64_t lsn = 1; lsn <= kMany; ++lsn) {
    auto payload = t.a_.pool.allocate(4096);
    std::memset(payload.data(), static_cast<int>(lsn & 0xff), 4096);
    t.pair_.dialer->send(records(lsn, {payload}));
    if (t.pair_.dialer->backlog_bytes() > 256 * 1024) {
      auto drained = t.pair_.dialer->drained_below(128 * 1024);
      co_await std::move(drained);
    }
  }
  for (std::uint64_t lsn = 1; lsn <= kMany; ++lsn) {
    auto got = co_await t.pair_.dialer->receive();
    EXPECT_TRUE(got.has_value()) << (got ? "" : got.error().message);
    if (!got) co_return;
    EXPECT_EQ(std::get<message::Ack>(*got).received, Lsn(lsn));
    // All of them wait already. Sanitizers keep the compiler from tail calls, so a loop that never
    // suspends would take stack for each.
    if (lsn % 100 == 0) co_await next_turn(t.executor_);
  }
  EXPECT_EQ(received, kMany);
  EXPECT_EQ(t.pair_.dialer->backlog_bytes(), 0u);
}
TEST_P(LinkTest, ManySmallRecordsInOrderWithAcknowledgements) { run(send_many); }

Task<void> send_large(LinkTest& t) {
  for (std::uint64_t i = 1; i <= 32; ++i) {
    auto whole = filled(t.a_.pool, (1 << 20) - (i % 3) * 4096, static_cast<std::uint32_t>(i));
    // In pieces on the way out, as the store's buffers are.
    const auto half = whole.size() / 2 / 4096 * 4096;
    t.pair_.dialer->send(
        records(i, {whole.slice(0, half), whole.slice(half, whole.size() - half)}));
    auto got = co_await t.pair_.acceptor->receive();
    EXPECT_TRUE(got.has_value()) << (got ? "" : got.error().message);
    if (!got) co_return;
    const auto& payload = std::get<message::Records>(*got).batch.payload;
    EXPECT_TRUE(same(payload, whole)) << i;
    EXPECT_TRUE(payload[0].is_block_aligned());
  }
}
TEST_P(LinkTest, LargePayloadsArriveWholeAndAligned) { run(send_large); }

/// The receiver does not read: the sender's backlog grows, and what is kept at the receiver does
/// not.
Task<void> fill_a_silent_receiver(LinkTest& t) {
  auto& link = *t.pair_.dialer;
  const auto payload = filled(t.a_.pool, 1 << 20, 1);
  constexpr std::uint64_t kCount = 96;
  for (std::uint64_t i = 1; i <= kCount; ++i) link.send(records(i, {payload}));
  // What leaves is at most the inbox, one message over, and what gRPC's flow control lets through.
  co_await sleep_for(t.executor_, 500ms);
  const auto sent = (kCount << 20) - std::min<std::size_t>(link.backlog_bytes(), kCount << 20);
  EXPECT_LE(sent, kInboxBytesMax + (40u << 20));  // it widens its window on a fast link
  EXPECT_GT(link.backlog_bytes(), 0u);
  const auto before = link.backlog_bytes();
  for (std::uint64_t i = 1; i <= kCount; ++i) {
    auto got = co_await t.pair_.acceptor->receive();
    EXPECT_TRUE(got.has_value());
    if (!got) co_return;
    EXPECT_EQ(std::get<message::Records>(*got).batch.first, Lsn(i));
    if (i == kCount / 2) {
      auto drained = link.drained_below(before);
      co_await std::move(drained);
      EXPECT_LT(link.backlog_bytes(), before);
    }
  }
  auto drained = link.drained_below(1);
  co_await std::move(drained);
  EXPECT_EQ(link.backlog_bytes(), 0u);
}
TEST_P(LinkTest, ASilentReceiverHoldsBackTheSender) { run(fill_a_silent_receiver); }

Task<void> close_with_messages_in_flight(Link& closing, Link& other, bool& done) {
  for (std::uint64_t i = 1; i <= 50; ++i) closing.send(records(i));
  closing.send(message::Refuse{ErrorCode::kFenced, "a newer timeline", {}});
  closing.close();
  closing.send(message::Ack{});  // dropped
  auto own = co_await closing.receive();
  EXPECT_FALSE(own.has_value());
  for (std::uint64_t i = 1; i <= 50; ++i) {
    auto got = co_await other.receive();
    EXPECT_TRUE(got.has_value()) << i << (got ? "" : got.error().message);
    if (!got) co_return;
    EXPECT_EQ(std::get<message::Records>(*got).batch.first, Lsn(i));
  }
  auto refuse = co_await other.receive();
  EXPECT_TRUE(refuse && std::holds_alternative<message::Refuse>(*refuse));
  auto end = co_await other.receive();
  EXPECT_FALSE(end.has_value());
  EXPECT_EQ(end ? ErrorCode::kIo : end.error().code, ErrorCode::kUnavailable);
  auto again = co_await other.receive();  // and it stays so
  EXPECT_FALSE(again.has_value());
  auto drained = other.drained_below(1);
  co_await std::move(drained);
  done = true;
}
Task<void> dialer_closes(LinkTest& t) {
  bool done = false;
  auto task = close_with_messages_in_flight(*t.pair_.dialer, *t.pair_.acceptor, done);
  co_await std::move(task);
  EXPECT_TRUE(done);
}
Task<void> acceptor_closes(LinkTest& t) {
  bool done = false;
  auto task = close_with_messages_in_flight(*t.pair_.acceptor, *t.pair_.dialer, done);
  co_await std::move(task);
  EXPECT_TRUE(done);
}
TEST_P(LinkTest, CloseByTheDialerDeliversWhatWasSent) { run(dialer_closes); }
TEST_P(LinkTest, CloseByTheAcceptorDeliversWhatWasSent) { run(acceptor_closes); }

/// The dialer goes on sending: what the acceptor said before it closed must still be heard.
Task<void> refuse_a_busy_dialer(LinkTest& t) {
  const auto payload = filled(t.a_.pool, 1 << 20, 1);
  for (std::uint64_t i = 1; i <= 40; ++i) t.pair_.dialer->send(records(i, {payload}));
  t.pair_.acceptor->send(message::Refuse{ErrorCode::kFenced, "stop", {}});
  t.pair_.acceptor->close();
  auto got = co_await t.pair_.dialer->receive();
  EXPECT_TRUE(got && std::holds_alternative<message::Refuse>(*got));
  auto end = co_await t.pair_.dialer->receive();
  EXPECT_FALSE(end.has_value());
  auto drained = t.pair_.dialer->drained_below(1);
  co_await std::move(drained);
  EXPECT_EQ(t.pair_.dialer->backlog_bytes(), 0u);
}
TEST_P(LinkTest, ARefusalReachesABusyDialer) { run(refuse_a_busy_dialer); }

Task<void> receive_into(Link& link, std::optional<Result<Message>>& out) {
  auto got = co_await link.receive();
  out = std::move(got);
}

Task<void> close_ends_own_receive(LinkTest& t, Link& link) {
  std::optional<Result<Message>> got;
  spawn(receive_into(link, got));
  EXPECT_FALSE(got.has_value());
  link.close();
  EXPECT_FALSE(got.has_value());  // not from within close()
  for (int i = 0; i < 10000 && !got; ++i) co_await sleep_for(t.executor_, 1ms);
  EXPECT_TRUE(got.has_value());
  if (!got) co_return;
  EXPECT_FALSE(got->has_value());
  link.close();  // idempotent
}
Task<void> dialer_ends_receive(LinkTest& t) { return close_ends_own_receive(t, *t.pair_.dialer); }
Task<void> acceptor_ends_receive(LinkTest& t) {
  return close_ends_own_receive(t, *t.pair_.acceptor);
}
TEST_P(LinkTest, CloseEndsAPendingReceiveOfTheDialer) { run(dialer_ends_receive); }
TEST_P(LinkTest, CloseEndsAPendingReceiveOfTheAcceptor) { run(acceptor_ends_receive); }

/// A peer that never reads cannot keep a closed link's messages for ever.
Task<void> close_towards_a_silent_peer(LinkTest& t, TestNode& hasty) {
  auto link = hasty.service->dialer().dial(t.b_.address());
  link->send(message::Hello{});
  auto next = next_link(t.executor_, t.b_);
  auto silent = co_await std::move(next);
  EXPECT_NE(silent, nullptr);
  const auto payload = filled(hasty.pool, 1 << 20, 1);
  for (std::uint64_t i = 1; i <= 64; ++i) link->send(records(i, {payload}));
  link->close();
  for (int i = 0; i < 10000 && link->backlog_bytes() != 0; ++i)
    co_await sleep_for(t.executor_, 1ms);
  EXPECT_EQ(link->backlog_bytes(), 0u);
}
TEST_P(LinkTest, LingeringIsBounded) {
  auto options = TestNode::plain();
  options.linger = 100ms;
  TestNode hasty(executor_, options);
  executor_.run_task([&] { return close_towards_a_silent_peer(*this, hasty); });
}

TEST(SocketsTest, WhereThisGrpcWaitsIsKnown) {
  if (grpc::Version().rfind("1.51.", 0) != 0) GTEST_SKIP() << "gRPC " << grpc::Version();
  EXPECT_GE(Sockets::epoll_set(), 0);
}

/// One batch at a time, each answered, as a single writer's: a Read waits for bytes.
Task<void> ping_pong(LinkTest& t) {
  auto& there = *t.pair_.dialer;
  auto& here = *t.pair_.acceptor;
  const auto block = filled(t.a_.pool, kBlockBytes, 1);
  for (std::uint64_t i = 1; i <= 100; ++i) {
    auto batch = records(i, {block});
    batch.lone = true;
    there.send(std::move(batch));
    auto got = co_await here.receive();
    EXPECT_TRUE(got.has_value() && std::get<message::Records>(*got).batch.first == Lsn(i));
    if (!got) co_return;
    here.send(message::Ack{Lsn(i), Lsn(i), Lsn(i)});
    auto answer = co_await there.receive();
    EXPECT_TRUE(answer.has_value() && std::get<message::Ack>(*answer).written == Lsn(i));
    if (!answer) co_return;
  }
}
TEST_P(LinkTest, LoneBatchesGoToAndFro) { run(ping_pong); }

/// Said to be alone and followed all the same: those behind it come, too.
Task<void> follow_lone_batches(LinkTest& t) {
  co_await ping_pong(t);
  const auto block = filled(t.a_.pool, kBlockBytes, 1);
  for (std::uint64_t i = 101; i <= 140; ++i) {
    auto batch = records(i, {block});
    batch.lone = true;
    t.pair_.dialer->send(std::move(batch));
  }
  for (std::uint64_t i = 101; i <= 140; ++i) {
    auto got = co_await t.pair_.acceptor->receive();
    EXPECT_TRUE(got.has_value() && std::get<message::Records>(*got).batch.first == Lsn(i));
    if (!got) co_return;
  }
}
TEST_P(LinkTest, WhatFollowsALoneBatchIsNotLeft) { run(follow_lone_batches); }

TEST_P(LinkTest, StoppingANodeCutsItsLinks) {
  executor_.run_task([this] { return connect(*this); });
  std::optional<Result<Message>> dialer, acceptor;
  executor_.run([&] {
    spawn(receive_into(*pair_.dialer, dialer));
    spawn(receive_into(*pair_.acceptor, acceptor));
  });
  b_.stop_service();
  a_.stop_service();
  executor_.run([] {});  // what stop() posted has run
  executor_.run([&] {
    ASSERT_TRUE(dialer && !*dialer);
    EXPECT_EQ(dialer->error().code, ErrorCode::kUnavailable);
    ASSERT_TRUE(acceptor && !*acceptor);
    EXPECT_EQ(acceptor->error().code, ErrorCode::kUnavailable);
    pair_.dialer->send(message::Ack{});  // harmless
    EXPECT_EQ(pair_.dialer->backlog_bytes(), 0u);
    auto late = a_.service->dialer().dial(b_.address());
    late->send(message::Hello{});
  });
}

TEST_P(LinkTest, ABusyNodeStopsCleanly) {
  executor_.run_task([this] { return connect(*this); });
  executor_.run([&] {
    for (int i = 1; i <= 64; ++i)
      pair_.dialer->send(records(static_cast<std::uint64_t>(i), {filled(a_.pool, 1 << 20, 1)}));
  });
  a_.stop_service();
  EXPECT_EQ(payload_slices_outstanding(), 0u);
}

Task<void> dial_and_expect(TestNode& node, std::string address, ErrorCode code,
                           std::string& message) {
  auto link = node.service->dialer().dial(address);
  link->send(message::Hello{});
  auto got = co_await link->receive();
  EXPECT_FALSE(got.has_value());
  if (got) co_return;
  EXPECT_EQ(to_string(got.error().code), std::string(to_string(code))) << got.error().message;
  message = got.error().message;
  link->close();
}

/// A listening socket that says `greeting` to everybody and reads nothing.
class RudeListener {
 public:
  explicit RudeListener(std::string greeting, bool accepts = true) {
    fd_ = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    EXPECT_EQ(listen(fd_, 8), 0);
    socklen_t length = sizeof at;
    EXPECT_EQ(getsockname(fd_, reinterpret_cast<sockaddr*>(&at), &length), 0);
    port_ = ntohs(at.sin_port);
    if (!accepts) return;
    thread_ = std::thread([this, greeting = std::move(greeting)] {
      for (;;) {
        const int client = accept(fd_, nullptr, nullptr);
        if (client < 0) return;
        EXPECT_EQ(send(client, greeting.data(), greeting.size(), MSG_NOSIGNAL),
                  static_cast<ssize_t>(greeting.size()));
        clients_.push_back(client);
      }
    });
  }
  ~RudeListener() {
    shutdown(fd_, SHUT_RDWR);
    if (thread_.joinable()) thread_.join();
    for (const int client : clients_) ::close(client);
    ::close(fd_);
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  int fd_ = -1;
  int port_ = 0;
  std::thread thread_;
  std::vector<int> clients_;
};

TEST_P(LinkTest, DialingNobodySaysSo) {
  std::string free_address;
  {
    RudeListener gone("");
    free_address = gone.address();
  }
  std::string message;
  executor_.run_task(
      [&] { return dial_and_expect(a_, free_address, ErrorCode::kUnavailable, message); });
  EXPECT_NE(message.find(free_address), std::string::npos) << message;
  EXPECT_NE(message.find("refused"), std::string::npos) << message;
  for (const char* bad :
       {"nonsense", "host", ":1", "host:", "host:99999", "a b:1", "::1:80", "unix:/tmp/x"}) {
    executor_.run_task([&] { return dial_and_expect(a_, bad, ErrorCode::kInvalid, message); });
    EXPECT_NE(message.find("HOST:PORT"), std::string::npos) << message;
  }
}

TEST_P(LinkTest, DialingAnotherProtocolEndsWithAnError) {
  std::string message;
  RudeListener nbd(std::string("NBDMAGICIHAVEOPT\0\3", 18));
  executor_.run_task(
      [&] { return dial_and_expect(a_, nbd.address(), ErrorCode::kUnavailable, message); });
  RudeListener http("HTTP/1.1 400 Bad Request\r\n\r\n");
  executor_.run_task(
      [&] { return dial_and_expect(a_, http.address(), ErrorCode::kUnavailable, message); });
}

TEST_P(LinkTest, DialingASilentPortEndsInBoundedTime) {
  auto options = TestNode::plain();
  options.connect_timeout = 300ms;
  TestNode hasty(executor_, options);
  RudeListener silent("", false);
  std::string message;
  executor_.run_task(
      [&] { return dial_and_expect(hasty, silent.address(), ErrorCode::kUnavailable, message); });
}

/// Bytes that are no HTTP/2, in many forms, on the service's port; the service goes on.
TEST_P(LinkTest, GarbageOnThePortHarmsNobodyElse) {
  const std::string garbage[] = {"", std::string(100000, '\xff'), "GET / HTTP/1.1\r\n\r\n",
                                 "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + std::string(5000, '\x7f'),
                                 std::string(10, '\0')};
  for (const auto& bytes : garbage) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in at{};
    at.sin_family = AF_INET;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    at.sin_port = htons(b_.service->port());
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&at), sizeof at), 0);
    if (send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) < 0) {
      EXPECT_TRUE(errno == EPIPE || errno == ECONNRESET) << std::strerror(errno);
    }
    ::close(fd);
  }
  run(exchange_every_kind);
}

TEST_P(LinkTest, ASecondServiceOnTheSamePortIsRefused) {
  auto options = TestNode::plain();
  options.listen = b_.address();
  BufferPool pool{1 << 20};
  FakeControl control;
  KeepingAcceptor acceptor;
  auto second = start_service(executor_, pool, options, control, acceptor);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_NE(second.error().message.find("in use"), std::string::npos) << second.error().message;
  options.listen = "127.0.0.1";
  auto nowhere = start_service(executor_, pool, options, control, acceptor);
  ASSERT_FALSE(nowhere.has_value());
  EXPECT_EQ(nowhere.error().code, ErrorCode::kInvalid);
  options.listen = "192.0.2.77:0";
  auto foreign = start_service(executor_, pool, options, control, acceptor);
  ASSERT_FALSE(foreign.has_value());
  EXPECT_NE(foreign.error().message.find("192.0.2.77"), std::string::npos);
}

Task<void> two_streams(LinkTest& t) {
  auto second_dialer = t.a_.service->dialer().dial(t.b_.address());
  second_dialer->send(message::Hello{});
  auto next = next_link(t.executor_, t.b_);
  auto second = co_await std::move(next);
  EXPECT_NE(second, nullptr);
  if (!second) co_return;
  t.pair_.acceptor->close();
  auto hello = co_await second->receive();
  EXPECT_TRUE(hello.has_value());
  second_dialer->send(message::Start{Lsn(7), false});
  auto start = co_await second->receive();
  EXPECT_TRUE(start.has_value());
  second_dialer->close();
  auto end = co_await second->receive();
  EXPECT_FALSE(end.has_value());
}
TEST_P(LinkTest, StreamsAreIndependent) { run(two_streams); }

}  // namespace
}  // namespace tandem::rpc
