// What a point of a backup is: see FORMAT.md, "manifest.json". Pure text and structures.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backup/chunk_file.h"
#include "tandem/base/result.h"
#include "tandem/base/units.h"
#include "tandem/kept_states.h"

namespace tandem::backup {

/// The same on every node, whatever name it has there now.
struct SnapshotId {
  std::string name;
  Lsn lsn;
  UtcNs utc;
  bool is(Lsn other_lsn, UtcNs other_utc) const { return lsn == other_lsn && utc == other_utc; }
};

struct VolumePart {
  std::string name;
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 512;
  bool based = false;  // only what changed since the point in front
  std::string file;
  Summary summary;  // all zero in a plan
};

/// The point in front.
struct From {
  std::uint32_t number = 0;
  SnapshotId snapshot;
  std::string manifest_sha256;
};

struct Manifest {
  std::uint32_t number = 0;
  std::string group, group_id, node;
  SnapshotId snapshot;
  std::string consistency;  // of the snapshot, as its node says it
  bool snapshot_is_ours = false;
  std::optional<From> from;  // none: a full backup
  UtcNs created;
  // What a mirror that is made from this point must say of itself; nothing: of version 1, or its
  // node could not tell.
  std::optional<SeedPoint> seed;
  std::vector<VolumePart> volumes;
  const VolumePart* find(const std::string& volume) const;
};

std::string to_text(const Manifest& manifest);
/// kCorrupt: it is no manifest; kUnsupported: of a version that this build does not know.
Result<Manifest> parse_manifest(const std::string& text);

}  // namespace tandem::backup
