#include "tests/sim/simulate/swarm.h"

namespace tandem::sim {
namespace {

constexpr std::array<const char*, kActs> kNames{
    "wait",          "start",      "kill",        "power-cut",   "cut-at-moment", "cut-in-start",
    "stall",         "read-error", "write-error", "flush-error", "cut",           "swallow",
    "unreachable",   "one-way",    "heal",        "pause",       "clock",         "promote",
    "force",         "switchover", "demote",      "add-mirror",  "mode",          "snapshot",
    "drop-snapshot", "rollback",   "checkpoint",  "look",        "rot",           "scrub",
    "compact"};
/// Those from here on are drawn apart, so that the worlds without them are what they were.
constexpr Act kDrawnApart = Act::kRot;

/// Those that every world has: else a fault at its beginning would be all that ever happens in it.
constexpr bool is_always_on(Act act) {
  return act == Act::kWait || act == Act::kStart || act == Act::kHeal || act == Act::kAddMirror ||
         act == Act::kPromote || act == Act::kLook;
}

}  // namespace

const char* name_of(Act act) { return kNames[static_cast<std::size_t>(act)]; }

Swarm Swarm::from_seed(std::uint64_t seed) {
  SimRandom random(seed * 6700417 + 5);
  Swarm swarm;
  swarm.shape = StoreShape::from_seed(random.fork());
  swarm.shape.options.flush_interval = std::chrono::milliseconds(random.chance(1, 2) ? 50 : 500);
  swarm.small_pool = random.chance(1, 4);
  swarm.shape.disk_bytes = swarm.small_pool ? random.between(7, 10) << 20 : std::uint64_t{32} << 20;
  swarm.mode = static_cast<ReplicationMode>(random.below(3));
  const std::uint64_t share = random.between(1, 3);  // of 4: how much is on in this world
  for (std::size_t i = 0; i < static_cast<std::size_t>(kDrawnApart); ++i) {
    const Act act = static_cast<Act>(i);
    if (is_always_on(act)) {
      swarm.weights[i] = static_cast<std::uint32_t>(random.between(2, 8));
    } else if (random.chance(share, 4)) {
      swarm.weights[i] = static_cast<std::uint32_t>(random.between(1, 8));
    }
  }
  swarm.episodes = random.between(1, 3);
  swarm.steps = random.between(20, 100);
  swarm.pace = Nanoseconds(random.chance(1, 3) ? 4'000'000 : 40'000'000);
  swarm.pauses_of_clients = static_cast<std::uint32_t>(random.between(2, 30));
  SimRandom apart(seed * 7919 + 3);
  if (apart.chance(1, 3)) {
    for (const Act act : {Act::kRot, Act::kScrub})
      swarm.weights[static_cast<std::size_t>(act)] =
          static_cast<std::uint32_t>(apart.between(act == Act::kRot ? 2 : 0, 8));
  }
  SimRandom moves(seed * 104729 + 7);
  if (moves.chance(1, 4)) swarm.set_weight(Act::kCompact, moves.between(2, 8));
  return swarm;
}

std::string Swarm::text() const {
  std::string text = std::string("mode ") + to_string(mode) + ", pool " +
                     std::to_string(shape.disk_bytes >> 20) + " MiB, " + std::to_string(episodes) +
                     " episodes of " + std::to_string(steps) + " steps:";
  for (std::size_t i = 0; i < kActs; ++i) {
    if (weights[i] != 0) text += std::string(" ") + kNames[i] + "=" + std::to_string(weights[i]);
  }
  return text;
}

nlohmann::json Swarm::json() const {
  nlohmann::json acts = nlohmann::json::object();
  for (std::size_t i = 0; i < kActs; ++i) {
    if (weights[i] != 0) acts[kNames[i]] = weights[i];
  }
  return {{"mode", to_string(mode)},
          {"pool_bytes", shape.disk_bytes},
          {"episodes", episodes},
          {"steps", steps},
          {"acts", acts}};
}

}  // namespace tandem::sim
