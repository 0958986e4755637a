#include "tests/support/poll_readiness.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>

#include "tandem/base/check.h"

namespace tandem::test {

PollReadiness::PollReadiness(Executor& executor) : executor_(executor) {
  CHECK(::pipe2(wake_, O_CLOEXEC | O_NONBLOCK) == 0);
  thread_ = std::thread([this] { loop(); });
}

PollReadiness::~PollReadiness() {
  {
    std::lock_guard lock(mutex_);
    CHECK(waits_.empty());
    stopping_ = true;
  }
  wake();
  thread_.join();
  for (const int fd : wake_) ::close(fd);
}

void PollReadiness::wait(ReadinessWait& wait) {
  wait.under_way = this;
  {
    std::lock_guard lock(mutex_);
    waits_.push_back(&wait);
  }
  wake();
}

void PollReadiness::cancel(ReadinessWait& wait) {
  {
    std::lock_guard lock(mutex_);
    if (std::erase(waits_, &wait) == 0) return;
  }
  finish(wait, false);
}

void PollReadiness::wake() { CHECK(::write(wake_[1], "", 1) == 1); }

void PollReadiness::finish(ReadinessWait& wait, bool ready) {
  executor_.post([&wait, ready] {
    wait.under_way = nullptr;
    wait.done(wait, ready);
  });
}

void PollReadiness::loop() {
  for (;;) {
    std::vector<ReadinessWait*> waits;
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
      waits = waits_;
    }
    std::vector<pollfd> fds{{wake_[0], POLLIN, 0}};
    for (const auto* wait : waits)
      fds.push_back({wait->fd, static_cast<short>(wait->for_write ? POLLOUT : POLLIN), 0});
    ::poll(fds.data(), fds.size(), -1);
    for (char bytes[64]; ::read(wake_[0], bytes, sizeof bytes) > 0;) continue;
    for (std::size_t i = 0; i < waits.size(); ++i) {
      if (fds[i + 1].revents == 0) continue;
      std::lock_guard lock(mutex_);
      if (std::erase(waits_, waits[i]) != 0) finish(*waits[i], true);  // else it was cancelled
    }
  }
}

}  // namespace tandem::test
