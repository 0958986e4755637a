// What making an older state the newest undoes, said before it is done.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "ctl/context.h"
#include "ctl/json.h"

namespace tandem::ctl {

/// Between a kept state and the present one.
struct Undone {
  std::uint64_t records = 0;
  std::uint64_t bytes = 0;             // that they wrote
  std::uint64_t seconds = 0;           // between the two
  std::vector<std::string> disappear;  // volumes
  std::vector<std::string> come_back;
  struct Resized {
    std::string volume;
    std::uint64_t from_bytes = 0, to_bytes = 0;
  };
  std::vector<Resized> resized;
};
Undone undone_by(const GroupStatus& group, const SnapshotStatus& to);
std::string undone_text(const GroupStatus& group, const SnapshotStatus& to, UtcNs now);
Json to_json(const Undone& undone);

/// A node that serves `group`, and how it is there. Without a client the message was given.
struct Serving {
  Client client;
  Exit exit = Exit::kOk;
  NodeStatus node;
  const GroupStatus* group = nullptr;  // in `node`
};
Serving find_serving(Context& context, const std::string& group);

/// Why a copy that is not primary cannot be rolled back.
Error only_primary(const NodeStatus& node, const GroupStatus& group);

/// A mirror follows a rollback to a state that it keeps. One that does not, and whose history
/// cannot give it, needs a full copy.
struct MirrorsReady {
  struct Kept {
    std::string address, name;
  };
  std::vector<Kept> kept;                // points that were kept for this
  std::vector<std::string> full_copies;  // of which mirrors, and why
};
MirrorsReady prepare_mirrors(Context& context, const GroupStatus& group, const SnapshotStatus& to);
/// Nothing was rolled back.
void forget_mirrors(Context& context, const std::string& group, const MirrorsReady& ready);

/// Shows what it undoes, prepares the mirrors, asks for `name` to be typed, rolls back and says
/// what was done.
struct RollbackPlan {
  UtcNs now;
  const GroupStatus& group;
  const SnapshotStatus& to;
  std::string branch;
  std::string name;
  bool yes = false;
};
Exit roll_back(Context& context, rpc::ControlClient& client, const RollbackPlan& plan);

}  // namespace tandem::ctl
