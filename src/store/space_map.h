// SpaceMap: which 4 KiB blocks of a group's zones are in use.
//
// Two bits of state per block: used, and held. A block that dies is first released: it counts as
// free in the bitmap that the running checkpoint writes, but stays held (not allocatable) until
// that checkpoint is durable, because until then a crash would still need it.
//
// Thread: the group's reactor. Memory: 1 bit a block, 32 MiB per TiB, plus as much again for zones
// with held blocks while a checkpoint runs. No I/O here.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "format/checkpoint.h"
#include "format/log_page.h"
#include "format/pool_layout.h"

namespace tandem::store {

using format::Extent;

class SpaceMap {
 public:
  explicit SpaceMap(const format::Superblock& geometry);

  /// Takes over a zone with all blocks free.
  void add_zone(ZoneId zone);
  /// Gives up a zone; every block of it must be free and not held.
  void remove_zone(ZoneId zone);
  bool owns(ZoneId zone) const { return zones_.count(zone) != 0; }
  bool is_empty(ZoneId zone) const { return zones_.at(zone).free == geometry_.zone_blocks; }
  /// Zones without a used or held block, other than the one being filled.
  std::vector<ZoneId> empty_zones() const;
  /// A zone that is being emptied: nothing is allocated there until it is opened again. Not kept on
  /// disk.
  void close_zone(ZoneId zone);
  void open_zone(ZoneId zone);
  bool is_closed(ZoneId zone) const;
  struct ZoneUse {
    ZoneId zone;
    std::uint32_t used = 0;  // or held
    bool closed = false;
  };
  std::vector<ZoneUse> zone_uses() const;  // by zone

  /// A run of at most `blocks_max` free blocks, now used; nullopt when nothing is free. `together`:
  /// how many blocks are written, and will be read, at once; 0: as many. Zones are filled front to
  /// back: small writes go where others have left most holes, long ones into zones without any, so
  /// that a disk which was overwritten in small pieces still takes and gives long ones whole.
  std::optional<Extent> allocate(std::uint32_t blocks_max, std::uint32_t together = 0);
  /// Long writes come, and soon there will be no zone without holes for them.
  bool wants_clean_zones() const { return wants_clean_ && clean_.size() < kCleanAhead; }
  /// Of what was allocated since the last checkpoint began: what long writes got.
  std::uint64_t long_blocks() const { return long_blocks_; }
  /// Free again at once: nothing durable ever named these blocks.
  void undo_allocate(Extent extent);
  /// Free in the next checkpoint's bitmap, allocatable once that is durable. Maps and lists on disk
  /// name what is released; a block that is not in use is left alone, and contradiction() tells.
  void release(PoolBlock block);
  /// The first block that was released without being in use: what is on disk contradicts itself,
  /// and no checkpoint may build on it.
  std::optional<PoolBlock> contradiction() const { return contradiction_; }
  /// The checkpoint that was running is durable: what release() held can be reused.
  void commit_released();
  /// Marks blocks that recovery found in use; false when one is foreign or already used.
  [[nodiscard]] bool mark_used(Extent extent);
  bool is_used(PoolBlock block) const;

  std::uint64_t free_blocks() const { return free_; }           // allocatable now
  std::uint64_t closed_blocks() const { return closed_free_; }  // free, in closed zones
  std::uint64_t held_blocks() const { return held_; }           // after the running checkpoint
  std::uint64_t used_blocks() const { return used_; }
  std::size_t zone_count() const { return zones_.size(); }

  // --- persistence: pages of 32,768 bits over pool blocks, see format/checkpoint.h -----------
  using Bits = std::vector<std::uint64_t>;
  /// Loads bits of bitmap page `index`; false when a bit lies outside of this group's zones.
  [[nodiscard]] bool load_page(std::uint32_t index, std::span<const std::byte> bits);
  /// A checkpoint begins: from here on frozen_page() answers as of now. Returns the pages changed
  /// since the last freeze, ascending.
  std::vector<std::uint32_t> freeze();
  /// Page `index` as it was at freeze().
  void frozen_page(std::uint32_t index, std::span<std::byte> bits) const;
  /// The checkpoint is over: forget the frozen state.
  void thaw() { frozen_ = false, frozen_pages_.clear(); }
  /// The pages of all these blocks must be written by the next checkpoint too.
  void mark_dirty(Extent extent);
  void mark_page_dirty(std::uint32_t page) { dirty_pages_.insert(page); }
  /// The bits now are those on disk.
  void forget_changes() { dirty_pages_.clear(); }
  static std::uint32_t page_of(PoolBlock block) {
    return static_cast<std::uint32_t>(block.value / format::kBitsPerBitmapPage);
  }

 private:
  struct Zone {
    ZoneId id;
    Bits used;
    std::unique_ptr<Bits> held;
    std::uint32_t free = 0;  // neither used nor held
    bool closed = false;
  };
  /// Where writes of one kind go.
  struct Front {
    std::optional<ZoneId> zone;
    std::uint32_t cursor = 0;  // next bit to look at
    bool was_clean = false;
  };
  static constexpr std::size_t kCleanAhead = 2;
  bool is_clean(const Zone& zone) const { return zone.free == geometry_.zone_blocks; }
  void add_free(Zone& zone, std::uint32_t blocks);
  void take_free(Zone& zone, std::uint32_t blocks);
  Zone& zone_of(PoolBlock block, std::uint32_t& bit);
  const Zone* find_zone(PoolBlock block, std::uint32_t& bit) const;
  void leave(ZoneId zone);
  std::optional<ZoneId> next_clean(const Front& front) const;
  template <class Visit>
  void for_each_open(const Front& front, Visit visit) const;
  bool choose_for_small();
  bool choose_for_long();
  std::optional<Extent> next_run(Front& front, std::uint32_t blocks_max);
  void before_change(PoolBlock first, std::uint32_t count);
  void store_page(std::uint32_t index, std::span<std::byte> bits) const;

  format::Superblock geometry_;
  std::map<ZoneId, Zone> zones_;
  Front small_, long_;
  std::set<ZoneId> clean_;  // without a used or held block, and open
  bool wants_clean_ = false;
  std::uint64_t long_blocks_ = 0;
  std::uint64_t free_ = 0, closed_free_ = 0, held_ = 0, used_ = 0;
  std::set<std::uint32_t> dirty_pages_;
  std::optional<PoolBlock> contradiction_;
  bool frozen_ = false;
  std::map<std::uint32_t, std::vector<std::byte>> frozen_pages_;  // those changed since freeze()
};

}  // namespace tandem::store
