// Both ends of a full copy of a group.
#pragma once

#include <set>
#include <vector>

#include "store/group.h"

namespace tandem::store {

/// The sending end: the state of the last checkpoint, read through trees of its own. While it
/// exists, no block that a checkpoint released is reused, so everything it can reach stays.
struct Group::ImageSource {
  struct Source {
    format::VolumeState state;
    MapTree tree;
  };
  std::vector<Source> volumes;
  std::size_t volume = 0;  // being read
  std::uint64_t next_leaf = 0;
  NodeRef leaf;  // being read, from `entry` on
  std::uint32_t entry = 0;
};

/// The receiving end: volumes that no descriptor names yet. Their blocks are left out of every
/// checkpoint's bitmap, so a crash forgets them without a trace.
struct Group::ImageTarget {
  message::ImageBegin begin;
  std::map<VolumeId, VolumePtr> volumes;
  std::vector<Extent> data;   // blocks taken for data
  std::set<PoolBlock> nodes;  // blocks taken for map nodes
  bool abandoned = false;     // its blocks are about to be given back
};

}  // namespace tandem::store
