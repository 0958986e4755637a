// What becomes free with a checkpoint, and what a snapshot keeps.
//
// A block is mapped by the positions in [birth, death). Snapshots ascend, so the newest one in
// front of its death tells whether any needs it: when that one is older than its birth, none does.
// Otherwise the block is *held*: listed with the interval it died in, that is with the snapshot
// behind it, or with the group for what died behind the newest. (ZFS's dead lists; Ahrens, "ZFS
// snapshot delete performance". There is no tree of clones here yet, so intervals are a row.)
//
// Deleting snapshot k looks at one list, that of the interval behind it. What was born behind
// snapshot k-1 was mapped by k alone, and is free; the rest is still mapped by k-1 and joins the
// interval in front. Then the two intervals are one.
#include "store/checkpoint.h"

namespace tandem::store {

namespace {

/// Chunks of one list that a checkpoint works off when a snapshot is deleted: bounds its length.
constexpr std::uint64_t kReapChunksMax = 512;

}  // namespace

void Checkpoint::freeze_snapshots() {
  auto& g = group_;
  const auto held_lists = g.snapshots_.size() + 2;
  descriptor_.held = g.held_;
  if (g.snapshot_due_) {
    format::SnapshotState state;
    state.at = g.head_;
    state.name = std::move(g.snapshot_due_->name);
    state.label = std::move(g.snapshot_due_->label);
    state.consistency = g.snapshot_due_->consistency;
    for (const auto& [id, volume] : g.volumes_) {
      if (volume->state.being_deleted()) continue;
      state.volumes.push_back(volume->state);
      state.volumes.back().height = volume->tree.height;
    }
    // What was held so far died in front of it.
    state.held = std::exchange(descriptor_.held, DeadChain{});
    g.snapshot_due_.reset();
    g.add_snapshot(std::move(state));
    g.runtime_.executor.post([&g, hold = std::make_shared<Gate::Holder>(g.gate_)] { g.advance(); });
  }
  for (const auto& [at, snapshot] : g.snapshots_) {
    descriptor_.snapshots.push_back(snapshot->state);
    gone_.push_back(snapshot->state.being_deleted && snapshot->readers == 0);
  }
  held_.resize(held_lists);
}

/// The maps are written: a new snapshot's roots are those of the frozen state.
void Checkpoint::enter_snapshot_roots() {
  if (descriptor_.snapshots.empty()) return;
  auto& newest = descriptor_.snapshots.back();
  if (group_.snapshots_.at(newest.at.lsn)->ready) return;
  for (auto& v : newest.volumes) {
    for (const auto& now : descriptor_.volumes) {
      if (now.id == v.id) v.root = now.root;
    }
  }
}

void Checkpoint::release(PoolBlock block) {
  group_.space_.release(block);
  released_.push_back(block);
}

/// No position of the log needs it any more.
void Checkpoint::let_go(const DeadBlock& dead) {
  const auto& all = descriptor_.snapshots;
  auto it = std::lower_bound(all.begin(), all.end(), dead.death,
                             [](const auto& s, Lsn death) { return s.at.lsn < death; });
  while (it != all.begin()) {
    --it;
    if (it->at.lsn < dead.birth) break;
    const auto index = static_cast<std::size_t>(it - all.begin());
    if (gone_[index]) continue;
    held_[index + 1].push_back(dead);
    return;
  }
  release(dead.where);
}

DeadChain& Checkpoint::interval_behind(std::size_t snapshot) {
  return snapshot + 1 < descriptor_.snapshots.size() ? descriptor_.snapshots[snapshot + 1].held
                                                     : descriptor_.held;
}

/// A step of deleting the oldest snapshot that is to be deleted: whole in any checkpoint, so a
/// crash frees nothing twice and loses nothing.
Task<Status> Checkpoint::reap_snapshot() {
  const auto first_gone = std::find(gone_.begin(), gone_.end(), true);
  if (first_gone == gone_.end()) co_return ok();
  const auto k = static_cast<std::size_t>(first_gone - gone_.begin());
  auto& all = descriptor_.snapshots;
  DeadChain& behind = interval_behind(k);
  const Lsn before = k == 0 ? Lsn{} : all[k - 1].at.lsn;
  std::vector<DeadBlock> keep;
  for (std::uint64_t n = 0; n < kReapChunksMax && behind.chunks != 0; ++n) {
    // The list that grows takes new blocks before the other's come free.
    if (keep.size() / format::kDeadPerChunk + 4 > Group::kReapReserve) break;
    auto chunk = co_await group_.dead_chunks_.first(behind);
    if (!chunk) co_return Error(std::move(chunk.error()));
    for (const auto& dead : chunk->blocks) {
      if (dead.birth > before) {
        release(dead.where);
      } else {
        keep.push_back(dead);
      }
    }
    group_.dead_chunks_.drop_first(behind, *chunk, released_);
  }
  Status kept = co_await group_.dead_chunks_.append(all[k].held, std::move(keep), taken_);
  if (!kept) co_return kept;
  if (behind.chunks != 0) co_return ok();
  group_.dead_chunks_.dissolve(behind, released_);
  behind = all[k].held;
  reaped_ = all[k].at.lsn;
  all.erase(all.begin() + static_cast<std::ptrdiff_t>(k));
  gone_.erase(gone_.begin() + static_cast<std::ptrdiff_t>(k));
  auto& merged = held_[k + 1];
  merged.insert(merged.end(), held_[k].begin(), held_[k].end());
  held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(k));
  co_return ok();
}

/// Settles everything that died up to the frozen position.
Task<Status> Checkpoint::settle_dead() {
  const auto go = [this](const DeadBlock& dead) { let_go(dead); };
  // What snapshots map moves to other lists, and takes new blocks before the old come free.
  const auto chunks_max = descriptor_.snapshots.empty() ? UINT64_MAX : Group::kSettleChunksMax;
  auto queue = co_await group_.dead_.settle(horizon_, chunks_max, go, taken_, released_);
  if (!queue) co_return Error(std::move(queue.error()));
  descriptor_.dead = *queue;
  Status reaped = co_await reap_snapshot();
  if (!reaped) co_return reaped;
  const std::size_t count = descriptor_.snapshots.size();
  for (std::size_t i = 0; i <= count; ++i) {
    DeadChain& list = i < count ? descriptor_.snapshots[i].held : descriptor_.held;
    Status appended =
        co_await group_.dead_chunks_.append(list, std::exchange(held_[i], {}), taken_);
    if (!appended) co_return appended;
  }
  co_return ok();
}

/// The anchor is durable: memory follows.
void Checkpoint::commit_snapshots() {
  auto& g = group_;
  g.held_ = descriptor_.held;
  if (reaped_ != Lsn{}) g.drop_snapshot(reaped_);
  for (const auto& state : descriptor_.snapshots) {
    const auto snapshot = g.snapshots_.at(state.at.lsn);
    snapshot->state.held = state.held;
    if (snapshot->ready) continue;
    snapshot->state.volumes = state.volumes;
    g.snapshot_is_ready(*snapshot);
  }
}

}  // namespace tandem::store
