#include "control/kept_tree.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace tandem::control {

using format::SnapshotId;
using format::SnapshotState;

namespace {

/// Looked at with thousands of states: sorted by id, and arrays beside them.
class Tree {
 public:
  Tree(const KeptStates& states, SnapshotId live_parent)
      : states_(states), on_way_(states.size()), next_on_way_(states.size()) {
    std::sort(states_.begin(), states_.end(),
              [](const auto* a, const auto* b) { return a->id < b->id; });
    // Each at most once, whatever the states say.
    SnapshotId next;
    for (auto i = index_of(live_parent); i && !on_way_[*i]; i = index_of(states_[*i]->parent)) {
      on_way_[*i] = true;
      next_on_way_[*i] = std::exchange(next, states_[*i]->id);
    }
  }

  const SnapshotState* find(SnapshotId id) const {
    const auto i = index_of(id);
    return i ? states_[*i] : nullptr;
  }

  /// `id` itself, or the nearest with a name that it came out of; null: none.
  const SnapshotState* named(SnapshotId id) const {
    const SnapshotState* state = find(id);
    for (std::size_t i = 0; state != nullptr && !state->has_name() && i < states_.size(); ++i)
      state = find(state->parent);
    return state != nullptr && state->has_name() ? state : nullptr;
  }

  bool was_abandoned(const SnapshotState& state) const {
    if (is_on_way(state.id)) return false;
    auto id = state.parent;
    for (std::size_t i = 0; find(id) != nullptr && i < states_.size(); ++i) {
      if (is_on_way(id)) return true;
      id = find(id)->parent;
    }
    return false;
  }

  /// Not counting what the live state's way there gave up last.
  std::uint64_t held_by(const SnapshotState& state) const {
    const auto i = index_of(state.id);
    if (i && on_way_[*i]) {
      const SnapshotState* next = find(next_on_way_[*i]);
      return next == nullptr ? 0 : next->held.entries;
    }
    const SnapshotState* parent = find(state.parent);
    const std::uint64_t shared = parent == nullptr ? 0 : parent->pool_blocks();
    const std::uint64_t gone = shared + state.reaped.freed_blocks;
    const std::uint64_t all = state.pool_blocks() + state.held.entries;
    return all > gone ? all - gone : 0;
  }

 private:
  std::optional<std::size_t> index_of(SnapshotId id) const {
    const auto found =
        std::lower_bound(states_.begin(), states_.end(), id,
                         [](const auto* state, SnapshotId wanted) { return state->id < wanted; });
    if (found == states_.end() || (*found)->id != id) return std::nullopt;
    return static_cast<std::size_t>(found - states_.begin());
  }
  bool is_on_way(SnapshotId id) const {
    const auto i = index_of(id);
    return i && on_way_[*i];
  }

  KeptStates states_;
  std::vector<bool> on_way_;             // each, to the live state
  std::vector<SnapshotId> next_on_way_;  // of each that is; 0: the live state
};

}  // namespace

std::string nearest_name(const KeptStates& states, SnapshotId id) {
  const auto* state = Tree(states, SnapshotId{}).named(id);
  return state == nullptr ? "" : state->name;
}

const SnapshotState* newest_consistent(const KeptStates& states, SnapshotId live_parent) {
  const Tree tree(states, live_parent);
  const SnapshotState* newest = nullptr;
  for (const auto* state : states) {
    const bool counts = state->has_name() &&
                        state->consistency == format::Consistency::kApplication &&
                        !tree.was_abandoned(*state);
    if (counts && (newest == nullptr || state->at.lsn > newest->at.lsn)) newest = state;
  }
  return newest;
}

std::map<SnapshotId, KeptUse> uses_of(const KeptStates& states, SnapshotId live_parent,
                                      std::uint64_t blocks) {
  const Tree tree(states, live_parent);
  std::map<SnapshotId, KeptUse> uses;
  const auto count = [&](SnapshotId id, std::uint64_t held) {
    held = std::min(held, blocks);
    blocks -= held;
    if (const auto* state = tree.named(id)) uses[state->id].held_blocks += held;
  };
  for (const auto* state : states) {
    if (state->has_name()) {
      const auto* parent = tree.named(state->parent);
      uses[state->id].parent = parent == nullptr ? "" : parent->name;
    }
    count(state->id, tree.held_by(*state));
  }
  count(live_parent, blocks);
  return uses;
}

}  // namespace tandem::control
