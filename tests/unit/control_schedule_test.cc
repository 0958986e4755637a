// Automatic snapshots: when one is due and which go.
#include "control/snapshot_schedule.h"

#include <gtest/gtest.h>

#include <ctime>
#include <random>
#include <set>
#include <tuple>

namespace tandem::control {
namespace {

using namespace std::chrono_literals;
using Names = std::vector<std::string>;

constexpr UtcNs at(std::uint64_t seconds) { return UtcNs(seconds * 1'000'000'000); }

SnapshotStatus one(std::string name, std::uint64_t seconds) {
  SnapshotStatus s;
  s.name = std::move(name);
  s.utc = at(seconds);
  return s;
}

replication::SnapshotPolicy policy(std::string every, std::string keep) {
  return replication::snapshot_policy(
      {{"snapshots.every", std::move(every)}, {"snapshots.keep", std::move(keep)}});
}

TEST(SnapshotSchedule, NamesAreTimes) {
  EXPECT_EQ(time_name(at(1'795'188'600)), "2026-11-20T15:30:00Z");
  EXPECT_EQ(automatic_name(at(1'795'188'600)), "auto-2026-11-20T15:30:00Z");
}

TEST(SnapshotSchedule, OneIsDueInEachPeriod) {
  const auto quarterly = policy("15m", "off");
  EXPECT_TRUE(snapshot_is_due(quarterly, {}, UtcNs{}, at(1000)));
  const std::vector<SnapshotStatus> kept = {one("auto-x", 900), one("mine", 2000)};
  EXPECT_FALSE(snapshot_is_due(quarterly, kept, UtcNs{}, at(900)));
  EXPECT_FALSE(snapshot_is_due(quarterly, kept, UtcNs{}, at(1799)));
  EXPECT_TRUE(snapshot_is_due(quarterly, kept, UtcNs{}, at(1800))) << "others do not count";
  EXPECT_TRUE(snapshot_is_due(quarterly, kept, UtcNs{}, at(900'000))) << "after a long rest, one";
  EXPECT_FALSE(snapshot_is_due(quarterly, kept, at(1801), at(1802))) << "deleted meanwhile";
  EXPECT_FALSE(snapshot_is_due(quarterly, kept, UtcNs{}, at(10))) << "the clock was set back";
  EXPECT_FALSE(snapshot_is_due(policy("off", "off"), {}, UtcNs{}, at(1000)));
}

TEST(SnapshotSchedule, OldOnesGoByAgeOrNumber) {
  const std::vector<SnapshotStatus> kept = {one("auto-1", 100), one("mine", 150),
                                            one("auto-2", 200), one("automatic", 250),
                                            one("auto-3", 300)};
  EXPECT_EQ(expired_snapshots(policy("off", "60s"), kept, at(160)), Names{});
  EXPECT_EQ(expired_snapshots(policy("off", "60s"), kept, at(161)), Names{"auto-1"});
  EXPECT_EQ(expired_snapshots(policy("off", "1m"), kept, at(10'000)), (Names{"auto-1", "auto-2"}))
      << "never the newest";
  EXPECT_EQ(expired_snapshots(policy("off", "2"), kept, at(300)), Names{"auto-1"});
  EXPECT_EQ(expired_snapshots(policy("off", "7"), kept, at(300)), Names{});
  EXPECT_EQ(expired_snapshots(policy("off", "off"), kept, at(1 << 30)), Names{});
  EXPECT_EQ(expired_snapshots(policy("off", ""), kept, at(100 + 86'401)), Names{"auto-1"})
      << "a day without the setting";
  EXPECT_EQ(expired_snapshots(policy("off", "60s"), kept, at(10)), Names{});
}

// --- the newest of each hour, day, week and month ------------------------------------------------

UtcNs date(int year, int month, int day, int hour = 0, int minute = 0) {
  std::tm t{};
  t.tm_year = year - 1900;
  t.tm_mon = month - 1;
  t.tm_mday = day;
  t.tm_hour = hour;
  t.tm_min = minute;
  return at(static_cast<std::uint64_t>(timegm(&t)));
}

replication::SnapshotPolicy calendar(std::string keep, int hourly, int daily, int weekly,
                                     int monthly) {
  const auto text = [](int n) { return n == 0 ? std::string("off") : std::to_string(n); };
  return replication::snapshot_policy({{"snapshots.keep", std::move(keep)},
                                       {"snapshots.hourly", text(hourly)},
                                       {"snapshots.daily", text(daily)},
                                       {"snapshots.weekly", text(weekly)},
                                       {"snapshots.monthly", text(monthly)}});
}

/// The same rules by another way: calendar fields, one step at a time.
std::tuple<int, int, int, int> fields(UtcNs time, char kind) {
  auto seconds = static_cast<std::time_t>(time.value / 1'000'000'000);
  std::tm t{};
  gmtime_r(&seconds, &t);
  if (kind == 'w') {  // the Monday
    seconds -= (t.tm_wday + 6) % 7 * 86400;
    gmtime_r(&seconds, &t);
  }
  return {t.tm_year, t.tm_mon, kind == 'm' ? 0 : t.tm_mday, kind == 'h' ? t.tm_hour : 0};
}
UtcNs step_back(UtcNs time, char kind) {
  constexpr std::uint64_t hour = 3'600'000'000'000;
  if (kind == 'h') return UtcNs(time.value - hour);
  if (kind == 'd') return UtcNs(time.value - 24 * hour);
  if (kind == 'w') return UtcNs(time.value - 7 * 24 * hour);
  const auto month = std::get<1>(fields(time, 'm'));
  while (std::get<1>(fields(time, 'm')) == month) time = UtcNs(time.value - 24 * hour);
  return time;
}
Names expected(const replication::SnapshotPolicy& policy, const std::vector<SnapshotStatus>& kept,
               UtcNs now) {
  std::set<std::string> stay = {kept.back().name};
  for (const auto& s : kept) {
    const auto age = now.value > s.utc.value ? now.value - s.utc.value : 0;
    if (age <= static_cast<std::uint64_t>(policy.keep_time->count())) stay.insert(s.name);
  }
  constexpr char kinds[] = {'h', 'd', 'w', 'm'};
  for (int i = 0; i < 4; ++i) {
    UtcNs period = now;
    for (std::uint64_t n = 0; n < policy.keep_newest[i];
         ++n, period = step_back(period, kinds[i])) {
      const SnapshotStatus* newest = nullptr;
      for (const auto& s : kept) {
        if (fields(s.utc, kinds[i]) == fields(period, kinds[i])) newest = &s;
      }
      if (newest != nullptr) stay.insert(newest->name);
    }
  }
  Names gone;
  for (const auto& s : kept) {
    if (stay.count(s.name) == 0) gone.push_back(s.name);
  }
  return gone;
}

void forget(std::vector<SnapshotStatus>& kept, const Names& names) {
  for (const auto& name : names) {
    std::erase_if(kept, [&](const SnapshotStatus& s) { return s.name == name; });
  }
}

TEST(SnapshotRetention, IsWhatTheCalendarSaysThroughLeapDaysGapsAndShorterSettings) {
  for (unsigned seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    auto policy = calendar("24h", 24, 7, 4, 12);
    std::vector<SnapshotStatus> kept, untouched;
    std::size_t went = 0;
    UtcNs now = date(2027, 11, 20);
    while (now < date(2028, 4, 10)) {  // a new year and a leap day
      // Every two hours, now and then not for some days.
      const bool gap = random() % 60 == 0;
      now = UtcNs(now.value + (gap ? random() % (9 * 86400) : 7200) * 1'000'000'000ull);
      auto s = one(automatic_name(now), now.value / 1'000'000'000);
      kept.push_back(s);
      untouched.push_back(s);
      const auto gone = expired_snapshots(policy, kept, now);
      ASSERT_EQ(gone, expected(policy, kept, now)) << time_name(now);
      forget(kept, gone);
      went += gone.size();
      if (now >= date(2028, 2, 1)) policy = calendar("6h", 5, 3, 2, 2);
    }
    EXPECT_GT(went, 500u);
    // One that was off all the time comes to the same.
    forget(untouched, expired_snapshots(policy, untouched, now));
    EXPECT_EQ(untouched.size(), kept.size());
    for (std::size_t i = 0; i < std::min(kept.size(), untouched.size()); ++i)
      EXPECT_EQ(untouched[i].name, kept[i].name);
  }
}

TEST(SnapshotRetention, PeriodsEndWhereTheCalendarEndsThem) {
  const auto monthly = calendar("1h", 0, 0, 0, 2);
  auto leap = one("auto-leap", date(2028, 2, 29, 23, 59).value / 1'000'000'000);
  const std::vector<SnapshotStatus> kept = {
      one("auto-early", date(2028, 2, 29, 1).value / 1'000'000'000), leap,
      one("auto-last", date(2028, 5, 1).value / 1'000'000'000)};
  EXPECT_EQ(expired_snapshots(monthly, kept, date(2028, 3, 31, 23, 59)), Names{"auto-early"});
  EXPECT_EQ(expired_snapshots(monthly, kept, date(2028, 4, 1)), (Names{"auto-early", "auto-leap"}));
  // 2028-02-28 is a Monday.
  const auto weekly = calendar("1h", 0, 0, 1, 0);
  EXPECT_EQ(expired_snapshots(weekly, kept, date(2028, 3, 5, 23, 59)), Names{"auto-early"});
  EXPECT_EQ(expired_snapshots(weekly, kept, date(2028, 3, 6)), (Names{"auto-early", "auto-leap"}));
  const auto daily = calendar("1h", 0, 1, 0, 0);
  EXPECT_EQ(expired_snapshots(daily, kept, date(2028, 2, 29, 23, 59)), Names{"auto-early"});
  const auto hourly = calendar("1m", 3, 0, 0, 0);
  EXPECT_EQ(expired_snapshots(hourly, kept, date(2028, 2, 29, 3, 59)), Names{});
  EXPECT_EQ(expired_snapshots(hourly, kept, date(2028, 2, 29, 4)), Names{"auto-early"});
}

TEST(SnapshotRetention, SaysWhichRuleKeepsEachAndUntilWhen) {
  const std::vector<SnapshotStatus> kept = {
      one("auto-1", date(2026, 5, 30, 22).value / 1'000'000'000),
      one("mine", date(2026, 5, 30, 23).value / 1'000'000'000),
      one("auto-2", date(2026, 5, 31, 22).value / 1'000'000'000),
      one("auto-3", date(2026, 6, 1, 10).value / 1'000'000'000),
      one("auto-4", date(2026, 6, 1, 10, 30).value / 1'000'000'000)};
  const auto all = keepings(calendar("24h", 0, 7, 0, 3), kept, date(2026, 6, 1, 12));
  ASSERT_EQ(all.size(), 4u) << "one by hand is not touched";
  EXPECT_EQ(all[0].rules, Names{"daily"});
  EXPECT_EQ(all[0].until, date(2026, 6, 6));
  EXPECT_EQ(all[1].rules, (Names{"keep", "daily", "monthly"}));
  EXPECT_EQ(all[1].until, date(2026, 8, 1));
  EXPECT_EQ(all[2].rules, Names{"keep"});
  EXPECT_EQ(all[2].until, date(2026, 6, 2, 10));
  EXPECT_EQ(all[3].index, 4u);
  EXPECT_EQ(all[3].rules, (Names{"newest", "keep", "daily", "monthly"}));
  EXPECT_EQ(all[3].until, std::nullopt);
  // What is said comes true: up to then it stays, then it goes.
  for (const auto& keeping : all) {
    if (!keeping.until) continue;
    const auto gone_at = [&](UtcNs now) {
      const auto gone = expired_snapshots(calendar("24h", 0, 7, 0, 3), kept, now);
      return std::count(gone.begin(), gone.end(), kept[keeping.index].name) != 0;
    };
    EXPECT_FALSE(gone_at(UtcNs(keeping.until->value - 1)));
    EXPECT_TRUE(gone_at(UtcNs(keeping.until->value + 1)));
  }
  // By number no time is known.
  const auto by_number = keepings(calendar("2", 0, 0, 0, 0), kept, date(2026, 6, 1, 12));
  EXPECT_TRUE(by_number[0].rules.empty());
  EXPECT_EQ(by_number[2].rules, Names{"keep"});
  EXPECT_EQ(by_number[2].until, std::nullopt);
}

TEST(SnapshotRetention, AClockThatWasSetBackKeepsAndHugeNumbersMeanForEver) {
  const std::vector<SnapshotStatus> kept = {
      one("auto-1", date(2026, 5, 30, 22).value / 1'000'000'000),
      one("auto-2", date(2026, 5, 31, 22).value / 1'000'000'000)};
  EXPECT_EQ(expired_snapshots(calendar("1h", 1, 1, 1, 1), kept, date(2020, 1, 1)), Names{});
  const auto for_ever = replication::snapshot_policy(
      {{"snapshots.keep", "1s"}, {"snapshots.hourly", "18446744073709551615"}});
  EXPECT_EQ(expired_snapshots(for_ever, kept, date(2126, 1, 1)), Names{});
}

TEST(SnapshotRetention, AJumpOfTheClockIsDoubtfulForADay) {
  ClockWatch watch;
  EXPECT_FALSE(watch.doubtful(date(2026, 1, 1), 0s)) << "nothing to compare with";
  EXPECT_FALSE(watch.doubtful(date(2026, 1, 1, 1), 1h));
  EXPECT_FALSE(watch.doubtful(date(2026, 1, 1, 2, 30), 2h)) << "half an hour is corrected";
  EXPECT_FALSE(watch.doubtful(date(2025, 1, 1), 2h)) << "back is no danger";
  EXPECT_TRUE(watch.doubtful(date(2026, 1, 1, 2, 30), 2h)) << "but ahead again is";
  EXPECT_TRUE(watch.doubtful(date(2026, 1, 2, 2, 29), 25h + 59min));
  EXPECT_FALSE(watch.doubtful(date(2026, 1, 2, 2, 30), 26h));
}

TEST(SnapshotSchedule, SettingsAreChecked) {
  for (const char* good : {"off", "10s", "15m", "4h", "1d", ""})
    EXPECT_TRUE(replication::check_group_setting("snapshots.every", good)) << good;
  for (const char* bad : {"9s", "0m", "15", "m", "-1h", "15 m"})
    EXPECT_FALSE(replication::check_group_setting("snapshots.every", bad)) << bad;
  for (const char* good : {"off", "24h", "7d", "48", "1"})
    EXPECT_TRUE(replication::check_group_setting("snapshots.keep", good)) << good;
  for (const char* key :
       {"snapshots.hourly", "snapshots.daily", "snapshots.weekly", "snapshots.monthly"}) {
    for (const char* good : {"off", "1", "24", ""})
      EXPECT_TRUE(replication::check_group_setting(key, good)) << key << good;
    for (const char* bad : {"0", "24h", "-1", "on"})
      EXPECT_FALSE(replication::check_group_setting(key, bad)) << key << bad;
  }
  for (const char* bad : {"0", "1.5", "-3", "many", "5x"})
    EXPECT_FALSE(replication::check_group_setting("snapshots.keep", bad)) << bad;
}

}  // namespace
}  // namespace tandem::control
