// A pool on a simulated disk with a random life, and readers for its image.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "store/group.h"
#include "store/pool.h"
#include "tests/support/image_reader.h"
#include "tests/support/sim_disk.h"

namespace tandem::inspect {

using sim::ImageReader;

inline VerifyReport verify(const sim::SimImage& image, VerifyOptions options = {}) {
  ImageReader reader(image);
  auto report = verify_pool(reader, options);
  EXPECT_TRUE(report.has_value()) << report.error().message;
  return report ? std::move(*report) : VerifyReport{};
}

/// No problem was found, and every block of every zone is accounted for.
inline void expect_sound(const sim::SimImage& image) {
  const VerifyReport report = verify(image);
  EXPECT_TRUE(report.sound()) << report.text();
  for (const auto& g : report.groups) {
    EXPECT_EQ(g.data_blocks + g.dead_blocks + g.snapshot_blocks + g.map_blocks + g.book_blocks +
                  g.log_blocks + g.free_blocks,
              g.zone_blocks)
        << g.name;
    EXPECT_LE(g.tail_blocks, g.free_blocks) << g.name;
  }
}

/// One node; a small pool with tiny caches, so that everything happens often.
class PoolLife {
 public:
  static constexpr std::uint64_t kDiskBytes = 24 << 20;

  explicit PoolLife(std::uint64_t seed) : PoolLife(seed, sim::SimImage(kDiskBytes)) {
    const Status made = world.run(format());
    EXPECT_TRUE(made.has_value());
  }
  PoolLife(std::uint64_t seed, sim::SimImage image)
      : world(seed), disk(world, std::move(image), {.seed = seed}), buffers(32 << 20) {
    options.map_cache_bytes = 24 * kBlockBytes;
    options.checkpoint_log_pages = 40;
    options.flush_interval = std::chrono::milliseconds(20);
  }
  ~PoolLife() { stop(); }

  Task<Status> format() {
    store::FormatOptions shape;
    shape.zone_bytes = 256 << 10;
    co_return co_await store::Pool::format(world.runtime(), disk, shape);
  }
  Status open() {
    auto opened = world.run(store::Pool::open(world.runtime(), disk, buffers, options));
    if (!opened) return Error(std::move(opened.error()));
    pool = std::move(*opened);
    for (const auto& broken : pool->broken_groups()) return broken.error;
    for (auto* g : pool->groups()) {
      if (g->role() == Role::kPrimary) g->serve(true);
    }
    return ok();
  }
  void stop() {
    if (pool) world.run(pool->close());
    pool.reset();
    world.run_until([this] { return disk.in_flight() == 0; });
  }
  store::Group* group() { return pool->groups().front(); }

  Status make_group(const std::string& name, Role role = Role::kPrimary) {
    auto made = world.run(pool->create_group(name, Uuid{}, role, ReplicationMode::kAsync));
    if (!made) return Error(std::move(made.error()));
    if (role == Role::kPrimary) (*made)->serve(true);
    return ok();
  }

  /// One random operation on the first group; ENOSPC is an answer like any other.
  Task<Status> one() {
    auto& random = world.random();
    auto* g = group();
    const auto volumes = g->volumes();
    const auto dice = random.below(100);
    if (volumes.empty() || (dice == 0 && volumes.size() < 4)) {
      const std::uint64_t bytes = random.between(1, 600) * kBlockBytes;
      co_return co_await g->create_volume("v" + std::to_string(names_++), bytes, 4096);
    }
    const auto state = volumes[random.below(volumes.size())];
    if (dice == 1) {
      co_return co_await g->resize_volume(state.name,
                                          state.size_bytes + random.below(300) * kBlockBytes);
    }
    if (dice == 2 && volumes.size() > 1) co_return co_await g->delete_volume(state.name);
    if (dice < 6) co_return co_await g->checkpoint();
    if (dice == 6) g->set_log_hold(Lsn{random.below(g->head().lsn.value + 1)});
    if (dice == 7) g->set_log_hold(std::nullopt);
    auto volume = g->open_volume(state.name);
    if (!volume) co_return Error(std::move(volume.error()));
    const std::uint64_t blocks = state.size_bytes / kBlockBytes;
    const std::uint64_t first = random.below(blocks);
    const std::uint64_t count = std::min(
        blocks - first, random.chance(1, 6) ? random.between(1, 100) : random.between(1, 4));
    const std::uint64_t offset = first * kBlockBytes, length = count * kBlockBytes;
    const WriteOptions how{.fua = random.chance(1, 8), .no_hole = random.chance(1, 2)};
    if (dice < 20) co_return co_await (*volume)->discard(offset, length, how);
    if (dice < 30) co_return co_await (*volume)->write_zeroes(offset, length, how);
    if (dice < 35) co_return co_await (*volume)->flush();
    IoBuffer data = IoBuffer::on_heap(length);
    for (std::size_t i = 0; i < length; i += 8) {
      const std::uint64_t value = random.next();
      std::memcpy(data.data() + i, &value, 8);
    }
    co_return co_await (*volume)->write(offset, std::move(data), how);
  }
  Task<void> worker(std::size_t operations) {
    for (std::size_t i = 0; i < operations && !disk.is_off(); ++i) {
      const Status done = co_await one();
      refused_ += !done && done.error().code == ErrorCode::kNoSpace ? 1 : 0;
    }
    --working_;
  }
  /// `operations` in all, four at a time, until they end or the disk is off.
  void live(std::size_t operations) {
    working_ = 4;
    for (int i = 0; i < 4; ++i) spawn(worker(operations / 4));
    EXPECT_TRUE(world.run_until([this] { return working_ == 0; }));
  }
  /// What a power cut now would leave if every write made it.
  sim::SimImage now() {
    return disk.crash_image({.mode = sim::CutOptions::Mode::kKeepAll}, world.random());
  }
  std::size_t refused() const { return refused_; }

  sim::SimRuntime world;
  sim::SimDisk disk;
  BufferPool buffers;
  store::StoreOptions options;
  std::unique_ptr<store::Pool> pool;

 private:
  std::size_t names_ = 0;
  std::size_t working_ = 0;
  std::size_t refused_ = 0;
};

}  // namespace tandem::inspect
