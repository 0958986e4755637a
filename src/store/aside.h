// Volumes that no descriptor names yet: those of a full copy that is being received, or of a point
// that is being made. Checkpoints write their maps, and leave their blocks out of the bitmap, so a
// crash forgets them without a trace.
#pragma once

#include <map>
#include <vector>

#include "store/group.h"

namespace tandem::store {

struct Group::Aside {
  struct Node {
    VolumeId volume;
    Lsn birth;
  };
  std::map<VolumeId, VolumePtr> volumes;
  std::vector<Extent> data;         // blocks taken for data
  std::map<PoolBlock, Node> nodes;  // blocks taken for map nodes
  std::vector<DeadBlock> replaced;  // of the state it began as, which it does not share
};

/// A point: it began as `base` and follows the log.
struct Group::PointTarget : Group::Aside {
  SnapshotPtr base;
  format::SnapshotState state;
};

}  // namespace tandem::store
