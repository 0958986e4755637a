// Boost.Asio, as this module uses it: descriptors and timers of one io_context, and awaiters that
// resume a Task on its thread. Only .cc files include this; it is expensive to compile.
#pragma once

#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/wait_traits.hpp>
#include <chrono>
#include <coroutine>

namespace tandem::nbd {

namespace asio = boost::asio;

using AsioDescriptor = asio::posix::basic_stream_descriptor<asio::io_context::executor_type>;
using AsioTimer = asio::basic_waitable_timer<std::chrono::steady_clock,
                                             asio::wait_traits<std::chrono::steady_clock>,
                                             asio::io_context::executor_type>;

/// Goes on in a later turn of the io_context.
struct TurnWait {
  asio::io_context& io;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    asio::post(io, [waiter] { waiter.resume(); });
  }
  void await_resume() const noexcept {}
};

/// Suspends until the descriptor is ready; false when the wait was cancelled or failed.
struct DescriptorWait {
  AsioDescriptor& descriptor;
  AsioDescriptor::wait_type what;
  bool ready = false;
  bool await_ready() const noexcept { return false; }
  // The awaiter lives in the waiting coroutine's frame until the handler resumes it.
  void await_suspend(std::coroutine_handle<> waiter) {
    descriptor.async_wait(what, [this, waiter](const boost::system::error_code& error) {
      ready = !error;
      waiter.resume();
    });
  }
  bool await_resume() const noexcept { return ready; }
};

/// Suspends for `pause`, or until the timer is cancelled.
struct TimerWait {
  AsioTimer& timer;
  std::chrono::milliseconds pause;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    timer.expires_after(pause);
    timer.async_wait([waiter](const boost::system::error_code&) { waiter.resume(); });
  }
  void await_resume() const noexcept {}
};

}  // namespace tandem::nbd
