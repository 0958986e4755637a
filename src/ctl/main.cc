// tandem: the operator's command.
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>

#include "ctl/arguments.h"
#include "tandem/base/log.h"

namespace {

using namespace tandem;

rpc::ClientOptions options_for(const ctl::Settings& settings, const std::string& address,
                               std::chrono::milliseconds timeout) {
  rpc::ClientOptions options;
  options.address = address;
  options.tls = !settings.insecure;
  options.files = {settings.ca, settings.certificate, settings.key};
  options.timeout = timeout;
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  // Only what a command says is for the operator; what its libraries log is not.
  set_log_sink([](Level, std::string_view) {});
  ctl::Context context{.settings = {},
                       .out = std::cout,
                       .err = std::cerr,
                       .in = std::cin,
                       .terminal = isatty(STDIN_FILENO) != 0 && isatty(STDOUT_FILENO) != 0,
                       .progress = isatty(STDERR_FILENO) != 0,
                       .connect = {},
                       .open_stream = {}};
  context.connect = [&context](const std::string& address, std::chrono::milliseconds timeout) {
    return rpc::ControlClient::create(options_for(context.settings, address, timeout));
  };
  context.open_stream = [&context](const std::string& address, std::chrono::milliseconds timeout) {
    return rpc::StreamClient::open(options_for(context.settings, address, timeout));
  };
  const ctl::Environment environment = [](const char* name) { return std::getenv(name); };
  int code = static_cast<int>(ctl::Exit::kFailed);
  try {
    code =
        ctl::run({argv + 1, argv + argc}, context, environment, ctl::settings_files(environment));
  } catch (const std::exception& error) {  // out of memory, a broken terminal
    std::cerr << "tandem: " << error.what() << "\n";
  }
  // Threads of gRPC's may still be closing the connection: taking apart under them what they use
  // (OpenSSL's own state, at exit) would be a race. The kernel takes back all of it.
  std::cout.flush();
  std::cerr.flush();
  std::quick_exit(code);
}
