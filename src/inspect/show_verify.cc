// What verify found.
#include <nlohmann/json.hpp>

#include "inspect/show.h"

namespace tandem::inspect {

Json describe_report(const VerifyReport& report) {
  Json findings = Json::array();
  for (const auto& f : report.findings) {
    findings.push_back(
        {{"severity", f.severity == Finding::Severity::kProblem ? "problem" : "note"},
         {"part", f.part},
         {"place", f.place},
         {"what", f.what}});
  }
  Json groups = Json::array();
  for (const auto& g : report.groups) {
    groups.push_back({{"name", g.name},
                      {"slot", g.slot},
                      {"checkpoint", to_json(g.checkpoint)},
                      {"head", to_json(g.head)},
                      {"records_behind", g.records_behind},
                      {"blocks",
                       {{"zones", g.zone_blocks},
                        {"data", g.data_blocks},
                        {"dead", g.dead_blocks},
                        {"snapshots", g.snapshot_blocks},
                        {"maps", g.map_blocks},
                        {"books", g.book_blocks},
                        {"log", g.log_blocks},
                        {"free", g.free_blocks},
                        {"taken_behind_checkpoint", g.tail_blocks},
                        {"zeroed", g.zeroed_blocks}}}});
  }
  return {{"sound", report.sound()},
          {"problems", report.problems},
          {"notes", report.notes},
          {"findings", std::move(findings)},
          {"pool_blocks",
           {{"all", report.pool.blocks},
            {"fixed", report.pool.fixed_blocks},
            {"groups", report.pool.group_blocks},
            {"free_zones", report.pool.free_blocks},
            {"other", report.pool.other_blocks}}},
          {"groups", std::move(groups)}};
}

std::string report_text(const Json& j) {
  std::string out;
  for (const auto& f : j["findings"]) {
    out += (f["severity"] == "problem" ? "PROBLEM " : "note    ") + f["part"].get<std::string>() +
           ": " + f["place"].get<std::string>() + ": " + f["what"].get<std::string>() + "\n";
  }
  const auto kept = j["findings"].size();
  const auto all = j["problems"].get<std::uint64_t>() + j["notes"].get<std::uint64_t>();
  if (kept < all) out += "… and " + std::to_string(all - kept) + " more findings\n";
  if (!j["groups"].empty()) {
    std::vector<std::vector<std::string>> rows{{"GROUP", "HEAD", "ZONES", "DATA", "SNAPSHOTS",
                                                "DEAD", "MAPS", "BOOKS", "LOG", "FREE", "BEHIND"}};
    for (const auto& g : j["groups"]) {
      const auto& b = g["blocks"];
      const auto blocks = [&](const char* key) {
        return std::to_string(b[key].get<std::uint64_t>());
      };
      rows.push_back(
          {g["name"].get<std::string>(), std::to_string(g["head"]["lsn"].get<std::uint64_t>()),
           blocks("zones"), blocks("data"), blocks("snapshots"), blocks("dead"), blocks("maps"),
           blocks("books"), blocks("log"), blocks("free"), blocks("taken_behind_checkpoint")});
    }
    out += table_text(rows);
    out += "blocks of 4 KiB at the checkpoint; BEHIND: of the free ones, taken by the log since\n";
    const auto& p = j["pool_blocks"];
    const auto blocks = [&p](const char* key) {
      return std::to_string(p[key].get<std::uint64_t>());
    };
    out += "pool: " + blocks("all") + " blocks = " + blocks("groups") + " in zones of groups + " +
           blocks("free_zones") + " in free zones + " + blocks("fixed") + " fixed + " +
           blocks("other") + " other\n";
  }
  out += j["sound"].get<bool>()
             ? "sound\n"
             : std::to_string(j["problems"].get<std::uint64_t>()) + " problems\n";
  return out;
}

}  // namespace tandem::inspect
