// Small valid pools, and edits of them that a checksum does not give away.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "store/pool.h"
#include "tests/fuzz/input.h"
#include "tests/support/sim_disk.h"

namespace tandem::fuzz {

/// Of every world and pool here: a small cache, checkpoints and history soon.
store::StoreOptions store_options();

/// A pool at rest, and what its blocks say of each other.
class PoolImage {
 public:
  explicit PoolImage(sim::SimImage image);

  const sim::SimImage& image() const { return image_; }

  /// Changes a copy of the image as `input` says, to its end. Sealed: every checksum of what was
  /// changed is made to fit again, in the block itself and in each that names it, up to the anchor,
  /// and what log pages say of those in front of them.
  sim::SimImage edited(Input& input, bool seal) const;

 private:
  using Block = std::vector<std::byte>;
  using Blocks = std::map<std::uint64_t, Block>;  // by number
  /// Where the checksum of a block is kept.
  struct Reference {
    std::uint64_t from;
    std::size_t offset;
  };

  Block read(std::uint64_t number) const;
  Block& change(Blocks& blocks, std::uint64_t number) const;
  void edit(Input& input, Blocks& blocks) const;
  void seal(Blocks& blocks) const;
  void seal_one(Blocks& blocks, std::uint64_t number) const;
  void chain_log(Blocks& blocks, std::uint64_t page) const;

  sim::SimImage image_;
  struct Editable {
    std::uint64_t number;
    std::size_t bytes;  // of it that say something
  };
  std::vector<Editable> editable_;
  std::map<std::uint64_t, std::vector<Reference>> named_by_;  // by the block whose checksum it is
  std::map<std::uint64_t, std::uint64_t> next_page_;          // of log pages
};

/// A pool of a primary with volumes, kept states, a clone and a history that lost its power: its
/// log has pages behind the checkpoint. And the same after a clean stop.
const PoolImage& pool_after_power_cut();
const PoolImage& pool_after_clean_stop();
/// The same group as a mirror.
const sim::SimImage& pool_of_a_mirror();

}  // namespace tandem::fuzz
