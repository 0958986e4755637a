#include "daemon/fence_command.h"

#include <coroutine>
#include <thread>
#include <utility>

#include "tandem/base/command.h"

namespace tandem::daemon {
namespace {

using Environment = std::vector<std::pair<std::string, std::string>>;

/// Runs the command on a thread and resumes on the reactor.
struct CommandRun {
  Executor& executor;
  const std::string& command;
  Environment environment;
  Nanoseconds limit;
  Result<CommandOutput> result = CommandOutput{};
  std::thread thread;

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    thread = std::thread([this, waiter] {
      result = run_command(command, environment, limit);
      executor.post([waiter] { waiter.resume(); });
    });
  }
  void await_resume() { thread.join(); }
};

}  // namespace

FenceCommand::FenceCommand(Executor& executor, std::string command, std::string node,
                           Nanoseconds limit)
    : executor_(executor), command_(std::move(command)), node_(std::move(node)), limit_(limit) {}

Task<Status> FenceCommand::fence(std::string group, std::string primary) {
  Environment environment;
  environment.emplace_back("TANDEM_GROUP", std::move(group));
  environment.emplace_back("TANDEM_PRIMARY", std::move(primary));
  environment.emplace_back("TANDEM_NODE", node_);
  CommandRun run{executor_, command_, std::move(environment), limit_, CommandOutput{}, {}};
  co_await run;
  if (!run.result) co_return run.result.error();
  const CommandOutput& output = *run.result;
  if (output.good) co_return ok();
  co_return Error{ErrorCode::kRefused,
                  "nothing was promoted: the fence command \"" + command_ + "\" failed, " +
                      output.ending + (output.text.empty() ? "" : ": " + output.text) +
                      "; make sure that the primary is off, then correct the command"};
}

}  // namespace tandem::daemon
