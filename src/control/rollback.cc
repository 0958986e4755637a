// Making a kept state the newest again. The store does it with one record; here is who may, and
// what the operator is told.
#include "control/node_control.h"

namespace tandem::control {

// changing_ is not taken: the record may wait for a mirror, and what would release it must not wait
// behind it. A demotion meanwhile drains it as any other write.
Task<Result<RolledBack>> GroupRunner::rollback(Rollback request) {
  auto holder = work_.hold();
  if (!request.branch.empty()) {
    const Status named = check_snapshot_name(request.branch);
    if (!named) co_return named.error();
  }
  auto lock = co_await changing_volumes_.lock();
  const Status may = may_change_volumes();
  if (!may) co_return may.error();
  auto to = find_snapshot(request.snapshot);
  if (!to) co_return to.error();
  auto rolling = group_.rollback(std::move(request.snapshot), std::move(request.branch));
  const auto end = co_await std::move(rolling);
  if (!end) co_return end.error();
  RolledBack done{.to = std::move(*to), .branch = {}};
  for (const auto* kept : group_.kept_states()) {
    const bool is_it = kept->kind == format::SnapshotKind::kBranch && kept->at.lsn == end->lsn;
    if (!is_it || !kept->has_name() || kept->name == done.to.name) continue;
    auto branch = find_snapshot(kept->name);
    if (branch) done.branch = std::move(*branch);
  }
  co_return done;
}

Task<Result<RolledBack>> NodeControl::rollback(Rollback request) {
  auto holder = work_.hold();
  auto runner = find_group(request.group);
  if (!runner) co_return runner.error();
  auto rolling = (*runner)->rollback(std::move(request));
  co_return co_await std::move(rolling);
}

}  // namespace tandem::control
