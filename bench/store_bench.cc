// The map and the allocator in memory: what a write pays besides its I/O.
#include <benchmark/benchmark.h>

#include <optional>

#include "store/map.h"
#include "store/space_map.h"

namespace tandem::store {
namespace {

constexpr std::uint64_t kLeaves = 4096;  // 4 GiB of volume, 16 MiB of leaves

/// New trees never read: any request is a bug of the benchmark.
class NoDevice final : public BlockDevice {
 public:
  void submit(IoRequest&) override { CHECK(false); }
  std::uint64_t size_bytes() const override { return 0; }
  std::string name() const override { return "none"; }
};

Task<void> make_leaf(MapCache& cache, MapTree& tree, std::uint64_t index) {
  auto node = co_await cache.load(tree, 0, index, true);
  CHECK(node.has_value());
}

struct Fixture {
  Fixture() : cache(device, 256 << 20) {
    tree.height = format::map_height(kLeaves * format::kMapFanout);
    for (std::uint64_t i = 0; i < kLeaves; ++i) spawn(make_leaf(cache, tree, i));
  }
  ~Fixture() { cache.drop_group(0); }
  std::uint64_t next_block() {
    random = random * 6364136223846793005ull + 1442695040888963407ull;
    return (random >> 33) % (kLeaves * format::kMapFanout);
  }
  NoDevice device;
  MapCache cache;
  MapTree tree;
  std::uint64_t random = 1;
};

void BM_MapLookup(benchmark::State& state) {
  Fixture f;
  for (auto _ : state) {
    const std::uint64_t block = f.next_block();
    const NodeRef node = f.cache.peek(f.tree, 0, block / format::kMapFanout);
    benchmark::DoNotOptimize(node->entry(block % format::kMapFanout));
  }
}
BENCHMARK(BM_MapLookup);

void BM_MapUpdate(benchmark::State& state) {
  Fixture f;
  std::uint64_t lsn = 0;
  for (auto _ : state) {
    const std::uint64_t block = f.next_block();
    const MapEntry entry{PoolBlock{block + 10}, Lsn{++lsn}, 1};
    benchmark::DoNotOptimize(f.cache.change(f.tree, 0, block / format::kMapFanout,
                                            static_cast<std::uint32_t>(block % format::kMapFanout),
                                            entry));
  }
}
BENCHMARK(BM_MapUpdate);

format::Superblock geometry() {
  format::Superblock g;
  g.zone_blocks = 4096;
  g.zones = 66;
  g.blocks = std::uint64_t{g.zones} * g.zone_blocks;
  return g;
}

/// Allocates runs until the space is used up; then releases everything and commits.
void BM_Allocate(benchmark::State& state) {
  const auto run_max = static_cast<std::uint32_t>(state.range(0));
  SpaceMap space(geometry());
  for (std::uint32_t z = 2; z < 66; ++z) space.add_zone(ZoneId{z});
  std::vector<Extent> taken;
  for (auto _ : state) {
    auto run = space.allocate(run_max);
    if (run) {
      taken.push_back(*run);
      continue;
    }
    state.PauseTiming();
    for (const auto& e : taken) {
      for (std::uint32_t i = 0; i < e.count; ++i) space.release(PoolBlock{e.start.value + i});
    }
    space.commit_released();
    taken.clear();
    state.ResumeTiming();
  }
}
BENCHMARK(BM_Allocate)->Arg(1)->Arg(32);

}  // namespace
}  // namespace tandem::store
