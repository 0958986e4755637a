// The command line: from words to a command.
#pragma once

#include <string>
#include <vector>

#include "ctl/context.h"
#include "ctl/settings.h"

namespace tandem::ctl {

/// Runs the command that `words` (without the program's name) say; returns the process's exit code.
/// `files`: where client.toml may be.
int run(std::vector<std::string> words, Context& context, const Environment& environment,
        const std::vector<std::string>& files);

}  // namespace tandem::ctl
