// Compaction of this node's copies: begun by the operator, or when free zones are short and another
// group may need what lies scattered in one. In a pool of one group nobody is helped by it.
#include <algorithm>

#include "control/node_control.h"
#include "store/compaction.h"

namespace tandem::control {

using State = store::CompactionReport::State;

namespace {

/// Free zones below which a group is asked for its scattered blocks: one in so many of all, and so
/// many at least.
constexpr std::uint64_t kShareFree = 20;
constexpr std::uint64_t kZonesFreeMin = 4;

const char* text_of(State state) {
  switch (state) {
    case State::kNever:
      return "never";
    case State::kRunning:
      return "running";
    case State::kFinished:
      return "finished";
    case State::kStopped:
      return "stopped";
  }
  return "";
}

}  // namespace

// --- one group -----------------------------------------------------------------------------------

Status GroupRunner::start_compaction() {
  if (stopping_) return unavailable();
  return group_.compaction().start(/*by_itself=*/false);
}

Status GroupRunner::stop_compaction() { return group_.compaction().stop(); }

CompactionStatus GroupRunner::compaction_status() const {
  const auto report = group_.compaction().report();
  return {.state = text_of(report.state),
          .by_itself = report.by_itself,
          .started = report.started,
          .ended = report.ended,
          .outcome = report.outcome,
          .zones_chosen = report.zones_chosen,
          .zones_emptied = report.zones_emptied,
          .zones_waiting = report.zones_waiting,
          .total_bytes = report.blocks_total * kBlockBytes,
          .moved_bytes = report.blocks_moved * kBlockBytes,
          .bad_blocks = report.bad_blocks};
}

// --- the node ------------------------------------------------------------------------------------

/// One group at a time, the one with most free blocks first; each seldom (is_affordable).
void NodeControl::compact_when_short() {
  const store::PoolUse use = pool_.use();
  const auto wanted = std::max(use.zones_total / kShareFree, kZonesFreeMin);
  if (runners_.size() < 2 || use.zones_free >= wanted) return;
  std::vector<store::Group*> groups;
  for (const auto& [name, runner] : runners_) {
    store::Group& group = runner->group();
    if (group.compaction().report().state == State::kRunning) return;
    if (!group.stopped() && group.compaction().is_affordable()) groups.push_back(&group);
  }
  std::stable_sort(groups.begin(), groups.end(), [](const auto* a, const auto* b) {
    return a->free_blocks() > b->free_blocks();
  });
  for (auto* group : groups) {
    if (group->compaction().start(/*by_itself=*/true)) return;
  }
}

Task<Status> NodeControl::start_compaction(std::string group) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  co_return (*runner)->start_compaction();
}

Task<Status> NodeControl::stop_compaction(std::string group) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  co_return (*runner)->stop_compaction();
}

}  // namespace tandem::control
