// Both ends of a full copy of a group.
#pragma once

#include <vector>

#include "store/aside.h"

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

/// The receiving end.
struct Group::ImageTarget : Group::Aside {
  message::ImageBegin begin;
  bool abandoned = false;  // its blocks are about to be given back
};

}  // namespace tandem::store
