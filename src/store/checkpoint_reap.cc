// Kept states that are given up, taken apart in steps: each is whole in any checkpoint, so a crash
// frees nothing twice and loses nothing.
//
//   one successor     what its parent does not map either is free, which the successor's list
//                     tells; the rest of that list joins its own. Then its successor is its
//                     parent's, and has both lists.
//   no successor      the end of a line: what its map names and its parent's does not is free.
//                     Both maps are walked side by side; where they name the same place, all below
//                     is shared. Leaves first with their data, then the levels above, so that what
//                     is still to be walked is still there.
//   several           it waits until one is left.
#include "format/checksum.h"
#include "store/checkpoint.h"

namespace tandem::store {

using format::MapEntry;

namespace {

/// What one checkpoint takes apart: bounds its length.
constexpr std::uint64_t kReapChunksMax = 512;
constexpr std::uint64_t kReapBlocksMax = 1 << 16;

}  // namespace

/// Nodes of one level that the parent's map does not name at the same place.
struct Checkpoint::Unshared {
  MapTree& tree;
  MapTree* base;  // null: all of them
  std::uint32_t level = 0;
  std::uint64_t from = 0;
  std::size_t max = 0;
  std::vector<std::pair<std::uint64_t, MapEntry>> found;  // by index, ascending
};

/// What can go now: `gone_` holds nothing any more, and one state may be the end of a line. Not
/// while its parent is to join it: that has let blocks go which its map still names, and must not
/// become an end itself.
void Checkpoint::choose_reaped() {
  auto& g = group_;
  const auto& all = descriptor_.snapshots;
  gone_.assign(all.size(), false);
  if (g.recovering_) return;
  std::set<format::SnapshotId> joining;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto& snapshot = *g.snapshots_.at(all[i].id);
    gone_[i] = g.is_given_up(snapshot) && g.successors_of(all[i].id) == 1 && g.may_join(snapshot);
    if (gone_[i]) joining.insert(all[i].id);
  }
  for (std::size_t i = 0; i < all.size() && !ended_; ++i) {
    const bool is_end =
        g.is_given_up(*g.snapshots_.at(all[i].id)) && g.successors_of(all[i].id) == 0;
    if (is_end && (all[i].reaped.has_begun() || joining.count(all[i].parent) == 0)) ended_ = i;
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (gone_[i] || ended_ == i) g.snapshots_.at(all[i].id)->reaping = true;
  }
}

Task<Status> Checkpoint::reap() {
  buried_ = waiting_.size();
  if (ended_) {
    Status done = co_await reap_ended(descriptor_.snapshots[*ended_]);
    if (!done) co_return done;
  }
  for (std::size_t k = 0; k < gone_.size(); ++k) {
    if (!gone_[k]) continue;
    const auto next = successor_of(k);
    if (next < descriptor_.snapshots.size() && descriptor_.snapshots[next].reaped.has_begun()) {
      continue;
    }
    Status merged = co_await merge(k, next);
    co_return merged;
  }
  co_return ok();
}

/// The only one, as an index; that of the live state is behind the last.
std::size_t Checkpoint::successor_of(std::size_t k) const {
  const auto& all = descriptor_.snapshots;
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (all[i].parent == all[k].id) return i;
  }
  CHECK(descriptor_.parent == all[k].id);
  return all.size();
}

/// What taking apart has added to lists so far, and `more`; the rest has a reserve of its own.
std::uint64_t Checkpoint::chunks_for(std::size_t more) const {
  return (waiting_.size() - buried_ + more) / format::kDeadPerChunk + 4;
}

Task<Status> Checkpoint::merge(std::size_t k, std::size_t next) {
  auto& state = descriptor_.snapshots[k];
  DeadChain& behind = list(next);
  // What died on an abandoned way waits for nobody.
  const bool is_ours =
      next == descriptor_.snapshots.size() || group_.is_in_log(descriptor_.snapshots[next].at);
  Lsn before;
  for (const auto& s : descriptor_.snapshots) {
    if (s.id == state.parent) before = s.at.lsn;
  }
  std::vector<DeadBlock> keep;
  for (std::uint64_t n = 0; n < kReapChunksMax && behind.chunks != 0; ++n) {
    // Lists that grow take new blocks before the other's come free.
    if (chunks_for(keep.size()) > Group::kReapReserve) break;
    auto chunk = co_await group_.dead_chunks_.first(behind);
    if (!chunk) co_return Error(std::move(chunk.error()));
    for (auto& dead : chunk->blocks) {
      if (!is_ours) dead.death = Lsn{};
      if (dead.birth > (dead.is_node ? std::min(before, state.nodes_upto) : before)) {
        let_go(dead);
      } else {
        keep.push_back(dead);
      }
    }
    group_.dead_chunks_.drop_first(behind, *chunk, released_);
  }
  Status kept = co_await group_.dead_chunks_.append(state.held, std::move(keep), taken_);
  if (!kept || behind.chunks != 0) co_return kept;
  group_.dead_chunks_.dissolve(behind, released_);
  behind = state.held;
  (next < descriptor_.snapshots.size() ? descriptor_.snapshots[next].parent : descriptor_.parent) =
      state.parent;
  nodes_upto(next) = std::min(nodes_upto(next), state.nodes_upto);
  state.held = DeadChain{};
  auto& merged = held_[next];
  merged.insert(merged.end(), held_[k].begin(), held_[k].end());
  held_[k].clear();
  dropped_.insert(state.id);
  co_return ok();
}

Task<Status> Checkpoint::reap_ended(format::SnapshotState& state) {
  const auto snapshot = group_.snapshots_.at(state.id);
  const auto found = group_.snapshots_.find(state.parent);
  const auto parent = found == group_.snapshots_.end() ? nullptr : found->second;
  auto& at = state.reaped;
  std::uint64_t budget = kReapBlocksMax;
  while (at.volume < state.volumes.size() && budget != 0) {
    auto& tree = snapshot->volumes[at.volume]->tree;
    if (at.level == tree.height) {
      at = {at.volume + 1, 0, 0, at.freed_blocks};
      continue;
    }
    MapTree* base = nullptr;
    for (std::size_t i = 0; parent && i < parent->volumes.size(); ++i) {
      if (parent->state.volumes[i].id == state.volumes[at.volume].id) {
        base = &parent->volumes[i]->tree;
      }
    }
    constexpr std::size_t kNodes = 64;
    Unshared walk{tree, base, at.level, at.next, kNodes, {}};
    Status done = co_await find_unshared(walk);
    for (const auto& [index, entry] : walk.found) {
      if (!done || chunks_for(0) > Group::kReapReserve) {
        budget = 0;
        break;
      }
      std::uint64_t freed = group_.is_borrowed(entry.where) ? 0 : 1;
      const bool is_own = freed != 0;
      if (at.level == 0) done = co_await let_go_data(walk, index, state, freed);
      if (!done) break;
      if (is_own) release(entry.where);
      at.next = index + 1;
      at.freed_blocks += freed;
      budget -= std::min(budget, freed);
    }
    if (!done) co_return done;
    if (walk.found.size() < kNodes && budget != 0)
      at = {at.volume, at.level + 1, 0, at.freed_blocks};
  }
  if (at.volume < state.volumes.size()) co_return ok();
  // Its parent maps what it did not map any more.
  for (std::uint64_t n = 0; n < kReapChunksMax && state.held.chunks != 0; ++n) {
    auto chunk = co_await group_.dead_chunks_.first(state.held);
    if (!chunk) co_return Error(std::move(chunk.error()));
    at.freed_blocks -= chunk->blocks.size();
    group_.dead_chunks_.drop_first(state.held, *chunk, released_);
  }
  if (state.held.chunks != 0) co_return ok();
  group_.dead_chunks_.dissolve(state.held, released_);
  dropped_.insert(state.id);
  co_return ok();
}

/// The data of a leaf that the other map does not name at the same place.
Task<Status> Checkpoint::let_go_data(Unshared& walk, std::uint64_t index,
                                     const format::SnapshotState& state, std::uint64_t& freed) {
  auto leaf = co_await group_.cache_.load(walk.tree, 0, index, false);
  if (!leaf) co_return Error(std::move(leaf.error()));
  NodeRef base;
  if (walk.base != nullptr && index < leaves_below(walk.base->height - 1)) {
    auto loaded = co_await group_.cache_.load(*walk.base, 0, index, false);
    if (!loaded) co_return Error(std::move(loaded.error()));
    base = std::move(*loaded);
  }
  // A mirror may still ask for the records that wrote them, if they are in its log.
  const Lsn death = group_.is_in_log(state.at) ? state.at.lsn : Lsn{};
  for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
    const MapEntry entry = (*leaf)->entry(i);
    if (!entry.has_data() || (base && base->entry(i) == entry)) continue;
    if (group_.is_borrowed(entry.where)) continue;
    let_go({entry.where, std::min(entry.lsn, death), death});
    ++freed;
  }
  co_return ok();
}

Task<Status> Checkpoint::find_unshared(Unshared& walk) {
  const std::uint32_t top = walk.tree.height - 1;
  const MapEntry root = walk.tree.root;
  if (!root.has_data()) co_return ok();
  const bool same_height = walk.base != nullptr && walk.base->height == walk.tree.height;
  if (same_height && walk.base->root == root) co_return ok();
  co_return co_await find_unshared(walk, top, 0, root);
}

/// Below a node that the other map does not name there.
Task<Status> Checkpoint::find_unshared(Unshared& walk, std::uint32_t level, std::uint64_t index,
                                       MapEntry entry) {
  if (level == walk.level) {
    walk.found.emplace_back(index, entry);
    co_return ok();
  }
  auto node = co_await group_.cache_.load(walk.tree, level, index, false);
  if (!node) co_return Error(std::move(node.error()));
  NodeRef base;
  if (walk.base != nullptr && level < walk.base->height &&
      index < leaves_below(walk.base->height - 1 - level)) {
    auto loaded = co_await group_.cache_.load(*walk.base, level, index, false);
    if (!loaded) co_return Error(std::move(loaded.error()));
    base = std::move(*loaded);
  }
  const std::uint64_t below = leaves_below(level - 1 - walk.level);
  for (std::uint32_t i = 0; i < format::kMapFanout && walk.found.size() < walk.max; ++i) {
    const std::uint64_t child = index * format::kMapFanout + i;
    if ((child + 1) * below <= walk.from) continue;
    const MapEntry named = (*node)->entry(i);
    MapEntry other = base ? base->entry(i) : MapEntry{};
    if (walk.base != nullptr && level == walk.base->height && child == 0) other = walk.base->root;
    if (!named.has_data() || named == other) continue;
    Status done = co_await find_unshared(walk, level - 1, child, named);
    if (!done) co_return done;
  }
  co_return ok();
}

}  // namespace tandem::store
