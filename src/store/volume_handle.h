// VolumeHandle: a volume as front ends see it. Checks requests, splits and aligns them, and reads.
//
// Thread: the reactor's. A handle may outlive its group's closing: from then on, and whenever the
// group does not serve, every operation answers the group's refusal.
#pragma once

#include <memory>
#include <vector>

#include "store/group.h"

namespace tandem::store {

class VolumeHandle final : public Volume {
 public:
  VolumeHandle(std::shared_ptr<Group> group, std::shared_ptr<Group::VolumeCore> core)
      : owner_(std::move(group)),
        group_(*owner_),
        core_(std::move(core)),
        reader_(group_.reader(*core_)) {}

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

  using Range = BlockRange;
  class RangeEntry;
  class Change;

  Status check() const;
  Status check(std::uint64_t offset, std::uint64_t length) const;
  Task<Result<IoBuffer>> read_edge(std::uint64_t block);
  Task<Status> write_unaligned(std::uint64_t offset, IoBuffer data, Nanoseconds called);
  Task<Status> clear(format::RecordType type, std::uint64_t offset, std::uint64_t length);
  Task<Status> add_zeroed_edge(std::vector<Group::Pending>& records, std::uint64_t block,
                               std::size_t from, std::size_t to);
  void add_write(std::vector<Group::Pending>& records, std::uint64_t first,
                 const IoBuffer& data) const;
  void add_range(std::vector<Group::Pending>& records, format::RecordType type, Range range) const;
  Task<Status> submit(std::vector<Group::Pending> records, Nanoseconds called);
  Task<void> wait_until_free(const std::list<Range>& taken, Range range);

  const std::shared_ptr<Group> owner_;
  Group& group_;
  std::shared_ptr<Group::VolumeCore> core_;
  VolumeReader reader_;
};

}  // namespace tandem::store
