// What an operator and the front ends can do with the snapshots of this node's copies.
#include <algorithm>
#include <cctype>

#include "control/kept_tree.h"
#include "control/node_control.h"
#include "control/snapshot_schedule.h"
#include "tandem/base/log.h"

namespace tandem::control {
namespace {

/// After a failure of an automatic snapshot.
constexpr Nanoseconds kAutomaticRetry = std::chrono::seconds(60);

const char* to_text(format::Consistency consistency) {
  switch (consistency) {
    case format::Consistency::kCrash:
      return "crash-consistent";
    case format::Consistency::kApplication:
      return "application-consistent";
    case format::Consistency::kHookFailed:
      return "hook failed";
  }
  return "unknown";
}

SnapshotStatus status_of(const format::SnapshotState& state, const KeptUse& use) {
  SnapshotStatus s;
  s.name = state.name;
  s.label = state.label;
  s.kind = to_text(state.kind);
  s.parent = use.parent;
  s.lsn = state.at.lsn;
  s.utc = state.at.utc;
  s.payload_bytes = state.at.payload_bytes;
  s.consistency = to_text(state.consistency);
  for (const auto& volume : state.volumes) s.volumes.push_back({volume.name, volume.size_bytes});
  s.held_bytes = use.held_blocks * kBlockBytes;
  return s;
}

}  // namespace

/// As volumes' names, and a time may be one.
Status check_snapshot_name(const std::string& name) {
  const auto good = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-' || c == ':';
  };
  if (!name.empty() && name.size() <= format::kSnapshotNameBytesMax &&
      std::all_of(name.begin(), name.end(), good) &&
      std::isalnum(static_cast<unsigned char>(name[0])) != 0) {
    return ok();
  }
  return Error{ErrorCode::kInvalid,
               fmt::format("'{}' cannot be a snapshot's name: use 1 to {} letters, digits, '.', "
                           "'_', '-' and ':', beginning with a letter or digit",
                           name, format::kSnapshotNameBytesMax)};
}

// --- one group
// ------------------------------------------------------------------------------------

std::vector<SnapshotStatus> GroupRunner::snapshot_statuses() const {
  const auto states = group_.kept_states();
  const auto uses = uses_of(states, group_.parent(), group_.use().snapshot_blocks);
  std::vector<SnapshotStatus> all;
  for (const auto* state : states) {
    if (state->has_name()) all.push_back(status_of(*state, uses.at(state->id)));
  }
  const auto policy = replication::snapshot_policy(group_.settings());
  for (auto& keeping : keepings(policy, all, runtime_.clock.utc())) {
    auto& s = all[keeping.index];
    s.automatic = true;
    s.kept_by = std::move(keeping.rules);
    s.goes = keeping.until.value_or(UtcNs{});
  }
  return all;
}

Result<SnapshotStatus> GroupRunner::find_snapshot(std::string_view name) const {
  const auto* state = group_.kept_state(name);
  if (state == nullptr) return no_snapshot(name);
  if (name.substr(0, kAutomaticPrefix.size()) == kAutomaticPrefix) {
    // What keeps it depends on the others.
    for (auto& snapshot : snapshot_statuses()) {
      if (snapshot.name == name) return std::move(snapshot);
    }
  }
  const auto uses = uses_of(group_.kept_states(), group_.parent(), group_.use().snapshot_blocks);
  return status_of(*state, uses.at(state->id));
}

Error GroupRunner::no_snapshot(std::string_view name) const {
  return {ErrorCode::kNotFound,
          fmt::format("group {} has no snapshot {} on node {}", name_, name, options_.node)};
}

std::optional<ConsistentPoint> GroupRunner::consistent_point() const {
  const auto states = group_.kept_states();
  const auto* newest = newest_consistent(states, group_.parent());
  if (newest == nullptr) return std::nullopt;
  return ConsistentPoint{newest->name, newest->at.lsn, newest->at.utc};
}

Task<Result<SnapshotStatus>> GroupRunner::create_snapshot(CreateSnapshot request) {
  auto holder = work_.hold();
  std::optional<Nanoseconds> limit;
  if (options_.hooks != nullptr) limit = options_.hooks->limit(name_);
  if (request.hook == SnapshotHook::kRequire && !limit) {
    co_return Error{ErrorCode::kRefused,
                    fmt::format("node {} has no commands to run around snapshots of group {}: give "
                                "it a [[hook]] in its configuration",
                                options_.node, name_)};
  }
  const Status may = may_change_volumes();
  if (!may) co_return may.error();
  if (request.name.empty()) {
    const std::string now = time_name(runtime_.clock.utc());
    request.name = now;
    for (int again = 2; has_snapshot(request.name); ++again)
      request.name = fmt::format("{}-{}", now, again);
  }
  const Status named = check_snapshot_name(request.name);
  if (!named) co_return named.error();
  if (limit && request.hook != SnapshotHook::kSkip) {
    auto making = snapshot_in_hooks(std::move(request), *limit);
    co_return co_await std::move(making);
  }
  auto making = snapshot_without_hooks(std::move(request), format::Consistency::kCrash);
  co_return co_await std::move(making);
}

/// What was made, for the log and for who asked.
Result<SnapshotStatus> GroupRunner::announce_snapshot(Lsn lsn) {
  for (const auto* state : group_.kept_states()) {
    if (!state->has_name() || state->at.lsn != lsn) continue;
    log_event(Level::kInfo, "snapshot.created", "group={} snapshot={} lsn={} consistency=\"{}\"",
              name_, state->name, lsn.value, to_text(state->consistency));
    return find_snapshot(state->name);
  }
  return Error{ErrorCode::kNotFound, "the snapshot was made and deleted again meanwhile"};
}

Task<Status> GroupRunner::delete_snapshot(std::string name) {
  auto holder = work_.hold();
  if (group_.stopped()) co_return unavailable();
  if (!has_snapshot(name)) co_return no_snapshot(name);
  auto deleting = group_.delete_snapshot(std::move(name));
  co_return co_await std::move(deleting);
}

Task<Status> GroupRunner::rename_snapshot(const RenameSnapshot& request) {
  auto holder = work_.hold();
  if (group_.stopped()) co_return unavailable();
  const Status named = check_snapshot_name(request.new_name);
  if (!named) co_return named;
  const auto* found = group_.kept_state(request.name);
  if (found == nullptr) co_return no_snapshot(request.name);
  std::string from = request.name, to = request.new_name;
  std::string label = request.label.value_or(found->label);
  auto renaming = group_.rename_snapshot(std::move(from), std::move(to), std::move(label));
  co_return co_await std::move(renaming);
}

Task<Result<SnapshotStatus>> GroupRunner::show_snapshot(std::string name) {
  auto holder = work_.hold();
  if (group_.stopped()) co_return unavailable();
  auto found = find_snapshot(name);
  if (!found) co_return found;
  auto counting = group_.blocks_unique_to(std::move(name));
  const auto unique = co_await std::move(counting);
  if (!unique) co_return unique.error();
  found->unique_bytes = *unique * kBlockBytes;
  found->seed = group_.seed_point(found->name);
  co_return found;
}

Result<std::shared_ptr<Volume>> GroupRunner::open_snapshot(std::string_view snapshot,
                                                           std::string_view volume) {
  if (group_.stopped()) return unavailable();
  return handed_out(group_.open_snapshot(snapshot, volume));
}

std::vector<VolumeInfo> GroupRunner::snapshot_exports() const {
  std::vector<VolumeInfo> all;
  if (group_.stopped()) return all;
  for (const auto& state : group_.snapshots()) {
    for (const auto& volume : state.volumes) {
      all.push_back({export_name(volume.name) + "@" + state.name, volume.size_bytes,
                     volume.logical_block_bytes,
                     /*read_only=*/true});
    }
  }
  return all;
}

// --- by schedule
// ----------------------------------------------------------------------------------

void GroupRunner::tick_snapshots() {
  const UtcNs now = runtime_.clock.utc();
  const bool jumped = clock_watch_.doubtful(now, runtime_.clock.monotonic());
  if (jumped && !clock_jumped_) {
    log_event(
        Level::kWarn, "clock.jumped",
        "group={} now={} reason=\"the clock jumped ahead: automatic snapshots are not deleted "
        "for a day; correct the clock if it is wrong\"",
        name_, time_name(now));
  }
  clock_jumped_ = jumped;
  if (automating_ || runtime_.clock.monotonic() < automatic_again_) return;
  const auto policy = replication::snapshot_policy(group_.settings());
  const auto kept = snapshot_statuses();
  const bool due = serves() && !replication_->holds_writers() &&
                   snapshot_is_due(policy, kept, last_automatic_, now);
  std::vector<std::string> expired;
  if (!clock_jumped_) expired = expired_snapshots(policy, kept, now);
  if (!due && expired.empty()) return;
  automating_ = true;
  spawn(automate(due, std::move(expired)));
}

Task<void> GroupRunner::automate(bool due, std::vector<std::string> expired) {
  auto holder = work_.hold();
  Status done = ok();
  if (due) {
    const UtcNs now = runtime_.clock.utc();
    CreateSnapshot request{name_, automatic_name(now), ""};
    auto creating = create_snapshot(std::move(request));
    const auto made = co_await std::move(creating);
    if (made) {
      last_automatic_ = now;
    } else {
      done = made.error();
    }
  }
  for (auto& name : expired) {
    if (stopping_ || !done) break;
    auto deleting = delete_snapshot(std::move(name));
    done = co_await std::move(deleting);
  }
  automating_ = false;
  if (done || stopping_) co_return;
  automatic_again_ = runtime_.clock.monotonic() + kAutomaticRetry;
  log_event(Level::kWarn, "snapshot.automatic-failed", "group={} error=\"{}\" again_in={}s", name_,
            done.error().message, kAutomaticRetry / std::chrono::seconds(1));
}

// --- the node
// -------------------------------------------------------------------------------------

Task<Result<SnapshotStatus>> NodeControl::create_snapshot(CreateSnapshot request) {
  auto holder = work_.hold();
  auto runner = find_group(request.group);
  if (!runner) co_return runner.error();
  auto creating = (*runner)->create_snapshot(std::move(request));
  co_return co_await std::move(creating);
}

Task<Status> NodeControl::delete_snapshot(std::string group, std::string name) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  auto deleting = (*runner)->delete_snapshot(std::move(name));
  co_return co_await std::move(deleting);
}

Task<Status> NodeControl::rename_snapshot(RenameSnapshot request) {
  auto holder = work_.hold();
  auto runner = find_group(request.group);
  if (!runner) co_return runner.error();
  co_return co_await (*runner)->rename_snapshot(request);
}

Task<Result<SnapshotStatus>> NodeControl::show_snapshot(std::string group, std::string name) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  auto showing = (*runner)->show_snapshot(std::move(name));
  co_return co_await std::move(showing);
}

/// "volume@snapshot" or "group/volume@snapshot". The volume itself may be gone, or live in another
/// group by now: a snapshot of the group where it is now comes first.
Result<std::shared_ptr<Volume>> NodeControl::open_snapshot(std::string_view name) {
  const auto at = name.rfind('@');
  const auto volume = name.substr(0, at), snapshot = name.substr(at + 1);
  Error why{ErrorCode::kNotFound, fmt::format("no snapshot {} of a volume {} on node {}", snapshot,
                                              volume, options_.node)};
  const auto slash = volume.find('/');
  if (slash != std::string_view::npos) {
    const auto group = find_group(volume.substr(0, slash));
    if (!group) return why;
    return (*group)->open_snapshot(snapshot, volume.substr(slash + 1));
  }
  const auto home = find_volume(volume);
  if (home) {
    auto opened = (*home)->open_snapshot(snapshot, volume);
    if (opened) return opened;
    why = opened.error();
  }
  for (const auto& [group, runner] : runners_) {
    if (runner->is_clone()) continue;
    auto opened = runner->open_snapshot(snapshot, volume);
    if (opened) return opened;
  }
  return why;
}

}  // namespace tandem::control
