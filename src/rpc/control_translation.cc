#include "rpc/control_translation.h"

#include "rpc/integrity_translation.h"
#include "rpc/translation.h"
#include "rpc/wire.h"

namespace tandem::rpc {
namespace {

using rpc::from_proto;
using rpc::to_proto;
using wire::utf8;

void to_proto(const VolumeStatus& volume, v1::VolumeStatus* out) {
  out->set_name(utf8(volume.name));
  out->set_id(volume.id);
  out->set_size_bytes(volume.size_bytes);
  out->set_logical_block_bytes(volume.logical_block_bytes);
  out->set_allocated_bytes(volume.allocated_bytes);
}

VolumeStatus from_proto(const v1::VolumeStatus& in) {
  return {.name = in.name(),
          .id = in.id(),
          .size_bytes = in.size_bytes(),
          .logical_block_bytes = in.logical_block_bytes(),
          .allocated_bytes = in.allocated_bytes()};
}

void to_proto(const Settings& settings, google::protobuf::Map<std::string, std::string>* out) {
  for (const auto& [key, value] : settings) (*out)[utf8(key)] = utf8(value);
}

Settings from_proto(const google::protobuf::Map<std::string, std::string>& in) {
  return {in.begin(), in.end()};
}

void to_proto(const PolicyStatus& policy, v1::PolicyStatus* out) {
  out->set_state(utf8(policy.state));
  out->set_reason(utf8(policy.reason));
  out->set_since_utc_ns(policy.since.value);
  out->set_lag_bytes(policy.lag_bytes);
  out->set_lag_ms(policy.lag_ms);
}

PolicyStatus from_proto(const v1::PolicyStatus& in) {
  return {.state = in.state(),
          .reason = in.reason(),
          .since = UtcNs(in.since_utc_ns()),
          .lag_bytes = in.lag_bytes(),
          .lag_ms = in.lag_ms()};
}

void to_proto(const WritersStatus& writers, v1::WritersStatus* out) {
  out->set_state(utf8(writers.state));
  out->set_cause(utf8(writers.cause));
  out->set_reason(utf8(writers.reason));
  out->set_since_utc_ns(writers.since.value);
  out->set_refused(writers.refused);
}

WritersStatus from_proto(const v1::WritersStatus& in) {
  WritersStatus writers;
  if (!in.state().empty()) writers.state = in.state();  // older nodes do not say
  writers.cause = in.cause();
  writers.reason = in.reason();
  writers.since = UtcNs(in.since_utc_ns());
  writers.refused = in.refused();
  return writers;
}

void to_proto(const SlotStatus& slot, v1::SlotStatus* out) {
  out->set_node(utf8(slot.node));
  out->set_address(utf8(slot.address));
  out->set_state(utf8(slot.state));
  out->set_reason(utf8(slot.reason));
  out->set_since_utc_ns(slot.since.value);
  out->set_received(slot.received.value);
  out->set_written(slot.written.value);
  out->set_durable(slot.durable.value);
  out->set_missing_records(slot.missing_records);
  out->set_missing_bytes(slot.missing_bytes);
  out->set_missing_blocks(slot.missing_blocks);
  out->set_in_sync(slot.in_sync);
  out->set_last_contact_utc_ns(slot.last_contact.value);
  out->set_progress_done(slot.progress_done);
  out->set_progress_total(slot.progress_total);
  out->set_protocol(slot.protocol);
  to_proto(slot.settings, out->mutable_settings());
  rpc::to_proto(slot.agreement, out->mutable_agreement());
}

SlotStatus from_proto(const v1::SlotStatus& in) {
  SlotStatus slot;
  slot.node = in.node();
  slot.address = in.address();
  slot.state = in.state();
  slot.reason = in.reason();
  slot.since = UtcNs(in.since_utc_ns());
  slot.received = Lsn(in.received());
  slot.written = Lsn(in.written());
  slot.durable = Lsn(in.durable());
  slot.missing_records = in.missing_records();
  slot.missing_bytes = in.missing_bytes();
  slot.missing_blocks = in.missing_blocks();
  slot.in_sync = in.in_sync();
  slot.last_contact = UtcNs(in.last_contact_utc_ns());
  slot.progress_done = in.progress_done();
  slot.progress_total = in.progress_total();
  slot.protocol = in.protocol();
  slot.settings = from_proto(in.settings());
  slot.agreement = rpc::from_proto(in.agreement());
  return slot;
}

void to_proto(const UpstreamStatus& upstream, v1::UpstreamStatus* out) {
  out->set_node(utf8(upstream.node));
  out->set_primary(utf8(upstream.primary));
  out->set_state(utf8(upstream.state));
  out->set_reason(utf8(upstream.reason));
  out->set_since_utc_ns(upstream.since.value);
  out->set_last_contact_utc_ns(upstream.last_contact.value);
  to_proto(upstream.primary_head, out->mutable_primary_head());
  out->set_missing_records(upstream.missing_records);
  out->set_missing_bytes(upstream.missing_bytes);
  rpc::to_proto(upstream.agreement, out->mutable_agreement());
}

UpstreamStatus from_proto(const v1::UpstreamStatus& in) {
  return {.node = in.node(),
          // An older release knows no relays: who feeds a mirror is its primary.
          .primary = in.has_primary() ? in.primary() : in.node(),
          .state = in.state(),
          .reason = in.reason(),
          .since = UtcNs(in.since_utc_ns()),
          .last_contact = UtcNs(in.last_contact_utc_ns()),
          .primary_head = from_proto(in.primary_head()),
          .missing_records = in.missing_records(),
          .missing_bytes = in.missing_bytes(),
          .agreement = rpc::from_proto(in.agreement())};
}

void to_proto(const CompactionStatus& compaction, v1::CompactionStatus* out) {
  out->set_state(utf8(compaction.state));
  out->set_by_itself(compaction.by_itself);
  out->set_started_utc_ns(compaction.started.value);
  out->set_ended_utc_ns(compaction.ended.value);
  out->set_outcome(utf8(compaction.outcome));
  out->set_zones_chosen(compaction.zones_chosen);
  out->set_zones_emptied(compaction.zones_emptied);
  out->set_zones_waiting(compaction.zones_waiting);
  out->set_total_bytes(compaction.total_bytes);
  out->set_moved_bytes(compaction.moved_bytes);
  out->set_bad_blocks(compaction.bad_blocks);
}

CompactionStatus from_proto(const v1::CompactionStatus& in) {
  return {.state = in.state(),
          .by_itself = in.by_itself(),
          .started = UtcNs(in.started_utc_ns()),
          .ended = UtcNs(in.ended_utc_ns()),
          .outcome = in.outcome(),
          .zones_chosen = in.zones_chosen(),
          .zones_emptied = in.zones_emptied(),
          .zones_waiting = in.zones_waiting(),
          .total_bytes = in.total_bytes(),
          .moved_bytes = in.moved_bytes(),
          .bad_blocks = in.bad_blocks()};
}

void to_proto(const GroupStatus& group, v1::GroupStatus* out) {
  out->set_name(utf8(group.name));
  out->set_id(uuid_bytes(group.id));
  out->set_role(to_proto(group.role));
  out->set_mode(to_proto(group.mode));
  out->set_state(utf8(group.state));
  out->set_reason(utf8(group.reason));
  out->set_since_utc_ns(group.since.value);
  to_proto(group.head, out->mutable_head());
  out->set_durable(group.durable.value);
  out->set_log_start(group.log_start.value);
  out->set_checkpoint(group.checkpoint.value);
  to_proto(group.history, out->mutable_history());
  out->set_data_bytes(group.data_bytes);
  out->set_log_bytes(group.log_bytes);
  out->set_map_bytes(group.map_bytes);
  const GroupSpace& space = group.space;
  out->set_dead_bytes(space.dead_bytes);
  out->set_book_bytes(space.book_bytes);
  out->set_moving_bytes(space.moving_bytes);
  out->set_freed_bytes(space.freed_bytes);
  out->set_free_bytes(space.free_bytes);
  out->set_log_rest_bytes(space.log_rest_bytes);
  out->set_zone_bytes(space.zone_bytes);
  out->set_history_bytes(space.history_bytes);
  for (const auto& volume : group.volumes) to_proto(volume, out->add_volumes());
  for (const auto& slot : group.slots) to_proto(slot, out->add_slots());
  if (group.upstream) to_proto(*group.upstream, out->mutable_upstream());
  to_proto(group.settings, out->mutable_settings());
  to_proto(group.policy, out->mutable_policy());
  to_proto(group.writers, out->mutable_writers());
  if (group.split) {
    auto* split = out->mutable_split();
    split->set_with(utf8(group.split->with));
    split->set_reason(utf8(group.split->reason));
    split->set_since_utc_ns(group.split->since.value);
  }
  for (const auto& snapshot : group.snapshots) rpc::to_proto(snapshot, out->add_snapshots());
  out->set_snapshot_bytes(group.snapshot_bytes);
  out->set_parent(utf8(group.parent));
  if (const auto& origin = group.clone_of) {
    auto* of = out->mutable_clone_of();
    of->set_group(utf8(origin->group));
    of->set_snapshot(utf8(origin->snapshot));
    of->set_lsn(origin->lsn.value);
    of->set_utc_ns(origin->utc.value);
  }
  out->mutable_hook()->set_state(utf8(group.hook.state));
  out->mutable_hook()->set_reason(utf8(group.hook.reason));
  out->mutable_hook()->set_since_utc_ns(group.hook.since.value);
  rpc::to_proto(group.damage, out->mutable_damage());
  rpc::to_proto(group.scrub, out->mutable_scrub());
  to_proto(group.compaction, out->mutable_compaction());
}

Status from_proto(const v1::GroupStatus& in, GroupStatus& group) {
  const auto role = from_proto(in.role());
  const auto mode = from_proto(in.mode());
  if (!role || !mode || !parse_uuid(in.id(), group.id))
    return Error{ErrorCode::kUnsupported, "group " + in.name() +
                                              " has a role, mode or id that this program does not "
                                              "know; use the one that came with the node"};
  group.name = in.name();
  group.role = *role;
  group.mode = *mode;
  group.state = in.state();
  group.reason = in.reason();
  group.since = UtcNs(in.since_utc_ns());
  group.head = from_proto(in.head());
  group.durable = Lsn(in.durable());
  group.log_start = Lsn(in.log_start());
  group.checkpoint = Lsn(in.checkpoint());
  group.history = from_proto(in.history());
  group.data_bytes = in.data_bytes();
  group.log_bytes = in.log_bytes();
  group.map_bytes = in.map_bytes();
  group.space = {.dead_bytes = in.dead_bytes(),
                 .book_bytes = in.book_bytes(),
                 .moving_bytes = in.moving_bytes(),
                 .freed_bytes = in.freed_bytes(),
                 .free_bytes = in.free_bytes(),
                 .log_rest_bytes = in.log_rest_bytes(),
                 .zone_bytes = in.zone_bytes(),
                 .history_bytes = in.history_bytes()};
  for (const auto& volume : in.volumes()) group.volumes.push_back(from_proto(volume));
  for (const auto& slot : in.slots()) group.slots.push_back(from_proto(slot));
  if (in.has_upstream()) group.upstream = from_proto(in.upstream());
  group.settings = from_proto(in.settings());
  if (in.has_policy()) group.policy = from_proto(in.policy());
  if (in.has_writers()) group.writers = from_proto(in.writers());
  if (in.has_split()) {
    const auto& split = in.split();
    group.split = SplitStatus{split.with(), split.reason(), UtcNs(split.since_utc_ns())};
  }
  for (const auto& snapshot : in.snapshots()) group.snapshots.push_back(rpc::from_proto(snapshot));
  group.snapshot_bytes = in.snapshot_bytes();
  group.parent = in.parent();
  if (in.has_clone_of()) {
    const auto& of = in.clone_of();
    group.clone_of = CloneOrigin{of.group(), of.snapshot(), Lsn(of.lsn()), UtcNs(of.utc_ns())};
  }
  if (in.has_hook())
    group.hook = {in.hook().state(), in.hook().reason(), UtcNs(in.hook().since_utc_ns())};
  group.damage = rpc::from_proto(in.damage());
  if (in.has_scrub()) group.scrub = rpc::from_proto(in.scrub());
  if (in.has_compaction()) group.compaction = from_proto(in.compaction());
  return ok();
}

void to_proto(const PoolStatus& pool, v1::PoolStatus* out) {
  out->set_id(uuid_bytes(pool.id));
  out->set_path(utf8(pool.path));
  out->set_size_bytes(pool.size_bytes);
  out->set_zone_bytes(pool.zone_bytes);
  out->set_zones_total(pool.zones_total);
  out->set_zones_free(pool.zones_free);
  out->set_used_bytes(pool.used_bytes);
  out->set_fixed_bytes(pool.fixed_bytes);
  out->set_other_bytes(pool.other_bytes);
  out->set_prepared_bytes(pool.prepared_bytes);
  out->set_state(utf8(pool.state));
  out->set_reason(utf8(pool.reason));
  out->set_since_utc_ns(pool.since.value);
  out->set_full_percent(pool.full_percent);
  out->set_warn_percent(pool.warn_percent);
  out->set_critical_percent(pool.critical_percent);
  out->set_fill_bytes_per_second(pool.fill_bytes_per_second);
  out->set_full_in_seconds(pool.full_in_seconds);
}

Status from_proto(const v1::PoolStatus& in, PoolStatus& pool) {
  if (!parse_uuid(in.id(), pool.id))
    return Error{ErrorCode::kUnsupported, "the pool's id is not 16 bytes long"};
  pool.path = in.path();
  pool.size_bytes = in.size_bytes();
  pool.zone_bytes = in.zone_bytes();
  pool.zones_total = in.zones_total();
  pool.zones_free = in.zones_free();
  pool.used_bytes = in.used_bytes();
  pool.fixed_bytes = in.fixed_bytes();
  pool.other_bytes = in.other_bytes();
  pool.prepared_bytes = in.prepared_bytes();
  pool.state = in.state();
  pool.reason = in.reason();
  pool.since = UtcNs(in.since_utc_ns());
  pool.full_percent = in.full_percent();
  pool.warn_percent = in.warn_percent();
  pool.critical_percent = in.critical_percent();
  pool.fill_bytes_per_second = in.fill_bytes_per_second();
  pool.full_in_seconds = in.full_in_seconds();
  return ok();
}

}  // namespace

void to_proto(const NodeStatus& status, v1::NodeStatus* out) {
  out->set_node(utf8(status.node));
  out->set_version(utf8(status.version));
  out->set_control_address(utf8(status.control_address));
  for (const auto& endpoint : status.nbd) out->add_nbd(utf8(endpoint));
  out->set_nbd_tls(status.nbd_tls);
  out->set_now_utc_ns(status.now.value);
  out->set_uptime_seconds(status.uptime_seconds);
  to_proto(status.pool, out->mutable_pool());
  for (const auto& group : status.groups) to_proto(group, out->add_groups());
}

Result<NodeStatus> from_proto(const v1::NodeStatus& in) {
  NodeStatus status;
  status.node = in.node();
  status.version = in.version();
  status.control_address = in.control_address();
  status.nbd.assign(in.nbd().begin(), in.nbd().end());
  status.nbd_tls = in.nbd_tls();
  status.now = UtcNs(in.now_utc_ns());
  status.uptime_seconds = in.uptime_seconds();
  TANDEM_TRY(from_proto(in.pool(), status.pool));
  for (const auto& group : in.groups()) {
    GroupStatus read;
    TANDEM_TRY(from_proto(group, read));
    status.groups.push_back(std::move(read));
  }
  return status;
}

namespace {

void to_proto(const SeedPoint& seed, v1::SeedPoint* out) {
  to_proto(seed.point, out->mutable_point());
  to_proto(seed.history, out->mutable_history());
  out->set_next_volume_id(seed.next_volume_id);
  for (const auto& volume : seed.volumes) {
    auto* added = out->add_volumes();
    added->set_id(volume.id.value);
    added->set_name(utf8(volume.name));
    added->set_size_bytes(volume.size_bytes);
    added->set_logical_block_bytes(volume.logical_block_bytes);
  }
}

SeedPoint from_proto(const v1::SeedPoint& in) {
  SeedPoint seed;
  seed.point = from_proto(in.point());
  seed.history = from_proto(in.history());
  seed.next_volume_id = in.next_volume_id();
  for (const auto& v : in.volumes())
    seed.volumes.push_back({VolumeId(v.id()), v.name(), v.size_bytes(), v.logical_block_bytes()});
  return seed;
}

}  // namespace

void to_proto(const SnapshotStatus& snapshot, v1::SnapshotStatus* out) {
  out->set_name(utf8(snapshot.name));
  out->set_label(utf8(snapshot.label));
  out->set_lsn(snapshot.lsn.value);
  out->set_utc_ns(snapshot.utc.value);
  out->set_consistency(utf8(snapshot.consistency));
  for (const auto& volume : snapshot.volumes) {
    auto* added = out->add_volumes();
    added->set_name(utf8(volume.name));
    added->set_size_bytes(volume.size_bytes);
  }
  out->set_held_bytes(snapshot.held_bytes);
  out->set_unique_bytes(snapshot.unique_bytes);
  out->set_automatic(snapshot.automatic);
  for (const auto& rule : snapshot.kept_by) out->add_kept_by(utf8(rule));
  out->set_goes_utc_ns(snapshot.goes.value);
  out->set_warning(utf8(snapshot.warning));
  out->set_kind(utf8(snapshot.kind));
  out->set_parent(utf8(snapshot.parent));
  out->set_payload_bytes(snapshot.payload_bytes);
  if (snapshot.seed) to_proto(*snapshot.seed, out->mutable_seed());
}

SnapshotStatus from_proto(const v1::SnapshotStatus& in) {
  SnapshotStatus snapshot;
  snapshot.name = in.name();
  snapshot.label = in.label();
  snapshot.lsn = Lsn(in.lsn());
  snapshot.utc = UtcNs(in.utc_ns());
  snapshot.consistency = in.consistency();
  for (const auto& volume : in.volumes())
    snapshot.volumes.push_back({volume.name(), volume.size_bytes()});
  snapshot.held_bytes = in.held_bytes();
  snapshot.unique_bytes = in.unique_bytes();
  snapshot.automatic = in.automatic();
  snapshot.kept_by.assign(in.kept_by().begin(), in.kept_by().end());
  snapshot.goes = UtcNs(in.goes_utc_ns());
  snapshot.warning = in.warning();
  snapshot.kind = in.kind().empty() ? "snapshot" : in.kind();
  snapshot.parent = in.parent();
  snapshot.payload_bytes = in.payload_bytes();
  if (in.has_seed()) snapshot.seed = from_proto(in.seed());
  return snapshot;
}

void to_proto(const RolledBack& done, v1::RollBackResponse* out) {
  to_proto(done.to, out->mutable_to());
  if (!done.branch.name.empty()) to_proto(done.branch, out->mutable_branch());
}

RolledBack from_proto(const v1::RollBackResponse& in) {
  RolledBack done;
  done.to = from_proto(in.to());
  if (in.has_branch()) done.branch = from_proto(in.branch());
  return done;
}

void to_proto(const HistoryStatus& history, v1::HistoryStatus* out) {
  out->set_now_utc_ns(history.now.value);
  out->set_window(utf8(history.window));
  out->set_bytes_max(utf8(history.bytes_max));
  if (history.start) to_proto(*history.start, out->mutable_start());
  to_proto(history.head, out->mutable_head());
  out->set_bytes(history.bytes);
  for (const auto& mark : history.marks) to_proto(mark, out->add_marks());
  for (const auto& change : history.volume_changes) {
    auto* added = out->add_volume_changes();
    to_proto(change.at, added->mutable_at());
    // In the order of VolumeChange::Kind.
    added->set_kind(static_cast<v1::VolumeChange::Kind>(static_cast<int>(change.kind) + 1));
    added->set_volume(utf8(change.volume));
    added->set_old_bytes(change.old_bytes);
    added->set_new_bytes(change.new_bytes);
  }
}

HistoryStatus from_proto(const v1::HistoryStatus& in) {
  HistoryStatus history;
  history.now = UtcNs(in.now_utc_ns());
  history.window = in.window();
  history.bytes_max = in.bytes_max();
  if (in.has_start()) history.start = from_proto(in.start());
  history.head = from_proto(in.head());
  history.bytes = in.bytes();
  for (const auto& mark : in.marks()) history.marks.push_back(from_proto(mark));
  for (const auto& change : in.volume_changes()) {
    // Of a kind that only a newer node knows: not shown rather than shown as something else.
    if (change.kind() < v1::VolumeChange::KIND_CREATED ||
        change.kind() > v1::VolumeChange::KIND_DELETED)
      continue;
    history.volume_changes.push_back({from_proto(change.at()),
                                      static_cast<VolumeChange::Kind>(change.kind() - 1),
                                      change.volume(), change.old_bytes(), change.new_bytes()});
  }
  return history;
}

void to_proto(const Receipt& receipt, v1::Receipt* out) {
  out->set_group(utf8(receipt.group));
  to_proto(receipt.recovers_to, out->mutable_recovers_to());
  out->set_new_timeline(receipt.new_timeline.value);
  out->set_complete_image(receipt.complete_image);
  out->set_primary_reachable(receipt.primary_reachable);
  out->set_head_known(receipt.head_known);
  to_proto(receipt.primary_head, out->mutable_primary_head());
  out->set_missing_records(receipt.missing_records);
  out->set_missing_bytes(receipt.missing_bytes);
  out->set_last_contact_utc_ns(receipt.last_contact.value);
  out->set_contact_age_ms(receipt.contact_age_ms);
  if (!receipt.consistent) return;
  auto* consistent = out->mutable_consistent();
  consistent->set_snapshot(utf8(receipt.consistent->snapshot));
  consistent->set_lsn(receipt.consistent->lsn.value);
  consistent->set_utc_ns(receipt.consistent->utc.value);
}

Receipt from_proto(const v1::Receipt& in) {
  Receipt receipt;
  receipt.group = in.group();
  receipt.recovers_to = from_proto(in.recovers_to());
  receipt.new_timeline = Timeline(in.new_timeline());
  receipt.complete_image = in.complete_image();
  receipt.primary_reachable = in.primary_reachable();
  receipt.head_known = in.head_known();
  receipt.primary_head = from_proto(in.primary_head());
  receipt.missing_records = in.missing_records();
  receipt.missing_bytes = in.missing_bytes();
  receipt.last_contact = UtcNs(in.last_contact_utc_ns());
  receipt.contact_age_ms = in.contact_age_ms();
  if (in.has_consistent()) {
    const auto& consistent = in.consistent();
    receipt.consistent =
        ConsistentPoint{consistent.snapshot(), Lsn(consistent.lsn()), UtcNs(consistent.utc_ns())};
  }
  return receipt;
}

}  // namespace tandem::rpc
