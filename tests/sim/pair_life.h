// What the lives of a pair have in common that write a stamped volume "v" of group "g": a world, a
// mode, and the first thing that went wrong, with the seed that replays it.
#pragma once

#include <string>

#include "tests/sim/stamped_volume.h"
#include "tests/unit/inspect_fixture.h"

namespace tandem::sim {

class PairLife {
 public:
  const std::string& problem() const { return problem_; }

 protected:
  explicit PairLife(std::uint64_t seed) : PairLife(seed, shape_of(seed)) {}
  PairLife(std::uint64_t seed, StoreShape shape)
      : seed_(seed), random_(seed * 15485863), world_(seed, std::move(shape)) {
    mode_ = static_cast<ReplicationMode>(random_.below(3));
  }

  void complain(const std::string& what) {
    if (!problem_.empty() || what.empty()) return;
    problem_ = "seed " + std::to_string(seed_) + ", round " + std::to_string(round_) + ", mode " +
               to_string(mode_) + ": " + what;
  }
  void complain(const Status& status) {
    if (!status) complain(status.error().message);
  }
  template <class T>
  T of(Task<T> task) {
    return world_.runtime().run(std::move(task));
  }
  /// A new stamp in that block.
  void write(PairNode& node, std::uint64_t block, Stamps& stamps, const std::string& name = "v") {
    auto volume = node.open_volume(name);
    if (!volume) return complain(volume.error().message);
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    stamp_block(data, ++stamp_);
    complain(of((*volume)->write(block * kBlockBytes, std::move(data), {})));
    stamps[block] = stamp_;
  }
  void expect(PairNode& node, const std::string& name, const Stamps& wanted) {
    auto found = of(read_stamps(node, name));
    if (!found) return complain(name + " on " + node.name() + ": " + found.error().message);
    for (std::size_t i = 0; i < kBlocks; ++i) {
      if ((*found)[i] == wanted[i]) continue;
      return complain(name + " on " + node.name() + ", block " + std::to_string(i) + " has " +
                      std::to_string((*found)[i]) + ", wanted " + std::to_string(wanted[i]));
    }
  }
  void promote(PairNode& node) {
    const auto promoted = of(node.control().promote("g", true));
    if (!promoted) return complain(promoted.error().message);
    expect_service(node);
  }
  void expect_service(PairNode& node) {
    if (!world_.until([&] { return node.status().state == "serving"; }, std::chrono::seconds(60)))
      complain(node.name() + " does not serve");
  }
  /// The branch of a former primary's tail, which must be there; "" when it is not.
  std::string tail_on(PairNode& node) {
    std::string branch;
    for (const auto& snapshot : node.status().snapshots) {
      if (snapshot.name.find("tail-of-timeline") == 0) branch = snapshot.name;
    }
    if (branch.empty()) complain("the tail of " + node.name() + " is gone");
    return branch;
  }
  void take_tail(PairNode& node, const Stamps& wanted) {
    const std::string branch = tail_on(node);
    if (branch.empty()) return;
    expect(node, "v@" + branch, wanted);
    complain(of(node.control().delete_snapshot("g", branch)));
  }
  void cut_off(PairNode& node, Nanoseconds pause) {
    world_.network().set_reachable(node.address(), false);
    world_.network().cut(node.address());
    world_.runtime().run_for(pause);
  }
  /// As of its last checkpoint.
  void check_on_disk(PairNode& node) {
    const auto image = node.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random_);
    const auto report = inspect::verify(image);
    if (!report.sound()) complain(node.name() + ": " + report.text());
  }

  std::uint64_t seed_;
  SimRandom random_;
  PairWorld world_;
  ReplicationMode mode_;
  std::uint32_t stamp_ = 0;
  std::size_t round_ = 0;
  std::string problem_;
};

}  // namespace tandem::sim
