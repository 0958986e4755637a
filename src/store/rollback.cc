// Rollback: a kept state becomes the newest one again. A record, so that every copy does it at the
// same position; the checkpoint that freezes that position names the kept state's maps as the live
// ones, and keeps the state so far as a branch. Nothing is copied.
#include "store/group.h"
#include "tandem/base/log.h"

namespace tandem::store {

using format::RecordHeader;
using format::RecordType;

/// This log leads to it: its timeline is part of the history, and was not forked in front of it.
bool Group::is_in_log(const LogPoint& point) const {
  for (std::size_t i = 0; i < history_.size(); ++i) {
    if (history_[i].timeline != point.timeline) continue;
    return i + 1 == history_.size() ? point.lsn <= head_.lsn : point.lsn <= history_[i + 1].fork;
  }
  return false;
}

/// A kept state of this log at that position.
Group::SnapshotPtr Group::snapshot_at(Lsn at) const {
  for (const auto& [id, snapshot] : snapshots_) {
    const bool is_whole = recovering_ || !snapshot->reaping;  // the record pinned its target
    if (snapshot->state.at.lsn == at && is_whole && is_in_log(snapshot->state.at)) return snapshot;
  }
  return nullptr;
}

/// Its record is applied: head_ is still the position in front of it.
void Group::turn_back(const format::RevertBody& body) {
  const auto target = snapshot_at(body.to);
  CHECK(target && target->ready && !has_doomed_volumes());
  turn_ = Turn{target->state.id, cores_of(target->state.volumes), head_, body.branch,
               target->state.skipped};
  turn_->skipped.push_back({body.to, head_.lsn.next()});
  // Another copy may have given that name to something of its own.
  if (find_snapshot(body.branch)) turn_->branch += "~" + std::to_string(head_.lsn.value);
}

Task<Result<LogPoint>> Group::rollback(std::string snapshot, std::string branch) {
  auto hold = gate_.hold();
  if (!serving_ || reverting_) co_return refusal();
  const auto target = find_snapshot(snapshot);
  if (!target) {
    co_return Error{ErrorCode::kNotFound, "group " + name_ + " has no snapshot " + snapshot};
  }
  if (!is_in_log(target->state.at)) {
    co_return Error{ErrorCode::kRefused,
                    snapshot +
                        " is the tail of a former primary, which only this node holds: "
                        "mirrors could not follow; clone it, and copy what is needed"};
  }
  if (branch.empty()) branch = "before-rollback-" + std::to_string(tail_.lsn.value);
  TANDEM_CO_TRY(check_names(branch, ""));
  if (find_snapshot(branch)) {
    co_return Error{ErrorCode::kExists, "group " + name_ + " has a snapshot " + branch};
  }
  RecordHeader header{.type = RecordType::kRevert};
  Pending pending;
  pending.canonical.resize(format::kRecordHeaderBytes + 10 + branch.size());
  format::Encoder out(pending.canonical);
  format::encode_revert(out, header, {target->state.at.lsn, branch});
  pending.target = target;
  pending.pin = std::make_unique<SnapshotPin>(target->readers);
  // No write may follow that was meant for the maps so far.
  reverting_ = true;
  auto logged = co_await append_control(std::move(pending));
  while (logged && turn_ && !stopped_ && !closing_) co_await applied_.wait();
  reverting_ = false;
  if (!logged) co_return Error(std::move(logged.error()));
  if (stopped_ || closing_) co_return refusal();
  const auto kept = find_snapshot(branch);
  log_event(Level::kInfo, "group.rolled-back", "group={} to={} lsn={} branch={}", name_, snapshot,
            target->state.at.lsn.value, kept ? branch : "none: nothing happened since");
  co_return kept ? kept->state.at : target->state.at;
}

/// The whole kept state at that position, made if need be.
Task<Result<Group::SnapshotPtr>> Group::state_at(Lsn at) {
  for (int tries = 0; tries < 2; ++tries) {
    for (const auto& snapshot : line()) {
      if (snapshot->state.at.lsn == at && !snapshot->reaping) co_return snapshot;
    }
    const std::string name = "rejoin-" + std::to_string(at.value);
    auto making = keep_point(at, name, "");
    auto made = co_await std::move(making);
    if (!made) co_return Error(std::move(made.error()));
    // It is the beginning of a history, nothing that an operator asked for.
    if (const auto point = find_snapshot(name)) {
      point->state.kind = format::SnapshotKind::kMark;
      point->state.name.clear();
    }
  }
  co_return Error{ErrorCode::kNotFound,
                  "the state at LSN " + std::to_string(at.value) + " was given up meanwhile"};
}

Task<Status> Group::rewind(Lsn to) {
  auto hold = gate_.hold();
  if (serving_ || stopped_ || closing_) co_return refusal();
  co_await wait_queue_applied();
  co_await wait_doomed_gone();
  if (to >= head_.lsn) co_return ok();
  auto making = state_at(to);
  auto target = co_await std::move(making);
  if (!target) co_return Error(std::move(target.error()));
  const SnapshotPin pin((*target)->readers);
  const auto no_point = co_await point_lock_.lock();
  Status spare = co_await take_spare();
  if (!spare) co_return spare;
  {
    // No checkpoint may see half of what follows.
    const auto lock = co_await checkpoint_lock_.lock();
    while (flushing_) co_await flushed_.wait();
    if (stopped_ || closing_ || serving_) co_return refusal();
    spare = co_await clear_spare();
    if (!spare) co_return spare;
    flushing_ = true;
    const auto& state = (*target)->state;
    std::string branch = "tail-of-timeline-" + std::to_string(head_.timeline.value);
    while (find_snapshot(branch)) branch += "~" + std::to_string(head_.lsn.value);
    turn_ = Turn{state.id, cores_of(state.volumes), head_, branch, state.skipped};
    log_event(Level::kWarn, "group.rewound", "group={} from={} to={} branch={}", name_,
              head_.lsn.value, to.value,
              leaves_nothing(*turn_) ? "none: nothing is only here" : branch);
    head_ = tail_ = state.at;
    std::erase_if(history_,
                  [to](const auto& fork) { return fork.fork >= to && fork.fork != Lsn{}; });
    restart_log();
  }
  Status kept = co_await checkpoint();
  release_all_dead_ = false;
  flushing_ = false;
  flushed_.notify_all();
  co_return kept;
}

}  // namespace tandem::store
