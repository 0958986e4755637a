// Checkpoint: writes the state of a group at one LSN to new places, then names it in the anchor.
// Never on a write's way: it freezes what is dirty, and writes go on.
//
//   freeze    the position, dirty leaves, allocation bits, dead list, snapshots: no I/O, no await
//   nodes     frozen leaves, then the inner nodes above them, level by level
//   dead      what may be reused is released, the rest is listed (checkpoint_space.cc); a step of
//             what is being deleted (checkpoint_reap.cc)
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
#include "store/aside.h"
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
    enum class Of { kLive, kBranch, kAside } of = Of::kLive;
    std::shared_ptr<Group::Aside> aside;  // of kAside
    std::uint32_t height = 1;
    format::MapEntry root;
    std::size_t index = 0;  // in the volumes of the state
    Lsn deleted_at;         // as of the frozen position
  };

  void freeze();
  void add_trees();
  Task<Status> write_maps();
  Task<Status> write_level(TreeState& tree, std::uint32_t level, std::vector<NodeRef> nodes);
  Task<void> keep_parent(MapTree& tree, std::uint32_t level, std::uint64_t index,
                         std::vector<NodeRef>& kept, Gate& under_way);
  Task<Status> link(TreeState& tree, const NodeRef& node, std::uint32_t level,
                    const format::MapEntry& entry);
  Task<Status> write_bitmap_and_descriptor();
  Task<Status> write_descriptor(const std::vector<PoolBlock>& chain,
                                const std::vector<std::byte>& bytes, std::uint32_t& head_crc);
  Status place_bitmap_pages(std::set<std::uint32_t>& pages);
  Task<Status> commit();

  // checkpoint_space.cc
  void take_turn();
  void take_snapshot();
  void take_mark();
  void keep_live(format::SnapshotState state);
  void take_point();
  void take_moves();
  Task<Status> split_lists();
  void freeze_snapshots();
  void enter_snapshot_roots();
  void release(PoolBlock block);
  void let_go(const DeadBlock& dead);
  Lsn& nodes_upto(std::size_t state);
  void bury(const DeadBlock& dead);
  void bury(const DeadBlock& dead, std::vector<std::size_t>::const_iterator behind);
  void bury_moved(const DeadBlock& dead);
  DeadChain& list(std::size_t state);
  Task<Status> settle_dead();
  Task<Status> list_replaced(Group::ImageTarget& target);
  void commit_snapshots();

  // checkpoint_reap.cc
  struct Unshared;
  void choose_reaped();
  Task<Status> reap();
  std::size_t successor_of(std::size_t k) const;
  std::uint64_t chunks_for(std::size_t more) const;
  Task<Status> merge(std::size_t k, std::size_t next);
  Task<Status> reap_ended(format::SnapshotState& state);
  Task<Status> let_go_data(Unshared& walk, std::uint64_t index, const format::SnapshotState& state,
                           std::uint64_t& freed);
  Task<Status> find_unshared(Unshared& walk);
  Task<Status> find_unshared(Unshared& walk, std::uint32_t level, std::uint64_t index,
                             format::MapEntry entry);

  Result<PoolBlock> take_block();
  Result<PoolBlock> take_node(const TreeState& tree, std::uint32_t level, Lsn newest);
  void replace_node(const TreeState& tree, std::uint32_t level, const format::MapEntry& before);
  format::VolumeState& entered(const TreeState& tree);
  void patch(std::uint32_t index, std::span<std::byte> bits) const;

  Group& group_;
  format::Descriptor descriptor_;
  Lsn horizon_;                  // what died up to here may be reused
  std::vector<ZoneId> trimmed_;  // log zones that nobody needs any more
  std::vector<std::shared_ptr<Group::Aside>> asides_;
  std::vector<TreeState> trees_;
  std::map<std::uint32_t, std::vector<NodeRef>> leaves_;  // frozen, by cache volume id
  std::vector<std::uint32_t> dirty_pages_;
  std::vector<Extent> excluded_;     // taken by records behind the frozen position
  std::vector<Extent> taken_;        // by this checkpoint
  std::vector<PoolBlock> released_;  // by this checkpoint

  // Kept states, by their index in the descriptor; the live one is behind the last.
  bool turned_ = false;                        // the live state is another one from here on
  Lsn left_;                                   // where the one so far ended
  Group::SnapshotPtr branch_, new_snapshot_;   // kept by this checkpoint
  std::shared_ptr<Group::PointTarget> point_;  // likewise, in front of another one
  std::size_t point_index_ = 0, behind_point_ = 0;
  std::vector<Group::VolumePtr> forgotten_;   // of a state that is kept already
  bool has_moved_ = false;                    // compaction changed places in front of new_snapshot_
  std::vector<DeadBlock> moved_;              // the places of before; of data
  std::vector<std::size_t> line_;             // states that lead to where blocks died, root first
  std::size_t tip_ = 0;                       // the end of the line
  std::vector<std::vector<DeadBlock>> held_;  // by state: joins its list
  std::vector<DeadBlock> waiting_;            // joins the queue
  std::size_t buried_ = 0;                    // of those, not by what is taken apart
  std::vector<bool> gone_;                    // being deleted: it holds nothing any more
  std::optional<std::size_t> ended_;          // being deleted: without successors
  std::set<format::SnapshotId> dropped_;      // of which nothing is left
  std::map<std::uint32_t, format::BitmapPage> bitmap_;
  std::vector<PoolBlock> chain_;
  format::Anchor anchor_;
};

}  // namespace tandem::store
