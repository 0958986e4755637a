// AsioThread: Boost.Asio's loop on a thread of its own, for what comes seldom and from outside: new
// connections and the process's signals. Its handlers only post() to a reactor; connections that
// are open, volumes and groups are never touched here. It sleeps when nothing comes.
//
// Thread: made and stopped on the reactor's.
#pragma once

#include <memory>

namespace boost::asio {
class io_context;
}

namespace tandem::device {

class AsioThread {
 public:
  AsioThread();
  ~AsioThread();
  AsioThread(const AsioThread&) = delete;
  AsioThread& operator=(const AsioThread&) = delete;

  /// Outlives whatever waits in it.
  boost::asio::io_context& io();
  /// No handler runs after this; what still waits is dropped with this object. Idempotent.
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::device
