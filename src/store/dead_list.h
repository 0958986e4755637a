// DeadList: blocks that no newer position maps, waiting until nobody can ask for an older one.
//
// Deaths arrive in log order. What the running checkpoint may let go at once never touches the
// disk; the rest (kept for a mirror that lags) is appended to a chain of chunks on disk, so memory
// stays bounded by what died since the last checkpoint.
//
// Thread: the group's reactor.
#pragma once

#include <deque>
#include <vector>

#include "format/checkpoint.h"
#include "store/space_map.h"
#include "tandem/base/buffer.h"
#include "tandem/port/block_device.h"

namespace tandem::store {

using format::DeadBlock;

class DeadList {
 public:
  DeadList(BlockDevice& device, SpaceMap& space) : device_(device), space_(space) {}

  void restore(const format::DeadQueue& queue) { queue_ = queue; }
  /// `dead.death` must not be smaller than the one before.
  void add(const DeadBlock& dead);
  /// Blocks waiting, in memory and on disk.
  std::uint64_t waiting() const { return recent_.size() + queue_.entries; }
  /// Pool blocks that the next checkpoint needs at most for new chunks.
  std::uint64_t chunk_blocks_needed() const { return recent_.size() / format::kDeadPerChunk + 2; }

  /// A checkpoint begins: what is in the list now belongs to it, what comes later does not.
  void freeze() { frozen_ = recent_.size(); }
  /// Part of that checkpoint: of the frozen blocks, releases those that died at or before `horizon`
  /// and appends the others to the chain. The returned queue goes into the descriptor. `taken` and
  /// `released` receive every block that changed hands. After an error the group must stop.
  Task<Result<format::DeadQueue>> settle(Lsn horizon, std::vector<Extent>& taken,
                                         std::vector<PoolBlock>& released);

 private:
  Task<Status> release_chunks(Lsn horizon, std::vector<PoolBlock>& released);
  Task<Status> append_chunks(std::vector<DeadBlock> blocks, std::vector<Extent>& taken);

  BlockDevice& device_;
  SpaceMap& space_;
  std::deque<DeadBlock> recent_;
  std::size_t frozen_ = 0;
  format::DeadQueue queue_;
};

}  // namespace tandem::store
