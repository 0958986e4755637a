#include "tests/support/sim_runtime.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "tandem/base/sync.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

TEST(SimRandom, SequenceIsFixedForAllTime) {
  SimRandom random(0);
  EXPECT_EQ(random.next(), 0xe220a8397b1dcdafull);  // the published first value of splitmix64
  EXPECT_EQ(random.next(), 0x6e789e6aa1b965f4ull);
}

TEST(SimRandom, BoundsHold) {
  SimRandom random(7);
  std::set<std::uint64_t> seen;
  for (int i = 0; i < 1000; ++i) {
    seen.insert(random.between(3, 6));
    ASSERT_LT(random.below(10), 10u);
  }
  EXPECT_EQ(seen, (std::set<std::uint64_t>{3, 4, 5, 6}));
  EXPECT_EQ(random.below(0), 0u);
}

TEST(SimRuntime, PostedWorkKeepsItsOrder) {
  SimRuntime world(1);
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) world.post([&order, i] { order.push_back(i); });
  EXPECT_TRUE(order.empty());  // never from within post()
  world.run_until_idle();
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST(SimRuntime, TimersFireInTimeAndJumpTheClock) {
  SimRuntime world(1);
  std::vector<std::pair<int, Nanoseconds>> fired;
  world.schedule_after(24h, [&] { fired.emplace_back(2, world.monotonic()); });
  world.schedule_after(1s, [&] { fired.emplace_back(1, world.monotonic()); });
  EXPECT_TRUE(world.run_until_idle(48h));
  ASSERT_EQ(fired.size(), 2u);
  EXPECT_EQ(fired[0].first, 1);
  EXPECT_GE(fired[0].second, 1s);
  EXPECT_LT(fired[0].second, 2s);
  EXPECT_EQ(fired[1].first, 2);
  EXPECT_GE(fired[1].second, 24h);
}

std::vector<int> equal_timers(std::uint64_t seed, bool shuffle) {
  SimRuntime world(SimRuntime::Options{.seed = seed, .shuffle = shuffle});
  std::vector<int> order;
  for (int i = 0; i < 10; ++i) world.schedule_after(1ms, [&order, i] { order.push_back(i); });
  world.run_until_idle();
  return order;
}

TEST(SimRuntime, EqualDeadlinesAreShuffledBySeedOnly) {
  EXPECT_EQ(equal_timers(1, false), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
  EXPECT_EQ(equal_timers(1, true), equal_timers(1, true));
  EXPECT_NE(equal_timers(1, true), equal_timers(2, true));
}

TEST(SimRuntime, CancelledTimersNeverFire) {
  SimRuntime world(3);
  bool fired = false;
  const TimerId first = world.schedule_after(1ms, [&] { fired = true; });
  world.cancel(first);
  world.cancel(first);
  world.cancel(999);
  // Two timers due at one time: whichever runs first cancels the other.
  int runs = 0;
  TimerId a = 0, b = 0;
  a = world.schedule_after(2ms, [&] {
    ++runs;
    world.cancel(b);
  });
  b = world.schedule_after(2ms, [&] {
    ++runs;
    world.cancel(a);
  });
  world.run_until_idle();
  EXPECT_FALSE(fired);
  EXPECT_EQ(runs, 1);
}

TEST(SimRuntime, RunForStopsTheClockExactly) {
  SimRuntime world(1);
  bool early = false, late = false;
  world.schedule_after(5ms, [&] { early = true; });
  world.schedule_after(15ms, [&] { late = true; });
  world.run_for(10ms);
  EXPECT_EQ(world.now(), 10ms);
  EXPECT_TRUE(early);
  EXPECT_FALSE(late);
  EXPECT_FALSE(world.run_until([&] { return late; }, 1ms));
  EXPECT_TRUE(world.run_until([&] { return late; }, 10ms));
}

Task<int> add_slowly(Executor& executor, int a, int b) {
  co_await sleep_for(executor, 1ms);
  co_await next_turn(executor);
  co_return a + b;
}

Task<void> spin(Executor& executor, const Clock& clock, Nanoseconds until) {
  while (clock.monotonic() < until) co_await next_turn(executor);
}

TEST(SimRuntime, RunDrivesATaskToItsValue) {
  SimRuntime world(1);
  EXPECT_EQ(world.run(add_slowly(world, 20, 22)), 42);
  world.run(spin(world, world, world.now() + 1us));  // turns cost time, so this ends
}

Task<void> wait_for_ever(Condition& condition) { co_await condition.wait(); }

TEST(SimRuntimeDeathTest, AStuckTaskNamesTheSeed) {
  EXPECT_DEATH(
      {
        SimRuntime world(77);
        Condition never;
        world.run(wait_for_ever(never));
      },
      "TANDEM_SEED=77");
}

std::string interleaving(std::uint64_t seed, std::uint64_t* hash) {
  SimRuntime world(seed);
  SimNode& other = world.add_node();
  std::string text;
  for (int i = 0; i < 20; ++i) {
    world.post([&text] { text += 'a'; });
    other.post([&text] { text += 'b'; });
  }
  world.run_until_idle();
  *hash = world.trace_hash();
  return text;
}

TEST(SimRuntime, SameSeedSameRunOtherSeedOtherRun) {
  std::uint64_t first = 0, again = 0, different = 0;
  const std::string text = interleaving(5, &first);
  EXPECT_EQ(text, interleaving(5, &again));
  EXPECT_EQ(first, again);
  EXPECT_NE(text, interleaving(6, &different));
  EXPECT_NE(first, different);
}

TEST(SimNode, PauseHoldsBackOneNodeOnly) {
  SimRuntime world(1);
  SimNode& other = world.add_node();
  bool here = false, there = false;
  other.pause();
  other.post([&] { there = true; });
  world.post([&] { here = true; });
  world.run_for(1s);
  EXPECT_TRUE(here);
  EXPECT_FALSE(there);
  other.resume();
  world.run_until_idle();
  EXPECT_TRUE(there);
}

TEST(SimNode, WallClocksStepAndDriftMonotonicDoesNot) {
  SimRuntime world(1);
  SimNode& other = world.add_node();
  const std::uint64_t start = other.utc().value;
  EXPECT_EQ(world.utc().value, start);
  other.step_utc(-1s);
  EXPECT_EQ(other.utc().value, start - 1'000'000'000);
  EXPECT_EQ(other.monotonic(), 0s);
  other.set_utc_drift(100);  // parts per million
  world.run_for(10s);
  EXPECT_EQ(other.utc().value, start + 9'000'000'000 + 1'000'000);
  EXPECT_EQ(world.utc().value, start + 10'000'000'000);
  other.set_utc_drift(0);
  world.run_for(10s);
  EXPECT_EQ(other.utc().value, start + 19'000'000'000 + 1'000'000);
}

TEST(Seeds, EnvironmentNamesTheOneToReplay) {
  ::unsetenv("TANDEM_SEED");
  ::unsetenv("TANDEM_SEEDS_FACTOR");
  EXPECT_EQ(seeds_to_run(10, 3), (std::vector<std::uint64_t>{10, 11, 12}));
  ::setenv("TANDEM_SEEDS_FACTOR", "2", 1);
  EXPECT_EQ(seeds_to_run(1, 2), (std::vector<std::uint64_t>{1, 2, 3, 4}));
  ::setenv("TANDEM_SEED", "123", 1);
  EXPECT_EQ(seeds_to_run(10, 3), (std::vector<std::uint64_t>{123}));
  ::unsetenv("TANDEM_SEED");
  ::unsetenv("TANDEM_SEEDS_FACTOR");
}

}  // namespace
}  // namespace tandem::sim
