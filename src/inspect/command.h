// The command line of tandem-inspect.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

namespace tandem::inspect {

enum class Exit {
  kSound = 0,
  kProblems = 1,  // verify found some
  kUnusable = 2,  // bad usage, or the pool cannot be read
};

/// Runs one command; `arguments` without the program's name. `progress`: draw a line on `err`.
Exit run_command(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err,
                 bool progress);

}  // namespace tandem::inspect
