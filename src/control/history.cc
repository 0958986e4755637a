// The history of this node's copies: how much of it is kept, what there is, and keeping a state out
// of it.
#include "control/node_control.h"
#include "tandem/base/log.h"

namespace tandem::control {
namespace {

/// Who asked for a time is told which there are.
Error with_times(Error error, const store::Group::HistoryStatus& kept) {
  if (error.code == ErrorCode::kNotFound && kept.start)
    error.message += ", of " + time_name(kept.start->utc) + " to now";
  return error;
}

}  // namespace

void GroupRunner::apply_history(const Settings& settings) {
  const auto policy = replication::history_policy(settings);
  group_.set_history_policy({.window = policy.window, .bytes_max = policy.bytes_max});
}

Task<HistoryStatus> GroupRunner::history() {
  auto holder = work_.hold();
  // First, so that all of it is inside of the window as it is said to be.
  auto changes = co_await group_.volume_changes();
  const auto kept = group_.history_status();
  const Settings settings = replication::group_settings(group_.settings());
  HistoryStatus status;
  status.now = runtime_.clock.utc();
  status.window = settings.at("history");
  status.bytes_max = settings.at("history.bytes");
  status.start = kept.start;
  status.head = group_.head();
  status.bytes = kept.bytes;
  status.marks = kept.marks;
  if (kept.start) {
    std::erase_if(changes, [&](const auto& c) { return c.at.lsn < kept.start->lsn; });
    status.volume_changes = std::move(changes);
  }
  co_return status;
}

Task<Result<SnapshotStatus>> GroupRunner::keep_point(KeepPoint request) {
  auto holder = work_.hold();
  if (group_.stopped()) co_return unavailable();
  Lsn at = request.lsn.value_or(group_.head().lsn);
  if (request.time) {
    const auto found = co_await group_.position_at(*request.time);
    if (!found) co_return with_times(found.error(), group_.history_status());
    at = found->lsn;
  }
  if (request.name.empty()) {
    const std::string name = fmt::format("point-{}", at.value);
    request.name = name;
    for (int again = 2; has_snapshot(request.name); ++again)
      request.name = fmt::format("{}-{}", name, again);
  }
  const Status named = check_snapshot_name(request.name);
  if (!named) co_return named.error();
  std::string name = request.name;
  auto keeping = group_.keep_point(at, std::move(request.name), std::move(request.label));
  const auto kept = co_await std::move(keeping);
  if (!kept) co_return kept.error();
  log_event(Level::kInfo, "point.kept", "group={} point={} lsn={}", name_, name, kept->lsn.value);
  co_return find_snapshot(name);
}

// --- the node
// -------------------------------------------------------------------------------------

Task<Result<HistoryStatus>> NodeControl::history(std::string group) {
  auto holder = work_.hold();
  const auto runner = find_group(group);
  if (!runner) co_return runner.error();
  auto reading = (*runner)->history();
  co_return co_await std::move(reading);
}

Task<Result<SnapshotStatus>> NodeControl::keep_point(KeepPoint request) {
  auto holder = work_.hold();
  auto runner = find_group(request.group);
  if (!runner) co_return runner.error();
  auto keeping = (*runner)->keep_point(std::move(request));
  co_return co_await std::move(keeping);
}

}  // namespace tandem::control
