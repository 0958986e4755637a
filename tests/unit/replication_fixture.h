// Two (or more) nodes with in-memory logs in one seeded world, joined by simulated streams.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "replication/group_replication.h"
#include "replication/link_router.h"
#include "tandem/base/log.h"
#include "tests/support/memory_log.h"
#include "tests/support/sim_link.h"
#include "tests/support/sim_runtime.h"

namespace tandem::replication::testing {

using namespace std::chrono_literals;
using sim::MemoryLog;
using sim::SimNetwork;
using sim::SimNode;
using sim::SimRuntime;

inline Uuid group_id() { return Uuid::from_random(1, 2); }

inline ReplicationOptions test_options() {
  ReplicationOptions options;
  options.heartbeat_interval = 100ms;
  options.timeout = 500ms;
  options.handshake_timeout = 500ms;
  options.parting_time = 100ms;
  options.backoff_first = 10ms;
  options.backoff_max = 200ms;
  return options;
}

/// One node: its log, its replication, its router. Its network name is also its address.
class TestNode {
 public:
  TestNode(SimRuntime& world, SimNetwork& network, std::string name, Role role,
           ReplicationOptions options = test_options())
      : name(name),
        node(world.add_node()),
        log(node, {group_id(), "g", Uuid::from_random(3, std::hash<std::string>{}(name)), name}),
        world_(world),
        network_(network),
        options_(options) {
    boot(role);
  }
  ~TestNode() {
    stop();
    log.fence();
    log.freeze(false);
    world_.run(log.quiesce());
  }
  TestNode(const TestNode&) = delete;
  TestNode& operator=(const TestNode&) = delete;

  /// Makes the daemon's part that a restart makes anew.
  void boot(Role role) {
    Callbacks callbacks;
    callbacks.on_newer_timeline = [this](const TimelineHistory& history, const std::string& by) {
      ++fenced;
      fenced_by = by;
      fenced_at = current_timeline(history);
      acknowledged_when_fenced = log.acknowledged();
      log.fence();
    };
    callbacks.become_mirror = [this] { return accept_role(); };
    replication = std::make_unique<GroupReplication>(
        node.runtime(), log, network_.dialer(node, name), options_, std::move(callbacks), role);
    RouterCallbacks routes;
    routes.find = [this](const Uuid& id) { return id == group_id() ? replication.get() : nullptr; };
    router = std::make_unique<LinkRouter>(node.runtime(), options_, std::move(routes));
    network_.listen(name, node, router.get());
  }

  void stop() {
    if (!replication) return;
    network_.listen(name, node, nullptr);
    world_.run(router->stop(), 10s);
    world_.run(replication->stop(), 10s);
    router.reset();
    replication.reset();
  }
  /// The machine loses power and its daemon is gone until boot().
  void power_cut() {
    network_.cut(name);
    stop();
    world_.run(log.quiesce());
    log.power_cut();
  }

  void serve_to(const std::string& mirror, ReplicationMode mode) {
    ASSERT_TRUE(replication->add_slot({.address = mirror, .mode = mode}));
    replication->become_primary();
  }
  SlotStatus slot() const { return replication->slots().at(0); }
  bool following() const { return slot().state == "following"; }

  std::string name;
  SimNode& node;
  MemoryLog log;
  std::unique_ptr<GroupReplication> replication;
  std::unique_ptr<LinkRouter> router;
  int fenced = 0;
  int made_mirror = 0;
  std::string fenced_by;
  Timeline fenced_at;
  Lsn acknowledged_when_fenced;

 private:
  Task<Status> accept_role() {
    ++made_mirror;
    co_return ok();
  }
  SimRuntime& world_;
  SimNetwork& network_;
  ReplicationOptions options_;
};

/// A guest that writes random blocks, several at a time, and counts what happens to them.
class Guest {
 public:
  Guest(SimRuntime& world, TestNode& on) : world_(world), on_(on) {}
  void write(int count, int at_once = 4, bool with_flushes = true) {
    left_ += count;
    for (int i = 0; i < at_once; ++i) {
      ++running_;
      spawn(work(with_flushes));
    }
  }
  bool done() const { return running_ == 0; }
  int acknowledged() const { return acknowledged_; }
  int failed() const { return failed_; }

 private:
  Task<void> work(bool with_flushes) {
    while (left_ > 0) {
      --left_;
      const auto chance = world_.random().next();
      co_await sleep_for(on_.node, Nanoseconds(chance % 200'000));
      auto written = co_await on_.log.write(VolumeBlock{chance % 50}, ++stamp_);
      written ? ++acknowledged_ : ++failed_;
      if (with_flushes && chance % 7 == 0) {
        auto flushed = co_await on_.log.flush();
        if (!flushed) ++failed_;
      }
    }
    --running_;
  }
  SimRuntime& world_;
  TestNode& on_;
  int left_ = 0, running_ = 0, acknowledged_ = 0, failed_ = 0;
  std::uint64_t stamp_ = 0;
};

/// Tests provoke hundreds of transitions; nobody wants to read them.
struct QuietLog {
  QuietLog() {
    set_log_sink([](Level, std::string_view) {});
  }
  ~QuietLog() { set_log_sink(nullptr); }
};

/// A world with a primary "a" and a mirror "b".
struct Pair {
  explicit Pair(std::uint64_t seed, ReplicationOptions options = test_options())
      : Pair(seed, options, options) {}
  Pair(std::uint64_t seed, const ReplicationOptions& of_a, const ReplicationOptions& of_b)
      : world(seed),
        network(world),
        a(world, network, "a", Role::kPrimary, of_a),
        b(world, network, "b", Role::kMirror, of_b) {}

  /// Promise 3, looked at after every turn of the world.
  void check_prefix() {
    const LogPoint head = b.log.head();
    const auto chain = a.log.chain_at(head.lsn);
    ASSERT_TRUE(chain.has_value()) << "seed " << world.seed() << " mirror at " << head.lsn.value;
    ASSERT_EQ(*chain, head.digest) << "seed " << world.seed() << " mirror at " << head.lsn.value;
  }
  bool run_checked(const std::function<bool()>& done, Nanoseconds limit = 60s) {
    return world.run_until(
        [&] {
          check_prefix();
          return ::testing::Test::HasFatalFailure() || done();
        },
        limit);
  }
  bool equal() const {
    return a.log.head() == a.log.tail() && a.log.head().lsn == b.log.head().lsn &&
           a.log.head().digest == b.log.head().digest;
  }
  bool converge(Nanoseconds limit = 60s) {
    const auto settled = [&] { return equal() && a.following() && a.slot().missing_records == 0; };
    return world.run_until(settled, limit) && a.log.content() == b.log.content();
  }
  /// Runs `count` writes on the primary to their end.
  void write(int count) {
    Guest guest(world, a);
    guest.write(count);
    ASSERT_TRUE(world.run_until([&] { return guest.done(); }, 60s));
  }

  QuietLog quiet;
  SimRuntime world;
  SimNetwork network;
  TestNode a;
  TestNode b;
};

}  // namespace tandem::replication::testing
