#include "daemon/fence_command.h"

#include <utility>

#include "daemon/command_run.h"

namespace tandem::daemon {

FenceCommand::FenceCommand(Executor& executor, std::string command, std::string node,
                           Nanoseconds limit)
    : executor_(executor), command_(std::move(command)), node_(std::move(node)), limit_(limit) {}

Task<Status> FenceCommand::fence(std::string group, std::string primary) {
  CommandRun run{.executor = executor_,
                 .command = command_,
                 .environment = {{"TANDEM_GROUP", std::move(group)},
                                 {"TANDEM_PRIMARY", std::move(primary)},
                                 {"TANDEM_NODE", node_}},
                 .limit = limit_};
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
