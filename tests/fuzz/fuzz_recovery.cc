// Arbitrary pool images: a small valid pool is changed (see pool_images.h) and opened. Whatever was
// done to it, the answer is an error or a pool whose every block can be read or says why not.
//
// The first byte: which pool, whether checksums are made to fit, whether the pool is used and
// stopped cleanly afterwards, and whether the disk is shorter than it was.
#include "store/group.h"
#include "tandem/base/log.h"
#include "tests/fuzz/pool_images.h"
#include "tests/fuzz/pool_reader.h"

namespace tandem::fuzz {
namespace {

using sim::SimDisk;
using sim::SimImage;
using sim::SimRuntime;

Task<void> use_group(store::Group& group) {
  for (const auto& state : group.volumes()) {
    auto volume = group.open_volume(state.name);
    if (!volume) continue;
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    std::memset(data.data(), 77, data.size());
    (void)co_await (*volume)->write(0, std::move(data), {});
  }
  (void)co_await group.flush_local();
  (void)co_await group.checkpoint();
}

void open_and_read(SimImage image, bool use) {
  SimRuntime world(3);
  SimDisk disk(world, std::move(image), {.seed = 3});
  HeapBuffers buffers;
  auto pool = world.run(store::Pool::open(world.runtime(), disk, buffers.pool(), store_options()));
  if (pool) {
    for (store::Group* group : (*pool)->groups()) {
      group->serve(group->role() == tandem::Role::kPrimary);
      (void)world.run(read_group(*group));
      if (use) world.run(use_group(*group));
    }
    if (!use) disk.kill();
    world.run((*pool)->close());
    pool->reset();
  }
  world.run_until([&] { return disk.in_flight() == 0; });
}

}  // namespace
}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem::fuzz;
  tandem::set_log_sink([](tandem::Level, std::string_view) {});
  Input input(data, size);
  const auto mode = input.u8();
  const PoolImage& pool = mode & 1 ? pool_after_clean_stop() : pool_after_power_cut();
  const bool use = mode & 4;
  const bool shorter = mode & 8;
  const std::uint64_t end = shorter ? input.u16() * tandem::kBlockBytes : 0;
  auto image = pool.edited(input, /*seal=*/!(mode & 2));
  if (shorter && end < image.size_bytes()) image.truncate(end);
  open_and_read(std::move(image), use);
  return 0;
}
