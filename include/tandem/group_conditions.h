// What a group is going through, for its operator: each with its reason in words.
#pragma once

#include <cstdint>
#include <string>

#include "tandem/log_point.h"

namespace tandem {

/// What the declared policy does to writers now.
struct PolicyStatus {
  // normal | degraded (they go on with less protection than declared) | throttled | stalled |
  // blocked (they wait for a mirror)
  std::string state = "normal";
  std::string reason;  // why, in words, for any state that is not "normal"
  UtcNs since;
  // Of the slowest mirror in mode async or flush; 0 with no bound declared.
  std::uint64_t lag_bytes = 0, lag_ms = 0;
};

/// Whether writers of a primary are answered.
struct WritersStatus {
  // answered | waiting (for a second or longer none was) | refused (the pool was too full for one
  // within the last minute)
  std::string state = "answered";
  // Of "waiting": policy | mirror | space | memory | checkpoint | disk.
  std::string cause;
  std::string reason;         // the same in words, for any state that is not "answered"
  UtcNs since;                // "waiting": when one was answered last; "refused": the last one
  std::uint64_t refused = 0;  // for want of space, since the node started
};

/// Another copy of the group was promoted apart from this one, to the same timeline number: neither
/// gives way before an operator has chosen.
struct SplitStatus {
  std::string with;    // the other node, or its address while its name is not known
  std::string reason;  // what each holds, and the commands that end it
  UtcNs since;
};

/// The present or the last run that gave zones of this node's copy back to its pool.
struct CompactionStatus {
  std::string state = "never";  // never | running | finished | stopped
  bool by_itself = false;       // the pool was short of free zones, nobody asked
  UtcNs started, ended;
  std::string outcome;              // why it ended as it did; "": all that was planned was moved
  std::uint64_t zones_chosen = 0;   // to be emptied
  std::uint64_t zones_emptied = 0;  // of those
  std::uint64_t zones_waiting = 0;  // empty when nothing older needs what is left in them
  std::uint64_t total_bytes = 0;    // to be moved, about
  std::uint64_t moved_bytes = 0;
  std::uint64_t bad_blocks = 0;  // that failed their checksum, and stay where they are
};

}  // namespace tandem
