// States of a group that are kept, as an operator sees and makes them: snapshots, the branches that
// rollbacks leave, points of the history.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tandem/log_point.h"

namespace tandem {

struct SnapshotVolume {
  std::string name;
  std::uint64_t size_bytes = 0;
};

struct SeedVolume {
  VolumeId id;
  std::string name;
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 512;
  bool operator==(const SeedVolume&) const = default;
};

/// What a copy of a kept state that reaches another node by other means must say, besides its data,
/// to be known there and by the primary as that state.
struct SeedPoint {
  LogPoint point;
  TimelineHistory history;  // up to `point`
  std::uint32_t next_volume_id = 1;
  std::vector<SeedVolume> volumes;  // all of the group
  bool operator==(const SeedPoint&) const = default;
};

/// A state of a group that a node keeps. Kept states are a tree: each came out of an older one, and
/// so did the present one.
struct SnapshotStatus {
  std::string name, label;
  // snapshot (a record said so, on every copy) | branch (the newest state of what a rollback or a
  // newer timeline abandoned) | point (made later, out of the history, here only)
  std::string kind = "snapshot";
  std::string parent;  // the kept state that it came out of; "": none that has a name
  Lsn lsn;
  UtcNs utc;
  std::uint64_t payload_bytes = 0;  // see LogPoint
  std::string consistency;          // crash-consistent | application-consistent | hook failed
  std::vector<SnapshotVolume> volumes;
  // Replaced since (up to the states that came out of it), and kept because this one or an older
  // one needs it.
  std::uint64_t held_bytes = 0;
  std::uint64_t unique_bytes = 0;  // what deleting it would give back; show_snapshot() only
  bool automatic = false;          // the schedule took it, and this node's rules delete it
  // Of an automatic one, the rules that keep it (none: it goes now), and when the last of them ends
  // (0: no time ends it).
  std::vector<std::string> kept_by;
  UtcNs goes;
  std::string warning;            // what went wrong although it was made; create_snapshot() only
  std::optional<SeedPoint> seed;  // show_snapshot() only; nothing: it is on a branch
};

/// How the operator's commands around this node's snapshots of a group went.
struct HookStatus {
  std::string state = "none";  // none (not configured here) | idle (not run yet) | good | failed
  std::string reason;          // what failed
  UtcNs since;                 // when it was run last
};

/// What the commands that are configured around a group's snapshots decide.
enum class SnapshotHook {
  kUse,      // run them if there are any; a failure is recorded on the snapshot
  kSkip,     // crash-consistent
  kRequire,  // no snapshot without their success
};

struct CreateSnapshot {
  std::string group;
  std::string name;  // "": the time in UTC
  std::string label;
  SnapshotHook hook = SnapshotHook::kUse;
};

/// To another name, and to another label when one is given.
struct RenameSnapshot {
  std::string group;
  std::string name, new_name;
  std::optional<std::string> label;
};

/// Makes a kept state the newest one.
struct Rollback {
  std::string group;
  std::string snapshot;
  std::string branch;  // the name that what is abandoned gets; "": by the time
};

struct RolledBack {
  SnapshotStatus to;
  // Keeps what was newest until then; no name: nothing had happened since `to`.
  SnapshotStatus branch;
};

/// What a record did to the volumes of a group.
struct VolumeChange {
  enum class Kind { kCreated, kResized, kDeleted };
  LogPoint at;  // behind that record
  Kind kind{};
  std::string volume;
  std::uint64_t old_bytes = 0, new_bytes = 0;  // its size; 0: there was none, or is none any more
  bool operator==(const VolumeChange&) const = default;
};

/// What a node has of a group's history: any position in it can be kept as a point.
struct HistoryStatus {
  UtcNs now;
  std::string window, bytes_max;  // the settings
  std::optional<LogPoint> start;  // nothing: no history is kept here
  LogPoint head;
  // That it needs: the log, what was replaced since its beginning and no kept state maps, and what
  // its marks map up to the first older state that was not made for it.
  std::uint64_t bytes = 0;
  std::vector<LogPoint> marks;  // some of its positions, oldest first: for rates over time
  std::vector<VolumeChange> volume_changes;  // in it, oldest first; the newest thousand or so
};

/// Which state to keep: at a position, as of a time, or, with neither, the present one.
struct KeepPoint {
  std::string group;
  std::optional<Lsn> lsn;
  std::optional<UtcNs> time;
  std::string name;  // "": by the position
  std::string label;
};

/// A clone: a new group on the same node whose volumes begin as a kept state of `origin`.
struct CloneGroup {
  std::string origin;
  std::string snapshot;
  std::string name;
};

/// What a clone began as.
struct CloneOrigin {
  std::string group;
  std::string snapshot;  // "": it has no name any more
  Lsn lsn;
  UtcNs utc;
};

}  // namespace tandem
