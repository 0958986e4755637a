#include "ctl/integrity_text.h"

#include <algorithm>
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

std::string scrub_line(const ScrubStatus& scrub, UtcNs now) {
  if (scrub.state == "never") return "never; 'tandem scrub start' begins one";
  std::string text = scrub.state;
  if (scrub.state == "running") {
    const auto percent =
        scrub.blocks_total == 0
            ? 0
            : std::min<std::uint64_t>(scrub.blocks_read * 100 / scrub.blocks_total, 99);
    text += ", about " + std::to_string(percent) + " % since " + age_text(scrub.started, now);
  } else {
    text += " " + age_text(scrub.ended, now);
  }
  text += ": " + count_text(scrub.blocks_read, "block") + " and " +
          count_text(scrub.nodes_read, "map node") + " read, ";
  if (scrub.bad_blocks + scrub.bad_map_nodes == 0) return text + "all good";
  return text + count_text(scrub.bad_blocks, "bad block") + " (" +
         std::to_string(scrub.repaired_blocks) + " given back by a peer), " +
         count_text(scrub.bad_map_nodes, "bad map node") + " (" +
         std::to_string(scrub.repaired_map_nodes) + " written again)";
}

std::string agreement_text(const std::string& other, const AgreementStatus& agreement, UtcNs now) {
  if (!agreement.difference.empty())
    return "with " + other + ": DIFFERENT: " + agreement.difference;
  if (agreement.through.value == 0) return "with " + other + ": not yet";
  return "with " + other + ": identical through record " + std::to_string(agreement.through.value) +
         ", found " + age_text(agreement.at, now);
}

}  // namespace

Json to_json(const ScrubStatus& scrub) {
  Json out = {{"state", scrub.state},
              {"started_utc_ns", scrub.started.value},
              {"ended_utc_ns", scrub.ended.value},
              {"blocks_total", scrub.blocks_total},
              {"blocks_read", scrub.blocks_read},
              {"nodes_read", scrub.nodes_read},
              {"bad_blocks", scrub.bad_blocks},
              {"repaired_blocks", scrub.repaired_blocks},
              {"bad_map_nodes", scrub.bad_map_nodes},
              {"repaired_map_nodes", scrub.repaired_map_nodes},
              {"findings", Json::array()}};
  for (const auto& finding : scrub.findings) {
    out["findings"].push_back({{"volume", finding.volume},
                               {"snapshot", finding.snapshot},
                               {"byte", finding.byte},
                               {"outcome", finding.outcome}});
  }
  return out;
}

Json agreement_json(const AgreementStatus& agreement) {
  return {{"through", agreement.through.value},
          {"at_utc_ns", agreement.at.value},
          {"difference", agreement.difference}};
}

std::string scrub_text(const std::string& node, UtcNs now, const GroupStatus& group) {
  std::string text = "Scrub of group " + group.name + " on node " + node + ": " +
                     scrub_line(group.scrub, now) + "\n";
  for (const auto& finding : group.scrub.findings) {
    text += "  " + finding.volume + (finding.snapshot.empty() ? "" : "@" + finding.snapshot) +
            " at byte " + std::to_string(finding.byte) + ": " + finding.outcome + "\n";
  }
  return text;
}

Json integrity_json(const GroupStatus& group) {
  return {{"damage", to_json(group.damage)}, {"scrub", to_json(group.scrub)}};
}

std::vector<std::pair<std::string, std::string>> integrity_lines(const View& view) {
  std::vector<std::pair<std::string, std::string>> lines = {
      {"damage", damage_text(view.group->damage, view.now)},
      {"scrub", scrub_line(view.group->scrub, view.now)}};
  for (const auto& slot : view.group->slots) {
    lines.emplace_back("compared", agreement_text(slot.node.empty() ? slot.address : slot.node,
                                                  slot.agreement, view.now));
  }
  if (const auto& up = view.group->upstream)
    lines.emplace_back("compared", agreement_text(up->node.empty() ? "the primary" : up->node,
                                                  up->agreement, view.now));
  return lines;
}

std::string integrity_complaint(const View& view) {
  for (const auto& slot : view.group->slots) {
    if (!slot.agreement.difference.empty())
      return "NOT THE SAME HISTORY: " + slot.agreement.difference;
  }
  if (const auto& up = view.group->upstream; up && !up->agreement.difference.empty())
    return "NOT THE SAME HISTORY: " + up->agreement.difference;
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
