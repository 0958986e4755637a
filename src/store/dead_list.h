// Blocks that no newer position maps, waiting until nobody can ask for an older one.
//
// DeadList: the queue in log order. What the running checkpoint may let go at once never touches
// the disk; the rest (kept for a mirror that lags) is appended to a chain of chunks on disk, so
// memory stays bounded by what died since the last checkpoint.
// What leaves it is free, unless a snapshot still maps it: see checkpoint_space.cc.
//
// Thread: the group's reactor.
#pragma once

#include <deque>
#include <functional>
#include <vector>

#include "format/checkpoint.h"
#include "store/space_map.h"
#include "tandem/base/buffer.h"
#include "tandem/port/block_device.h"

namespace tandem::store {

using format::DeadBlock;
using format::DeadChain;

/// Chains of dead chunks on disk: appended at the tail, eaten from the head, never changed in
/// place. Part of a running checkpoint: `taken` and `released` receive every block that changed
/// hands; after an error the group must stop.
class DeadChunks {
 public:
  DeadChunks(BlockDevice& device, SpaceMap& space, const Uuid& group)
      : device_(device), space_(space), group_(group) {}
  Task<Status> append(DeadChain& chain, std::vector<DeadBlock> blocks, std::vector<Extent>& taken);
  /// The first chunk of a chain that has one. Errors: kIo, kCorrupt.
  Task<Result<format::DeadChunk>> first(const DeadChain& chain) const;
  void drop_first(DeadChain& chain, const format::DeadChunk& first,
                  std::vector<PoolBlock>& released);
  /// Gives back the place reserved for the next chunk of a chain that has none.
  void dissolve(DeadChain& chain, std::vector<PoolBlock>& released);

 private:
  BlockDevice& device_;
  SpaceMap& space_;
  Uuid group_;
};

class DeadList {
 public:
  explicit DeadList(DeadChunks& chunks) : chunks_(chunks) {}

  void restore(const DeadChain& queue) { queue_ = queue; }
  /// Called in log order of what replaced them (deaths need not ascend).
  void add(const DeadBlock& dead) { recent_.push_back(dead); }
  /// Blocks waiting, in memory and on disk.
  std::uint64_t waiting() const { return recent_.size() + queue_.entries; }
  /// Pool blocks that the next checkpoint needs at most for new chunks.
  std::uint64_t chunk_blocks_needed() const { return recent_.size() / format::kDeadPerChunk + 2; }

  /// A checkpoint begins: what is in the list now belongs to it, what comes later does not.
  void freeze() { frozen_ = recent_.size(); }
  /// Part of that checkpoint: of the frozen blocks, hands those that died at or before `horizon` to
  /// `let_go` and appends the others to the chain; of the chain, works off at most `chunks_max`
  /// chunks. The returned queue goes into the descriptor.
  Task<Result<DeadChain>> settle(Lsn horizon, std::uint64_t chunks_max,
                                 const std::function<void(const DeadBlock&)>& let_go,
                                 std::vector<Extent>& taken, std::vector<PoolBlock>& released);
  /// The last settle() left chunks that it could have let go.
  bool has_more() const { return more_; }
  std::uint64_t chunks() const { return queue_.chunks; }
  const DeadChain& queue() const { return queue_; }

 private:
  DeadChunks& chunks_;
  std::deque<DeadBlock> recent_;
  std::size_t frozen_ = 0;
  DeadChain queue_;
  bool more_ = false;
};

}  // namespace tandem::store
