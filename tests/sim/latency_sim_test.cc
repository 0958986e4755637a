// Where the time goes, against a world that knows: what clients wait for is the simulated disks and
// network, and the stages of a write or a flush are together exactly what its client waited.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>, with the log if TANDEM_LOG is set.
#include <gtest/gtest.h>

#include "tests/sim/pair_life.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr Nanoseconds kDisk = 20us;        // each request of it
constexpr Nanoseconds kLinkFastest = 5us;  // one way

class Timed : public PairLife {
 public:
  Timed(std::uint64_t seed, ReplicationMode mode) : PairLife(seed, even_disk()) { mode_ = mode; }

  void run() {
    complain(world_.primary().start());
    complain(world_.mirror().start());
    complain(of(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    complain(of(world_.primary().control().add_mirror({"g", world_.mirror().address(), mode_})));
    level();
    if (!problem_.empty()) return;
    const auto primary = read(world_.primary());
    const auto mirror = read(world_.mirror());
    for (int i = 0; i < 8; ++i) spawn(client());
    if (!world_.until([&] { return running_ == 0; }, 60s)) complain("a client waits for ever");
    level();
    primary_ = read(world_.primary()) - primary;
    mirror_ = read(world_.mirror()) - mirror;
  }

  const StageLatency& on_primary(const std::string& operation, const std::string& stage) const {
    return find(primary_, operation, stage);
  }
  const StageLatency& on_mirror(const std::string& stage) const {
    return find(mirror_, "mirror", stage);
  }
  static std::uint64_t records(const GroupLatency& reading, const std::string& batch) {
    for (const auto& sizes : reading.batches) {
      if (sizes.batch == batch) return sizes.records;
    }
    return 0;
  }

  GroupLatency primary_, mirror_;
  std::uint64_t writes_ = 0, flushes_ = 0, reads_ = 0;
  Nanoseconds writing_{}, flushing_{}, reading_{};  // as the clients saw it

 private:
  static StoreShape even_disk() {
    StoreShape shape;
    shape.latency_max = kDisk;
    return shape;
  }
  static const StageLatency& find(const GroupLatency& reading, const std::string& operation,
                                  const std::string& stage) {
    static const StageLatency kNone;
    for (const auto& found : reading.stages) {
      if (found.operation == operation && found.stage == stage) return found;
    }
    return kNone;
  }
  void level() {
    const bool done = world_.until(
        [&] {
          const auto slots = world_.primary().status().slots;
          return world_.is_level() && !slots.empty() && slots[0].state == "following" &&
                 slots[0].missing_records == 0;
        },
        60s);
    if (!done) complain("they do not become level");
  }
  GroupLatency read(PairNode& node) {
    auto latency = of(node.control().latency("g"));
    if (!latency || latency->groups.size() != 1) {
      complain(node.name() + " does not tell its latency");
      return {};
    }
    EXPECT_EQ(latency->node, node.name());
    return latency->groups.front();
  }
  Nanoseconds now() { return world_.runtime().now(); }

  Task<void> client() {
    ++running_;
    auto volume = world_.primary().open_volume("v");
    for (int i = 0; i < 40 && volume; ++i) {
      const std::uint64_t block = random_.below(kBlocks - 4);
      const auto blocks = random_.between(1, 4);
      const Nanoseconds called = now();
      const auto what = random_.below(5);
      if (what == 0) {
        const auto flushed = co_await (*volume)->flush();
        complain(flushed);
        flushing_ += now() - called;
        ++flushes_;
      } else if (what == 1) {
        auto asking = (*volume)->read(block * kBlockBytes, blocks * kBlockBytes);
        const auto found = co_await std::move(asking);
        if (!found) complain(found.error().message);
        reading_ += now() - called;
        ++reads_;
      } else {
        IoBuffer data = IoBuffer::on_heap(blocks * kBlockBytes);
        std::fill(data.bytes().begin(), data.bytes().end(), std::byte{7});
        auto asking = (*volume)->write(block * kBlockBytes, std::move(data), {});
        const auto written = co_await std::move(asking);
        complain(written);
        writing_ += now() - called;
        ++writes_;
      }
    }
    --running_;
  }

  int running_ = 0;
};

std::uint64_t ns(Nanoseconds time) { return static_cast<std::uint64_t>(time.count()); }

/// A page is written at once, and going on in a later turn takes next to no time.
void expect_disk(const StageLatency& stage) {
  EXPECT_GE(stage.sum_ns, stage.count * ns(kDisk));
  EXPECT_LE(stage.sum_ns, stage.count * ns(kDisk) * 21 / 20);
}

void expect_sums(const Timed& life) {
  const auto& whole = life.on_primary("write", "whole");
  EXPECT_EQ(whole.count, life.writes_);
  EXPECT_EQ(whole.sum_ns, ns(life.writing_));
  std::uint64_t sum = 0;
  for (const char* stage : {"queue", "device", "order", "mirror"})
    sum += life.on_primary("write", stage).sum_ns;
  EXPECT_EQ(sum, whole.sum_ns) << "the stages are the whole";
  EXPECT_EQ(life.on_primary("write", "queue").count, life.writes_);
  EXPECT_EQ(life.on_primary("write", "order").count, life.writes_);
  const auto& device = life.on_primary("write", "device");
  EXPECT_EQ(device.count, life.writes_);
  expect_disk(device);

  const auto& flush = life.on_primary("flush", "whole");
  EXPECT_EQ(flush.count, life.flushes_);
  EXPECT_EQ(flush.sum_ns, ns(life.flushing_));
  EXPECT_EQ(life.on_primary("flush", "device").sum_ns + life.on_primary("flush", "mirror").sum_ns,
            flush.sum_ns);
  EXPECT_EQ(life.on_primary("read", "whole").count, life.reads_);
  EXPECT_EQ(life.on_primary("read", "whole").sum_ns, ns(life.reading_));
}

void expect_link(const Timed& life) {
  const auto& trip = life.on_primary("link", "round trip");
  const auto& apply = life.on_mirror("apply");
  ASSERT_GT(trip.count, 0u);
  EXPECT_EQ(trip.count, apply.count);
  EXPECT_EQ(life.on_primary("link", "ship").count, trip.count) << "all of them were new";
  EXPECT_GE(trip.sum_ns, apply.sum_ns + trip.count * 2 * ns(kLinkFastest));
  EXPECT_GE(apply.sum_ns, life.on_mirror("device").sum_ns);
  EXPECT_EQ(life.on_mirror("device").count, apply.count);
  expect_disk(life.on_mirror("device"));
  EXPECT_EQ(Timed::records(life.primary_, "page"), life.writes_);
  EXPECT_EQ(Timed::records(life.primary_, "shipped"), life.writes_);
  EXPECT_EQ(Timed::records(life.mirror_, "applied"), life.writes_);
}

TEST(Latency, OfModeSyncIsThatOfBothNodesAndTheLink) {
  for (const std::uint64_t seed : seeds_to_run(1, 10)) {
    SimLog log;
    Timed life(seed, ReplicationMode::kSync);
    life.run();
    ASSERT_EQ(life.problem(), "") << log.text();
    SCOPED_TRACE("seed " + std::to_string(seed));
    expect_sums(life);
    expect_link(life);
    EXPECT_EQ(life.on_primary("write", "mirror").count, life.writes_);
    EXPECT_GT(life.on_primary("flush", "mirror").count, 0u);
    EXPECT_GT(life.on_mirror("flush").sum_ns, 0u);
    if (testing::Test::HasFailure()) break;
  }
}

TEST(Latency, OfModeAsyncIsThePrimarysAlone) {
  for (const std::uint64_t seed : seeds_to_run(100, 10)) {
    SimLog log;
    Timed life(seed, ReplicationMode::kAsync);
    life.run();
    ASSERT_EQ(life.problem(), "") << log.text();
    SCOPED_TRACE("seed " + std::to_string(seed));
    expect_sums(life);
    expect_link(life);
    EXPECT_EQ(life.on_primary("write", "mirror").count, 0u);
    EXPECT_EQ(life.on_primary("flush", "mirror").count, 0u);
    if (testing::Test::HasFailure()) break;
  }
}

}  // namespace
}  // namespace tandem::sim
