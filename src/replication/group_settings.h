// What an operator sets about a group and its mirrors while it runs. Kept as texts with the group,
// on this node only; read here.
//
//   lag_bytes       the most that the slowest of the mirrors in modes async and flush may lack,
//                   whatever the group's mode is, or "off"
//   lag_time        the longest that it may lack something, or "off"
//   lag_action      degrade | throttle | stall: what happens to writers at the bound
//   without_mirror  degrade | block: what happens in mode sync when no mirror is in sync
//   snapshots.every when the primary takes a snapshot by itself ("15m"), or "off"
//   snapshots.keep  how long this node keeps all of those ("24h"), or how many ("48"), or "off"
//                   (for ever)
//   snapshots.hourly, .daily, .weekly, .monthly
//                   of so many hours, days, weeks and months (UTC, the present one is the first)
//                   this node also keeps the newest of those, or "off"
//   history         every state of so long before the present can be had again, on this node
//                   ("6h"), or "off"
//   history.bytes   at most so much is kept for that ("20GiB"), or "off"
//   scrub.every     how often this node reads and checks all of its copy ("7d"), or "off"
//   scrub.rate      at how many bytes a second ("20MiB")
// and for each mirror:
//   mode              async | flush | sync, or "group": the group's own
//   catch_up_rate     bytes a second for a full copy and for catching up, or "off"
//   catch_up_times    other rates at times of the day: "22:00-06:00 off, 12:00-13:00 5MiB"
//   compression       off | on | auto
//   relay             on | off: this node feeds it also while it is a mirror itself
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/result.h"
#include "tandem/control.h"
#include "tandem/port/executor.h"

namespace tandem::replication {

enum class LagAction { kDegrade, kThrottle, kStall };

struct GroupPolicy {
  std::optional<std::uint64_t> lag_bytes;
  std::optional<Nanoseconds> lag_time;
  LagAction lag_action = LagAction::kDegrade;
  bool block_without_mirror = false;
  bool bounded() const { return lag_bytes || lag_time; }
};

/// Automatic snapshots.
struct SnapshotPolicy {
  enum Period { kHour, kDay, kWeek, kMonth, kPeriods };
  std::optional<Nanoseconds> every;
  // All of them: neither means for ever.
  std::optional<Nanoseconds> keep_time;
  std::optional<std::uint64_t> keep_count;
  std::array<std::uint64_t, kPeriods> keep_newest{};  // of so many of each period; 0: of none
};
/// "hourly", "daily", "weekly", "monthly".
const char* to_text(SnapshotPolicy::Period period);

/// How much of its past this node's copy keeps.
struct HistoryPolicy {
  Nanoseconds window{0};  // 0: none
  std::uint64_t bytes_max = UINT64_MAX;
};

/// When this node reads and checks all of its copy, and how fast.
struct ScrubPolicy {
  std::optional<Nanoseconds> every;
  std::uint64_t bytes_per_second = 0;
};

/// From minute `from` of the day (local time) up to `to`, which may lie past midnight.
struct RateWindow {
  unsigned from = 0, to = 0;
  std::optional<std::uint64_t> bytes_per_second;  // nothing: unlimited
};

enum class Compression { kOff, kOn, kAuto };

struct SlotPolicy {
  std::optional<std::uint64_t> catch_up_rate;  // bytes a second
  std::vector<RateWindow> catch_up_times;      // the first that matches wins
  Compression compression = Compression::kOff;
  std::optional<ReplicationMode> mode;  // nothing: the group's
  bool relay = false;
  /// The limit in force at `minute` of the day.
  std::optional<std::uint64_t> rate_at(unsigned minute) const;
};

/// kInvalid for an unknown key or a value that it cannot have, with what it can.
Status check_group_setting(const std::string& key, const std::string& value);
Status check_mirror_setting(const std::string& key, const std::string& value);

/// What is in force; what cannot be read (a newer release wrote it) counts as not set.
GroupPolicy group_policy(const Settings& settings);
SnapshotPolicy snapshot_policy(const Settings& settings);
HistoryPolicy history_policy(const Settings& settings);
ScrubPolicy scrub_policy(const Settings& settings);
/// The settings of the mirror at `address` are those whose key begins with mirror_prefix().
SlotPolicy slot_policy(const Settings& settings, const std::string& address);
std::string mirror_prefix(const std::string& address);
/// Minutes since midnight, local time.
unsigned minute_of_day(UtcNs now);

/// Every setting that there is, with its value or default.
Settings group_settings(const Settings& settings);
Settings mirror_settings(const Settings& settings, const std::string& address);

}  // namespace tandem::replication
