// Moments as an operator writes them, and what 'tandem history' shows.
#include "ctl/history_text.h"
#include "ctl/moment.h"
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;
/// 2026-05-03 03:09:37 UTC.
constexpr std::uint64_t kNow = 1'777'777'777 * kSecond;

std::uint64_t time_of(const std::string& text) {
  const auto moment = parse_moment(text, UtcNs(kNow));
  if (!moment || !moment->time) return 0;
  return moment->time->value;
}

TEST(Moment, IsATimeOrARecord) {
  const auto record = parse_moment("300", UtcNs(kNow));
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->lsn, Lsn(300));
  EXPECT_FALSE(record->time.has_value());
  EXPECT_EQ(time_of("2026-05-03T03:09:37Z"), kNow);
  EXPECT_EQ(time_of("2026-05-03 03:09:37"), kNow);
  EXPECT_EQ(time_of("2026-05-03t03:09:37.5z"), kNow + kSecond / 2);
  EXPECT_EQ(time_of("2026-05-03T03:09:37.000000001Z"), kNow + 1);
  EXPECT_EQ(time_of("2026-05-03T05:09:37+02:00"), kNow);
  EXPECT_EQ(time_of("2026-05-02T22:39:37-04:30"), kNow);
  EXPECT_EQ(time_of("2026-05-03T03:09Z"), kNow - 37 * kSecond);
  EXPECT_EQ(time_of("2024-02-29T00:00:00Z"), 1'709'164'800 * kSecond);
  EXPECT_EQ(time_of("03:09:37"), kNow);
  EXPECT_EQ(time_of("03:09"), kNow - 37 * kSecond);
  EXPECT_EQ(time_of("00:00:00.25"), kNow / (86'400 * kSecond) * (86'400 * kSecond) + kSecond / 4);
  EXPECT_EQ(time_of("10m ago"), kNow - 600 * kSecond);
  EXPECT_EQ(time_of("10mago"), kNow - 600 * kSecond);
  EXPECT_EQ(time_of("1.5 h ago"), kNow - 5400 * kSecond);
  EXPECT_EQ(time_of("-90s"), kNow - 90 * kSecond);
  EXPECT_EQ(time_of("-2d"), kNow - 2 * 86'400 * kSecond);
}

TEST(Moment, IsNothingElse) {
  for (const char* bad : {"",
                          "yesterday",
                          "10m",
                          "-10",
                          "-m",
                          "ago",
                          "ago 10m",
                          "24:00",
                          "12:60",
                          "1:00",
                          "12:00:61",
                          "12:00x",
                          "2026-05-03",
                          "2025-02-29T00:00:00Z",
                          "2026-13-01T00:00:00Z",
                          "2026-05-03T03:09:37+2:00",
                          "2026-05-03T03:09:37.Z",
                          "2026-05-03T03:09:37ZZ",
                          "-300000d",
                          "99999999999999999999",
                          "1e3",
                          "-nan s",
                          "9999-01-01T00:00:00Z"}) {
    const auto moment = parse_moment(bad, UtcNs(kNow));
    ASSERT_FALSE(moment.has_value()) << bad;
    EXPECT_EQ(moment.error().code, ErrorCode::kInvalid);
    EXPECT_NE(moment.error().message.find("10m ago"), std::string::npos);
  }
}

LogPoint at(std::uint64_t second, std::uint64_t lsn, std::uint64_t bytes) {
  return {Timeline(1), Lsn(lsn), Digest(0), UtcNs(kNow + second * kSecond), bytes};
}

class HistoryCommand : public CommandTest {
 protected:
  HistoryCommand() {
    auto& h = history();
    h.now = UtcNs(kNow + 60 * kSecond);
    h.window = "6h";
    h.bytes_max = "off";
    h.start = at(0, 100, 1 << 20);
    h.marks = {at(0, 100, 1 << 20), at(10, 110, 1 << 20), at(20, 120, 5 << 20),
               at(30, 130, 6 << 20)};
    h.head = at(40, 140, 7 << 20);
    h.bytes = 3 << 20;
    auto& g = nodes["a:1"].status.groups[0];
    g.history = {{Timeline(1), Lsn(0), UtcNs(1)},
                 {Timeline(2), Lsn(121), UtcNs(kNow + 25 * kSecond)}};
    SnapshotStatus s;
    s.name = "s1";
    s.lsn = Lsn(115);
    s.utc = UtcNs(kNow + 15 * kSecond);
    s.payload_bytes = 3 << 20;
    s.consistency = "application-consistent";
    SnapshotStatus b = s;
    b.name = "b1";
    b.kind = "branch";
    b.lsn = Lsn(130);
    b.utc = UtcNs(kNow + 30 * kSecond);
    b.payload_bytes = 6 << 20;
    g.snapshots = {s, b};
  }
  HistoryStatus& history() { return nodes["a:1"].history; }
};

TEST_F(HistoryCommand, ShowsTheWindowTheRateAndWhatHappened) {
  EXPECT_EQ(at_a("history vms"), 0);
  EXPECT_EQ(nodes["a:1"].calls, Calls{"history vms"});
  EXPECT_TRUE(says("History of group vms on node alpha")) << out.str();
  EXPECT_TRUE(says("from          record 100 of 2026-05-03 03:09:37.000 UTC, 1 min 0 s ago"));
  EXPECT_TRUE(says("to            record 140 of 2026-05-03 03:10:17.000 UTC, 20 s ago"));
  EXPECT_TRUE(says("cost          3 MiB"));
  EXPECT_TRUE(says("history=6h, history.bytes=off"));
  // Ten columns of nothing, ten of the most, ten and ten of a quarter, twenty of nothing.
  EXPECT_TRUE(
      says("03:09:37 ..........██████████▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂▂.................... 03:10:37"))
      << out.str();
  EXPECT_TRUE(says("6 MiB written; each column is 1.0 s, the highest 409 KiB a second"));
  EXPECT_TRUE(says("2 MiB" + std::string(10, ' ') + "snapshot s1, application-consistent"));
  EXPECT_TRUE(says("promotion: timeline 2 begins"));
  EXPECT_TRUE(says("branch b1: the end of what was abandoned"));
  const auto text = out.str();
  EXPECT_LT(text.find("the history begins"), text.find("snapshot s1"));
  EXPECT_LT(text.find("snapshot s1"), text.find("promotion"));
  EXPECT_LT(text.find("promotion"), text.find("branch b1"));
  EXPECT_LT(text.find("branch b1"), text.find("the last record"));
}

TEST_F(HistoryCommand, IsExactAsJson) {
  EXPECT_EQ(at_a("history vms --json"), 0);
  const auto h = json()["histories"][0];
  EXPECT_EQ(h["node"], "alpha");
  EXPECT_EQ(h["history"], "6h");
  EXPECT_EQ(h["bytes"], 3 << 20);
  EXPECT_EQ(h["start"]["lsn"], 100);
  EXPECT_EQ(h["head"]["lsn"], 140);
  ASSERT_EQ(h["samples"].size(), 6u);  // and that nothing was written since
  EXPECT_EQ(h["samples"][2]["bytes"], 4 << 20);
  EXPECT_NEAR(h["samples"][2]["bytes_per_second"].get<double>(), (4 << 20) / 10.0, 1e-3);
  EXPECT_EQ(h["samples"][5]["bytes"], 0);
  ASSERT_EQ(h["markers"].size(), 5u);
  EXPECT_EQ(h["markers"][1]["kind"], "snapshot");
  EXPECT_EQ(h["markers"][1]["consistency"], "application-consistent");
  EXPECT_FALSE(h["markers"][2].contains("consistency")) << "of kept states only";
  EXPECT_EQ(h["markers"][2]["kind"], "promotion");
  EXPECT_EQ(h["markers"][2]["lsn"], 122) << "its first record";
}

TEST_F(HistoryCommand, ShowsWhatBecameOfVolumes) {
  using Kind = VolumeChange::Kind;
  history().volume_changes = {{at(5, 105, 2 << 20), Kind::kCreated, "w", 0, 1 << 30},
                              {at(12, 112, 2 << 20), Kind::kResized, "v", 10ull << 30, 20ull << 30},
                              {at(35, 135, 6 << 20), Kind::kDeleted, "w", 1 << 30, 0}};
  EXPECT_EQ(at_a("history vms"), 0);
  EXPECT_TRUE(says("volume w created, 1 GiB")) << out.str();
  EXPECT_TRUE(says("volume v resized from 10 GiB to 20 GiB"));
  EXPECT_TRUE(says("volume w deleted, it had 1 GiB"));
  const auto text = out.str();
  EXPECT_LT(text.find("w created"), text.find("v resized"));
  EXPECT_LT(text.find("v resized"), text.find("snapshot s1"));
  EXPECT_LT(text.find("branch b1"), text.find("w deleted"));
  EXPECT_EQ(at_a("history vms --json"), 0);
  const auto markers = json()["histories"][0]["markers"];
  ASSERT_EQ(markers.size(), 8u);
  EXPECT_EQ(markers[1]["kind"], "create");
  EXPECT_EQ(markers[2]["kind"], "resize");
  EXPECT_EQ(markers[2]["name"], "v");
  EXPECT_EQ(markers[2]["lsn"], 112);
  EXPECT_EQ(markers[2]["old_bytes"], 10ull << 30);
  EXPECT_EQ(markers[2]["new_bytes"], 20ull << 30);
  EXPECT_FALSE(markers[3].contains("old_bytes")) << "a snapshot";
  EXPECT_EQ(markers[6]["kind"], "delete");
  EXPECT_EQ(at_a("history vms --from 03:09:48 --to 03:09:50 --json"), 0);
  EXPECT_EQ(json()["histories"][0]["markers"].size(), 1u);
}

TEST_F(HistoryCommand, ShowsAPartOfIt) {
  EXPECT_EQ(at_a("history vms --from 03:09:50 --to 03:10:07 --json"), 0);
  const auto h = json()["histories"][0];
  EXPECT_EQ(h["samples"].size(), 2u);
  EXPECT_EQ(h["markers"].size(), 3u);
  EXPECT_EQ(at_a("history vms --from soon"), 2);
  EXPECT_EQ(at_a("history vms --from 300"), 2);
  EXPECT_TRUE(complains("times, not records"));
}

TEST_F(HistoryCommand, SaysWhenThereIsNone) {
  history() = {};
  history().window = history().bytes_max = "off";
  EXPECT_EQ(at_a("history vms"), 0);
  EXPECT_TRUE(says("'tandem group set vms history=6h' keeps one")) << out.str();
  EXPECT_TRUE(says("snapshot s1"));
  EXPECT_EQ(at_a("history vms --json"), 0);
  EXPECT_TRUE(json()["histories"][0]["start"].is_null());
  EXPECT_EQ(json()["histories"][0]["samples"].size(), 0u);
  EXPECT_EQ(at_a("history none"), 5);
  EXPECT_EQ(at_a("history"), 2);
  EXPECT_EQ(both("history vms"), 0);
  EXPECT_TRUE(says("on node beta"));
  nodes["a:1"].up = false;
  EXPECT_EQ(at_a("history vms"), 3);
}

TEST(Sparkline, HasEightHeights) {
  EXPECT_EQ(sparkline({}), "");
  EXPECT_EQ(sparkline({0, 0}), "..");
  EXPECT_EQ(sparkline({1, 100, 0}), "▁█.");
  EXPECT_EQ(sparkline({1, 2, 3, 4, 5, 6, 7, 8}), "▂▃▄▅▆▇██");
}

TEST(HistoryColumns, LoseNothing) {
  const auto sample = [](std::uint64_t second, std::uint64_t bytes) {
    return Sample{UtcNs(second * kSecond), Lsn(second), 0, bytes, 0};
  };
  EXPECT_EQ(columns_of({}, 3), (std::vector<std::uint64_t>{0, 0, 0}));
  EXPECT_EQ(columns_of({sample(5, 0), sample(5, 7)}, 2), (std::vector<std::uint64_t>{7, 0}));
  EXPECT_EQ(columns_of({sample(0, 0), sample(6, 600)}, 3),
            (std::vector<std::uint64_t>{200, 200, 200}));
  EXPECT_EQ(columns_of({sample(0, 0), sample(1, 100), sample(4, 300)}, 2),
            (std::vector<std::uint64_t>{200, 200}));
}

}  // namespace
}  // namespace tandem::ctl
