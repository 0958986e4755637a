// Two whole nodes, real stores on simulated disks, one seeded world: what an operator does and
// sees.
#include "control/node_control.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tandem/base/log.h"
#include "tests/support/sim_disk.h"
#include "tests/support/sim_link.h"
#include "tests/support/sim_runtime.h"

namespace tandem::control {
namespace {

using namespace std::chrono_literals;
using sim::SimDisk;
using sim::SimImage;
using sim::SimNetwork;
using sim::SimNode;
using sim::SimRuntime;

constexpr std::uint64_t kMiB = 1 << 20;

class TestNode;
struct World;

struct QuietLog {
  QuietLog() {
    set_log_sink([](Level, std::string_view) {});
  }
  ~QuietLog() { set_log_sink(nullptr); }
};

/// Calls the other node's control directly; "" in `broken` when it answers.
class Peers final : public PeerControl {
 public:
  explicit Peers(World& world) : world_(world) {}
  Task<Result<Receipt>> take_over(std::string address, std::string group,
                                  Nanoseconds limit) override;
  Task<Status> add_mirror(std::string address, AddMirror request, Nanoseconds limit) override;
  std::optional<Error> broken;
  std::function<void()> asked;  // once it is this one's turn to decide

 private:
  World& world_;
};

/// Counts, and fails when told to.
class CountingFencer final : public Fencer {
 public:
  Task<Status> fence(std::string group, std::string primary) override {
    calls.push_back(group + " of " + primary);
    co_return result;
  }
  std::vector<std::string> calls;
  Status result = ok();
};

/// One node over its disk; start() and crash() as often as a test likes.
class TestNode {
 public:
  TestNode(World& world, std::string name);
  ~TestNode() { stop(); }
  void start();
  void stop();
  /// The power goes: what no flush covered may be lost.
  void power_cut();
  bool up() const { return control != nullptr; }

  GroupStatus group(const std::string& name = "v");
  SlotStatus slot(const std::string& name = "v") { return group(name).slots.at(0); }
  Status write(const std::string& volume, std::uint64_t block, std::uint64_t stamp);
  std::uint64_t read(const std::string& volume, std::uint64_t block);

  World& world;
  const std::string address;
  SimNode& node;
  BufferPool buffers{16 * kMiB};
  Peers peers;
  CountingFencer fencer;
  SimImage image{256 * kMiB};
  std::unique_ptr<SimDisk> disk;
  std::unique_ptr<store::Pool> pool;
  std::unique_ptr<NodeControl> control;
};

struct World {
  explicit World(std::uint64_t seed)
      : runtime(seed), network(runtime), a(*this, "a:1"), b(*this, "b:1") {
    format(a);
    format(b);
    a.start();
    b.start();
  }
  void format(TestNode& node) {
    SimDisk disk(runtime, node.image, {.name = node.address, .executor = &node.node});
    ASSERT_TRUE(runtime.run(store::Pool::format(node.node.runtime(), disk, {.zone_bytes = kMiB})));
    node.image = disk.remains();
  }
  TestNode& at(const std::string& address) { return address == "a:1" ? a : b; }
  bool until(const std::function<bool()>& done, Nanoseconds limit = 30s) {
    const auto end = runtime.now() + limit;
    while (!done()) {
      if (runtime.now() >= end) return false;
      runtime.run_for(5ms);
    }
    return true;
  }
  /// A volume "v" of 8 MiB on a, mirrored to b, following.
  void make_pair(ReplicationMode mode) {
    ASSERT_TRUE(runtime.run(a.control->create_volume({"v", "", 8 * kMiB, 512})));
    ASSERT_TRUE(runtime.run(a.control->add_mirror({"v", "b:1", mode})));
    ASSERT_TRUE(until([&] { return a.slot().state == "following" && equal(); })) << a.slot().reason;
  }
  bool equal() {
    const auto left = a.group();
    const auto right = b.control->list().empty() && b.pool->find("v") ? b.group() : GroupStatus{};
    return left.head.lsn == right.head.lsn && left.head.digest == right.head.digest;
  }

  QuietLog quiet;
  SimRuntime runtime;
  SimNetwork network;
  TestNode a;
  TestNode b;
};

TestNode::TestNode(World& w, std::string name)
    : world(w), address(std::move(name)), node(w.runtime.add_node()), peers(w) {}

void TestNode::start() {
  disk = std::make_unique<SimDisk>(
      world.runtime, image,
      SimDisk::Options{.name = address, .seed = world.runtime.random().next(), .executor = &node});
  auto opened =
      world.runtime.run(store::Pool::open(node.runtime(), *disk, buffers, {.flush_interval = 1s}));
  ASSERT_TRUE(opened) << opened.error().message;
  pool = std::move(*opened);
  ControlOptions options;
  options.node = address.substr(0, 1);
  options.version = "test";
  options.service_address = address;
  options.peer_wait = 3s;
  options.pause_limit = 3s;
  options.fencer = &fencer;
  options.replication.heartbeat_interval = 100ms;
  options.replication.timeout = 500ms;
  options.replication.handshake_timeout = 500ms;
  options.replication.backoff_first = 10ms;
  options.replication.backoff_max = 200ms;
  control = std::make_unique<NodeControl>(node.runtime(), *pool,
                                          world.network.dialer(node, address), peers, options);
  world.network.listen(address, node, &control->acceptor());
  control->start();
}

void TestNode::stop() {
  if (!control) return;
  world.network.listen(address, node, nullptr);
  world.runtime.run(control->stop(), 20s);
  control.reset();
  world.runtime.run(pool->close(), 20s);
  pool.reset();
  image = disk->remains();
  disk.reset();
}

void TestNode::power_cut() {
  world.network.cut(address);
  world.network.listen(address, node, nullptr);
  disk->power_off({});
  stop();
}

GroupStatus TestNode::group(const std::string& name) {
  const auto status = world.runtime.run(control->status());
  for (const auto& group : status.groups)
    if (group.name == name) return group;
  ADD_FAILURE() << "no group " << name;
  return {};
}

Status TestNode::write(const std::string& volume, std::uint64_t block, std::uint64_t stamp) {
  auto opened = control->open(volume);
  if (!opened) return opened.error();
  IoBuffer data = IoBuffer::on_heap(kBlockBytes);
  std::memset(data.data(), static_cast<int>(stamp), kBlockBytes);
  return world.runtime.run((*opened)->write(block * kBlockBytes, std::move(data), {}), 20s);
}

std::uint64_t TestNode::read(const std::string& volume, std::uint64_t block) {
  auto opened = control->open(volume);
  EXPECT_TRUE(opened) << opened.error().message;
  auto data = world.runtime.run((*opened)->read(block * kBlockBytes, kBlockBytes));
  EXPECT_TRUE(data);
  return static_cast<std::uint8_t>(data->bytes()[0]);
}

Task<Result<Receipt>> Peers::take_over(std::string address, std::string group, Nanoseconds) {
  if (asked) asked();
  co_await sleep_for(world_.runtime, 50ms);
  if (broken) co_return *broken;
  auto promoting = world_.at(address).control->take_over(std::move(group));
  co_return co_await std::move(promoting);
}

Task<Status> Peers::add_mirror(std::string address, AddMirror request, Nanoseconds) {
  auto adding = world_.at(address).control->add_mirror(std::move(request));
  co_return co_await std::move(adding);
}

TEST(Volumes, LiveAndAreRefusedInWords) {
  World w(1);
  auto& control = *w.a.control;
  ASSERT_TRUE(w.runtime.run(control.create_volume({"v", "", 8 * kMiB, 4096})));
  ASSERT_TRUE(w.runtime.run(control.create_volume({"v2", "v", 4 * kMiB, 512})));
  EXPECT_EQ(control.list().size(), 2u);
  EXPECT_EQ(w.a.group().volumes.size(), 2u);
  EXPECT_EQ(w.runtime.run(control.create_volume({"v", "", 8 * kMiB, 512})).error().code,
            ErrorCode::kExists);
  EXPECT_EQ(w.runtime.run(control.create_volume({"v", "other", 8 * kMiB, 512})).error().code,
            ErrorCode::kExists)
      << "export names are unique on a node";
  EXPECT_EQ(w.runtime.run(control.create_volume({"a b", "", 8 * kMiB, 512})).error().code,
            ErrorCode::kInvalid);
  EXPECT_EQ(w.runtime.run(control.create_volume({"odd", "", 1000, 512})).error().code,
            ErrorCode::kInvalid);
  EXPECT_EQ(w.a.pool->find("odd"), nullptr) << "a refused volume leaves no group behind";
  ASSERT_TRUE(w.runtime.run(control.resize_volume("v", 16 * kMiB)));
  EXPECT_EQ(w.runtime.run(control.resize_volume("v", 8 * kMiB)).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(w.runtime.run(control.resize_volume("none", 8 * kMiB)).error().code,
            ErrorCode::kNotFound);
  EXPECT_EQ(w.runtime.run(control.delete_group("v")).error().code, ErrorCode::kRefused);
  ASSERT_TRUE(w.runtime.run(control.delete_volume("v")));
  ASSERT_TRUE(w.runtime.run(control.delete_volume("v2")));
  EXPECT_EQ(control.open("v").error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(w.runtime.run(control.delete_group("v"))) << "an empty group may go";
  EXPECT_EQ(w.a.pool->find("v"), nullptr);
}

TEST(Volumes, SurviveARestart) {
  World w(2);
  ASSERT_TRUE(w.runtime.run(w.a.control->create_volume({"v", "", 8 * kMiB, 512})));
  ASSERT_TRUE(w.a.write("v", 3, 7));
  w.a.stop();
  w.a.start();
  ASSERT_TRUE(w.until([&] { return !w.a.control->list().empty(); }));
  EXPECT_EQ(w.a.read("v", 3), 7u);
}

TEST(Mirror, IsMadeOnFirstContactAndFollows) {
  World w(3);
  w.make_pair(ReplicationMode::kSync);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(w.a.write("v", i, i + 1));
  ASSERT_TRUE(w.until([&] { return w.equal(); }));
  const GroupStatus mirror = w.b.group();
  EXPECT_EQ(mirror.role, Role::kMirror);
  EXPECT_EQ(mirror.state, "mirroring");
  EXPECT_EQ(mirror.id, w.a.group().id);
  ASSERT_TRUE(mirror.upstream.has_value());
  EXPECT_EQ(mirror.upstream->node, "a");
  EXPECT_EQ(mirror.upstream->state, "following");
  EXPECT_TRUE(w.a.slot().in_sync);
  EXPECT_EQ(w.a.group().mode, ReplicationMode::kSync);
  const auto refused = w.b.control->open("v");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kReadOnly);
  EXPECT_NE(refused.error().message.find("its primary is node a"), std::string::npos);
  EXPECT_EQ(w.runtime.run(w.b.control->create_volume({"x", "v", kMiB, 512})).error().code,
            ErrorCode::kReadOnly);
}

TEST(Mirror, ChecksTheRequest) {
  World w(4);
  ASSERT_TRUE(w.runtime.run(w.a.control->create_volume({"v", "", 8 * kMiB, 512})));
  const auto add = [&](std::string address) {
    return w.runtime.run(
        w.a.control->add_mirror({"v", std::move(address), ReplicationMode::kSync}));
  };
  EXPECT_EQ(add("b").error().code, ErrorCode::kInvalid);
  EXPECT_EQ(add("b:x").error().code, ErrorCode::kInvalid);
  EXPECT_EQ(add("a:1").error().code, ErrorCode::kInvalid) << "itself";
  ASSERT_TRUE(add("b:1"));
  EXPECT_EQ(add("b:1").error().code, ErrorCode::kExists);
  ASSERT_TRUE(w.runtime.run(w.a.control->remove_mirror("v", "b:1")));
  EXPECT_EQ(w.runtime.run(w.a.control->remove_mirror("v", "b:1")).error().code,
            ErrorCode::kNotFound);
}

TEST(Mirror, ASecondOneChangesNothingThatWasPromisedWithTheFirst) {
  World w(40);
  w.make_pair(ReplicationMode::kSync);
  ASSERT_TRUE(w.until([&] { return w.a.slot().in_sync; }));
  ASSERT_TRUE(w.runtime.run(w.a.control->add_mirror({"v", "c:1", ReplicationMode::kAsync})));
  for (int life = 0; life < 2; ++life) {
    ASSERT_TRUE(w.until([&] { return w.a.group().slots.at(0).in_sync; }));
    const GroupStatus group = w.a.group();
    EXPECT_EQ(group.mode, ReplicationMode::kSync);
    EXPECT_EQ(group.slots.at(0).settings.at("mode"), "group");
    EXPECT_EQ(group.slots.at(1).settings.at("mode"), "async");
    EXPECT_EQ(group.policy.state, "normal") << group.policy.reason;
    w.a.stop();
    w.a.start();
  }
}

TEST(Mirror, ANameThatIsTakenThereIsRefused) {
  World w(5);
  ASSERT_TRUE(w.runtime.run(w.b.control->create_volume({"v", "", 8 * kMiB, 512})));
  ASSERT_TRUE(w.runtime.run(w.a.control->create_volume({"v", "", 8 * kMiB, 512})));
  ASSERT_TRUE(w.runtime.run(w.a.control->add_mirror({"v", "b:1", ReplicationMode::kSync})));
  ASSERT_TRUE(w.until([&] { return w.a.slot().state == "refused"; }));
  EXPECT_NE(w.a.slot().reason.find("another group of that name"), std::string::npos);
}

TEST(Mirror, WhatItLacksIsCountedExactly) {
  World w(6);
  w.make_pair(ReplicationMode::kAsync);
  w.b.stop();
  for (int round = 0; round < 3; ++round)
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(w.a.write("v", i, i + round));
  SlotStatus slot = w.a.slot();
  EXPECT_EQ(slot.missing_records, 30u);
  EXPECT_EQ(slot.missing_bytes, 30 * kBlockBytes);
  EXPECT_EQ(slot.missing_blocks, 10u) << "distinct blocks";
  w.a.stop();
  w.a.start();
  ASSERT_TRUE(w.until([&] { return !w.a.control->list().empty(); }));
  slot = w.a.slot();
  EXPECT_EQ(slot.missing_blocks, 10u) << "also after a restart, while the mirror is away";
  EXPECT_EQ(slot.missing_records, 30u);
  w.b.start();
  ASSERT_TRUE(w.until([&] { return w.a.slot().missing_blocks == 0 && w.equal(); }))
      << w.a.slot().reason;
}

TEST(Promotion, FencesThePrimaryFirstAndStopsWhenThatFails) {
  World w(70);
  w.make_pair(ReplicationMode::kSync);
  ASSERT_FALSE(w.runtime.run(w.b.control->promote("v", false)));
  EXPECT_TRUE(w.b.fencer.calls.empty()) << "a promotion that is refused fences nobody";
  w.a.power_cut();
  ASSERT_TRUE(w.until([&] { return w.b.group().upstream->state == "lost"; }));
  w.b.fencer.result = Error{ErrorCode::kRefused, "the power switch does not answer"};
  const auto failed = w.runtime.run(w.b.control->promote("v", false));
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "the power switch does not answer");
  EXPECT_EQ(w.b.group().state, "mirroring") << "nothing was promoted";
  EXPECT_EQ(w.b.group().history.size(), 1u);
  w.b.fencer.result = ok();
  ASSERT_TRUE(w.runtime.run(w.b.control->promote("v", false)));
  const std::vector<std::string> want = {"v of a", "v of a"};
  EXPECT_EQ(w.b.fencer.calls, want);
}

TEST(Promotion, APlannedSwitchoverFencesNobody) {
  World w(71);
  w.make_pair(ReplicationMode::kSync);
  ASSERT_TRUE(w.runtime.run(w.a.control->switchover("v", "")));
  EXPECT_EQ(w.b.group().state, "serving");
  EXPECT_TRUE(w.a.fencer.calls.empty());
  EXPECT_TRUE(w.b.fencer.calls.empty());
}

TEST(Promotion, ShowsItsReceiptAndServes) {
  World w(7);
  w.make_pair(ReplicationMode::kSync);
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(w.a.write("v", i, i + 1));
  const auto early = w.runtime.run(w.b.control->promote("v", false));
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().code, ErrorCode::kRefused) << "the primary is reachable";
  w.a.power_cut();
  ASSERT_TRUE(w.until([&] { return w.b.group().upstream->state == "lost"; }));
  const auto receipt = w.runtime.run(w.b.control->receipt("v"));
  ASSERT_TRUE(receipt);
  EXPECT_TRUE(receipt->complete_image);
  EXPECT_FALSE(receipt->primary_reachable);
  EXPECT_TRUE(receipt->head_known);
  EXPECT_EQ(receipt->missing_records, 0u);
  const auto promoted = w.runtime.run(w.b.control->promote("v", false));
  ASSERT_TRUE(promoted) << promoted.error().message;
  EXPECT_EQ(promoted->new_timeline, Timeline{2});
  for (int i = 0; i < 20; ++i) EXPECT_EQ(w.b.read("v", i), i + 1u);
  ASSERT_TRUE(w.b.write("v", 0, 99));
  EXPECT_EQ(w.b.group().state, "serving");
  EXPECT_EQ(w.b.group().history.size(), 2u);
}

TEST(Promotion, TheReturningPrimaryIsFencedAndSaysSo) {
  World w(8);
  w.make_pair(ReplicationMode::kSync);
  ASSERT_TRUE(w.a.write("v", 1, 1));
  w.network.set_reachable("a:1", false);
  w.network.cut("a:1");
  w.runtime.run_for(1s);
  ASSERT_TRUE(w.a.write("v", 1, 2)) << "alone, degraded";
  ASSERT_TRUE(w.runtime.run(w.b.control->promote("v", false)));
  auto held = w.a.control->open("v");
  ASSERT_TRUE(held);
  w.network.set_reachable("a:1", true);
  ASSERT_TRUE(w.until([&] { return w.a.group().state == "fenced"; }));
  IoBuffer data = IoBuffer::on_heap(kBlockBytes);
  const auto late = w.runtime.run((*held)->write(0, std::move(data), {}));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kFenced);
  EXPECT_EQ(w.a.control->open("v").error().code, ErrorCode::kFenced);
  EXPECT_EQ(w.a.group().role, Role::kFenced);
  held->reset();
  w.a.stop();
  w.a.start();
  w.runtime.run_for(5s);
  EXPECT_EQ(w.a.group().state, "fenced") << "the fence is on disk";
  EXPECT_TRUE(w.a.control->list().empty());
  // As a mirror it follows from where the two part; its own tail is kept as a branch.
  ASSERT_TRUE(w.runtime.run(w.b.control->add_mirror({"v", "a:1", ReplicationMode::kSync})));
  ASSERT_TRUE(w.until([&] { return w.b.slot().state == "following"; })) << w.b.slot().reason;
  EXPECT_EQ(w.a.group().role, Role::kMirror);
  const auto snapshots = w.a.group().snapshots;
  ASSERT_EQ(snapshots.size(), 1u);
  EXPECT_EQ(snapshots[0].name, "tail-of-timeline-1");
  EXPECT_EQ(snapshots[0].kind, "branch");
  EXPECT_TRUE(w.a.control->open("v@tail-of-timeline-1"));
}

TEST(Promotion, AnOldPrimaryWithoutATailOfItsOwnFollows) {
  World w(9);
  w.make_pair(ReplicationMode::kSync);
  ASSERT_TRUE(w.a.write("v", 1, 1));
  w.a.stop();
  ASSERT_TRUE(w.until([&] { return w.b.group().upstream->state == "lost"; }));
  ASSERT_TRUE(w.runtime.run(w.b.control->promote("v", false)));
  ASSERT_TRUE(w.b.write("v", 1, 2));
  w.a.start();
  ASSERT_TRUE(w.until([&] { return w.a.group().state == "fenced"; }))
      << "it hears the newer timeline before it serves";
  ASSERT_TRUE(w.runtime.run(w.b.control->add_mirror({"v", "a:1", ReplicationMode::kSync})));
  ASSERT_TRUE(w.until([&] { return w.b.slot().in_sync; })) << w.b.slot().reason;
  EXPECT_EQ(w.a.group().role, Role::kMirror);
  ASSERT_TRUE(w.b.write("v", 1, 3));
  w.a.stop();
  w.a.start();
  EXPECT_EQ(w.a.group().state, "mirroring") << "the role is on disk";
  ASSERT_TRUE(w.until([&] { return w.b.slot().in_sync; }));
}

TEST(Promotion, AnEmptyCopyCannotBePromoted) {
  World w(10);
  auto made =
      w.runtime.run(w.b.pool->create_group("m", Uuid{}, Role::kMirror, ReplicationMode::kSync));
  ASSERT_TRUE(made);
  w.b.stop();
  w.b.start();
  const auto promoted = w.runtime.run(w.b.control->promote("m", true));
  ASSERT_FALSE(promoted);
  EXPECT_NE(promoted.error().message.find("never finished"), std::string::npos);
  ASSERT_TRUE(w.runtime.run(w.b.control->delete_group("m")));
}

TEST(Switchover, SwapsTheRolesAndReplicatesBack) {
  World w(11);
  w.make_pair(ReplicationMode::kSync);
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(w.a.write("v", i, i + 1));
  ASSERT_TRUE(w.runtime.run(w.a.control->switchover("v", "")));
  EXPECT_EQ(w.b.group().state, "serving");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(w.b.read("v", i), i + 1u);
  ASSERT_TRUE(w.until([&] { return w.b.slot().in_sync; })) << w.b.slot().reason;
  EXPECT_EQ(w.a.group().state, "mirroring");
  ASSERT_TRUE(w.b.write("v", 0, 42));
  ASSERT_TRUE(w.runtime.run(w.b.control->switchover("v", "a:1")));
  EXPECT_EQ(w.a.read("v", 0), 42u) << "and back";
  EXPECT_EQ(w.a.group().history.size(), 3u);
}

TEST(Switchover, ThatTheSuccessorRefusesChangesNothing) {
  World w(12);
  w.make_pair(ReplicationMode::kSync);
  w.a.peers.broken = Error{ErrorCode::kNoSpace, "full"};
  const auto refused = w.runtime.run(w.a.control->switchover("v", ""));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kNoSpace);
  EXPECT_EQ(w.a.group().state, "serving");
  ASSERT_TRUE(w.a.write("v", 1, 1));
  ASSERT_TRUE(w.until([&] { return w.a.slot().in_sync; })) << w.a.slot().reason;
  w.a.peers.broken = Error{ErrorCode::kUnavailable, "timed out"};
  const auto unknown = w.runtime.run(w.a.control->switchover("v", ""));
  ASSERT_FALSE(unknown);
  EXPECT_EQ(w.a.group().state, "mirroring") << "nobody knows what the other did: do not serve";
  EXPECT_NE(unknown.error().message.find("tandem status"), std::string::npos);
}

Task<void> write_and_read(Volume& volume, std::vector<Status>& answers) {
  IoBuffer data = IoBuffer::on_heap(kBlockBytes);
  std::memset(data.data(), 9, kBlockBytes);
  auto writing = volume.write(kBlockBytes, std::move(data), {});
  answers.push_back(co_await std::move(writing));
  auto read = co_await volume.read(kBlockBytes, kBlockBytes);
  answers.push_back(read ? ok() : Status(read.error()));
}

TEST(Switchover, WhatIsAskedMeanwhileWaitsForTheDecision) {
  for (const bool refused : {true, false}) {
    World w(17);
    w.make_pair(ReplicationMode::kSync);
    auto volume = w.a.control->open("v");
    std::vector<Status> answers;
    w.a.peers.asked = [&] { spawn(write_and_read(**volume, answers)); };
    if (refused) w.a.peers.broken = Error{ErrorCode::kNoSpace, "full"};
    const auto done = w.runtime.run(w.a.control->switchover("v", ""));
    ASSERT_EQ(done.has_value(), !refused);
    EXPECT_TRUE(w.until([&] { return answers.size() == 2; }));
    for (const Status& answer : answers)
      EXPECT_TRUE(answer ? refused : answer.error().code == ErrorCode::kReadOnly) << "it moved";
    EXPECT_EQ((refused ? w.a : w.b).read("v", 1), refused ? 9u : 0u);
    EXPECT_TRUE(refused || done->held_ms >= 50);
    volume->reset();
  }
}

TEST(Switchover, NeedsAMirrorThatFollows) {
  World w(13);
  w.make_pair(ReplicationMode::kAsync);
  w.b.stop();
  w.runtime.run_for(1s);
  EXPECT_EQ(w.runtime.run(w.a.control->switchover("v", "")).error().code, ErrorCode::kRefused);
  EXPECT_EQ(w.runtime.run(w.a.control->switchover("v", "c:1")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(w.a.group().state, "serving");
}

TEST(Demotion, StopsServingAndIsPersisted) {
  World w(14);
  w.make_pair(ReplicationMode::kSync);
  ASSERT_TRUE(w.a.write("v", 1, 1));
  ASSERT_TRUE(w.runtime.run(w.a.control->demote("v")));
  EXPECT_EQ(w.a.control->open("v").error().code, ErrorCode::kReadOnly);
  EXPECT_EQ(w.runtime.run(w.a.control->demote("v")).error().code, ErrorCode::kRefused);
  w.a.stop();
  w.a.start();
  EXPECT_EQ(w.a.group().state, "mirroring");
  ASSERT_TRUE(w.runtime.run(w.a.control->promote("v", false)));
  EXPECT_EQ(w.a.read("v", 1), 1u);
}

TEST(Start, APrimaryFetchesWhatItLostInAPowerCut) {
  int fetched = 0;
  for (const auto seed : sim::seeds_to_run(20, 6)) {
    World w(seed);
    w.make_pair(ReplicationMode::kSync);
    for (int i = 0; i < 30; ++i) ASSERT_TRUE(w.a.write("v", i, i + 1));
    const Lsn before = w.a.group().head.lsn;
    w.a.power_cut();
    w.a.start();
    EXPECT_TRUE(w.a.control->list().empty()) << "not before it heard its mirror";
    if (w.a.pool->find("v")->head().lsn < before) ++fetched;
    ASSERT_TRUE(w.until([&] { return w.a.group().state == "serving"; }));
    for (int i = 0; i < 30; ++i) EXPECT_EQ(w.a.read("v", i), i + 1u) << "seed " << seed;
    ASSERT_TRUE(w.until([&] { return w.a.slot().in_sync; })) << w.a.slot().reason;
  }
  EXPECT_GT(fetched, 0);
}

TEST(Storage, AGroupThatStoppedIsShownAndMayBeTakenOver) {
  World w(15);
  w.make_pair(ReplicationMode::kSync);
  ASSERT_TRUE(w.a.write("v", 1, 1));
  w.a.disk->inject({.kind = IoRequest::Kind::kFlush, .sticky = true});
  auto volume = w.a.control->open("v");
  ASSERT_TRUE(volume);
  ASSERT_TRUE(w.a.write("v", 2, 2));
  EXPECT_FALSE(w.runtime.run((*volume)->flush()));
  ASSERT_TRUE(w.until([&] { return w.a.group().state == "stopped"; }, 5s));
  EXPECT_FALSE(w.a.group().reason.empty());
  EXPECT_EQ(w.a.control->open("v").error().code, ErrorCode::kFenced);
  ASSERT_TRUE(w.until([&] { return w.b.group().upstream->state == "lost"; }));
  ASSERT_TRUE(w.runtime.run(w.b.control->promote("v", false)));
  EXPECT_EQ(w.b.read("v", 1), 1u);
  volume->reset();
}

TEST(NodeStatus, SaysWhatTheNodeIs) {
  World w(16);
  w.make_pair(ReplicationMode::kFlush);
  w.runtime.run_for(2s);
  const auto status = w.runtime.run(w.a.control->status());
  EXPECT_EQ(status.node, "a");
  EXPECT_EQ(status.version, "test");
  EXPECT_GE(status.uptime_seconds, 2u);
  EXPECT_EQ(status.pool.id, w.a.pool->superblock().pool);
  EXPECT_EQ(status.pool.size_bytes, 256 * kMiB);
  EXPECT_GT(status.pool.zones_free, 0u);
  EXPECT_GT(status.pool.used_bytes, 0u);
  ASSERT_TRUE(w.runtime.run(w.a.control->set_mode("v", ReplicationMode::kAsync)));
  EXPECT_EQ(w.a.group().mode, ReplicationMode::kAsync);
  EXPECT_EQ(w.runtime.run(w.a.control->set_mode("x", ReplicationMode::kAsync)).error().code,
            ErrorCode::kNotFound);
}

}  // namespace
}  // namespace tandem::control
