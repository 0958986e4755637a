// Acceptor: one listening socket, on which Boost.Asio waits in a thread of its own.
//
//   Asio's thread    wait ──> accept what there is ──────┐           ┌──> wait …
//   reactor                                              └──> admit ─┘
//
// It waits again only when the reactor has taken what was accepted, so that a flood of connections
// cannot run ahead of it. Only acceptor.cc includes Asio; it is expensive to compile.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "frontend/nbd/endpoint.h"
#include "tandem/base/task.h"
#include "tandem/port/executor.h"

namespace boost::asio {
class io_context;
}

namespace tandem::nbd {

/// Thread: the reactor's. `io` is run by one other thread, until stop() has returned at least.
class Acceptor {
 public:
  struct Calls {
    /// A client came; `fd` is non-blocking and belongs to the callee.
    std::function<void(int fd)> accepted;
    /// accept() failed in a way that will not pass at once; it is tried again after a pause.
    std::function<void(int error)> failed;
  };
  /// Owns the listener's descriptor from now on. `executor` runs `calls`.
  Acceptor(boost::asio::io_context& io, Executor& executor, Listener listener, Calls calls);
  /// stop() must have returned.
  ~Acceptor();
  Acceptor(const Acceptor&) = delete;
  Acceptor& operator=(const Acceptor&) = delete;

  const Listener& listener() const;
  /// Returns when nobody is called any more.
  Task<void> stop();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::nbd
