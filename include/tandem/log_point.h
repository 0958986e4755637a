// Positions in a group's log, as both nodes and the operator speak of them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tandem/base/units.h"
#include "tandem/base/uuid.h"

namespace tandem {

/// A position and what was true there. Equal group, lsn and digest mean an equal history.
struct LogPoint {
  Timeline timeline{1};
  Lsn lsn;
  Digest digest;                    // chained over every record up to and including lsn
  UtcNs utc;                        // the record's time, primary's clock, never decreasing
  std::uint64_t payload_bytes = 0;  // data written by all records up to lsn, since the group began
  auto operator<=>(const LogPoint&) const = default;
};

/// `timeline` began behind `fork`: its first record has the LSN after it.
struct TimelineFork {
  Timeline timeline;
  Lsn fork;
  UtcNs utc;
  auto operator<=>(const TimelineFork&) const = default;
};
/// Ascending; the first entry is {1, 0}.
using TimelineHistory = std::vector<TimelineFork>;

struct GroupIdentity {
  Uuid group;  // the same on every node that holds a copy
  std::string name;
  Uuid pool;         // the pool this copy lives in
  std::string node;  // its node's name
  auto operator<=>(const GroupIdentity&) const = default;
};

enum class Role {
  kPrimary,  // serves its volumes and appends to the log
  kMirror,   // follows a primary
  kFenced,   // was primary, saw a newer timeline: serves nothing, keeps its data
};
const char* to_string(Role role);

enum class ReplicationMode { kAsync, kFlush, kSync };
const char* to_string(ReplicationMode mode);

}  // namespace tandem
