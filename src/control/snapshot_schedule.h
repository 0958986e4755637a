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

/// Which rules keep an automatic snapshot, and until when.
struct Keeping {
  std::size_t index = 0;  // in `kept`
  std::vector<std::string>
      rules;                   // newest | keep | hourly | daily | weekly | monthly; none: it goes
  std::optional<UtcNs> until;  // the last of them ends; nothing: no time ends it
};

/// Of each automatic snapshot, in the order of `kept`, which ascends. Each rule keeps what it
/// wants, whatever the others say; calendar periods are UTC's, weeks begin on Monday. The newest is
/// always kept: it may be all that there is after a long rest.
std::vector<Keeping> keepings(const replication::SnapshotPolicy& policy,
                              const std::vector<SnapshotStatus>& kept, UtcNs now);

/// The names of those that no rule keeps, oldest first.
std::vector<std::string> expired_snapshots(const replication::SnapshotPolicy& policy,
                                           const std::vector<SnapshotStatus>& kept, UtcNs now);

/// Notices that the wall clock jumped ahead, by which everything would seem old at once.
class ClockWatch {
 public:
  /// True for a day of running after a jump of more than an hour. Call it now and then.
  bool doubtful(UtcNs utc, Nanoseconds monotonic);

 private:
  std::optional<UtcNs> utc_;
  Nanoseconds monotonic_{};
  Nanoseconds doubtful_until_{};
};

}  // namespace tandem::control
