#include "daemon/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>
#include <string>

namespace tandem::daemon {
namespace {

constexpr const char* kMinimal = R"([node]
name = "a"
[pool]
path = "/pools/a"
[service]
tls = false
)";

std::string mistakes(const std::string& text) {
  auto config = parse_config(text, "/etc/t.toml");
  if (config) return "";
  EXPECT_EQ(config.error().code, ErrorCode::kInvalid);
  return config.error().message;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(Config, DefaultsAreInForceWhereNothingIsSaid) {
  auto config = parse_config(kMinimal, "/etc/t.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->node.name, "a");
  EXPECT_EQ(config->pool.path, "/pools/a");
  EXPECT_FALSE(config->pool.create);
  EXPECT_EQ(config->pool.zone_bytes, 16u << 20);
  EXPECT_EQ(config->service.listen.text(), "0.0.0.0:7788");
  EXPECT_EQ(config->service.advertise, "");
  EXPECT_EQ(config->replication.timeout, std::chrono::seconds(5));
  EXPECT_EQ(config->replication.protocol_max, message::kProtocolVersions.newest);
  EXPECT_TRUE(config->nbd.listen.empty());
  EXPECT_FALSE(config->nbd.tls);
  EXPECT_EQ(config->log.level, Level::kInfo);
}

TEST(Config, EveryKeyTakesEffect) {
  auto config = parse_config(R"(
[node]
name = "node-b.example"
[pool]
path = "pool"
create = true
direct = false
size = "1.5GiB"
zone_size = "4MiB"
warn_at = 70
critical_at = 95
return_free_space = "on"
return_after = "1h"
[memory]
map_cache = "32MiB"
buffers = 67108864
[nbd]
listen = ["unix:nbd.sock", "[::1]:10809", "host:0"]
connections_max = 7
request_bytes_max = "1MiB"
unix_socket_mode = 0o600
certificate = "n.crt"
key = "/k/n.key"
client_ca = "ca.crt"
tls_required = false
[service]
listen = "127.0.0.2:7000"
tls = true
certificate = "c.crt"
key = "c.key"
ca = "../ca.crt"
[replication]
peer_wait = "0s"
heartbeat = "200ms"
timeout = "1s"
memory = "8MiB"
protocol_max = 1
[reactor]
spin = "20us"
[log]
level = "debug"
)",
                             "/etc/tandem/t.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->node.name, "node-b.example");
  EXPECT_EQ(config->pool.path, "/etc/tandem/pool");
  EXPECT_TRUE(config->pool.create);
  EXPECT_FALSE(config->pool.direct);
  EXPECT_EQ(config->pool.size_bytes, 1610612736u);
  EXPECT_EQ(config->pool.zone_bytes, 4u << 20);
  EXPECT_EQ(config->pool.warn_percent, 70u);
  EXPECT_EQ(config->pool.critical_percent, 95u);
  EXPECT_EQ(config->pool.return_free_space, PoolConfig::Return::kOn);
  EXPECT_EQ(config->pool.return_after, std::chrono::hours(1));
  EXPECT_EQ(config->memory.map_cache_bytes, 32u << 20);
  EXPECT_EQ(config->memory.buffer_bytes, 64u << 20);
  ASSERT_EQ(config->nbd.listen.size(), 3u);
  EXPECT_EQ(config->nbd.listen[0].text(), "unix:/etc/tandem/nbd.sock");
  EXPECT_EQ(config->nbd.listen[1].text(), "[::1]:10809");
  EXPECT_EQ(config->nbd.listen[1].host, "::1");
  EXPECT_EQ(config->nbd.listen[2].port, 0);
  EXPECT_EQ(config->nbd.connections_max, 7u);
  EXPECT_EQ(config->nbd.request_bytes_max, 1u << 20);
  EXPECT_EQ(config->nbd.unix_socket_mode, 0600u);
  ASSERT_TRUE(config->nbd.tls);
  EXPECT_EQ(config->nbd.tls->certificate, "/etc/tandem/n.crt");
  EXPECT_EQ(config->nbd.tls->key, "/k/n.key");
  EXPECT_EQ(config->nbd.tls->ca, "/etc/tandem/ca.crt");
  EXPECT_FALSE(config->nbd.tls_required);
  EXPECT_EQ(config->service.listen.text(), "127.0.0.2:7000");
  EXPECT_EQ(config->service.advertise, "127.0.0.2:7000");
  EXPECT_EQ(config->service.files.ca, "/etc/ca.crt");
  EXPECT_EQ(config->replication.peer_wait, Nanoseconds(0));
  EXPECT_EQ(config->replication.heartbeat, std::chrono::milliseconds(200));
  EXPECT_EQ(config->replication.timeout, std::chrono::seconds(1));
  EXPECT_EQ(config->replication.memory_bytes, 8u << 20);
  EXPECT_EQ(config->replication.protocol_max, 1u);
  EXPECT_EQ(config->reactor.spin, std::chrono::microseconds(20));
  EXPECT_EQ(config->log.level, Level::kDebug);
}

TEST(Config, HooksAreAListOfTables) {
  const auto with = [](const char* text) { return std::string(kMinimal) + text; };
  auto config = parse_config(
      with("[[hook]]\ngroup = \"a\"\nbefore = \"x\"\ntimeout = \"3s\"\n[[hook]]\ngroup = \"b\"\n"
           "after = \"y\"\n"),
      "/t");
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_EQ(config->hooks.size(), 2u);
  EXPECT_EQ(config->hooks[0].group, "a");
  EXPECT_EQ(config->hooks[0].before, "x");
  EXPECT_EQ(config->hooks[0].after, "");
  EXPECT_EQ(config->hooks[0].timeout, std::chrono::seconds(3));
  EXPECT_EQ(config->hooks[1].after, "y");
  EXPECT_EQ(config->hooks[1].timeout, std::chrono::seconds(10));
  EXPECT_TRUE(contains(mistakes(with("[hook]\ngroup = \"a\"\n")),
                       ":7:1: hook: is a table; write [[hook]]"));
  EXPECT_TRUE(
      contains(mistakes(with("[[hook]]\nbefore = \"x\"\n")), ":7:1: hook[0]: names no group"));
  EXPECT_TRUE(contains(mistakes(with("[[hook]]\ngroup = \"a\"\n")), "hook[0]: has no command"));
  EXPECT_TRUE(
      contains(mistakes(with("[[hook]]\ngroup = \"a\"\nafter = \"x\"\ntimeout = \"31s\"\n")),
               ":10:11: hook[0].timeout: \"31s\" is out of range"));
  EXPECT_TRUE(contains(mistakes(with("[[hook]]\ngroup = \"a\"\nbefor = \"x\"\nafter = \"x\"\n")),
                       ":9:1: hook.befor: nobody knows this key; did you mean hook.before?"));
  EXPECT_TRUE(
      contains(mistakes(with("[[hook]]\ngroup = \"a\"\nafter = \"x\"\n[[hook]]\ngroup = \"a\"\n"
                             "after = \"x\"\n")),
               "hook[1]: is the second one of group a"));
}

TEST(Config, SyntaxErrorsNameTheirPlace) {
  const auto message = mistakes("[node]\nname = \"a\nx = 1\n");
  EXPECT_TRUE(contains(message, "/etc/t.toml:2:")) << message;
}

TEST(Config, UnknownKeysAreRefusedWithAHint) {
  const auto message = mistakes(std::string(kMinimal) + "[replication]\n  heartbaet = \"1s\"\n");
  EXPECT_TRUE(contains(message, "/etc/t.toml:8:3: replication.heartbaet")) << message;
  EXPECT_TRUE(contains(message, "did you mean replication.heartbeat?")) << message;
  const auto table = mistakes(std::string(kMinimal) + "[replicaton]\n");
  EXPECT_TRUE(contains(table, "did you mean replication?")) << table;
  const auto stray = mistakes("listen = \"x\"\n" + std::string(kMinimal));
  EXPECT_TRUE(contains(stray, "/etc/t.toml:1:1: listen")) << stray;
  EXPECT_TRUE(contains(stray, ".listen?")) << stray;
}

TEST(Config, AllMistakesAreReportedAtOnceInOrder) {
  const auto message = mistakes(R"([node]
name = "two words"
[pool]
path = "/p"
size = "10GB"
zone_size = "1000KiB"
[nbd]
listen = "127.0.0.1:1"
connections_max = 0
[service]
tls = "yes"
listen = "unix:/x"
[log]
level = "loud"
)");
  std::istringstream lines(message);
  std::vector<std::string> found;
  for (std::string line; std::getline(lines, line);) found.push_back(line);
  ASSERT_EQ(found.size(), 11u) << message;
  const char* const expected[] = {
      "2:8: node.name: \"two words\" is not a name",
      "5:8: pool.size: \"10GB\" is not a size",
      "6:13: pool.zone_size: \"1000KiB\" is out of range",
      "8:10: nbd.listen: is not a list of strings",
      "9:19: nbd.connections_max: 0 is out of range",
      "service.certificate: is missing",
      "service.key: is missing",
      "service.ca: is missing",
      "11:7: service.tls: is a string; write true or false",
      "12:10: service.listen: \"unix:/x\" is not an address",
      "14:9: log.level: \"loud\" is not a level",
  };
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_TRUE(contains(found[i], expected[i])) << found[i];
    EXPECT_TRUE(found[i].starts_with("/etc/t.toml:")) << found[i];
  }
}

TEST(Config, WhatIsMissingIsNamedWithItsCure) {
  const auto message = mistakes("");
  for (const char* key : {"node.name", "pool.path", "service.certificate", "service.ca"}) {
    EXPECT_TRUE(contains(message, std::string(key) + ": is missing;")) << message;
  }
}

TEST(Config, ContradictionsAreRefused) {
  EXPECT_TRUE(contains(
      mistakes(std::string(kMinimal) + "[replication]\nheartbeat = \"3s\"\ntimeout = \"5s\"\n"),
      "two heartbeats"));
  const std::string pool = "[node]\nname = \"a\"\n[service]\ntls = false\n[pool]\npath = \"/p\"\n";
  EXPECT_TRUE(
      contains(mistakes(pool + "critical_at = 70\n"), ":7:15: pool.critical_at: warns of 80"));
  EXPECT_TRUE(contains(mistakes(pool + "return_free_space = \"yes\"\n"), "write \"auto\""));
  EXPECT_TRUE(contains(mistakes(pool + "prepare = \"none\"\n"), "write \"ahead\" or \"all\""));
  EXPECT_TRUE(contains(mistakes(pool + "prepare = \"all\"\nreturn_free_space = \"on\"\n"),
                       "pool.prepare: \"all\" keeps what"));
  EXPECT_TRUE(contains(mistakes(std::string(kMinimal) + "[nbd]\ncertificate = \"c\"\n"),
                       "both nbd.certificate and nbd.key"));
  EXPECT_TRUE(contains(mistakes(std::string(kMinimal) + "[nbd]\nlisten = [\"unix:/" +
                                std::string(120, 'x') + "\"]\n"),
                       "choose a shorter one"));
}

TEST(Config, TheAdvertisedAddressIsOne) {
  EXPECT_TRUE(contains(mistakes(std::string(kMinimal) + "advertise = \"unix:/x\"\n"),
                       ":7:13: service.advertise: \"unix:/x\" is not an address"));
  auto config = parse_config(std::string(kMinimal) + "advertise = \"alpha:7788\"\n", "/t");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->service.advertise, "alpha:7788");
}

TEST(Config, Sizes) {
  EXPECT_EQ(parse_size("0").value(), 0u);
  EXPECT_EQ(parse_size("512").value(), 512u);
  EXPECT_EQ(parse_size("64KiB").value(), 65536u);
  EXPECT_EQ(parse_size("1.5 GiB").value(), 1610612736u);
  EXPECT_EQ(parse_size("8TiB").value(), std::uint64_t{8} << 40);
  for (const char* wrong :
       {"", "GiB", "-1", "10GB", "10 gib", "1e3", "9999999TiB", "0.3B", "1KiBx"}) {
    EXPECT_FALSE(parse_size(wrong)) << wrong;
  }
}

TEST(Config, Durations) {
  EXPECT_EQ(parse_duration("20us").value(), std::chrono::microseconds(20));
  EXPECT_EQ(parse_duration("1.5s").value(), std::chrono::milliseconds(1500));
  EXPECT_EQ(parse_duration("2m").value(), std::chrono::minutes(2));
  EXPECT_EQ(parse_duration("1h").value(), std::chrono::hours(1));
  for (const char* wrong : {"", "10", "s", "-1s", "10 sec", "1d"}) {
    EXPECT_FALSE(parse_duration(wrong)) << wrong;
  }
}

TEST(Config, Addresses) {
  for (const char* right : {"unix:/a/b", "127.0.0.1:7788", "[::]:1", "node-a.example:65535"}) {
    auto address = parse_listen_address(right);
    ASSERT_TRUE(address) << right;
    EXPECT_EQ(address->text(), right);
  }
  for (const char* wrong : {"", "unix:", ":1", "host", "host:", "host:x", "host:65536", "::1:7788",
                            "[]:1", "host:1x"}) {
    EXPECT_FALSE(parse_listen_address(wrong)) << wrong;
  }
}

TEST(Config, FilesThatCannotBeReadAreNamed) {
  auto none = load_config("/nowhere/tandem.toml");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::kNotFound);
  EXPECT_TRUE(contains(none.error().message, "/nowhere/tandem.toml"));
  EXPECT_FALSE(load_config("/"));
}

// The reference configuration is a promise: it is valid, it shows every key, and it shows no other.
class ReferenceConfig : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(TANDEM_SOURCE_DIR "/deploy/tandem.toml");
    ASSERT_TRUE(file);
    std::ostringstream all;
    all << file.rdbuf();
    text_ = all.str();
  }
  std::string text_;
};

TEST_F(ReferenceConfig, IsValidAsItStands) {
  auto config = parse_config(text_, "/etc/tandem/tandem.toml");
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_TRUE(config->service.tls);
  EXPECT_EQ(config->nbd.listen.size(), 2u);
}

TEST_F(ReferenceConfig, ShowsEveryKeyAndTheDefaults) {
  const std::string all = std::regex_replace(text_, std::regex("\n# ([a-z_]+ = |\\[\\[)"), "\n$1");
  auto shown = parse_config(all, "/etc/tandem/tandem.toml");
  ASSERT_TRUE(shown) << shown.error().message;
  for (const auto& key : config_keys()) {
    const auto name = key.substr(key.find('.') + 1);
    EXPECT_TRUE(contains(all, "\n" + name + " = ")) << key << " is not in deploy/tandem.toml";
  }
  const Config defaults;
  EXPECT_EQ(shown->pool.zone_bytes, defaults.pool.zone_bytes);
  EXPECT_EQ(shown->pool.direct, defaults.pool.direct);
  EXPECT_EQ(shown->pool.warn_percent, defaults.pool.warn_percent);
  EXPECT_EQ(shown->pool.critical_percent, defaults.pool.critical_percent);
  EXPECT_EQ(shown->pool.return_free_space, defaults.pool.return_free_space);
  EXPECT_EQ(shown->pool.return_after, defaults.pool.return_after);
  EXPECT_EQ(shown->memory.map_cache_bytes, defaults.memory.map_cache_bytes);
  EXPECT_EQ(shown->memory.buffer_bytes, defaults.memory.buffer_bytes);
  EXPECT_EQ(shown->nbd.connections_max, defaults.nbd.connections_max);
  EXPECT_EQ(shown->nbd.request_bytes_max, defaults.nbd.request_bytes_max);
  EXPECT_EQ(shown->nbd.unix_socket_mode, defaults.nbd.unix_socket_mode);
  EXPECT_EQ(shown->nbd.tls_required, defaults.nbd.tls_required);
  EXPECT_EQ(shown->service.tls, defaults.service.tls);
  EXPECT_EQ(shown->replication.peer_wait, defaults.replication.peer_wait);
  EXPECT_EQ(shown->replication.heartbeat, defaults.replication.heartbeat);
  EXPECT_EQ(shown->replication.timeout, defaults.replication.timeout);
  EXPECT_EQ(shown->replication.memory_bytes, defaults.replication.memory_bytes);
  ASSERT_EQ(shown->hooks.size(), 1u);
  EXPECT_EQ(shown->hooks[0].timeout, HookConfig{}.timeout);
  EXPECT_EQ(shown->reactor.spin, defaults.reactor.spin);
  EXPECT_EQ(shown->log.level, defaults.log.level);
}

}  // namespace
}  // namespace tandem::daemon
