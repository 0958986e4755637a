// A mirror that was away until the primary's pool was full and its log let go: it gets what changed
// since both were known to be the same, whichever of the two was killed meanwhile.
#include <gtest/gtest.h>

#include "tests/sim/pair_life.h"

namespace tandem::sim {
namespace {

using namespace std::chrono_literals;

constexpr std::size_t kHotBlocks = 8;

bool says(const SimLog& log, const char* what) {
  return log.text().find(what) != std::string::npos;
}

class Outrun : public PairLife {
 public:
  explicit Outrun(std::uint64_t seed) : PairLife(seed, small(seed)) {}

  void run() {
    complain(world_.primary().start());
    complain(world_.mirror().start());
    complain(of(world_.primary().create_volume("v", kBlocks * kBlockBytes)));
    AddMirror request{"g", world_.mirror().address(), mode_};
    complain(of(world_.primary().control().add_mirror(request)));
    level("at first");
    for (std::size_t i = 0; i < kBlocks; ++i) overwrite(i);
    level("full");
    world_.runtime().run_for(5s);  // heartbeats
    cut_off(world_.mirror(), 30s);
    for (std::size_t i = 0; i < 20000 && problem_.empty() && !is_outrun(); ++i)
      overwrite(i % kHotBlocks);
    if (!is_outrun()) complain("the log was never given up");
    restart_some();
    world_.network().set_reachable(world_.mirror().address(), true);
    level("again");
    if (problem_.empty()) expect_content();
  }

 private:
  static StoreShape small(std::uint64_t seed) {
    StoreShape shape = shape_of(seed);
    shape.disk_bytes = 8 << 20;
    return shape;
  }
  bool is_outrun() {
    return world_.primary().group()->log_start() > world_.mirror().group()->head().lsn;
  }
  void overwrite(std::size_t block) { write(world_.primary(), block, content_); }
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
    promote(world_.mirror());
    if (problem_.empty()) expect(world_.mirror(), "v", content_);
  }

  Stamps content_ = Stamps(kBlocks);
};

TEST(Outruns, MoveOnlyWhatChanged) {
  std::size_t differences = 0, full_copies = 0;
  for (const std::uint64_t seed : seeds_to_run(1, 16)) {
    SimLog log;
    Outrun outrun(seed);
    outrun.run();
    ASSERT_EQ(outrun.problem(), "") << "replay with TANDEM_SEED=" << seed << "\n" << log.text();
    ASSERT_TRUE(says(log, "event=image.installed")) << seed;
    ++(says(log, "from_lsn=0") ? full_copies : differences);
  }
  EXPECT_GT(differences, 4 * full_copies);
}

}  // namespace
}  // namespace tandem::sim
