#include "tandem/base/task.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace tandem {
namespace {

/// Lets a test decide when a coroutine goes on.
struct Suspender {
  std::coroutine_handle<> waiting;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> h) noexcept { waiting = h; }
  void await_resume() const noexcept {}
  void resume() { std::exchange(waiting, {}).resume(); }
};

Task<int> number(int n) { co_return n; }

Task<int> sum_after(Suspender* pause, int a, int b) {
  const int first = co_await number(a);
  co_await *pause;
  const int second = co_await number(b);
  co_return first + second;
}

Task<void> keep(Task<int> task, int* into) { *into = co_await std::move(task); }

struct Witness {
  explicit Witness(int* count) : count_(count) { ++*count_; }
  Witness(Witness&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
  ~Witness() {
    if (count_ != nullptr) --*count_;
  }
  int* count_;
};

Task<void> hold(Witness witness, Suspender* pause) {
  co_await *pause;
  EXPECT_NE(witness.count_, nullptr);
}

TEST(Task, IsLazy) {
  int result = 0;
  { Task<void> never_started = keep(number(1), &result); }
  EXPECT_EQ(result, 0);
  spawn(keep(number(1), &result));
  EXPECT_EQ(result, 1);
}

TEST(Task, SuspendsAndResumesItsAwaiter) {
  Suspender pause;
  int result = 0;
  spawn(keep(sum_after(&pause, 40, 2), &result));
  EXPECT_EQ(result, 0);
  ASSERT_TRUE(pause.waiting);
  pause.resume();
  EXPECT_EQ(result, 42);
}

TEST(Task, ArgumentsLiveAsLongAsTheCoroutine) {
  int alive = 0;
  Suspender pause;
  {
    Task<void> unstarted = hold(Witness(&alive), &pause);
    EXPECT_EQ(alive, 1);
  }
  EXPECT_EQ(alive, 0);  // an unstarted task gives back what it was given
  spawn(hold(Witness(&alive), &pause));
  EXPECT_EQ(alive, 1);
  pause.resume();
  EXPECT_EQ(alive, 0);
}

Task<std::unique_ptr<std::string>> text(const char* from) {
  co_return std::make_unique<std::string>(from);
}

Task<void> join(std::string* into) {
  auto a = co_await text("move");
  auto b = co_await text("-only");
  *into = *a + *b;
}

TEST(Task, CarriesMoveOnlyValues) {
  std::string joined;
  spawn(join(&joined));
  EXPECT_EQ(joined, "move-only");
}

TEST(Task, MoveAssignmentDropsTheOldOne) {
  int alive = 0;
  Suspender pause;
  Task<void> task = hold(Witness(&alive), &pause);
  task = hold(Witness(&alive), &pause);
  EXPECT_EQ(alive, 1);
}

Task<void> nothing() { co_return; }

Task<void> nothing_within() { co_await nothing(); }

Task<void> loop(int times, Suspender* pause, int* done) {
  for (int i = 0; i < times; ++i) {
    if (i == times / 2) co_await *pause;
    co_await nothing_within();
    ++*done;
  }
}

// A mirror that was behind by many records ran out of stack in a build with address checks: GCC
// makes no tail calls there, and each leaf that needed no I/O stayed on it.
TEST(Task, LongLoopsOfTasksThatEndAtOnceNeedNoStack) {
  constexpr int kTimes = 1'000'000;
  Suspender pause;
  int done = 0;
  spawn(loop(kTimes, &pause, &done));
  EXPECT_EQ(done, kTimes / 2);
  pause.resume();
  EXPECT_EQ(done, kTimes);
}

}  // namespace
}  // namespace tandem
