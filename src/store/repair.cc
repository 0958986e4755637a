#include "store/repair.h"

#include <algorithm>
#include <cstring>

#include "format/checksum.h"
#include "tandem/base/log.h"

namespace tandem::store {

using format::MapEntry;

namespace {

/// Snapshots that are looked at for a block which the live volumes do not hold any more. The first
/// one behind the write has it, if any has; a few more, because some may be on their way out.
constexpr std::size_t kSnapshotsMax = 8;

bool names(const MapEntry& entry, const BlockVersion& version) {
  return !entry.is_hole() && entry.lsn == version.lsn && entry.crc32c == version.crc32c;
}

bool has_block(const MapEntry& entry) { return !entry.is_hole() && !entry.is_zero(); }

bool is_whole(const IoBuffer& block, const BlockVersion& version) {
  return block.size() == kBlockBytes && format::crc32c(block.bytes()) == version.crc32c;
}

Error other_version() { return {ErrorCode::kNotFound, "it holds another version of the block"}; }

/// Bytes [offset, offset + 4096) of pieces that lie back to back.
std::optional<IoBuffer> block_at(const std::vector<IoBuffer>& pieces, std::size_t offset) {
  for (const IoBuffer& piece : pieces) {
    if (offset + kBlockBytes <= piece.size()) return piece.slice(offset, kBlockBytes);
    if (offset < piece.size()) return std::nullopt;  // pieces end with blocks
    offset -= piece.size();
  }
  return std::nullopt;
}

}  // namespace

// --- this copy's damage --------------------------------------------------------------------------

void Repair::note(const DamagedBlock& damaged, std::string outcome) {
  report_.unrepairable_blocks = lost_.size();
  report_.last_at = group_.runtime_.clock.utc();
  report_.last_volume = damaged.volume;
  report_.last_byte = damaged.version.block.value * kBlockBytes;
  report_.last_outcome = std::move(outcome);
}

Task<Result<IoBuffer>> Repair::recover(DamagedBlock damaged) {
  auto hold = group_.gate_.hold();
  auto asking = ask(damaged);
  auto right = co_await std::move(asking);
  const std::uint64_t byte = damaged.version.block.value * kBlockBytes;
  if (!right) {
    if (census_.size() < kLostMax) census_.insert(damaged.where);
    const bool is_news = lost_.size() < kLostMax && lost_.insert(damaged.where).second;
    note(damaged, "lost: " + right.error().message);
    if (is_news) {
      log_event(Level::kError, "block.lost",
                "group={} volume={} byte={} lsn={} pool_block={} reason=\"{}\"", group_.name_,
                damaged.volume, byte, damaged.version.lsn.value, damaged.where.value,
                right.error().message);
    }
    co_return Error{damaged.found.code, damaged.found.message + "; no peer could give it back (" +
                                            right.error().message +
                                            "); write the block anew, or restore it from a backup"};
  }
  ++report_.fetched_blocks;
  lost_.erase(damaged.where);
  census_.erase(damaged.where);
  note(damaged, "fetched from a peer");
  if (rewrites_ < kRewritesMax) spawn(rewrite(std::move(damaged), *right));
  co_return std::move(*right);
}

void Repair::end_census() {
  lost_ = std::move(census_);
  census_.clear();
  report_.unrepairable_blocks = lost_.size();
}

/// Whole, in memory that a device can be given.
Task<Result<IoBuffer>> Repair::ask(const DamagedBlock& damaged) {
  BlockVersion version = damaged.version;
  if (source_) {
    auto looking = known_through(damaged);
    version.through = co_await std::move(looking);
  }
  // Replication may have ended meanwhile.
  if (!source_) co_return Error{ErrorCode::kUnavailable, "this copy has no peer"};
  auto asking = source_(version);
  auto got = co_await std::move(asking);
  if (!got) co_return Error(std::move(got.error()));
  if (!is_whole(*got, damaged.version)) {
    co_return Error{ErrorCode::kCorrupt, "the peer sent other bytes than its map names"};
  }
  if (got->is_block_aligned()) co_return std::move(*got);
  IoBuffer aligned = group_.pool_.buffers().allocate(kBlockBytes);
  std::memcpy(aligned.data(), got->data(), kBlockBytes);
  co_return aligned;
}

/// The newest position at which a map of this copy's line names the block: so it did not change in
/// between. 0: a rollback lies in between, or no map of the line names it any more.
Task<Lsn> Repair::known_through(const DamagedBlock& damaged) {
  const auto& version = damaged.version;
  Lsn through{};
  for (const auto& candidate : candidates(version)) {
    const auto at = position_of(candidate);  // before the look: from then on it only goes on
    if (!at) continue;
    auto entry = co_await entry_of(*candidate.volume, version.block);
    if (entry && names(*entry, version) && entry->where == damaged.where)
      through = std::max(through, *at);
  }
  const bool turned = std::any_of(
      group_.skipped_.begin(), group_.skipped_.end(),
      [&](const auto& range) { return range.after < through && range.upto > version.lsn; });
  co_return turned ? Lsn{} : through;
}

/// Where a state of the live one's line is in the log; nothing: it is on another branch.
std::optional<Lsn> Repair::position_of(const Candidate& candidate) const {
  if (group_.turn_) return std::nullopt;  // the live state is about to become another one
  if (!candidate.snapshot) return group_.head_.lsn;
  const auto line = group_.line();
  if (std::find(line.begin(), line.end(), candidate.snapshot) == line.end()) return std::nullopt;
  return candidate.snapshot->state.at.lsn;
}

/// Whether the entry, of a state at `at`, is the block that is asked for: of the same record, or
/// the same at a position that both know it for. The block does not change in the asker's copy from
/// version.lsn to version.through, and here not from the entry's position to `at`; where the two
/// ranges meet, both copies have it, and up to version.through they have the same log.
bool Repair::is_that(const MapEntry& entry, const BlockVersion& version,
                     std::optional<Lsn> at) const {
  if (names(entry, version)) return true;
  if (!at || !has_block(entry) || entry.crc32c != version.crc32c) return false;
  const Lsn meet = std::max(entry.lsn, version.lsn);
  return meet <= version.through && meet <= *at && !group_.is_skipped(meet);
}

Task<void> Repair::rewrite(DamagedBlock damaged, IoBuffer right) {
  auto hold = group_.gate_.hold();
  ++rewrites_;
  auto writing = write_back(damaged, right);
  auto written = co_await std::move(writing);
  --rewrites_;
  const std::uint64_t byte = damaged.version.block.value * kBlockBytes;
  if (!written) {
    note(damaged, "fetched from a peer, but cannot be written here: " + written.error().message);
    log_event(Level::kError, "block.not-rewritten",
              "group={} volume={} byte={} pool_block={} error=\"{}\"", group_.name_, damaged.volume,
              byte, damaged.where.value, written.error().message);
  } else if (*written) {
    ++report_.repaired_blocks;
    note(damaged, "repaired from a peer");
    log_event(Level::kWarn, "block.repaired",
              "group={} volume={} byte={} lsn={} pool_block={} was=\"{}\"", group_.name_,
              damaged.volume, byte, damaged.version.lsn.value, damaged.where.value,
              damaged.found.message);
  }
}

/// True: it was damaged, and is whole now. False: nothing had to be done any more.
Task<Result<bool>> Repair::write_back(const DamagedBlock& damaged, const IoBuffer& right) {
  // Only a checkpoint lets a place be reused, so what is mapped once the lock is held stays.
  const auto lock = co_await group_.checkpoint_lock_.lock();
  if (group_.stopped_ || group_.closing_) co_return false;
  const bool mapped = co_await is_mapped(damaged);
  if (!mapped) co_return false;
  IoBuffer there = group_.pool_.buffers().allocate(kBlockBytes);
  const std::uint64_t at = damaged.where.value * kBlockBytes;
  for (const bool before : {true, false}) {
    IoBatch look(group_.device_);
    look.read(at, there.bytes());
    Status read = co_await look.run();
    const bool whole = read && is_whole(there, damaged.version);
    if (before && whole) co_return false;  // another reader's repair was faster
    if (!before && whole) co_return true;
    if (!before && !read) co_return Error(std::move(read.error()));
    if (!before) break;
    IoBatch write(group_.device_);
    write.write(at, right.bytes());
    Status written = co_await write.run();
    if (!written) co_return Error(std::move(written.error()));
  }
  co_return Error{ErrorCode::kIo, "the device took the right bytes and gives back others"};
}

/// Some map names the place with this checksum.
Task<bool> Repair::is_mapped(const DamagedBlock& damaged) {
  const auto& version = damaged.version;
  for (const auto& candidate : candidates(version)) {
    auto entry = co_await entry_of(*candidate.volume, version.block);
    if (entry && names(*entry, version) && entry->where == damaged.where) co_return true;
  }
  co_return false;
}

Task<Result<MapEntry>> Repair::entry_of(Group::VolumeCore& volume, VolumeBlock block) {
  auto leaf = co_await group_.cache_.load(volume.tree, 0, block.value / format::kMapFanout, false);
  if (!leaf) co_return Error(std::move(leaf.error()));
  if (!*leaf) co_return MapEntry{};
  co_return (*leaf)->entry(static_cast<std::uint32_t>(block.value % format::kMapFanout));
}

// --- what a peer asks for ------------------------------------------------------------------------

/// The volume in the states that may map the version: the live one, then the first snapshots behind
/// its record that are not being taken apart.
std::vector<Repair::Candidate> Repair::candidates(const BlockVersion& version) const {
  std::vector<Candidate> out;
  if (auto volume = group_.find_volume(version.volume)) out.push_back({std::move(volume), {}, {}});
  std::size_t snapshots = 0;
  for (const auto& [id, snapshot] : group_.snapshots_) {
    const auto& state = snapshot->state;
    if (!snapshot->ready || state.being_deleted || state.at.lsn < version.lsn) continue;
    if (++snapshots > kSnapshotsMax) break;
    for (const auto& volume : snapshot->volumes) {
      if (volume->state.id != version.volume) continue;
      out.push_back({volume, snapshot, std::make_unique<SnapshotPin>(snapshot->readers)});
    }
  }
  return out;
}

Task<Result<IoBuffer>> Repair::find(BlockVersion version) {
  auto hold = group_.gate_.hold();
  Error why = other_version();
  for (const auto& candidate : candidates(version)) {
    auto found = co_await find_in(candidate, version);
    if (found) co_return found;
    if (found.error().code != ErrorCode::kNotFound) why = std::move(found.error());
  }
  auto found = co_await find_in_log(version);
  if (found) co_return found;
  co_return why;
}

Task<Result<IoBuffer>> Repair::find_in(const Candidate& candidate, BlockVersion version) {
  Group::VolumeCore& volume = *candidate.volume;
  const auto at = position_of(candidate);  // before the look: from then on it only goes on
  auto entry = co_await entry_of(volume, version.block);
  if (!entry) co_return Error(std::move(entry.error()));
  if (!is_that(*entry, version, at)) co_return other_version();
  IoBuffer block = group_.pool_.buffers().allocate(kBlockBytes);
  if (entry->is_zero()) {
    std::memset(block.data(), 0, kBlockBytes);
    co_return block;
  }
  IoBatch io(group_.device_);
  io.read(entry->where.value * kBlockBytes, block.bytes());
  Status read = co_await io.run();
  if (read && is_whole(block, version)) co_return block;
  // Meanwhile it may have been replaced, and its place reused.
  auto now = co_await entry_of(volume, version.block);
  if (!now || !(*now == *entry)) co_return other_version();
  co_return Error{read ? ErrorCode::kCorrupt : ErrorCode::kIo, "the block is damaged there too"};
}

/// The data of the record that wrote it: a copy that overwrote the block keeps it for a while.
Task<Result<IoBuffer>> Repair::find_in_log(BlockVersion version) {
  if (version.lsn <= group_.log_start()) co_return other_version();
  auto batch = co_await group_.read_after(Lsn{version.lsn.value - 1}, 1);
  if (!batch) co_return Error(std::move(batch.error()));
  format::Decoder in(batch->records);
  if (batch->empty()) co_return other_version();
  auto record = format::decode_record(in);
  if (!record || !record->has_data() || record->header.lsn != version.lsn ||
      record->header.volume != version.volume || record->header.first_block > version.block) {
    co_return other_version();
  }
  const std::uint64_t index = version.block.value - record->header.first_block.value;
  if (index >= record->header.block_count) co_return other_version();
  const auto block = block_at(batch->payload, index * kBlockBytes);
  if (!block || !is_whole(*block, version)) co_return other_version();
  co_return *block;
}

// --- Group ---------------------------------------------------------------------------------------

Task<Result<IoBuffer>> Group::find_block(BlockVersion version) {
  auto hold = gate_.hold();
  if (stopped_ || closing_) co_return refusal();
  auto finding = repair_->find(version);
  co_return co_await std::move(finding);
}

void Group::set_block_source(BlockSource source) { repair_->set_source(std::move(source)); }

DamageStatus Group::damage() const {
  DamageStatus report = repair_->report();
  report.damaged_map_nodes = cache_.damaged_nodes(static_cast<std::uint16_t>(slot_));
  return report;
}

}  // namespace tandem::store
