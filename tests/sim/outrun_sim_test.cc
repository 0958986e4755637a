// A mirror that was away until the primary's pool was full and its log let go: it gets what changed
// since both were known to be the same, whichever of the two was killed meanwhile.
#include <gtest/gtest.h>

#include "tests/sim/stamped_volume.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kHotBlocks = 8;

bool says(const SimLog& log, const char* what) {
  return log.text().find(what) != std::string::npos;
}

class Outrun {
 public:
  explicit Outrun(std::uint64_t seed) : random_(seed), world_(seed, shape(seed)) {
    mode_ = static_cast<ReplicationMode>(random_.below(3));
  }

  std::string run() {
    complain(world_.primary().start());
    complain(world_.mirror().start());
    complain(of(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    AddMirror request{"g", world_.mirror().address(), mode_};
    complain(of(world_.primary().control().add_mirror(request)));
    level("at first");
    for (std::size_t i = 0; i < kBlocks; ++i) write(i);
    level("full");
    world_.runtime().run_for(5s);  // heartbeats
    world_.network().set_reachable(world_.mirror().address(), false);
    world_.network().cut(world_.mirror().address());
    world_.runtime().run_for(30s);
    for (std::size_t i = 0; i < 20000 && problem_.empty() && !is_outrun(); ++i)
      write(i % kHotBlocks);
    if (!is_outrun()) complain("the log was never given up");
    restart_some();
    world_.network().set_reachable(world_.mirror().address(), true);
    level("again");
    if (problem_.empty()) expect_content();
    return problem_;
  }

 private:
  static StoreShape shape(std::uint64_t seed) {
    StoreShape shape = shape_of(seed);
    shape.disk_bytes = 8 << 20;
    return shape;
  }
  void complain(const std::string& what) {
    if (problem_.empty() && !what.empty())
      problem_ = std::string("mode ") + to_string(mode_) + ": " + what;
  }
  void complain(const Status& status) {
    if (!status) complain(status.error().message);
  }
  template <class T>
  T of(Task<T> task) {
    return world_.runtime().run(std::move(task));
  }
  bool is_outrun() {
    return world_.primary().group()->log_start() > world_.mirror().group()->head().lsn;
  }
  void write(std::size_t block) {
    auto volume = world_.primary().open_volume("v");
    if (!volume) return complain(volume.error().message);
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    stamp_block(data, ++stamp_);
    complain(of((*volume)->write(block * kBlockBytes, std::move(data), {})));
    content_[block] = stamp_;
  }
  void restart_some() {
    for (PairNode* node : {&world_.primary(), &world_.mirror()}) {
      if (!problem_.empty() || !random_.chance(1, 3)) continue;
      node->kill();
      complain(node->start());
    }
    world_.runtime().run_for(1s);
  }
  void level(const std::string& when) {
    const bool done = world_.until(
        [&] {
          const auto slots = world_.primary().status().slots;
          return world_.is_level() && !slots.empty() && slots[0].state == "following";
        },
        120s);
    if (!done) complain("they do not become level " + when);
  }
  void expect_content() {
    complain(of(world_.primary().control().demote("g")));
    const auto promoted = of(world_.mirror().control().promote("g", true));
    if (!promoted) return complain(promoted.error().message);
    if (!world_.until([&] { return world_.mirror().status().state == "serving"; }, 60s))
      return complain("the mirror does not serve");
    const auto found = of(read_stamps(world_.mirror(), "v"));
    if (!found) return complain(found.error().message);
    if (*found != content_) complain("the mirror has other content");
  }

  SimRandom random_;
  PairWorld world_;
  ReplicationMode mode_;
  Stamps content_ = Stamps(kBlocks);
  std::uint32_t stamp_ = 0;
  std::string problem_;
};

TEST(Outruns, MoveOnlyWhatChanged) {
  std::size_t differences = 0, full_copies = 0;
  for (const std::uint64_t seed : seeds_to_run(1, 16)) {
    SimLog log;
    Outrun outrun(seed);
    ASSERT_EQ(outrun.run(), "") << "replay with TANDEM_SEED=" << seed << "\n" << log.text();
    ASSERT_TRUE(says(log, "event=image.installed")) << seed;
    ++(says(log, "from_lsn=0") ? full_copies : differences);
  }
  EXPECT_GT(differences, 4 * full_copies);
}

}  // namespace
}  // namespace tandem::sim
