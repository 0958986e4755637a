// A volume of a pair whose blocks each hold one stamp, over and over; 0: never written.
#pragma once

#include <cstring>
#include <string>
#include <vector>

#include "tests/sim/pair_world.h"

namespace tandem::sim {

inline constexpr std::uint64_t kBlocks = 96;
using Stamps = std::vector<std::uint32_t>;  // by block

inline StoreShape shape_of(std::uint64_t seed) {
  StoreShape shape = StoreShape::from_seed(SimRandom(seed * 7919));
  shape.disk_bytes = 24 << 20;
  shape.options.flush_interval = std::chrono::milliseconds(50);
  return shape;
}

inline void stamp_block(IoBuffer& block, std::uint32_t stamp) {
  for (std::size_t i = 0; i < kBlockBytes; i += 4) std::memcpy(block.data() + i, &stamp, 4);
}

/// The stamp of every block, or what is wrong.
inline Task<Result<Stamps>> read_stamps(PairNode& node, std::string name) {
  auto volume = node.control().open(name);
  if (!volume) co_return Error(volume.error());
  auto data = co_await (*volume)->read(0, kBlocks * kBlockBytes);
  if (!data) co_return Error(data.error());
  Stamps stamps(kBlocks);
  for (std::size_t block = 0; block < kBlocks; ++block) {
    const std::byte* at = data->data() + block * kBlockBytes;
    std::memcpy(&stamps[block], at, 4);
    for (std::size_t i = 4; i < kBlockBytes; i += 4) {
      if (std::memcmp(at, at + i, 4) != 0)
        co_return Error{ErrorCode::kCorrupt, name + " is torn in block " + std::to_string(block)};
    }
  }
  co_return stamps;
}

}  // namespace tandem::sim
