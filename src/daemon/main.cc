// tandemd: one node of a Tandem pair.
//
// Exit codes: 0 stopped as asked; 1 failed while running; 2 the command line or the configuration
// is wrong; 3 it cannot start (pool, address, certificate). The unit file relies on 2 and 3.
#include <absl/synchronization/mutex.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "daemon/config.h"
#include "daemon/node.h"
#include "tandem/base/log.h"

namespace tandem::daemon {
namespace {

enum Exit { kStopped = 0, kFailed = 1, kWrongConfig = 2, kCannotStart = 3 };

struct Arguments {
  std::string config_path;
  std::string log_level;
  bool check = false;
  bool create_pool = false;
};

/// Settings of libraries and of the process that must be in force before any thread exists.
void prepare_process() {
  // Debian's abseil looks for deadlocks at every lock of gRPC's, at 5 to 16 % of its speed.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  // This experiment of gRPC 1.51 halves the throughput of large frames.
  ::setenv("GRPC_EXPERIMENTS", "-tcp_read_chunks", 0);
  std::signal(SIGPIPE, SIG_IGN);  // a client that went away is an error of its socket
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of the write
}

int complain(const Error& error, Exit code) {
  std::fprintf(stderr, "%s\n", error.message.c_str());
  return code;
}

Result<Config> load(const Arguments& arguments) {
  auto config = load_config(arguments.config_path);
  if (!config) return config;
  if (!arguments.log_level.empty()) {
    auto level = parse_level(arguments.log_level);
    if (!level) return Error{ErrorCode::kInvalid, "--log-level: " + level.error().message};
    config->log.level = *level;
  }
  return config;
}

int run(const Arguments& arguments) {
  auto config = load(arguments);
  if (!config) return complain(config.error(), kWrongConfig);
  set_log_level(config->log.level);
  if (arguments.check) {
    const Status checked = check_node(*config);
    if (!checked) return complain(checked.error(), kWrongConfig);
    std::printf("%s: the configuration is good\n", arguments.config_path.c_str());
    return kStopped;
  }
  auto node = Node::start({.config = std::move(*config),
                           .version = TANDEM_VERSION,
                           .create_pool = arguments.create_pool});
  if (!node) {
    log_event(Level::kError, "node.refused", "code={} reason=\"{}\"", to_string(node.error().code),
              node.error().message);
    return kCannotStart;
  }
  (*node)->run();
  return kStopped;
}

int parse_and_run(int argc, char** argv) {
  CLI::App app(
      "tandemd, one node of a Tandem pair: serves volumes over NBD and keeps a mirror of each on "
      "another node.\nIt runs in the foreground and logs to standard error; SIGTERM stops it "
      "cleanly.");
  Arguments arguments;
  app.add_option("-c,--config", arguments.config_path, "The configuration file (TOML)")
      ->required()
      ->type_name("FILE");
  app.add_flag("--check", arguments.check,
               "Check the configuration and the files it names, and end; the pool is not touched");
  app.add_flag("--create-pool", arguments.create_pool,
               "Make the pool if there is none yet; what is not empty is never overwritten");
  app.add_option("--log-level", arguments.log_level,
                 "debug, info, warn or error, instead of the configuration's")
      ->type_name("LEVEL");
  app.set_version_flag("--version", "tandemd " TANDEM_VERSION);
  app.footer(
      "Exit codes: 0 stopped as asked, 1 failed while running, 2 wrong command line or "
      "configuration, 3 cannot start.");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kStopped : kWrongConfig;
  }
  return run(arguments);
}

}  // namespace
}  // namespace tandem::daemon

int main(int argc, char** argv) {
  tandem::daemon::prepare_process();
  return tandem::daemon::parse_and_run(argc, argv);
}
