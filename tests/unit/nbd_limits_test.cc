// Bounds, bad clients, and the ways a connection or the server can end.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include <random>

#include "tests/interop/nbd_fixture.h"

namespace tandem::test {
namespace {

namespace command = nbd::command;

class NbdLimits : public NbdServerTest {
 protected:
  RawClient open(bool structured = false) {
    auto client = connect();
    EXPECT_EQ(client.go("disk", structured), nbd::rep::kAck);
    return client;
  }
  bool alive() {
    auto client = open();
    return client.call({.type = command::kFlush, .cookie = 77}).cookie == 77;
  }
  void wait_for_open(std::uint64_t count) {
    eventually([=, this] { return server_->stats().connections_open == count; });
  }
};

TEST_F(NbdLimits, RequestsUnderWayAreBounded) {
  start({.requests_max = 4});
  auto client = open();
  hold();
  for (std::uint64_t i = 0; i < 20; ++i)
    client.request({.type = command::kWrite, .cookie = i, .offset = i * 512, .length = 512},
                   Bytes(512));
  eventually([this] { return volume_->counters().writes == 4; });
  EXPECT_TRUE([&] {
    auto other = connect();
    return other.go("readonly") == nbd::rep::kAck &&
           other.call({.type = command::kRead, .length = 512}).error == 0;
  }());
  EXPECT_EQ(counters().writes, 4u);
  release();
  for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(client.reply().cookie, i);
  EXPECT_EQ(counters().writes, 20u);
}

TEST_F(NbdLimits, BytesUnderWayAreBounded) {
  start({.bytes_max = 256 << 10, .payload_bytes_max = 128 << 10});
  auto client = open();
  hold();
  for (std::uint64_t i = 0; i < 8; ++i)
    client.request({.type = command::kRead, .cookie = i, .length = 128 << 10});
  eventually([this] { return volume_->counters().reads == 2; });
  // Something else is answered meanwhile, so the server had the time to start a third.
  auto other = connect();
  EXPECT_EQ(other.go("readonly"), nbd::rep::kAck);
  EXPECT_EQ(counters().reads, 2u);
  release();
  for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(client.reply(128 << 10).cookie, i);
}

TEST_F(NbdLimits, BytesUnderWayAreBoundedTogetherButEachClientHasOneRequest) {
  start({.all_bytes_max = 256 << 10, .payload_bytes_max = 128 << 10});
  auto greedy = open();
  auto late = open();
  hold();
  for (std::uint64_t i = 0; i < 8; ++i)
    greedy.request({.type = command::kRead, .cookie = i, .length = 128 << 10});
  eventually([this] { return volume_->counters().reads == 2; });
  for (std::uint64_t i = 0; i < 8; ++i)
    late.request({.type = command::kRead, .cookie = i, .length = 128 << 10});
  eventually([this] { return volume_->counters().reads == 3; });
  auto other = connect();
  EXPECT_EQ(other.go("readonly"), nbd::rep::kAck);
  EXPECT_EQ(counters().reads, 3u);
  release();
  for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(late.reply(128 << 10).cookie, i);
  for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(greedy.reply(128 << 10).cookie, i);
}

// A client that asks for much and reads nothing stops being served at its own bound.
TEST_F(NbdLimits, ClientThatDoesNotReadItsRepliesBlocksItself) {
  start({.requests_max = 64, .bytes_max = 4 << 20, .payload_bytes_max = 1 << 20});
  auto client = open();
  for (std::uint64_t i = 0; i < 64; ++i)
    client.request({.type = command::kRead, .cookie = i, .length = 1 << 20});
  eventually([this] { return volume_->counters().reads >= 4; });
  EXPECT_TRUE(alive());
  EXPECT_LE(counters().reads, 8u);
  for (std::uint64_t i = 0; i < 64; ++i) {
    const Reply reply = client.reply(1 << 20);
    EXPECT_EQ(reply.cookie, i);
    EXPECT_EQ(reply.data.size(), std::size_t{1} << 20);
  }
}

TEST_F(NbdLimits, ClientThatNeverReadsIsCutOffAtStop) {
  start({.bytes_max = 4 << 20,
         .payload_bytes_max = 1 << 20,
         .drain_max = std::chrono::milliseconds(50)});
  auto client = open();
  for (std::uint64_t i = 0; i < 8; ++i)
    client.request({.type = command::kRead, .cookie = i, .length = 1 << 20});
  eventually([this] { return volume_->counters().reads >= 4; });
  stop();
  EXPECT_EQ(stats().connections_open, 0u);
}

TEST_F(NbdLimits, SilentClientIsDroppedInTheHandshakeOnly) {
  start({.handshake_max = std::chrono::milliseconds(50)});
  auto idle = open();
  auto silent = connect();
  auto half = connect();
  half.greet();
  half.send(bytes_of("IHAVE"));
  silent.receive(nbd::kHelloBytes);
  EXPECT_TRUE(silent.at_end());
  EXPECT_TRUE(half.at_end());
  EXPECT_EQ(idle.call({.type = command::kFlush, .cookie = 3}).cookie, 3u);
}

TEST_F(NbdLimits, ConnectionsAreBounded) {
  start({.connections_max = 2});
  auto one = open();
  auto two = open();
  auto three = connect();
  EXPECT_TRUE(three.at_end());
  EXPECT_EQ(stats().connections_refused_total, 1u);
  one.close();
  wait_for_open(1);
  EXPECT_TRUE(alive());
  EXPECT_EQ(two.call({.type = command::kFlush, .cookie = 3}).cookie, 3u);
}

TEST_F(NbdLimits, SilentHandshakesMakeRoom) {
  start({.connections_max = 2});
  auto one = open();
  auto silent = connect();
  silent.receive(nbd::kHelloBytes);
  EXPECT_TRUE(alive());
  EXPECT_TRUE(silent.at_end());
  EXPECT_EQ(one.call({.type = command::kFlush, .cookie = 3}).cookie, 3u);
}

TEST_F(NbdLimits, WrongRequestMagicEndsTheConnectionAfterItsReplies) {
  start();
  auto client = open();
  hold();
  client.request({.type = command::kWrite, .cookie = 1, .length = 512}, Bytes(512));
  client.send(bytes_of("this is certainly not an NBD request, is it?"));
  eventually([this] { return server_->stats().violations_total == 1; });
  release();
  EXPECT_EQ(client.reply().cookie, 1u);
  EXPECT_TRUE(client.at_end());
  EXPECT_TRUE(alive());
}

TEST_F(NbdLimits, DisconnectWithWritesInFlight) {
  start();
  {
    auto client = open();
    hold();
    for (std::uint64_t i = 0; i < 16; ++i)
      client.request({.type = command::kWrite, .cookie = i, .offset = i * 4096, .length = 4096},
                     Bytes(4096, std::byte{1}));
    eventually([this] { return volume_->counters().writes == 16; });
  }
  // The connection is gone, and its tasks on the volume are still awaited.
  EXPECT_EQ(stats().connections_open, 1u);
  release();
  wait_for_open(0);
  EXPECT_EQ(on_reactor([this] { return volume_->content()[15 * 4096]; }), std::byte{1});
  EXPECT_TRUE(alive());
}

TEST_F(NbdLimits, DisconnectInTheMiddleOfAPayload) {
  start();
  for (const std::size_t part : {std::size_t{0}, std::size_t{100}, std::size_t{300000}}) {
    auto client = open();
    client.request({.type = command::kWrite, .cookie = 1, .length = 1 << 20}, Bytes(part));
  }
  wait_for_open(0);
  EXPECT_EQ(counters().writes, 0u);
}

TEST_F(NbdLimits, HalfClosedClientGetsItsReplies) {
  start();
  auto client = open();
  hold();
  client.request({.type = command::kRead, .cookie = 1, .length = 4096});
  client.shutdown_write();
  eventually([this] { return volume_->counters().reads == 1; });
  release();
  EXPECT_EQ(client.reply(4096).cookie, 1u);
  EXPECT_TRUE(client.at_end());
}

TEST_F(NbdLimits, StopAnswersWhatIsUnderWay) {
  start();
  auto client = open();
  auto shaking_hands = connect();
  shaking_hands.greet();
  hold();
  for (std::uint64_t i = 0; i < 4; ++i)
    client.request({.type = command::kWrite, .cookie = i, .length = 512}, Bytes(512));
  eventually([this] { return volume_->counters().writes == 4; });
  auto stopped = begin_stop();
  EXPECT_TRUE(shaking_hands.at_end());
  EXPECT_EQ(stopped.wait_for(std::chrono::milliseconds(20)), std::future_status::timeout);
  release();
  for (std::uint64_t i = 0; i < 4; ++i) EXPECT_EQ(client.reply().cookie, i);
  EXPECT_TRUE(client.at_end());
  stopped.get();
  EXPECT_FALSE(std::filesystem::exists(socket_path()));
  EXPECT_EQ(stats().connections_open, 0u);
}

// Bytes from a random source never hurt anybody else, whatever they look like.
TEST_F(NbdLimits, GarbageOfAllKinds) {
  start({.handshake_max = std::chrono::milliseconds(500)});
  auto witness = open();
  for (unsigned seed = 1; seed <= 60; ++seed) {
    std::mt19937 random(seed);
    auto client = connect();
    const unsigned kind = seed % 3;
    if (kind == 1) client.greet();
    if (kind == 2) client.go("disk", seed % 2 == 0, seed % 2 == 0);
    for (int i = 0; i < 20; ++i) {
      Bytes out;
      if (kind == 1 && random() % 4 != 0) {
        const Bytes data(random() % 200, static_cast<std::byte>(random()));
        put_be<std::uint64_t>(out, nbd::kOptionMagic);
        put_be<std::uint32_t>(out, 3 + random() % 9);
        put_be<std::uint32_t>(out, static_cast<std::uint32_t>(data.size()));
        out.insert(out.end(), data.begin(), data.end());
      } else if (kind == 2 && random() % 8 != 0) {
        out = RawClient::request_bytes({.flags = static_cast<std::uint16_t>(random() % 32),
                                        .type = static_cast<std::uint16_t>(random() % 10),
                                        .cookie = random(),
                                        .offset = random() % (2 * kVolumeBytes),
                                        .length = static_cast<std::uint32_t>(random() % 100000)});
      } else {
        for (unsigned n = random() % 100; n-- > 0;) out.push_back(static_cast<std::byte>(random()));
      }
      if (!client.send(out)) break;
    }
  }
  wait_for_open(1);
  EXPECT_EQ(witness.call({.type = command::kFlush, .cookie = 4}).cookie, 4u);
}

TEST_F(NbdLimits, TcpAndSeveralEndpoints) {
  make_server();
  ASSERT_TRUE(server_->listen("unix:" + socket_path()));
  ASSERT_TRUE(server_->listen("127.0.0.1:0"));
  const auto endpoints = server_->endpoints();
  ASSERT_EQ(endpoints.size(), 2u);
  EXPECT_EQ(endpoints[0], "unix:" + socket_path());
  ASSERT_TRUE(endpoints[1].starts_with("127.0.0.1:"));
  run();
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(endpoints[1].substr(10))));
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  RawClient client(fd);
  EXPECT_EQ(client.go("disk"), nbd::rep::kAck);
  EXPECT_EQ(client.call({.type = command::kFlush, .cookie = 4}).cookie, 4u);
  EXPECT_TRUE(alive());
}

TEST_F(NbdLimits, EndpointsThatAreNot) {
  make_server();
  for (const char* bad : {"", "localhost", "127.0.0.1:", ":10809", "127.0.0.1:70000", "1:2:3",
                          "127.0.0.1:http", "unix:", "[::1]"}) {
    const Status bound = server_->listen(bad);
    ASSERT_FALSE(bound) << bad;
    EXPECT_EQ(bound.error().code, ErrorCode::kInvalid) << bad;
  }
  EXPECT_EQ(server_->listen("unix:/" + std::string(200, 'x')).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(server_->listen("unix:/no/such/folder/socket").error().code, ErrorCode::kIo);
  run();
}

TEST_F(NbdLimits, StaleSocketIsReplacedAndALiveOneIsNot) {
  {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket_path().c_str(), sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ::close(fd);
  }
  start({.unix_socket_mode = 0600});
  struct stat file {};
  ASSERT_EQ(::stat(socket_path().c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777, 0600u);
  EXPECT_EQ(on_reactor([this] { return server_->listen("unix:" + socket_path()).error().code; }),
            ErrorCode::kBusy);
  EXPECT_TRUE(alive());
  const std::string plain = folder_ / "plain";
  std::fclose(std::fopen(plain.c_str(), "w"));
  EXPECT_EQ(on_reactor([&] { return server_->listen("unix:" + plain).error().code; }),
            ErrorCode::kExists);
}

TEST_F(NbdLimits, UnusableTlsFilesAreNamed) {
  nbd::Options options;
  options.tls = nbd::TlsOptions{.certificate = "/no/such/certificate.pem", .key = "/none"};
  make_server(options);
  const Status bound = server_->listen("unix:" + socket_path());
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error().code, ErrorCode::kInvalid);
  EXPECT_NE(bound.error().message.find("/no/such/certificate.pem"), std::string::npos);
  run();
}

}  // namespace
}  // namespace tandem::test
