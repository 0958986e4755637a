// For tests of what runs over real gRPC: a reactor that is a plain thread, and certificates made by
// the openssl command.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tandem/base/task.h"
#include "tandem/port/executor.h"

namespace tandem::test {

/// A thread with a queue and timers. Destroying it runs what is queued and drops the timers.
class ThreadExecutor final : public Executor {
 public:
  ThreadExecutor();
  ~ThreadExecutor() override;
  void post(std::function<void()> work) override;
  TimerId schedule_after(Nanoseconds delay, std::function<void()> work) override;
  void cancel(TimerId timer) override;
  bool is_here() const override { return std::this_thread::get_id() == thread_.get_id(); }

  /// Runs `work` on the thread and waits for its end; from another thread.
  void run(std::function<void()> work);
  /// Runs the task that `make` returns to its end; from another thread.
  void run_task(std::function<Task<void>()> make);
  /// How many times post() was called.
  std::uint64_t posts() const;

 private:
  using Time = std::chrono::steady_clock::time_point;
  void loop();
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::function<void()>> queue_;
  std::map<std::pair<Time, TimerId>, std::function<void()>> timers_;
  TimerId next_timer_ = 1;
  std::uint64_t posts_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

/// A directory of its own, removed at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

struct CertificateFiles {
  std::string ca;
  std::string certificate;
  std::string key;
};

/// Makes `directory`/NAME.ca.pem and its key.
void make_ca(const TemporaryDirectory& directory, const std::string& name);
/// A certificate for 127.0.0.1 and localhost with common name `name`, signed by `ca`. Valid for
/// `days` from now; 0: it expired yesterday. `unit`: its organisational unit, if any.
CertificateFiles make_certificate(const TemporaryDirectory& directory, const std::string& ca,
                                  const std::string& name, int days = 1,
                                  const std::string& unit = "");

}  // namespace tandem::test
