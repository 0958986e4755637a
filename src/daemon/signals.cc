#include "daemon/signals.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <utility>

namespace tandem::daemon {

struct Signals::Impl {
  Impl(boost::asio::io_context& io, Executor& to, std::function<void(int)> call)
      : set(io), executor(to), arrived(std::move(call)) {}

  /// Asio's thread, but for the first time.
  void wait() {
    set.async_wait([this](const boost::system::error_code& error, int number) {
      if (error) return;
      executor.post([this, number] { arrived(number); });
      wait();
    });
  }

  boost::asio::signal_set set;
  Executor& executor;
  const std::function<void(int)> arrived;
};

Signals::Signals(boost::asio::io_context& io, Executor& executor,
                 std::initializer_list<int> numbers, std::function<void(int)> arrived)
    : impl_(std::make_unique<Impl>(io, executor, std::move(arrived))) {
  for (const int number : numbers) impl_->set.add(number);
  impl_->wait();
}

Signals::~Signals() = default;

}  // namespace tandem::daemon
