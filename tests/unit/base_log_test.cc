#include "tandem/base/log.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace tandem {
namespace {

TEST(Log, LinesAreEventsWithFields) {
  std::vector<std::pair<Level, std::string>> lines;
  set_log_sink([&](Level level, std::string_view line) { lines.emplace_back(level, line); });
  log_event(Level::kWarn, "mirror.lost", "group={} lsn={}", "vm1", 42);
  log_event(Level::kInfo, "daemon.ready", "");
  set_log_sink(nullptr);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].first, Level::kWarn);
  EXPECT_EQ(lines[0].second, "event=mirror.lost group=vm1 lsn=42");
  EXPECT_EQ(lines[1].second, "event=daemon.ready");
}

TEST(Log, BracesInAFieldAreNotFormatted) {
  std::string seen;
  set_log_sink([&](Level, std::string_view line) { seen = line; });
  log_event(Level::kInfo, "nbd.refused", "name={}", "{}{0}%s");
  set_log_sink(nullptr);
  EXPECT_EQ(seen, "event=nbd.refused name={}{0}%s");
}

TEST(Log, TheDefaultGoesToStandardErrorAndHonoursTheLevel) {
  testing::internal::CaptureStderr();
  set_log_level(Level::kWarn);
  log_event(Level::kInfo, "test.quiet", "");
  log_event(Level::kError, "test.loud", "braces={}", "{}");
  set_log_level(Level::kInfo);
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_EQ(out.find("test.quiet"), std::string::npos);
  EXPECT_NE(out.find("event=test.loud braces={}"), std::string::npos);
  EXPECT_NE(out.find("error"), std::string::npos);
}

}  // namespace
}  // namespace tandem
