#include "inspect/verify_group.h"

namespace tandem::inspect {
namespace {

std::string lsn_text(Lsn lsn) { return "LSN " + std::to_string(lsn.value); }

}  // namespace

/// In front of the checkpoint: what a mirror that lags would be sent. Data of records up to the
/// horizon may have been reused.
void GroupVerifier::check_kept_log() {
  const Lsn horizon = group_.descriptor.data_horizon;
  const auto page = [&](const LogPageView& view) {
    for (const auto& placed : view.records) {
      if (placed.record.header.lsn <= horizon || !placed.record.has_data()) continue;
      const std::string place = name_ + ", " + lsn_text(placed.record.header.lsn);
      for (const auto& e : placed.extents) {
        for (std::uint32_t i = 0; i < e.count; ++i) {
          const PoolBlock block{e.start.value + i};
          if (block.value < pool_.blocks() && used_.has(block)) continue;
          findings_.problem("log", place,
                            "its data in pool block " + std::to_string(block.value) +
                                " may be overwritten, though a mirror may still ask for it");
        }
      }
      if (!options_.data) continue;
      auto data = read_record_data(pool_, placed);
      if (!data) findings_.problem("log", place, data.error().message);
    }
    return true;
  };
  const auto damage = [&](PoolBlock at, const std::string& what) {
    findings_.problem("log", name_ + ", log page at pool block " + std::to_string(at.value),
                      what + "; a mirror that needs it needs a full copy");
  };
  walk_kept_log(pool_, group_, Lsn{group_.descriptor.log_zones.front().first.value - 1}, page,
                damage);
}

/// Behind the checkpoint: what a restart replays.
void GroupVerifier::check_tail() {
  // Pages that were not flushed count only with their data, so that is read in any case.
  const LogTail tail = load_log_tail(pool_, group_, true);
  balance_.head = tail.head;
  balance_.records_behind = tail.head.lsn.value - group_.descriptor.point.lsn.value;
  for (const auto& what : tail.problems) findings_.problem("log", name_, what);
  if (tail.head.lsn < tail.durable) {
    findings_.problem("log", name_,
                      "ends at " + lsn_text(tail.head.lsn) + ", but was flushed up to " +
                          lsn_text(tail.durable) + ": acknowledged writes are lost");
  }
  if (tail.cut_pages != 0) {
    findings_.note("log", name_,
                   "the last " + std::to_string(tail.cut_pages) +
                       " pages are whole, but not all of their data is (" + tail.end +
                       "): a crash while they were written. A restart drops them, behind " +
                       lsn_text(tail.head.lsn));
  }
  const auto& s = pool_.superblock();
  for (const auto& page : tail.pages) {
    const ZoneId zone = s.zone_of(page.at);
    if (!log_zones_.insert(zone).second) continue;
    // Was a data zone to the checkpoint, so it must have been an empty one.
    for (std::uint64_t i = 0; i < s.zone_blocks; ++i) {
      const PoolBlock block{s.zone_start(zone).value + i};
      if (block.value >= pool_.blocks() || !used_.has(block)) continue;
      findings_.problem("log", name_ + ", zone " + std::to_string(zone.value),
                        "the log went on in a zone that holds data; the group cannot be opened");
      break;
    }
  }
  for (const auto& page : tail.pages) {
    // Data that was not flushed was read when the end of the log was looked for.
    const bool flushed = page.last() <= tail.durable;
    for (const auto& placed : page.records) check_tail_record(placed, flushed);
  }
}

void GroupVerifier::check_tail_record(const format::PlacedRecord& placed, bool flushed) {
  const std::string place = name_ + ", " + lsn_text(placed.record.header.lsn);
  for (const auto& e : placed.extents) {
    for (std::uint32_t i = 0; i < e.count; ++i) {
      const PoolBlock block{e.start.value + i};
      const std::string at = "its data in pool block " + std::to_string(block.value) + " ";
      if (block.value >= pool_.blocks() || !in_data_zone(block)) {
        findings_.problem("log", place, at + "is outside of the group's data zones");
      } else if (used_.has(block) || !placed_.add(block)) {
        findings_.problem("log", place,
                          at + "is where something else lies; the group cannot be opened");
      } else {
        ++balance_.tail_blocks;
      }
    }
  }
  if (!options_.data || !placed.record.has_data() || !flushed) return;
  auto data = read_record_data(pool_, placed);
  if (!data) {
    findings_.problem("log", place, data.error().message + "; it was flushed, so the disk lost it");
  }
}

}  // namespace tandem::inspect
