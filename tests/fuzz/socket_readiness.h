// SocketReadiness: the port Readiness on poll(), turned by hand, for a world on one thread.
#pragma once

#include <poll.h>

#include <algorithm>
#include <vector>

#include "tandem/base/check.h"
#include "tandem/port/readiness.h"

namespace tandem::fuzz {

class SocketReadiness final : public Readiness {
 public:
  ~SocketReadiness() override { CHECK(waits_.empty()); }

  void wait(ReadinessWait& wait) override {
    CHECK(wait.under_way == nullptr);
    wait.under_way = this;
    waits_.push_back({&wait, false});
  }
  void cancel(ReadinessWait& wait) override {
    for (auto& one : waits_)
      if (one.wait == &wait) one.cancelled = true;
  }

  /// Ends every wait that is over by now; false: none was.
  bool turn() {
    std::vector<pollfd> descriptors;
    for (const auto& one : waits_)
      descriptors.push_back(
          {one.wait->fd, static_cast<short>(one.wait->for_write ? POLLOUT : POLLIN), 0});
    CHECK(::poll(descriptors.data(), descriptors.size(), 0) >= 0);
    std::vector<Waiting> over, left;
    for (std::size_t i = 0; i < waits_.size(); ++i) {
      const bool is_over = waits_[i].cancelled || descriptors[i].revents != 0;
      (is_over ? over : left).push_back(waits_[i]);
    }
    waits_ = std::move(left);
    for (const auto& one : over) {
      one.wait->under_way = nullptr;
      one.wait->done(*one.wait, !one.cancelled);
    }
    return !over.empty();
  }

 private:
  struct Waiting {
    ReadinessWait* wait;
    bool cancelled;
  };
  std::vector<Waiting> waits_;
};

}  // namespace tandem::fuzz
