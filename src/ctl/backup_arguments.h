// The command line of diff, backup and restore.
#pragma once

#include <functional>

#include "ctl/context.h"

namespace CLI {
class App;
}

namespace tandem::ctl {

/// `chosen` becomes what the line says; `local`, whether that asks no node.
void add_backup_commands(CLI::App& app, std::function<Exit(Context&)>& chosen, bool& local);

}  // namespace tandem::ctl
