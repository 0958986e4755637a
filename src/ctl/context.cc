#include "ctl/context.h"

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>

#include "ctl/format.h"

namespace tandem::ctl {
namespace {

void say_error(Context& context, const std::string& code, const std::string& message, Exit exit) {
  if (context.settings.json) {
    const nlohmann::ordered_json object = {
        {"error", {{"code", code}, {"message", message}, {"exit", static_cast<int>(exit)}}}};
    context.err << object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  } else {
    context.err << "tandem: " << message << "\n";
  }
}

}  // namespace

Exit fail(Context& context, const Error& error, bool reached) {
  auto exit = Exit::kFailed;
  switch (error.code) {
    case ErrorCode::kNotFound:
      exit = Exit::kNotFound;
      break;
    case ErrorCode::kRefused:
    case ErrorCode::kFenced:
    case ErrorCode::kReadOnly:
      exit = Exit::kRefused;
      break;
    case ErrorCode::kUnavailable:
      exit = reached ? Exit::kFailed : Exit::kUnreachable;
      break;
    case ErrorCode::kInvalid:
      exit = reached ? Exit::kFailed : Exit::kUsage;
      break;
    default:
      break;
  }
  say_error(context, to_string(error.code), error.message, exit);
  return exit;
}

Exit fail_usage(Context& context, const std::string& message) {
  return fail(context, {ErrorCode::kInvalid, message}, false);
}

Exit refuse(Context& context, const std::string& message) {
  return fail(context, {ErrorCode::kRefused, message});
}

Exit finish(Context& context, const rpc::ControlClient& client, const Status& status,
            const std::string& done) {
  if (!status) return fail(context, status.error(), client.reached());
  if (context.settings.json) {
    context.out << nlohmann::ordered_json{{"ok", true}, {"node", client.address()}}.dump() << "\n";
  } else {
    context.out << done << "\n";
  }
  return Exit::kOk;
}

std::chrono::milliseconds patient(const Settings& settings) {
  constexpr std::chrono::milliseconds kPatience{60000};
  return settings.timeout_given ? settings.timeout : std::max(settings.timeout, kPatience);
}

Chosen choose(Context& context, std::chrono::milliseconds timeout, const std::string& what,
              const std::function<bool(const NodeStatus&)>& matches) {
  Chosen chosen;
  const auto& nodes = context.settings.nodes;
  std::vector<std::string> found;
  std::optional<Error> silent;
  for (const auto& address : nodes) {
    auto client = context.connect(address, timeout);
    if (!client) return {nullptr, fail(context, client.error(), false)};
    if (nodes.size() == 1) return {std::move(*client), Exit::kOk};
    const auto status = (*client)->status();
    if (!status) {
      silent = status.error();
    } else if (matches(*status)) {
      found.push_back(address);
      chosen.client = std::move(*client);
    }
  }
  if (found.size() == 1) return chosen;
  chosen.client = nullptr;
  if (found.empty() && silent) {
    chosen.exit = fail(
        context, {silent->code, "no node that answers has " + what + "; and " + silent->message},
        false);
  } else if (found.empty()) {
    chosen.exit = fail(
        context, {ErrorCode::kNotFound, "none of the nodes has " + what + "; see 'tandem status'"});
  } else {
    std::string list;
    for (const auto& address : found) list += " " + address;
    chosen.exit = refuse(context, "more than one node has " + what + ":" + list +
                                      "; say which one with a single --node");
  }
  return chosen;
}

std::function<bool(const NodeStatus&)> holds_group(std::string group) {
  return [group = std::move(group)](const NodeStatus& node) {
    return std::any_of(node.groups.begin(), node.groups.end(),
                       [&](const GroupStatus& g) { return g.name == group; });
  };
}

std::function<bool(const NodeStatus&)> holds_group(std::string group, Role role) {
  return [group = std::move(group), role](const NodeStatus& node) {
    return std::any_of(node.groups.begin(), node.groups.end(),
                       [&](const GroupStatus& g) { return g.name == group && g.role == role; });
  };
}

std::function<bool(const NodeStatus&)> serves_volume(std::string name) {
  return [name = std::move(name)](const NodeStatus& node) {
    return std::any_of(node.groups.begin(), node.groups.end(), [&](const GroupStatus& group) {
      return group.role == Role::kPrimary &&
             std::any_of(group.volumes.begin(), group.volumes.end(),
                         [&](const VolumeStatus& v) { return export_name(group, v.name) == name; });
    });
  };
}

bool can_confirm(Context& context, bool yes) {
  if (yes || (context.terminal && !context.settings.json)) return true;
  refuse(context, "not done: this needs --yes, because nobody can be asked here");
  return false;
}

bool confirmed(Context& context, bool yes, const std::string& question, const std::string& name) {
  if (yes) return true;
  if (!can_confirm(context, yes)) return false;
  context.out << question << "\nType \"" << name << "\" to go on: " << std::flush;
  std::string typed;
  if (std::getline(context.in, typed) && typed == name) return true;
  refuse(context, "not done: the name was not typed");
  return false;
}

}  // namespace tandem::ctl
