// A guest overwrites its volume as fast as it can and never flushes, in pools that hold it only a
// few times: what is overwritten must come free on both nodes in time, whatever each of them keeps
// for the other. Writers may wait; none is refused, and the mirror is neither lost nor outrun.
#include <gtest/gtest.h>

#include "tests/sim/pair_life.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kBigBlocks = 2048, kBlocksPerWrite = 64;
constexpr std::size_t kWriters = 4, kPasses = 12;

class Overwriting : public PairLife {
 public:
  explicit Overwriting(std::uint64_t seed, std::uint64_t disk_bytes = 0)
      : PairLife(seed, shape(seed, disk_bytes)) {
    if (disk_bytes != 0) mode_ = ReplicationMode::kSync;
  }
  /// Blocks that no position maps any more or only kept states do, on the node that had most.
  std::uint64_t most_kept() const { return most_kept_; }

  void run() {
    complain(world_.primary().start());
    complain(world_.mirror().start());
    complain(of(world_.primary().create_volume("big", kBigBlocks * kBlockBytes)));
    AddMirror request{"g", world_.mirror().address(), mode_};
    complain(of(world_.primary().control().add_mirror(request)));
    level("at first");
    auto volume = world_.primary().open_volume("big");
    if (!volume) return complain(volume.error().message);
    std::size_t writing = kWriters;
    std::uint64_t next = 0;
    for (std::size_t i = 0; i < kWriters; ++i) spawn(overwrite(**volume, next, writing));
    if (!world_.until([&] { return writing == 0; }, 3600s)) complain("a writer waits for ever");
    level("at the end");
    for (PairNode* node : {&world_.primary(), &world_.mirror()}) check_on_disk(*node);
  }

 private:
  static StoreShape shape(std::uint64_t seed, std::uint64_t disk_bytes) {
    StoreShape shape = shape_of(seed);
    if (disk_bytes != 0) {
      shape.disk_bytes = disk_bytes;
      shape.options.flush_bytes = 1 << 20;
      shape.options.checkpoint_log_pages = 1 << 20;
    }
    shape.options.flush_interval = 1s;
    return shape;
  }
  Task<void> overwrite(Volume& volume, std::uint64_t& next, std::size_t& writing) {
    constexpr std::uint64_t kSlots = kBigBlocks / kBlocksPerWrite;
    while (next < kPasses * kSlots && problem_.empty()) {
      const std::uint64_t at = next++ % kSlots * kBlocksPerWrite * kBlockBytes;
      IoBuffer data = IoBuffer::on_heap(kBlocksPerWrite * kBlockBytes);
      stamp_block(data, ++stamp_);
      complain(co_await volume.write(at, std::move(data), {}));
      for (PairNode* node : {&world_.primary(), &world_.mirror()}) {
        const auto use = node->group()->use();
        most_kept_ = std::max(most_kept_, use.dead_blocks + use.snapshot_blocks);
      }
    }
    --writing;
  }
  void level(const std::string& when) {
    if (!world_.until([&] { return world_.is_level(); }, 120s))
      complain("they do not become level " + when);
  }
  std::uint64_t most_kept_ = 0;
};

TEST(Overwriting, AtFullSpeedNeverFillsThePoolsOfAPair) {
  for (const std::uint64_t seed : seeds_to_run(1, 20)) {
    SimLog log;
    Overwriting life(seed);
    life.run();
    const auto said = [&log](const char* what) {
      return log.text().find(what) != std::string::npos;
    };
    ASSERT_EQ(life.problem(), "") << "replay with TANDEM_SEED=" << seed << "\n" << log.text();
    for (const char* what : {"event=log.given-up", "event=slot.degraded", "state=refused"})
      ASSERT_FALSE(said(what)) << "TANDEM_SEED=" << seed << "\n" << log.text();
  }
}

// Room is no reason to keep what a copy could go back to: zones without holes become few, and long
// writes short.
TEST(Overwriting, KeepsLittleOfWhatDiedAlsoInARoomyPool) {
  for (const std::uint64_t seed : seeds_to_run(1, 10)) {
    SimLog log;
    Overwriting life(seed, 128 << 20);
    life.run();
    ASSERT_EQ(life.problem(), "") << "replay with TANDEM_SEED=" << seed << "\n" << log.text();
    EXPECT_LT(life.most_kept(), kBigBlocks * 3 / 2) << "replay with TANDEM_SEED=" << seed;
  }
}

}  // namespace
}  // namespace tandem::sim
