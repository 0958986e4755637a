#include "frontend/nbd/transport.h"

#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "frontend/nbd/asio_support.h"
#include "frontend/nbd/codec.h"

namespace tandem::nbd {

struct Transport::Descriptor {
  Descriptor(asio::io_context& io, int fd) : stream(io.get_executor(), fd) {}
  AsioDescriptor stream;
};

Transport::Transport(asio::io_context& io, int fd, std::string peer, bool local)
    : descriptor_(std::make_unique<Descriptor>(io, fd)),
      fd_(fd),
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

void Transport::Wait::await_suspend(std::coroutine_handle<> waiter) {
  const auto what = for_write ? AsioDescriptor::wait_write : AsioDescriptor::wait_read;
  // The awaiter lives in the waiting coroutine's frame until the handler resumes it.
  transport.descriptor_->stream.async_wait(what,
                                           [this, waiter](const boost::system::error_code& error) {
                                             ready = !error;
                                             waiter.resume();
                                           });
}

void Transport::interrupt() {
  boost::system::error_code ignored;
  descriptor_->stream.cancel(ignored);
}

void Transport::shutdown() {
  if (std::exchange(shut_down_, true)) return;
  ::shutdown(fd_, SHUT_RDWR);
  interrupt();
}

void Transport::close() {
  if (!descriptor_->stream.is_open()) return;
  if (tls_ && !shut_down_) tls_->close_notify();
  shut_down_ = true;
  boost::system::error_code ignored;
  descriptor_->stream.close(ignored);
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
