// SimRuntime: one seeded world with virtual time. It implements the ports of port/executor.h, so
// that a whole node (or several, see SimNode) runs in it on one thread, and a run with the same
// seed repeats exactly.
//
// Order: work posted to one node runs in the order posted. What the contract leaves open is decided
// by the seed: which node runs next, where a due timer falls between posted work, and the order of
// timers with one deadline (Options::shuffle; without it all of these are first come, first
// served). Time: virtual; it jumps to the next timer when nothing is ready, and every turn costs
// Options::turn_cost, so that code which spins on next_turn() still sees time pass.
// Thread: the one that made it; everything CHECKs that.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tandem/base/task.h"
#include "tandem/port/executor.h"

namespace tandem::sim {

/// A small, fast, well-mixed generator (splitmix64) whose sequence is fixed for all time: seeds in
/// bug reports must mean the same run on every machine.
class SimRandom final : public Random {
 public:
  explicit SimRandom(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() override;
  /// Uniform in [0, bound); 0 when bound is 0.
  std::uint64_t below(std::uint64_t bound);
  /// Uniform in [low, high].
  std::uint64_t between(std::uint64_t low, std::uint64_t high);
  /// True in `numerator` of `denominator` cases.
  bool chance(std::uint64_t numerator, std::uint64_t denominator);
  /// A generator whose sequence has nothing to do with the rest of this one.
  SimRandom fork() { return SimRandom(next()); }

 private:
  std::uint64_t state_;
};

class SimRuntime;

/// One node's view of the world: its own run queue, its own wall clock, its own chance. Made by
/// SimRuntime::add_node(), which owns it.
class SimNode final : public Executor, public Clock, public Random {
 public:
  SimNode(SimRuntime& world, std::uint32_t index, std::uint64_t seed);
  SimNode(const SimNode&) = delete;
  SimNode& operator=(const SimNode&) = delete;

  void post(std::function<void()> work) override;
  TimerId schedule_after(Nanoseconds delay, std::function<void()> work) override;
  void cancel(TimerId timer) override;
  bool is_here() const override;
  Nanoseconds monotonic() const override;
  UtcNs utc() const override;
  std::uint64_t next() override;

  Runtime runtime() { return {*this, *this, *this}; }

  /// Sets this node's wall clock off by `by` from where it is now, forwards or backwards.
  void step_utc(Nanoseconds by) { utc_offset_ += by; }
  /// This node's wall clock gains `parts_per_million` from now on (negative: loses).
  void set_utc_drift(std::int64_t parts_per_million);
  /// A stalled machine: nothing of this node runs until resume(); time goes on.
  void pause() { paused_ = true; }
  void resume() { paused_ = false; }
  bool paused() const { return paused_; }

 private:
  friend class SimRuntime;
  SimRuntime& world_;
  std::uint32_t index_;
  SimRandom random_;
  std::deque<std::function<void()>> ready_;
  std::deque<TimerId> due_;
  Nanoseconds utc_offset_{0};
  Nanoseconds drift_since_{0};
  std::int64_t drift_ppm_ = 0;
  bool paused_ = false;
};

class SimRuntime final : public Executor, public Clock, public Random {
 public:
  struct Options {
    std::uint64_t seed = 1;
    bool shuffle = true;
    Nanoseconds turn_cost{100};
    UtcNs start_utc{1'700'000'000'000'000'000};
  };
  explicit SimRuntime(std::uint64_t seed) : SimRuntime(Options{.seed = seed}) {}
  explicit SimRuntime(Options options);
  ~SimRuntime() override;
  SimRuntime(const SimRuntime&) = delete;
  SimRuntime& operator=(const SimRuntime&) = delete;

  // The ports, for a world with a single node: all of these act on node 0.
  void post(std::function<void()> work) override { main().post(std::move(work)); }
  TimerId schedule_after(Nanoseconds delay, std::function<void()> work) override {
    return main().schedule_after(delay, std::move(work));
  }
  void cancel(TimerId timer) override { main().cancel(timer); }
  bool is_here() const override { return std::this_thread::get_id() == thread_; }
  Nanoseconds monotonic() const override { return now_; }
  UtcNs utc() const override { return nodes_[0]->utc(); }
  std::uint64_t next() override { return main().next(); }
  Runtime runtime() { return {*this, *this, *this}; }
  SimNode& main() { return *nodes_[0]; }

  /// One more node; lives as long as the world.
  SimNode& add_node();
  std::uint64_t seed() const { return options_.seed; }
  Nanoseconds now() const { return now_; }
  /// Chance for the test itself; drawing from it does not disturb the nodes.
  SimRandom& random() { return random_; }

  // --- driving -----------------------------------------------------------------------------
  /// Runs one piece of ready work, or jumps to the next timer and runs it. False: nothing is left.
  bool step();
  /// Steps until `done()`; false when nothing was left to do or `limit` of virtual time passed.
  bool run_until(const std::function<bool()>& done, Nanoseconds limit = std::chrono::hours(1));
  /// Steps until nothing is left, timers included; false when `limit` of virtual time passed.
  bool run_until_idle(Nanoseconds limit = std::chrono::hours(1));
  /// Runs everything that is due within `duration` and leaves the clock at its end.
  void run_for(Nanoseconds duration);
  /// Drives `task` to its end and returns its value. A task that cannot end (nothing left to run,
  /// or `limit` of virtual time passed) ends the process with the seed in its message.
  template <class T>
  T run(Task<T> task, Nanoseconds limit = std::chrono::hours(1)) {
    auto result = std::make_unique<std::optional<T>>();
    spawn(keep_result(std::move(task), result.get()));
    if (!run_until([&] { return result->has_value(); }, limit)) fail_stuck();
    return std::move(**result);
  }
  void run(Task<void> task, Nanoseconds limit = std::chrono::hours(1));

  // --- proof that two runs are the same ------------------------------------------------------
  /// Mixes a fact of the run into its hash: simulated devices and links report what they do.
  void trace(std::uint64_t fact);
  /// Equal for two runs that took the same turns at the same times and saw the same facts.
  std::uint64_t trace_hash() const { return trace_hash_; }
  std::uint64_t turns() const { return turns_; }

 private:
  friend class SimNode;
  struct Timer {
    Nanoseconds deadline;
    std::uint64_t tie;
    SimNode* node;
    std::function<void()> work;
    bool due = false;
  };
  using Deadline = std::pair<Nanoseconds, std::pair<std::uint64_t, TimerId>>;

  template <class T>
  static Task<void> keep_result(Task<T> task, std::optional<T>* into) {
    T value = co_await std::move(task);
    into->emplace(std::move(value));
  }
  static Task<void> keep_done(Task<void> task, bool* done);
  [[noreturn]] void fail_stuck() const;

  TimerId add_timer(SimNode& node, Nanoseconds delay, std::function<void()> work);
  void cancel_timer(TimerId id);
  /// One turn that begins at or before `end`; false when there is none.
  bool step_until(Nanoseconds end);
  void collect_due();
  /// The next work among the nodes' queues, or an empty function.
  std::function<void()> pick();
  Options options_;
  std::thread::id thread_ = std::this_thread::get_id();
  SimRandom random_;
  SimRandom order_;  // decides what the contract leaves open
  Nanoseconds now_{0};
  std::vector<std::unique_ptr<SimNode>> nodes_;
  std::unordered_map<TimerId, Timer> timers_;
  std::map<Deadline, TimerId> by_deadline_;
  TimerId last_timer_ = 0;
  std::uint64_t trace_hash_ = 0;
  std::uint64_t turns_ = 0;
};

/// The seeds a test shall run: `count` from `first` on, or the single one named by the environment
/// variable TANDEM_SEED (how a failure is replayed), times TANDEM_SEEDS_FACTOR for long campaigns.
std::vector<std::uint64_t> seeds_to_run(std::uint64_t first, std::size_t count);

}  // namespace tandem::sim
