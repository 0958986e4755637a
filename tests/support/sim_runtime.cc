#include "tests/support/sim_runtime.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "tandem/base/check.h"

namespace tandem::sim {
namespace {

std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

}  // namespace

std::uint64_t SimRandom::next() {
  state_ += 0x9e3779b97f4a7c15ull;
  return mix(state_);
}

std::uint64_t SimRandom::below(std::uint64_t bound) { return bound == 0 ? 0 : next() % bound; }

std::uint64_t SimRandom::between(std::uint64_t low, std::uint64_t high) {
  CHECK(low <= high);
  return low + below(high - low + 1);
}

bool SimRandom::chance(std::uint64_t numerator, std::uint64_t denominator) {
  return below(denominator) < numerator;
}

SimNode::SimNode(SimRuntime& world, std::uint32_t index, std::uint64_t seed)
    : world_(world), index_(index), random_(seed) {}

void SimNode::post(std::function<void()> work) {
  CHECK(is_here());
  ready_.push_back(std::move(work));
}

TimerId SimNode::schedule_after(Nanoseconds delay, std::function<void()> work) {
  CHECK(is_here());
  return world_.add_timer(*this, delay, std::move(work));
}

void SimNode::cancel(TimerId timer) { world_.cancel_timer(timer); }

bool SimNode::is_here() const { return world_.is_here(); }

Nanoseconds SimNode::monotonic() const { return world_.now_; }

UtcNs SimNode::utc() const {
  const Nanoseconds drifted = (world_.now_ - drift_since_) / 1'000'000 * drift_ppm_;
  const Nanoseconds since_start = world_.now_ + utc_offset_ + drifted;
  return UtcNs{world_.options_.start_utc.value + static_cast<std::uint64_t>(since_start.count())};
}

std::uint64_t SimNode::next() { return random_.next(); }

void SimNode::set_utc_drift(std::int64_t parts_per_million) {
  utc_offset_ += (world_.now_ - drift_since_) / 1'000'000 * drift_ppm_;
  drift_since_ = world_.now_;
  drift_ppm_ = parts_per_million;
}

SimRuntime::SimRuntime(Options options)
    : options_(options), random_(mix(options.seed + 1)), order_(mix(options.seed + 2)) {
  add_node();
}

SimRuntime::~SimRuntime() = default;

SimNode& SimRuntime::add_node() {
  const auto index = static_cast<std::uint32_t>(nodes_.size());
  nodes_.push_back(std::make_unique<SimNode>(*this, index, mix(options_.seed + 100 + index)));
  return *nodes_.back();
}

TimerId SimRuntime::add_timer(SimNode& node, Nanoseconds delay, std::function<void()> work) {
  const TimerId id = ++last_timer_;
  Timer timer;
  timer.deadline = now_ + std::max(delay, Nanoseconds{0});
  timer.tie = options_.shuffle ? order_.next() : id;
  timer.node = &node;
  timer.work = std::move(work);
  by_deadline_.emplace(Deadline{timer.deadline, {timer.tie, id}}, id);
  timers_.emplace(id, std::move(timer));
  return id;
}

void SimRuntime::cancel_timer(TimerId id) {
  CHECK(is_here());
  const auto found = timers_.find(id);
  if (found == timers_.end()) return;
  const Timer& timer = found->second;
  if (timer.due) {
    std::erase(timer.node->due_, id);
  } else {
    by_deadline_.erase(Deadline{timer.deadline, {timer.tie, id}});
  }
  timers_.erase(found);
}

void SimRuntime::collect_due() {
  while (!by_deadline_.empty() && by_deadline_.begin()->first.first <= now_) {
    const TimerId id = by_deadline_.begin()->second;
    by_deadline_.erase(by_deadline_.begin());
    Timer& timer = timers_.at(id);
    timer.due = true;
    timer.node->due_.push_back(id);
  }
}

std::function<void()> SimRuntime::pick() {
  // A node takes part once with its posted work and once with its due timers.
  std::vector<std::pair<SimNode*, bool>> choices;
  for (const auto& node : nodes_) {
    if (node->paused_) continue;
    if (!node->ready_.empty()) choices.emplace_back(node.get(), false);
    if (!node->due_.empty()) choices.emplace_back(node.get(), true);
  }
  if (choices.empty()) return {};
  std::size_t chosen = 0;
  if (choices.size() > 1)
    chosen = options_.shuffle ? order_.below(choices.size()) : turns_ % choices.size();
  auto [node, is_timer] = choices[chosen];
  std::function<void()> work;
  if (is_timer) {
    const TimerId id = node->due_.front();
    node->due_.pop_front();
    const auto timer = timers_.find(id);
    work = std::move(timer->second.work);
    timers_.erase(timer);
  } else {
    work = std::move(node->ready_.front());
    node->ready_.pop_front();
  }
  trace(node->index_ * 2 + (is_timer ? 1 : 0));
  return work;
}

bool SimRuntime::step_until(Nanoseconds end) {
  CHECK(is_here());
  for (;;) {
    collect_due();
    if (now_ > end) return false;
    if (auto work = pick()) {
      ++turns_;
      now_ += options_.turn_cost;
      trace(static_cast<std::uint64_t>(now_.count()));
      work();
      return true;
    }
    // A paused node's timers still pass: they wait in its queue until it goes on.
    if (by_deadline_.empty() || by_deadline_.begin()->first.first > end) return false;
    now_ = std::max(now_, by_deadline_.begin()->first.first);
  }
}

bool SimRuntime::step() { return step_until(Nanoseconds::max()); }

bool SimRuntime::run_until(const std::function<bool()>& done, Nanoseconds limit) {
  const Nanoseconds end = now_ + limit;
  while (!done()) {
    if (!step_until(end)) return done();
  }
  return true;
}

bool SimRuntime::run_until_idle(Nanoseconds limit) {
  const Nanoseconds end = now_ + limit;
  while (step_until(end)) {
  }
  return by_deadline_.empty() && now_ <= end;
}

void SimRuntime::run_for(Nanoseconds duration) {
  const Nanoseconds end = now_ + duration;
  while (step_until(end)) {
  }
  now_ = std::max(now_, end);
}

void SimRuntime::run(Task<void> task, Nanoseconds limit) {
  auto done = std::make_unique<bool>(false);
  spawn(keep_done(std::move(task), done.get()));
  if (!run_until([&] { return *done; }, limit)) fail_stuck();
}

Task<void> SimRuntime::keep_done(Task<void> task, bool* done) {
  co_await std::move(task);
  *done = true;
}

void SimRuntime::fail_stuck() const {
  std::fprintf(stderr,
               "simulation stuck: the awaited task cannot end (seed %" PRIu64 ", turn %" PRIu64
               ", virtual time %lld ns, %zu timers left); replay with TANDEM_SEED=%" PRIu64 "\n",
               options_.seed, turns_, static_cast<long long>(now_.count()), timers_.size(),
               options_.seed);
  std::fflush(stderr);
  std::abort();
}

void SimRuntime::trace(std::uint64_t fact) { trace_hash_ = mix(trace_hash_ ^ mix(fact + 1)); }

std::vector<std::uint64_t> seeds_to_run(std::uint64_t first, std::size_t count) {
  if (const char* one = std::getenv("TANDEM_SEED")) return {std::stoull(one)};
  if (const char* factor = std::getenv("TANDEM_SEEDS_FACTOR")) count *= std::stoull(factor);
  std::vector<std::uint64_t> seeds(count);
  for (std::size_t i = 0; i < count; ++i) seeds[i] = first + i;
  return seeds;
}

}  // namespace tandem::sim
