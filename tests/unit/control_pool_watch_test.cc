// When a filling pool is worth a warning, and how long the rest will last.
#include "control/pool_watch.h"

#include <gtest/gtest.h>

namespace tandem::control {
namespace {

using namespace std::chrono_literals;

class Watch : public testing::Test {
 protected:
  bool look(std::uint64_t free, bool refused = false) {
    now_ += 1s;
    return watch_.look({.bytes = 100'000, .free = free, .refused = refused},
                       UtcNs(static_cast<std::uint64_t>(now_.count())), now_);
  }
  void pass(Nanoseconds time, std::uint64_t from, std::uint64_t to) {
    const auto seconds = static_cast<std::uint64_t>(time / 1s);
    for (std::uint64_t i = 1; i <= seconds; ++i) look(from - (from - to) * i / seconds);
  }
  PoolWatch watch_{{.warn_percent = 80, .critical_percent = 90}};
  Nanoseconds now_{0};
};

TEST_F(Watch, EachStateIsToldOnceAndLeftALittleLater) {
  EXPECT_FALSE(look(100'000)) << "all is well: nothing to tell";
  EXPECT_EQ(watch_.state(), std::string("ok"));
  EXPECT_EQ(watch_.reason(), "");
  EXPECT_FALSE(look(20'001));
  EXPECT_TRUE(look(20'000));
  EXPECT_EQ(watch_.state(), std::string("warn"));
  EXPECT_EQ(watch_.full_percent(), 80u);
  EXPECT_EQ(watch_.reason(), "80 % full, warned of from 80 %");
  const UtcNs since = watch_.since();
  EXPECT_FALSE(look(19'000));
  EXPECT_FALSE(look(20'500)) << "just below does not end it";
  EXPECT_EQ(watch_.since(), since);
  EXPECT_TRUE(look(10'000));
  EXPECT_EQ(watch_.state(), std::string("critical"));
  EXPECT_FALSE(look(10'900));
  EXPECT_TRUE(look(11'001)) << "a percent less";
  EXPECT_EQ(watch_.state(), std::string("warn"));
  EXPECT_TRUE(look(50'000));
  EXPECT_EQ(watch_.state(), std::string("ok"));
  EXPECT_TRUE(look(0)) << "at once";
  EXPECT_EQ(watch_.state(), std::string("critical"));
  EXPECT_EQ(watch_.full_percent(), 100u);
}

TEST_F(Watch, APlaceBelowThatIsFullIsCritical) {
  look(90'000);
  EXPECT_TRUE(look(90'000, true));
  EXPECT_EQ(watch_.state(), std::string("critical"));
  EXPECT_NE(watch_.reason().find("below the pool"), std::string::npos);
  EXPECT_TRUE(look(90'000));
}

TEST_F(Watch, ARateIsToldOnlyWhenItIsKnown) {
  pass(5min, 100'000, 99'700);
  EXPECT_EQ(watch_.fill_bytes_per_second(), 0u) << "too little is known";
  pass(30min, 99'700, 95'200);
  EXPECT_NEAR(static_cast<double>(watch_.fill_bytes_per_second()), 2, 1);
  EXPECT_EQ(watch_.full_in_seconds(), 95'200 / watch_.fill_bytes_per_second());
  pass(70min, 95'200, 95'200);
  EXPECT_EQ(watch_.fill_bytes_per_second(), 0u) << "nothing since an hour";
  EXPECT_EQ(watch_.full_in_seconds(), 0u);
  look(99'000);
  EXPECT_EQ(watch_.fill_bytes_per_second(), 0u) << "it empties";
}

}  // namespace
}  // namespace tandem::control
