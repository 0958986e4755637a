// Config: what tandemd is told, from one TOML file. deploy/tandem.toml is the commented reference.
//
// Everything is checked when it is read, and everything that is wrong is reported at once, each as
// FILE:LINE:COLUMN, the key, what is wrong and the cure. Keys that nobody knows are refused: a
// misspelt key must not silently leave a default in force.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/log.h"
#include "tandem/base/result.h"
#include "tandem/port/executor.h"
#include "tandem/port/link.h"

namespace tandem::daemon {

/// Where a front end listens: "unix:/path", "host:port" or "[v6]:port".
struct ListenAddress {
  std::string unix_path;  // not empty: a Unix socket, and the rest is unused
  std::string host;
  std::uint16_t port = 0;
  std::string text() const;
};

/// PEM files; relative paths are relative to the configuration file, here made absolute.
struct TlsFiles {
  std::string certificate;
  std::string key;
  std::string ca;
};

struct NodeConfig {
  std::string name;
};

struct PoolConfig {
  std::string path;
  bool create = false;
  std::uint64_t size_bytes = 0;  // for creation only; 0: the whole block device
  std::uint64_t zone_bytes = std::uint64_t{16} << 20;
  bool direct = true;
  unsigned warn_percent = 80, critical_percent = 90;
  // Of free zones, to the filesystem or device below: auto does so for a file.
  enum class Return { kOff, kAuto, kOn } return_free_space = Return::kAuto;
  Nanoseconds return_after = std::chrono::minutes(10);
  enum class Prepare { kAhead, kAll } prepare = Prepare::kAhead;  // free zones of a file
};

struct MemoryConfig {
  std::size_t map_cache_bytes = std::size_t{256} << 20;
  std::size_t buffer_bytes = std::size_t{128} << 20;
};

struct NbdConfig {
  std::vector<ListenAddress> listen;
  std::size_t connections_max = 256;
  std::uint32_t request_bytes_max = std::uint32_t{32} << 20;
  unsigned unix_socket_mode = 0660;
  std::optional<TlsFiles> tls;  // for TCP; ca "" takes any client
  bool tls_required = true;
};

struct ServiceConfig {
  ListenAddress listen{.host = "0.0.0.0", .port = 7788};
  std::string advertise;  // host:port where the other node reaches this one; "" if not known
  bool tls = true;
  TlsFiles files;
};

struct ReplicationConfig {
  Nanoseconds peer_wait = std::chrono::seconds(10);
  Nanoseconds heartbeat = std::chrono::seconds(1);
  Nanoseconds timeout = std::chrono::seconds(5);
  std::size_t memory_bytes = std::size_t{64} << 20;
  std::uint32_t protocol_max = message::kProtocolVersions.newest;
};

struct PromotionConfig {
  std::string fence_command;  // "": none
  Nanoseconds fence_timeout = std::chrono::seconds(30);
};

/// Commands around the snapshots of a group, one [[hook]] each.
struct HookConfig {
  std::string group;
  std::string before, after;  // "": none
  Nanoseconds timeout = std::chrono::seconds(10);
};

struct ReactorConfig {
  Nanoseconds spin{0};
};

struct LogConfig {
  Level level = Level::kInfo;
};

struct Config {
  NodeConfig node;
  PoolConfig pool;
  MemoryConfig memory;
  NbdConfig nbd;
  ServiceConfig service;
  ReplicationConfig replication;
  PromotionConfig promotion;
  std::vector<HookConfig> hooks;
  ReactorConfig reactor;
  LogConfig log;
};

/// Reads `path`. Errors: kNotFound, kInvalid with one line for each mistake.
Result<Config> load_config(const std::string& path);
/// The same for a text; `path` is what messages say and what relative paths start from.
Result<Config> parse_config(std::string_view text, const std::string& path);

/// Every key that exists, as "table.key", in order (for tests and for hints).
std::vector<std::string> config_keys();

/// "512", "64KiB", "1.5GiB", … as bytes. Decimal units (GB) are refused: they are ambiguous.
Result<std::uint64_t> parse_size(std::string_view text);
/// "20us", "500ms", "10s", "2m", "1h".
Result<Nanoseconds> parse_duration(std::string_view text);
Result<ListenAddress> parse_listen_address(std::string_view text);
Result<Level> parse_level(std::string_view text);

}  // namespace tandem::daemon
