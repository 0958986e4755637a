// Serves volumes in memory over NBD, for interoperability tests with real clients.
//
//   nbd_memory_server [--async] [--size-mib N] [--tls-cert F --tls-key F [--tls-ca F]] ENDPOINT…
//
// Exports: disk (512-byte logical blocks), disk4k (4096), readonly (half pattern, half holes), full
// (takes 1 MiB, then ENOSPC), broken (reads from 1 MiB on and flushes fail with EIO), huge (1 TiB).
// Prints "listening ENDPOINT" for each, serves until SIGTERM or SIGINT, stops cleanly and prints
// its counters.
#include <signal.h>
#include <sys/signalfd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "device/asio_thread.h"
#include "device/reactor.h"
#include "frontend/nbd/server.h"
#include "tandem/base/check.h"
#include "tests/interop/memory_volume.h"

namespace tandem::test {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;

struct Arguments {
  std::vector<std::string> endpoints;
  std::uint64_t size_bytes = 64 * kMiB;
  bool async = false;
  nbd::TlsOptions tls;
};

[[noreturn]] void usage(const char* problem) {
  std::fprintf(stderr,
               "nbd_memory_server: %s\nusage: nbd_memory_server [--async] [--size-mib N] "
               "[--tls-cert F --tls-key F [--tls-ca F]] ENDPOINT...\n",
               problem);
  std::exit(2);
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) usage((word + " needs a value").c_str());
      return argv[++i];
    };
    if (word == "--async") {
      arguments.async = true;
    } else if (word == "--size-mib") {
      arguments.size_bytes = std::strtoull(value().c_str(), nullptr, 10) * kMiB;
    } else if (word == "--tls-cert") {
      arguments.tls.certificate = value();
    } else if (word == "--tls-key") {
      arguments.tls.key = value();
    } else if (word == "--tls-ca") {
      arguments.tls.client_ca = value();
    } else if (word.starts_with("--")) {
      usage(("unknown option " + word).c_str());
    } else {
      arguments.endpoints.push_back(word);
    }
  }
  if (arguments.endpoints.empty()) usage("no endpoint");
  if (arguments.size_bytes == 0) usage("--size-mib must be a positive number");
  return arguments;
}

std::optional<Error> fail_behind_first_mib(VolumeCall call, std::uint64_t offset,
                                           std::uint64_t length) {
  const bool reads_bad = call == VolumeCall::kRead && offset + length > kMiB;
  if (reads_bad || call == VolumeCall::kFlush)
    return Error{ErrorCode::kIo, "the test says that this fails"};
  return std::nullopt;
}

void add_exports(MemoryDirectory& directory, BufferPool& pool, std::uint64_t size_bytes,
                 const MemoryVolume::Later& later) {
  const auto add = [&](const char* name, MemoryVolume::Options options) {
    auto volume = std::make_shared<MemoryVolume>(pool, name, options);
    volume->set_later(later);
    directory.add(volume);
    return volume;
  };
  add("disk", {.size_bytes = size_bytes});
  add("disk4k", {.size_bytes = size_bytes, .logical_block_bytes = 4096});
  const auto read_only = add("readonly", {.size_bytes = 4 * kMiB, .read_only = true});
  for (std::size_t i = 0; i < 2 * kMiB; ++i)
    read_only->content()[i] = static_cast<std::byte>(i % 251 + 1);
  read_only->allocate_all();
  add("full", {.size_bytes = 8 * kMiB, .capacity_bytes = kMiB});
  add("broken", {.size_bytes = 8 * kMiB})->set_fault(fail_behind_first_mib);
  add("huge", {.size_bytes = kMiB << 20});
}

/// SIGTERM and SIGINT stay blocked for good: a second one must not kill a process that is stopping.
int block_signals() {
  sigset_t stops;
  sigemptyset(&stops);
  sigaddset(&stops, SIGTERM);
  sigaddset(&stops, SIGINT);
  CHECK(::sigprocmask(SIG_BLOCK, &stops, nullptr) == 0);
  const int descriptor = ::signalfd(-1, &stops, SFD_NONBLOCK | SFD_CLOEXEC);
  CHECK(descriptor >= 0);
  return descriptor;
}

Task<void> until_told(Readiness& readiness, int signal_descriptor) {
  ReadinessWait told{.fd = signal_descriptor};
  co_await until_ready(readiness, told);
}

int serve(const Arguments& arguments) {
  const int signal_descriptor = block_signals();
  auto reactor = device::Reactor::create();
  if (!reactor) {
    std::fprintf(stderr, "%s\n", reactor.error().message.c_str());
    return 1;
  }
  device::Reactor& executor = **reactor;
  BufferPool pool(64 * kMiB);
  MemoryDirectory directory;
  MemoryVolume::Later later;
  if (arguments.async) {
    later = [&executor](std::coroutine_handle<> call) { executor.post([call] { call.resume(); }); };
  }
  add_exports(directory, pool, arguments.size_bytes, later);

  nbd::Options options;
  if (!arguments.tls.certificate.empty()) options.tls = arguments.tls;
  device::AsioThread asio;
  nbd::Server server({executor, executor.readiness(), asio.io()}, pool, directory, options);
  for (const auto& endpoint : arguments.endpoints) {
    if (const Status bound = server.listen(endpoint); !bound) {
      std::fprintf(stderr, "%s\n", bound.error().message.c_str());
      executor.wait_for(server.stop());
      return 1;
    }
  }
  for (const auto& endpoint : server.endpoints()) std::printf("listening %s\n", endpoint.c_str());
  std::fflush(stdout);

  executor.wait_for(until_told(executor.readiness(), signal_descriptor));
  executor.wait_for(server.stop());
  const nbd::Stats stats = server.stats();
  std::printf("connections=%llu reads=%llu writes=%llu flushes=%llu errors=%llu violations=%llu\n",
              static_cast<unsigned long long>(stats.connections_total),
              static_cast<unsigned long long>(stats.reads_total),
              static_cast<unsigned long long>(stats.writes_total),
              static_cast<unsigned long long>(stats.flushes_total),
              static_cast<unsigned long long>(stats.errors_total),
              static_cast<unsigned long long>(stats.violations_total));
  return 0;
}

}  // namespace
}  // namespace tandem::test

int main(int argc, char** argv) { return tandem::test::serve(tandem::test::parse(argc, argv)); }
