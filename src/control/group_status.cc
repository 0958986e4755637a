// What an operator sees of one group.
#include "control/group_runner.h"
#include "control/kept_tree.h"

namespace tandem::control {
namespace {

/// Shorter waits are everyday: of a flush of the disk, or of a mirror that is far away.
constexpr Nanoseconds kWaitShown = std::chrono::seconds(1);
constexpr Nanoseconds kRefusalShown = std::chrono::minutes(1);

/// "b at 10.0.0.2:7788 (mode sync, following)", of each mirror that writers or flushes wait for.
std::string awaited(const std::vector<SlotStatus>& slots, ReplicationMode group_mode) {
  std::string text;
  for (const auto& slot : slots) {
    const auto own = slot.settings.find("mode");
    const bool is_own = own != slot.settings.end() && own->second != "group";
    const std::string mode = is_own ? own->second : to_string(group_mode);
    if (mode == to_string(ReplicationMode::kAsync)) continue;
    text += (text.empty() ? "" : ", ") + (slot.node.empty() ? "" : slot.node + " at ") +
            slot.address + " (mode " + mode + ", " + slot.state + ")";
  }
  return text;
}

}  // namespace

WritersStatus GroupRunner::writers_status(const std::vector<SlotStatus>& slots) const {
  using For = store::Group::Waiting::For;
  WritersStatus writers;
  const auto& refusals = group_.refusals();
  const UtcNs now = runtime_.clock.utc();
  writers.refused = refusals.count;
  if (refusals.count != 0 &&
      now.value < refusals.last.value + static_cast<std::uint64_t>(kRefusalShown.count())) {
    writers.state = "refused";
    writers.since = refusals.last;
    writers.reason = "the pool is full; 'tandem pool show' says of what";
  }
  const auto waiting = group_.waiting();
  if (!waiting) return writers;
  const Nanoseconds age = runtime_.clock.monotonic() - waiting->since;
  if (age < kWaitShown) return writers;
  writers.state = "waiting";
  writers.since = UtcNs(now.value - static_cast<std::uint64_t>(age.count()));
  const auto because = [&](const char* cause, std::string reason) {
    writers.cause = cause;
    writers.reason = std::move(reason);
  };
  switch (waiting->what) {
    case For::kMirror:
      if (const auto& policy = replication_->policy_status();
          policy.state != "normal" && policy.state != "degraded") {
        because("policy", policy.state + ": " + policy.reason);
      } else {
        because("mirror",
                "what was written is not acknowledged yet by " + awaited(slots, group_.mode()));
      }
      break;
    case For::kSpace:
      because("space", "the pool is full, and a checkpoint is to make room");
      break;
    case For::kMemory:
      because("memory",
              "the memory for maps is full of changes that a checkpoint is writing to the disk; "
              "it is slow, or memory.map_cache is small for this load");
      break;
    case For::kCheckpoint:
      because("checkpoint", "a snapshot or a rollback waits for the end of a checkpoint");
      break;
    case For::kDisk:
      because("disk", "the disk of this node's pool has not completed what it was given");
      break;
  }
  return writers;
}

Task<GroupStatus> GroupRunner::status() {
  auto holder = work_.hold();
  GroupStatus status;
  const GroupIdentity identity = group_.identity();
  status.name = identity.name;
  status.id = identity.group;
  status.role = group_.role();
  status.mode = group_.mode();
  status.state = replication::name_of(machine_.state());
  status.reason = group_.stopped() ? group_.stopped()->message : reason_;
  status.since = since_;
  status.head = group_.head();
  status.durable = group_.durable();
  status.log_start = group_.log_start();
  status.checkpoint = group_.checkpoint_lsn();
  status.history = group_.history();
  const store::GroupUse use = group_.use();
  status.data_bytes = use.data_blocks * kBlockBytes;
  status.map_bytes = use.map_blocks * kBlockBytes;
  status.log_bytes = use.log_blocks * kBlockBytes;
  status.space = {.dead_bytes = use.dead_blocks * kBlockBytes,
                  .book_bytes = use.book_blocks * kBlockBytes,
                  .moving_bytes = use.moving_blocks * kBlockBytes,
                  .freed_bytes = use.freed_blocks * kBlockBytes,
                  .free_bytes = use.free_blocks * kBlockBytes,
                  .log_rest_bytes = use.log_rest_blocks * kBlockBytes,
                  .zone_bytes = use.sum() * kBlockBytes,
                  .history_bytes = group_.history_status().bytes};
  for (const auto& volume : group_.volumes()) {
    status.volumes.push_back({volume.name, volume.id.value, volume.size_bytes,
                              volume.logical_block_bytes, volume.allocated_blocks * kBlockBytes});
  }
  status.snapshots = snapshot_statuses();
  status.parent = nearest_name(group_.kept_states(), group_.parent());
  status.snapshot_bytes = use.snapshot_blocks * kBlockBytes;
  status.hook = hook_;
  if (hook_.state == "none" && options_.hooks != nullptr && options_.hooks->limit(name_))
    status.hook.state = "idle";
  status.damage = group_.damage();
  status.scrub = scrub_status();
  status.compaction = compaction_status();
  status.settings = replication::group_settings(group_.settings());
  if (replication_->role() == Role::kPrimary) status.policy = replication_->policy_status();
  status.split = replication_->split();
  status.slots = replication_->slots();
  for (SlotStatus& slot : status.slots) {
    slot.settings = replication::mirror_settings(group_.settings(), slot.address);
    if (slot.missing_records == 0 || slot.state == "stopped") continue;
    auto blocks = co_await group_.blocks_newer_than(slot.written);
    if (blocks) {
      slot.missing_blocks = *blocks;
    } else if (slot.reason.empty()) {
      slot.reason = "missing blocks cannot be counted: " + blocks.error().message;
    }
  }
  if (replication_->role() == Role::kPrimary) status.writers = writers_status(status.slots);
  if (group_.role() != Role::kPrimary) status.upstream = replication_->upstream();
  co_return status;
}

}  // namespace tandem::control
