#include "device/reactor.h"

#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "device/ring.h"
#include "tandem/base/check.h"
#include "tandem/base/spin.h"

namespace tandem::device {
namespace asio = boost::asio;

namespace {

// So that busy sockets cannot starve the disk: at most this many handlers a turn.
constexpr int kHandlersPerTurn = 64;
constexpr Nanoseconds kLongestSleep = std::chrono::seconds(1);

Nanoseconds steady_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::chrono::seconds(now.tv_sec) + Nanoseconds(now.tv_nsec);
}

}  // namespace

struct Reactor::Impl {
  explicit Impl(ReactorOptions options) : spin(options.spin) {}

  AdaptiveSpin spin;
  std::unique_ptr<Ring> ring;
  asio::io_context io{1};
  asio::executor_work_guard<asio::io_context::executor_type> work{io.get_executor()};
  asio::posix::stream_descriptor ring_events{io};
  bool in_turn = false;
  bool listening = false;  // an async_wait on ring_events is pending

  std::atomic<std::thread::id> owner{std::this_thread::get_id()};
  std::atomic<bool> stop_requested{false};

  // Work posted on the reactor's thread needs no lock; work of other threads goes through `remote`.
  std::vector<std::function<void()>> local;
  std::vector<std::function<void()>> running;
  std::mutex mutex;  // guards remote and asleep
  std::vector<std::function<void()>> remote;
  std::atomic<bool> remote_waits{false};
  bool asleep = false;

  std::map<std::pair<Nanoseconds, TimerId>, std::function<void()>> timers;
  std::unordered_map<TimerId, Nanoseconds> deadlines;
  TimerId last_timer = 0;

  std::uint64_t chance[32];
  std::size_t chance_left = 0;

  void listen_to_ring();
  void wake();
};

void Reactor::Impl::listen_to_ring() {
  if (listening) return;
  listening = true;
  ring_events.async_wait(
      asio::posix::stream_descriptor::wait_read, [this](const boost::system::error_code& error) {
        listening = false;
        if (error) return;
        std::uint64_t count = 0;
        // Only resets the counter; what completed is found by reap().
        [[maybe_unused]] const auto n = ::read(ring->event_fd(), &count, sizeof count);
      });
}

void Reactor::Impl::wake() {
  asio::post(io, [] {});
}

Result<std::unique_ptr<Reactor>> Reactor::create(ReactorOptions options) {
  auto ring = Ring::create(options.ring_entries);
  if (!ring) return std::move(ring.error());
  auto impl = std::make_unique<Impl>(options);
  impl->ring = std::move(*ring);
  // Asio owns (and closes) a duplicate.
  const int fd = ::fcntl(impl->ring->event_fd(), F_DUPFD_CLOEXEC, 0);
  if (fd < 0) {
    return Error{ErrorCode::kIo, std::string("no descriptor is left for the reactor: ") +
                                     std::strerror(errno) + "; raise LimitNOFILE"};
  }
  impl->ring_events.assign(fd);
  return std::unique_ptr<Reactor>(new Reactor(std::move(impl)));
}

Reactor::Reactor(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Reactor::~Reactor() = default;

boost::asio::io_context& Reactor::io_context() { return impl_->io; }
Ring& Reactor::ring() { return *impl_->ring; }
void Reactor::adopt_thread() { impl_->owner.store(std::this_thread::get_id()); }
bool Reactor::is_here() const {
  return impl_->owner.load(std::memory_order_relaxed) == std::this_thread::get_id();
}

void Reactor::run() {
  adopt_thread();
  while (!impl_->stop_requested.exchange(false, std::memory_order_acq_rel)) turn();
}

void Reactor::stop() {
  impl_->stop_requested.store(true, std::memory_order_release);
  post([] {});  // wakes a sleeping reactor
}

void Reactor::run_until(const bool& done) {
  adopt_thread();
  while (!done) turn();
}

void Reactor::turn() {
  CHECK(!std::exchange(impl_->in_turn, true));  // run_until() from within the reactor would nest
  std::size_t ran = run_timers() + run_posted();
  for (int i = 0; i < kHandlersPerTurn && impl_->io.poll_one() != 0; ++i) ++ran;
  ran += impl_->ring->reap();
  impl_->ring->submit();
  if (ran == 0 && impl_->local.empty() && !spin_helped()) sleep_until_something_happens();
  impl_->in_turn = false;
}

std::size_t Reactor::run_posted() {
  // What is posted while these run belongs to the next turn.
  auto& running = impl_->running;
  std::swap(running, impl_->local);
  std::size_t ran = running.size();
  for (auto& work : running) work();
  running.clear();
  if (impl_->remote_waits.load(std::memory_order_acquire)) {
    {
      std::lock_guard lock(impl_->mutex);
      std::swap(running, impl_->remote);
      impl_->remote_waits.store(false, std::memory_order_relaxed);
    }
    ran += running.size();
    for (auto& work : running) work();
    running.clear();
  }
  return ran;
}

std::size_t Reactor::run_timers() {
  auto& timers = impl_->timers;
  if (timers.empty()) return 0;
  const auto now = steady_now();
  std::size_t ran = 0;
  // At most as many as there are now: timers that set timers must not keep the loop here.
  for (auto left = timers.size(); left > 0 && !timers.empty(); --left) {
    auto first = timers.begin();
    if (first->first.first > now) break;
    auto work = std::move(first->second);
    impl_->deadlines.erase(first->first.second);
    timers.erase(first);
    work();
    ++ran;
  }
  return ran;
}

/// More work follows work: looks for it for a moment before the thread goes to sleep.
bool Reactor::spin_helped() {
  return impl_->spin.wait_for([this] {
    return impl_->ring->has_work() || impl_->remote_waits.load(std::memory_order_acquire) ||
           impl_->io.poll_one() != 0;
  });
}

void Reactor::sleep_until_something_happens() {
  Ring& ring = *impl_->ring;
  {
    std::lock_guard lock(impl_->mutex);
    if (!impl_->remote.empty()) return;
    impl_->asleep = true;
  }
  impl_->listen_to_ring();
  ring.arm();
  if (!ring.has_work()) {
    auto longest = kLongestSleep;
    if (!impl_->timers.empty()) {
      longest = std::min(longest, impl_->timers.begin()->first.first - steady_now());
    }
    if (longest.count() > 0) impl_->io.run_one_for(longest);
  }
  ring.disarm();
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
  }
  if (wake) impl_->wake();
}

TimerId Reactor::schedule_after(Nanoseconds delay, std::function<void()> work) {
  CHECK(is_here());
  const auto id = ++impl_->last_timer;
  const auto deadline = steady_now() + std::max(delay, Nanoseconds(0));
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
