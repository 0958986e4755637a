#include "device/reactor.h"

#include <sys/random.h>

#include <atomic>
#include <ctime>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "device/ring.h"
#include "device/ring_readiness.h"
#include "tandem/base/check.h"
#include "tandem/base/spin.h"

namespace tandem::device {

namespace {

constexpr Nanoseconds kLongestSleep = std::chrono::seconds(1);
/// Steps of a request that one turn takes at most before disks and sockets get their share again.
constexpr int kRoundsMax = 4;
/// Turns without sleep until what is in no hurry is submitted all the same.
constexpr int kTurnsAwakeMax = 8;
/// Timers that are in no hurry end together, so that an idle node wakes up a few times a second
/// however many groups it has (the kernel's round_jiffies).
constexpr Nanoseconds kNoHurry = std::chrono::milliseconds(200);
constexpr Nanoseconds kTogether = std::chrono::milliseconds(50);

Nanoseconds steady_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::chrono::seconds(now.tv_sec) + Nanoseconds(now.tv_nsec);
}

}  // namespace

struct Reactor::Impl {
  Impl(ReactorOptions options, std::unique_ptr<Ring> made)
      : spin(options.spin), ring(std::move(made)), readiness(*ring) {}

  AdaptiveSpin spin;
  std::unique_ptr<Ring> ring;
  RingReadiness readiness;
  bool in_turn = false;
  int turns_awake = 0;

  std::atomic<std::thread::id> owner{std::this_thread::get_id()};
  std::atomic<bool> stop_requested{false};

  // Work posted on the reactor's thread needs no lock; work of other threads goes through `remote`.
  std::vector<std::function<void()>> local;
  std::vector<std::function<void()>> running;
  std::mutex mutex;  // guards remote and asleep
  std::vector<std::function<void()>> remote;
  std::atomic<bool> remote_waits{false};
  bool asleep = false;
  std::atomic<int> wakers{0};  // threads that are about to write to the ring's eventfd

  std::map<std::pair<Nanoseconds, TimerId>, std::function<void()>> timers;
  std::unordered_map<TimerId, Nanoseconds> deadlines;
  TimerId last_timer = 0;

  std::uint64_t chance[32];
  std::size_t chance_left = 0;
};

Result<std::unique_ptr<Reactor>> Reactor::create(ReactorOptions options) {
  auto ring = Ring::create(options.ring_entries);
  if (!ring) return std::move(ring.error());
  return std::unique_ptr<Reactor>(new Reactor(std::make_unique<Impl>(options, std::move(*ring))));
}

Reactor::Reactor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Reactor::~Reactor() {
  // What they posted may have run, and ended this, before they came to wake it.
  while (impl_->wakers.load(std::memory_order_acquire) != 0) std::this_thread::yield();
  impl_->ring->close();
}

Readiness& Reactor::readiness() { return impl_->readiness; }
Ring& Reactor::ring() { return *impl_->ring; }
void Reactor::adopt_thread() { impl_->owner.store(std::this_thread::get_id()); }
bool Reactor::is_here() const {
  return impl_->owner.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

/// It does not sleep once `is_done`.
template <class Done>
void Reactor::turn(const Done& is_done) {
  CHECK(!std::exchange(impl_->in_turn, true));  // run_until() from within the reactor would nest
  run_timers();
  // What work posts is mostly the next step of the same request: form a log page, then hand it to
  // the mirror. They come before the kernel gets everything at once, which takes longer than they.
  for (int round = 0; round < kRoundsMax; ++round) {
    run_posted();
    if (impl_->local.empty()) break;
  }
  impl_->ring->reap();
  if (!impl_->local.empty() || is_done() || spin_helped()) {
    submit_awake();
  } else {
    sleep_until_something_happens();
  }
  impl_->in_turn = false;
}

void Reactor::run() {
  adopt_thread();
  while (!impl_->stop_requested.exchange(false, std::memory_order_acq_rel)) {
    turn([this] { return impl_->stop_requested.load(std::memory_order_acquire); });
  }
}

void Reactor::stop() {
  impl_->stop_requested.store(true, std::memory_order_release);
  post([] {});  // wakes a sleeping reactor
}

void Reactor::run_until(const bool& done) {
  adopt_thread();
  while (!done) turn([&done] { return done; });
}

void Reactor::run_posted() {
  // What is posted while these run belongs to the next round.
  auto& running = impl_->running;
  std::swap(running, impl_->local);
  for (auto& work : running) work();
  running.clear();
  if (impl_->remote_waits.load(std::memory_order_acquire)) {
    {
      std::lock_guard lock(impl_->mutex);
      std::swap(running, impl_->remote);
      impl_->remote_waits.store(false, std::memory_order_relaxed);
    }
    for (auto& work : running) work();
    running.clear();
  }
}

void Reactor::run_timers() {
  auto& timers = impl_->timers;
  if (timers.empty()) return;
  const auto now = steady_now();
  // At most as many as there are now: timers that set timers must not keep the loop here.
  for (auto left = timers.size(); left > 0 && !timers.empty(); --left) {
    auto first = timers.begin();
    if (first->first.first > now) break;
    auto work = std::move(first->second);
    impl_->deadlines.erase(first->first.second);
    timers.erase(first);
    work();
  }
}

/// More work follows work: looks for it for a moment before the thread goes to sleep.
bool Reactor::spin_helped() {
  if (!impl_->spin.is_on()) return false;
  impl_->ring->submit_all();
  return impl_->spin.wait_for([this] {
    return impl_->ring->has_work() || impl_->remote_waits.load(std::memory_order_acquire);
  });
}

/// New waits for sockets are submitted with the next request or sleep. While work posts work there
/// may be neither, and they must not wait for its end.
void Reactor::submit_awake() {
  if (++impl_->turns_awake < kTurnsAwakeMax) return impl_->ring->submit();
  impl_->turns_awake = 0;
  impl_->ring->submit_all();
}

/// Submits what waits, too: in the same system call.
void Reactor::sleep_until_something_happens() {
  bool may_sleep = false;
  {
    std::lock_guard lock(impl_->mutex);
    may_sleep = impl_->asleep = impl_->remote.empty();
  }
  if (!may_sleep) return submit_awake();
  impl_->turns_awake = 0;
  auto longest = kLongestSleep;
  if (!impl_->timers.empty()) {
    longest = std::min(longest, impl_->timers.begin()->first.first - steady_now());
  }
  impl_->ring->sleep(std::max(longest, Nanoseconds(0)));
  std::lock_guard lock(impl_->mutex);
  impl_->asleep = false;
}

void Reactor::post(std::function<void()> work) {
  if (is_here()) {
    impl_->local.push_back(std::move(work));
    return;
  }
  bool wake = false;
  {
    std::lock_guard lock(impl_->mutex);
    impl_->remote.push_back(std::move(work));
    impl_->remote_waits.store(true, std::memory_order_release);
    wake = std::exchange(impl_->asleep, false);
    if (wake) impl_->wakers.fetch_add(1, std::memory_order_relaxed);
  }
  if (!wake) return;
  impl_->ring->wake();
  impl_->wakers.fetch_sub(1, std::memory_order_release);
}

TimerId Reactor::schedule_after(Nanoseconds delay, std::function<void()> work) {
  CHECK(is_here());
  const auto id = ++impl_->last_timer;
  auto deadline = steady_now() + std::max(delay, Nanoseconds(0));
  if (delay >= kNoHurry) deadline = (deadline + kTogether - Nanoseconds(1)) / kTogether * kTogether;
  impl_->timers.emplace(std::pair{deadline, id}, std::move(work));
  impl_->deadlines.emplace(id, deadline);
  return id;
}

void Reactor::cancel(TimerId timer) {
  CHECK(is_here());
  const auto found = impl_->deadlines.find(timer);
  if (found == impl_->deadlines.end()) return;
  impl_->timers.erase({found->second, timer});
  impl_->deadlines.erase(found);
}

Nanoseconds Reactor::monotonic() const { return steady_now(); }

UtcNs Reactor::utc() const {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return UtcNs(static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u +
               static_cast<std::uint64_t>(now.tv_nsec));
}

std::uint64_t Reactor::next() {
  if (impl_->chance_left == 0) {
    // 256 bytes at most are never interrupted and never short.
    CHECK(::getrandom(impl_->chance, sizeof impl_->chance, 0) == sizeof impl_->chance);
    impl_->chance_left = std::size(impl_->chance);
  }
  return impl_->chance[--impl_->chance_left];
}

}  // namespace tandem::device
