// Cleaning up when a command is interrupted: Ctrl-C, a terminal that closes, kill.
//
// What is to be undone may need calls to a node, and the command's own thread may hang meanwhile in
// one, or in a pipe that nobody reads. So it is done by a thread of its own.
#pragma once

#include <atomic>
#include <functional>
#include <thread>

#include "tandem/base/result.h"

namespace tandem::ctl {

/// At most one at a time in a process.
class Interruption {
 public:
  /// From here on SIGINT, SIGTERM and SIGHUP run `clean_up` first, once, and end the process then
  /// as they always do. The same one a second time ends it at once. What is ignored stays ignored.
  explicit Interruption(std::function<void()> clean_up);
  /// They do what they did before.
  ~Interruption();
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;

  /// One came: the process is about to end.
  bool came() const { return came_; }

 private:
  void watch();

  std::function<void()> clean_up_;
  std::atomic<bool> came_ = false;
  int read_end_ = -1, write_end_ = -1;
  std::thread watcher_;
};

}  // namespace tandem::ctl
