// SnapshotHandle: a volume as a snapshot keeps it; read-only, in any role of its group.
//
// Thread: the reactor's. A handle may outlive its snapshot and its group's closing: then every
// operation says so.
#pragma once

#include <memory>
#include <vector>

#include "store/group.h"

namespace tandem::store {

class SnapshotHandle final : public Volume {
 public:
  SnapshotHandle(std::shared_ptr<Group> group, Group::SnapshotPtr snapshot, std::size_t index)
      : owner_(std::move(group)), group_(*owner_), snapshot_(std::move(snapshot)), index_(index) {}

  VolumeInfo info() const override;
  Task<Result<IoBuffer>> read(std::uint64_t offset, std::uint64_t length) override;
  Task<Status> write(std::uint64_t offset, IoBuffer data, WriteOptions options) override;
  Task<Status> flush() override;
  Task<Status> discard(std::uint64_t offset, std::uint64_t length, WriteOptions options) override;
  Task<Status> write_zeroes(std::uint64_t offset, std::uint64_t length,
                            WriteOptions options) override;
  Task<Result<std::vector<AllocationExtent>>> allocation(std::uint64_t offset, std::uint64_t length,
                                                         std::size_t extents_max) override;
  std::vector<std::string> snapshots() const override;
  Result<std::shared_ptr<Changes>> changes_since(std::string_view snapshot) override;

 private:
  friend class SnapshotChanges;

  /// An operation under way; while there is one, a deleted snapshot keeps its blocks.
  class Reading {
   public:
    explicit Reading(Group::Snapshot& snapshot) : snapshot_(snapshot) { ++snapshot_.readers; }
    Reading(const Reading&) = delete;
    Reading& operator=(const Reading&) = delete;
    ~Reading() { --snapshot_.readers; }

   private:
    Group::Snapshot& snapshot_;
  };
  Task<Status> ready();  // waits until the maps are there
  Task<Status> ready(std::uint64_t offset, std::uint64_t length);
  Status still_there() const;
  Status check(std::uint64_t offset, std::uint64_t length) const;          // the range
  Group::VolumeCore& core() const { return *snapshot_->volumes[index_]; }  // once it is ready
  Status read_only() const;

  const std::shared_ptr<Group> owner_;
  Group& group_;
  const Group::SnapshotPtr snapshot_;
  const std::size_t index_;  // in its state's volumes
};

}  // namespace tandem::store
