#include "daemon/config.h"

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <sstream>

#include "daemon/config_reader.h"
#include "tandem/base/units.h"

namespace tandem::daemon {
namespace {

constexpr std::uint64_t kKiB = std::uint64_t{1} << 10;
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;
constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;
constexpr std::uint64_t kTiB = std::uint64_t{1} << 40;
constexpr std::uint64_t kPoolBytesMin = 64 * kMiB;
constexpr std::uint64_t kPoolBytesMax = 4096 * kTiB;
constexpr std::uint64_t kZoneUnitBytes = 256 * kKiB;
constexpr std::size_t kUnixPathMax = 107;  // sun_path holds 108 with its terminator

struct Unit {
  std::string_view name;
  double factor;
};

/// "12.5unit": the number, and which unit; the whole text must be used.
std::optional<double> parse_with_unit(std::string_view text, std::span<const Unit> units,
                                      bool unit_optional) {
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  if (error != std::errc() || number < 0) return std::nullopt;
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  if (unit.empty() && unit_optional) return number;
  for (const auto& candidate : units) {
    if (candidate.name == unit) return number * candidate.factor;
  }
  return std::nullopt;
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= 63 &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) || c == '-' || c == '.' || c == '_';
         });
}

std::string absolute_from(const std::string& path, const std::string& config_path) {
  const std::filesystem::path given(path);
  if (path.empty() || given.is_absolute()) return path;
  const auto base = std::filesystem::absolute(config_path).parent_path();
  return (base / given).lexically_normal().string();
}

void read_node(ConfigReader& reader, Config& config) {
  if (!reader.take_string("node.name", config.node.name)) {
    if (!reader.has("node.name")) {
      reader.complain("node.name",
                      "is missing; give this node a name that is unique in the pair, such as "
                      "[node] name = \"node-a\"");
    }
  } else if (!is_name(config.node.name)) {
    reader.complain("node.name", "\"" + config.node.name +
                                     "\" is not a name; use up to 63 letters, digits, '-', '.' "
                                     "and '_'");
  }
}

void read_pool_space(ConfigReader& reader, PoolConfig& pool) {
  std::int64_t percent = 0;
  if (reader.take_integer("pool.warn_at", 1, 100, percent))
    pool.warn_percent = static_cast<unsigned>(percent);
  if (reader.take_integer("pool.critical_at", 1, 100, percent))
    pool.critical_percent = static_cast<unsigned>(percent);
  if (pool.warn_percent > pool.critical_percent) {
    reader.complain(
        reader.has("pool.warn_at") ? "pool.warn_at" : "pool.critical_at",
        "warns of " + std::to_string(pool.warn_percent) + " % full, behind what is critical (" +
            std::to_string(pool.critical_percent) + " %); make pool.warn_at the smaller one");
  }
  std::string when;
  if (reader.take_string("pool.return_free_space", when)) {
    using Return = PoolConfig::Return;
    if (when == "off") {
      pool.return_free_space = Return::kOff;
    } else if (when == "on") {
      pool.return_free_space = Return::kOn;
    } else if (when != "auto") {
      reader.complain("pool.return_free_space",
                      "\"" + when + "\" is none of them; write \"auto\", \"on\" or \"off\"");
    }
  }
  reader.take_duration("pool.return_after", std::chrono::seconds(1), std::chrono::hours(240),
                       pool.return_after);
  std::string prepare;
  if (reader.take_string("pool.prepare", prepare)) {
    if (prepare == "all") {
      pool.prepare = PoolConfig::Prepare::kAll;
    } else if (prepare != "ahead") {
      reader.complain("pool.prepare",
                      "\"" + prepare + "\" is none of them; write \"ahead\" or \"all\"");
    }
  }
  const bool returns_all = pool.return_free_space == PoolConfig::Return::kOn;
  if (pool.prepare == PoolConfig::Prepare::kAll && returns_all)
    reader.complain("pool.prepare",
                    "\"all\" keeps what pool.return_free_space = \"on\" gives back; choose one");
}

void read_pool(ConfigReader& reader, Config& config, const std::string& path) {
  auto& pool = config.pool;
  if (!reader.take_string("pool.path", pool.path) || pool.path.empty()) {
    if (pool.path.empty()) {
      reader.complain("pool.path",
                      "is missing; name a file or a block device, such as "
                      "\"/var/lib/tandem/pool\"");
    }
  }
  pool.path = absolute_from(pool.path, path);
  reader.take_bool("pool.create", pool.create);
  reader.take_bool("pool.direct", pool.direct);
  if (reader.take_size("pool.size", kPoolBytesMin, kPoolBytesMax, pool.size_bytes) &&
      pool.size_bytes % kBlockBytes != 0) {
    reader.complain("pool.size", "is not a multiple of 4096 bytes; round it");
  }
  read_pool_space(reader, pool);
  if (reader.take_size("pool.zone_size", kMiB, kGiB, pool.zone_bytes) &&
      pool.zone_bytes % kZoneUnitBytes != 0) {
    reader.complain("pool.zone_size",
                    "is not a multiple of 256KiB; round it, for example \"16MiB\"");
  }
}

void read_memory(ConfigReader& reader, Config& config) {
  std::uint64_t bytes = 0;
  if (reader.take_size("memory.map_cache", 4 * kMiB, kTiB, bytes)) {
    config.memory.map_cache_bytes = bytes;
  }
  if (reader.take_size("memory.buffers", 16 * kMiB, 64 * kGiB, bytes)) {
    config.memory.buffer_bytes = bytes;
  }
}

void read_nbd(ConfigReader& reader, Config& config, const std::string& path) {
  auto& nbd = config.nbd;
  std::vector<std::string> addresses;
  if (reader.take_strings("nbd.listen", addresses)) {
    for (const auto& text : addresses) {
      auto address = parse_listen_address(text);
      if (!address) {
        reader.complain("nbd.listen", address.error().message);
        continue;
      }
      address->unix_path = absolute_from(address->unix_path, path);
      if (address->unix_path.size() > kUnixPathMax) {
        reader.complain("nbd.listen", "the path " + address->unix_path + " has " +
                                          std::to_string(address->unix_path.size()) +
                                          " bytes; a Unix socket's may have 107: choose a "
                                          "shorter one");
      }
      nbd.listen.push_back(std::move(*address));
    }
  }
  std::int64_t number = 0;
  if (reader.take_integer("nbd.connections_max", 1, 65536, number)) {
    nbd.connections_max = static_cast<std::size_t>(number);
  }
  std::uint64_t bytes = 0;
  if (reader.take_size("nbd.request_bytes_max", 64 * kKiB, 64 * kMiB, bytes)) {
    nbd.request_bytes_max = static_cast<std::uint32_t>(bytes);
  }
  if (reader.take_integer("nbd.unix_socket_mode", 0, 0777, number)) {
    nbd.unix_socket_mode = static_cast<unsigned>(number);
  }
  TlsFiles files;
  const bool has_certificate = reader.take_string("nbd.certificate", files.certificate);
  const bool has_key = reader.take_string("nbd.key", files.key);
  const bool has_ca = reader.take_string("nbd.client_ca", files.ca);
  reader.take_bool("nbd.tls_required", nbd.tls_required);
  if (has_certificate != has_key || (has_ca && !has_certificate)) {
    reader.complain(has_certificate ? "nbd.certificate"
                    : has_key       ? "nbd.key"
                                    : "nbd.client_ca",
                    "TLS for NBD needs both nbd.certificate and nbd.key; give both or none");
  } else if (has_certificate) {
    nbd.tls = TlsFiles{absolute_from(files.certificate, path), absolute_from(files.key, path),
                       absolute_from(files.ca, path)};
  }
}

void read_service(ConfigReader& reader, Config& config, const std::string& path) {
  auto& service = config.service;
  std::string listen;
  if (reader.take_string("service.listen", listen)) {
    auto address = parse_listen_address(listen);
    if (!address || !address->unix_path.empty()) {
      reader.complain("service.listen", "\"" + listen +
                                            "\" is not an address; write host:port, such as "
                                            "\"0.0.0.0:7788\" or \"[::]:7788\"");
    } else {
      service.listen = *address;
    }
  }
  const bool is_wildcard = service.listen.host == "0.0.0.0" || service.listen.host == "::";
  if (!is_wildcard && service.listen.port != 0) service.advertise = service.listen.text();
  if (reader.take_string("service.advertise", service.advertise)) {
    auto address = parse_listen_address(service.advertise);
    if (!address || !address->unix_path.empty() || address->port == 0) {
      reader.complain("service.advertise",
                      "\"" + service.advertise +
                          "\" is not an address; write the host:port at which the other node "
                          "reaches this one, such as \"10.0.0.1:7788\"");
    }
  }
  reader.take_bool("service.tls", service.tls);
  const struct {
    const char* key;
    std::string& file;
    const char* what;
  } files[] = {
      {"service.certificate", service.files.certificate, "this node's certificate"},
      {"service.key", service.files.key, "the private key of that certificate"},
      {"service.ca", service.files.ca, "the authority that signed both nodes' certificates"},
  };
  for (const auto& [key, file, what] : files) {
    reader.take_string(key, file);
    if (service.tls && file.empty()) {
      reader.complain(key, std::string("is missing; name the PEM file with ") + what +
                               " (deploy/certificates makes them), or write service.tls = false "
                               "if everybody on the network may be trusted");
    }
    file = absolute_from(file, path);
  }
}

void read_replication(ConfigReader& reader, Config& config) {
  using std::chrono::hours;
  using std::chrono::milliseconds;
  using std::chrono::minutes;
  auto& replication = config.replication;
  reader.take_duration("replication.peer_wait", Nanoseconds(0), hours(1), replication.peer_wait);
  reader.take_duration("replication.heartbeat", milliseconds(10), minutes(1),
                       replication.heartbeat);
  reader.take_duration("replication.timeout", milliseconds(50), minutes(10), replication.timeout);
  if (replication.timeout < 2 * replication.heartbeat) {
    reader.complain("replication.timeout",
                    "is less than two heartbeats, so that one late heartbeat would count as a lost "
                    "peer; make it several times replication.heartbeat");
  }
  std::uint64_t bytes = 0;
  if (reader.take_size("replication.memory", 4 * kMiB, 64 * kGiB, bytes)) {
    replication.memory_bytes = bytes;
  }
  std::int64_t protocol = 0;
  if (reader.take_integer("replication.protocol_max", message::kProtocolVersions.oldest,
                          message::kProtocolVersions.newest, protocol)) {
    replication.protocol_max = static_cast<std::uint32_t>(protocol);
  }
}

void read_hooks(ConfigReader& reader, Config& config) {
  const auto count = reader.count_tables("hook", {"group", "before", "after", "timeout"});
  for (std::size_t i = 0; i < count; ++i) {
    const std::string at = "hook[" + std::to_string(i) + "]";
    HookConfig hook;
    reader.take_string(at + ".group", hook.group);
    reader.take_string(at + ".before", hook.before);
    reader.take_string(at + ".after", hook.after);
    // A stop of the daemon waits for a command that lets something go on; see kStopMax in node.cc.
    reader.take_duration(at + ".timeout", std::chrono::seconds(1), std::chrono::seconds(30),
                         hook.timeout);
    if (!is_name(hook.group)) {
      reader.complain(at,
                      "names no group; write group = \"NAME\", the group whose snapshots these "
                      "commands are around");
    }
    if (hook.before.empty() && hook.after.empty()) {
      reader.complain(at, "has no command; give it `before` and `after`, or remove it");
    }
    for (const auto& other : config.hooks) {
      if (other.group == hook.group)
        reader.complain(at, "is the second one of group " + hook.group + "; put them into one");
    }
    config.hooks.push_back(std::move(hook));
  }
}

void read_rest(ConfigReader& reader, Config& config) {
  reader.take_string("promotion.fence_command", config.promotion.fence_command);
  // A clean stop waits for a command that runs; see kStopMax in node.cc.
  reader.take_duration("promotion.fence_timeout", std::chrono::seconds(1), std::chrono::seconds(50),
                       config.promotion.fence_timeout);
  reader.take_duration("reactor.spin", Nanoseconds(0), std::chrono::milliseconds(1),
                       config.reactor.spin);
  std::string level;
  if (reader.take_string("log.level", level)) {
    auto parsed = parse_level(level);
    if (parsed) {
      config.log.level = *parsed;
    } else {
      reader.complain("log.level", parsed.error().message);
    }
  }
}

void read_all(ConfigReader& reader, Config& config, const std::string& path) {
  read_node(reader, config);
  read_pool(reader, config, path);
  read_memory(reader, config);
  read_nbd(reader, config, path);
  read_service(reader, config, path);
  read_replication(reader, config);
  read_hooks(reader, config);
  read_rest(reader, config);
}

}  // namespace

std::string ListenAddress::text() const {
  if (!unix_path.empty()) return "unix:" + unix_path;
  const bool is_v6 = host.find(':') != std::string::npos;
  return (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<Config> load_config(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return Error{ErrorCode::kInvalid, path + " is a directory; name the configuration file"};
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf() || file.peek() == std::ifstream::traits_type::eof())) {
    return Error{errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo,
                 "the configuration " + path + " cannot be read: " + std::strerror(errno) +
                     "; name it with --config (deploy/tandem.toml is the reference)"};
  }
  return parse_config(text.str(), path);
}

Result<Config> parse_config(std::string_view text, const std::string& path) {
  Config config;
  ConfigReader reader(text, path);
  if (!reader.parsed()) return Error(reader.finish().error());
  read_all(reader, config, path);
  TANDEM_TRY(reader.finish());
  return config;
}

std::vector<std::string> config_keys() {
  Config config;
  ConfigReader reader("", "");
  read_all(reader, config, "");
  return {reader.known().begin(), reader.known().end()};
}

Result<std::uint64_t> parse_size(std::string_view text) {
  static constexpr Unit kUnits[] = {{"B", 1.0},
                                    {"KiB", static_cast<double>(kKiB)},
                                    {"MiB", static_cast<double>(kMiB)},
                                    {"GiB", static_cast<double>(kGiB)},
                                    {"TiB", static_cast<double>(kTiB)}};
  const auto value = parse_with_unit(text, kUnits, true);
  if (!value || *value >= 9e18) {
    return Error{ErrorCode::kInvalid, "\"" + std::string(text) +
                                          "\" is not a size; write a number and KiB, MiB, GiB or "
                                          "TiB, such as \"10GiB\""};
  }
  if (*value != std::floor(*value)) {
    return Error{ErrorCode::kInvalid,
                 "\"" + std::string(text) + "\" is not a whole number of bytes; round it"};
  }
  return static_cast<std::uint64_t>(*value);
}

Result<Nanoseconds> parse_duration(std::string_view text) {
  static constexpr Unit kUnits[] = {
      {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 6e10}, {"h", 3.6e12}};
  const auto value = parse_with_unit(text, kUnits, false);
  if (!value || *value >= 9e18) {
    return Error{ErrorCode::kInvalid, "\"" + std::string(text) +
                                          "\" is not a time; write a number and us, ms, s, m or h, "
                                          "such as \"10s\""};
  }
  return Nanoseconds(static_cast<std::int64_t>(*value));
}

Result<ListenAddress> parse_listen_address(std::string_view text) {
  const Error wrong{ErrorCode::kInvalid,
                    "\"" + std::string(text) +
                        "\" is not an address; write \"unix:/path\", \"host:port\" or "
                        "\"[v6]:port\""};
  ListenAddress address;
  if (text.starts_with("unix:")) {
    address.unix_path = text.substr(5);
    if (address.unix_path.empty()) return wrong;
    return address;
  }
  const auto colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return wrong;
  std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  if (host.front() == '[') {
    if (host.back() != ']' || host.size() < 3) return wrong;
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return wrong;  // a bare IPv6 address: which part is the port?
  }
  unsigned number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (error != std::errc() || end != port.data() + port.size() || number > 65535) return wrong;
  address.host = host;
  address.port = static_cast<std::uint16_t>(number);
  return address;
}

Result<Level> parse_level(std::string_view text) {
  if (text == "debug") return Level::kDebug;
  if (text == "info") return Level::kInfo;
  if (text == "warn") return Level::kWarn;
  if (text == "error") return Level::kError;
  return Error{ErrorCode::kInvalid,
               "\"" + std::string(text) + "\" is not a level; write debug, info, warn or error"};
}

}  // namespace tandem::daemon
