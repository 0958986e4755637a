// Clones: groups that began as a kept state of another group of the pool. Their maps name blocks of
// that group until they replace them; such a block is borrowed: it is never freed or listed here,
// and the state it is part of stays as long as the clone does.
#include "store/group.h"
#include "tandem/base/log.h"

namespace tandem::store {

bool Group::is_borrowed(PoolBlock block) const {
  return !origin_.is_nil() && !pool_.owns(slot_, pool_.superblock().zone_of(block));
}

Task<Result<std::shared_ptr<Group>>> Group::create_clone(Pool& pool, format::Anchor anchor,
                                                         std::string name, Origin origin) {
  if (name.empty() || name.size() > format::kVolumeNameBytesMax) {
    co_return Error{ErrorCode::kInvalid, "a group's name must have 1 to 128 bytes"};
  }
  std::shared_ptr<Group> group(new Group(pool, anchor));
  group->name_ = std::move(name);
  group->origin_ = origin.group;
  group->origin_state_ = origin.state.id;
  // Maps carry positions of the other log: this one goes on behind them.
  group->head_ = group->tail_ = origin.state.at;
  group->head_.timeline = group->tail_.timeline = Timeline{1};
  group->data_horizon_ = group->head_.lsn;
  group->history_.push_back({Timeline{1}, Lsn{0}, pool.runtime().clock.utc()});
  group->next_volume_id_ = origin.next_volume_id;
  for (auto& volume : group->cores_of(origin.state.volumes)) {
    auto& state = volume->state;
    state.borrowed_data = state.data_blocks;
    state.borrowed_nodes = state.map_nodes;
    group->volumes_[state.id] = volume;
  }
  co_return co_await create(pool, std::move(group), anchor);
}

Task<Result<Group::Origin>> Group::lend(std::string snapshot) {
  auto hold = gate_.hold();
  if (stopped_ || closing_) co_return refusal();
  const auto found = find_snapshot(snapshot);
  if (!found) {
    co_return Error{ErrorCode::kNotFound, "group " + name_ + " has no snapshot " + snapshot};
  }
  ++found->state.clones;
  while (!found->ready && !stopped_ && !closing_) co_await found->became_ready.wait();
  Status kept = co_await checkpoint();
  if (!kept) co_return Error(std::move(kept.error()));
  co_return Origin{id_, next_volume_id_, found->state};
}

Task<Status> Group::take_back(format::SnapshotId state) {
  auto hold = gate_.hold();
  const auto found = snapshots_.find(state);
  if (found == snapshots_.end() || found->second->state.clones == 0) co_return ok();
  --found->second->state.clones;
  if (stopped_ || closing_) co_return ok();  // counted anew at the next start
  co_return co_await checkpoint();
}

void Group::set_clones(std::map<format::SnapshotId, std::uint32_t> clones) {
  for (const auto& [id, snapshot] : snapshots_) snapshot->state.clones = clones[id];
}

bool Group::has_clones() const {
  for (const auto& [id, snapshot] : snapshots_) {
    if (snapshot->state.clones != 0) return true;
  }
  return false;
}

}  // namespace tandem::store
