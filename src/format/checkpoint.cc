#include "format/checkpoint.h"

#include "format/bytes.h"
#include "format/checksum.h"
#include "format/record.h"

namespace tandem::format {
namespace {

constexpr std::uint32_t kDescriptorMagic = 0x47444454;  // "TDDG"
constexpr std::uint32_t kChainMagic = 0x48434454;       // "TDCH"
constexpr std::uint32_t kDeadMagic = 0x44444454;        // "TDDD"
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kDescriptorVersion = 3;  // 1: snapshots were a row; 2: nothing moved
constexpr std::uint64_t kNodeBit = std::uint64_t{1} << 63;  // of a dead block's death
constexpr std::size_t kCrcOffset = 8;

/// A little more than it takes: every part is rounded up.
std::size_t bytes_needed(const Descriptor& d) {
  constexpr std::size_t kFixed = 512, kVolume = 128, kSnapshot = 192, kSlot = 128, kSetting = 8;
  const auto of_volumes = [](const std::vector<VolumeState>& volumes) {
    std::size_t n = 0;
    for (const auto& v : volumes) n += kVolume + 8 * v.height + v.name.size();
    return n;
  };
  std::size_t n = kFixed + d.name.size() + 16 * d.skipped.size() + 24 * d.history.size() +
                  12 * d.log_zones.size() + 16 * d.bitmap.size() + of_volumes(d.volumes);
  for (const auto& s : d.snapshots) {
    n += kSnapshot + 16 * s.skipped.size() + s.name.size() + s.label.size() + of_volumes(s.volumes);
  }
  for (const auto& s : d.slots) n += kSlot + s.address.size();
  for (const auto& [key, value] : d.settings) n += kSetting + key.size() + value.size();
  return n;
}

void encode_entry(Encoder& out, const MapEntry& e) {
  out.u64(e.where.value);
  out.u64(e.lsn.value);
  out.u32(e.crc32c);
}
MapEntry decode_entry(Decoder& in) {
  MapEntry e;
  e.where = PoolBlock{in.u64()};
  e.lsn = Lsn{in.u64()};
  e.crc32c = in.u32();
  return e;
}

void encode_point(Encoder& out, const LogPoint& p) {
  out.u64(p.timeline.value);
  out.u64(p.lsn.value);
  out.u64(p.digest.value);
  out.u64(p.utc.value);
  out.u64(p.payload_bytes);
}
LogPoint decode_point(Decoder& in) {
  LogPoint p;
  p.timeline = Timeline{in.u64()};
  p.lsn = Lsn{in.u64()};
  p.digest = Digest{in.u64()};
  p.utc = UtcNs{in.u64()};
  p.payload_bytes = in.u64();
  return p;
}

void encode_volumes(Encoder& out, const std::vector<VolumeState>& volumes) {
  out.u32(static_cast<std::uint32_t>(volumes.size()));
  for (const auto& v : volumes) {
    out.u32(v.id.value);
    out.u64(v.deleted_at.value);
    out.u64(v.size_bytes);
    out.u32(v.logical_block_bytes);
    out.u32(v.height);
    out.u64(v.allocated_blocks);
    out.u64(v.data_blocks);
    out.u64(v.map_nodes);
    out.u64(v.borrowed_data);
    out.u64(v.borrowed_nodes);
    for (std::uint32_t level = 0; level < v.height; ++level) out.u64(v.level_born[level].value);
    encode_entry(out, v.root);
    out.text(v.name);
  }
}

void encode_ranges(Encoder& out, const std::vector<LsnRange>& ranges) {
  out.u32(static_cast<std::uint32_t>(ranges.size()));
  for (const auto& range : ranges) {
    out.u64(range.after.value);
    out.u64(range.upto.value);
  }
}

void encode_chain(Encoder& out, const DeadChain& chain) {
  out.u64(chain.head.value);
  out.u64(chain.tail.value);
  out.u64(chain.entries);
  out.u64(chain.chunks);
}
DeadChain decode_chain(Decoder& in) {
  DeadChain chain;
  chain.head = PoolBlock{in.u64()};
  chain.tail = PoolBlock{in.u64()};
  chain.entries = in.u64();
  chain.chunks = in.u64();
  return chain;
}

Error impossible(const char* what) {
  return {ErrorCode::kCorrupt, std::string("group descriptor: ") + what};
}

Error newer(const char* what, std::uint32_t version, std::uint32_t known = kVersion) {
  return {ErrorCode::kUnsupported, std::string(what) + " has format version " +
                                       std::to_string(version) + ", this build knows version " +
                                       std::to_string(known) + "; upgrade this node"};
}

/// Counts come from disk: refuse one that the remaining bytes cannot hold.
bool plausible(const Decoder& in, std::uint64_t count, std::size_t bytes_each) {
  return count <= in.remaining() / bytes_each;
}

Status decode_ranges(Decoder& in, std::vector<LsnRange>& ranges) {
  auto n = in.u32();
  if (!plausible(in, n, 16)) return impossible("parts of the log that were abandoned");
  while (n-- != 0) {
    const Lsn after{in.u64()};
    ranges.push_back({after, Lsn{in.u64()}});
  }
  return ok();
}

Status decode_volumes(Decoder& in, std::uint32_t version, std::vector<VolumeState>& volumes) {
  auto n = in.u32();
  if (!plausible(in, n, 66)) return impossible("volume list");
  while (n-- != 0) {
    VolumeState v;
    v.id = VolumeId{in.u32()};
    v.deleted_at = Lsn{in.u64()};
    v.size_bytes = in.u64();
    v.logical_block_bytes = in.u32();
    v.height = in.u32();
    v.allocated_blocks = in.u64();
    v.data_blocks = in.u64();
    if (v.size_bytes == 0 || v.size_bytes > kVolumeBytesMax ||
        (v.logical_block_bytes != 512 && v.logical_block_bytes != kBlockBytes)) {
      return impossible("size of a volume");
    }
    if (v.height < map_height(blocks_for(v.size_bytes)) || v.height > kMapHeightMax) {
      return impossible("height of a map");
    }
    if (version >= 2) {
      v.map_nodes = in.u64();
      v.borrowed_data = in.u64();
      v.borrowed_nodes = in.u64();
      for (std::uint32_t level = 0; level < v.height; ++level) v.level_born[level] = Lsn{in.u64()};
    }
    v.root = decode_entry(in);
    v.name = in.text();
    volumes.push_back(std::move(v));
  }
  return ok();
}

/// Every state names a parent that is there, at a position that is not behind its own; of two at
/// the same one, the parent was kept first. So every way up ends.
Status check_tree(const Descriptor& d) {
  std::map<SnapshotId, const SnapshotState*> by_id;
  for (const auto& s : d.snapshots) {
    const bool ascends = by_id.empty() || by_id.rbegin()->first < s.id;
    if (!ascends || s.id == SnapshotId{} || s.id >= d.next_snapshot_id) {
      return impossible("snapshots do not ascend");
    }
    by_id[s.id] = &s;
  }
  if (d.parent != SnapshotId{} && by_id.count(d.parent) == 0) {
    return impossible("the live state's parent is missing");
  }
  for (const auto& s : d.snapshots) {
    if (s.parent == SnapshotId{}) continue;
    const auto parent = by_id.find(s.parent);
    if (parent == by_id.end() || parent->second->at.lsn > s.at.lsn ||
        (parent->second->at.lsn == s.at.lsn && s.parent >= s.id)) {
      return impossible("parent of a snapshot");
    }
  }
  return ok();
}

Status decode_snapshots(Decoder& in, std::uint32_t version, Descriptor& d) {
  auto n = in.u32();
  if (!plausible(in, n, 82)) return impossible("snapshot list");
  while (n-- != 0) {
    SnapshotState s;
    if (version == 1) {
      s.parent = d.parent;
      s.id = d.parent = d.next_snapshot_id;
      d.next_snapshot_id = d.next_snapshot_id.next();
    } else {
      s.id = SnapshotId{in.u32()};
      s.parent = SnapshotId{in.u32()};
      const auto kind = in.u8();
      if (kind > 3) return impossible("kind of a snapshot");
      s.kind = static_cast<SnapshotKind>(kind);
      s.reaped.volume = in.u32();
      s.reaped.level = in.u8();
      s.reaped.next = in.u64();
      s.reaped.freed_blocks = in.u64();
      TANDEM_TRY(decode_ranges(in, s.skipped));
      s.nodes_upto = Lsn{in.u64()};
      s.clones = in.u32();
      if (version >= 3) s.moved_from = Lsn{in.u64()};
    }
    s.at = decode_point(in);
    if (version == 1) {
      s.nodes_upto = d.nodes_upto;
      d.nodes_upto = s.at.lsn;
    }
    const auto consistency = in.u8();
    if (consistency > 2) return impossible("consistency of a snapshot");
    s.consistency = static_cast<Consistency>(consistency);
    s.being_deleted = in.u8() != 0;
    s.held = decode_chain(in);
    s.name = in.text();
    s.label = in.text();
    TANDEM_TRY(decode_volumes(in, version, s.volumes));
    d.snapshots.push_back(std::move(s));
  }
  return check_tree(d);
}

Status decode_lists(Decoder& in, std::uint32_t version, Descriptor& d) {
  auto n = in.u32();
  if (!plausible(in, n, 24)) return impossible("timeline history");
  while (n-- != 0) {
    TimelineFork fork{Timeline{in.u64()}, Lsn{in.u64()}, UtcNs{in.u64()}};
    d.history.push_back(fork);
  }
  TANDEM_TRY(decode_volumes(in, version, d.volumes));
  n = in.u32();
  if (!plausible(in, n, 30)) return impossible("slot list");
  while (n-- != 0) {
    SlotState s;
    s.written = Lsn{in.u64()};
    s.durable = Lsn{in.u64()};
    s.payload_bytes = in.u64();
    s.needs_image = in.u32() != 0;
    if (version >= 2) s.agreed = decode_point(in);
    s.address = in.text();
    d.slots.push_back(std::move(s));
  }
  n = in.u32();
  if (!plausible(in, n, 4)) return impossible("settings");
  while (n-- != 0) {
    std::string key = in.text();
    d.settings[std::move(key)] = in.text();
  }
  n = in.u32();
  if (!plausible(in, n, 12)) return impossible("list of log zones");
  while (n-- != 0) {
    LogZone z{ZoneId{in.u32()}, Lsn{in.u64()}};
    d.log_zones.push_back(z);
  }
  n = in.u32();
  if (!plausible(in, n, 16)) return impossible("bitmap index");
  while (n-- != 0) {
    BitmapPage b{in.u32(), PoolBlock{in.u64()}, in.u32()};
    d.bitmap.push_back(b);
  }
  return decode_snapshots(in, version, d);
}

}  // namespace

const char* to_text(SnapshotKind kind) {
  switch (kind) {
    case SnapshotKind::kSnapshot:
      return "snapshot";
    case SnapshotKind::kBranch:
      return "branch";
    case SnapshotKind::kPoint:
      return "point";
    case SnapshotKind::kMark:
      return "mark";
  }
  return "unknown";
}

std::uint64_t SnapshotState::pool_blocks() const {
  std::uint64_t blocks = 0;
  for (const auto& v : volumes) blocks += v.pool_blocks();
  return blocks;
}

std::vector<std::byte> encode_descriptor(const Descriptor& d) {
  std::vector<std::byte> bytes(bytes_needed(d));
  Encoder out(bytes);
  out.u32(kDescriptorMagic);
  out.u32(kDescriptorVersion);
  out.uuid(d.group);
  out.text(d.name);
  encode_point(out, d.point);
  out.u8(static_cast<std::uint8_t>(d.role));
  out.u8(static_cast<std::uint8_t>(d.mode));
  out.u8(d.awaiting_image ? 1 : 0);
  out.u8(0);
  out.u64(d.fenced_by.value);
  out.u32(d.next_volume_id);
  out.u64(d.log_next.value);
  out.u64(d.log_boot);
  encode_chain(out, d.dead);
  encode_chain(out, d.held);
  out.u64(d.data_horizon.value);
  out.u32(d.parent.value);
  out.u32(d.next_snapshot_id.value);
  encode_ranges(out, d.skipped);
  out.u64(d.nodes_upto.value);
  out.uuid(d.origin);
  out.u32(d.origin_state.value);
  out.u32(static_cast<std::uint32_t>(d.history.size()));
  for (const auto& f : d.history) {
    out.u64(f.timeline.value);
    out.u64(f.fork.value);
    out.u64(f.utc.value);
  }
  encode_volumes(out, d.volumes);
  out.u32(static_cast<std::uint32_t>(d.slots.size()));
  for (const auto& s : d.slots) {
    out.u64(s.written.value);
    out.u64(s.durable.value);
    out.u64(s.payload_bytes);
    out.u32(s.needs_image ? 1 : 0);
    encode_point(out, s.agreed);
    out.text(s.address);
  }
  out.u32(static_cast<std::uint32_t>(d.settings.size()));
  for (const auto& [key, value] : d.settings) {
    out.text(key);
    out.text(value);
  }
  out.u32(static_cast<std::uint32_t>(d.log_zones.size()));
  for (const auto& z : d.log_zones) {
    out.u32(z.zone.value);
    out.u64(z.first.value);
  }
  out.u32(static_cast<std::uint32_t>(d.bitmap.size()));
  for (const auto& b : d.bitmap) {
    out.u32(b.index);
    out.u64(b.where.value);
    out.u32(b.crc32c);
  }
  out.u32(static_cast<std::uint32_t>(d.snapshots.size()));
  for (const auto& s : d.snapshots) {
    out.u32(s.id.value);
    out.u32(s.parent.value);
    out.u8(static_cast<std::uint8_t>(s.kind));
    out.u32(s.reaped.volume);
    out.u8(static_cast<std::uint8_t>(s.reaped.level));
    out.u64(s.reaped.next);
    out.u64(s.reaped.freed_blocks);
    encode_ranges(out, s.skipped);
    out.u64(s.nodes_upto.value);
    out.u32(s.clones);
    out.u64(s.moved_from.value);
    encode_point(out, s.at);
    out.u8(static_cast<std::uint8_t>(s.consistency));
    out.u8(s.being_deleted ? 1 : 0);
    encode_chain(out, s.held);
    out.text(s.name);
    out.text(s.label);
    encode_volumes(out, s.volumes);
  }
  bytes.resize(out.position());
  return bytes;
}

Result<Descriptor> decode_descriptor(std::span<const std::byte> bytes) {
  Decoder in(bytes);
  Descriptor d;
  if (in.u32() != kDescriptorMagic) return impossible("wrong magic");
  const auto version = in.u32();
  if (version == 0 || version > kDescriptorVersion) {
    return newer("group descriptor", version, kDescriptorVersion);
  }
  d.group = in.uuid();
  d.name = in.text();
  d.point = decode_point(in);
  const auto role = in.u8(), mode = in.u8();
  if (role > 2 || mode > 2) return impossible("role or mode");
  d.role = static_cast<Role>(role);
  d.mode = static_cast<ReplicationMode>(mode);
  d.awaiting_image = in.u8() != 0;
  in.skip(1);
  d.fenced_by = Timeline{in.u64()};
  d.next_volume_id = in.u32();
  d.log_next = PoolBlock{in.u64()};
  d.log_boot = in.u64();
  d.dead = decode_chain(in);
  d.held = decode_chain(in);
  d.data_horizon = Lsn{in.u64()};
  std::uint64_t map_nodes = 0;
  if (version == 1) {
    map_nodes = in.u64();
  } else {
    d.parent = SnapshotId{in.u32()};
    d.next_snapshot_id = SnapshotId{in.u32()};
    TANDEM_TRY(decode_ranges(in, d.skipped));
    d.nodes_upto = Lsn{in.u64()};
    d.origin = in.uuid();
    d.origin_state = SnapshotId{in.u32()};
  }
  TANDEM_TRY(decode_lists(in, version, d));
  // What is needed of it is the sum: rows of snapshots cancel each other out.
  if (!d.volumes.empty()) d.volumes.front().map_nodes += map_nodes;
  if (in.failed() || d.history.empty() || d.log_zones.empty()) return impossible("cut short");
  return d;
}

void encode_chain_block(Page page, const ChainBlock& block) {
  CHECK(block.payload.size() <= kChainPayloadBytes);
  Encoder out(page);
  out.u32(kChainMagic);
  out.u32(kVersion);
  out.u32(0);  // crc
  out.u32(static_cast<std::uint32_t>(block.payload.size()));
  out.u64(block.next.value);
  out.u32(block.next_crc32c);
  out.zeroes(64 - out.position());
  out.raw(block.payload);
  out.zeroes(page.size() - out.position());
  seal_page(page, kCrcOffset);
}

Result<ChainBlock> decode_chain_block(ConstPage page) {
  Decoder in(page);
  ChainBlock block;
  if (in.u32() != kChainMagic) return impossible("no chain block here");
  if (const auto version = in.u32(); version != kVersion) {
    return newer("block of a group descriptor", version);
  }
  in.skip(4);
  const auto payload = in.u32();
  block.next = PoolBlock{in.u64()};
  block.next_crc32c = in.u32();
  if (!page_is_whole(page, kCrcOffset) || payload > kChainPayloadBytes) {
    return impossible("chain block fails its checksum");
  }
  block.payload = page.subspan(64, payload);
  return block;
}

void encode_dead_chunk(Page page, const DeadChunk& chunk) {
  CHECK(chunk.blocks.size() <= kDeadPerChunk);
  Encoder out(page);
  out.u32(kDeadMagic);
  out.u32(kVersion);
  out.u32(0);  // crc
  out.u32(static_cast<std::uint32_t>(chunk.blocks.size()));
  out.u64(chunk.at.value);
  out.u64(chunk.next.value);
  out.uuid(chunk.group);
  out.zeroes(64 - out.position());
  for (const auto& b : chunk.blocks) {
    out.number(b.where.value, 5);
    out.number(b.birth.value, 7);
    out.number(b.death.value | (b.is_node ? kNodeBit : 0), 8);
  }
  out.zeroes(page.size() - out.position());
  seal_page(page, kCrcOffset);
}

Result<DeadChunk> decode_dead_chunk(ConstPage page) {
  Decoder in(page);
  DeadChunk chunk;
  if (in.u32() != kDeadMagic) return Error{ErrorCode::kCorrupt, "no dead list chunk here"};
  if (const auto version = in.u32(); version != kVersion) return newer("dead list chunk", version);
  if (!page_is_whole(page, kCrcOffset)) {
    return Error{ErrorCode::kCorrupt, "dead list chunk fails its checksum"};
  }
  in.skip(4);
  const auto count = in.u32();
  chunk.at = PoolBlock{in.u64()};
  chunk.next = PoolBlock{in.u64()};
  chunk.group = in.uuid();
  in.skip(64 - in.position());
  if (count > kDeadPerChunk) return Error{ErrorCode::kCorrupt, "dead list chunk is too long"};
  for (std::uint32_t i = 0; i < count; ++i) {
    DeadBlock b;
    b.where = PoolBlock{in.number(5)};
    b.birth = Lsn{in.number(7)};
    const std::uint64_t death = in.number(8);
    b.death = Lsn{death & ~kNodeBit};
    b.is_node = (death & kNodeBit) != 0;
    chunk.blocks.push_back(b);
  }
  return chunk;
}

}  // namespace tandem::format
