#include "frontend/nbd/transport.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "frontend/nbd/codec.h"
#include "tandem/base/check.h"

namespace tandem::nbd {

Transport::Transport(Readiness& readiness, int fd, std::string peer, bool local)
    : readiness_(readiness),
      fd_(fd),
      read_wait_{.fd = fd},
      write_wait_{.fd = fd, .for_write = true},
      peer_(std::move(peer)),
      local_(local) {}

Transport::~Transport() { close(); }

IoResult Transport::receive(std::span<iovec> into) {
  if (shut_down_) return {IoResult::Kind::kEnd, 0};
  if (tls_) return tls_->receive(into);
  msghdr message{};
  message.msg_iov = into.data();
  message.msg_iovlen = into.size();
  for (;;) {
    const ssize_t got = ::recvmsg(fd_, &message, 0);
    if (got > 0) return {IoResult::Kind::kBytes, static_cast<std::size_t>(got)};
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return {IoResult::Kind::kAgain, 0};
    return {IoResult::Kind::kEnd, 0};
  }
}

IoResult Transport::send(std::span<const iovec> from) {
  if (shut_down_) return {IoResult::Kind::kEnd, 0};
  if (tls_) return tls_->send(from);
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(from.data());
  message.msg_iovlen = from.size();
  for (;;) {
    const ssize_t sent = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
    if (sent >= 0) return {IoResult::Kind::kBytes, static_cast<std::size_t>(sent)};
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return {IoResult::Kind::kAgain, 0};
    return {IoResult::Kind::kEnd, 0};
  }
}

void Transport::interrupt() {
  readiness_.cancel(read_wait_);
  readiness_.cancel(write_wait_);
}

void Transport::shutdown() {
  if (std::exchange(shut_down_, true)) return;
  ::shutdown(fd_, SHUT_RDWR);
  interrupt();
}

void Transport::close() {
  if (fd_ < 0) return;
  CHECK(read_wait_.under_way == nullptr && write_wait_.under_way == nullptr);
  if (tls_ && !shut_down_) tls_->close_notify();
  shut_down_ = true;
  ::close(std::exchange(fd_, -1));
}

Task<bool> Transport::start_tls(std::shared_ptr<TlsContext> context, std::string& why) {
  tls_ = std::make_unique<TlsStream>(std::move(context), fd_);
  while (!shut_down_) {
    const auto step = tls_->handshake(why);
    if (step == TlsStream::Handshake::kDone) {
      const std::string name = tls_->peer_name();
      if (!name.empty()) peer_ += " (" + printable(name) + ")";
      co_return true;
    }
    if (step == TlsStream::Handshake::kFailed) co_return false;
    if (step == TlsStream::Handshake::kWantRead) {
      co_await readable();
    } else {
      co_await writable();
    }
  }
  why = "timed out";
  co_return false;
}

}  // namespace tandem::nbd
