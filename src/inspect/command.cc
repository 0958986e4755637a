#include "inspect/command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <nlohmann/json.hpp>
#include <ostream>

#include "inspect/show.h"

namespace tandem::inspect {
namespace {

struct Arguments {
  std::string pool, command, group, volume;
  bool json = false, force = false, no_data = false;
  std::optional<std::uint64_t> from;
  std::uint64_t limit = 100;
  std::uint64_t block = 0;
};

struct Outcome {
  Json json;
  std::string (*text)(const Json&) = nullptr;
  Exit exit = Exit::kSound;
};

void add_commands(CLI::App& app, Arguments& a) {
  const auto command = [&](const char* name, const char* help) {
    CLI::App* sub = app.add_subcommand(name, help);
    sub->add_flag("--json", a.json, "Print one JSON document");
    sub->callback([&a, name] { a.command = name; });
    return sub;
  };
  const auto group = [&](CLI::App* sub) {
    sub->add_option("--group", a.group, "Name or identity of the group; the only one by default");
    return sub;
  };
  const auto volume = [&](CLI::App* sub) {
    sub->add_option("--volume", a.volume, "Name or id of the volume; the only one by default");
    return sub;
  };
  command("superblock", "Identity and geometry of the pool, and the state of both copies");
  command("zones", "Who owns which zones");
  command("groups", "Each group at its newest checkpoint, with its volumes");
  auto* log = group(command("log", "The records of a group's log"));
  log->add_option("--from", a.from, "First LSN to show; the oldest that is kept by default");
  log->add_option("--limit", a.limit, "Records to show")->capture_default_str();
  auto* map = volume(group(command("map", "Where the blocks of a volume are, at the checkpoint")));
  map->add_option("--limit", a.limit, "Runs to show")->capture_default_str();
  auto* block = volume(group(command("block", "The way through the map to one block of a volume")));
  block->add_option("--block", a.block, "Number of the block: byte address / 4096")->required();
  auto* verify = group(command("verify", "Read everything and report what is wrong"));
  verify->add_flag("--no-data", a.no_data, "Do not read the content of the volumes");
}

/// Draws "12 % 345 of 678 blocks" over itself.
VerifyOptions verify_options(const Arguments& a, std::ostream& err, bool progress) {
  VerifyOptions options;
  options.data = !a.no_data;
  if (!progress) return options;
  options.progress = [&err](std::uint64_t done, std::uint64_t total) {
    const std::uint64_t percent = total == 0 ? 100 : done * 100 / total;
    err << "\r" << percent << " %  " << done << " of " << total << " blocks" << std::flush;
    if (done == total) err << "\n";
  };
  return options;
}

Result<Outcome> verify(const Arguments& a, BlockReader& reader, std::ostream& err, bool progress) {
  VerifyOptions options = verify_options(a, err, progress);
  if (!a.group.empty()) {
    auto pool = PoolView::load(reader);
    if (!pool) return Error(std::move(pool.error()));
    auto group = find_group(*pool, a.group);
    if (!group) return Error(std::move(group.error()));
    options.slot = group->slot;
  }
  auto report = verify_pool(reader, options);
  if (!report) return Error(std::move(report.error()));
  return Outcome{describe_report(*report), report_text,
                 report->sound() ? Exit::kSound : Exit::kProblems};
}

Result<Outcome> show_group(const Arguments& a, const PoolView& pool) {
  auto group = find_group(pool, a.group);
  if (!group) return Error(std::move(group.error()));
  if (a.command == "log") {
    LogRange range;
    range.limit = a.limit;
    if (a.from) range.from = Lsn{*a.from};
    return Outcome{describe_log(pool, *group, range), log_text, Exit::kSound};
  }
  auto volume = find_volume(*group, a.volume);
  if (!volume) return Error(std::move(volume.error()));
  if (a.command == "map") {
    return Outcome{describe_map(pool, *group, *volume, a.limit), map_text, Exit::kSound};
  }
  const std::uint64_t blocks = blocks_for(volume->size_bytes);
  if (a.block >= blocks) {
    return Error{ErrorCode::kInvalid, "volume " + volume->name + " has only " +
                                          std::to_string(blocks) + " blocks at the checkpoint"};
  }
  return Outcome{describe_block(pool, *group, *volume, VolumeBlock{a.block}), block_text,
                 Exit::kSound};
}

Result<Outcome> execute(const Arguments& a, BlockReader& reader, std::ostream& err, bool progress) {
  if (a.command == "verify") return verify(a, reader, err, progress);
  auto pool = PoolView::load(reader);
  if (!pool) return Error(std::move(pool.error()));
  if (a.command == "superblock") return Outcome{describe_superblock(*pool), superblock_text};
  if (a.command == "zones") return Outcome{describe_zones(*pool), zones_text};
  if (a.command == "groups") return Outcome{describe_groups(*pool), groups_text};
  return show_group(a, *pool);
}

}  // namespace

Exit run_command(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err,
                 bool progress) {
  Arguments a;
  CLI::App app(
      "Looks into a pool of Tandem without changing it. Exit status: 0 fine, 1 verify found "
      "problems, 2 bad usage or the pool cannot be read.",
      "tandem-inspect");
  app.set_version_flag("--version", "tandem-inspect " TANDEM_VERSION);
  app.add_option("POOL", a.pool, "File or block device of the pool")->required();
  app.add_flag("--force", a.force, "Read even while a daemon holds the pool");
  app.require_subcommand(1);
  app.fallthrough();
  add_commands(app, a);
  try {
    auto reversed = arguments;
    std::reverse(reversed.begin(), reversed.end());
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    return app.exit(error, out, err) == 0 ? Exit::kSound : Exit::kUnusable;
  }
  auto reader = FileReader::open(a.pool, a.force);
  if (!reader) {
    err << "tandem-inspect: " << reader.error().message << "\n";
    return Exit::kUnusable;
  }
  if ((*reader)->in_use()) {
    err << "tandem-inspect: " << a.pool
        << ": a daemon holds this pool; what follows was read while it changed\n";
  }
  auto outcome = execute(a, **reader, err, progress);
  if (!outcome) {
    err << "tandem-inspect: " << outcome.error().message << "\n";
    return Exit::kUnusable;
  }
  if (a.json) {
    out << outcome->json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
  } else {
    out << outcome->text(outcome->json);
  }
  return outcome->exit;
}

}  // namespace tandem::inspect
