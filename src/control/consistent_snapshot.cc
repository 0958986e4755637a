// Taking a snapshot, with the operator's commands around it when the group has some.
//
//   before   what writes to the group is brought to a consistent state and held there; its last
//            writes and flushes come here as any others, and are answered
//   record   the snapshot's position, at once; what is not in the log in time is not consistent
//   after    what was held goes on, even though the snapshot may still wait for a mirror or a disk
//
// `after` runs whenever `before` was started, however that ended. A node that was killed between
// them runs `after` when it serves again.
#include <algorithm>

#include "control/group_runner.h"
#include "tandem/base/log.h"

namespace tandem::control {
namespace {

constexpr Nanoseconds kPoll = std::chrono::milliseconds(1);

std::string names_of(const std::vector<format::VolumeState>& volumes) {
  std::string names;
  for (const auto& volume : volumes) names += (names.empty() ? "" : " ") + volume.name;
  return names;
}

}  // namespace

/// A snapshot on its way into the log, looked at by who started it and by who makes it.
struct GroupRunner::Creation {
  std::optional<Result<LogPoint>> made;
  Condition done;
};

/// Whoever cannot wait for the end spawns this.
Task<void> GroupRunner::append_snapshot(std::shared_ptr<Creation> creation,
                                        format::SnapshotBody body,
                                        std::optional<Nanoseconds> consistent_until) {
  auto holder = work_.hold();
  auto lock = co_await changing_volumes_.lock();
  const Status may = may_change_volumes();
  if (may) {
    auto creating = group_.create_snapshot(std::move(body), consistent_until);
    creation->made = co_await std::move(creating);
  } else {
    creation->made = may.error();
  }
  creation->done.notify_all();
}

Task<Result<SnapshotStatus>> GroupRunner::snapshot_without_hooks(CreateSnapshot request,
                                                                 format::Consistency consistency) {
  format::SnapshotBody body{.consistency = consistency,
                            .name = std::move(request.name),
                            .label = std::move(request.label)};
  auto creation = std::make_shared<Creation>();
  auto appending = append_snapshot(creation, std::move(body), std::nullopt);
  co_await std::move(appending);
  if (!*creation->made) co_return creation->made->error();
  co_return announce_snapshot((*creation->made)->lsn);
}

Task<Result<SnapshotStatus>> GroupRunner::snapshot_in_hooks(CreateSnapshot request,
                                                            Nanoseconds limit) {
  auto lock = co_await hooking_.lock();
  Status may = may_change_volumes();
  if (!may) co_return may.error();
  if (has_snapshot(request.name)) {
    co_return Error{ErrorCode::kExists,
                    fmt::format("group {} has a snapshot {}", name_, request.name)};
  }
  const bool required = request.hook == SnapshotHook::kRequire;
  HookCall call{name_, request.name, names_of(group_.volumes()), ""};
  auto freezing = options_.hooks->before(call);
  const Status frozen = co_await std::move(freezing);
  call.held = frozen ? "yes" : "no";
  if (!frozen) {
    note_hook(frozen);
    auto thawing = thaw(call);
    (void)co_await std::move(thawing);
    if (required) co_return frozen.error();
    auto making = snapshot_without_hooks(std::move(request), format::Consistency::kHookFailed);
    auto made = co_await std::move(making);
    if (made) made->warning = frozen.error().message;
    co_return made;
  }
  const Nanoseconds until = runtime_.clock.monotonic() + limit;
  auto creation = std::make_shared<Creation>();
  format::SnapshotBody body{.consistency = format::Consistency::kApplication,
                            .name = request.name,
                            .label = std::move(request.label)};
  spawn(append_snapshot(creation, std::move(body), until));
  while (!creation->made && !has_snapshot(request.name) && runtime_.clock.monotonic() < until)
    co_await sleep_for(runtime_.executor, kPoll);
  auto thawing = thaw(call);
  const Status thawed = co_await std::move(thawing);
  while (!creation->made) co_await creation->done.wait();
  if (!*creation->made) co_return creation->made->error();
  const Lsn lsn = (*creation->made)->lsn;
  Status good = thawed;
  if (thawed) {
    const auto made = find_snapshot(request.name);
    if (made && made->lsn == lsn && made->consistency == "hook failed") {
      good =
          Error{ErrorCode::kRefused,
                fmt::format("the snapshot was not in the log within {:.0f} s, when what wrote to "
                            "the group was let go",
                            std::chrono::duration<double>(limit).count())};
    }
  } else {
    // What was held may have gone on by itself in time, and nobody would know.
    auto doubting = group_.doubt_snapshot(lsn);
    (void)co_await std::move(doubting);
  }
  note_hook(good);
  if (!good && required) {
    auto deleting = delete_snapshot(request.name);
    (void)co_await std::move(deleting);
    co_return Error{ErrorCode::kRefused,
                    good.error().message + "; the snapshot was deleted again on this node"};
  }
  auto made = announce_snapshot(lsn);
  if (made && !good) made->warning = good.error().message;
  co_return made;
}

Task<Status> GroupRunner::thaw(HookCall call) {
  auto running = options_.hooks->after(std::move(call));
  const Status thawed = co_await std::move(running);
  if (!thawed) {
    log_event(Level::kError, "hook.thaw-failed",
              "group={} error=\"{}\" effect=\"what writes to the group may still be held\"", name_,
              thawed.error().message);
  }
  co_return thawed;
}

/// The node that served this group before may have been killed while something was held.
Task<void> GroupRunner::thaw_at_start() {
  auto holder = work_.hold();
  auto lock = co_await hooking_.lock();
  HookCall call{name_, "", names_of(group_.volumes()), "maybe"};
  auto running = options_.hooks->after(std::move(call));
  const Status thawed = co_await std::move(running);
  if (!thawed) {
    log_event(Level::kWarn, "hook.start-failed", "group={} error=\"{}\"", name_,
              thawed.error().message);
  }
}

void GroupRunner::note_hook(const Status& status) {
  hook_ = {status ? "good" : "failed", status ? "" : status.error().message, runtime_.clock.utc()};
}

}  // namespace tandem::control
