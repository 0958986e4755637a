// Control: what an operator can see and do, as plain C++. The rpc module translates it to and from
// protobuf; tests call it directly.
//
// Thread: the reactor's.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tandem/base/result.h"
#include "tandem/base/task.h"
#include "tandem/group_conditions.h"
#include "tandem/integrity.h"
#include "tandem/kept_states.h"
#include "tandem/latency.h"
#include "tandem/log_point.h"
#include "tandem/pool_status.h"

namespace tandem {

/// Settings as texts, by key.
using Settings = std::map<std::string, std::string>;

struct VolumeStatus {
  std::string name;
  std::uint32_t id = 0;
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 512;
  std::uint64_t allocated_bytes = 0;
};

/// A mirror's place in a group, as the primary knows it.
struct SlotStatus {
  std::string node;  // the mirror's node name ("" until first contact)
  std::string address;
  // connecting | handshake | fetching | image | catch-up | following | refused | stopped
  std::string state;
  std::string reason;  // why, in words, for any state that is not "following"
  UtcNs since;
  Lsn received, written, durable;
  std::uint64_t missing_records = 0;
  std::uint64_t missing_bytes = 0;   // payload of the records it lacks, exact
  std::uint64_t missing_blocks = 0;  // distinct 4 KiB blocks that carry a newer position, exact
  bool in_sync = false;              // writes wait for it (mode sync, following)
  UtcNs last_contact;
  std::uint32_t protocol = 0;  // version spoken on the last stream; 0: none yet
  std::uint64_t progress_done = 0, progress_total = 0;  // blocks, while state is "image"
  Settings settings;                                    // all that can be set, defaults included
  AgreementStatus agreement;
};

/// What a mirror knows of its primary.
struct UpstreamStatus {
  std::string node;     // who feeds this copy: the primary, or another mirror
  std::string primary;  // as far as that one knows; "": not known
  std::string state;    // following | catch-up | image | lost | never
  std::string reason;
  UtcNs since;
  UtcNs last_contact;
  LogPoint primary_head;  // from its last heartbeat
  std::uint64_t missing_records = 0;
  std::uint64_t missing_bytes = 0;
  AgreementStatus agreement;
  bool is_relay() const { return node != primary; }
};

struct GroupStatus {
  std::string name;
  Uuid id;
  Role role = Role::kPrimary;
  ReplicationMode mode = ReplicationMode::kAsync;
  std::string state;  // starting | serving | draining | mirroring | promoting | fenced | stopped
  std::string reason;
  UtcNs since;
  LogPoint head;
  Lsn durable;
  Lsn log_start;
  Lsn checkpoint;
  TimelineHistory history;
  std::uint64_t data_bytes = 0, log_bytes = 0, map_bytes = 0;
  GroupSpace space;
  std::vector<VolumeStatus> volumes;
  std::vector<SlotStatus> slots;
  std::optional<UpstreamStatus> upstream;
  Settings settings;      // all that can be set, defaults included
  PolicyStatus policy;    // of a primary
  WritersStatus writers;  // of a primary
  std::optional<SplitStatus> split;
  std::vector<SnapshotStatus> snapshots;  // that this node keeps, in that order
  std::optional<CloneOrigin> clone_of;
  std::string parent;                // the one of them that the present state came out of
  std::uint64_t snapshot_bytes = 0;  // kept for snapshots only
  HookStatus hook;
  DamageStatus damage;
  ScrubStatus scrub;
  CompactionStatus compaction;
};

struct NodeStatus {
  std::string node;
  std::string version;
  std::string control_address;
  std::vector<std::string> nbd;  // where volumes are exported: "unix:/path", "host:port"
  bool nbd_tls = false;          // over TCP
  UtcNs now;
  std::uint64_t uptime_seconds = 0;
  PoolStatus pool;
  std::vector<GroupStatus> groups;
};

/// The newest kept snapshot that commands around it made application-consistent, of those that what
/// is recovered came out of.
struct ConsistentPoint {
  std::string snapshot;
  Lsn lsn;
  UtcNs utc;
  auto operator<=>(const ConsistentPoint&) const = default;
};

/// What a promotion recovers and what it loses (promise 7).
struct Receipt {
  std::string group;
  LogPoint recovers_to;
  std::optional<ConsistentPoint> consistent;  // nothing: this copy keeps none, or does not say
  Timeline new_timeline;
  bool complete_image = true;      // false: the first full copy never finished; nothing to promote
  bool primary_reachable = false;  // it answered within the time-out, or its stream is alive
  bool head_known = false;         // a heartbeat was ever received
  LogPoint primary_head;           // from its last heartbeat
  std::uint64_t missing_records = 0;  // primary_head - recovers_to; at least this much is lost
  std::uint64_t missing_bytes = 0;
  UtcNs last_contact;
  std::uint64_t contact_age_ms = 0;
};

/// A planned change of the primary, as its clients saw it.
struct SwitchedOver {
  /// Their writes waited here for so long, before their connections were ended; then they look for
  /// the other node.
  std::uint64_t held_ms = 0;
};

struct CreateVolume {
  std::string name;
  std::string group;  // "": a group of the volume's own name
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 512;
};

struct AddMirror {
  std::string group;
  std::string address;  // host:port of the mirror node's service
  ReplicationMode mode = ReplicationMode::kSync;
};

/// Changes settings of a group, or of one of its mirrors; "" as value means the default.
struct ChangeSettings {
  std::string group;
  std::string mirror;  // its address; "": the group's own settings
  Settings changes;
};

class Control {
 public:
  virtual ~Control() = default;
  virtual Task<NodeStatus> status() = 0;
  /// How long the stages of reads, writes and flushes took here: of `group`, or with "" of all.
  /// Costs next to nothing, and waits for nothing. kNotFound.
  virtual Task<Result<NodeLatency>> latency(std::string group) = 0;
  virtual Task<Status> create_volume(CreateVolume request) = 0;
  virtual Task<Status> resize_volume(std::string name, std::uint64_t size_bytes) = 0;  // grow only
  virtual Task<Status> delete_volume(std::string name) = 0;
  /// On this node, from its copy of the origin in any role. Nothing is copied. The volumes of a
  /// clone are called CLONE/VOLUME where a name has to be unique on a node: as exports, and in the
  /// calls above.
  virtual Task<Status> clone_group(CloneGroup request) = 0;
  /// Deletes a group's copy on this node only, with all its data; refused while it serves,
  /// unless it is a clone without a mirror, and while clones of it exist.
  virtual Task<Status> delete_group(std::string name) = 0;
  virtual Task<Status> set_mode(std::string group, ReplicationMode mode) = 0;
  virtual Task<Status> add_mirror(AddMirror request) = 0;
  virtual Task<Status> remove_mirror(std::string group, std::string address) = 0;
  /// All or nothing; in force and kept by this node's copy when it completes. Never waits for
  /// writers. kInvalid: a key or value, with what there is; kNotFound.
  virtual Task<Status> change_settings(ChangeSettings request) = 0;
  /// Keeps the group's state on this node and on every mirror. Primary only; durable here when it
  /// completes, and acknowledged as a write of the group's mode is. kRefused: a command around it
  /// failed though its success was required.
  virtual Task<Result<SnapshotStatus>> create_snapshot(CreateSnapshot request) = 0;
  /// These three act on this node only, in any role: each node keeps what it wants.
  virtual Task<Status> delete_snapshot(std::string group, std::string name) = 0;
  virtual Task<Status> rename_snapshot(RenameSnapshot request) = 0;
  virtual Task<Result<SnapshotStatus>> show_snapshot(std::string group, std::string name) = 0;
  /// Makes a kept state the newest again, on the mirrors too; what was newest stays as a branch.
  /// Primary only. Who had volumes open gets errors until he opens them anew: what he remembers of
  /// them is of a state that is the newest no more.
  virtual Task<Result<RolledBack>> rollback(Rollback request) = 0;
  /// These two are of this node's copy, in any role. kNotFound: not in the history, which the
  /// message describes.
  virtual Task<Result<HistoryStatus>> history(std::string group) = 0;
  virtual Task<Result<SnapshotStatus>> keep_point(KeepPoint request) = 0;
  /// Reads and checks all of this node's copy in the background; see ScrubStatus. kBusy while one
  /// runs; kNotFound when there is none to stop.
  virtual Task<Status> start_scrub(std::string group) = 0;
  virtual Task<Status> stop_scrub(std::string group) = 0;
  /// Empties zones of this node's copy into the free blocks of its others, in the background; see
  /// CompactionStatus. kRefused: there is nothing to gain; kBusy while one runs; kNotFound when
  /// there is none to stop.
  virtual Task<Status> start_compaction(std::string group) = 0;
  virtual Task<Status> stop_compaction(std::string group) = 0;
  /// This node's copy alone. kNotFound: no such group, snapshot or volume here.
  virtual Task<Result<ContentReport>> check_content(ContentRequest request) = 0;
  virtual Task<Result<Receipt>> receipt(std::string group) = 0;
  /// Opens a new timeline on a mirror. Refused while the primary is reachable unless `force`, and
  /// when the node's fence command fails. By `force` also on a primary that another one was
  /// promoted beside (SplitStatus): it goes on serving, and its timeline is the newer one.
  virtual Task<Result<Receipt>> promote(std::string group, bool force) = 0;
  /// The planned form, asked for by a primary that has drained and become a mirror: nobody has to
  /// be fenced, and nothing is lost.
  virtual Task<Result<Receipt>> take_over(std::string group) = 0;
  /// Stops serving and becomes a mirror that waits for a primary; drains and flushes first.
  virtual Task<Status> demote(std::string group) = 0;
  /// Planned: drain here, wait for the mirror at `address` ("": the only one), demote, promote it.
  /// In both, writes are held meanwhile and answered with no error: when this node stays primary
  /// they go on, else the connections end with them unanswered, so that clients ask again
  /// elsewhere.
  virtual Task<Result<SwitchedOver>> switchover(std::string group, std::string address) = 0;
};

}  // namespace tandem
