// Signals: the process's signals as calls on the reactor.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>

#include "tandem/port/executor.h"

namespace boost::asio {
class io_context;
}

namespace tandem::daemon {

/// One a process. The loop behind `io` must have ended before this is destroyed; `executor`
/// outlives it.
class Signals {
 public:
  /// Catches `numbers` from now on; `arrived` is called for each that comes, on the reactor.
  Signals(boost::asio::io_context& io, Executor& executor, std::initializer_list<int> numbers,
          std::function<void(int)> arrived);
  /// The signals do again what they do by default.
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::daemon
