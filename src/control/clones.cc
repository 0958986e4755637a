// Clones: groups that begin as a kept state of another group of this node. They are groups like any
// other, but for two things: what their volumes are called on this node, and how easily they go.
#include <algorithm>

#include "control/kept_tree.h"
#include "control/node_control.h"
#include "tandem/base/log.h"

namespace tandem::control {

/// Volumes of a clone are called as those of its origin, so its own name stands in front.
std::string GroupRunner::export_name(std::string_view volume) const {
  return is_clone() ? fmt::format("{}/{}", name_, volume) : std::string(volume);
}

bool GroupRunner::has_volume(std::string_view name) const {
  const auto volumes = group_.volumes();
  return std::any_of(volumes.begin(), volumes.end(), [&](const auto& v) { return v.name == name; });
}

/// Made to be thrown away, and nobody else has a copy of it.
bool GroupRunner::may_be_discarded() const { return is_clone() && replication_->slots().empty(); }

// --- the node
// -------------------------------------------------------------------------------------

std::optional<CloneOrigin> NodeControl::clone_of(const GroupRunner& clone) const {
  if (!clone.is_clone()) return std::nullopt;
  CloneOrigin of;
  const store::Group* origin = pool_.find(clone.group().origin());
  if (origin == nullptr) return of;  // it cannot be opened
  of.group = origin->identity().name;
  for (const auto* state : origin->kept_states()) {
    if (state->id != clone.group().origin_state()) continue;
    if (state->has_name()) of.snapshot = state->name;
    of.lsn = state->at.lsn;
    of.utc = state->at.utc;
  }
  return of;
}

Task<Status> NodeControl::clone_group(CloneGroup request) {
  auto holder = work_.hold();
  auto lock = co_await pool_lock_.lock();
  const Status named = check_group_name(request.name);
  if (!named) co_return named;
  const auto origin = find_group(request.origin);
  if (!origin) co_return origin.error();
  if (runners_.count(request.name) != 0) {
    co_return Error{ErrorCode::kExists,
                    fmt::format("node {} has a group {}", options_.node, request.name)};
  }
  if ((*origin)->group().stopped()) co_return (*origin)->unavailable();
  std::string name = request.name;
  auto cloning = pool_.clone_group((*origin)->group(), request.snapshot, std::move(name));
  auto made = co_await std::move(cloning);
  if (!made) co_return made.error();
  if (stopping_) co_return ok();  // it is there after the next start
  const RunnerPtr runner = run(**made);
  log_event(Level::kInfo, "group.cloned", "group={} origin={} snapshot={}", request.name,
            request.origin, request.snapshot);
  auto waiting = until_it_serves(runner);
  co_await std::move(waiting);
  co_return ok();
}

/// A group without mirrors serves at once; this only lets its first turn pass.
Task<void> NodeControl::until_it_serves(RunnerPtr runner) {
  for (int i = 0; i < 100 && !runner->serves(); ++i)
    co_await sleep_for(runtime_.executor, std::chrono::milliseconds(1));
}

/// Why a group cannot go while there are clones of it.
Status NodeControl::nothing_came_out_of(std::string_view name) const {
  std::string clones;
  for (const auto& [other, runner] : runners_) {
    const auto origin = clone_of(*runner);
    if (origin && origin->group == name) clones += (clones.empty() ? "" : ", ") + other;
  }
  if (clones.empty()) return ok();
  return Error{
      ErrorCode::kRefused,
      fmt::format("group {0} shares data with clones of it: {1}. Discard each with 'tandem group "
                  "delete CLONE', or move it: 'tandem mirror add CLONE NODE' makes a copy that "
                  "shares nothing, for 'tandem switchover'. Deleting the volumes and snapshots of "
                  "{0} gives back at once what its clones do not share",
                  name, clones)};
}

}  // namespace tandem::control
