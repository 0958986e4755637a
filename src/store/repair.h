// Repair: what becomes of a block that fails its checksum or cannot be read.
//
//   recover   asks the peers for that very version, checks what they give against this copy's own
//             map entry, and hands it to the reader, who waits for it
//   rewrite   afterwards, in the background: the right bytes go back to the same place, as long as
//             it is still mapped with that checksum; read again to see that they stay
//
// Why writing in place is safe here and nowhere else: the place holds nothing that is right, and
// what every map that names it expects are exactly these bytes. The lock of checkpoints is held
// meanwhile, so that the place cannot be given to anything else.
//
// A map node cannot be had from a peer: where blocks are is each node's own matter. It is an I/O
// error for what lies below it, and the copy has to be filled again.
//
// Thread: the group's reactor. Memory: a place per block known to be lost, at most kLostMax.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "store/group.h"
#include "store/snapshot_pin.h"
#include "tandem/replicated_log.h"

namespace tandem::store {

/// A block whose bytes at `where` are not those that a map names.
struct DamagedBlock {
  BlockVersion version;
  PoolBlock where;
  std::string volume;  // its name, for messages
  Error found;         // what reading it said
};

class Repair {
 public:
  explicit Repair(Group& group) : group_(group) {}

  void set_source(BlockSource source) { source_ = std::move(source); }
  /// The right bytes, whole; see above. Errors: `damaged.found` with why no peer could help.
  Task<Result<IoBuffer>> recover(DamagedBlock damaged);
  /// See ReplicatedLog::find_block.
  Task<Result<IoBuffer>> find(BlockVersion version);
  const DamageStatus& report() const { return report_; }
  /// Between the two everything was read: what was lost before, and not again, is lost no more.
  void begin_census() { census_.clear(); }
  void end_census();

 private:
  static constexpr std::size_t kLostMax = 4096;
  static constexpr std::size_t kRewritesMax = 64;

  /// Where a version may be; while this lives, the snapshot keeps its blocks.
  struct Candidate {
    Group::VolumePtr volume;
    Group::SnapshotPtr snapshot;  // null: live
    std::unique_ptr<SnapshotPin> pin;
  };
  std::vector<Candidate> candidates(const BlockVersion& version) const;

  Task<Result<IoBuffer>> ask(const DamagedBlock& damaged);
  Task<Lsn> known_through(const DamagedBlock& damaged);
  std::optional<Lsn> position_of(const Candidate& candidate) const;
  bool is_that(const format::MapEntry& entry, const BlockVersion& version,
               std::optional<Lsn> at) const;
  Task<void> rewrite(DamagedBlock damaged, IoBuffer right);
  Task<Result<bool>> write_back(const DamagedBlock& damaged, const IoBuffer& right);
  Task<bool> is_mapped(const DamagedBlock& damaged);
  Task<Result<format::MapEntry>> entry_of(Group::VolumeCore& volume, VolumeBlock block);
  Task<Result<IoBuffer>> find_in(const Candidate& candidate, BlockVersion version);
  Task<Result<IoBuffer>> find_in_log(BlockVersion version);
  void note(const DamagedBlock& damaged, std::string outcome);

  Group& group_;
  BlockSource source_;
  DamageStatus report_;
  std::set<PoolBlock> lost_, census_;
  std::size_t rewrites_ = 0;  // under way
};

}  // namespace tandem::store
