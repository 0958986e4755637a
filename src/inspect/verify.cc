#include "inspect/verify.h"

#include <algorithm>

#include "inspect/verify_group.h"

namespace tandem::inspect {
namespace {

std::string slot_text(std::uint32_t slot) { return "slot " + std::to_string(slot); }

/// A torn copy is what a power cut leaves of a write; two are not.
template <class T>
void check_copies(const Copies<T>& copies, const std::string& part, const std::string& place,
                  Findings& findings) {
  if (!copies.current) {
    findings.problem(part, place, "both copies are damaged: " + copies.copy[0].error().message);
    return;
  }
  for (std::size_t i = 0; i < 2; ++i) {
    if (copies.copy[i]) continue;
    const std::string which = place + ", copy " + std::to_string(i);
    if (copies.copy[i].error().code == ErrorCode::kCorrupt) {
      findings.note(part, which,
                    copies.copy[i].error().message +
                        "; the other copy counts. A power cut while it was written leaves this, "
                        "and the next write heals it");
    } else {
      findings.problem(part, which, copies.copy[i].error().message);
    }
  }
}

void check_superblock(const PoolView& pool, Findings& findings) {
  const auto& copies = pool.superblocks();
  for (std::size_t i = 0; i < 2; ++i) {
    if (copies.copy[i]) continue;
    findings.problem(
        "superblock", "block " + std::to_string(i),
        copies.copy[i].error().message +
            "; it is written only once, so the disk damaged it. The other copy counts");
  }
  if (copies.copy[0] && copies.copy[1] && !(*copies.copy[0] == *copies.copy[1])) {
    findings.problem("superblock", "blocks 0 and 1", "the two copies tell of different pools");
  }
  if (pool.blocks() < pool.superblock().blocks) {
    findings.problem("superblock", "end of the pool",
                     "the file has " + std::to_string(pool.reader().blocks()) +
                         " blocks, the pool was made with " +
                         std::to_string(pool.superblock().blocks) + ": it was truncated");
  }
}

void check_zones(const PoolView& pool, Findings& findings) {
  const auto& s = pool.superblock();
  for (std::size_t i = 0; i < pool.table().size(); ++i) {
    check_copies(pool.table()[i], "zones", "zone table page " + std::to_string(i), findings);
    const auto* page = pool.table()[i].get();
    if (page == nullptr) continue;
    for (std::uint32_t n = 0; n < format::kZonesPerTablePage; ++n) {
      const ZoneId zone{static_cast<std::uint32_t>(i) * format::kZonesPerTablePage + n};
      if (page->entries[n].owner == format::kZoneFree) continue;
      const bool usable = zone >= s.first_zone() && zone.value < s.zones;
      if (usable) continue;
      findings.problem(
          "zones", "zone " + std::to_string(zone.value),
          "belongs to " + slot_text(page->entries[n].owner) + ", but no group may own it");
    }
  }
  for (std::uint32_t slot = 0; slot < pool.anchors().size(); ++slot) {
    const auto* anchor = pool.anchors()[slot].get();
    if (anchor == nullptr || anchor->live) continue;
    const auto zones = pool.zones_of(slot).size();
    if (zones == 0) continue;
    findings.note("zones", slot_text(slot),
                  std::to_string(zones) +
                      " zones belong to a slot without a group: a crash while a group was made or "
                      "deleted. The next start gives them back");
  }
}

PoolBalance balance_of(const PoolView& pool, const VerifyReport& report) {
  const auto& s = pool.superblock();
  PoolBalance balance{.blocks = s.blocks, .fixed_blocks = s.blocks};
  for (std::uint32_t z = s.first_zone().value; z < s.zones; ++z) {
    balance.fixed_blocks -= s.zone_blocks;
    const auto entry = pool.zone(ZoneId{z});
    const bool free = entry && entry->owner == format::kZoneFree;
    (free ? balance.free_blocks : balance.other_blocks) += s.zone_blocks;
  }
  for (const auto& group : report.groups) {
    balance.group_blocks += group.zone_blocks;
    balance.other_blocks -= std::min(balance.other_blocks, group.zone_blocks);
  }
  return balance;
}

}  // namespace

std::string VerifyReport::text() const {
  std::string out;
  for (const auto& f : findings) {
    out += f.severity == Finding::Severity::kProblem ? "PROBLEM " : "note    ";
    out += f.part + ": " + f.place + ": " + f.what + "\n";
  }
  return out;
}

Result<VerifyReport> verify_pool(BlockReader& reader, const VerifyOptions& options) {
  auto pool = PoolView::load(reader);
  if (!pool) return Error(std::move(pool.error()));
  VerifyReport report;
  Findings findings(report, options.findings_max);
  check_superblock(*pool, findings);
  check_zones(*pool, findings);
  // The fixed places first: a damaged group can have more findings than are kept.
  for (std::uint32_t slot = 0; slot < pool->anchors().size(); ++slot) {
    check_copies(pool->anchors()[slot], "anchor", slot_text(slot), findings);
  }
  for (std::uint32_t slot = 0; slot < pool->anchors().size(); ++slot) {
    const auto& copies = pool->anchors()[slot];
    if (!copies.current || !copies.get()->live) continue;
    if (options.slot && *options.slot != slot) continue;
    auto group = load_group(*pool, slot);
    if (!group) {
      findings.problem("descriptor", slot_text(slot) + ", group " + copies.get()->group.text(),
                       group.error().message + "; the group cannot be opened");
      continue;
    }
    report.groups.push_back(GroupVerifier(*pool, *group, options, findings).run());
  }
  report.pool = balance_of(*pool, report);
  const auto& b = report.pool;
  if (b.fixed_blocks + b.group_blocks + b.free_blocks + b.other_blocks != b.blocks)
    findings.problem("space", "pool", "the zones of all groups are more than the pool has");
  return report;
}

}  // namespace tandem::inspect
