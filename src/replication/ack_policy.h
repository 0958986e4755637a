// What the group's writers must wait for, given every slot. Pure.
#pragma once

#include <span>

#include "tandem/replicated_log.h"

namespace tandem::replication {

/// The part of a slot that decides about acknowledgements.
struct SlotGate {
  ReplicationMode mode = ReplicationMode::kAsync;
  bool gating = false;  // connected, caught up, alive: writers wait for it as its mode says
  Lsn written;
  Lsn durable;
};

/// The strictest of all gating slots: a write waits until each sync slot has written it, a flush
/// until each sync and flush slot is durable. Slots that do not gate (async, or degraded) count for
/// nothing: that is the policy "degrade".
RemoteAck remote_ack(std::span<const SlotGate> slots);

}  // namespace tandem::replication
