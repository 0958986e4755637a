// Automatic snapshots: when one is due and which go.
#include "control/snapshot_schedule.h"

#include <gtest/gtest.h>

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

TEST(SnapshotSchedule, SettingsAreChecked) {
  for (const char* good : {"off", "10s", "15m", "4h", "1d", ""})
    EXPECT_TRUE(replication::check_group_setting("snapshots.every", good)) << good;
  for (const char* bad : {"9s", "0m", "15", "m", "-1h", "15 m"})
    EXPECT_FALSE(replication::check_group_setting("snapshots.every", bad)) << bad;
  for (const char* good : {"off", "24h", "7d", "48", "1"})
    EXPECT_TRUE(replication::check_group_setting("snapshots.keep", good)) << good;
  for (const char* bad : {"0", "1.5", "-3", "many", "5x"})
    EXPECT_FALSE(replication::check_group_setting("snapshots.keep", bad)) << bad;
}

}  // namespace
}  // namespace tandem::control
