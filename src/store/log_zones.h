// LogZones: where a group's log pages lie, and where the next one goes.
//
// Log pages fill whole zones front to back, so that recovery and catch-up read them in long runs
// and trimming the log gives whole zones back. The last page of a zone names the next zone, so a
// spare zone must be at hand before it is written.
//
// Thread: the group's reactor. No I/O here.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "format/checkpoint.h"
#include "format/pool_layout.h"

namespace tandem::store {

class LogZones {
 public:
  explicit LogZones(const format::Superblock& geometry) : geometry_(geometry) {}

  /// `zones` as in a descriptor; the page behind them goes to `next`.
  void restore(std::vector<format::LogZone> zones, PoolBlock next);
  void give_spare(ZoneId zone) {
    CHECK(!spare_);
    spare_ = zone;
  }
  bool has_spare() const { return spare_.has_value(); }
  std::optional<ZoneId> spare() const { return spare_; }

  /// Where the next page goes.
  PoolBlock next() const { return next_; }
  bool can_place() const { return spare_ || !is_last_of_zone(next_); }
  struct Place {
    PoolBlock at;
    ZoneId next_zone;  // goes into the page; 0 unless this is the last of its zone
  };
  /// Takes the next place for a page whose records end at `last`; can_place() must hold.
  Place take(Lsn last);
  /// Recovery: a whole page was found at next(); its successor lies as the page says. False when it
  /// names no zone though it is the last.
  [[nodiscard]] bool follow(ZoneId next_zone, Lsn last);

  /// Position in front of the oldest record still here.
  Lsn start() const { return Lsn{zones_.front().first.value - 1}; }
  std::vector<format::LogZone> zones() const { return {zones_.begin(), zones_.end()}; }
  /// Zones whose records are all at or before `keep_behind`, oldest first; the current zone stays.
  std::vector<ZoneId> trimmable(Lsn keep_behind) const;
  /// Forgets the oldest `count` zones.
  void trim(std::size_t count);
  std::uint64_t pages() const;
  bool contains(ZoneId zone) const;

  /// The log begins anew behind `point`, in the spare zone, which must be there. The old zones
  /// become trimmable.
  void restart(Lsn point);

  /// The first place of the zone that holds the record behind `after`, and how many pages of that
  /// zone are in use.
  struct Span {
    PoolBlock first;
    std::uint32_t pages = 0;
    bool last_zone = false;
  };
  Span zone_for(Lsn after) const;

 private:
  bool is_last_of_zone(PoolBlock at) const {
    return at.value % geometry_.zone_blocks == geometry_.zone_blocks - 1;
  }
  format::Superblock geometry_;
  std::deque<format::LogZone> zones_;  // oldest first; the last one is being filled
  PoolBlock next_;
  std::optional<ZoneId> spare_;
};

}  // namespace tandem::store
