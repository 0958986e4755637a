#include "store/log_zones.h"

#include <algorithm>

namespace tandem::store {

void LogZones::restore(std::vector<format::LogZone> zones, PoolBlock next) {
  zones_.assign(zones.begin(), zones.end());
  next_ = next;
}

LogZones::Place LogZones::take(Lsn last) {
  CHECK(can_place());
  Place place{next_, ZoneId{}};
  if (is_last_of_zone(next_)) {
    place.next_zone = *spare_;
    spare_.reset();
  }
  CHECK(follow(place.next_zone, last));
  return place;
}

bool LogZones::follow(ZoneId next_zone, Lsn last) {
  if (!is_last_of_zone(next_)) {
    next_ = next_.next();
    return true;
  }
  if (next_zone.value == 0) return false;
  zones_.push_back({next_zone, last.next()});
  next_ = geometry_.zone_start(next_zone);
  return true;
}

void LogZones::restart(Lsn point) {
  CHECK(spare_);
  for (auto& z : zones_) z.first = Lsn{1};
  zones_.push_back({*spare_, point.next()});
  next_ = geometry_.zone_start(*spare_);
  spare_.reset();
}

std::vector<ZoneId> LogZones::trimmable(Lsn keep_behind) const {
  std::vector<ZoneId> out;
  for (std::size_t i = 0; i + 1 < zones_.size(); ++i) {
    if (zones_[i + 1].first > keep_behind.next()) break;
    out.push_back(zones_[i].zone);
  }
  return out;
}

void LogZones::trim(std::size_t count) {
  CHECK(count < zones_.size());
  zones_.erase(zones_.begin(), zones_.begin() + static_cast<std::ptrdiff_t>(count));
}

std::uint64_t LogZones::pages() const {
  return (zones_.size() - 1) * std::uint64_t{geometry_.zone_blocks} +
         next_.value % geometry_.zone_blocks;
}

bool LogZones::contains(ZoneId zone) const {
  return spare_ == zone ||
         std::any_of(zones_.begin(), zones_.end(), [&](const auto& z) { return z.zone == zone; });
}

LogZones::Span LogZones::zone_for(Lsn after) const {
  std::size_t i = zones_.size() - 1;
  while (i > 0 && zones_[i].first > after.next()) --i;
  const bool last = i + 1 == zones_.size();
  return {geometry_.zone_start(zones_[i].zone),
          last ? static_cast<std::uint32_t>(next_.value % geometry_.zone_blocks)
               : geometry_.zone_blocks,
          last};
}

}  // namespace tandem::store
