// What compaction copied is entered, with a mark right behind it: see compaction.h for why.
#include "store/checkpoint.h"
#include "store/compaction.h"

namespace tandem::store {

/// Not while another state is made aside or takes the live one's place: it begins with maps as they
/// are.
void Checkpoint::take_moves() {
  auto& g = group_;
  if (!g.compaction_->is_ready() || turned_ || new_snapshot_ || point_) return;
  if (g.point_target_ || g.image_target_ || g.recovering_) return;
  auto entered = g.compaction_->enter(g.head_.lsn);
  if (!entered) return;
  moved_ = std::move(entered->dead);
  has_moved_ = true;
  format::SnapshotState state;
  state.kind = format::SnapshotKind::kMark;
  state.moved_from = entered->oldest;
  keep_live(std::move(state));
}

/// Replaced by a move, in front of the mark, which is the last of the line. Its parent may be of
/// the same position, so that the position of death does not tell the two apart.
void Checkpoint::bury_moved(const DeadBlock& dead) { bury(dead, std::prev(line_.end())); }

/// What it maps and its parent does not is told by positions, but for what was moved just in front
/// of it. So it is joined to its successor only when its parent maps nothing of that, and when no
/// position behind it is made from that parent and the log, which names the places of before.
bool Group::may_join(const Snapshot& snapshot) const {
  if (snapshot.state.moved_from == Lsn{}) return true;
  const auto parent = snapshots_.find(snapshot.state.parent);
  if (parent == snapshots_.end()) return true;
  const Lsn before = parent->second->state.at.lsn;
  return before < snapshot.state.moved_from && before < log_start() && !point_target_;
}

}  // namespace tandem::store
