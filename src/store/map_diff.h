// MapDiff: the blocks of a volume that differ between two of its maps.
//
// Both trees are walked together, and only where they part: an entry that is equal in both names a
// shared subtree. So the cost is that of what differs, whatever the positions of the two are: also
// across a rollback, a full copy or a promotion, where LSNs alone would not tell.
//
// A block differs unless both maps read it as zeroes, or both name the same copy, or both hold what
// the same record wrote (same LSN, same checksum: a full copy puts blocks elsewhere). A block that
// was written again with the bytes it had counts as different; nothing else does.
//
// Thread: the reactor's. The older map never changes and must be kept meanwhile; the newer one may
// be live: then each block is compared as it is at some moment of the call.
#pragma once

#include <vector>

#include "store/map.h"
#include "store/volume_reader.h"
#include "tandem/volume.h"

namespace tandem::store {

class MapDiff {
 public:
  /// Two trees of the same cache, which must outlive the object.
  MapDiff(MapCache& cache, MapTree& older, MapTree& newer)
      : cache_(cache), older_(older), newer_(newer) {}

  /// Runs that cover a prefix of bytes [offset, offset+length), at most `extents_max`, at least
  /// one; neighbours differ. A map has only holes behind its end. Once per object. Errors:
  /// kCorrupt, kIo.
  Task<Result<std::vector<ChangeExtent>>> run(std::uint64_t offset, std::uint64_t length,
                                              std::size_t extents_max);

 private:
  /// One tree's view of a node; above its root a tree has nothing but the way to it.
  struct Side {
    MapTree& tree;
    NodeRef node;
    MapEntry entry(std::uint32_t level, std::uint64_t index) const;  // that names a child
  };

  Task<Status> compare(std::uint32_t level, std::uint64_t index);
  Task<Result<NodeRef>> load(MapTree& tree, std::uint32_t level, std::uint64_t index);
  bool shared(const Side& older, const Side& newer, std::uint32_t level, std::uint64_t index) const;
  bool may_hide_more(const MapTree& tree, std::uint32_t level, std::uint64_t index) const;
  void add(std::uint64_t end_block, bool changed);
  bool full() const { return extents_.size() > extents_max_ || leaves_left_ == 0 || at_ == end_; }

  MapCache& cache_;
  MapTree& older_;
  MapTree& newer_;
  std::uint64_t at_ = 0, end_ = 0;  // bytes
  std::size_t extents_max_ = 0;
  std::size_t leaves_left_ = 0;
  std::vector<ChangeExtent> extents_;
};

}  // namespace tandem::store
