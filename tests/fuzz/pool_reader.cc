#include "tests/fuzz/pool_reader.h"

#include <algorithm>

#include "tests/fuzz/pool_images.h"

namespace tandem::fuzz {
namespace {

// What is read of a volume that says it is larger: its beginning and its end.
constexpr std::uint64_t kReadMax = 4 << 20;
constexpr std::uint64_t kPiece = 256 << 10;

Task<bool> read_range(Volume& volume, std::uint64_t from, std::uint64_t to) {
  bool whole = true;
  for (std::uint64_t at = from; at < to; at += kPiece) {
    const std::uint64_t length = std::min(kPiece, to - at);
    auto data = co_await volume.read(at, length);
    CHECK(!data || data->size() == length);
    auto extents = co_await volume.allocation(at, length, 1000);
    CHECK(!extents || !extents->empty());
    whole = whole && data && extents;
  }
  co_return whole;
}

Task<bool> read_volume(Result<std::shared_ptr<Volume>> volume) {
  if (!volume) co_return false;
  const std::uint64_t size = (*volume)->info().size_bytes;
  bool whole = co_await read_range(**volume, 0, std::min(size, kReadMax));
  if (size > kReadMax) whole &= co_await read_range(**volume, size - kPiece, size);
  co_return whole;
}

}  // namespace

Task<bool> read_group(store::Group& group) {
  bool whole = true;
  for (const auto& state : group.volumes())
    whole &= co_await read_volume(group.open_volume(state.name));
  for (const auto& snapshot : group.snapshots()) {
    for (const auto& state : snapshot.volumes) {
      if (state.being_deleted()) continue;
      whole &= co_await read_volume(group.open_snapshot(snapshot.name, state.name));
    }
  }
  co_return whole;
}

void check_is_sound(const sim::SimImage& image) {
  sim::SimRuntime world(9);
  sim::SimDisk disk(world, image, {.seed = 9});
  HeapBuffers buffers;
  auto pool = world.run(store::Pool::open(world.runtime(), disk, buffers.pool(), store_options()));
  CHECK(pool.has_value() && (*pool)->broken_groups().empty());
  for (store::Group* group : (*pool)->groups()) {
    group->serve(group->role() == Role::kPrimary);
    const bool whole = world.run(read_group(*group));
    CHECK(whole || group->role() != Role::kPrimary);
  }
  world.run((*pool)->close());
  pool->reset();
  world.run_until([&] { return disk.in_flight() == 0; });
}

}  // namespace tandem::fuzz
