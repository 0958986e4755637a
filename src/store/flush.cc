// Durability: one device flush serves everybody who waits for one.
#include "store/group.h"

namespace tandem::store {

namespace {
/// Of a pool: how much of it may be waiting for a flush.
constexpr std::uint64_t kUnflushedShare = 32;
}  // namespace

/// Completes when everything up to `target` is on stable storage here and, with `remote`, on the
/// mirror that RemoteAck names.
Task<Status> Group::flush_to(Lsn target, bool remote) {
  auto hold = gate_.hold();
  const auto reign = reign_;
  const auto remote_lacks = [&] { return remote_.durable && *remote_.durable < target; };
  // Tell the mirror first: its flush then runs beside ours.
  if (remote && remote_flush_waiters_++ == 0) flushes_answered_ = runtime_.clock.monotonic();
  if (remote && remote_lacks() && append_listener_) append_listener_();
  const Nanoseconds called = runtime_.clock.monotonic();
  Status local = co_await flush_local_to(target);
  const Nanoseconds here = runtime_.clock.monotonic();
  const bool waits = remote && remote_lacks();
  while (remote && local && remote_lacks() && !stopped_ && !closing_ && reigns_since(reign)) {
    co_await remote_changed_.wait();
  }
  if (remote) {
    --remote_flush_waiters_;
    flushes_answered_ = runtime_.clock.monotonic();
  }
  if (!local) co_return local;
  if (remote && (stopped_ || closing_ || !reigns_since(reign))) co_return refusal();
  if (remote) {
    times_.add(Stage::kFlushDevice, here - called);
    if (waits) times_.add(Stage::kFlushMirror, flushes_answered_ - here);
    times_.add(Stage::kFlush, flushes_answered_ - called);
  }
  co_return ok();
}

Task<Status> Group::flush_local_to(Lsn target) {
  CHECK(target <= head_.lsn);
  while (durable_ < target) {
    if (stopped_) co_return refusal();
    if (flushing_) {
      co_await flushed_.wait();
      continue;
    }
    flushing_ = true;
    const Lsn covers = head_.lsn;
    Status done = co_await pool_.flush();
    flushing_ = false;
    if (!done) {
      stop(std::move(done.error()));
    } else if (covers > durable_) {
      durable_ = covers;
      if (role_ == Role::kMirror) tell_appended();  // a mirror feeds others what is durable here
    }
    flushed_.notify_all();
  }
  co_return ok();
}

std::uint64_t Group::unflushed_bytes_max() const {
  const std::uint64_t pool = pool_.superblock().blocks * kBlockBytes;
  return std::min(pool_.options().flush_bytes, pool / kUnflushedShare);
}

/// What is not durable here the other copies must keep, so it is bounded also under a guest that
/// never flushes.
void Group::flush_if_much() {
  if (stopped_ || closing_ || flushing_) return;
  if (head_.payload_bytes - flushed_payload_ < unflushed_bytes_max()) return;
  flushed_payload_ = head_.payload_bytes;
  spawn([](Group& group) -> Task<void> { (void)co_await group.flush_local(); }(*this));
}

Task<Status> Group::flush_local() {
  auto hold = gate_.hold();
  co_return co_await flush_local_to(head_.lsn);
}

void Group::set_remote_ack(RemoteAck ack) {
  remote_ = ack;
  release_acks();
  remote_changed_.notify_all();
}

}  // namespace tandem::store
