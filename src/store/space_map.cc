#include "store/space_map.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "format/checkpoint.h"

namespace tandem::store {
namespace {

/// What is written at once and no shorter than this is long: 64 KiB.
constexpr std::uint32_t kLongBlocks = 16;
/// A choice that will do is taken after so many zones: a large group has hundreds of thousands.
constexpr std::size_t kLookAhead = 256;

bool test(const SpaceMap::Bits& bits, std::uint32_t i) { return (bits[i / 64] >> (i % 64)) & 1; }
void set(SpaceMap::Bits& bits, std::uint32_t i) { bits[i / 64] |= std::uint64_t{1} << (i % 64); }
void clear(SpaceMap::Bits& bits, std::uint32_t i) {
  bits[i / 64] &= ~(std::uint64_t{1} << (i % 64));
}

}  // namespace

SpaceMap::SpaceMap(const format::Superblock& geometry) : geometry_(geometry) {}

void SpaceMap::add_zone(ZoneId zone) {
  auto [it, fresh] = zones_.try_emplace(zone);
  CHECK(fresh);
  it->second.id = zone;
  it->second.used.assign(geometry_.zone_blocks / 64, 0);
  add_free(it->second, geometry_.zone_blocks);
  if (clean_.size() >= kCleanAhead) wants_clean_ = false;
}

void SpaceMap::remove_zone(ZoneId zone) {
  auto it = zones_.find(zone);
  CHECK(it != zones_.end() && it->second.free == geometry_.zone_blocks);
  leave(zone);
  take_free(it->second, geometry_.zone_blocks);
  zones_.erase(it);
}

void SpaceMap::leave(ZoneId zone) {
  for (auto* front : {&small_, &long_}) {
    if (front->zone == zone) front->zone.reset();
  }
}

void SpaceMap::add_free(Zone& zone, std::uint32_t blocks) {
  zone.free += blocks;
  if (is_clean(zone) && !zone.closed) clean_.insert(zone.id);
  (zone.closed ? closed_free_ : free_) += blocks;
}

void SpaceMap::take_free(Zone& zone, std::uint32_t blocks) {
  if (blocks != 0 && is_clean(zone)) clean_.erase(zone.id);
  zone.free -= blocks;
  (zone.closed ? closed_free_ : free_) -= blocks;
}

void SpaceMap::close_zone(ZoneId id) {
  Zone& zone = zones_.at(id);
  CHECK(!zone.closed);
  leave(id);
  clean_.erase(id);
  free_ -= zone.free;
  closed_free_ += zone.free;
  zone.closed = true;
}

void SpaceMap::open_zone(ZoneId id) {
  Zone& zone = zones_.at(id);
  CHECK(zone.closed);
  zone.closed = false;
  if (is_clean(zone)) clean_.insert(id);
  closed_free_ -= zone.free;
  free_ += zone.free;
}

bool SpaceMap::is_closed(ZoneId id) const {
  const auto it = zones_.find(id);
  return it != zones_.end() && it->second.closed;
}

std::vector<SpaceMap::ZoneUse> SpaceMap::zone_uses() const {
  std::vector<ZoneUse> out;
  for (const auto& [id, zone] : zones_) {
    out.push_back({id, geometry_.zone_blocks - zone.free, zone.closed});
  }
  return out;
}

std::vector<ZoneId> SpaceMap::empty_zones() const {
  std::vector<ZoneId> out;
  for (const auto& [id, zone] : zones_) {
    if (is_clean(zone) && small_.zone != id && long_.zone != id) out.push_back(id);
  }
  return out;
}

SpaceMap::Zone& SpaceMap::zone_of(PoolBlock block, std::uint32_t& bit) {
  auto it = zones_.find(geometry_.zone_of(block));
  CHECK(it != zones_.end());
  bit = static_cast<std::uint32_t>(block.value % geometry_.zone_blocks);
  return it->second;
}

const SpaceMap::Zone* SpaceMap::find_zone(PoolBlock block, std::uint32_t& bit) const {
  auto it = zones_.find(geometry_.zone_of(block));
  if (it == zones_.end()) return nullptr;
  bit = static_cast<std::uint32_t>(block.value % geometry_.zone_blocks);
  return &it->second;
}

void SpaceMap::before_change(PoolBlock first, std::uint32_t count) {
  const std::uint32_t last_page = page_of(PoolBlock{first.value + count - 1});
  for (std::uint32_t page = page_of(first); page <= last_page; ++page) {
    dirty_pages_.insert(page);
    if (!frozen_ || frozen_pages_.count(page) != 0) continue;
    std::vector<std::byte> bits(kBlockBytes);
    store_page(page, bits);
    frozen_pages_.emplace(page, std::move(bits));
  }
}

void SpaceMap::mark_dirty(Extent extent) {
  // An extent of a full copy may be longer than a page: those in its middle count too.
  const std::uint32_t last = page_of(PoolBlock{extent.start.value + extent.count - 1});
  for (std::uint32_t page = page_of(extent.start); page <= last; ++page) dirty_pages_.insert(page);
}

/// The zones that are open and have a free block, from the one behind `front` on, once around.
template <class Visit>
void SpaceMap::for_each_open(const Front& front, Visit visit) const {
  auto it = front.zone ? zones_.upper_bound(*front.zone) : zones_.begin();
  for (std::size_t n = 0; n < zones_.size(); ++n, ++it) {
    if (it == zones_.end()) it = zones_.begin();
    if (!it->second.closed && it->second.free != 0 && !visit(it->first, it->second)) return;
  }
}

std::optional<ZoneId> SpaceMap::next_clean(const Front& front) const {
  if (clean_.empty()) return std::nullopt;
  const auto next = front.zone ? clean_.upper_bound(*front.zone) : clean_.begin();
  return next == clean_.end() ? *clean_.begin() : *next;
}

/// In order of preference: the next zone that is three quarters holes; one without holes, while an
/// eighth of all zones is left to long writes; the next that is half holes; any without; the best.
bool SpaceMap::choose_for_small() {
  const auto clean = next_clean(small_);
  const bool may_take_clean = clean_.size() > std::max(kCleanAhead, zones_.size() / 8);
  std::optional<ZoneId> airy, half, best;
  std::uint32_t most = 0;
  std::size_t seen = 0;
  for_each_open(small_, [&](ZoneId id, const Zone& zone) {
    if (zone.free > most) best = id, most = zone.free;
    if (!is_clean(zone) && id != long_.zone) {
      if (zone.free >= geometry_.zone_blocks / 4 * 3) airy = id;
      if (!half && zone.free >= geometry_.zone_blocks / 2) half = id;
    }
    return !airy && !(++seen >= kLookAhead && (may_take_clean || half));
  });
  if (airy) {
    small_ = {airy};
  } else if (may_take_clean) {
    small_ = {clean};
  } else {
    small_ = {half ? half : clean ? clean : best};
  }
  return small_.zone.has_value();
}

/// The next zone without holes; without one, the best of the next.
bool SpaceMap::choose_for_long() {
  wants_clean_ = clean_.size() <= kCleanAhead;  // one of them is taken now
  if (const auto clean = next_clean(long_)) {
    leave(*clean);
    long_ = {clean, 0, true};
    return true;
  }
  std::optional<ZoneId> best;
  std::uint32_t most = 0;
  std::size_t seen = 0;
  for_each_open(long_, [&](ZoneId id, const Zone& zone) {
    if (zone.free > most) best = id, most = zone.free;
    return ++seen < kLookAhead || most < geometry_.zone_blocks / 2;
  });
  long_ = {best};
  return best.has_value();
}

std::optional<Extent> SpaceMap::next_run(Front& front, std::uint32_t blocks_max) {
  Zone& zone = zones_.at(*front.zone);
  if (zone.free == 0) return std::nullopt;
  auto& cursor = front.cursor;
  const auto busy_word = [&](std::uint32_t w) {
    return zone.used[w] | (zone.held ? (*zone.held)[w] : 0);
  };
  while (cursor < geometry_.zone_blocks) {
    const std::uint64_t busy = busy_word(cursor / 64) >> (cursor % 64);
    if (busy & 1) {
      // Skip to the next free bit of this word, or to the next word.
      const auto skip = static_cast<std::uint32_t>(std::countr_one(busy));
      cursor += std::min(skip, 64 - cursor % 64);
      continue;
    }
    const std::uint32_t first = cursor;
    while (cursor < geometry_.zone_blocks && cursor - first < blocks_max &&
           !((busy_word(cursor / 64) >> (cursor % 64)) & 1)) {
      ++cursor;
    }
    const Extent run{PoolBlock{geometry_.zone_start(*front.zone).value + first}, cursor - first};
    before_change(run.start, run.count);
    for (std::uint32_t bit = first; bit < cursor; ++bit) set(zone.used, bit);
    take_free(zone, run.count);
    used_ += run.count;
    return run;
  }
  return std::nullopt;
}

std::optional<Extent> SpaceMap::allocate(std::uint32_t blocks_max, std::uint32_t together) {
  CHECK(blocks_max > 0);
  if (free_ == 0) return std::nullopt;
  const bool is_long = (together != 0 ? together : blocks_max) >= kLongBlocks;
  Front& front = is_long ? long_ : small_;
  // A long write that had to fill holes goes on in a zone without them as soon as there is one.
  const bool can_do_better = is_long && !front.was_clean && !clean_.empty();
  std::optional<Extent> run;
  if (front.zone && !can_do_better) run = next_run(front, blocks_max);
  if (!run && (is_long ? choose_for_long() : choose_for_small())) run = next_run(front, blocks_max);
  if (run && is_long) long_blocks_ += run->count;
  return run;
}

void SpaceMap::undo_allocate(Extent extent) {
  before_change(extent.start, extent.count);
  for (std::uint32_t i = 0; i < extent.count; ++i) {
    std::uint32_t bit;
    const PoolBlock block{extent.start.value + i};
    Zone& zone = zone_of(block, bit);
    CHECK(test(zone.used, bit));
    clear(zone.used, bit);
    add_free(zone, 1);
  }
  used_ -= extent.count;
}

void SpaceMap::release(PoolBlock block) {
  if (!is_used(block)) {
    if (!contradiction_) contradiction_ = block;
    return;
  }
  std::uint32_t bit;
  Zone& zone = zone_of(block, bit);
  before_change(block, 1);
  clear(zone.used, bit);
  if (!zone.held) zone.held = std::make_unique<Bits>(zone.used.size(), 0);
  set(*zone.held, bit);
  --used_;
  ++held_;
}

void SpaceMap::commit_released() {
  if (held_ == 0) return;
  for (auto& [id, zone] : zones_) {
    if (!zone.held) continue;
    std::uint32_t released = 0;
    for (auto word : *zone.held) released += static_cast<std::uint32_t>(std::popcount(word));
    add_free(zone, released);
    held_ -= released;
    zone.held.reset();
  }
  CHECK(held_ == 0);
}

bool SpaceMap::mark_used(Extent extent) {
  for (std::uint32_t i = 0; i < extent.count; ++i) {
    const PoolBlock block{extent.start.value + i};
    auto it = zones_.find(geometry_.zone_of(block));
    if (it == zones_.end()) return false;
    const auto bit = static_cast<std::uint32_t>(block.value % geometry_.zone_blocks);
    if (test(it->second.used, bit)) return false;
    before_change(block, 1);
    set(it->second.used, bit);
    take_free(it->second, 1);
    ++used_;
  }
  return true;
}

bool SpaceMap::is_used(PoolBlock block) const {
  std::uint32_t bit;
  const Zone* zone = find_zone(block, bit);
  return zone != nullptr && test(zone->used, bit);
}

bool SpaceMap::load_page(std::uint32_t index, std::span<const std::byte> bits) {
  const std::uint64_t base = std::uint64_t{index} * format::kBitsPerBitmapPage;
  // Zones and pages are both multiples of 64 blocks, so a word lies in one zone.
  for (std::uint32_t w = 0; w < bits.size() / 8; ++w) {
    const std::uint64_t word = format::load_le(bits.data() + 8 * w, 8);
    if (word == 0) continue;
    const PoolBlock first{base + 64 * std::uint64_t{w}};
    const auto it = zones_.find(geometry_.zone_of(first));
    if (it == zones_.end()) return false;
    auto& used = it->second.used[first.value % geometry_.zone_blocks / 64];
    if (used != 0) return false;
    used = word;
    const auto count = static_cast<std::uint32_t>(std::popcount(word));
    take_free(it->second, count);
    used_ += count;
  }
  return true;
}

void SpaceMap::store_page(std::uint32_t index, std::span<std::byte> bits) const {
  std::memset(bits.data(), 0, bits.size());
  const std::uint64_t base = std::uint64_t{index} * format::kBitsPerBitmapPage;
  const std::uint64_t end = base + format::kBitsPerBitmapPage;
  // Zones and pages are both multiples of 64 blocks, so whole words can be copied.
  auto it = zones_.lower_bound(geometry_.zone_of(PoolBlock{base}));
  for (; it != zones_.end() && geometry_.zone_start(it->first).value < end; ++it) {
    const std::uint64_t start = geometry_.zone_start(it->first).value;
    for (std::uint32_t w = 0; w < it->second.used.size(); ++w) {
      const std::uint64_t block = start + 64 * std::uint64_t{w};
      if (block < base || block >= end) continue;
      std::memcpy(bits.data() + (block - base) / 8, &it->second.used[w], 8);
    }
  }
}

std::vector<std::uint32_t> SpaceMap::freeze() {
  CHECK(!frozen_);
  frozen_ = true;
  long_blocks_ = 0;
  std::vector<std::uint32_t> out(dirty_pages_.begin(), dirty_pages_.end());
  dirty_pages_.clear();
  return out;
}

void SpaceMap::frozen_page(std::uint32_t index, std::span<std::byte> bits) const {
  auto it = frozen_pages_.find(index);
  if (it == frozen_pages_.end()) {
    store_page(index, bits);
  } else {
    std::memcpy(bits.data(), it->second.data(), bits.size());
  }
}

}  // namespace tandem::store
