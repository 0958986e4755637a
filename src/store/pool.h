// Pool: the space a node stores in. Owns the superblock, the zone table and the group slots.
//
// Thread: one reactor; a pool and all its groups live on it (decisions/0002).
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "format/pool_layout.h"
#include "store/map.h"
#include "tandem/base/buffer.h"
#include "tandem/log_point.h"
#include "tandem/port/block_device.h"
#include "tandem/port/executor.h"

namespace tandem::store {

class Group;

struct FormatOptions {
  std::uint64_t zone_bytes = 16 << 20;  // a multiple of 256 KiB
  /// What is below has a place for every block: no zone has to be written before it is used.
  bool prepared = false;
};

struct StoreOptions {
  std::size_t map_cache_bytes = 256 << 20;     // shared by all groups
  std::size_t recent_bytes_max = 64 << 20;     // per group with a mirror: records kept in memory
  std::uint32_t pages_in_flight_max = 4;       // log pages being written, per group
  std::uint64_t checkpoint_log_pages = 16384;  // a checkpoint starts at the latest after so many
  Nanoseconds flush_interval = std::chrono::seconds(1);  // background flush of an unflushed tail
  std::uint64_t flush_bytes = 128 << 20;  // or when it has grown so long, if not before
  // Zones that were free for so long go back to what is below the pool, but for a reserve of them
  // that stays prepared; nothing: none does.
  std::optional<Nanoseconds> return_after;
  std::size_t return_reserve_zones = 16;
  bool prepare_all = false;  // free zones are prepared long before they are taken; none goes back
};

struct PoolUse {
  std::uint64_t zones_total = 0;  // usable by groups
  std::uint64_t zones_free = 0;
  std::uint64_t zones_prepared = 0;  // of the free ones
};

class Pool {
 public:
  /// Writes a new, empty pool over the whole device, whatever it held: the caller asks first.
  static Task<Status> format(Runtime runtime, BlockDevice& device, FormatOptions options);
  /// True when the device starts with a superblock (even a damaged one) of Tandem.
  static Task<Result<bool>> looks_formatted(BlockDevice& device);
  /// Reads superblock and zone table and opens every group. A group that cannot be opened is kept,
  /// closed, with the reason: see broken_groups(). Errors: kCorrupt, kUnsupported, kIo.
  static Task<Result<std::unique_ptr<Pool>>> open(Runtime runtime, BlockDevice& device,
                                                  BufferPool& buffers, StoreOptions options);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  const format::Superblock& superblock() const { return superblock_; }
  PoolUse use() const;

  /// Makes an empty group with head 0; durable when it returns. `id` nil: a new identity.
  Task<Result<Group*>> create_group(std::string name, Uuid id, Role role, ReplicationMode mode);
  /// A clone: a new group, primary, whose volumes begin as a kept state of `origin` (a snapshot, a
  /// branch, a point) has them; in any role of the origin. Nothing is copied: blocks are shared
  /// until the clone overwrites them, and the state stays until the clone is deleted, also when
  /// its name is. Durable when it returns. Errors: kNotFound, kExists, kNoSpace.
  Task<Result<Group*>> clone_group(Group& origin, std::string snapshot, std::string name);
  /// Destroys a group's copy here; it must not serve. Its zones are free when this returns.
  /// kRefused: clones need it; says which.
  Task<Status> delete_group(std::string name);
  Group* find(std::string_view name) const;
  Group* find(const Uuid& id) const;
  std::vector<Group*> groups() const;  // by name
  struct BrokenGroup {
    std::uint32_t slot = 0;
    Uuid id;
    Error error;
  };
  const std::vector<BrokenGroup>& broken_groups() const { return broken_; }

  /// Gives zones that have been free for StoreOptions::return_after back to what is below the pool:
  /// a few at a time, call it now and then. Never on a write's way.
  Task<void> return_free_zones();
  /// With StoreOptions::prepare_all: prepares free zones for half a second at most, so that they
  /// take half of the disk's time when this is called once a second; the writes of the groups go
  /// on.
  Task<void> prepare_free_zones();

  /// Drains and checkpoints every group. Afterwards only the destructor may be called.
  Task<void> close();

  // --- for groups -----------------------------------------------------------------------------
  Runtime runtime() const { return runtime_; }
  BlockDevice& device() { return device_; }
  BufferPool& buffers() { return buffers_; }
  MapCache& cache() { return cache_; }
  const StoreOptions& options() const { return options_; }
  /// A zone for `slot`, prepared and entered in the zone table durably. kNoSpace: none is free.
  Task<Result<ZoneId>> take_zone(std::uint32_t slot);
  /// Strikes out zones that no durable checkpoint of `slot` needs.
  Task<Status> return_zones(std::uint32_t slot, std::vector<ZoneId> zones);
  std::vector<ZoneId> zones_of(std::uint32_t slot) const;
  bool owns(std::uint32_t slot, ZoneId zone) const;
  /// Zones that can be taken now; 0 for a while after the filesystem below refused to hold one.
  std::uint64_t zones_free() const {
    return runtime_.clock.monotonic() < refused_until_ ? 0 : free_.size() + aside_.size();
  }
  /// Makes every completed write durable. A flush that fails may have lost writes of any group, and
  /// the device reports that only once: every group stops, and no later flush succeeds.
  Task<Status> flush();
  /// Writes `anchor` over the older copy of its slot, and flushes: the moment of a checkpoint. Then
  /// over the other, as the next in sequence, so that damage to one copy never leads to a state
  /// whose blocks were reused.
  Task<Status> write_anchor(format::Anchor anchor);

 private:
  Pool(Runtime runtime, BlockDevice& device, BufferPool& buffers, StoreOptions options,
       const format::Superblock& superblock);
  Task<Result<format::Anchor>> free_anchor(std::string_view name);
  void count_clones();
  Task<Status> load_zone_table();
  Task<Status> open_groups();
  Task<Status> write_table_pages(std::set<std::uint32_t> pages);
  Task<Result<format::Anchor>> read_anchor(std::uint32_t slot);
  Task<Status> prepare_zone(ZoneId zone);
  Task<void> give_back(std::vector<ZoneId> zones);
  void discard(IoBatch& io, const std::vector<ZoneId>& zones) const;
  format::ZoneEntry& entry_of(ZoneId zone);
  const format::ZoneEntry& entry_of(ZoneId zone) const;
  void add_free(ZoneId zone);
  std::vector<ZoneId> zones_to_return() const;
  std::vector<ZoneId> zones_to_prepare() const;

  Runtime runtime_;
  BlockDevice& device_;
  BufferPool& buffers_;
  StoreOptions options_;
  format::Superblock superblock_;
  MapCache cache_;
  std::vector<format::ZoneTablePage> table_;
  bool table_is_doubtful_ = false;  // a copy of it failed its check when the pool was opened
  std::set<ZoneId> free_;
  std::map<ZoneId, Nanoseconds> prepared_since_;  // of the free and prepared: when they became free
  std::vector<ZoneId> aside_;     // free, and being given back to what is below or being prepared
  Condition aside_again_;         // they can be taken
  Nanoseconds refused_until_{0};  // the filesystem below the pool is full
  std::set<ZoneId> taking_;       // chosen, on their way into the table
  AsyncMutex table_lock_;         // one change of the table on disk at a time
  std::vector<std::shared_ptr<Group>> groups_;  // volume handles share them
  std::vector<BrokenGroup> broken_;
  std::optional<Error> flush_failed_;
  std::set<std::uint32_t> slots_used_;
};

}  // namespace tandem::store
