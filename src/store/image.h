// Both ends of a full copy of a group, or of a difference from a state that both hold.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "store/aside.h"
#include "store/snapshot_pin.h"

namespace tandem::store {

/// The sending end: the state of the last checkpoint, read through trees of its own. While it
/// exists, no block that a checkpoint released is reused, so everything it can reach stays.
struct Group::ImageSource {
  struct Source {
    format::VolumeState state;
    MapTree tree;
  };
  Lsn since;  // only what changed behind it
  std::vector<Source> volumes;
  std::size_t volume = 0;  // being read
  std::uint64_t next_leaf = 0;
  NodeRef leaf;  // being read, from `entry` on
  std::uint32_t entry = 0;
};

/// The receiving end. A difference begins as the state that it differs from, which is kept at least
/// as long; what it replaces of that becomes the list of the new state.
struct Group::ImageTarget : Group::Aside {
  message::ImageBegin begin;
  SnapshotPtr base;  // null: a full copy
  std::unique_ptr<SnapshotPin> pin;
  DeadChain held;          // what it replaced, as far as it is listed; in blocks of `data`
  bool abandoned = false;  // its blocks are about to be given back
};

}  // namespace tandem::store
