// A disk and a client in simulated time, with the queue between them as the device has it.
#include "device/read_queue.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <vector>

namespace tandem::device {
namespace {

using namespace std::chrono_literals;

class Time final : public Clock {
 public:
  Nanoseconds monotonic() const override { return now_; }
  UtcNs utc() const override { return UtcNs(0); }

  void after(Nanoseconds delay, std::function<void()> work) {
    events_.emplace(now_ + delay, std::move(work));
  }
  /// Until `end`, or until nothing is left to happen.
  void run_until(Nanoseconds end) {
    while (!events_.empty() && events_.begin()->first <= end) {
      now_ = events_.begin()->first;
      const auto work = std::move(events_.begin()->second);
      events_.erase(events_.begin());
      work();
    }
  }

 private:
  Nanoseconds now_{0};
  std::multimap<Nanoseconds, std::function<void()>> events_;
};

using Reads = std::vector<IoRequest*>;

class Disk {
 public:
  virtual ~Disk() = default;
  virtual void give(IoRequest& read) = 0;
  std::function<void(const Reads&)> done;  // all that are reported at once
};

/// Reads one after the other, and reports nothing before all is read.
class SerialDisk final : public Disk {
 public:
  explicit SerialDisk(Time& time) : time_(time) {}
  void give(IoRequest& read) override {
    reads_.push_back(&read);
    if (reads_.size() == 1) work();
  }

 private:
  void work() {
    time_.after(10us, [this] {
      if (++read_ != reads_.size()) return work();
      read_ = 0;
      time_.after(20us, [this, all = std::exchange(reads_, {})] { done(all); });
    });
  }
  Time& time_;
  Reads reads_;
  std::size_t read_ = 0;
};

class ParallelDisk final : public Disk {
 public:
  explicit ParallelDisk(Time& time) : time_(time) {}
  void give(IoRequest& read) override {
    time_.after(100us, [this, &read] { done({&read}); });
  }

 private:
  Time& time_;
};

/// When a client asks anew: after each answer; after all answers that it has, as one does that has
/// to share a core with the server; after all answers to what it has asked.
enum class Habit { kOneByOne, kWhatItHas, kWaitsForAll };

/// Keeps reads under way, through the queue or without one.
class Client {
 public:
  Client(Time& time, Disk& disk, ReadQueue* queue, Habit habit)
      : time_(time), disk_(disk), queue_(queue), habit_(habit) {
    disk_.done = [this](const Reads& reads) { answered(reads); };
  }
  void begin(std::size_t depth) {
    for (std::size_t i = 0; i < depth; ++i) {
      reads_.push_back(std::make_unique<IoRequest>());
      ask(*reads_.back());
    }
  }
  void stop() { stopped_ = true; }
  std::size_t answers() const { return answers_; }
  std::size_t unanswered() const { return under_way_; }

 private:
  void ask(IoRequest& read) {
    ++under_way_;
    if (!queue_) return disk_.give(read);
    read.offset = asked_++;
    queue_->ask(read);
    give();
  }
  void give() {
    while (IoRequest* read = queue_->next()) {
      EXPECT_EQ(read->offset, given_++) << "not in the order in which they were asked for";
      disk_.give(*read);
    }
  }
  void answered(const Reads& reads) {
    for (IoRequest* read : reads) {
      if (queue_) {
        queue_->finished();
        give();
      }
      --under_way_;
      ++answers_;
      taken_.push_back(read);
    }
    if (habit_ == Habit::kWaitsForAll && under_way_ != 0) return;
    if (!busy_) take();
  }
  void take() {
    busy_ = !taken_.empty();
    if (!busy_) return;
    const std::size_t n = habit_ == Habit::kOneByOne ? 1 : taken_.size();
    time_.after(8us * n, [this, n] {
      const Reads now(taken_.begin(), taken_.begin() + static_cast<std::ptrdiff_t>(n));
      taken_.erase(taken_.begin(), taken_.begin() + static_cast<std::ptrdiff_t>(n));
      for (IoRequest* read : now) again(*read);
      take();
    });
  }
  void again(IoRequest& read) {
    if (!stopped_) ask(read);
  }

  Time& time_;
  Disk& disk_;
  ReadQueue* queue_;
  Habit habit_;
  bool stopped_ = false;
  bool busy_ = false;
  std::vector<std::unique_ptr<IoRequest>> reads_;
  Reads taken_;  // answers that the client has not looked at yet
  std::size_t asked_ = 0, given_ = 0, under_way_ = 0, answers_ = 0;
};

template <class SomeDisk>
std::size_t answers_in(Nanoseconds span, bool with_queue, Habit habit, std::size_t depth = 32) {
  Time time;
  SomeDisk disk(time);
  ReadQueue queue(time);
  Client client(time, disk, with_queue ? &queue : nullptr, habit);
  client.begin(depth);
  time.run_until(span);
  return client.answers();
}

TEST(ReadQueue, ASerialDiskAndItsClientWorkAtTheSameTime) {
  const auto without = answers_in<SerialDisk>(5s, false, Habit::kWhatItHas);
  const auto with = answers_in<SerialDisk>(5s, true, Habit::kWhatItHas);
  EXPECT_GT(with, without + without / 4);
}

TEST(ReadQueue, ADiskThatReadsManyAtOnceGetsThem) {
  for (const auto habit : {Habit::kOneByOne, Habit::kWhatItHas, Habit::kWaitsForAll}) {
    const auto without = answers_in<ParallelDisk>(20s, false, habit);
    const auto with = answers_in<ParallelDisk>(20s, true, habit);
    EXPECT_GT(with, without - without / 50);
  }
}

TEST(ReadQueue, FewReadsAreNeverHeldBack) {
  const auto without = answers_in<SerialDisk>(2s, false, Habit::kOneByOne, 4);
  EXPECT_EQ(answers_in<SerialDisk>(2s, true, Habit::kOneByOne, 4), without);
}

TEST(ReadQueue, AllAreAnsweredWhenTheClientStops) {
  Time time;
  SerialDisk disk(time);
  ReadQueue queue(time);
  Client client(time, disk, &queue, Habit::kWhatItHas);
  client.begin(32);
  time.run_until(1s);
  ASSERT_TRUE(queue.is_limited());
  client.stop();
  time.run_until(2s);
  EXPECT_EQ(client.unanswered(), 0u);
  EXPECT_TRUE(queue.is_idle());
}

TEST(ReadQueue, TheLimitGrowsWithTheReads) {
  Time time;
  SerialDisk disk(time);
  ReadQueue queue(time);
  Client client(time, disk, &queue, Habit::kWhatItHas);
  client.begin(8);
  time.run_until(1s);
  ASSERT_TRUE(queue.is_limited());
  const auto before = client.answers();
  client.begin(24);
  time.run_until(2s);
  ASSERT_TRUE(queue.is_limited());
  const auto alone = answers_in<SerialDisk>(2s, true, Habit::kWhatItHas) -
                     answers_in<SerialDisk>(1s, true, Habit::kWhatItHas);
  EXPECT_GT(client.answers() - before, alone * 9 / 10);
}

}  // namespace
}  // namespace tandem::device
