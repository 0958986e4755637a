#include "store/snapshot_changes.h"

#include "store/map_diff.h"

namespace tandem::store {

/// The maps of both are there, and the range lies in the newer one.
Task<Status> SnapshotChanges::ready(std::uint64_t offset, std::uint64_t length) {
  Status there = co_await older_.ready();
  if (!there) co_return there;
  if (live_) co_return live_->check(offset, length);
  there = co_await kept_->ready();
  if (!there) co_return there;
  // The first one may be gone by now; nothing is awaited any more.
  there = older_.still_there();
  if (!there) co_return there;
  co_return kept_->check(offset, length);
}

Task<Result<std::vector<ChangeExtent>>> SnapshotChanges::extents(std::uint64_t offset,
                                                                 std::uint64_t length,
                                                                 std::size_t extents_max) {
  Group& group = older_.group_;
  auto hold = group.gate_.hold();
  Status fits = co_await ready(offset, length);
  if (!fits) co_return Error(std::move(fits.error()));
  const SnapshotHandle::Reading older(*older_.snapshot_);
  std::optional<SnapshotHandle::Reading> newer;
  if (kept_) newer.emplace(*kept_->snapshot_);
  Group::VolumeCore& volume = live_ ? *live_->core_ : kept_->core();
  MapDiff diff(group.cache_, older_.core().tree, volume.tree);
  auto runs = co_await diff.run(offset, length, extents_max);
  // A live map may have been replaced altogether by now; then the group does not serve.
  if (live_) fits = live_->check(offset, length);
  if (!fits) co_return Error(std::move(fits.error()));
  co_return std::move(runs);
}

// --- where they come from
// --------------------------------------------------------------------------

std::vector<std::string> Group::snapshots_with(std::string_view volume) const {
  std::vector<std::string> names;
  for (const auto& [id, snapshot] : snapshots_) {
    if (snapshot->state.has_name() && snapshot->index_of(volume))
      names.push_back(snapshot->state.name);
  }
  return names;
}

std::vector<std::string> VolumeHandle::snapshots() const {
  return group_.snapshots_with(core_->state.name);
}

Result<std::shared_ptr<Changes>> VolumeHandle::changes_since(std::string_view snapshot) {
  auto older = group_.handle_of(snapshot, core_->state.name);
  if (!older) return Error(std::move(older.error()));
  return std::shared_ptr<Changes>(
      std::make_shared<SnapshotChanges>(std::move(*older), VolumeHandle(owner_, core_)));
}

std::vector<std::string> SnapshotHandle::snapshots() const {
  auto names = group_.snapshots_with(snapshot_->state.volumes[index_].name);
  std::erase(names, snapshot_->state.name);
  return names;
}

Result<std::shared_ptr<Changes>> SnapshotHandle::changes_since(std::string_view snapshot) {
  auto older = group_.handle_of(snapshot, snapshot_->state.volumes[index_].name);
  if (!older) return Error(std::move(older.error()));
  return std::shared_ptr<Changes>(std::make_shared<SnapshotChanges>(std::move(*older), *this));
}

}  // namespace tandem::store
