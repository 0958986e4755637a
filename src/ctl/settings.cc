#include "ctl/settings.h"

#include <toml++/toml.h>

#include <filesystem>
#include <sstream>

namespace tandem::ctl {
namespace {

std::string value_of(const Environment& environment, const char* name) {
  const char* value = environment(name);
  return value ? value : "";
}

void add_nodes(const std::string& list, std::vector<std::string>& nodes) {
  std::istringstream in(list);
  for (std::string node; std::getline(in, node, ',');) {
    const auto begin = node.find_first_not_of(' ');
    if (begin == std::string::npos) continue;
    nodes.push_back(node.substr(begin, node.find_last_not_of(' ') - begin + 1));
  }
}

Error wrong(const std::string& path, const toml::node& node, const std::string& what) {
  return {ErrorCode::kInvalid, path + ":" + std::to_string(node.source().begin.line) + ": " + what};
}

/// Reads one key of [client] into `settings`, unless it is set already.
Status take(const std::string& path, const std::string& key, const toml::node& value,
            Settings& from_file) {
  if (key == "node") {
    if (const auto one = value.value_exact<std::string>()) {
      from_file.nodes.push_back(*one);
      return ok();
    }
    if (!value.is_array() || !value.as_array()->is_homogeneous<std::string>())
      return wrong(path, value, "client.node must be a list of \"HOST:PORT\"");
    for (const auto& node : *value.as_array())
      from_file.nodes.push_back(*node.value_exact<std::string>());
    return ok();
  }
  auto* text = key == "ca"            ? &from_file.ca
               : key == "certificate" ? &from_file.certificate
               : key == "key"         ? &from_file.key
                                      : nullptr;
  if (!text)
    return wrong(path, value,
                 "client." + key + " is unknown; there are node, ca, certificate, key");
  const auto string = value.value_exact<std::string>();
  if (!string) return wrong(path, value, "client." + key + " must be the path of a file");
  *text = *string;
  return ok();
}

Status read(const std::string& path, Settings& out) {
  toml::table root;
  try {
    root = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    return Error{ErrorCode::kInvalid, path + ":" + std::to_string(error.source().begin.line) +
                                          ": " + std::string(error.description())};
  }
  for (const auto& [key, value] : root) {
    if (key.str() != "client" || !value.is_table())
      return wrong(path, value,
                   std::string(key.str()) + " is unknown; the only section is [client]");
    for (const auto& [name, entry] : *value.as_table())
      TANDEM_TRY(take(path, std::string(name.str()), entry, out));
  }
  return ok();
}

}  // namespace

std::vector<std::string> settings_files(const Environment& environment) {
  std::vector<std::string> files;
  const auto config = value_of(environment, "XDG_CONFIG_HOME");
  const auto home = value_of(environment, "HOME");
  if (!config.empty()) {
    files.push_back(config + "/tandem/client.toml");
  } else if (!home.empty()) {
    files.push_back(home + "/.config/tandem/client.toml");
  }
  files.push_back("/etc/tandem/client.toml");
  return files;
}

Status complete(Settings& settings, const Environment& environment,
                const std::vector<std::string>& files) {
  Settings file;
  for (const auto& path : files) {
    std::error_code none;
    if (!std::filesystem::exists(path, none)) continue;
    TANDEM_TRY(read(path, file));
    break;
  }
  if (settings.nodes.empty()) add_nodes(value_of(environment, "TANDEM_NODE"), settings.nodes);
  if (settings.nodes.empty()) settings.nodes = file.nodes;
  if (settings.nodes.empty()) settings.nodes = {kDefaultNode};
  const auto fill = [&](std::string& value, const char* name, const std::string& in_file) {
    if (value.empty()) value = value_of(environment, name);
    if (value.empty()) value = in_file;
  };
  fill(settings.ca, "TANDEM_CA", file.ca);
  fill(settings.certificate, "TANDEM_CERTIFICATE", file.certificate);
  fill(settings.key, "TANDEM_KEY", file.key);
  return ok();
}

}  // namespace tandem::ctl
