// The operator's command that makes sure that a former primary is off, before a promotion here.
//
// It runs with /bin/sh; TANDEM_GROUP, TANDEM_PRIMARY (the former primary's name) and TANDEM_NODE
// (this node's) are in its environment. Exit code 0 means that the primary serves no more.
// Thread: the reactor's; the command itself is waited for on a thread of its own.
#pragma once

#include <string>

#include "control/options.h"
#include "tandem/port/executor.h"

namespace tandem::daemon {

class FenceCommand final : public control::Fencer {
 public:
  FenceCommand(Executor& executor, std::string command, std::string node, Nanoseconds limit);
  /// kRefused with the command's ending and output when it did not succeed.
  Task<Status> fence(std::string group, std::string primary) override;

 private:
  Executor& executor_;
  const std::string command_;
  const std::string node_;
  const Nanoseconds limit_;
};

}  // namespace tandem::daemon
