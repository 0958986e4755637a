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

// latency_command.cc
/// Where the time of writes, flushes and reads goes, on the nodes named and the mirrors that they
/// name; `group` "": of all groups. With `interval`: of what happens from now on for so long, else
/// since each node's start.
Exit run_latency(Context& context, const std::string& group,
                 std::optional<std::chrono::milliseconds> interval);

// pool_commands.cc
Exit run_pool_show(Context& context);
Exit run_pool_compact(Context& context, const std::string& group, bool stop);

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

// rollback_command.cc
/// Shows what it undoes, and asks, before.
Exit run_snapshot_rollback(Context& context, const Rollback& request, bool yes);

// history_command.cc
struct HistoryOptions {
  std::string group;
  std::string from, to;  // times; "": all that there is
};
Exit run_history(Context& context, const HistoryOptions& options);

// clone_commands.cc
/// `source`: GROUP, as it is now, or GROUP@SNAPSHOT. On a primary or on a mirror.
Exit run_clone(Context& context, const std::string& source, const std::string& name);
struct PointOptions {
  std::string group;
  std::string at;    // see parse_moment()
  std::string name;  // "": by its position
  std::string label;
};
/// Keeps a state out of the history of one node's copy: of the only --node, else of the primary.
Exit run_point_create(Context& context, const PointOptions& options);
struct RecoverOptions {
  std::string what;  // a group, or a volume, which stands for its group
  std::string at;    // see parse_moment()
  std::string name;  // of the clone; "": one is made up
  bool in_place = false;
  std::string branch;
  bool yes = false;
};
Exit run_recover(Context& context, const RecoverOptions& options);

// scrub_commands.cc: each node that is named and holds the group scrubs its own copy.
Exit run_scrub_start(Context& context, const std::string& group);
Exit run_scrub_stop(Context& context, const std::string& group);
Exit run_scrub_status(Context& context, const std::string& group);

// verify_commands.cc: compares the copies of a group at one snapshot, without moving data.
struct VerifyOptions {
  std::string group;
  std::string snapshot;                           // "": one that is made for it, and deleted
  bool quick = false;                             // only what the maps name
  std::optional<std::uint64_t> bytes_per_second;  // read by each node
};
/// kAttention: the copies differ, or something in one is damaged.
Exit run_verify(Context& context, const VerifyOptions& options);

// group_commands.cc
Exit run_group_delete(Context& context, const std::string& group, bool yes);
Exit run_mode(Context& context, const std::string& group, ReplicationMode mode);
/// `words`: each "key=value"; an empty value means the default.
Exit run_set(Context& context, const std::string& group, const std::string& mirror,
             const std::vector<std::string>& words);
/// Without a mode: sync, or async on a node that is a mirror itself.
Exit run_mirror_add(Context& context, const std::string& group, const std::string& address,
                    std::optional<ReplicationMode> mode);
struct SeedRequest {
  std::string directory;
  std::uint32_t number = 0;  // 0: the last point
};
/// mirror_seed.cc: makes a mirror out of a point of a backup, at the one node that is named.
Exit run_mirror_seed(Context& context, const SeedRequest& request);
Exit run_mirror_remove(Context& context, const std::string& group, const std::string& address);
Exit run_receipt(Context& context, const std::string& group);
/// `fence_command`: run here first; when it fails nothing is promoted. "": none.
Exit run_promote(Context& context, const std::string& group, bool yes, bool force,
                 const std::string& fence_command);
Exit run_demote(Context& context, const std::string& group);
Exit run_switchover(Context& context, const std::string& group, const std::string& address);

// diff_command.cc
struct DiffRequest {
  std::string volume;    // or VOLUME@POINT, which is `to`
  std::string from, to;  // a kept state, a moment (see parse_moment()), "now"; `to` "": now
  std::string nbd;       // where the node's exports are; "": as it says
  bool summary = false;
};
Exit run_diff(Context& context, DiffRequest request);

// backup_create.cc
struct BackupRequest {
  std::string group, directory;
  std::string snapshot;              // "": one is taken
  std::vector<std::string> volumes;  // empty: all of the snapshot's
  bool full = false, restart = false;
  int zstd_level = 1;  // 0: not compressed
  std::string nbd;
};
/// Goes on with an interrupted one.
Exit run_backup_create(Context& context, const BackupRequest& request);

// backup_commands.cc: asks no node.
Exit run_backup_list(Context& context, const std::string& directory);
/// Reads a point and all that it builds on; of 0, everything.
Exit run_backup_verify(Context& context, const std::string& directory, std::uint32_t number);

// restore_command.cc
struct RestoreRequest {
  std::string directory;
  std::uint32_t number = 0;  // 0: the last point
  std::string volume;        // "": the only one
  std::string file;          // or
  std::string to_volume;
  std::string nbd;
  bool yes = false;
  bool restart = false;  // as if nothing of it had been done before
};
/// Goes on with an interrupted one. To a file it asks no node.
Exit run_restore(Context& context, const RestoreRequest& request);

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
