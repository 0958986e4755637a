#include "daemon/hook_commands.h"

#include <utility>

#include "daemon/command_run.h"
#include "tandem/base/log.h"

namespace tandem::daemon {
namespace {

/// What a command printed goes into one line of the log, and must not look like another.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = ' ';
    if (c == '"') c = '\'';
  }
  return text;
}

}  // namespace

HookCommands::HookCommands(Executor& executor, std::string node,
                           const std::vector<HookConfig>& hooks)
    : executor_(executor), node_(std::move(node)) {
  for (const auto& hook : hooks) hooks_[hook.group] = hook;
}

std::optional<Nanoseconds> HookCommands::limit(const std::string& group) const {
  const auto found = hooks_.find(group);
  if (found == hooks_.end()) return std::nullopt;
  return found->second.timeout;
}

Task<Status> HookCommands::before(control::HookCall call) {
  if (given_up_) co_return Error{ErrorCode::kUnavailable, "this node is stopping"};
  auto running = run("before", std::move(call), &given_up_);
  co_return co_await std::move(running);
}

/// What was held goes on, whatever happens: this one is never given up before its time.
Task<Status> HookCommands::after(control::HookCall call) {
  auto running = run("after", std::move(call), nullptr);
  co_return co_await std::move(running);
}

Task<Status> HookCommands::run(const char* which, control::HookCall call,
                               const std::atomic<bool>* given_up) {
  const auto found = hooks_.find(call.group);
  if (found == hooks_.end()) co_return ok();
  const HookConfig& hook = found->second;
  const std::string& command = given_up != nullptr ? hook.before : hook.after;
  if (command.empty()) co_return ok();
  CommandRun run{.executor = executor_,
                 .command = command,
                 .environment = {{"TANDEM_HOOK", which},
                                 {"TANDEM_GROUP", call.group},
                                 {"TANDEM_SNAPSHOT", call.snapshot},
                                 {"TANDEM_VOLUMES", call.volumes},
                                 {"TANDEM_HELD", call.held},
                                 {"TANDEM_NODE", node_}},
                 .limit = hook.timeout,
                 .given_up = given_up};
  co_await run;
  if (!run.result) co_return run.result.error();
  const CommandOutput& output = *run.result;
  log_event(output.good ? Level::kDebug : Level::kWarn, output.good ? "hook.done" : "hook.failed",
            "group={} snapshot={} hook={} ending=\"{}\" output=\"{}\"", call.group, call.snapshot,
            which, output.ending, one_line(output.text));
  if (output.good) co_return ok();
  co_return Error{ErrorCode::kRefused,
                  std::string("the command ") + which + " it, \"" + command + "\", failed: " +
                      output.ending + (output.text.empty() ? "" : ": " + one_line(output.text))};
}

}  // namespace tandem::daemon
