#include "device/reactor.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "device/asio_thread.h"
#include "device/ring.h"
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

// What was posted may end the reactor before the thread that posted it has come to wake it.
TEST(Reactor, MayEndWhileAnotherThreadIsAboutToWakeIt) {
  for (int round = 0; round < 200; ++round) {
    auto reactor = make_reactor();
    bool done = false;
    std::thread other([&, reactor = reactor.get()] { reactor->post([&] { done = true; }); });
    reactor->run_until(done);
    reactor.reset();
    other.join();
  }
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

TEST(Reactor, AStopFromItsOwnWorkIsSeenAtOnce) {
  auto reactor = make_reactor();
  reactor->post([&] { reactor->stop(); });
  const auto begun = reactor->monotonic();
  reactor->run();
  EXPECT_LT(reactor->monotonic() - begun, milliseconds(900)) << "it slept first";
}

TEST(Reactor, FiresTimersInTheOrderOfTheirDeadlines) {
  auto reactor = make_reactor();
  std::string trace;
  std::vector<TimerId> set;
  Nanoseconds begin{};
  Nanoseconds took{};
  // A delay counts from the call: on a busy machine a shorter one, asked for later, may end later.
  do {
    for (const TimerId timer : set) reactor->cancel(timer);
    set.clear();
    begin = reactor->monotonic();
    set.push_back(reactor->schedule_after(milliseconds(6), [&] {
      trace += "c";
      reactor->stop();
    }));
    set.push_back(reactor->schedule_after(milliseconds(0), [&] { trace += "a"; }));
    set.push_back(reactor->schedule_after(milliseconds(3), [&] { trace += "b"; }));
    took = reactor->monotonic() - begin;
  } while (took > milliseconds(2));
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

struct NoOperation final : RingOperation {
  bool submitted = false, finished = false;
  void prepare(io_uring_sqe& sqe) override {
    io_uring_prep_nop(&sqe);
    submitted = true;
  }
  void finish(int) override { finished = true; }
};

TEST(Reactor, TheNextStepsComeBeforeRequestsAreSubmitted) {
  auto reactor = make_reactor();
  NoOperation operation;
  int steps_before = 0;
  const auto step = [&] { steps_before += operation.submitted ? 0 : 1; };
  reactor->post([&] {
    reactor->ring().queue(operation);
    reactor->post([&] {
      step();
      reactor->post(step);
    });
  });
  reactor->run_until(operation.finished);
  EXPECT_EQ(steps_before, 2);
}

Task<int> add_later(Executor& executor, int a, int b) {
  co_await next_turn(executor);
  co_await sleep_for(executor, milliseconds(1));
  co_return a + b;
}

/// Two connected sockets.
struct SocketPair {
  SocketPair() { EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0); }
  ~SocketPair() {
    ::close(ends[0]);
    ::close(ends[1]);
  }
  int ends[2];
};

/// Counts how often it was called, and how.
struct CountedWait : ReadinessWait {
  CountedWait(int descriptor, bool write) {
    fd = descriptor;
    for_write = write;
    owner = this;
    done = [](ReadinessWait& wait, bool ready) {
      auto* self = static_cast<CountedWait*>(wait.owner);
      ++(ready ? self->ready_count : self->cancelled_count);
    };
  }
  int ready_count = 0;
  int cancelled_count = 0;
};

Task<void> exchange_bytes(Reactor& reactor, const SocketPair& sockets, std::string& received) {
  ReadinessWait wait{.fd = sockets.ends[0]};
  while (received.size() < 5) {
    const bool ready = co_await until_ready(reactor.readiness(), wait);
    EXPECT_TRUE(ready);
    EXPECT_TRUE(reactor.is_here());
    char byte = 0;
    EXPECT_EQ(::read(sockets.ends[0], &byte, 1), 1);
    received += byte;
  }
}

TEST(Reactor, SaysWhenASocketCanBeRead) {
  auto reactor = make_reactor();
  const SocketPair sockets;
  std::string received;
  const std::string hello = "hello";
  for (int i = 0; i < 5; ++i) {
    reactor->schedule_after(milliseconds(2 * i), [&, i] {
      EXPECT_EQ(::write(sockets.ends[1], &hello[static_cast<std::size_t>(i)], 1), 1);
    });
  }
  reactor->wait_for(exchange_bytes(*reactor, sockets, received));
  EXPECT_EQ(received, "hello");
}

TEST(Reactor, WorkThatPostsWithoutEndKeepsNoSocketWaiting) {
  auto reactor = make_reactor();
  const SocketPair sockets;
  struct Again {
    Reactor& reactor;
    const bool& done;
    void operator()() const {
      if (!done) reactor.post(*this);
    }
  };
  bool done = false;
  std::atomic<bool> other_done = false;
  reactor->post(Again{*reactor, done});
  std::thread other([&] {
    while (!other_done) reactor->post([] {});
  });
  EXPECT_EQ(::write(sockets.ends[1], "hello", 5), 5);
  std::string received;
  reactor->wait_for(exchange_bytes(*reactor, sockets, received));
  EXPECT_EQ(received, "hello");
  done = other_done = true;
  other.join();
}

TEST(Reactor, ReadinessIsLevelTriggeredAndSeparateForBothDirections) {
  auto reactor = make_reactor();
  const SocketPair sockets;
  CountedWait writable(sockets.ends[0], true), readable(sockets.ends[0], false);
  reactor->readiness().wait(writable);
  reactor->readiness().wait(readable);
  EXPECT_EQ(writable.ready_count, 0) << "never from within";
  reactor->wait_for(add_later(*reactor, 0, 0));
  EXPECT_EQ(writable.ready_count, 1);
  EXPECT_EQ(readable.ready_count, 0);
  ASSERT_EQ(::shutdown(sockets.ends[1], SHUT_RDWR), 0);
  for (int round = 1; round <= 3; ++round) {
    while (readable.under_way != nullptr) reactor->wait_for(add_later(*reactor, 0, 0));
    EXPECT_EQ(readable.ready_count, round) << "a closed connection can be read again and again";
    if (round < 3) reactor->readiness().wait(readable);
  }
}

TEST(Reactor, EndsCancelledWaitsOnceAndLetsThemBeginAgain) {
  auto reactor = make_reactor();
  const SocketPair sockets;
  CountedWait wait(sockets.ends[0], false);
  reactor->readiness().cancel(wait);  // not under way
  for (int round = 1; round <= 100; ++round) {
    reactor->readiness().wait(wait);
    if (round % 2 == 0) reactor->wait_for(add_later(*reactor, 0, 0));  // it is in the kernel
    reactor->readiness().cancel(wait);
    reactor->readiness().cancel(wait);
    EXPECT_EQ(wait.cancelled_count, round - 1) << "never from within";
    while (wait.under_way != nullptr) reactor->wait_for(add_later(*reactor, 0, 0));
    EXPECT_EQ(wait.cancelled_count, round);
  }
  EXPECT_EQ(wait.ready_count, 0);
  reactor->readiness().wait(wait);
  ASSERT_EQ(::write(sockets.ends[1], "x", 1), 1);
  while (wait.under_way != nullptr) reactor->wait_for(add_later(*reactor, 0, 0));
  EXPECT_EQ(wait.ready_count, 1);
}

// More waits than the submission queue, and than completions that may be in flight, has room for.
TEST(Reactor, WaitsForAnyNumberOfSockets) {
  auto reactor = make_reactor({.ring_entries = 16});
  constexpr std::size_t kWaits = 300;
  const SocketPair sockets;
  std::vector<std::unique_ptr<CountedWait>> waits;
  for (std::size_t i = 0; i < kWaits; ++i) {
    waits.push_back(std::make_unique<CountedWait>(sockets.ends[0], false));
    reactor->readiness().wait(*waits.back());
  }
  for (int i = 0; i < 50; ++i) reactor->wait_for(add_later(*reactor, 0, 0));
  ASSERT_EQ(::write(sockets.ends[1], "x", 1), 1);
  for (const auto& wait : waits) {
    while (wait->under_way != nullptr) reactor->wait_for(add_later(*reactor, 0, 0));
    EXPECT_EQ(wait->ready_count, 1);
  }
}

TEST(Reactor, WaitsForTasks) {
  auto reactor = make_reactor();
  EXPECT_EQ(reactor->wait_for(add_later(*reactor, 2, 3)), 5);
}

TEST(Reactor, ServesPostsAndSocketsWhileItPolls) {
  auto reactor = make_reactor({.spin = std::chrono::microseconds(50)});
  const SocketPair sockets;
  std::string received;
  int handled = 0;
  std::thread other([&] {
    for (int i = 0; i < 100; ++i) {
      reactor->post([&] { ++handled; });
      if (i % 20 != 0) continue;
      EXPECT_EQ(::write(sockets.ends[1], "x", 1), 1);
    }
  });
  reactor->wait_for(exchange_bytes(*reactor, sockets, received));
  other.join();
  reactor->wait_for(add_later(*reactor, 0, 0));
  EXPECT_EQ(handled, 100);
  EXPECT_EQ(received, "xxxxx");
}

TEST(AsioThread, ItsHandlersPostToTheReactor) {
  auto reactor = make_reactor();
  bool done = false;
  AsioThread asio;
  boost::asio::post(asio.io(), [&] {
    EXPECT_FALSE(reactor->is_here());
    reactor->post([&] { done = reactor->is_here(); });
  });
  reactor->run_until(done);
}

TEST(AsioThread, RunsNoHandlerOnceItHasStopped) {
  AsioThread asio;
  boost::asio::steady_timer timer(asio.io(), std::chrono::hours(1));
  bool called = false;
  timer.async_wait([&](const boost::system::error_code&) { called = true; });
  asio.stop();
  asio.stop();
  timer.cancel();
  boost::asio::post(asio.io(), [&] { called = true; });
  EXPECT_FALSE(called);
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
