// What the command is told besides the command itself: which nodes, which certificates, how long to
// wait. Arguments win over the environment, which wins over the file.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "tandem/base/result.h"

namespace tandem::ctl {

struct Settings {
  std::vector<std::string> nodes;  // host:port
  bool insecure = false;
  std::string ca, certificate, key;
  std::chrono::milliseconds timeout{10000};
  bool timeout_given = false;
  bool json = false;
};

using Environment = std::function<const char*(const char* name)>;

inline constexpr const char* kDefaultNode = "localhost:7788";

/// Fills what the arguments left empty, from TANDEM_NODE (comma-separated), TANDEM_CA,
/// TANDEM_CERTIFICATE, TANDEM_KEY, then from the first of `files` that exists. kInvalid: a file
/// that exists and is not right, with the line.
Status complete(Settings& settings, const Environment& environment,
                const std::vector<std::string>& files);

/// ~/.config/tandem/client.toml (XDG_CONFIG_HOME is obeyed), /etc/tandem/client.toml.
std::vector<std::string> settings_files(const Environment& environment);

}  // namespace tandem::ctl
