// A Readiness for tests over real sockets whose reactor is a ThreadExecutor: a thread in poll(2).
#pragma once

#include <mutex>
#include <thread>
#include <vector>

#include "tandem/port/executor.h"
#include "tandem/port/readiness.h"

namespace tandem::test {

class PollReadiness final : public Readiness {
 public:
  /// `executor` outlives it, and has run what it was posted when this ends.
  explicit PollReadiness(Executor& executor);
  ~PollReadiness() override;
  void wait(ReadinessWait& wait) override;
  void cancel(ReadinessWait& wait) override;

 private:
  void loop();
  void wake();
  void finish(ReadinessWait& wait, bool ready);

  Executor& executor_;
  int wake_[2];
  std::mutex mutex_;
  std::vector<ReadinessWait*> waits_;  // mutex_
  bool stopping_ = false;              // mutex_
  std::thread thread_;
};

}  // namespace tandem::test
