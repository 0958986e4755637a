// RingReadiness: waits for descriptors as polls of the reactor's ring. They go to the kernel with
// the next submission, at the latest before the reactor sleeps, so a wait costs no system call.
// Thread: the reactor's.
#pragma once

#include <memory>
#include <vector>

#include "device/ring.h"
#include "tandem/port/readiness.h"

namespace tandem::device {

class RingReadiness final : public Readiness {
 public:
  explicit RingReadiness(Ring& ring);
  /// CHECKs that nothing waits.
  ~RingReadiness() override;

  void wait(ReadinessWait& wait) override;
  void cancel(ReadinessWait& wait) override;

 private:
  class Poll;
  Ring& ring_;
  std::vector<std::unique_ptr<Poll>> polls_;
  std::vector<Poll*> idle_;
};

}  // namespace tandem::device
