#include "device/asio_thread.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <thread>

namespace tandem::device {

struct AsioThread::Impl {
  boost::asio::io_context io{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{io.get_executor()};
  std::thread thread{[this] { io.run(); }};
};

AsioThread::AsioThread() : impl_(std::make_unique<Impl>()) {}
AsioThread::~AsioThread() { stop(); }

boost::asio::io_context& AsioThread::io() { return impl_->io; }

void AsioThread::stop() {
  impl_->io.stop();
  if (impl_->thread.joinable()) impl_->thread.join();
}

}  // namespace tandem::device
