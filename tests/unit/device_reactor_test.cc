#include "device/reactor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/connect_pair.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tandem/base/sync.h"

namespace tandem::device {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

std::unique_ptr<Reactor> make_reactor(ReactorOptions options = {}) {
  auto reactor = Reactor::create(options);
  EXPECT_TRUE(reactor) << reactor.error().message;
  return std::move(*reactor);
}

TEST(Reactor, RunsWorkInTheOrderPosted) {
  auto reactor = make_reactor();
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) reactor->post([&order, i] { order.push_back(i); });
  reactor->post([&] { reactor->stop(); });
  reactor->run();
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[i], i);
}

TEST(Reactor, WorkPostedByWorkRunsAfterWhatRunsNow) {
  auto reactor = make_reactor();
  std::string trace;
  reactor->post([&] {
    reactor->post([&] {
      trace += "inner ";
      reactor->stop();
    });
    trace += "outer ";
  });
  reactor->run();
  EXPECT_EQ(trace, "outer inner ");
}

TEST(Reactor, KeepsTheOrderOfEachPostingThread) {
  auto reactor = make_reactor();
  constexpr int kThreads = 4;
  constexpr int kPosts = 2000;
  std::array<std::vector<int>, kThreads> seen;
  int left = kThreads * kPosts;
  bool done = false;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        reactor->post([&, t, i] {
          EXPECT_TRUE(reactor->is_here());
          seen[t].push_back(i);
          done = --left == 0;
        });
      }
      EXPECT_FALSE(reactor->is_here());
    });
  }
  reactor->run_until(done);
  for (auto& thread : threads) thread.join();
  for (const auto& of_thread : seen) {
    ASSERT_EQ(of_thread.size(), static_cast<std::size_t>(kPosts));
    EXPECT_TRUE(std::is_sorted(of_thread.begin(), of_thread.end()));
  }
}

// Each answer is posted only after the reactor had nothing to do: a lost wake-up would hang here.
TEST(Reactor, WakesFromSleepForEveryPostOfAnotherThread) {
  auto reactor = make_reactor();
  std::atomic<int> asked{0};
  int answered = 0;
  constexpr int kRounds = 3000;
  bool done = false;
  std::thread other([&] {
    for (int round = 1; round <= kRounds; ++round) {
      while (asked.load() < round) std::this_thread::yield();
      reactor->post([&, round] {
        answered = round;
        done = round == kRounds;
        asked.store(round + 1);
      });
    }
  });
  asked.store(1);
  reactor->run_until(done);
  other.join();
  EXPECT_EQ(answered, kRounds);
}

TEST(Reactor, StopsFromAnotherThreadAndRunsAgain) {
  auto reactor = make_reactor();
  for (int i = 0; i < 3; ++i) {
    std::thread other([&] { reactor->stop(); });
    reactor->run();
    other.join();
  }
  EXPECT_TRUE(reactor->is_here());
}

TEST(Reactor, FiresTimersInTheOrderOfTheirDeadlines) {
  auto reactor = make_reactor();
  std::string trace;
  reactor->schedule_after(milliseconds(6), [&] {
    trace += "c";
    reactor->stop();
  });
  reactor->schedule_after(milliseconds(0), [&] { trace += "a"; });
  reactor->schedule_after(milliseconds(3), [&] { trace += "b"; });
  const auto begin = reactor->monotonic();
  reactor->run();
  EXPECT_EQ(trace, "abc");
  EXPECT_GE(reactor->monotonic() - begin, milliseconds(6));
}

TEST(Reactor, CancelledTimersDoNotFire) {
  auto reactor = make_reactor();
  bool fired = false;
  const TimerId long_one = reactor->schedule_after(hours(1), [&] { fired = true; });
  TimerId second = 0;
  reactor->schedule_after(milliseconds(1), [&] { reactor->cancel(second); });
  second = reactor->schedule_after(milliseconds(1), [&] { fired = true; });
  reactor->schedule_after(milliseconds(4), [&] { reactor->stop(); });
  reactor->cancel(long_one);
  reactor->cancel(long_one);  // past and unknown ids are ignored
  reactor->cancel(987654);
  reactor->run();
  EXPECT_FALSE(fired);
}

TEST(Reactor, ATimerThatSetsItselfAgainDoesNotKeepTheLoop) {
  auto reactor = make_reactor();
  int rounds = 0;
  bool posted_ran = false;
  struct Again {
    Reactor& reactor;
    int& rounds;
    void operator()() const {
      if (++rounds < 1000) reactor.schedule_after(Nanoseconds(0), *this);
    }
  };
  reactor->schedule_after(Nanoseconds(0), Again{*reactor, rounds});
  reactor->post([&] { posted_ran = true; });
  reactor->run_until(posted_ran);
  EXPECT_LT(rounds, 1000);
}

TEST(Reactor, ServesAsioSockets) {
  namespace asio = boost::asio;
  auto reactor = make_reactor();
  asio::local::stream_protocol::socket left(reactor->io_context());
  asio::local::stream_protocol::socket right(reactor->io_context());
  asio::local::connect_pair(left, right);
  std::string received(5, '\0');
  bool done = false;
  asio::async_read(right, asio::buffer(received),
                   [&](const boost::system::error_code& error, std::size_t) {
                     EXPECT_FALSE(error);
                     EXPECT_TRUE(reactor->is_here());
                     done = true;
                   });
  const std::string hello = "hello";
  reactor->schedule_after(milliseconds(2), [&] {
    asio::async_write(left, asio::buffer(hello), [](const auto&, std::size_t) {});
  });
  reactor->run_until(done);
  EXPECT_EQ(received, "hello");
}

Task<int> add_later(Executor& executor, int a, int b) {
  co_await next_turn(executor);
  co_await sleep_for(executor, milliseconds(1));
  co_return a + b;
}

TEST(Reactor, WaitsForTasks) {
  auto reactor = make_reactor();
  EXPECT_EQ(reactor->wait_for(add_later(*reactor, 2, 3)), 5);
}

TEST(Reactor, ServesPostsAndSocketsWhileItPolls) {
  auto reactor = make_reactor({.spin = std::chrono::microseconds(50)});
  bool done = false;
  int handled = 0;
  std::thread other([&] {
    for (int i = 0; i < 100; ++i) {
      reactor->post([&] { ++handled; });
      boost::asio::post(reactor->io_context(), [&] { ++handled; });
    }
    reactor->post([&] { done = true; });
  });
  reactor->run_until(done);
  other.join();
  for (int i = 0; i < 1000 && handled != 200; ++i) reactor->wait_for(add_later(*reactor, 0, 0));
  EXPECT_EQ(handled, 200);
}

TEST(Reactor, ClockAndChance) {
  auto reactor = make_reactor();
  const auto first = reactor->monotonic();
  EXPECT_GE(reactor->monotonic(), first);
  EXPECT_GT(reactor->utc().value, 1'600'000'000ull * 1'000'000'000ull);
  std::set<std::uint64_t> numbers;
  for (int i = 0; i < 100; ++i) numbers.insert(reactor->next());
  EXPECT_EQ(numbers.size(), 100u);
}

TEST(ReactorDeathTest, RefusesToNest) {
  auto reactor = make_reactor();
  const bool never = false;
  reactor->post([&] { reactor->run_until(never); });
  EXPECT_DEATH(reactor->run(), "CHECK");
}

}  // namespace
}  // namespace tandem::device
