#include "tandem/base/sync.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

namespace tandem {
namespace {

Task<void> wait_and_note(Condition& condition, int id, std::vector<int>& order) {
  co_await condition.wait();
  order.push_back(id);
}

Task<void> wait_twice(Condition& condition, int& wakes) {
  co_await condition.wait();
  ++wakes;
  co_await condition.wait();
  ++wakes;
}

TEST(Condition, WakesAllInOrder) {
  Condition condition;
  std::vector<int> order;
  for (int i = 0; i < 3; ++i) spawn(wait_and_note(condition, i, order));
  EXPECT_TRUE(condition.has_waiters());
  EXPECT_TRUE(order.empty());
  condition.notify_all();
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2}));
  EXPECT_FALSE(condition.has_waiters());
  condition.notify_all();  // nobody waits: nothing happens
}

TEST(Condition, WhoWaitsAgainIsNotWokenByTheSameNotify) {
  Condition condition;
  int wakes = 0;
  spawn(wait_twice(condition, wakes));
  condition.notify_all();
  EXPECT_EQ(wakes, 1);
  condition.notify_all();
  EXPECT_EQ(wakes, 2);
}

TEST(ConditionDeathTest, MustNotDieUnderItsWaiters) {
  EXPECT_DEATH(
      {
        int wakes = 0;
        Condition condition;
        spawn(wait_twice(condition, wakes));
      },
      "CHECK");
}

Task<void> close_and_note(Gate& gate, bool& closed) {
  co_await gate.close();
  closed = true;
}

TEST(Gate, CloseWaitsForTheLastHolder) {
  Gate gate;
  std::optional<Gate::Holder> first(gate.hold());
  std::optional<Gate::Holder> second(gate.hold());
  EXPECT_EQ(gate.held(), 2u);
  bool closed = false;
  spawn(close_and_note(gate, closed));
  EXPECT_TRUE(gate.closed());
  first.reset();
  EXPECT_FALSE(closed);
  {
    const Gate::Holder moved = std::move(*second);
    second.reset();
    EXPECT_FALSE(closed);  // the moved-to holder counts, the moved-from one does not
  }
  EXPECT_TRUE(closed);
  EXPECT_EQ(gate.held(), 0u);
}

TEST(Gate, ClosesAtOnceWhenNothingIsHeld) {
  Gate gate;
  bool closed = false;
  spawn(close_and_note(gate, closed));
  EXPECT_TRUE(closed);
}

Task<void> enter(AsyncMutex& mutex, Condition& leave, int id, std::vector<int>& entered) {
  const AsyncMutex::Lock lock = co_await mutex.lock();
  entered.push_back(id);
  co_await leave.wait();
}

TEST(AsyncMutex, OneAtATimeFirstComeFirstServed) {
  AsyncMutex mutex;
  Condition leave;
  std::vector<int> entered;
  for (int i = 0; i < 3; ++i) spawn(enter(mutex, leave, i, entered));
  EXPECT_EQ(entered, (std::vector<int>{0}));
  leave.notify_all();
  EXPECT_EQ(entered, (std::vector<int>{0, 1}));
  leave.notify_all();
  EXPECT_EQ(entered, (std::vector<int>{0, 1, 2}));
  EXPECT_TRUE(mutex.locked());
  leave.notify_all();
  EXPECT_FALSE(mutex.locked());
  spawn(enter(mutex, leave, 3, entered));
  EXPECT_EQ(entered.back(), 3);
  leave.notify_all();
}

}  // namespace
}  // namespace tandem
