#include "ctl/json.h"

#include <nlohmann/json.hpp>

#include "ctl/integrity_text.h"

namespace tandem::ctl {
namespace {

/// 64 hexadecimal bits: many readers of JSON would round the number.
std::string hex(Digest digest) {
  char out[17];
  std::snprintf(out, sizeof out, "%016llx", static_cast<unsigned long long>(digest.value));
  return out;
}

std::string id_text(const Uuid& id) { return id.is_nil() ? "" : id.text(); }

Json to_json(const TimelineHistory& history) {
  auto list = Json::array();
  for (const auto& fork : history)
    list.push_back(
        {{"timeline", fork.timeline.value}, {"fork", fork.fork.value}, {"utc_ns", fork.utc.value}});
  return list;
}

Json to_json(const SlotStatus& slot) {
  return {{"node", slot.node},
          {"address", slot.address},
          {"state", slot.state},
          {"reason", slot.reason},
          {"since_utc_ns", slot.since.value},
          {"received", slot.received.value},
          {"written", slot.written.value},
          {"durable", slot.durable.value},
          {"missing_records", slot.missing_records},
          {"missing_bytes", slot.missing_bytes},
          {"missing_blocks", slot.missing_blocks},
          {"in_sync", slot.in_sync},
          {"last_contact_utc_ns", slot.last_contact.value},
          {"progress_done", slot.progress_done},
          {"progress_total", slot.progress_total},
          {"protocol", slot.protocol},
          {"settings", slot.settings},
          {"agreement", agreement_json(slot.agreement)}};
}

Json to_json(const UpstreamStatus& upstream) {
  return {{"node", upstream.node},
          {"primary", upstream.primary},
          {"state", upstream.state},
          {"reason", upstream.reason},
          {"since_utc_ns", upstream.since.value},
          {"last_contact_utc_ns", upstream.last_contact.value},
          {"primary_head", ctl::to_json(upstream.primary_head)},
          {"missing_records", upstream.missing_records},
          {"missing_bytes", upstream.missing_bytes},
          {"agreement", agreement_json(upstream.agreement)}};
}

Json consistent_json(const std::optional<ConsistentPoint>& point) {
  if (!point) return nullptr;
  return {{"snapshot", point->snapshot}, {"lsn", point->lsn.value}, {"utc_ns", point->utc.value}};
}

}  // namespace

Json to_json(const LogPoint& point) {
  return {{"timeline", point.timeline.value},
          {"lsn", point.lsn.value},
          {"digest", hex(point.digest)},
          {"utc_ns", point.utc.value},
          {"payload_bytes", point.payload_bytes}};
}

Json to_json(const VolumeStatus& volume) {
  return {{"name", volume.name},
          {"id", volume.id},
          {"size_bytes", volume.size_bytes},
          {"logical_block_bytes", volume.logical_block_bytes},
          {"allocated_bytes", volume.allocated_bytes}};
}

Json to_json(const SnapshotStatus& snapshot) {
  Json out = {{"name", snapshot.name},
              {"label", snapshot.label},
              {"kind", snapshot.kind},
              {"parent", snapshot.parent},
              {"lsn", snapshot.lsn.value},
              {"utc_ns", snapshot.utc.value},
              {"payload_bytes", snapshot.payload_bytes},
              {"consistency", snapshot.consistency},
              {"volumes", Json::array()},
              {"held_bytes", snapshot.held_bytes},
              {"automatic", snapshot.automatic},
              {"kept_by", snapshot.kept_by},
              {"goes_utc_ns", snapshot.goes.value}};
  for (const auto& volume : snapshot.volumes)
    out["volumes"].push_back({{"name", volume.name}, {"size_bytes", volume.size_bytes}});
  return out;
}

Json to_json(const CloneOrigin& origin) {
  return {{"group", origin.group},
          {"snapshot", origin.snapshot},
          {"lsn", origin.lsn.value},
          {"utc_ns", origin.utc.value}};
}

Json to_json(const GroupStatus& group) {
  Json out = {{"name", group.name},
              {"id", id_text(group.id)},
              {"role", to_string(group.role)},
              {"mode", to_string(group.mode)},
              {"state", group.state},
              {"reason", group.reason},
              {"since_utc_ns", group.since.value},
              {"head", to_json(group.head)},
              {"durable", group.durable.value},
              {"log_start", group.log_start.value},
              {"checkpoint", group.checkpoint.value},
              {"history", to_json(group.history)},
              {"data_bytes", group.data_bytes},
              {"log_bytes", group.log_bytes},
              {"map_bytes", group.map_bytes},
              {"dead_bytes", group.space.dead_bytes},
              {"book_bytes", group.space.book_bytes},
              {"moving_bytes", group.space.moving_bytes},
              {"freed_bytes", group.space.freed_bytes},
              {"free_bytes", group.space.free_bytes},
              {"log_rest_bytes", group.space.log_rest_bytes},
              {"zone_bytes", group.space.zone_bytes},
              {"volumes", Json::array()},
              {"slots", Json::array()},
              {"upstream", nullptr},
              {"settings", group.settings},
              {"policy",
               {{"state", group.policy.state},
                {"reason", group.policy.reason},
                {"since_utc_ns", group.policy.since.value},
                {"lag_bytes", group.policy.lag_bytes},
                {"lag_ms", group.policy.lag_ms}}},
              {"writers",
               {{"state", group.writers.state},
                {"cause", group.writers.cause},
                {"reason", group.writers.reason},
                {"since_utc_ns", group.writers.since.value},
                {"refused", group.writers.refused}}},
              {"split", nullptr},
              {"snapshots", Json::array()},
              {"parent", group.parent},
              {"clone_of", nullptr},
              {"snapshot_bytes", group.snapshot_bytes},
              {"hook",
               {{"state", group.hook.state},
                {"reason", group.hook.reason},
                {"since_utc_ns", group.hook.since.value}}}};
  for (const auto& volume : group.volumes) out["volumes"].push_back(to_json(volume));
  for (const auto& slot : group.slots) out["slots"].push_back(to_json(slot));
  for (const auto& snapshot : group.snapshots) out["snapshots"].push_back(to_json(snapshot));
  if (group.upstream) out["upstream"] = to_json(*group.upstream);
  if (group.clone_of) out["clone_of"] = to_json(*group.clone_of);
  if (group.split) {
    out["split"] = {{"with", group.split->with},
                    {"reason", group.split->reason},
                    {"since_utc_ns", group.split->since.value}};
  }
  out.update(integrity_json(group));
  out["compaction"] = to_json(group.compaction);
  return out;
}

Json to_json(const CompactionStatus& compaction) {
  return {{"state", compaction.state},
          {"by_itself", compaction.by_itself},
          {"started_utc_ns", compaction.started.value},
          {"ended_utc_ns", compaction.ended.value},
          {"outcome", compaction.outcome},
          {"zones_chosen", compaction.zones_chosen},
          {"zones_emptied", compaction.zones_emptied},
          {"zones_waiting", compaction.zones_waiting},
          {"total_bytes", compaction.total_bytes},
          {"moved_bytes", compaction.moved_bytes},
          {"bad_blocks", compaction.bad_blocks}};
}

Json to_json(const PoolStatus& pool) {
  return {{"id", id_text(pool.id)},
          {"path", pool.path},
          {"size_bytes", pool.size_bytes},
          {"zone_bytes", pool.zone_bytes},
          {"zones_total", pool.zones_total},
          {"zones_free", pool.zones_free},
          {"used_bytes", pool.used_bytes},
          {"fixed_bytes", pool.fixed_bytes},
          {"other_bytes", pool.other_bytes},
          {"prepared_bytes", pool.prepared_bytes},
          {"state", pool.state},
          {"reason", pool.reason},
          {"since_utc_ns", pool.since.value},
          {"full_percent", pool.full_percent},
          {"warn_percent", pool.warn_percent},
          {"critical_percent", pool.critical_percent},
          {"fill_bytes_per_second", pool.fill_bytes_per_second},
          {"full_in_seconds", pool.full_in_seconds}};
}

Json to_json(const NodeStatus& node) {
  Json out = {{"node", node.node},
              {"version", node.version},
              {"control_address", node.control_address},
              {"nbd", node.nbd},
              {"nbd_tls", node.nbd_tls},
              {"now_utc_ns", node.now.value},
              {"uptime_seconds", node.uptime_seconds},
              {"pool", to_json(node.pool)},
              {"groups", Json::array()}};
  for (const auto& group : node.groups) out["groups"].push_back(to_json(group));
  return out;
}

Json to_json(const Receipt& receipt) {
  return {{"group", receipt.group},
          {"recovers_to", to_json(receipt.recovers_to)},
          {"consistent", consistent_json(receipt.consistent)},
          {"new_timeline", receipt.new_timeline.value},
          {"complete_image", receipt.complete_image},
          {"primary_reachable", receipt.primary_reachable},
          {"head_known", receipt.head_known},
          {"primary_head", to_json(receipt.primary_head)},
          {"missing_records", receipt.missing_records},
          {"missing_bytes", receipt.missing_bytes},
          {"last_contact_utc_ns", receipt.last_contact.value},
          {"contact_age_ms", receipt.contact_age_ms}};
}

std::string json_text(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace tandem::ctl
