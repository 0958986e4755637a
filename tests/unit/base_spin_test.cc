#include "tandem/base/spin.h"

#include <gtest/gtest.h>

#include <thread>

namespace tandem {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

TEST(AdaptiveSpin, ZeroNeverLooks) {
  AdaptiveSpin spin(std::chrono::nanoseconds(0));
  EXPECT_FALSE(spin.wait_for([]() -> bool { throw 1; }));
}

TEST(AdaptiveSpin, LooksUntilReady) {
  AdaptiveSpin spin(std::chrono::seconds(60));
  int looks = 0;
  // A yield that took long ends it early; then it looked at least once more than before.
  while (!spin.wait_for([&] { return ++looks >= 3; })) std::this_thread::sleep_for(milliseconds(1));
  EXPECT_EQ(looks, 3);
}

TEST(AdaptiveSpin, GivesUpAfterItsTime) {
  AdaptiveSpin spin{microseconds(50)};
  int looks = 0;
  EXPECT_FALSE(spin.wait_for([&] { return ++looks < 0; }));
  EXPECT_GE(looks, 1);
}

TEST(AdaptiveSpin, DoesNotLookForAWhileAfterALongYield) {
  AdaptiveSpin spin(std::chrono::seconds(60));
  int looks = 0;
  // A look that takes long is to the clock what a long yield is.
  const auto slow = [&] {
    ++looks;
    std::this_thread::sleep_for(milliseconds(1));
    return false;
  };
  EXPECT_FALSE(spin.wait_for(slow));
  const int before = looks;
  EXPECT_LE(before, 2);
  EXPECT_FALSE(spin.wait_for(slow));
  EXPECT_EQ(looks, before);
}

}  // namespace
}  // namespace tandem
