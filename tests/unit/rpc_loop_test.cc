#include "rpc/loop.h"

#include <grpc/support/time.h>
#include <grpcpp/alarm.h>
#include <grpcpp/server_builder.h>
#include <gtest/gtest.h>

#include <future>
#include <thread>
#include <utility>

namespace tandem::rpc {
namespace {

class NoExecutor final : public Executor {
 public:
  void post(std::function<void()>) override { ADD_FAILURE() << "nothing is for the reactor"; }
  TimerId schedule_after(Nanoseconds, std::function<void()>) override { return 0; }
  void cancel(TimerId) override {}
  bool is_here() const override { return true; }
};

/// Says where it happened.
class Witness final : public Event {
 public:
  void on_event(bool ok) override { seen_.set_value({ok, std::this_thread::get_id()}); }
  std::pair<bool, std::thread::id> wait() { return seen_.get_future().get(); }

 private:
  std::promise<std::pair<bool, std::thread::id>> seen_;
};

struct LoopTest : testing::Test {
  /// An operation that completes at once, on the thread that begins it.
  void ring(grpc::Alarm& alarm, Event& event) {
    alarm.Set(loop->queue(), gpr_inf_past(GPR_CLOCK_MONOTONIC), static_cast<Event*>(&event));
  }
  NoExecutor executor;
  grpc::ServerBuilder builder;
  const std::shared_ptr<Loop> loop = Loop::start(
      executor, nullptr, builder.AddCompletionQueue(), std::chrono::nanoseconds(0));
  grpc::Alarm first, second;
};

TEST_F(LoopTest, WhatCompletesAtOnceIsHandledWhereItBegan) {
  Witness mine;
  loop->begin(mine, [&] { ring(first, mine); });
  const auto [ok, thread] = mine.wait();
  EXPECT_TRUE(ok);
  EXPECT_EQ(thread, std::this_thread::get_id());
}

TEST_F(LoopTest, WhatOthersBeganStaysWithTheLoop) {
  Witness mine, other;
  loop->begin(mine, [&] { ring(first, other); });
  const auto [ok, thread] = other.wait();
  EXPECT_TRUE(ok);
  EXPECT_NE(thread, std::this_thread::get_id());
}

TEST_F(LoopTest, WhatComesBehindStaysWithTheLoop) {
  Witness mine, other;
  loop->begin(mine, [&] {
    ring(first, mine);
    ring(second, other);
  });
  EXPECT_EQ(mine.wait().second, std::this_thread::get_id());
  EXPECT_NE(other.wait().second, std::this_thread::get_id());
}

TEST_F(LoopTest, WhatCompletesLaterIsTheLoops) {
  Witness mine;
  loop->begin(mine, [&] {
    const auto soon = gpr_time_from_millis(10, GPR_TIMESPAN);
    first.Set(loop->queue(), gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), soon),
              static_cast<Event*>(&mine));
  });
  EXPECT_NE(mine.wait().second, std::this_thread::get_id());
}

TEST_F(LoopTest, NothingNeedsToBegin) {
  Witness mine;
  loop->begin(mine, [] {});
}

}  // namespace
}  // namespace tandem::rpc
