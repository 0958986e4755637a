// Text for people: sizes, ages, positions, tables; and the same read back from arguments.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "tandem/base/result.h"
#include "tandem/control.h"

namespace tandem::ctl {

/// "0 B", "512 B", "1 KiB", "1.5 GiB": at most one decimal, rounded down, never up to a size that
/// is not there.
std::string size_text(std::uint64_t bytes);
/// "3 records", "1 record", thousands apart: "12,345 records".
std::string count_text(std::uint64_t count, const std::string& noun);
/// "0.2 s", "14 s", "3 min 5 s", "2 h 10 min", "3 d 4 h".
std::string duration_text(std::chrono::nanoseconds time);
/// How long before `now`; "never" for no time at all, "just now" for the future.
std::string age_text(UtcNs then, UtcNs now);
/// Who feeds a mirror: "b", or "b, a mirror of a".
std::string upstream_text(const UpstreamStatus& upstream);
/// "2026-05-01 12:00:00.123 UTC", or "never".
std::string time_text(UtcNs time);
/// "timeline 2, record 300 (2026-…)".
std::string point_text(const LogPoint& point);

/// "1GiB", "512MiB", "1.5T", "100GB" (10^9), "4096": a whole number of bytes. kInvalid: what to
/// write.
Result<std::uint64_t> parse_size(const std::string& text);
/// "10s", "500ms", "2min", "10" (seconds): above 0, at most a day.
Result<std::chrono::milliseconds> parse_duration(const std::string& text);
Result<ReplicationMode> parse_mode(const std::string& text);

/// Rows under a heading, columns as wide as they must be; no trailing blanks.
class Table {
 public:
  explicit Table(std::vector<std::string> heading) { rows_.push_back(std::move(heading)); }
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.size() == 1; }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

/// When this node's rules delete a snapshot: "2026-05-01 12:00 UTC (daily)", "at no set time
/// (newest)", or "by hand".
std::string goes_text(const SnapshotStatus& snapshot);
/// What a volume of a group is called as an export: "disk", or of a clone "test/disk".
std::string export_name(const GroupStatus& group, const std::string& volume);
/// "group vms as of 2026-… (record 300)".
std::string clone_text(const CloneOrigin& origin);
/// What a kept state's volumes are called as exports: "disk@s1, log@s1".
std::string exports_text(const GroupStatus& group, const SnapshotStatus& snapshot);
/// What a promotion recovers and what it loses, in words; `promoted`: it has happened.
std::string receipt_text(const Receipt& receipt, bool promoted);

}  // namespace tandem::ctl
