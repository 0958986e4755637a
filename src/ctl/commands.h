// The commands. Each does one thing, says what it did, and gives the exit code.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "ctl/context.h"

namespace tandem::ctl {

// status_commands.cc
/// All nodes named, and the mirrors that they name; repeated every `watch`. With `check`:
/// kAttention unless all is well.
Exit run_status(Context& context, std::optional<std::chrono::milliseconds> watch, bool check);
Exit run_volume_list(Context& context);
Exit run_group_list(Context& context);
Exit run_group_show(Context& context, const std::string& group);

// pool_commands.cc
Exit run_pool_show(Context& context);

// volume_commands.cc
Exit run_volume_create(Context& context, const CreateVolume& request);
Exit run_volume_resize(Context& context, const std::string& name, std::uint64_t size_bytes);
Exit run_volume_delete(Context& context, const std::string& name, bool yes);

// snapshot_commands.cc
Exit run_snapshot_create(Context& context, const CreateSnapshot& request);
/// Of all nodes named and the mirrors that they name; `group` "": of all groups.
Exit run_snapshot_list(Context& context, const std::string& group);
Exit run_snapshot_show(Context& context, const std::string& group, const std::string& name);
/// On one node, or on each that has it.
Exit run_snapshot_delete(Context& context, const std::string& group, const std::string& name,
                         bool everywhere, bool yes);
Exit run_snapshot_rename(Context& context, const RenameSnapshot& request, bool everywhere);

// group_commands.cc
Exit run_group_delete(Context& context, const std::string& group, bool yes);
Exit run_mode(Context& context, const std::string& group, ReplicationMode mode);
/// `words`: each "key=value"; an empty value means the default.
Exit run_set(Context& context, const std::string& group, const std::string& mirror,
             const std::vector<std::string>& words);
Exit run_mirror_add(Context& context, const AddMirror& request);
Exit run_mirror_remove(Context& context, const std::string& group, const std::string& address);
Exit run_receipt(Context& context, const std::string& group);
/// `fence_command`: run here first; when it fails nothing is promoted. "": none.
Exit run_promote(Context& context, const std::string& group, bool yes, bool force,
                 const std::string& fence_command);
Exit run_demote(Context& context, const std::string& group);
Exit run_switchover(Context& context, const std::string& group, const std::string& address);

// pair_commands.cc: nothing is asked of a node; these run where the daemon will.
struct PairOptions {
  std::string name;                    // of this node
  std::vector<std::string> addresses;  // by which this node is reached, without port
  std::string directory;               // for keys and certificates
  std::string config;                  // the node's tandem.toml to complete; "": print the lines
  std::string listen;                  // start: where to wait for the other node
  std::chrono::milliseconds valid{};   // start: how long the token is good
  std::string address, token;          // join: what the first node showed
};
/// Makes the pair's authority and this node's certificate if there are none, shows a token, and
/// waits until the other node joined with it.
Exit run_pair_start(Context& context, PairOptions options);
Exit run_pair_join(Context& context, PairOptions options);

}  // namespace tandem::ctl
