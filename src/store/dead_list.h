// Blocks that no newer position maps, waiting until nobody can ask for an older one.
//
// DeadList: what died since the last checkpoint, and behind it, in a chain of chunks on disk, what
// no kept state maps and a mirror that lags may still ask for. So memory stays bounded.
// What a kept state maps goes to its list instead: see checkpoint_space.cc.
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
  /// All of a chain, which is empty then.
  Task<Result<std::vector<DeadBlock>>> take_all(DeadChain& chain, std::vector<PoolBlock>& released);
  void drop_first(DeadChain& chain, const format::DeadChunk& first,
                  std::vector<PoolBlock>& released);
  /// A block that a chunk listed is free.
  void release(PoolBlock block, std::vector<PoolBlock>& released);
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
  /// Blocks that died since the last checkpoint began.
  std::uint64_t recent() const { return recent_.size() - frozen_; }
  /// Blocks waiting, in memory and on disk.
  std::uint64_t waiting() const { return recent_.size() + queue_.entries; }
  /// Pool blocks that the next checkpoint needs at most for new chunks.
  std::uint64_t chunk_blocks_needed() const { return recent_.size() / format::kDeadPerChunk + 2; }

  /// A checkpoint begins: what is in the list now belongs to it, what comes later does not.
  void freeze() { frozen_ = recent_.size(); }
  /// Part of that checkpoint: those blocks; it decides which of them nothing holds.
  std::vector<DeadBlock> take_frozen();
  /// Part of that checkpoint: releases what waits on disk and died at or before `horizon`, and
  /// appends `waiting`, which nothing holds. The returned queue goes into the descriptor.
  Task<Result<DeadChain>> settle(Lsn horizon, std::vector<DeadBlock> waiting,
                                 std::vector<Extent>& taken, std::vector<PoolBlock>& released);
  /// Part of that checkpoint: takes those out of what waits on disk for which `moves` is true.
  Task<Result<std::vector<DeadBlock>>> take_if(const std::function<bool(const DeadBlock&)>& moves,
                                               std::vector<Extent>& taken,
                                               std::vector<PoolBlock>& released);
  const DeadChain& queue() const { return queue_; }

 private:
  DeadChunks& chunks_;
  std::deque<DeadBlock> recent_;
  std::size_t frozen_ = 0;
  DeadChain queue_;
};

}  // namespace tandem::store
