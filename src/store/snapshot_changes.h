// SnapshotChanges: what differs between a snapshot of a volume and the volume, or another snapshot.
//
// Thread: the reactor's. It may outlive its snapshots and its group's closing: then it says so.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "store/snapshot_handle.h"
#include "store/volume_handle.h"

namespace tandem::store {

class SnapshotChanges final : public Changes {
 public:
  SnapshotChanges(SnapshotHandle older, SnapshotHandle newer)
      : older_(std::move(older)), kept_(std::move(newer)) {}
  SnapshotChanges(SnapshotHandle older, VolumeHandle newer)
      : older_(std::move(older)), live_(std::move(newer)) {}

  Task<Result<std::vector<ChangeExtent>>> extents(std::uint64_t offset, std::uint64_t length,
                                                  std::size_t extents_max) override;

 private:
  Task<Status> ready(std::uint64_t offset, std::uint64_t length);

  SnapshotHandle older_;
  std::optional<SnapshotHandle> kept_;  // one of the two
  std::optional<VolumeHandle> live_;
};

}  // namespace tandem::store
