#include "inspect/verify_group.h"

#include <algorithm>

#include "format/checksum.h"

namespace tandem::inspect {
namespace {

using format::MapEntry;

/// Data read at once.
constexpr std::size_t kRunBlocksMax = 256;
/// Volumes that a full copy replaced wait under such ids for their deletion.
constexpr std::uint32_t kReplacedIds = 0x80000000;

std::string block_text(PoolBlock b) { return "pool block " + std::to_string(b.value); }

}  // namespace

GroupVerifier::GroupVerifier(const PoolView& pool, const GroupView& group,
                             const VerifyOptions& options, Findings& findings)
    : pool_(pool),
      group_(group),
      options_(options),
      findings_(findings),
      name_("group " + group.descriptor.name),
      used_(pool.blocks()),
      referred_(pool.blocks()),
      walked_(pool.blocks()),
      placed_(pool.blocks()) {
  for (const auto& z : group.descriptor.log_zones) log_zones_.insert(z.zone);
}

GroupBalance GroupVerifier::run() {
  const auto& d = group_.descriptor;
  balance_.name = d.name;
  balance_.slot = group_.slot;
  balance_.checkpoint = balance_.head = d.point;
  balance_.zone_blocks = group_.zones.size() * std::uint64_t{pool_.superblock().zone_blocks};
  for (const auto& v : d.volumes) blocks_total_ += v.allocated_blocks + v.map_nodes;
  check_descriptor();
  read_bitmap();
  for (auto block : group_.chain) refer(block, "descriptor", "the descriptor");
  balance_.book_blocks += group_.chain.size();
  for (const auto& page : d.bitmap) refer(page.where, "bitmap", "a page of the bitmap");
  balance_.book_blocks += d.bitmap.size();
  check_maps();
  check_snapshots();
  check_dead();
  check_kept_log();
  check_tail();
  check_leaks();
  check_balance();
  if (options_.progress) options_.progress(blocks_total_, blocks_total_);
  return balance_;
}

void GroupVerifier::check_descriptor() {
  const auto& d = group_.descriptor;
  const auto bad = [this](std::string what) { findings_.problem("descriptor", name_, what); };
  if (d.group != group_.anchor.group) bad("belongs to group " + d.group.text());
  if (d.point.lsn != group_.anchor.checkpoint) bad("is of another position than its anchor says");
  for (std::size_t i = 1; i < d.history.size(); ++i) {
    if (d.history[i].timeline <= d.history[i - 1].timeline ||
        d.history[i].fork < d.history[i - 1].fork) {
      bad("the history of timelines does not ascend");
    }
  }
  if (d.history.back().timeline != d.point.timeline) bad("its position is on another timeline");
  for (std::size_t i = 0; i < d.log_zones.size(); ++i) {
    const auto& z = d.log_zones[i];
    if (!pool_.owns(group_.slot, z.zone)) {
      bad("log zone " + std::to_string(z.zone.value) + " is not the group's");
    }
    if (i != 0 && z.first <= d.log_zones[i - 1].first) bad("log zones do not ascend");
  }
  if (log_zones_.size() != d.log_zones.size()) bad("a log zone is listed twice");
  if (pool_.superblock().zone_of(d.log_next) != d.log_zones.back().zone) {
    bad("the log's end is not in its last zone");
  }
  if (d.data_horizon > d.point.lsn) bad("its data horizon is behind its own position");
  std::set<VolumeId> ids;
  std::set<std::string> names;
  for (const auto& v : d.volumes) {
    const std::string volume = "volume " + v.name + " (id " + std::to_string(v.id.value) + ")";
    if (!ids.insert(v.id).second) bad(volume + " has the id of another");
    if (!v.being_deleted() && !names.insert(v.name).second)
      bad(volume + " has the name of another");
    if (v.id.value < kReplacedIds && v.id.value >= d.next_volume_id) {
      bad(volume + " has an id that will be given away again");
    }
    if (v.height != format::map_height(blocks_for(v.size_bytes))) {
      bad(volume + ": the height of its map does not fit its size");
    }
  }
}

void GroupVerifier::read_bitmap() {
  const auto& s = pool_.superblock();
  std::set<std::uint32_t> indexes;
  std::uint64_t used = 0;
  for (const auto& page : group_.descriptor.bitmap) {
    const std::string place = name_ + ", bitmap page " + std::to_string(page.index);
    if (!indexes.insert(page.index).second) findings_.problem("bitmap", place, "is listed twice");
    auto bits = read_page(pool_.reader(), page.where);
    if (bits && format::crc32c(*bits) != page.crc32c) {
      bits = Error{ErrorCode::kCorrupt, "fails its checksum"};
    }
    if (!bits) {
      findings_.problem("bitmap", place + " at " + block_text(page.where),
                        bits.error().message + "; the group cannot be opened");
      continue;
    }
    for (std::uint32_t i = 0; i < format::kBitsPerBitmapPage; ++i) {
      if (((std::to_integer<unsigned>((*bits)[i / 8]) >> (i % 8)) & 1) == 0) continue;
      const PoolBlock block{std::uint64_t{page.index} * format::kBitsPerBitmapPage + i};
      if (block.value >= pool_.blocks() || !in_data_zone(block)) {
        findings_.problem("bitmap", place,
                          block_text(block) +
                              " is marked, but in no data zone of the group; the "
                              "group cannot be opened");
        continue;
      }
      used += used_.add(block) ? 1 : 0;
    }
  }
  balance_.log_blocks = log_zones_.size() * std::uint64_t{s.zone_blocks};
  const std::uint64_t taken = balance_.log_blocks + used;
  balance_.free_blocks = balance_.zone_blocks - std::min(balance_.zone_blocks, taken);
}

bool GroupVerifier::in_data_zone(PoolBlock block) const {
  const ZoneId zone = pool_.superblock().zone_of(block);
  return group_.zones.count(zone) != 0 && log_zones_.count(zone) == 0;
}

/// A clone's: it lies in a zone of another group, which verifies it.
bool GroupVerifier::is_borrowed(PoolBlock block) const {
  if (group_.descriptor.origin.is_nil() || block.value >= pool_.blocks()) return false;
  const auto zone = pool_.zone(pool_.superblock().zone_of(block));
  return zone && zone->owner != format::kZoneFree && zone->owner != group_.slot;
}

bool GroupVerifier::refer(PoolBlock block, const char* part, const std::string& by) {
  const std::string place = name_ + ", " + block_text(block);
  if (is_borrowed(block)) return true;
  const bool may_share = sharing_ || snapshot_ != nullptr;
  if (may_share && block.value < pool_.blocks() && referred_.has(block)) return true;
  if (block.value >= pool_.blocks() || !in_data_zone(block)) {
    findings_.problem(part, place, by + " lies there, outside of the group's data zones");
    return false;
  }
  if (!referred_.add(block)) {
    findings_.problem("space", place, by + " lies there, and something else, too");
    return false;
  }
  if (!used_.has(block)) {
    findings_.problem("space", place,
                      by + " lies there, but the bitmap calls it free: it may be overwritten");
  }
  balance_.snapshot_blocks += may_share ? 1 : 0;
  return true;
}

// --- maps ----------------------------------------------------------------------------------------

void GroupVerifier::advance(std::uint64_t blocks) {
  constexpr std::uint64_t kShowEvery = 16384;
  blocks_done_ += blocks;
  if (!options_.progress || blocks_done_ < blocks_shown_ + kShowEvery) return;
  blocks_shown_ = blocks_done_;
  options_.progress(std::min(blocks_done_, blocks_total_), blocks_total_);
}

std::string GroupVerifier::volume_place(VolumeBlock block) const {
  return volume_name() + ", block " + std::to_string(block.value);
}

std::string GroupVerifier::volume_name() const {
  return name_ + ", volume " + volume_->name + (snapshot_ ? "@" + snapshot_->name : "");
}

void GroupVerifier::check_maps() {
  for (const auto& v : group_.descriptor.volumes) {
    volume_ = &v;
    allocated_ = 0;
    incomplete_ = false;
    const auto data_before = balance_.data_blocks + borrowed_data_;
    walk_map(pool_.reader(), v, *this);
    blind_ |= incomplete_;
    if (!incomplete_ && !v.being_deleted() && allocated_ != v.allocated_blocks) {
      findings_.problem("map", name_ + ", volume " + v.name,
                        "maps " + std::to_string(allocated_) + " blocks, its description says " +
                            std::to_string(v.allocated_blocks));
    }
    const auto data = balance_.data_blocks + borrowed_data_ - data_before;
    if (!incomplete_ && data != v.data_blocks) {
      findings_.problem("map", name_ + ", volume " + v.name,
                        "maps " + std::to_string(data) + " blocks of data, its description says " +
                            std::to_string(v.data_blocks));
    }
  }
  volume_ = nullptr;
  std::uint64_t nodes = 0;
  for (const auto& v : group_.descriptor.volumes) nodes += v.map_nodes - v.borrowed_nodes;
  if (!blind_ && balance_.map_blocks != nodes) {
    findings_.problem("map", name_,
                      "has " + std::to_string(balance_.map_blocks) +
                          " map nodes, the checkpoint counted " + std::to_string(nodes));
  }
}

bool GroupVerifier::enter(const MapEntry& entry, NodePlace place) {
  const std::string by = "map node of volume " + volume_->name + ", level " +
                         std::to_string(place.level) + ", number " + std::to_string(place.index);
  if (entry.is_zero()) {
    findings_.problem("map", volume_place(VolumeBlock{place.first_block()}),
                      by + " is said to be zeroes");
    incomplete_ = true;
    return false;
  }
  if (snapshot_ && is_taken_apart(place)) return false;
  if (!refer(entry.where, "map", by)) {
    incomplete_ = true;
    return false;
  }
  // What snapshots share is looked at once.
  if (!walked_.add(entry.where) && snapshot_) return false;
  if (!snapshot_ && !is_borrowed(entry.where)) ++balance_.map_blocks;
  advance(1);
  return true;
}

void GroupVerifier::damaged(const MapEntry& entry, NodePlace place, const Error& error) {
  incomplete_ = true;
  findings_.problem("map", volume_place(VolumeBlock{place.first_block()}),
                    "map node at " + block_text(entry.where) + ", level " +
                        std::to_string(place.level) + ": " + error.message + "; up to " +
                        std::to_string(place.span_blocks()) +
                        " blocks of the volume cannot be read");
}

void GroupVerifier::node(const MapEntry& entry, NodePlace place, std::span<const std::byte> bytes) {
  Lsn newest;
  bool outside = false;
  const std::uint64_t volume_blocks = blocks_for(volume_->size_bytes);
  const std::uint64_t below = place.span_blocks() / format::kMapFanout;
  for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
    const MapEntry e = format::load_entry(bytes.data(), i);
    newest = std::max(newest, e.lsn);
    outside |= !e.is_hole() && place.first_block() + i * below >= volume_blocks;
  }
  const std::string where = volume_place(VolumeBlock{place.first_block()});
  const std::string what =
      "map node at " + block_text(entry.where) + ", level " + std::to_string(place.level) + ": ";
  // Behind its deletion a volume's nodes carry the LSN of that.
  if (std::max(newest, volume_->deleted_at) != entry.lsn && newest != entry.lsn) {
    findings_.problem("map", where,
                      what + "its newest LSN is " + std::to_string(newest.value) +
                          ", the entry above says " + std::to_string(entry.lsn.value) +
                          "; what changed since a position is found wrongly");
  }
  // A branch may reach further than the group, which went back in front of it.
  const Lsn last = group_.descriptor.point.lsn;
  if (newest > (snapshot_ ? std::max(last, snapshot_->at.lsn) : last)) {
    findings_.problem(
        "map", where,
        what + "holds LSN " + std::to_string(newest.value) + " from behind the checkpoint");
  }
  if (outside) findings_.problem("map", where, what + "maps blocks behind the volume's end");
  if (place.level == 0) leaf(place, bytes);
}

void GroupVerifier::leaf(NodePlace place, std::span<const std::byte> bytes) {
  std::vector<MapEntry> run;
  std::uint64_t run_start = 0;
  for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
    const MapEntry e = format::load_entry(bytes.data(), i);
    const std::uint64_t block = place.first_block() + i;
    allocated_ += e.is_hole() ? 0 : 1;
    balance_.zeroed_blocks += e.is_zero() && !snapshot_ ? 1 : 0;
    if (e.is_zero() && e.crc32c != format::crc32c_of_zero_block()) {
      findings_.problem("map", volume_place(VolumeBlock{block}),
                        "is zeroed, but its checksum is not that of zeroes");
    }
    if (!e.has_data()) continue;
    const bool readable =
        refer(e.where, "map", "block " + std::to_string(block) + " of volume " + volume_->name);
    if (readable && !snapshot_) {
      ++(is_borrowed(e.where) ? borrowed_data_ : balance_.data_blocks);
    }
    if (readable && !walked_.add(e.where)) continue;
    const bool follows = !run.empty() && run_start + run.size() == block &&
                         run.back().where.next() == e.where && run.size() < kRunBlocksMax;
    if (!follows && !run.empty()) check_run(run_start, run), run.clear();
    if (!readable) continue;
    if (run.empty()) run_start = block;
    run.push_back(e);
  }
  if (!run.empty()) check_run(run_start, run);
}

/// Blocks of a volume that lie behind each other in the pool.
void GroupVerifier::check_run(std::uint64_t first_block, std::span<const MapEntry> run) {
  advance(run.size());
  if (!options_.data) return;
  std::vector<std::byte> data(run.size() * kBlockBytes);
  Status read = pool_.reader().read(run.front().where, data);
  if (!read && run.size() > 1) {
    // Find out which of them cannot be read.
    for (std::size_t i = 0; i < run.size(); ++i) check_run(first_block + i, run.subspan(i, 1));
    return;
  }
  for (std::size_t i = 0; i < run.size(); ++i) {
    const auto block = std::span(data).subspan(i * kBlockBytes, kBlockBytes);
    if (read && format::crc32c(block) == run[i].crc32c) continue;
    findings_.problem("data", volume_place(VolumeBlock{first_block + i}),
                      (read ? "fails its checksum" : read.error().message) + std::string(" at ") +
                          block_text(run[i].where) + ", written by LSN " +
                          std::to_string(run[i].lsn.value) +
                          "; reading it is an I/O error until it is written again");
  }
}

// --- dead list, leaks ----------------------------------------------------------------------------

void GroupVerifier::check_dead() {
  const auto& d = group_.descriptor;
  balance_.dead_blocks += check_chain(d.dead, "the dead list", false);
  std::map<format::SnapshotId, std::uint64_t> mapped;
  for (const auto& s : d.snapshots) mapped[s.id] = s.pool_blocks();
  // What each state adds to the one it came out of: what it maps, less what they share.
  std::uint64_t kept = 0;
  for (const auto& s : d.snapshots) {
    kept += check_chain(s.held, "the list held in front of snapshot " + s.name, true);
    kept += mapped[s.id] - mapped[s.parent] - s.reaped.freed_blocks;
  }
  kept += check_chain(d.held, "the list held behind the newest snapshot", true);
  kept -= mapped[d.parent];
  if (blind_ || kept == balance_.snapshot_blocks) return;
  findings_.problem("space", name_,
                    "snapshots keep " + std::to_string(balance_.snapshot_blocks) +
                        " blocks that the newest state does not map; their descriptions and lists "
                        "say " +
                        std::to_string(kept));
}

/// Of a list of blocks that are held, kept states map them too. Returns how many there are.
std::uint64_t GroupVerifier::check_chain(const format::DeadChain& chain, const std::string& list,
                                         bool held) {
  const auto bad = [&](PoolBlock at, const std::string& what) {
    blind_ = true;
    findings_.problem("dead", name_ + ", " + list + ", chunk at " + block_text(at), what);
    return std::uint64_t{0};
  };
  PoolBlock at = chain.head;
  Lsn last;
  std::uint64_t entries = 0;
  for (std::uint64_t i = 0; i < chain.chunks; ++i) {
    if (!refer(at, "dead", "a chunk of " + list)) {
      blind_ = true;
      return 0;
    }
    ++balance_.book_blocks;
    auto page = read_page(pool_.reader(), at);
    if (!page) return bad(at, page.error().message);
    auto chunk = format::decode_dead_chunk(as_page(*page));
    if (!chunk) return bad(at, chunk.error().message + "; dead blocks are never given back");
    if (chunk->at != at) return bad(at, "belongs to " + block_text(chunk->at));
    if (chunk->group != group_.descriptor.group) return bad(at, "belongs to another group");
    for (const auto& dead : chunk->blocks) {
      // What died on an abandoned way waits for nobody, and has no position: 0.
      const bool is_abandoned = held && dead.death == Lsn{};
      if (dead.birth > dead.death && !is_abandoned)
        bad(at, block_text(dead.where) + " died before it was born");
      last = std::max(last, dead.death);
      sharing_ = held;
      if (refer(dead.where, "dead", "a block in " + list)) ++entries;
      sharing_ = false;
    }
    at = chunk->next;
  }
  if (at != chain.tail)
    bad(at, "the chain ends there, the checkpoint says " + block_text(chain.tail));
  if (chain.tail.value != 0 && refer(chain.tail, "dead", "the place of the next chunk")) {
    ++balance_.book_blocks;
  }
  if (entries != chain.entries) {
    findings_.problem("dead", name_ + ", " + list,
                      "lists " + std::to_string(entries) + " blocks, the checkpoint counted " +
                          std::to_string(chain.entries));
  }
  if (!held && last > group_.descriptor.point.lsn) {
    findings_.problem("dead", name_ + ", " + list, "a block died behind the checkpoint");
  }
  return entries;
}

// --- snapshots -----------------------------------------------------------------------------------

/// What kept states map and the newest one does not. One that is being deleted and has one
/// successor may name blocks that are free by now; the others are in that one's list.
void GroupVerifier::check_snapshots() {
  const auto& d = group_.descriptor;
  std::map<format::SnapshotId, int> successors;
  ++successors[d.parent];
  for (const auto& s : d.snapshots) ++successors[s.parent];
  for (const auto& s : d.snapshots) {
    if (s.being_deleted && s.clones == 0 && successors[s.id] == 1) continue;
    snapshot_ = &s;
    for (const auto& v : s.volumes) {
      volume_ = &v;
      incomplete_ = false;
      walk_map(pool_.reader(), v, *this);
      blind_ |= incomplete_;
    }
  }
  snapshot_ = nullptr;
  volume_ = nullptr;
}

/// A node of a state that is being taken apart, whose blocks are given back already.
bool GroupVerifier::is_taken_apart(NodePlace place) const {
  const auto& done = snapshot_->reaped;
  if (!done.has_begun()) return false;
  const auto volume = static_cast<std::uint32_t>(volume_ - snapshot_->volumes.data());
  if (volume != done.volume) return volume < done.volume;
  return place.level < done.level || (place.level == done.level && place.index < done.next);
}

/// Every block of the group's zones is in one of these.
void GroupVerifier::check_balance() {
  const auto& b = balance_;
  const auto sum = b.data_blocks + b.map_blocks + b.book_blocks + b.dead_blocks +
                   b.snapshot_blocks + b.log_blocks + b.free_blocks;
  if (blind_ || sum == b.zone_blocks) return;
  findings_.problem("space", name_,
                    "does not balance: its zones have " + std::to_string(b.zone_blocks) +
                        " blocks, data, maps, books, dead, snapshots, log and free ones are " +
                        std::to_string(sum));
}

/// Marked blocks that nothing lies in are lost until the group is copied anew.
void GroupVerifier::check_leaks() {
  if (blind_) {
    findings_.note("space", name_, "what is damaged hides which blocks are in use: not checked");
    return;
  }
  const auto& s = pool_.superblock();
  for (auto zone : group_.zones) {
    const std::uint64_t start = s.zone_start(zone).value;
    std::uint64_t lost = 0;
    PoolBlock first;
    for (std::uint64_t i = 0; i < s.zone_blocks && start + i < pool_.blocks(); ++i) {
      const PoolBlock block{start + i};
      if (!used_.has(block) || referred_.has(block)) continue;
      if (lost++ == 0) first = block;
    }
    if (lost == 0) continue;
    findings_.problem("space", name_ + ", zone " + std::to_string(zone.value),
                      std::to_string(lost) + " blocks, the first is " + block_text(first) +
                          ", are marked as used, but nothing is there: they are lost to the pool");
  }
}

}  // namespace tandem::inspect
