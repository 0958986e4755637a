// Scrubs of this node's copies: begun by the operator or when the last one is old, each node for
// itself. And what a copy holds, to be compared with another node's.
#include <algorithm>

#include "control/node_control.h"
#include "store/scrub.h"
#include "tandem/base/log.h"

namespace tandem::control {

using State = store::ScrubReport::State;

namespace {

/// What nobody could give back may be had once its peer is there again.
constexpr Nanoseconds kAgainWhenBad = std::chrono::hours(24);

bool left_something_bad(const store::ScrubReport& report) {
  return report.bad_blocks + report.bad_nodes > report.repaired_blocks + report.repaired_nodes;
}

}  // namespace

// --- one group
// ------------------------------------------------------------------------------------

Status GroupRunner::start_scrub() {
  if (stopping_) return unavailable();
  return group_.scrub().start();
}

Status GroupRunner::stop_scrub() { return group_.scrub().stop(); }

Task<Result<ContentReport>> GroupRunner::check_content(ContentRequest request) {
  auto holder = work_.hold();
  if (stopping_) co_return unavailable();
  auto checking = group_.check_content(std::move(request));
  co_return co_await std::move(checking);
}

/// One that never ran is due when the group is as old as that: a new group has just been written.
void GroupRunner::tick_scrub() {
  const auto policy = replication::scrub_policy(group_.settings());
  const auto& last = group_.scrub().report();
  if (!policy.every || last.state == State::kRunning) return;
  UtcNs since = last.started;
  if (last.state == State::kNever) {
    const auto history = group_.history();
    if (history.empty()) return;
    since = history.front().utc;
  }
  const Nanoseconds period =
      left_something_bad(last) ? std::min(*policy.every, kAgainWhenBad) : *policy.every;
  const UtcNs now = runtime_.clock.utc();
  // A clock that was set back starts none until it has caught up.
  if (now <= since || now.value - since.value < static_cast<std::uint64_t>(period.count())) return;
  const Status started = group_.scrub().start();
  if (!started && started.error().code != ErrorCode::kBusy) {
    log_event(Level::kWarn, "scrub.not-started", "group={} error=\"{}\"", name_,
              started.error().message);
  }
}

ScrubStatus GroupRunner::scrub_status() const {
  const auto& report = group_.scrub().report();
  ScrubStatus status;
  switch (report.state) {
    case State::kNever:
      break;
    case State::kRunning:
      status.state = "running";
      break;
    case State::kFinished:
      status.state = "finished";
      break;
    case State::kStopped:
      status.state = "stopped";
      break;
  }
  status.started = report.started;
  status.ended = report.ended;
  status.blocks_total = report.blocks_total;
  status.blocks_read = report.blocks_read;
  status.nodes_read = report.nodes_read;
  status.bad_blocks = report.bad_blocks;
  status.repaired_blocks = report.repaired_blocks;
  status.bad_map_nodes = report.bad_nodes;
  status.repaired_map_nodes = report.repaired_nodes;
  status.findings = report.findings;
  return status;
}

// --- the node
// -------------------------------------------------------------------------------------

Task<Status> NodeControl::start_scrub(std::string group) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  co_return (*runner)->start_scrub();
}

Task<Status> NodeControl::stop_scrub(std::string group) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  co_return (*runner)->stop_scrub();
}

Task<Result<ContentReport>> NodeControl::check_content(ContentRequest request) {
  auto holder = work_.hold();
  auto runner = find_group(request.group);
  if (!runner) co_return runner.error();
  auto checking = (*runner)->check_content(std::move(request));
  co_return co_await std::move(checking);
}

}  // namespace tandem::control
