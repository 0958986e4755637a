// Signals: the process's signals as calls on the reactor.
#pragma once

#include <functional>
#include <vector>

#include "tandem/base/sync.h"
#include "tandem/base/task.h"
#include "tandem/port/readiness.h"

namespace tandem::daemon {

/// One a process. Thread: the reactor's; `readiness` outlives it. Await stop() before destroying
/// it.
class Signals {
 public:
  /// Catches `numbers` from now on; `arrived` is called for each that comes, on the reactor.
  Signals(Readiness& readiness, std::vector<int> numbers, std::function<void(int)> arrived);
  /// The signals do again what they do by default.
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  Task<void> stop();

 private:
  Task<void> listen();

  Readiness& readiness_;
  const std::vector<int> numbers_;
  const std::function<void(int)> arrived_;
  int read_end_ = -1;
  ReadinessWait wait_;
  bool stopping_ = false;
  Gate listening_;
};

}  // namespace tandem::daemon
