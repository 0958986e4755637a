#include "device/ring_readiness.h"

#include <poll.h>

#include <cstdint>
#include <utility>

#include "tandem/base/check.h"

namespace tandem::device {

/// One poll in the ring, and its removal when the wait is cancelled; used again when both are over.
class RingReadiness::Poll final : public RingOperation {
 public:
  explicit Poll(RingReadiness& owner) : owner_(owner), removal_(*this) {}

  void begin(ReadinessWait& wait) {
    wait_ = &wait;
    wait.under_way = this;
    owner_.ring_.queue_lazily(*this);
  }
  void remove() {
    // Behind the poll itself, should that still wait to be submitted.
    if (!std::exchange(removing_, true)) owner_.ring_.queue_lazily(removal_);
  }
  void prepare(io_uring_sqe& sqe) override {
    io_uring_prep_poll_add(&sqe, wait_->fd, wait_->for_write ? POLLOUT : POLLIN);
  }
  void finish(int result) override {
    ReadinessWait& wait = *std::exchange(wait_, nullptr);
    wait.under_way = nullptr;
    if (!removing_) owner_.idle_.push_back(this);
    wait.done(wait, result > 0);
  }

 private:
  class Removal final : public RingOperation {
   public:
    explicit Removal(Poll& poll) : poll_(poll) {}
    void prepare(io_uring_sqe& sqe) override {
      const RingOperation* target = &poll_;
      io_uring_prep_poll_remove(&sqe, reinterpret_cast<std::uintptr_t>(target));
    }
    void finish(int) override { poll_.removed(); }

   private:
    Poll& poll_;
  };
  /// The poll's own completion comes before or after this one.
  void removed() {
    removing_ = false;
    if (wait_ == nullptr) owner_.idle_.push_back(this);
  }

  RingReadiness& owner_;
  ReadinessWait* wait_ = nullptr;
  Removal removal_;
  bool removing_ = false;
};

RingReadiness::RingReadiness(Ring& ring) : ring_(ring) {}

RingReadiness::~RingReadiness() { CHECK(idle_.size() == polls_.size()); }

void RingReadiness::wait(ReadinessWait& wait) {
  CHECK(wait.under_way == nullptr && wait.done != nullptr);
  if (idle_.empty()) {
    polls_.push_back(std::make_unique<Poll>(*this));
    idle_.push_back(polls_.back().get());
  }
  Poll* poll = idle_.back();
  idle_.pop_back();
  poll->begin(wait);
}

void RingReadiness::cancel(ReadinessWait& wait) {
  if (wait.under_way != nullptr) static_cast<Poll*>(wait.under_way)->remove();
}

}  // namespace tandem::device
