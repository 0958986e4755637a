// What people read and type: sizes, ages, tables, receipts, verdicts, settings.
#include "ctl/format.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>

#include "ctl/settings.h"
#include "ctl/verdict.h"
#include "tests/support/grpc_support.h"

namespace tandem::ctl {
namespace {

using namespace std::chrono_literals;

TEST(FormatTest, SizesAreRoundedDown) {
  EXPECT_EQ(size_text(0), "0 B");
  EXPECT_EQ(size_text(1023), "1023 B");
  EXPECT_EQ(size_text(1024), "1 KiB");
  EXPECT_EQ(size_text(1536), "1.5 KiB");
  EXPECT_EQ(size_text(2047), "1.9 KiB");
  EXPECT_EQ(size_text((1ull << 30) - 1), "1023 MiB");
  EXPECT_EQ(size_text(1ull << 30), "1 GiB");
  EXPECT_EQ(size_text(250ull << 30), "250 GiB");
  EXPECT_EQ(size_text(UINT64_MAX), "15.9 EiB");
}

TEST(FormatTest, SizesAreRead) {
  const std::map<std::string, std::uint64_t> good = {{"0", 0},
                                                     {"4096", 4096},
                                                     {"512B", 512},
                                                     {"1KiB", 1024},
                                                     {"1k", 1024},
                                                     {"1GiB", 1ull << 30},
                                                     {"1G", 1ull << 30},
                                                     {"1.5TiB", 3ull << 39},
                                                     {"100GB", 100'000'000'000},
                                                     {"2 MiB", 2 << 20},
                                                     {"1gib", 1ull << 30},
                                                     {"1kB", 1000},
                                                     {"7EiB", 7ull << 60}};
  for (const auto& [text, bytes] : good) {
    const auto size = parse_size(text);
    ASSERT_TRUE(size.has_value()) << text;
    EXPECT_EQ(*size, bytes) << text;
  }
  for (const char* bad : {"", "GiB", "-1", "1.5", "1.GiB", ".5GiB", "1.2.3", "1XiB", "1GiBs",
                          "9EiB", "99999999999999999999999", "0.3KiB", "1e3", "0x10"}) {
    const auto size = parse_size(bad);
    ASSERT_FALSE(size.has_value()) << bad;
    EXPECT_NE(size.error().message.find("1GiB"), std::string::npos);
  }
}

TEST(FormatTest, DurationsAndAges) {
  EXPECT_EQ(duration_text(0s), "0.0 s");
  EXPECT_EQ(duration_text(1234ms), "1.2 s");
  EXPECT_EQ(duration_text(9999ms), "9.9 s");
  EXPECT_EQ(duration_text(59s), "59 s");
  EXPECT_EQ(duration_text(185s), "3 min 5 s");
  EXPECT_EQ(duration_text(2h + 10min + 59s), "2 h 10 min");
  EXPECT_EQ(duration_text(76h), "3 d 4 h");
  EXPECT_EQ(age_text(UtcNs(0), UtcNs(5)), "never");
  EXPECT_EQ(age_text(UtcNs(6), UtcNs(5)), "just now");
  EXPECT_EQ(age_text(UtcNs(1'000'000'000), UtcNs(15'000'000'000)), "14 s ago");
  EXPECT_EQ(time_text(UtcNs(0)), "never");
  EXPECT_EQ(time_text(UtcNs(1'777'636'800'123'456'789)), "2026-05-01 12:00:00.123 UTC");
  for (const auto& [text, want] : std::map<std::string, std::chrono::milliseconds>{
           {"10s", 10s}, {"10", 10s}, {"500ms", 500ms}, {"2min", 2min}, {"1.5s", 1500ms}}) {
    const auto time = parse_duration(text);
    ASSERT_TRUE(time.has_value()) << text;
    EXPECT_EQ(*time, want);
  }
  for (const char* bad : {"", "s", "0", "0ms", "-1s", "10x", "25h", "9999999999999s"})
    EXPECT_FALSE(parse_duration(bad).has_value()) << bad;
}

TEST(FormatTest, CountsAndModes) {
  EXPECT_EQ(count_text(0, "record"), "0 records");
  EXPECT_EQ(count_text(1, "record"), "1 record");
  EXPECT_EQ(count_text(1234567, "block"), "1,234,567 blocks");
  EXPECT_EQ(count_text(123456, "block"), "123,456 blocks");
  EXPECT_EQ(*parse_mode("async"), ReplicationMode::kAsync);
  EXPECT_EQ(*parse_mode("flush"), ReplicationMode::kFlush);
  EXPECT_EQ(*parse_mode("sync"), ReplicationMode::kSync);
  EXPECT_FALSE(parse_mode("Sync").has_value());
}

TEST(FormatTest, TablesAlignWithoutTrailingBlanks) {
  Table table({"A", "LONG", "C"});
  EXPECT_TRUE(table.empty());
  table.row({"wide cell", "x", "1"});
  table.row({"\xc3\xa9", "", "2"});
  table.row({"y", "z", ""});
  EXPECT_FALSE(table.empty());
  EXPECT_EQ(table.text(),
            "A          LONG  C\n"
            "wide cell  x     1\n"
            "\xc3\xa9                2\n"
            "y          z\n");
}

Receipt receipt() {
  Receipt r;
  r.group = "vms";
  r.recovers_to = {Timeline(1), Lsn(1300), Digest(1), UtcNs(1'777'636'800'000'000'000), 0};
  r.consistent =
      ConsistentPoint{"nightly", Lsn(1200), UtcNs(1'777'636'800'000'000'000 - 60'000'000'000)};
  r.new_timeline = Timeline(2);
  r.head_known = true;
  r.primary_head = {Timeline(1), Lsn(1302), Digest(2), UtcNs(1'777'636'801'000'000'000), 0};
  r.missing_records = 2;
  r.missing_bytes = 8192;
  r.last_contact = UtcNs(1'777'636'801'500'000'000);
  r.contact_age_ms = 14500;
  return r;
}

TEST(FormatTest, AReceiptSaysWhatIsLost) {
  EXPECT_EQ(receipt_text(receipt(), false),
            "Promoting group vms here:\n"
            "  recovers to   timeline 1, record 1,300 of 2026-05-01 12:00:00.000 UTC\n"
            "  consistent at snapshot nightly, record 1,200 of 2026-05-01 11:59:00.000 UTC\n"
            "  new timeline  2\n"
            "  loses         at least 2 records with 8 KiB of data, up to record 1,302 of "
            "2026-05-01 12:00:01.000 UTC\n"
            "  last contact  2026-05-01 12:00:01.500 UTC, 14 s ago\n"
            "  primary       does not answer\n");
  auto r = receipt();
  r.missing_records = r.missing_bytes = 0;
  r.primary_reachable = true;
  const auto text = receipt_text(r, false);
  EXPECT_NE(text.find("nothing that this node knows of"), std::string::npos) << text;
  EXPECT_NE(text.find("since then"), std::string::npos) << text;
  EXPECT_NE(text.find("STILL ALIVE"), std::string::npos) << text;
  r.consistent.reset();
  EXPECT_NE(receipt_text(r, false).find("consistent at no application-consistent snapshot"),
            std::string::npos);
  r.head_known = false;
  r.last_contact = UtcNs(0);
  EXPECT_NE(receipt_text(r, false).find("unknown"), std::string::npos);
  EXPECT_NE(receipt_text(r, false).find("last contact  never"), std::string::npos);
  r.complete_image = false;
  EXPECT_NE(receipt_text(r, false).find("cannot be done"), std::string::npos);
  EXPECT_EQ(receipt_text(receipt(), true).find("primary  "), std::string::npos);
  EXPECT_NE(receipt_text(receipt(), true).find("was promoted"), std::string::npos);
}

class VerdictTest : public testing::Test {
 protected:
  VerdictTest() {
    primary.name = mirror.name = fenced.name = "vms";
    primary.state = "serving";
    primary.mode = ReplicationMode::kSync;
    primary.head.timeline = Timeline(1);
    slot.node = "beta";
    slot.address = "b:1";
    slot.state = "following";
    slot.in_sync = true;
    mirror.role = Role::kMirror;
    mirror.state = "mirroring";
    mirror.upstream = UpstreamStatus{};
    mirror.upstream->node = "alpha";
    mirror.upstream->primary = "alpha";
    mirror.upstream->state = "following";
    mirror.upstream->last_contact = UtcNs(99'000'000'000);
    fenced.role = Role::kFenced;
    fenced.reason = "timeline 2 exists";
  }
  Verdict judge_all(std::vector<std::pair<std::string, GroupStatus*>> groups,
                    std::vector<std::string> silent = {}) {
    std::vector<View> views;
    for (auto& [node, group] : groups) views.push_back({node, UtcNs(100'000'000'000), group});
    return judge(views, silent);
  }
  void expect(const Verdict& verdict, bool good, std::vector<std::string> words) {
    EXPECT_EQ(verdict.good, good) << verdict.text;
    for (const auto& word : words)
      EXPECT_NE(verdict.text.find(word), std::string::npos)
          << word << " is not in: " << verdict.text;
  }
  GroupStatus primary, mirror, fenced;
  SlotStatus slot;
};

TEST_F(VerdictTest, APrimaryAndItsMirror) {
  expect(judge_all({{"alpha", &primary}}), false, {"NOT PROTECTED", "no mirror", "mirror add vms"});
  primary.slots = {slot};
  expect(judge_all({{"alpha", &primary}, {"beta", &mirror}}), true, {"beta is in sync"});
  primary.slots[0].in_sync = false;
  primary.mode = ReplicationMode::kAsync;
  expect(judge_all({{"alpha", &primary}}), true, {"beta follows (async)", "lacks nothing now"});
  primary.slots[0].missing_records = 3;
  primary.slots[0].missing_bytes = 12288;
  primary.slots[0].missing_blocks = 2;
  expect(judge_all({{"alpha", &primary}}), true, {"lacks 3 records (12 KiB of data, 2 blocks)"});
  primary.slots[0].state = "connecting";
  primary.slots[0].reason = "connection refused";
  primary.slots[0].since = UtcNs(86'000'000'000);
  expect(judge_all({{"alpha", &primary}}, {"b:1"}), false,
         {"NOT PROTECTED", "connecting (connection refused)", "since 14 s ago", "lacks 3 records"});
  primary.slots[0].node = "";
  primary.slots[0].state = "image";
  primary.slots[0].progress_done = 25;
  primary.slots[0].progress_total = 100;
  expect(judge_all({{"alpha", &primary}}), false, {"b:1 is not following: image", "25 %"});
  primary.state = "stopped";
  primary.reason = "a flush failed";
  expect(judge_all({{"alpha", &primary}}), false, {"NOT SERVED", "stopped (a flush failed)"});
}

TEST_F(VerdictTest, AStartingPrimaryIsNotGoodYet) {
  primary.state = "starting";
  primary.reason = "asks its peer";
  primary.slots = {slot};
  expect(judge_all({{"alpha", &primary}}), false, {"alpha is starting (asks its peer)"});
}

TEST_F(VerdictTest, AMirrorAlone) {
  expect(judge_all({{"beta", &mirror}}, {"a:1"}), true,
         {"beta mirrors alpha: following", "1.0 s ago", "Not answering: a:1"});
  mirror.upstream->state = "lost";
  expect(judge_all({{"beta", &mirror}}, {"a:1"}), false,
         {"NOT SERVED", "last heard its primary alpha 1.0 s ago", "tandem receipt vms",
          "tandem promote vms", "Not answering: a:1"});
  mirror.upstream.reset();
  expect(judge_all({{"beta", &mirror}}), false, {"without a primary"});
}

TEST_F(VerdictTest, FencedAndSplit) {
  expect(judge_all({{"alpha", &fenced}}), false, {"NOT SERVED", "alpha is fenced"});
  auto other = primary;
  primary.slots = {slot};
  expect(judge_all({{"beta", &primary}, {"alpha", &fenced}}), false,
         {"in sync", "alpha is fenced (timeline 2 exists)", "keeps its data"});
  other.head.timeline = Timeline(2);
  expect(judge_all({{"alpha", &primary}, {"beta", &other}}), false,
         {"SPLIT", "alpha (timeline 1, serving)", "beta (timeline 2, serving)",
          "The lower timeline is the old one"});
  primary.head.timeline = other.head.timeline = Timeline(2);
  primary.split = SplitStatus{"beta", "promoted apart: run this", UtcNs(1)};
  expect(judge_all({{"alpha", &primary}, {"beta", &other}}), false,
         {"SPLIT", "SPLIT, as alpha sees it: promoted apart: run this"});
}

class SettingsTest : public testing::Test {
 protected:
  Environment environment() {
    return [this](const char* name) -> const char* {
      const auto at = variables.find(name);
      return at == variables.end() ? nullptr : at->second.c_str();
    };
  }
  std::string file(const std::string& text) {
    const auto path = directory.file("client.toml");
    std::ofstream(path) << text;
    return path;
  }
  test::TemporaryDirectory directory;
  std::map<std::string, std::string> variables;
};

TEST_F(SettingsTest, ArgumentsWinOverTheEnvironmentOverTheFile) {
  const auto path = file("[client]\nnode = [\"f1:1\", \"f2:2\"]\nca = \"fca\"\nkey = \"fkey\"\n");
  Settings nothing;
  ASSERT_TRUE(complete(nothing, environment(), {directory.file("none"), path}).has_value());
  EXPECT_EQ(nothing.nodes, (std::vector<std::string>{"f1:1", "f2:2"}));
  EXPECT_EQ(nothing.ca, "fca");
  EXPECT_EQ(nothing.certificate, "");
  variables = {{"TANDEM_NODE", "e1:1, e2:2,"}, {"TANDEM_CA", "eca"}, {"TANDEM_CERTIFICATE", "ec"}};
  Settings some;
  some.ca = "argument";
  ASSERT_TRUE(complete(some, environment(), {path}).has_value());
  EXPECT_EQ(some.nodes, (std::vector<std::string>{"e1:1", "e2:2"}));
  EXPECT_EQ(some.ca, "argument");
  EXPECT_EQ(some.certificate, "ec");
  EXPECT_EQ(some.key, "fkey");
  Settings given;
  given.nodes = {"a:1"};
  ASSERT_TRUE(complete(given, environment(), {path}).has_value());
  EXPECT_EQ(given.nodes, std::vector<std::string>{"a:1"});
}

TEST_F(SettingsTest, WithoutAnythingTheNodeIsThisMachine) {
  Settings settings;
  ASSERT_TRUE(complete(settings, environment(), {directory.file("none")}).has_value());
  EXPECT_EQ(settings.nodes, std::vector<std::string>{kDefaultNode});
}

TEST_F(SettingsTest, AWrongFileIsNamedWithItsLine) {
  for (const char* text :
       {"[client]\nnode = 5\n", "[client]\nnode = [1]\n", "[client]\nca = true\n",
        "[client]\nnodes = []\n", "\n[server]\n", "[client]\nkey = \n"}) {
    Settings settings;
    const auto path = file(text);
    const auto done = complete(settings, environment(), {path});
    ASSERT_FALSE(done.has_value()) << text;
    EXPECT_EQ(done.error().code, ErrorCode::kInvalid);
    EXPECT_NE(done.error().message.find("client.toml:2:"), std::string::npos)
        << done.error().message;
  }
}

TEST_F(SettingsTest, FilesAreLookedForWhereTheyBelong) {
  variables = {{"HOME", "/home/u"}};
  EXPECT_EQ(
      settings_files(environment()),
      (std::vector<std::string>{"/home/u/.config/tandem/client.toml", "/etc/tandem/client.toml"}));
  variables["XDG_CONFIG_HOME"] = "/x";
  EXPECT_EQ(settings_files(environment())[0], "/x/tandem/client.toml");
}

}  // namespace
}  // namespace tandem::ctl
