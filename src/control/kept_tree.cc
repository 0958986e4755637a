#include "control/kept_tree.h"

#include <algorithm>

namespace tandem::control {

using format::SnapshotId;
using format::SnapshotState;

namespace {

class Tree {
 public:
  Tree(const std::vector<SnapshotState>& states, SnapshotId live_parent) {
    for (const auto& state : states) states_[state.id] = &state;
    // Each at most once, whatever the states say.
    for (auto id = live_parent; find(id) != nullptr && next_on_way_.count(id) == 0;) {
      next_on_way_[id] = last_;
      last_ = id;
      id = find(id)->parent;
    }
  }

  const SnapshotState* find(SnapshotId id) const {
    const auto found = states_.find(id);
    return found == states_.end() ? nullptr : found->second;
  }

  /// `id` itself, or the nearest with a name that it came out of; null: none.
  const SnapshotState* named(SnapshotId id) const {
    const SnapshotState* state = find(id);
    for (std::size_t i = 0; state != nullptr && !state->has_name() && i < states_.size(); ++i)
      state = find(state->parent);
    return state != nullptr && state->has_name() ? state : nullptr;
  }

  bool was_abandoned(const SnapshotState& state) const {
    if (next_on_way_.count(state.id) != 0) return false;
    auto id = state.parent;
    for (std::size_t i = 0; find(id) != nullptr && i < states_.size(); ++i) {
      if (next_on_way_.count(id) != 0) return true;
      id = find(id)->parent;
    }
    return false;
  }

  /// Not counting what the live state's way there gave up last.
  std::uint64_t held_by(const SnapshotState& state) const {
    const auto way = next_on_way_.find(state.id);
    if (way != next_on_way_.end()) {
      const SnapshotState* next = find(way->second);
      return next == nullptr ? 0 : next->held.entries;
    }
    const SnapshotState* parent = find(state.parent);
    const std::uint64_t shared = parent == nullptr ? 0 : parent->pool_blocks();
    const std::uint64_t gone = shared + state.reaped.freed_blocks;
    const std::uint64_t all = state.pool_blocks() + state.held.entries;
    return all > gone ? all - gone : 0;
  }

 private:
  std::map<SnapshotId, const SnapshotState*> states_;
  std::map<SnapshotId, SnapshotId> next_on_way_;  // towards the live state; 0: it is that
  SnapshotId last_;
};

}  // namespace

std::string nearest_name(const std::vector<SnapshotState>& states, SnapshotId id) {
  const auto* state = Tree(states, SnapshotId{}).named(id);
  return state == nullptr ? "" : state->name;
}

const SnapshotState* newest_consistent(const std::vector<SnapshotState>& states,
                                       SnapshotId live_parent) {
  const Tree tree(states, live_parent);
  const SnapshotState* newest = nullptr;
  for (const auto& state : states) {
    const bool counts = state.has_name() &&
                        state.consistency == format::Consistency::kApplication &&
                        !tree.was_abandoned(state);
    if (counts && (newest == nullptr || state.at.lsn > newest->at.lsn)) newest = &state;
  }
  return newest;
}

std::map<SnapshotId, KeptUse> uses_of(const std::vector<SnapshotState>& states,
                                      SnapshotId live_parent, std::uint64_t blocks) {
  const Tree tree(states, live_parent);
  std::map<SnapshotId, KeptUse> uses;
  const auto count = [&](SnapshotId id, std::uint64_t held) {
    held = std::min(held, blocks);
    blocks -= held;
    if (const auto* state = tree.named(id)) uses[state->id].held_blocks += held;
  };
  for (const auto& state : states) {
    if (state.has_name()) {
      const auto* parent = tree.named(state.parent);
      uses[state.id].parent = parent == nullptr ? "" : parent->name;
    }
    count(state.id, tree.held_by(state));
  }
  count(live_parent, blocks);
  return uses;
}

}  // namespace tandem::control
