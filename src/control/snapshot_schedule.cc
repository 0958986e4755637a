#include "control/snapshot_schedule.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <map>

namespace tandem::control {
namespace {

using replication::SnapshotPolicy;
using Period = SnapshotPolicy::Period;

constexpr std::uint64_t kSecond = 1'000'000'000;
constexpr std::uint64_t kHour = 3600 * kSecond;
constexpr std::uint64_t kDay = 24 * kHour;
/// 1970 began on a Thursday.
constexpr std::uint64_t kDaysOfFirstWeek = 3;

std::vector<std::size_t> automatic(const std::vector<SnapshotStatus>& kept) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    const bool snapshot = kept[i].kind == "snapshot";  // who named a branch so wants to keep it
    if (snapshot && kept[i].name.starts_with(kAutomaticPrefix)) found.push_back(i);
  }
  return found;
}

/// Periods of one kind are numbered in a row.
std::uint64_t period_of(Period kind, UtcNs time) {
  const std::uint64_t day = time.value / kDay;
  switch (kind) {
    case Period::kHour:
      return time.value / kHour;
    case Period::kDay:
      return day;
    case Period::kWeek:
      return (day + kDaysOfFirstWeek) / 7;
    default:
      break;
  }
  const std::chrono::year_month_day date{
      std::chrono::sys_days(std::chrono::days(static_cast<std::int64_t>(day)))};
  return static_cast<std::uint64_t>(static_cast<int>(date.year())) * 12 +
         static_cast<unsigned>(date.month()) - 1;
}

UtcNs start_of(Period kind, std::uint64_t period) {
  switch (kind) {
    case Period::kHour:
      return UtcNs(period * kHour);
    case Period::kDay:
      return UtcNs(period * kDay);
    case Period::kWeek:
      return UtcNs((period * 7 - kDaysOfFirstWeek) * kDay);
    default:
      break;
  }
  const auto month = std::chrono::year(static_cast<int>(period / 12)) /
                     std::chrono::month(static_cast<unsigned>(period % 12 + 1)) / 1;
  const auto days = std::chrono::sys_days(month).time_since_epoch().count();
  return UtcNs(static_cast<std::uint64_t>(days) * kDay);
}

/// 200 years of each kind: no clock here reaches further, and more is for ever.
constexpr std::uint64_t kPeriodsMax[] = {200 * 8766, 200 * 366, 200 * 53, 200 * 12};

void keep_newest_of_each(Period kind, std::uint64_t count, const std::vector<SnapshotStatus>& kept,
                         UtcNs now, std::vector<Keeping>& keepings) {
  if (count == 0) return;
  std::map<std::uint64_t, Keeping*> newest;
  for (auto& keeping : keepings) newest[period_of(kind, kept[keeping.index].utc)] = &keeping;
  for (const auto& [period, keeping] : newest) {
    const UtcNs end = start_of(kind, period + std::min(count, kPeriodsMax[kind]));
    if (now >= end) continue;
    keeping->rules.emplace_back(to_text(kind));
    if (keeping->until) keeping->until = std::max(*keeping->until, end);
  }
}

}  // namespace

std::string time_name(UtcNs now) {
  const auto seconds = static_cast<std::time_t>(now.value / kSecond);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  return {text, std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc)};
}

std::string automatic_name(UtcNs now) { return std::string(kAutomaticPrefix) + time_name(now); }

bool snapshot_is_due(const SnapshotPolicy& policy, const std::vector<SnapshotStatus>& kept,
                     UtcNs last, UtcNs now) {
  if (!policy.every) return false;
  const auto found = automatic(kept);
  if (!found.empty()) last = std::max(last, kept[found.back()].utc);
  const auto every = static_cast<std::uint64_t>(policy.every->count());
  return now.value / every > last.value / every;
}

std::vector<Keeping> keepings(const SnapshotPolicy& policy, const std::vector<SnapshotStatus>& kept,
                              UtcNs now) {
  std::vector<Keeping> all;
  const auto found = automatic(kept);
  for (std::size_t i = 0; i < found.size(); ++i) {
    Keeping keeping{found[i], {}, UtcNs{}};
    if (i + 1 == found.size()) {
      keeping.rules.emplace_back("newest");
      keeping.until.reset();
    }
    const UtcNs time = kept[found[i]].utc;
    if (policy.keep_time) {
      const UtcNs end(time.value + static_cast<std::uint64_t>(policy.keep_time->count()));
      if (now <= end) {
        keeping.rules.emplace_back("keep");
        if (keeping.until) keeping.until = end;
      }
    } else if (!policy.keep_count || found.size() - i <= *policy.keep_count) {
      keeping.rules.emplace_back("keep");
      keeping.until.reset();
    }
    all.push_back(std::move(keeping));
  }
  for (int i = 0; i < SnapshotPolicy::kPeriods; ++i) {
    const auto kind = static_cast<Period>(i);
    keep_newest_of_each(kind, policy.keep_newest[kind], kept, now, all);
  }
  return all;
}

std::vector<std::string> expired_snapshots(const SnapshotPolicy& policy,
                                           const std::vector<SnapshotStatus>& kept, UtcNs now) {
  std::vector<std::string> expired;
  for (const auto& keeping : keepings(policy, kept, now)) {
    if (keeping.rules.empty()) expired.push_back(kept[keeping.index].name);
  }
  return expired;
}

bool ClockWatch::doubtful(UtcNs utc, Nanoseconds monotonic) {
  if (utc_ && utc > *utc_) {
    const std::uint64_t passed = static_cast<std::uint64_t>((monotonic - monotonic_).count());
    if (utc.value - utc_->value > passed + kHour)
      doubtful_until_ = monotonic + Nanoseconds(static_cast<std::int64_t>(kDay));
  }
  utc_ = utc;
  monotonic_ = monotonic;
  return monotonic < doubtful_until_;
}

}  // namespace tandem::control
