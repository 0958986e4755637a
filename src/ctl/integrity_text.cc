#include "ctl/integrity_text.h"

#include <nlohmann/json.hpp>

#include "ctl/format.h"

namespace tandem::ctl {
namespace {

std::string damage_text(const DamageStatus& damage, UtcNs now) {
  if (!damage.any()) return "none met since the node started";
  std::string text = count_text(damage.fetched_blocks, "block") + " from a peer, " +
                     std::to_string(damage.repaired_blocks) + " of them repaired; " +
                     count_text(damage.unrepairable_blocks, "block") + " unrepairable, " +
                     count_text(damage.damaged_map_nodes, "map node") + " damaged";
  if (damage.last_at.value != 0) {
    text += "; last " + age_text(damage.last_at, now) + ": " + damage.last_volume + " at byte " +
            std::to_string(damage.last_byte) + ", " + damage.last_outcome;
  }
  return text;
}

Json to_json(const DamageStatus& damage) {
  return {{"fetched_blocks", damage.fetched_blocks},
          {"repaired_blocks", damage.repaired_blocks},
          {"unrepairable_blocks", damage.unrepairable_blocks},
          {"damaged_map_nodes", damage.damaged_map_nodes},
          {"last_utc_ns", damage.last_at.value},
          {"last_volume", damage.last_volume},
          {"last_byte", damage.last_byte},
          {"last_outcome", damage.last_outcome}};
}

}  // namespace

Json integrity_json(const GroupStatus& group) { return {{"damage", to_json(group.damage)}}; }

std::vector<std::pair<std::string, std::string>> integrity_lines(const View& view) {
  return {{"damage", damage_text(view.group->damage, view.now)}};
}

std::string integrity_complaint(const View& view) {
  const auto& damage = view.group->damage;
  if (!damage.is_bad()) return "";
  std::string text = "DAMAGED: the copy on " + view.node + " has ";
  if (damage.unrepairable_blocks != 0)
    text += count_text(damage.unrepairable_blocks, "block") + " that no peer could give back";
  if (damage.damaged_map_nodes != 0) {
    text += std::string(damage.unrepairable_blocks != 0 ? " and " : "") +
            count_text(damage.damaged_map_nodes, "damaged map node");
  }
  return text + "; see 'tandem group show " + view.group->name + "'";
}

}  // namespace tandem::ctl
