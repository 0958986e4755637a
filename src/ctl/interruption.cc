#include "ctl/interruption.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <utility>

#include "tandem/base/check.h"

namespace tandem::ctl {
namespace {

constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};

std::atomic<int> note_to = -1;
std::array<struct sigaction, kSignals.size()> before;

void note(int signal) {
  const int saved = errno;
  const auto which = static_cast<unsigned char>(signal);
  (void)!::write(note_to, &which, 1);
  errno = saved;
}

}  // namespace

Interruption::Interruption(std::function<void()> clean_up) : clean_up_(std::move(clean_up)) {
  int ends[2];
  CHECK(::pipe2(ends, O_CLOEXEC) == 0);
  read_end_ = ends[0];
  write_end_ = ends[1];
  CHECK(note_to == -1);
  note_to = write_end_;
  watcher_ = std::thread([this] { watch(); });
  struct sigaction action {};
  action.sa_handler = note;
  action.sa_flags = SA_RESTART | static_cast<int>(SA_RESETHAND);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    CHECK(::sigaction(kSignals[i], nullptr, &before[i]) == 0);
    if (before[i].sa_handler != SIG_IGN) CHECK(::sigaction(kSignals[i], &action, nullptr) == 0);
  }
}

Interruption::~Interruption() {
  for (std::size_t i = 0; i < kSignals.size(); ++i)
    CHECK(::sigaction(kSignals[i], &before[i], nullptr) == 0);
  ::close(std::exchange(write_end_, -1));
  watcher_.join();  // when one came, the process ends in here
  note_to = -1;
  ::close(read_end_);
}

void Interruption::watch() {
  unsigned char which = 0;
  ssize_t got = 0;
  do {
    got = ::read(read_end_, &which, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1) return;  // nothing came
  came_ = true;
  clean_up_();
  struct sigaction usual {};
  usual.sa_handler = SIG_DFL;
  CHECK(::sigaction(which, &usual, nullptr) == 0);
  ::kill(::getpid(), which);
}

}  // namespace tandem::ctl
