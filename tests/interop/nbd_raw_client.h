// RawClient: speaks NBD byte by byte, right or wrong, for tests of the server.
//
// Blocking, with a time-out on every receive, so that a server that hangs fails the test.
#pragma once

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "frontend/nbd/codec.h"

namespace tandem::test {

using nbd::Bytes;
using nbd::ByteView;

template <class T>
void put_be(Bytes& out, T value) {
  for (int shift = 8 * (sizeof(T) - 1); shift >= 0; shift -= 8)
    out.push_back(static_cast<std::byte>(value >> shift));
}
inline void put_text(Bytes& out, std::string_view text) {
  for (const char c : text) out.push_back(static_cast<std::byte>(c));
}
template <class T>
T get_be(ByteView from, std::size_t at) {
  if (at + sizeof(T) > from.size()) throw std::runtime_error("reply is too short");
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>((value << 8) | static_cast<T>(from[at + i]));
  return value;
}
inline Bytes bytes_of(std::string_view text) {
  Bytes out;
  put_text(out, text);
  return out;
}

/// The reply to an option, without its magic.
struct OptionReply {
  std::uint32_t option = 0;
  std::uint32_t type = 0;
  Bytes data;
};

/// A simple reply or one structured chunk; `data` is the payload behind the head.
struct Reply {
  bool structured = false;
  std::uint16_t flags = 0;
  std::uint16_t type = 0;
  std::uint64_t cookie = 0;
  std::uint32_t error = 0;  // of a simple reply, or of an error chunk
  Bytes data;
};

class RawClient {
 public:
  explicit RawClient(const std::string& socket_path) {
    fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, socket_path.c_str(), sizeof address.sun_path - 1);
    if (::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      throw std::runtime_error("connect: " + std::string(std::strerror(errno)));
    set_timeouts();
  }
  /// Takes over a connected socket.
  explicit RawClient(int fd) : fd_(fd) { set_timeouts(); }
  RawClient(RawClient&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  RawClient& operator=(RawClient&&) = delete;
  ~RawClient() { close(); }

  void close() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void shutdown_write() { ::shutdown(fd_, SHUT_WR); }
  int fd() const { return fd_; }

  /// Nobody may listen any more: false then.
  bool send(ByteView data) {
    while (!data.empty()) {
      const ssize_t sent =
          uninterrupted([&] { return ::send(fd_, data.data(), data.size(), MSG_NOSIGNAL); });
      if (sent <= 0) return false;
      data = data.subspan(static_cast<std::size_t>(sent));
    }
    return true;
  }
  Bytes receive(std::size_t bytes) {
    Bytes data(bytes);
    std::size_t at = 0;
    while (at < bytes) {
      const ssize_t got =
          uninterrupted([&] { return ::recv(fd_, data.data() + at, bytes - at, 0); });
      if (got == 0) throw std::runtime_error("the server closed the connection");
      if (got < 0) throw std::runtime_error("receive: " + std::string(std::strerror(errno)));
      at += static_cast<std::size_t>(got);
    }
    return data;
  }
  /// The server closes without another byte.
  bool at_end() {
    std::byte one;
    const ssize_t got = uninterrupted([&] { return ::recv(fd_, &one, 1, 0); });
    return got == 0 || (got < 0 && errno == ECONNRESET);
  }

  void greet(std::uint32_t client_flags = nbd::kFixedNewstyle | nbd::kNoZeroes) {
    receive(nbd::kHelloBytes);
    Bytes flags;
    put_be<std::uint32_t>(flags, client_flags);
    send(flags);
  }
  bool send_option(std::uint32_t option, ByteView data = {}) {
    Bytes out;
    put_be<std::uint64_t>(out, nbd::kOptionMagic);
    put_be<std::uint32_t>(out, option);
    put_be<std::uint32_t>(out, static_cast<std::uint32_t>(data.size()));
    out.insert(out.end(), data.begin(), data.end());
    return send(out);
  }
  OptionReply option_reply() {
    const Bytes head = receive(20);
    if (get_be<std::uint64_t>(head, 0) != nbd::kOptionReplyMagic)
      throw std::runtime_error("not an option reply");
    return {.option = get_be<std::uint32_t>(head, 8),
            .type = get_be<std::uint32_t>(head, 12),
            .data = receive(get_be<std::uint32_t>(head, 16))};
  }
  /// All replies to an option, up to and with the final one.
  std::vector<OptionReply> ask(std::uint32_t option, ByteView data = {}) {
    send_option(option, data);
    std::vector<OptionReply> replies;
    do {
      replies.push_back(option_reply());
    } while (replies.back().type != nbd::rep::kAck &&
             (replies.back().type & nbd::rep::kErrorBit) == 0);
    return replies;
  }
  static Bytes export_request(std::string_view name, std::vector<std::uint16_t> info = {}) {
    Bytes data;
    put_be<std::uint32_t>(data, static_cast<std::uint32_t>(name.size()));
    put_text(data, name);
    put_be<std::uint16_t>(data, static_cast<std::uint16_t>(info.size()));
    for (const auto what : info) put_be<std::uint16_t>(data, what);
    return data;
  }
  static Bytes meta_request(std::string_view name, std::vector<std::string_view> queries) {
    Bytes data;
    put_be<std::uint32_t>(data, static_cast<std::uint32_t>(name.size()));
    put_text(data, name);
    put_be<std::uint32_t>(data, static_cast<std::uint32_t>(queries.size()));
    for (const auto query : queries) {
      put_be<std::uint32_t>(data, static_cast<std::uint32_t>(query.size()));
      put_text(data, query);
    }
    return data;
  }
  /// The whole handshake with INFO-style GO; returns the final reply's type.
  std::uint32_t go(std::string_view name, bool structured = false, bool allocation = false) {
    greet();
    if (structured) ask(nbd::option::kStructuredReply);
    if (allocation) ask(nbd::option::kSetMetaContext, meta_request(name, {nbd::kBaseAllocation}));
    return ask(nbd::option::kGo, export_request(name)).back().type;
  }

  static Bytes request_bytes(const nbd::Request& request) {
    Bytes out;
    put_be<std::uint32_t>(out, nbd::kRequestMagic);
    put_be<std::uint16_t>(out, request.flags);
    put_be<std::uint16_t>(out, request.type);
    put_be<std::uint64_t>(out, request.cookie);
    put_be<std::uint64_t>(out, request.offset);
    put_be<std::uint32_t>(out, request.length);
    return out;
  }
  bool request(const nbd::Request& request, ByteView payload = {}) {
    Bytes out = request_bytes(request);
    out.insert(out.end(), payload.begin(), payload.end());
    return send(out);
  }
  /// `read_bytes`: payload of a successful simple reply.
  Reply reply(std::size_t read_bytes = 0) {
    Reply reply;
    const auto magic = get_be<std::uint32_t>(receive(4), 0);
    if (magic == nbd::kSimpleReplyMagic) {
      const Bytes head = receive(12);
      reply.error = get_be<std::uint32_t>(head, 0);
      reply.cookie = get_be<std::uint64_t>(head, 4);
      if (reply.error == 0 && read_bytes > 0) reply.data = receive(read_bytes);
      return reply;
    }
    if (magic != nbd::kStructuredReplyMagic) throw std::runtime_error("not a reply");
    const Bytes head = receive(16);
    reply.structured = true;
    reply.flags = get_be<std::uint16_t>(head, 0);
    reply.type = get_be<std::uint16_t>(head, 2);
    reply.cookie = get_be<std::uint64_t>(head, 4);
    reply.data = receive(get_be<std::uint32_t>(head, 12));
    if (reply.type == nbd::chunk::kError) reply.error = get_be<std::uint32_t>(reply.data, 0);
    return reply;
  }
  /// Sends one command and returns its only reply.
  Reply call(const nbd::Request& what, ByteView payload = {}) {
    request(what, payload);
    return reply(what.type == nbd::command::kRead ? what.length : 0);
  }

 private:
  /// The kernel interrupts a thread of ours while it takes an io_uring of the test before apart.
  template <class Call>
  static ssize_t uninterrupted(Call call) {
    ssize_t done = call();
    while (done < 0 && errno == EINTR) done = call();
    return done;
  }
  void set_timeouts() {
    const timeval limit{.tv_sec = 20, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  }
  int fd_ = -1;
};

}  // namespace tandem::test
