// A pair with one volume whose places on both disks are known by what is in them, so that a test
// can damage exactly one block of one copy, as rot, a lost write or a misdirected write does.
#pragma once

#include <algorithm>
#include <map>
#include <set>

#include "tests/sim/stamped_volume.h"

namespace tandem::sim {

/// Where each stamp lies on a disk. Data is not repeated in the log, so there is one place for each
/// version that the pool still holds.
using Places = std::map<std::uint32_t, std::uint64_t>;  // stamp -> byte on the disk

inline Places find_stamps(PairNode& node, SimRandom random) {
  Places places;
  const SimImage image = node.disk().crash_image({.mode = CutOptions::Mode::kKeepAll}, random);
  for (const auto& [index, page] : image.durable()) {
    if (!page) continue;
    std::uint32_t stamp = 0;
    std::memcpy(&stamp, page->data(), 4);
    bool pure = stamp != 0;
    for (std::size_t i = 4; i < kBlockBytes && pure; i += 4) {
      pure = std::memcmp(page->data() + i, &stamp, 4) == 0;
    }
    if (pure) places[stamp] = index * kBlockBytes;
  }
  return places;
}

class DamagedPair {
 public:
  explicit DamagedPair(std::uint64_t seed, ReplicationMode mode = ReplicationMode::kSync)
      : world(seed, shape_of(seed)), random(seed * 7368787), mode_(mode) {
    shape_ok_ = begin();
  }
  /// Both end before the memory of either goes: simulated links hand buffers over as they are.
  ~DamagedPair() {
    for (PairNode* node : {&world.primary(), &world.mirror()}) {
      if (node->is_up() && !node->disk().is_off()) node->kill();
    }
  }
  bool ok() const { return shape_ok_; }
  template <class T>
  T run(Task<T> task) {
    return world.runtime().run(std::move(task));
  }

  /// Writes a stamp of its own to every block in `blocks`.
  Status write(const std::vector<std::uint64_t>& blocks) {
    auto volume = world.primary().open_volume("v");
    if (!volume) return volume.error();
    for (const auto block : blocks) {
      IoBuffer data = IoBuffer::on_heap(kBlockBytes);
      stamp_block(data, ++last_stamp_);
      const Status done = run((*volume)->write(block * kBlockBytes, std::move(data), {}));
      if (!done) return done;
      expected[block] = last_stamp_;
    }
    return tandem::ok();
  }
  Status write_all() {
    std::vector<std::uint64_t> all(kBlocks);
    for (std::size_t i = 0; i < kBlocks; ++i) all[i] = i;
    return write(all);
  }

  bool is_following() {
    const GroupStatus status = world.primary().status();
    const GroupStatus other = world.mirror().status();
    return !status.slots.empty() && status.slots[0].state == "following" && other.upstream &&
           other.upstream->state == "following";
  }
  bool level() {
    return world.until([&] { return world.is_level() && is_following(); },
                       std::chrono::seconds(120));
  }
  /// On both nodes.
  bool snapshot(const std::string& name) {
    auto made = run(world.primary().control().create_snapshot({"g", name, ""}));
    const auto there = [&] {
      const auto snapshots = world.mirror().status().snapshots;
      return std::any_of(snapshots.begin(), snapshots.end(),
                         [&](const auto& s) { return s.name == name; });
    };
    return made && world.until(there, std::chrono::seconds(60)) && level();
  }
  Places places(PairNode& node) { return find_stamps(node, random.fork()); }
  /// Rot: bits of the block's place flip.
  void rot(PairNode& node, const std::vector<std::uint32_t>& stamps) {
    const Places all = places(node);
    for (const auto stamp : stamps) node.disk().corrupt(all.at(stamp), kBlockBytes);
  }
  /// Puts bytes at a place behind the store's back: where a misdirected write landed, or what was
  /// there before a write that was lost.
  void plant(PairNode& node, std::uint64_t at, std::uint32_t stamp) {
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    stamp_block(data, stamp);
    const Status planted = run(plant_bytes(node, at, data));
    CHECK(planted.has_value());
  }
  bool is_whole(PairNode& node, std::uint32_t stamp, std::uint64_t at) {
    const Places now = places(node);
    const auto found = now.find(stamp);
    return found != now.end() && found->second == at;
  }
  DamageStatus damage(PairNode& node) { return node.status().damage; }
  Result<Stamps> read(PairNode& node, std::string name) {
    return run(read_stamps(node, std::move(name)));
  }
  Result<IoBuffer> read_block(PairNode& node, const std::string& name, std::uint64_t block) {
    auto volume = node.control().open(name);
    if (!volume) return volume.error();
    return run((*volume)->read(block * kBlockBytes, kBlockBytes));
  }

  PairWorld world;
  SimRandom random;
  Stamps expected = Stamps(kBlocks, 0);

 private:
  static Task<Status> plant_bytes(PairNode& node, std::uint64_t at, IoBuffer data) {
    IoBatch io(node.disk());
    io.write(at, data.bytes());
    Status written = co_await io.run();
    co_return written;
  }
  bool begin() {
    if (!world.primary().start() || !world.mirror().start()) return false;
    if (!run(world.primary().create_volume("v", kBlocks * kBlockBytes))) return false;
    AddMirror request{"g", world.mirror().address(), mode_};
    if (!run(world.primary().control().add_mirror(request))) return false;
    return write_all().has_value() && level();
  }
  ReplicationMode mode_;
  bool shape_ok_ = false;
  std::uint32_t last_stamp_ = 0;
};

}  // namespace tandem::sim
