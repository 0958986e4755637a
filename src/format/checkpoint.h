// Checkpoints: the state of a group at one LSN. See FORMAT.md, "Checkpoint".
//
// A descriptor is a byte stream in a chain of blocks that an anchor names. It holds what is small
// (volumes, timelines, slots) and points to what is large (map roots, allocation bitmaps, the queue
// of dead blocks).
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/map_node.h"
#include "format/pool_layout.h"
#include "format/record.h"
#include "tandem/base/result.h"
#include "tandem/log_point.h"

namespace tandem::format {

struct VolumeState {
  VolumeId id;
  std::string name;
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 512;
  std::uint32_t height = 1;  // levels of its map
  MapEntry root;             // the top node; a hole: empty volume
  std::uint64_t allocated_blocks = 0;
  std::uint64_t data_blocks = 0;  // of those, not merely zeroed: they have a place in the pool
  std::uint64_t map_nodes = 0;    // on disk
  // By level of the map: the resize that it came with; 0: it was there from the beginning.
  std::array<Lsn, kMapHeightMax> level_born{};
  // Of those, in a clone: that belong to the group it came from.
  std::uint64_t borrowed_data = 0, borrowed_nodes = 0;
  std::uint64_t pool_blocks() const {
    return data_blocks - borrowed_data + map_nodes - borrowed_nodes;
  }
  Lsn deleted_at;  // not 0: deleted by that record; its blocks are given back in the background
  bool being_deleted() const { return deleted_at != Lsn{}; }
  bool operator==(const VolumeState&) const = default;
};

/// A mirror that this copy ships to, as configured, and what it last acknowledged.
struct SlotState {
  std::string address;
  Lsn written, durable;
  std::uint64_t payload_bytes = 0;  // LogPoint::payload_bytes at `written`
  bool needs_image = false;         // the log behind its position was given up
  LogPoint agreed;                  // the last position known to be the same there; LSN 0: none
  bool operator==(const SlotState&) const = default;
};

struct LogZone {
  ZoneId zone;
  Lsn first;  // LSN of the first record in it
  bool operator==(const LogZone&) const = default;
};

/// One 4 KiB page of the allocation bitmap: bits for 32,768 consecutive pool blocks.
struct BitmapPage {
  std::uint32_t index = 0;
  PoolBlock where;
  std::uint32_t crc32c = 0;
  bool operator==(const BitmapPage&) const = default;
};
inline constexpr std::uint32_t kBitsPerBitmapPage = 8 * kBlockBytes;

/// Blocks that no newer position maps: a singly linked chain of chunks, oldest first.
struct DeadChain {
  PoolBlock head;  // first chunk; 0: empty
  PoolBlock tail;  // block reserved for the next chunk; 0: none
  std::uint64_t entries = 0;
  std::uint64_t chunks = 0;
  bool operator==(const DeadChain&) const = default;
};

/// What an operator set for a group on this node (limits, retention, …); keys ascend.
using Settings = std::map<std::string, std::string>;

/// A kept state, within this copy of its group; never reused. 0: none.
using SnapshotId = Named<struct SnapshotIdTag, std::uint32_t>;

/// Records (after, upto] of the log.
struct LsnRange {
  Lsn after, upto;
  bool has(Lsn lsn) const { return lsn > after && lsn <= upto; }
  bool operator==(const LsnRange&) const = default;
};

/// Why a state is kept.
enum class SnapshotKind : std::uint8_t {
  kSnapshot = 0,  // a record said so
  kBranch = 1,    // it was the newest state of a tail that was abandoned
  kPoint = 2,     // made later, out of an older state and the log
  kMark = 3,      // has no name: points between it and the next state are made from it
};
const char* to_text(SnapshotKind kind);

/// How far the taking apart of a state without successors has come: nodes of `level`, which are
/// done in front of `next`, of volume `volume` of its list.
struct ReapCursor {
  std::uint32_t volume = 0;
  std::uint32_t level = 0;
  std::uint64_t next = 0;
  std::uint64_t freed_blocks = 0;  // so far
  bool has_begun() const { return !(*this == ReapCursor{}); }
  bool operator==(const ReapCursor&) const = default;
};

/// A state of the group that is kept: all its volumes at one position. Kept states are a tree:
/// each came out of an older one, and so did the live state.
struct SnapshotState {
  SnapshotId id;
  SnapshotId parent;  // 0: none is kept in front of it
  SnapshotKind kind = SnapshotKind::kSnapshot;
  LogPoint at;
  // Of map nodes, it shares with its parent those born up to here: the parent's position, or that
  // of the state a point was made from, if one of the two is the point or came out of it later.
  Lsn nodes_upto;
  std::string name;
  std::string label;
  Consistency consistency = Consistency::kCrash;
  bool being_deleted = false;
  std::vector<VolumeState> volumes;
  DeadChain held;  // mapped by its parent, and not by it any more
  ReapCursor reaped;
  std::vector<LsnRange> skipped;  // see Descriptor::skipped
  std::uint32_t clones = 0;       // groups of this pool that began as it, and need it
  // The oldest birth of what compaction moved just in front of this state: what its parent maps at
  // one place, and it at another, with one birth. 0: nothing.
  Lsn moved_from;
  std::uint64_t pool_blocks() const;  // of the group that its maps name, shared ones included
  /// It can be asked for: neither a mark nor on its way out.
  bool has_name() const { return kind != SnapshotKind::kMark && !being_deleted; }
  bool operator==(const SnapshotState&) const = default;
};

struct Descriptor {
  Uuid group;
  std::string name;
  LogPoint point;  // everything up to here is in the maps
  TimelineHistory history;
  Role role = Role::kPrimary;
  ReplicationMode mode = ReplicationMode::kAsync;
  Timeline fenced_by;           // of a fenced copy: the newer timeline it saw
  bool awaiting_image = false;  // a mirror that never got its first full copy
  std::uint32_t next_volume_id = 1;
  // Of a clone: the state, of a group in this pool, that its volumes began as; nil: none.
  Uuid origin;
  SnapshotId origin_state;
  std::vector<VolumeState> volumes;
  std::vector<SlotState> slots;
  Settings settings;
  std::vector<LogZone> log_zones;  // oldest first; the last is being written
  PoolBlock log_next;              // where the page behind `point` is or will be
  std::uint64_t log_boot = 0;      // boot of the page in front of log_next
  std::vector<BitmapPage> bitmap;
  DeadChain dead;
  std::vector<SnapshotState> snapshots;  // by id
  SnapshotId parent;                     // of the live state
  // Records in front of the live state that do not lead to it: rollbacks abandoned them.
  std::vector<LsnRange> skipped;
  SnapshotId next_snapshot_id{1};
  Lsn nodes_upto;    // as of a kept state, for the live one
  DeadChain held;    // mapped by the live state's parent, and not by it any more
  Lsn data_horizon;  // data of records up to here may have been reused
  bool operator==(const Descriptor&) const = default;
};

std::vector<std::byte> encode_descriptor(const Descriptor& descriptor);
Result<Descriptor> decode_descriptor(std::span<const std::byte> bytes);

/// The chain of blocks: each holds up to kChainPayloadBytes and names the next with its checksum.
inline constexpr std::size_t kChainPayloadBytes = kBlockBytes - 64;
struct ChainBlock {
  PoolBlock next;  // 0: the last one
  std::uint32_t next_crc32c = 0;
  std::span<const std::byte> payload;
};
void encode_chain_block(Page page, const ChainBlock& block);
Result<ChainBlock> decode_chain_block(ConstPage page);

/// A block that no newer position maps: `birth` is the LSN that wrote it, `death` the one that
/// replaced it. It may be reused once nobody can ask for a position in [birth, death).
/// Of a map node, birth is the newest LSN below it and death that of the checkpoint which replaced
/// it; since kept states are checkpoints, the same rule holds for them.
struct DeadBlock {
  PoolBlock where;
  Lsn birth;
  Lsn death;
  bool is_node = false;  // no record names it, so no mirror needs it
  bool operator==(const DeadBlock&) const = default;
};
inline constexpr std::size_t kDeadPerChunk = 200;
struct DeadChunk {
  PoolBlock at;    // its own place
  PoolBlock next;  // where the next chunk is or will be
  Uuid group;
  std::vector<DeadBlock> blocks;
};
void encode_dead_chunk(Page page, const DeadChunk& chunk);
Result<DeadChunk> decode_dead_chunk(ConstPage page);

}  // namespace tandem::format
