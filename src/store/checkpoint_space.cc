// What becomes free with a checkpoint, and what a kept state holds.
//
// A block is mapped by the positions in [birth, death) of the line of states it was written in:
// kept states are a tree, a line is the way from one of them, or from the live one, to the root,
// and positions descend on it. A block that dies on the live line is *held* when the newest kept
// state in front of its death is not older than its birth: then that state maps it, and it is
// listed with the next state on the line, whose list holds exactly what its parent maps and it does
// not. (ZFS's dead lists; Ahrens, "ZFS snapshot delete performance".) What no state holds is free,
// once no mirror can ask for it.
//
// Taking a kept state apart (checkpoint_reap.cc) looks at one list, or at one map.
#include "store/checkpoint.h"

#include <algorithm>

#include "store/image.h"

namespace tandem::store {

/// Nothing happened since the state in front of the live one, or ever; and that one stays.
bool Group::leaves_nothing(const Turn& turn) const {
  const auto parent = snapshots_.find(parent_);
  const bool has_parent = parent != snapshots_.end();
  const Lsn before = has_parent ? parent->second->state.at.lsn : Lsn{};
  const bool just_rolled_back =
      !skipped_.empty() && skipped_.back() == format::LsnRange{before, turn.left.lsn};
  const bool is_same = before == turn.left.lsn || just_rolled_back;
  return is_same && (!has_parent || turn.parent == parent_ || parent->second->state.has_name());
}

/// The live state becomes another one; the one so far stays as a branch.
void Checkpoint::take_turn() {
  auto& g = group_;
  auto turn = *std::exchange(g.turn_, std::nullopt);
  turned_ = true;
  left_ = turn.left.lsn;
  auto old = std::exchange(g.volumes_, {});
  for (const auto& volume : turn.volumes) g.volumes_[volume->state.id] = volume;
  for (const auto& [id, volume] : old) volume->left = true;
  if (g.leaves_nothing(turn)) {
    for (const auto& [id, volume] : old) forgotten_.push_back(volume);
  } else {
    format::SnapshotState state;
    state.id = std::exchange(g.next_snapshot_id_, g.next_snapshot_id_.next());
    state.parent = g.parent_;
    state.kind = format::SnapshotKind::kBranch;
    state.at = turn.left;
    state.being_deleted = turn.branch.empty();
    state.name = turn.branch.empty() ? "~" + std::to_string(turn.left.lsn.value) : turn.branch;
    state.held = std::exchange(g.held_, DeadChain{});
    state.skipped = g.skipped_;
    state.nodes_upto = g.nodes_upto_;
    branch_ = g.add_snapshot(std::move(state));
    for (const auto& [id, volume] : old) branch_->volumes.push_back(volume);
  }
  g.parent_ = turn.parent;
  g.skipped_ = std::move(turn.skipped);
  if (turn.held.tail.value != 0) {
    g.dead_chunks_.dissolve(g.held_, released_);  // a state that is kept has an equal one behind it
    g.held_ = turn.held;
  }
  // Its map is its parent's: all nodes of it are shared.
  const auto of = g.snapshots_.find(turn.parent);
  g.nodes_upto_ = of == g.snapshots_.end() ? Lsn{} : of->second->state.at.lsn;
}

/// A snapshot of this very position.
void Checkpoint::take_snapshot() {
  auto due = *std::exchange(group_.snapshot_due_, std::nullopt);
  format::SnapshotState state;
  state.kind = due.kind;
  state.name = std::move(due.body.name);
  state.label = std::move(due.body.label);
  state.consistency = due.body.consistency;
  keep_live(std::move(state));
}

/// A beginning for points between here and the next one.
void Checkpoint::take_mark() {
  format::SnapshotState state;
  state.kind = format::SnapshotKind::kMark;
  keep_live(std::move(state));
}

void Checkpoint::keep_live(format::SnapshotState state) {
  auto& g = group_;
  state.id = std::exchange(g.next_snapshot_id_, g.next_snapshot_id_.next());
  state.parent = std::exchange(g.parent_, state.id);
  state.at = g.head_;
  state.nodes_upto = std::exchange(g.nodes_upto_, g.head_.lsn);
  state.skipped = g.skipped_;
  // What was held so far died in front of it.
  state.held = std::exchange(g.held_, DeadChain{});
  for (const auto& [id, volume] : g.volumes_) {
    if (volume->state.being_deleted()) continue;
    state.volumes.push_back(volume->state);
    state.volumes.back().height = volume->tree.height;
  }
  new_snapshot_ = g.add_snapshot(std::move(state));
}

/// The kept states as of now, and the line on which everything died that this checkpoint settles.
void Checkpoint::freeze_snapshots() {
  auto& g = group_;
  descriptor_.held = g.held_;
  descriptor_.parent = g.parent_;
  descriptor_.next_snapshot_id = g.next_snapshot_id_;
  descriptor_.skipped = g.skipped_;
  descriptor_.nodes_upto = g.nodes_upto_;
  std::map<format::SnapshotId, std::size_t> index;
  descriptor_.snapshots.reserve(g.snapshots_.size());
  for (const auto& [id, snapshot] : g.snapshots_) {
    index.emplace_hint(index.end(), id, descriptor_.snapshots.size());
    descriptor_.snapshots.push_back(snapshot->state);
  }
  tip_ = descriptor_.snapshots.size();
  auto up = g.parent_;
  if (branch_) {
    tip_ = index.at(branch_->state.id);
    up = branch_->state.parent;
  }
  for (; up != format::SnapshotId{}; up = descriptor_.snapshots[line_.back()].parent) {
    line_.push_back(index.at(up));
  }
  std::reverse(line_.begin(), line_.end());
  held_.resize(descriptor_.snapshots.size() + 1);
  if (point_) {
    point_index_ = index.at(point_->state.id);
    behind_point_ = successor_of(point_index_);
  }
  choose_reaped();
  if (new_snapshot_ || turned_) g.advance_soon();
}

/// The maps are written: a new state's roots are those of the frozen one.
void Checkpoint::enter_snapshot_roots() {
  if (!new_snapshot_) return;
  const auto id = new_snapshot_->state.id;
  const auto entry = std::find_if(descriptor_.snapshots.begin(), descriptor_.snapshots.end(),
                                  [id](const auto& s) { return s.id == id; });
  for (auto& v : entry->volumes) {
    for (const auto& now : descriptor_.volumes) {
      if (now.id == v.id) v = now;
    }
  }
}

void Checkpoint::release(PoolBlock block) {
  group_.space_.release(block);
  released_.push_back(block);
}

/// No state maps it: free as soon as no position of the log that a mirror may ask for needs it.
void Checkpoint::let_go(const DeadBlock& dead) {
  if (dead.is_node || dead.death <= horizon_) {
    release(dead.where);
  } else {
    waiting_.push_back(dead);
  }
}

/// Of map nodes, a state shares with its parent what was born up to there.
Lsn& Checkpoint::nodes_upto(std::size_t state) {
  return state < descriptor_.snapshots.size() ? descriptor_.snapshots[state].nodes_upto
                                              : descriptor_.nodes_upto;
}

/// It died on the line.
void Checkpoint::bury(const DeadBlock& dead) {
  const auto& all = descriptor_.snapshots;
  bury(dead, std::lower_bound(line_.cbegin(), line_.cend(), dead.death,
                              [&](std::size_t i, Lsn death) { return all[i].at.lsn < death; }));
}

/// In front of the state `it` of the line, behind the one before.
void Checkpoint::bury(const DeadBlock& dead, std::vector<std::size_t>::const_iterator it) {
  const auto& all = descriptor_.snapshots;
  Lsn shared{UINT64_MAX};
  while (it != line_.begin()) {
    const std::size_t next = it == line_.end() ? tip_ : *it;
    --it;
    if (dead.is_node) shared = std::min(shared, nodes_upto(next));
    if (std::min(shared, all[*it].at.lsn) < dead.birth) break;
    if (gone_[*it]) continue;
    held_[next].push_back(dead);
    return;
  }
  let_go(dead);
}

DeadChain& Checkpoint::list(std::size_t state) {
  return state < descriptor_.snapshots.size() ? descriptor_.snapshots[state].held
                                              : descriptor_.held;
}

/// Settles everything that died up to the frozen position, and a step of what is taken apart.
Task<Status> Checkpoint::settle_dead() {
  for (const auto& dead : group_.dead_.take_frozen()) bury(dead);
  for (const auto& dead : std::exchange(moved_, {})) bury_moved(dead);
  if (point_) {
    Status split = co_await split_lists();
    if (!split) co_return split;
  }
  Status reaped = co_await reap();
  if (!reaped) co_return reaped;
  for (std::size_t i = 0; i < held_.size(); ++i) {
    Status appended =
        co_await group_.dead_chunks_.append(list(i), std::exchange(held_[i], {}), taken_);
    if (!appended) co_return appended;
  }
  if (group_.image_target_) {
    Status listed = co_await list_replaced(*group_.image_target_);
    if (!listed) co_return listed;
  }
  auto queue = co_await group_.dead_.settle(horizon_, std::move(waiting_), taken_, released_);
  if (!queue) co_return Error(std::move(queue.error()));
  descriptor_.dead = *queue;
  std::erase_if(descriptor_.snapshots, [this](const auto& s) { return dropped_.count(s.id) != 0; });
  co_return ok();
}

/// Aside, like the maps that do not share it any more.
Task<Status> Checkpoint::list_replaced(Group::ImageTarget& target) {
  std::vector<Extent> taken;
  Status listed =
      co_await group_.dead_chunks_.append(target.held, std::exchange(target.replaced, {}), taken);
  target.data.insert(target.data.end(), taken.begin(), taken.end());
  co_return listed;
}

/// The anchor is durable: memory follows.
void Checkpoint::commit_snapshots() {
  auto& g = group_;
  g.held_ = descriptor_.held;
  g.parent_ = descriptor_.parent;
  g.nodes_upto_ = descriptor_.nodes_upto;
  for (auto id : dropped_) g.drop_snapshot(id);
  for (const auto& state : descriptor_.snapshots) {
    const auto snapshot = g.snapshots_.at(state.id);
    snapshot->state.held = state.held;
    snapshot->state.parent = state.parent;
    snapshot->state.reaped = state.reaped;
    snapshot->state.nodes_upto = state.nodes_upto;
    if (snapshot->ready) continue;
    snapshot->state.volumes = state.volumes;
    g.snapshot_is_ready(*snapshot);
  }
  g.advance_soon();  // a rollback may wait for a state to be ready
  for (const auto& volume : forgotten_) g.cache_.drop_volume(volume->tree);
}

}  // namespace tandem::store
