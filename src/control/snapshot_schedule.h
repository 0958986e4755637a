// What is to be done about automatic snapshots. They are known by their names, so that nothing else
// has to be remembered: a primary takes them, and each node deletes what it does not want to keep.
//
// Pure functions of a clock and of what there is.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replication/group_settings.h"
#include "tandem/control.h"

namespace tandem::control {

inline constexpr std::string_view kAutomaticPrefix = "auto-";

/// "auto-2026-11-20T15:30:00Z"; without the prefix what snapshots without a name are called.
std::string automatic_name(UtcNs now);
std::string time_name(UtcNs now);

/// Time is cut into periods of `every` since 1970, each of which gets one. `kept`: ascending.
/// `last`: when one was taken, even if it is there no more; 0: not since the start.
/// A clock that was set back takes none until it has caught up.
bool snapshot_is_due(const replication::SnapshotPolicy& policy,
                     const std::vector<SnapshotStatus>& kept, UtcNs last, UtcNs now);

/// The names of those that are kept no longer, oldest first. The newest is never one: it may be all
/// that there is after a long rest.
std::vector<std::string> expired_snapshots(const replication::SnapshotPolicy& policy,
                                           const std::vector<SnapshotStatus>& kept, UtcNs now);

}  // namespace tandem::control
