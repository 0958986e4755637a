// Groups: mode, mirrors, and who is primary.
#include <iostream>
#include <nlohmann/json.hpp>

#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/json.h"
#include "tandem/base/command.h"

namespace tandem::ctl {

Exit run_group_delete(Context& context, const std::string& group, bool yes) {
  auto chosen =
      choose(context, context.settings.timeout, "a copy of group " + group, holds_group(group));
  if (!chosen.client) return chosen.exit;
  const auto& address = chosen.client->address();
  if (!confirmed(context, yes,
                 "This deletes the copy of group " + group + " at " + address +
                     " with all its data. Copies on other nodes stay.",
                 group))
    return Exit::kRefused;
  const auto status = chosen.client->delete_group(group);
  return finish(context, *chosen.client, status,
                "The copy of group " + group + " at " + address + " was deleted.");
}

Exit run_mode(Context& context, const std::string& group, ReplicationMode mode) {
  auto chosen = choose(context, context.settings.timeout, "group " + group + " as primary",
                       holds_group(group, Role::kPrimary));
  if (!chosen.client) return chosen.exit;
  const auto status = chosen.client->set_mode(group, mode);
  return finish(context, *chosen.client, status,
                "Group " + group + " replicates in mode " + to_string(mode) + " now.");
}

Exit run_set(Context& context, const std::string& group, const std::string& mirror,
             const std::vector<std::string>& words) {
  ChangeSettings request{group, mirror, {}};
  std::string said;
  for (const auto& word : words) {
    const auto equals = word.find('=');
    if (equals == std::string::npos || equals == 0)
      return fail_usage(context, "\"" + word +
                                     "\" is not a setting: write key=value, or key= for the "
                                     "default; 'tandem group show " +
                                     group + "' lists them");
    request.changes[word.substr(0, equals)] = word.substr(equals + 1);
    said += " " + word;
  }
  auto chosen = choose(context, context.settings.timeout, "group " + group + " as primary",
                       holds_group(group, Role::kPrimary));
  if (!chosen.client) return chosen.exit;
  const auto status = chosen.client->change_settings(request);
  return finish(context, *chosen.client, status,
                (mirror.empty() ? "Group " + group : "Mirror " + mirror + " of group " + group) +
                    " at " + chosen.client->address() + " has" + said + " now.");
}

Exit run_mirror_add(Context& context, const std::string& group, const std::string& address,
                    std::optional<ReplicationMode> mode) {
  auto chosen = choose(context, context.settings.timeout, "group " + group + " as primary",
                       holds_group(group, Role::kPrimary));
  if (!chosen.client) return chosen.exit;
  if (!mode) {
    // The only mode that a mirror can feed another one in.
    const auto node = chosen.client->status();
    const bool relays = node && holds_group(group, Role::kMirror)(*node);
    mode = relays ? ReplicationMode::kAsync : ReplicationMode::kSync;
  }
  const AddMirror request{group, address, *mode};
  const auto status = chosen.client->add_mirror(request);
  return finish(context, *chosen.client, status,
                "Group " + request.group + " is mirrored to " + request.address + " in mode " +
                    to_string(request.mode) + " now; 'tandem status' shows how far it is.");
}

Exit run_mirror_remove(Context& context, const std::string& group, const std::string& address) {
  auto chosen = choose(context, context.settings.timeout, "group " + group + " as primary",
                       holds_group(group, Role::kPrimary));
  if (!chosen.client) return chosen.exit;
  const auto status = chosen.client->remove_mirror(group, address);
  return finish(context, *chosen.client, status,
                "Group " + group + " is not mirrored to " + address +
                    " any more. The copy there stays until 'tandem group delete' deletes it.");
}

Exit run_receipt(Context& context, const std::string& group) {
  auto chosen = choose(context, context.settings.timeout, "group " + group + " as mirror",
                       holds_group(group, Role::kMirror));
  if (!chosen.client) return chosen.exit;
  const auto receipt = chosen.client->receipt(group);
  if (!receipt) return fail(context, receipt.error(), chosen.client->reached());
  if (context.settings.json) {
    context.out << json_text(to_json(*receipt));
  } else {
    context.out << receipt_text(*receipt, false);
  }
  return Exit::kOk;
}

namespace {

constexpr std::chrono::minutes kFenceLimit{2};

/// Runs the operator's command before a promotion; kRefused with what it said when it fails.
Status fence(rpc::ControlClient& client, const std::string& group, const std::string& command) {
  std::vector<std::pair<std::string, std::string>> environment{{"TANDEM_GROUP", group}};
  if (const auto status = client.status()) {
    environment.emplace_back("TANDEM_NODE", status->node);
    for (const auto& one : status->groups)
      if (one.name == group && one.upstream)
        environment.emplace_back("TANDEM_PRIMARY", one.upstream->primary);
  }
  const auto run = run_command(command, environment, kFenceLimit);
  if (!run) return Error(run.error());
  if (run->good) return ok();
  return Error{ErrorCode::kRefused, "not promoted: the fence command failed, " + run->ending +
                                        (run->text.empty() ? "" : ": " + run->text)};
}

/// The copy to promote: a mirror, or by force a primary that another one was promoted beside.
std::function<bool(const NodeStatus&)> may_be_promoted(std::string group, bool force) {
  return [group = std::move(group), force](const NodeStatus& node) {
    return std::any_of(node.groups.begin(), node.groups.end(), [&](const GroupStatus& one) {
      return one.name == group &&
             (one.role == Role::kMirror || (force && one.split && one.role == Role::kPrimary));
    });
  };
}

/// The primary's own words about the other one, when there is one beside it.
std::string split_of(rpc::ControlClient& client, const std::string& group) {
  const auto status = client.status();
  if (!status) return "";
  for (const auto& one : status->groups)
    if (one.name == group && one.split && one.role == Role::kPrimary) return one.split->reason;
  return "";
}

/// Of two copies that were promoted apart from each other, the one at `client` is kept.
Exit choose_copy(Context& context, rpc::ControlClient& client, const std::string& group, bool yes,
                 const std::string& split) {
  if (!context.settings.json)
    context.out << "Group " << group << ": " << split << ".\n" << std::flush;
  if (!confirmed(context, yes,
                 "The copy at " + client.address() +
                     " is kept and goes on serving. What only the other one has becomes a branch "
                     "there.",
                 group))
    return Exit::kRefused;
  const auto after = client.promote(group, true);
  if (!after) return fail(context, after.error(), client.reached());
  if (context.settings.json) {
    context.out << json_text(to_json(*after));
  } else {
    context.out << "Group " << group << " goes on here on timeline " << after->new_timeline.value
                << "; the other copy stops serving when it sees that.\n";
  }
  return Exit::kOk;
}

}  // namespace

Exit run_promote(Context& context, const std::string& group, bool yes, bool force,
                 const std::string& fence_command) {
  auto chosen = choose(context, patient(context.settings), "group " + group + " as mirror",
                       may_be_promoted(group, force));
  if (!chosen.client) return chosen.exit;
  auto& client = *chosen.client;
  if (const auto split = force ? split_of(client, group) : ""; !split.empty())
    return choose_copy(context, client, group, yes, split);
  const auto before = client.receipt(group);
  if (!before) return fail(context, before.error(), client.reached());
  if (!context.settings.json) context.out << receipt_text(*before, false) << std::flush;
  if (!before->complete_image)
    return refuse(context, "not promoted: the first full copy of group " + group +
                               " never finished, so there is no consistent state here");
  if (before->primary_reachable && !force)
    return refuse(context, "not promoted: the primary of group " + group +
                               " is alive. 'tandem switchover " + group +
                               "' at the primary changes roles without loss; --force promotes "
                               "anyway and leaves what the primary acknowledges from now on on a "
                               "branch");
  if (!confirmed(context, yes, "Promoting is for when the primary is gone. What is lost is above.",
                 group))
    return Exit::kRefused;
  if (!fence_command.empty()) {
    if (const auto fenced = fence(client, group, fence_command); !fenced)
      return fail(context, fenced.error());
  }
  const auto after = client.promote(group, force);
  if (!after) return fail(context, after.error(), client.reached());
  if (context.settings.json) {
    context.out << json_text(to_json(*after));
  } else {
    context.out << receipt_text(*after, true);
  }
  return Exit::kOk;
}

Exit run_demote(Context& context, const std::string& group) {
  auto chosen = choose(context, patient(context.settings), "group " + group + " as primary",
                       holds_group(group, Role::kPrimary));
  if (!chosen.client) return chosen.exit;
  const auto status = chosen.client->demote(group);
  return finish(context, *chosen.client, status,
                "Group " + group + " at " + chosen.client->address() +
                    " is a mirror now and waits for a primary.");
}

Exit run_switchover(Context& context, const std::string& group, const std::string& address) {
  auto chosen = choose(context, patient(context.settings), "group " + group + " as primary",
                       holds_group(group, Role::kPrimary));
  if (!chosen.client) return chosen.exit;
  const auto done = chosen.client->switchover(group, address);
  if (!done) return fail(context, done.error(), chosen.client->reached());
  if (context.settings.json) {
    context.out
        << Json{{"ok", true}, {"node", chosen.client->address()}, {"held_ms", done->held_ms}}.dump()
        << "\n";
  } else {
    context.out << "Group " << group << " is served by "
                << (address.empty() ? "its mirror" : address)
                << " now; nothing was lost. Writes were held for "
                << duration_text(std::chrono::milliseconds(done->held_ms))
                << ", then clients were sent away without an error: they connect there.\n";
  }
  return Exit::kOk;
}

}  // namespace tandem::ctl
