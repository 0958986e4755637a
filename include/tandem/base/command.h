// Runs a command of the operator's to its end. For the edges (a daemon's hook, a command line); the
// core starts no processes.
//
// Thread: any; it blocks the calling one.
#pragma once

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "tandem/base/result.h"
#include "tandem/port/executor.h"

namespace tandem {

/// What a command said, the end of it at most, with surrounding blanks taken off.
struct CommandOutput {
  bool good = false;  // exit code 0
  // "exit code 3", "killed by signal 9", "did not end within 60 s", "was given up"
  std::string ending;
  std::string text;  // standard output and error, as they came
};

/// Runs `command` with /bin/sh, nothing on its input, `environment` beside our own. When it has not
/// ended within `limit`, or another thread sets `given_up`, it and its children are killed.
/// kIo: it cannot be started.
Result<CommandOutput> run_command(
    const std::string& command, const std::vector<std::pair<std::string, std::string>>& environment,
    Nanoseconds limit, const std::atomic<bool>* given_up = nullptr);

}  // namespace tandem
