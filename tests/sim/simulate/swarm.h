// What one seed's world is like: which faults there are, how often, and what the operator does.
//
// Each seed first draws which faults are on at all. A world with everything in it at once spends
// its time in outages; worlds with few faults each reach further (Groce et al., "Swarm testing").
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/sim/store_node.h"

namespace tandem::sim {

/// What may happen in one step of the safety phase.
enum class Act : std::size_t {
  kWait,          // nothing, for seconds
  kStart,         // a node that is down or stopped is started
  kKill,          // a process ends
  kPowerCut,      // a machine loses its power: writes are kept, lost or torn
  kCutAtMoment,   // the same at a moment between two events of its disk
  kCutInStart,    // the next start of a node ends in a power cut
  kStall,         // a request of a disk takes seconds
  kReadError,     // a read fails with EIO
  kWriteError,    // a write fails with EIO
  kFlushError,    // a flush fails, and loses data
  kCut,           // streams end
  kSwallow,       // streams go silent, and new ones overlap them
  kUnreachable,   // streams end, and nobody can be dialled
  kOneWay,        // one direction is silent
  kHeal,          // the network is whole again
  kPause,         // a machine stands still, perhaps past every time-out
  kClock,         // a wall clock is set
  kPromote,       // the operator promotes if the node lets him
  kForce,         // he promotes by force
  kSwitchover,    // the planned way
  kDemote,        // the primary is made a mirror
  kAddMirror,     // the other node is named as a mirror
  kMode,          // another mode
  kSnapshot,      // a snapshot
  kDropSnapshot,  // is deleted
  kRollback,      // or made the newest state again
  kCheckpoint,
  kLook,     // what if the mirror's machine failed now, and its disk were promoted?
  kRot,      // blocks at rest go bad on one node, of which the other one has whole ones
  kScrub,    // the operator has all of a copy read
  kCompact,  // or what lies scattered moved together
  kCount
};
inline constexpr std::size_t kActs = static_cast<std::size_t>(Act::kCount);
const char* name_of(Act act);

struct Swarm {
  StoreShape shape;
  ReplicationMode mode = ReplicationMode::kAsync;
  std::array<std::uint32_t, kActs> weights{};  // 0: never
  std::size_t episodes = 2;                    // each a safety and a liveness phase
  std::size_t steps = 60;                      // of a safety phase
  Nanoseconds pace{20'000'000};                // between two steps, at most
  std::uint32_t pauses_of_clients = 20;        // a weight in their mix
  bool small_pool = false;

  static Swarm from_seed(std::uint64_t seed);
  bool rots() const { return weight(Act::kRot) != 0; }
  std::uint32_t weight(Act act) const { return weights[static_cast<std::size_t>(act)]; }
  void set_weight(Act act, std::uint64_t weight) {
    weights[static_cast<std::size_t>(act)] = static_cast<std::uint32_t>(weight);
  }
  std::string text() const;
  nlohmann::json json() const;
};

}  // namespace tandem::sim
