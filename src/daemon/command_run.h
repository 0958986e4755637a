// An operator's command, awaited from a coroutine: it runs on a thread of its own, and the reactor
// goes on meanwhile.
#pragma once

#include <atomic>
#include <coroutine>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/base/command.h"
#include "tandem/port/executor.h"

namespace tandem::daemon {

/// `CommandRun run{…}; co_await run;` then `result` is there. Resumes on the reactor.
struct CommandRun {
  Executor& executor;
  const std::string& command;
  std::vector<std::pair<std::string, std::string>> environment;
  Nanoseconds limit;
  const std::atomic<bool>* given_up = nullptr;  // see run_command()
  Result<CommandOutput> result = CommandOutput{};
  std::thread thread = {};

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    thread = std::thread([this, waiter] {
      result = run_command(command, environment, limit, given_up);
      executor.post([waiter] { waiter.resume(); });
    });
  }
  void await_resume() { thread.join(); }
};

}  // namespace tandem::daemon
