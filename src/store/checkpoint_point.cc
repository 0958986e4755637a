// A point becomes a kept state: between the state it was made from and the next one on the live
// line. What is mapped by it is mapped already or waits in a list, so nothing is copied; the lists
// must say which of the two states a block belongs to.
#include "store/checkpoint.h"

namespace tandem::store {

void Checkpoint::take_point() {
  auto& g = group_;
  // Into the line, behind the newest state that is not behind it.
  auto* next = &g.parent_;
  auto* shared = &g.nodes_upto_;
  const Lsn at = g.point_target_->state.at.lsn;
  while (g.snapshots_.at(*next)->state.at.lsn > at) {
    auto& state = g.snapshots_.at(*next)->state;
    next = &state.parent;
    shared = &state.nodes_upto;
  }
  // One that is being taken apart goes first: what it alone maps may be the point's too, and waits.
  if (g.snapshots_.at(*next)->reaping) return;
  point_ = std::exchange(g.point_target_, nullptr);
  g.point_due_ = false;
  auto& state = point_->state;
  state.id = std::exchange(g.next_snapshot_id_, g.next_snapshot_id_.next());
  state.parent = std::exchange(*next, state.id);
  state.nodes_upto = point_->base->state.at.lsn;
  *shared = std::min(*shared, state.nodes_upto);
  state.kind = format::SnapshotKind::kPoint;
  for (const auto& [id, volume] : point_->volumes) {
    state.volumes.push_back(volume->state);
    state.volumes.back().height = volume->tree.height;
    state.volumes.back().root = volume->tree.root;
  }
  const auto kept = g.add_snapshot(state);
  for (const auto& [id, volume] : point_->volumes) kept->volumes.push_back(volume);
}

/// The list of the state behind the point held what the one in front of it maps and that does not.
/// What died up to the point is not mapped by it either, nor are the nodes that it has its own
/// copies of: all that are newer than its base, those of another point among them. What was born
/// and died around it waited for the log's sake only. Its own nodes are nobody else's.
Task<Status> Checkpoint::split_lists() {
  const Lsn at = point_->state.at.lsn;
  const Lsn base = point_->base->state.at.lsn;
  auto listed = co_await group_.dead_chunks_.take_all(list(behind_point_), released_);
  if (!listed) co_return Error(std::move(listed.error()));
  std::set<PoolBlock> replaced;
  for (const auto& node : point_->replaced) replaced.insert(node.where);
  for (const auto& dead : *listed) {
    const bool is_copied = dead.is_node && (dead.birth > base || replaced.count(dead.where) != 0);
    const bool is_gone = dead.death <= at || is_copied;
    held_[is_gone ? point_index_ : behind_point_].push_back(dead);
  }
  auto waited = co_await group_.dead_.take_if(
      [&](const DeadBlock& dead) {
        return !dead.is_node && dead.birth > base && dead.birth <= at && dead.death > at;
      },
      taken_, released_);
  if (!waited) co_return Error(std::move(waited.error()));
  auto& behind = held_[behind_point_];
  behind.insert(behind.end(), waited->begin(), waited->end());
  for (const auto& [node, of] : point_->nodes) behind.push_back({node, of.birth, at.next(), true});
  co_return ok();
}

}  // namespace tandem::store
