// What writers wait for, as of now: told to an operator, decides nothing.
#include "store/group.h"

namespace tandem::store {

/// The oldest of them is the one that counts: acknowledgements are in log order.
Group::Waiting::For Group::what_writes_wait_for() const {
  using For = Waiting::For;
  if (!acks_.empty() && remote_.written && acks_.front()->last > *remote_.written) {
    return For::kMirror;
  }
  // A page that came back and is not applied is behind the record of a snapshot or a rollback.
  if (!in_flight_.empty()) return in_flight_.front()->done ? For::kCheckpoint : For::kDisk;
  if (starved_ || !log_.can_place()) return For::kSpace;
  return is_held_back() ? For::kMemory : For::kDisk;
}

std::optional<Group::Waiting> Group::waiting() const {
  std::optional<Waiting> oldest;
  if (writes_wait()) oldest = Waiting{what_writes_wait_for(), writes_answered_};
  if (remote_flush_waiters_ != 0 && (!oldest || flushes_answered_ < oldest->since)) {
    const bool is_durable_here = remote_.durable && *remote_.durable < durable_;
    oldest =
        Waiting{is_durable_here ? Waiting::For::kMirror : Waiting::For::kDisk, flushes_answered_};
  }
  return oldest;
}

}  // namespace tandem::store
