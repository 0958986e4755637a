// What can be done with a backup as it lies there: list, verify.
#include <iostream>
#include <nlohmann/json.hpp>

#include "backup/repository.h"
#include "ctl/backup_json.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/progress.h"

namespace tandem::ctl {
namespace {

std::string kind_text(const backup::Point& point) {
  if (!point.manifest || !point.manifest->from) return kind_of(point);
  return "since " + std::to_string(point.manifest->from->number);
}

std::string damage_text(const backup::Damage& damage) {
  std::string text = "point " + std::to_string(damage.number);
  if (damage.volume.empty()) return text + ": " + damage.what;
  return text + ", volume " + damage.volume + ", bytes " + std::to_string(damage.offset) + " to " +
         std::to_string(damage.offset + damage.length) + ": " + damage.what;
}

std::string numbers_text(const std::vector<std::uint32_t>& numbers) {
  std::string text;
  for (const auto number : numbers) text += (text.empty() ? "" : ", ") + std::to_string(number);
  return text.empty() ? "none" : text;
}

Json verdict_json(const backup::Verdict& verdict) {
  auto damages = Json::array();
  for (const auto& d : verdict.damages) {
    damages.push_back({{"point", d.number},
                       {"volume", d.volume},
                       {"what", d.what},
                       {"offset", d.offset},
                       {"length", d.length}});
  }
  return {
      {"ok", verdict.damages.empty()}, {"whole", verdict.whole}, {"damages", std::move(damages)}};
}

}  // namespace

Exit run_backup_list(Context& context, const std::string& directory) {
  const auto repository = backup::Repository::open(directory, false);
  if (!repository) return fail(context, repository.error());
  const auto plan = repository->plan();
  if (context.settings.json) {
    auto points = Json::array();
    for (const auto& point : repository->points()) points.push_back(to_json(point));
    context.out << json_text({{"points", std::move(points)},
                              {"interrupted", plan ? Json(plan->number) : Json(nullptr)}});
    return Exit::kOk;
  }
  Table table({"POINT", "OF", "KIND", "ON DISK", "SNAPSHOT", "CONSISTENCY", "VOLUMES"});
  for (const auto& point : repository->points()) {
    const auto number = std::to_string(point.number);
    if (!point.manifest) {
      table.row({number, "", kind_text(point), "", point.manifest.error().message});
      continue;
    }
    const auto& m = *point.manifest;
    table.row({number, time_text(m.snapshot.utc), kind_text(point), size_text(file_bytes_of(m)),
               m.snapshot.name, m.consistency, volumes_text(m)});
  }
  if (!table.empty()) context.out << table.text();
  if (table.empty())
    context.out << "No backup yet: 'tandem backup create GROUP DIRECTORY' makes one.\n";
  if (plan)
    context.out << "Point " << plan->number << " was interrupted: 'tandem backup create "
                << plan->group << " " << directory << "' goes on with it.\n";
  return Exit::kOk;
}

Exit run_backup_verify(Context& context, const std::string& directory, std::uint32_t number) {
  const auto repository = backup::Repository::open(directory, false);
  if (!repository) return fail(context, repository.error());
  const auto scope = repository->scope(number);
  if (!scope) return fail(context, scope.error());
  std::uint64_t bytes = 0;
  for (const auto* point : *scope) bytes += point->manifest ? file_bytes_of(*point->manifest) : 0;
  backup::Verdict verdict;
  {
    ProgressBar bar(context, "verify", bytes);
    verdict = repository->verify(*scope, [&](std::uint64_t read) { bar.add(read); });
  }
  if (context.settings.json) context.out << json_text(verdict_json(verdict));
  if (verdict.damages.empty()) {
    if (!context.settings.json)
      context.out << count_text(scope->size(), "point") << " of " << size_text(bytes)
                  << (scope->size() == 1 ? " is" : " are") << " whole.\n";
    return Exit::kOk;
  }
  if (!context.settings.json) {
    for (const auto& damage : verdict.damages) context.out << damage_text(damage) << "\n";
    context.out << "Points that can be restored: " << numbers_text(verdict.whole) << ".\n";
  }
  return fail(context, {ErrorCode::kCorrupt,
                        directory + " is damaged; 'tandem backup create --full' makes a point that "
                                    "builds on none of these"});
}

}  // namespace tandem::ctl
