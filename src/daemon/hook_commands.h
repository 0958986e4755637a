// The operator's commands around a group's snapshots, from [[hook]] in the configuration.
//
// They run with /bin/sh as the daemon's user. In their environment: TANDEM_HOOK (before | after),
// TANDEM_GROUP, TANDEM_SNAPSHOT ("" when `after` runs at the start), TANDEM_VOLUMES (names, blanks
// between), TANDEM_HELD (for `after`, whether `before` succeeded: yes, no, maybe), TANDEM_NODE.
// Thread: the reactor's; each command is waited for on a thread of its own.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "control/options.h"
#include "daemon/config.h"
#include "tandem/port/executor.h"

namespace tandem::daemon {

class HookCommands final : public control::SnapshotHooks {
 public:
  HookCommands(Executor& executor, std::string node, const std::vector<HookConfig>& hooks);

  std::optional<Nanoseconds> limit(const std::string& group) const override;
  Task<Status> before(control::HookCall call) override;
  Task<Status> after(control::HookCall call) override;
  void hurry() override { given_up_ = true; }

 private:
  Task<Status> run(const char* which, control::HookCall call, const std::atomic<bool>* given_up);

  Executor& executor_;
  const std::string node_;
  std::map<std::string, HookConfig> hooks_;
  std::atomic<bool> given_up_ = false;  // read by the threads of commands
};

}  // namespace tandem::daemon
