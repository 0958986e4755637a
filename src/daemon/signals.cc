#include "daemon/signals.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <utility>

#include "tandem/base/check.h"

namespace tandem::daemon {
namespace {

// What a handler may do is little: it writes the signal's number to a pipe.
std::atomic<int> write_end{-1};

void on_signal(int number) {
  const int saved = errno;
  const auto byte = static_cast<unsigned char>(number);
  // A full pipe holds enough signals to wake the reactor.
  [[maybe_unused]] const auto n = ::write(write_end.load(), &byte, 1);
  errno = saved;
}

void handle(int number, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  CHECK(::sigaction(number, &action, nullptr) == 0);
}

}  // namespace

Signals::Signals(Readiness& readiness, std::vector<int> numbers, std::function<void(int)> arrived)
    : readiness_(readiness), numbers_(std::move(numbers)), arrived_(std::move(arrived)) {
  int ends[2];
  CHECK(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
  read_end_ = wait_.fd = ends[0];
  CHECK(write_end.exchange(ends[1]) == -1);
  for (const int number : numbers_) handle(number, on_signal);
  spawn(listen());
}

Signals::~Signals() {
  for (const int number : numbers_) handle(number, SIG_DFL);
  ::close(write_end.exchange(-1));
  ::close(read_end_);
}

Task<void> Signals::stop() {
  stopping_ = true;
  readiness_.cancel(wait_);
  co_await listening_.close();
}

Task<void> Signals::listen() {
  auto hold = listening_.hold();
  while (!stopping_) {
    co_await until_ready(readiness_, wait_);
    unsigned char number = 0;
    while (!stopping_ && ::read(read_end_, &number, 1) == 1) arrived_(number);
  }
}

}  // namespace tandem::daemon
