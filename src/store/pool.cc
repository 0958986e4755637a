#include "store/pool.h"

#include <algorithm>

#include "format/bytes.h"
#include "store/group.h"
#include "tandem/base/log.h"

namespace tandem::store {
namespace {

using format::ConstPage;
using format::Page;

constexpr Nanoseconds kRefusedPause = std::chrono::seconds(5);
constexpr Nanoseconds kPreparingTime = std::chrono::milliseconds(500);
constexpr const char* kCure =
    ". Nothing of it was changed: 'tandem-inspect verify' on the pool tells what is left (daemon "
    "stopped); promote the mirror if there is one";

Task<Result<IoBuffer>> read_block(BlockDevice& device, PoolBlock at) {
  IoBuffer page = IoBuffer::on_heap(kBlockBytes);
  IoBatch io(device);
  io.read(at.value * kBlockBytes, page.bytes());
  Status read = co_await io.run();
  if (!read) co_return Error(std::move(read.error()));
  co_return page;
}

Task<Status> flush(BlockDevice& device) {
  IoBatch io(device);
  io.flush();
  co_return co_await io.run();
}

}  // namespace

Task<Status> Pool::format(Runtime runtime, BlockDevice& device, FormatOptions options) {
  if (options.zone_bytes % (64 * kBlockBytes) != 0 || options.zone_bytes == 0) {
    co_return Error{ErrorCode::kInvalid, "zone size must be a multiple of 256 KiB"};
  }
  format::Superblock superblock;
  superblock.pool = Uuid::from_random(runtime.random.next(), runtime.random.next());
  superblock.blocks = device.size_bytes() / kBlockBytes;
  superblock.zone_blocks = static_cast<std::uint32_t>(options.zone_bytes / kBlockBytes);
  const std::uint64_t zones = superblock.blocks / superblock.zone_blocks;
  if (zones > UINT32_MAX / 2) {
    co_return Error{ErrorCode::kInvalid, device.name() + ": too large for zones of this size"};
  }
  superblock.zones = static_cast<std::uint32_t>(zones);
  superblock.created = runtime.clock.utc();
  if (superblock.zones == 0 || superblock.first_zone().value + 4 > superblock.zones) {
    co_return Error{ErrorCode::kInvalid,
                    device.name() +
                        ": too small for a pool: it needs room for at least 4 zones of " +
                        std::to_string(options.zone_bytes >> 20) +
                        " MiB beside the pool's own tables; make it larger or the zones smaller"};
  }
  // Anchors and table first: a superblock that is there promises that they are.
  IoBuffer page = IoBuffer::on_heap(kBlockBytes);
  for (std::uint32_t slot = 0; slot < format::kGroupSlots; ++slot) {
    for (std::uint32_t copy = 0; copy < 2; ++copy) {
      format::Anchor anchor;
      anchor.pool = superblock.pool;
      anchor.slot = slot;
      format::encode_anchor(Page(page.bytes()), anchor);
      IoBatch io(device);
      io.write(superblock.anchor_at(slot, copy).value * kBlockBytes, page.bytes());
      Status written = co_await io.run();
      if (!written) co_return written;
    }
  }
  for (std::uint32_t index = 0; index < superblock.table_pages(); ++index) {
    for (std::uint32_t copy = 0; copy < 2; ++copy) {
      format::ZoneTablePage table{index, copy, {}};
      table.entries.assign(format::kZonesPerTablePage,
                           format::ZoneEntry{.prepared = options.prepared});
      format::encode_zone_table(Page(page.bytes()), superblock.pool, table);
      IoBatch io(device);
      io.write(superblock.table_at(index, copy).value * kBlockBytes, page.bytes());
      Status written = co_await io.run();
      if (!written) co_return written;
    }
  }
  Status flushed = co_await store::flush(device);
  if (!flushed) co_return flushed;
  format::encode_superblock(Page(page.bytes()), superblock);
  IoBatch io(device);
  io.write(0, page.bytes());
  io.write(kBlockBytes, page.bytes());
  Status written = co_await io.run();
  if (!written) co_return written;
  co_return co_await store::flush(device);
}

Task<Result<bool>> Pool::looks_formatted(BlockDevice& device) {
  if (device.size_bytes() < 2 * kBlockBytes) co_return false;
  for (std::uint64_t block = 0; block < 2; ++block) {
    auto page = co_await read_block(device, PoolBlock{block});
    if (!page) co_return Error(std::move(page.error()));
    if (format::load_le(page->data(), 4) == 0x42534454) co_return true;
  }
  co_return false;
}

Pool::Pool(Runtime runtime, BlockDevice& device, BufferPool& buffers, StoreOptions options,
           const format::Superblock& superblock)
    : runtime_(runtime),
      device_(device),
      buffers_(buffers),
      options_(options),
      superblock_(superblock),
      cache_(device, options.map_cache_bytes) {}

Pool::~Pool() = default;

Task<Result<std::unique_ptr<Pool>>> Pool::open(Runtime runtime, BlockDevice& device,
                                               BufferPool& buffers, StoreOptions options) {
  if (device.size_bytes() < 2 * kBlockBytes) {
    co_return Error{ErrorCode::kCorrupt,
                    device.name() +
                        ": too small to be a pool; check the path, and whether the "
                        "file was truncated"};
  }
  Result<format::Superblock> superblock = Error{ErrorCode::kCorrupt, ""};
  for (std::uint64_t block = 0; block < 2 && !superblock; ++block) {
    auto page = co_await read_block(device, PoolBlock{block});
    if (!page) co_return Error(std::move(page.error()));
    superblock = format::decode_superblock(ConstPage(page->bytes()));
  }
  if (!superblock) {
    const bool damaged = superblock.error().code == ErrorCode::kCorrupt;
    co_return Error{superblock.error().code,
                    device.name() + ": " + superblock.error().message + " (both copies)" +
                        (damaged ? ". If this is the right path and nothing on it is wanted, "
                                   "create the pool anew"
                                 : "")};
  }
  if (superblock->blocks * kBlockBytes > device.size_bytes()) {
    co_return Error{ErrorCode::kCorrupt,
                    device.name() + ": is " + std::to_string(device.size_bytes()) +
                        " bytes, but its pool was made with " +
                        std::to_string(superblock->blocks * kBlockBytes) +
                        ": the file was truncated; restore its size before anything else"};
  }
  std::unique_ptr<Pool> pool(new Pool(runtime, device, buffers, options, *superblock));
  Status table = co_await pool->load_zone_table();
  if (!table) co_return Error(std::move(table.error()));
  // A damaged copy may have been the newer one; then a zone of a group that cannot be opened looks
  // free, and must not be given away.
  std::set<ZoneId> withheld;
  if (pool->table_is_doubtful_) withheld.swap(pool->free_);
  Status groups = co_await pool->open_groups();
  if (!groups) co_return Error(std::move(groups.error()));
  if (pool->broken_.empty()) {
    pool->free_.merge(withheld);
  } else if (!withheld.empty()) {
    log_event(Level::kWarn, "pool.zones-withheld",
              "pool={} zones={} reason=\"a copy of the zone table is damaged and a group cannot be "
              "opened: no free zone is given out until that is mended\"",
              device.name(), withheld.size());
  }
  co_return pool;
}

Task<Status> Pool::load_zone_table() {
  for (std::uint32_t index = 0; index < superblock_.table_pages(); ++index) {
    Result<format::ZoneTablePage> newest = Error{ErrorCode::kCorrupt, ""};
    for (std::uint32_t copy = 0; copy < 2; ++copy) {
      auto page = co_await read_block(device_, superblock_.table_at(index, copy));
      if (!page) co_return Error(std::move(page.error()));
      auto table = format::decode_zone_table(ConstPage(page->bytes()), superblock_.pool);
      if (table && table->index != index) {
        table = Error{ErrorCode::kCorrupt, "zone table page is not where it belongs"};
      }
      table_is_doubtful_ |= !table.has_value();
      if (!newest || (table && table->sequence > newest->sequence)) newest = std::move(table);
    }
    if (!newest) {
      co_return Error{newest.error().code, device_.name() + ": " + newest.error().message +
                                               " (both copies of page " + std::to_string(index) +
                                               ")" + kCure};
    }
    table_.push_back(std::move(*newest));
  }
  for (std::uint32_t z = superblock_.first_zone().value; z < superblock_.zones; ++z) {
    if (entry_of(ZoneId{z}).owner == format::kZoneFree) add_free(ZoneId{z});
  }
  co_return ok();
}

Task<Result<format::Anchor>> Pool::read_anchor(std::uint32_t slot) {
  Result<format::Anchor> newest = Error{ErrorCode::kCorrupt, ""};
  for (std::uint32_t copy = 0; copy < 2; ++copy) {
    auto page = co_await read_block(device_, superblock_.anchor_at(slot, copy));
    if (!page) co_return Error(std::move(page.error()));
    auto anchor = format::decode_anchor(ConstPage(page->bytes()));
    if (anchor && (anchor->slot != slot || anchor->pool != superblock_.pool)) {
      anchor = Error{ErrorCode::kCorrupt, "group anchor is not where it belongs"};
    }
    if (!newest || (anchor && anchor->sequence > newest->sequence)) newest = std::move(anchor);
  }
  co_return newest;
}

Task<Status> Pool::open_groups() {
  for (std::uint32_t slot = 0; slot < format::kGroupSlots; ++slot) {
    auto anchor = co_await read_anchor(slot);
    if (!anchor) {
      anchor.error().message += kCure;
      log_event(Level::kError, "group.broken", "pool={} slot={} error=\"{}\"", device_.name(), slot,
                anchor.error().message);
      slots_used_.insert(slot);
      broken_.push_back({slot, Uuid{}, std::move(anchor.error())});
      continue;
    }
    if (!anchor->live) {
      // Left over from a crash while a group was made or deleted.
      auto orphans = zones_of(slot);
      if (!orphans.empty()) {
        Status returned = co_await return_zones(slot, std::move(orphans));
        if (!returned) co_return returned;
      }
      continue;
    }
    slots_used_.insert(slot);
    auto group = co_await Group::open(*this, *anchor);
    if (!group) {
      group.error().message += kCure;
      log_event(Level::kError, "group.broken", "pool={} group={} error=\"{}\"", device_.name(),
                anchor->group.text(), group.error().message);
      cache_.drop_group(static_cast<std::uint16_t>(slot));
      broken_.push_back({slot, anchor->group, std::move(group.error())});
      continue;
    }
    groups_.push_back(std::move(*group));
  }
  // What a group that cannot be opened was cloned from is not known.
  if (broken_.empty()) count_clones();
  co_return ok();
}

/// A crash between a clone and the count of its origin leaves that too high.
void Pool::count_clones() {
  for (const auto& origin : groups_) {
    std::map<format::SnapshotId, std::uint32_t> clones;
    for (const auto& group : groups_) {
      if (group->origin() == origin->identity().group) ++clones[group->origin_state()];
    }
    origin->set_clones(std::move(clones));
  }
}

PoolUse Pool::use() const {
  return {.zones_total = superblock_.zones - superblock_.first_zone().value,
          .zones_free = free_.size() + aside_.size(),
          .zones_prepared = prepared_since_.size()};
}

format::ZoneEntry& Pool::entry_of(ZoneId zone) {
  return table_[zone.value / format::kZonesPerTablePage]
      .entries[zone.value % format::kZonesPerTablePage];
}

const format::ZoneEntry& Pool::entry_of(ZoneId zone) const {
  return table_[zone.value / format::kZonesPerTablePage]
      .entries[zone.value % format::kZonesPerTablePage];
}

void Pool::add_free(ZoneId zone) {
  free_.insert(zone);
  if (entry_of(zone).prepared) prepared_since_[zone] = runtime_.clock.monotonic();
}

std::vector<ZoneId> Pool::zones_of(std::uint32_t slot) const {
  std::vector<ZoneId> out;
  for (std::uint32_t z = superblock_.first_zone().value; z < superblock_.zones; ++z) {
    if (owns(slot, ZoneId{z}) && taking_.count(ZoneId{z}) == 0) out.push_back(ZoneId{z});
  }
  return out;
}

bool Pool::owns(std::uint32_t slot, ZoneId zone) const {
  if (zone.value < superblock_.first_zone().value || zone.value >= superblock_.zones) return false;
  return entry_of(zone).owner == slot;
}

Task<Status> Pool::write_table_pages(std::set<std::uint32_t> pages) {
  auto lock = co_await table_lock_.lock();
  std::vector<IoBuffer> buffers;
  IoBatch io(device_);
  for (auto index : pages) {
    auto& table = table_[index];
    ++table.sequence;
    buffers.push_back(IoBuffer::on_heap(kBlockBytes));
    format::encode_zone_table(Page(buffers.back().bytes()), superblock_.pool, table);
    const auto copy = static_cast<std::uint32_t>(table.sequence % 2);
    io.write(superblock_.table_at(index, copy).value * kBlockBytes, buffers.back().bytes());
  }
  Status written = co_await io.run();
  if (!written) co_return written;
  co_return co_await flush();
}

Task<Status> Pool::flush() {
  if (flush_failed_) co_return *flush_failed_;
  Status done = co_await store::flush(device_);
  if (flush_failed_) co_return *flush_failed_;
  if (done) co_return done;
  flush_failed_ = done.error();
  flush_failed_->message +=
      "; data that was not yet durable may be lost: check the device, then restart";
  for (const auto& group : groups_) group->stop(*flush_failed_);
  co_return *flush_failed_;
}

Task<Status> Pool::prepare_zone(ZoneId zone) {
  IoBatch io(device_);
  io.zero(superblock_.zone_start(zone).value * kBlockBytes,
          std::uint64_t{superblock_.zone_blocks} * kBlockBytes);
  co_return co_await io.run();
}

/// The filesystem below had no room for all of these: what it did take is returned, so that its
/// other users can go on, and nothing is asked of it for a while.
Task<void> Pool::give_back(std::vector<ZoneId> zones) {
  refused_until_ = runtime_.clock.monotonic() + kRefusedPause;
  log_event(Level::kWarn, "pool.starved", "pool={} reason=\"the filesystem below it is full\"",
            device_.name());
  IoBatch io(device_);
  discard(io, zones);
  (void)co_await io.run();
}

void Pool::discard(IoBatch& io, const std::vector<ZoneId>& zones) const {
  for (auto zone : zones) {
    io.discard(superblock_.zone_start(zone).value * kBlockBytes,
               std::uint64_t{superblock_.zone_blocks} * kBlockBytes);
  }
}

Task<Result<ZoneId>> Pool::take_zone(std::uint32_t slot) {
  // A writer waits for the last ones rather than be told that there are none.
  while (free_.empty() && !aside_.empty()) co_await aside_again_.wait();
  if (free_.empty() || zones_free() == 0) {
    co_return Error{ErrorCode::kNoSpace, device_.name() + ": the pool is full"};
  }
  // One that has to be written first only when there is no other.
  const ZoneId zone = prepared_since_.empty() ? *free_.begin() : prepared_since_.begin()->first;
  free_.erase(zone);
  prepared_since_.erase(zone);
  taking_.insert(zone);
  Status done = ok();
  if (!entry_of(zone).prepared) done = co_await prepare_zone(zone);
  if (done) {
    entry_of(zone) = {static_cast<std::uint16_t>(slot), true};
    std::set<std::uint32_t> pages{zone.value / format::kZonesPerTablePage};
    done = co_await write_table_pages(std::move(pages));
  }
  taking_.erase(zone);
  if (!done) {
    entry_of(zone).owner = format::kZoneFree;
    add_free(zone);
    if (done.error().code == ErrorCode::kNoSpace) co_await give_back(std::vector<ZoneId>(1, zone));
    co_return Error(std::move(done.error()));
  }
  co_return zone;
}

Task<Status> Pool::return_zones(std::uint32_t slot, std::vector<ZoneId> zones) {
  std::set<std::uint32_t> pages;
  for (auto zone : zones) {
    CHECK(owns(slot, zone));
    entry_of(zone).owner = format::kZoneFree;
    pages.insert(zone.value / format::kZonesPerTablePage);
  }
  Status written = co_await write_table_pages(std::move(pages));
  if (!written) co_return written;
  // Only now may another group take them: on disk they are nobody's.
  for (auto zone : zones) add_free(zone);
  co_return ok();
}

/// Those that have been free for long enough, but for the reserve: the lowest stay, because they
/// are taken first. Bounded, so that the table is written for a few at once and nobody waits long.
std::vector<ZoneId> Pool::zones_to_return() const {
  constexpr std::size_t kAtOnce = 16;
  std::vector<ZoneId> zones;
  const Nanoseconds now = runtime_.clock.monotonic();
  std::size_t left = prepared_since_.size();
  for (auto it = prepared_since_.rbegin(); it != prepared_since_.rend(); ++it) {
    if (left <= options_.return_reserve_zones || zones.size() == kAtOnce) break;
    if (now - it->second < *options_.return_after) continue;
    zones.push_back(it->first);
    --left;
  }
  return zones;
}

/// The table says first, durably, that they are not prepared: a crash in front of the discard costs
/// writing them once more, and none leaves a hole that is taken for prepared.
Task<void> Pool::return_free_zones() {
  if (!options_.return_after || !aside_.empty() || flush_failed_) co_return;
  aside_ = zones_to_return();
  if (aside_.empty()) co_return;
  std::set<std::uint32_t> pages;
  for (auto zone : aside_) {
    free_.erase(zone);
    prepared_since_.erase(zone);
    entry_of(zone).prepared = false;
    pages.insert(zone.value / format::kZonesPerTablePage);
  }
  Status written = co_await write_table_pages(std::move(pages));
  if (written) {
    IoBatch io(device_);
    discard(io, aside_);
    written = co_await io.run();
  }
  const auto zones = std::exchange(aside_, {});
  for (auto zone : zones) add_free(zone);
  log_event(written ? Level::kDebug : Level::kWarn, "pool.returned",
            "pool={} zones={} error=\"{}\"", device_.name(), zones.size(),
            written ? "" : written.error().message);
  aside_again_.notify_all();
}

std::vector<ZoneId> Pool::zones_to_prepare() const {
  constexpr std::size_t kAtOnce = 4;
  std::vector<ZoneId> zones;
  if (prepared_since_.size() == free_.size()) return zones;  // as in every second of a long life
  for (auto it = free_.begin(); it != free_.end() && zones.size() < kAtOnce; ++it)
    if (!entry_of(*it).prepared) zones.push_back(*it);
  return zones;
}

/// The table says last that they are prepared, and durably: the flush in front of that is theirs.
Task<void> Pool::prepare_free_zones() {
  if (!options_.prepare_all || !aside_.empty() || flush_failed_) co_return;
  const auto end = runtime_.clock.monotonic() + kPreparingTime;
  while (runtime_.clock.monotonic() < end && zones_free() != 0 && !flush_failed_) {
    aside_ = zones_to_prepare();
    if (aside_.empty()) co_return;
    for (auto zone : aside_) free_.erase(zone);
    Status done = ok();
    for (auto zone : aside_) {
      done = co_await prepare_zone(zone);
      if (!done) break;
    }
    if (done) done = co_await flush();
    if (done) {
      std::set<std::uint32_t> pages;
      for (auto zone : aside_) {
        entry_of(zone).prepared = true;
        pages.insert(zone.value / format::kZonesPerTablePage);
      }
      done = co_await write_table_pages(std::move(pages));
    }
    if (!done) {
      options_.prepare_all = false;
      log_event(Level::kWarn, "pool.unprepared",
                "pool={} reason=\"{}\" effect=\"zones are prepared when they are needed\"",
                device_.name(), done.error().message);
      // While nobody can take them.
      if (done.error().code == ErrorCode::kNoSpace) co_await give_back(aside_);
    }
    const auto zones = std::exchange(aside_, {});
    for (auto zone : zones) add_free(zone);
    aside_again_.notify_all();
    if (!done) co_return;
  }
}

Task<Status> Pool::write_anchor(format::Anchor anchor) {
  anchor.pool = superblock_.pool;
  IoBuffer page = IoBuffer::on_heap(kBlockBytes);
  // Both copies, one after the other: what only the older one led to is about to be reused.
  for (int copies = 0; copies < 2; ++copies, ++anchor.sequence) {
    format::encode_anchor(Page(page.bytes()), anchor);
    const auto copy = static_cast<std::uint32_t>(anchor.sequence % 2);
    IoBatch io(device_);
    io.write(superblock_.anchor_at(anchor.slot, copy).value * kBlockBytes, page.bytes());
    Status written = co_await io.run();
    if (!written) co_return written;
    Status flushed = co_await flush();
    if (!flushed) co_return flushed;
  }
  co_return ok();
}

/// Takes a slot that no group uses; its anchor, to be written over.
Task<Result<format::Anchor>> Pool::free_anchor(std::string_view name) {
  if (find(name) != nullptr) {
    co_return Error{ErrorCode::kExists, "group " + std::string(name) + " exists already"};
  }
  std::uint32_t slot = 0;
  while (slots_used_.count(slot) != 0) ++slot;
  if (slot == format::kGroupSlots) {
    co_return Error{ErrorCode::kNoSpace, "the pool holds " + std::to_string(format::kGroupSlots) +
                                             " groups already; put the volume into one of them"};
  }
  slots_used_.insert(slot);
  auto previous = co_await read_anchor(slot);
  format::Anchor anchor;
  anchor.slot = slot;
  anchor.sequence = previous ? previous->sequence : 0;
  anchor.group = Uuid::from_random(runtime_.random.next(), runtime_.random.next());
  co_return anchor;
}

Task<Result<Group*>> Pool::create_group(std::string name, Uuid id, Role role,
                                        ReplicationMode mode) {
  auto anchor = co_await free_anchor(name);
  if (!anchor) co_return Error(std::move(anchor.error()));
  if (!id.is_nil()) anchor->group = id;
  auto group = co_await Group::create(*this, *anchor, std::move(name), role, mode);
  if (!group) {
    slots_used_.erase(anchor->slot);
    co_return Error(std::move(group.error()));
  }
  groups_.push_back(std::move(*group));
  co_return groups_.back().get();
}

Task<Result<Group*>> Pool::clone_group(Group& origin, std::string snapshot, std::string name) {
  auto anchor = co_await free_anchor(name);
  if (!anchor) co_return Error(std::move(anchor.error()));
  auto lent = co_await origin.lend(std::move(snapshot));
  if (!lent) {
    slots_used_.erase(anchor->slot);
    co_return Error(std::move(lent.error()));
  }
  const auto state = lent->state.id;
  auto group = co_await Group::create_clone(*this, *anchor, std::move(name), std::move(*lent));
  if (!group) {
    slots_used_.erase(anchor->slot);
    (void)co_await origin.take_back(state);
    co_return Error(std::move(group.error()));
  }
  groups_.push_back(std::move(*group));
  co_return groups_.back().get();
}

Task<Status> Pool::delete_group(std::string name) {
  Group* group = find(name);
  if (group == nullptr) co_return Error{ErrorCode::kNotFound, "no group " + name + " here"};
  if (group->has_clones()) {
    std::string clones;
    for (const auto& g : groups_) {
      if (g->origin() == group->identity().group) clones += " " + g->identity().name;
    }
    co_return Error{ErrorCode::kRefused, "group " + name + " has clones that need its blocks:" +
                                             clones + "; delete them first"};
  }
  const std::uint32_t slot = group->slot();
  const Uuid origin = group->origin();
  const auto origin_state = group->origin_state();
  co_await group->close(Group::Close::kAbandon);
  Status erased = co_await write_anchor(group->anchor_of_nothing());
  if (!erased) co_return erased;
  auto it =
      std::find_if(groups_.begin(), groups_.end(), [&](const auto& g) { return g.get() == group; });
  CHECK(it != groups_.end());
  groups_.erase(it);
  Status returned = co_await return_zones(slot, zones_of(slot));
  slots_used_.erase(slot);
  if (!returned) co_return returned;
  Group* lender = find(origin);
  if (lender == nullptr) co_return ok();
  co_return co_await lender->take_back(origin_state);
}

Group* Pool::find(std::string_view name) const {
  for (const auto& g : groups_) {
    if (g->identity().name == name) return g.get();
  }
  return nullptr;
}

Group* Pool::find(const Uuid& id) const {
  for (const auto& g : groups_) {
    if (g->identity().group == id) return g.get();
  }
  return nullptr;
}

std::vector<Group*> Pool::groups() const {
  std::vector<Group*> out;
  for (const auto& g : groups_) out.push_back(g.get());
  std::sort(out.begin(), out.end(),
            [](Group* a, Group* b) { return a->identity().name < b->identity().name; });
  return out;
}

Task<void> Pool::close() {
  for (auto& group : groups_) co_await group->close(Group::Close::kCheckpoint);
}

}  // namespace tandem::store
