// The tree of kept states as an operator sees it: those without a name are left out, and each block
// that is kept for them only is counted once.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "store/group.h"

namespace tandem::control {

/// As Group::kept_states() gives them.
using KeptStates = std::vector<const format::SnapshotState*>;

struct KeptUse {
  std::string parent;             // the state with a name that it came out of; "": none
  std::uint64_t held_blocks = 0;  // kept because of it or of what it came out of
};

/// The state's name, else that of the nearest that it came out of; "": there is none.
std::string nearest_name(const KeptStates& states, format::SnapshotId id);

/// The newest that says it is application-consistent, of those with a name, but for what the live
/// state abandoned: what came out of a state on its way and is not on it itself. What a full copy
/// has cut off from it counts. Null: there is none.
const format::SnapshotState* newest_consistent(const KeptStates& states,
                                               format::SnapshotId live_parent);

/// Of each state with a name. A state that the live one came out of holds what its successor on the
/// way there maps no more; any other what it maps and the one that it came out of does not.
/// `live_parent`: the state that the live one came out of; `blocks`: kept for all together.
std::map<format::SnapshotId, KeptUse> uses_of(const KeptStates& states,
                                              format::SnapshotId live_parent, std::uint64_t blocks);

}  // namespace tandem::control
