#include "frontend/nbd/acceptor.h"

#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <chrono>
#include <utility>
#include <vector>

#include "tandem/base/check.h"
#include "tandem/base/sync.h"

namespace tandem::nbd {

namespace asio = boost::asio;

namespace {

constexpr std::size_t kAcceptsInARow = 16;
// After accept() failed for want of descriptors or memory.
constexpr std::chrono::milliseconds kAcceptPause{100};

struct Accepted {
  std::vector<int> descriptors;
  int error = 0;  // that ended it; 0: the next client may come at once
};

/// Not Asio's own accept(): that leaves the descriptor open in programs that are run meanwhile.
Accepted accept_some(int listener) {
  Accepted accepted;
  while (accepted.descriptors.size() < kAcceptsInARow) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      accepted.descriptors.push_back(fd);
    } else if (errno != EINTR && errno != ECONNABORTED) {
      if (errno != EAGAIN) accepted.error = errno;
      break;
    }
  }
  return accepted;
}

}  // namespace

class Acceptor::Impl {
 public:
  Impl(asio::io_context& io, Executor& executor, Listener listener, Calls calls)
      : io_(io),
        executor_(executor),
        listener_(std::move(listener)),
        calls_(std::move(calls)),
        socket_(io, listener_.fd),
        pause_(io) {}
  ~Impl() { CHECK(ended_); }

  const Listener& listener() const { return listener_; }

  /// Asio's thread, but for the first time.
  void wait() {
    if (stopping_) return end();
    socket_.async_wait(asio::posix::stream_descriptor::wait_read,
                       [this](const boost::system::error_code&) { accept(); });
  }

  Task<void> stop() {
    asio::post(io_, [this] {
      stopping_ = true;
      socket_.cancel();
      pause_.cancel();
    });
    while (!ended_) co_await end_.wait();
  }

 private:
  // Asio's thread.
  void accept() {
    if (stopping_) return end();
    executor_.post([this, accepted = accept_some(listener_.fd)] { admit(accepted); });
  }
  void sleep() {
    if (stopping_) return end();
    pause_.expires_after(kAcceptPause);
    pause_.async_wait([this](const boost::system::error_code&) { wait(); });
  }
  /// Asio's thread is done with this object.
  void end() {
    executor_.post([this] {
      ended_ = true;
      end_.notify_all();
    });
  }

  // Reactor's thread.
  void admit(const Accepted& accepted) {
    for (const int fd : accepted.descriptors) calls_.accepted(fd);
    if (accepted.error != 0) calls_.failed(accepted.error);
    asio::post(io_, [this, failed = accepted.error != 0] { failed ? sleep() : wait(); });
  }

  asio::io_context& io_;
  Executor& executor_;
  const Listener listener_;
  const Calls calls_;
  asio::posix::stream_descriptor socket_;
  asio::steady_timer pause_;
  bool stopping_ = false;  // Asio's thread
  bool ended_ = false;     // the reactor's
  Condition end_;
};

Acceptor::Acceptor(asio::io_context& io, Executor& executor, Listener listener, Calls calls)
    : impl_(std::make_unique<Impl>(io, executor, std::move(listener), std::move(calls))) {
  impl_->wait();
}
Acceptor::~Acceptor() = default;
const Listener& Acceptor::listener() const { return impl_->listener(); }
Task<void> Acceptor::stop() { return impl_->stop(); }

}  // namespace tandem::nbd
