// What every command works with: the nodes, the terminal, and how it ends.
#pragma once

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "ctl/settings.h"
#include "rpc/control_client.h"
#include "rpc/stream_client.h"
#include "tandem/base/result.h"
#include "tandem/control.h"

namespace tandem::ctl {

/// The process's exit code; part of the interface, see --help.
enum class Exit {
  kOk = 0,
  kFailed = 1,
  kUsage = 2,
  kUnreachable = 3,
  kRefused = 4,
  kNotFound = 5,
  kAttention = 6,
};

using Client = std::unique_ptr<rpc::ControlClient>;
using Stream = std::unique_ptr<rpc::StreamClient>;

struct Context {
  Settings settings;
  std::ostream& out;
  std::ostream& err;
  std::istream& in;
  bool terminal = false;  // both in and out are: questions can be asked, the screen be cleared
  bool progress = false;  // err is one: a bar can be drawn
  /// A client for one node; `timeout` of each call.
  std::function<Result<Client>(const std::string& address, std::chrono::milliseconds timeout)>
      connect;
  /// A replication stream to one node, which may take `timeout` for each message.
  std::function<Result<Stream>(const std::string& address, std::chrono::milliseconds timeout)>
      open_stream;
};

/// Says what went wrong, in words or as an object, and gives the exit code. `reached`: the node
/// itself answered.
Exit fail(Context& context, const Error& error, bool reached = true);
Exit fail_usage(Context& context, const std::string& message);
Exit refuse(Context& context, const std::string& message);

/// The result of a call through `client` as the end of a command: `done` is said on success.
Exit finish(Context& context, const rpc::ControlClient& client, const Status& status,
            const std::string& done);

/// Calls that drain, flush and wait for the peer get this long unless --timeout says otherwise.
std::chrono::milliseconds patient(const Settings& settings);

/// The node to send a command to. With one --node that one, unasked. With several the one whose
/// status `matches`; `what` says what was looked for. On failure the message was given and
/// `client` is empty.
struct Chosen {
  Client client;
  Exit exit = Exit::kOk;
};
Chosen choose(Context& context, std::chrono::milliseconds timeout, const std::string& what,
              const std::function<bool(const NodeStatus&)>& matches);

/// For choose(): the node has `group`, in that role when one is given.
std::function<bool(const NodeStatus&)> holds_group(std::string group);
std::function<bool(const NodeStatus&)> holds_group(std::string group, Role role);
/// For choose(): the node is the primary of the group that has volume `name`.
std::function<bool(const NodeStatus&)> serves_volume(std::string name);

/// Whether confirmed() can be true; says why not.
bool can_confirm(Context& context, bool yes);
/// Makes the operator type `name`; true when done so. Without a terminal and without `yes`:
/// refused.
bool confirmed(Context& context, bool yes, const std::string& question, const std::string& name);

}  // namespace tandem::ctl
