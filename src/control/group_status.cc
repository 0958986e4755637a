// What an operator sees of one group.
#include "control/group_runner.h"
#include "control/kept_tree.h"

namespace tandem::control {

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
                  .zone_bytes = use.sum() * kBlockBytes};
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
  status.settings = replication::group_settings(group_.settings());
  if (replication_->role() == Role::kPrimary) status.policy = replication_->policy_status();
  status.split = replication_->split();
  status.slots = replication_->slots();
  for (SlotStatus& slot : status.slots) {
    slot.settings = replication::mirror_settings(group_.settings(), slot.address);
    if (slot.missing_records == 0 || replication::role_of(machine_.state()) != Role::kPrimary)
      continue;
    auto blocks = co_await group_.blocks_newer_than(slot.written);
    if (blocks) {
      slot.missing_blocks = *blocks;
    } else if (slot.reason.empty()) {
      slot.reason = "missing blocks cannot be counted: " + blocks.error().message;
    }
  }
  if (group_.role() != Role::kPrimary) status.upstream = replication_->upstream();
  co_return status;
}

}  // namespace tandem::control
