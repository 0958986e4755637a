// What nodes answer, with a value in every field.
#pragma once

#include "tandem/control.h"

namespace tandem::rpc {

inline LogPoint point(std::uint64_t lsn) {
  return {Timeline(2), Lsn(lsn), Digest(lsn * 3), UtcNs(lsn + 1000), lsn * 4096};
}

inline Receipt full_receipt() {
  Receipt r;
  r.group = "g";
  r.recovers_to = point(10);
  r.consistent = ConsistentPoint{"nightly", Lsn(8), UtcNs(1008)};
  r.new_timeline = Timeline(3);
  r.complete_image = true;
  r.primary_reachable = true;
  r.head_known = true;
  r.primary_head = point(12);
  r.missing_records = 2;
  r.missing_bytes = 8192;
  r.last_contact = UtcNs(77);
  r.contact_age_ms = 1234;
  return r;
}

inline SnapshotStatus full_snapshot() {
  SnapshotStatus s;
  s.name = "before-upgrade";
  s.label = "the last good one \xc3\xa9";
  s.lsn = Lsn(34);
  s.utc = UtcNs(35);
  s.consistency = "crash-consistent";
  s.volumes = {{"v", 36}, {"w", 37}};
  s.held_bytes = 38;
  s.unique_bytes = 39;
  s.automatic = true;
  s.kept_by = {"keep", "daily"};
  s.goes = UtcNs(38);
  s.warning = "the command after it failed";
  s.kind = "branch";
  s.parent = "before";
  s.payload_bytes = 42;
  s.seed = SeedPoint{.point = point(34),
                     .history = {{Timeline(1), Lsn(0), UtcNs(1)}, {Timeline(2), Lsn(9), UtcNs(2)}},
                     .next_volume_id = 43,
                     .volumes = {{VolumeId(44), "v", 36, 4096}}};
  return s;
}

inline NodeStatus full_status() {
  NodeStatus s;
  s.node = "alpha";
  s.version = "0.1.0";
  s.control_address = "10.0.0.1:7788";
  s.nbd = {"unix:/run/tandem/nbd.sock", "0.0.0.0:10809"};
  s.nbd_tls = true;
  s.now = UtcNs(5);
  s.uptime_seconds = 6;
  s.pool.id = Uuid::from_random(1, 2);
  s.pool.path = "/srv/pool";
  s.pool.size_bytes = 1ull << 40;
  s.pool.zone_bytes = 16 << 20;
  s.pool.zones_total = 65536;
  s.pool.zones_free = 65000;
  s.pool.used_bytes = 7;
  s.pool.fixed_bytes = 8;
  s.pool.other_bytes = 9;
  s.pool.prepared_bytes = 10;
  s.pool.state = "warn";
  s.pool.reason = "85 % full";
  s.pool.since = UtcNs(11);
  s.pool.full_percent = 85;
  s.pool.warn_percent = 80;
  s.pool.critical_percent = 90;
  s.pool.fill_bytes_per_second = 12;
  s.pool.full_in_seconds = 13;
  GroupStatus g;
  g.name = "g";
  g.id = Uuid::from_random(3, 4);
  g.role = Role::kMirror;
  g.mode = ReplicationMode::kFlush;
  g.state = "mirroring";
  g.reason = "because";
  g.since = UtcNs(8);
  g.head = point(9);
  g.durable = Lsn(8);
  g.log_start = Lsn(1);
  g.checkpoint = Lsn(7);
  g.history = {{Timeline(1), Lsn(0), UtcNs(1)}, {Timeline(2), Lsn(4), UtcNs(2)}};
  g.data_bytes = 11;
  g.log_bytes = 12;
  g.map_bytes = 13;
  g.space.dead_bytes = 14;
  g.volumes = {{"v", 1, 1 << 30, 4096, 4096}, {"w", 2, 1 << 20, 512, 0}};
  SlotStatus slot;
  slot.node = "beta";
  slot.address = "10.0.0.2:7788";
  slot.state = "catch-up";
  slot.reason = "was away";
  slot.since = UtcNs(15);
  slot.received = Lsn(16);
  slot.written = Lsn(17);
  slot.durable = Lsn(18);
  slot.missing_records = 19;
  slot.missing_bytes = 20;
  slot.missing_blocks = 21;
  slot.in_sync = true;
  slot.last_contact = UtcNs(22);
  slot.progress_done = 23;
  slot.progress_total = 24;
  slot.protocol = 30;
  slot.settings = {{"compression", "auto"}};
  g.slots = {slot};
  UpstreamStatus up;
  up.node = "gamma";
  up.primary = "delta";
  up.state = "lost";
  up.reason = "cut";
  up.since = UtcNs(25);
  up.last_contact = UtcNs(26);
  up.primary_head = point(27);
  up.missing_records = 28;
  up.missing_bytes = 29;
  g.upstream = up;
  g.settings = {{"lag_bytes", "1MiB"}, {"lag_time", "off"}};
  g.policy = {"stalled", "mirror beta lacks much", UtcNs(31), 32, 33};
  g.writers = {"waiting", "policy", "stalled: mirror beta lacks much", UtcNs(34), 35};
  g.split = SplitStatus{"delta", "promoted apart", UtcNs(34)};
  g.snapshots = {full_snapshot(), SnapshotStatus{}};
  g.parent = "before-upgrade";
  g.clone_of = CloneOrigin{"o", "s", Lsn(60), UtcNs(61)};
  g.snapshot_bytes = 40;
  g.space.book_bytes = 42;
  g.space.moving_bytes = 43;
  g.space.freed_bytes = 44;
  g.space.free_bytes = 45;
  g.space.log_rest_bytes = 46;
  g.space.zone_bytes = 47;
  g.space.history_bytes = 48;
  g.hook = {"failed", "exit code 3", UtcNs(41)};
  s.groups = {g, GroupStatus{}};
  return s;
}

inline HistoryStatus full_history() {
  HistoryStatus h;
  h.now = UtcNs(1);
  h.window = "6h";
  h.bytes_max = "1GiB";
  h.start = point(2);
  h.head = point(9);
  h.bytes = 3;
  h.marks = {point(4), point(5)};
  h.volume_changes = {{point(6), VolumeChange::Kind::kCreated, "v", 0, 10},
                      {point(7), VolumeChange::Kind::kResized, "v", 10, 11},
                      {point(8), VolumeChange::Kind::kDeleted, "v", 11, 0}};
  return h;
}

}  // namespace tandem::rpc
