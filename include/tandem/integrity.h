// Integrity: what a node knows of the soundness of its copy of a group. A part of Control.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/base/units.h"

namespace tandem {

/// Damage that this node met since it started, in reads and in scrubs.
struct DamageStatus {
  std::uint64_t fetched_blocks = 0;       // damaged here, and given back by a peer
  std::uint64_t repaired_blocks = 0;      // of those, whole again in their places
  std::uint64_t unrepairable_blocks = 0;  // no peer could give them back so far: reads fail
  std::uint64_t damaged_map_nodes = 0;    // cannot be had from a peer: what lies below fails
  UtcNs last_at;                          // of a block; 0: never
  std::string last_volume;
  std::uint64_t last_byte = 0;
  std::string last_outcome;
  bool any() const { return fetched_blocks + unrepairable_blocks + damaged_map_nodes != 0; }
  /// Something cannot be read now.
  bool is_bad() const { return unrepairable_blocks + damaged_map_nodes != 0; }
};

/// Something that a scrub found.
struct ScrubFinding {
  std::string volume;
  std::string snapshot;  // "": of the volume as it is
  std::uint64_t byte = 0;
  std::string outcome;
};

/// The present or the last reading of all of this node's copy.
struct ScrubStatus {
  std::string state = "never";  // never | running | finished | stopped
  UtcNs started, ended;
  std::uint64_t blocks_total = 0;  // about, as it began
  std::uint64_t blocks_read = 0;   // of data; each place once, however many snapshots share it
  std::uint64_t nodes_read = 0;    // of maps
  std::uint64_t bad_blocks = 0;
  std::uint64_t repaired_blocks = 0;  // of those, given back by a peer
  std::uint64_t bad_map_nodes = 0;
  std::uint64_t repaired_map_nodes = 0;  // of those, written again from memory
  std::vector<ScrubFinding> findings;    // the first few
};

/// What a copy of a snapshot's volume holds, as checksums: two nodes compare these instead of the
/// data. It is asked for in pieces of 1 MiB of the volume, as many at once as the node likes.
struct ContentRequest {
  std::string group, snapshot, volume;
  std::uint64_t first = 0;  // piece
  bool read = true;         // the data too; else only what the map says of it
  bool detail = false;      // of piece `first` alone, and of each of its blocks
};
struct ContentPiece {
  std::uint64_t number = 0;
  Digest digest;             // over numbers and checksums of its blocks that are not zero; 0: none
  std::uint64_t blocks = 0;  // that the pool holds
  bool readable = true;      // false: its map node is damaged, and nothing is known of it
};
/// One that some record changed.
struct ContentBlock {
  std::uint64_t number = 0;
  Lsn lsn;                   // of that record
  std::uint32_t crc32c = 0;  // of its content, zeroes too
};
struct ContentReport {
  std::uint64_t next = 0;              // all pieces from `first` to here were looked at
  bool end = false;                    // there are no more
  std::vector<ContentPiece> pieces;    // ascending, without those that hold nothing
  std::vector<ContentBlock> blocks;    // with `detail`
  std::uint64_t bad_blocks = 0;        // damaged in this copy
  std::uint64_t repaired_blocks = 0;   // of those, given back by a peer
  std::vector<ScrubFinding> findings;  // the first few
};

/// What is known of two copies' histories: the digests that are exchanged with heartbeats.
struct AgreementStatus {
  Lsn through;             // both hold the same records up to here; 0: not compared yet
  UtcNs at;                // when that was found
  std::string difference;  // "" or how they differ: an error that somebody must look at
};

}  // namespace tandem
