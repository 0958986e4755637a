// Checkpoint: writes the state of a group at one LSN to new places, then names it in the anchor.
// Never on a write's way: it freezes what is dirty, and writes go on.
//
//   freeze    the position, dirty leaves, allocation bits, dead list, snapshots: no I/O, no await
//   nodes     frozen leaves, then the inner nodes above them, level by level
//   dead      what may be reused is released, the rest is listed (checkpoint_space.cc)
//   bitmap    every page that changed, with what this checkpoint itself took and gave back
//   chain     the descriptor
//   commit    flush, anchor, flush: from here on it counts; the anchor's other copy, flush
//   reuse     released blocks become allocatable, log zones that nobody needs go back
//
// A crash before the anchor leaves the old checkpoint valid: everything here went to free blocks.
//
// Thread: the group's reactor; one at a time per group (Group::checkpoint_lock_).
#pragma once

#include <map>
#include <set>
#include <vector>

#include "format/checkpoint.h"
#include "store/group.h"

namespace tandem::store {

class Checkpoint {
 public:
  explicit Checkpoint(Group& group) : group_(group) {}
  /// After an error other than kNoSpace before anything was written, the group must stop.
  Task<Status> run();

 private:
  struct TreeState {
    Group::VolumePtr volume;
    bool in_descriptor = true;  // false: a full copy that is still being received
    std::uint32_t height = 1;
    format::MapEntry root;
    std::size_t index = 0;  // in descriptor_.volumes
    Lsn deleted_at;         // as of the frozen position
  };

  void freeze();
  Task<Status> write_maps();
  Task<Status> write_level(TreeState& tree, std::uint32_t level, std::vector<NodeRef> nodes);
  Task<Status> link(TreeState& tree, const NodeRef& node, std::uint32_t level,
                    const format::MapEntry& entry);
  Task<Status> write_bitmap_and_descriptor();
  Task<Status> write_descriptor(const std::vector<PoolBlock>& chain,
                                const std::vector<std::byte>& bytes, std::uint32_t& head_crc);
  Status place_bitmap_pages(std::set<std::uint32_t>& pages);
  Task<Status> commit();

  // checkpoint_space.cc
  void freeze_snapshots();
  void enter_snapshot_roots();
  void release(PoolBlock block);
  void let_go(const DeadBlock& dead);
  DeadChain& interval_behind(std::size_t snapshot);
  Task<Status> reap_snapshot();
  Task<Status> settle_dead();
  void commit_snapshots();

  Result<PoolBlock> take_block(bool in_descriptor);
  void replace_node(const TreeState& tree, const format::MapEntry& before);
  void patch(std::uint32_t index, std::span<std::byte> bits) const;

  Group& group_;
  format::Descriptor descriptor_;
  Lsn horizon_;                  // what died up to here may be reused
  std::vector<ZoneId> trimmed_;  // log zones that nobody needs any more
  std::shared_ptr<Group::ImageTarget> target_;
  std::vector<TreeState> trees_;
  std::map<std::uint32_t, std::vector<NodeRef>> leaves_;  // frozen, by cache volume id
  std::vector<std::uint32_t> dirty_pages_;
  std::vector<Extent> excluded_;              // taken by records behind the frozen position
  std::vector<Extent> taken_;                 // by this checkpoint
  std::vector<PoolBlock> released_;           // by this checkpoint
  std::vector<bool> gone_;                    // by snapshot: deleted, and nobody reads it
  std::vector<std::vector<DeadBlock>> held_;  // by interval: joins its list
  Lsn reaped_;                                // the snapshot of which nothing is left
  std::map<std::uint32_t, format::BitmapPage> bitmap_;
  std::vector<PoolBlock> chain_;
  format::Anchor anchor_;
};

}  // namespace tandem::store
