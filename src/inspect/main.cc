// tandem-inspect: looks into a pool offline.
#include <unistd.h>

#include <exception>
#include <iostream>

#include "inspect/command.h"

int main(int argc, char** argv) {
  using tandem::inspect::Exit;
  try {
    const auto exit = tandem::inspect::run_command({argv + 1, argv + argc}, std::cout, std::cerr,
                                                   isatty(STDERR_FILENO) != 0);
    std::cout.flush();
    return static_cast<int>(std::cout ? exit : Exit::kUnusable);
  } catch (const std::exception& error) {  // out of memory, a broken terminal
    std::cerr << "tandem-inspect: " << error.what() << "\n";
    return static_cast<int>(Exit::kUnusable);
  }
}
