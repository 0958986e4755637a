#include "replication/ack_policy.h"

#include <algorithm>

namespace tandem::replication {
namespace {

void tighten(std::optional<Lsn>& bound, Lsn to) { bound = bound ? std::min(*bound, to) : to; }

}  // namespace

RemoteAck remote_ack(std::span<const SlotGate> slots) {
  RemoteAck ack;
  for (const SlotGate& slot : slots) {
    if (!slot.gating || slot.mode == ReplicationMode::kAsync) continue;
    if (slot.mode == ReplicationMode::kSync) tighten(ack.written, slot.written);
    tighten(ack.durable, slot.durable);
  }
  return ack;
}

}  // namespace tandem::replication
