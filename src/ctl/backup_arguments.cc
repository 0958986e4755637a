#include "ctl/backup_arguments.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "ctl/commands.h"

namespace tandem::ctl {
namespace {

using Action = std::function<Exit(Context&)>;

void add_nbd(CLI::App& app, std::string& nbd) {
  app.add_option("--nbd", nbd, "Where the single --node's exports are reached from here")
      ->type_name("HOST:PORT|unix:PATH");
}

void add_diff(CLI::App& app, Action& chosen) {
  const auto r = std::make_shared<DiffRequest>();
  auto* diff = app.add_subcommand("diff", "What differs between two points of a volume");
  diff->callback(
      [r, &chosen] { chosen = [r](Context& context) { return run_diff(context, *r); }; });
  diff->add_option("VOLUME", r->volume, "Or VOLUME@POINT, the same as --to")->required();
  diff->add_option(
          "--from", r->from,
          "What to compare with: a snapshot, branch or point, \"now\", or a time or record "
          "of the history as for recover, which is kept for as long as this takes")
      ->required()
      ->type_name("POINT");
  diff->add_option("--to", r->to, "What to compare, likewise; now without it")->type_name("POINT");
  diff->add_flag("--summary", r->summary, "Only how much it is");
  add_nbd(*diff, r->nbd);
}

void add_create(CLI::App& backup, Action& chosen) {
  const auto r = std::make_shared<BackupRequest>();
  auto* create = backup.add_subcommand(
      "create",
      "Write what changed since the last point, or everything; goes on with an "
      "interrupted one");
  create->callback(
      [r, &chosen] { chosen = [r](Context& context) { return run_backup_create(context, *r); }; });
  create->add_option("GROUP", r->group)->required();
  create->add_option("DIRECTORY", r->directory, "Of this group's backup; made if need be")
      ->required();
  create->add_option("--snapshot", r->snapshot, "Back up this one, and take none")
      ->type_name("NAME");
  create->add_option("--volume", r->volumes, "Only this volume; may be repeated")
      ->type_name("NAME")
      ->allow_extra_args(false);
  create->add_flag("--full", r->full, "Everything, building on no other point");
  create->add_flag("--restart", r->restart, "Begin an interrupted point anew");
  create->add_option("--zstd", r->zstd_level, "Compression, 0 is none (1)")
      ->check(CLI::Range(0, 19))
      ->type_name("LEVEL");
  add_nbd(*create, r->nbd);
}

void add_restore(CLI::App& app, Action& chosen, bool& local) {
  const auto r = std::make_shared<RestoreRequest>();
  auto* restore = app.add_subcommand(
      "restore", "A volume as it was at a point of a backup; goes on with an interrupted restore");
  restore->callback([r, &chosen, &local] {
    local = r->to_volume.empty();
    chosen = [r](Context& context) { return run_restore(context, *r); };
  });
  restore->add_option("DIRECTORY", r->directory)->required();
  restore->add_option("--point", r->number, "Which one (the last)")->check(CLI::PositiveNumber);
  restore->add_option("--volume", r->volume, "Which one, when the backup has several")
      ->type_name("NAME");
  auto* where = restore->add_option_group("where", "One of:");
  where->add_option("--to-file", r->file, "A raw image, sparse")->type_name("FILE");
  where->add_option("--to-volume", r->to_volume, "A volume that there is, at least as large")
      ->type_name("NAME");
  where->require_option(1);
  restore->add_flag("--yes", r->yes, "Replace what is there, do not ask");
  restore->add_flag("--restart", r->restart, "Write everything, whatever is there already");
  add_nbd(*restore, r->nbd);
}

}  // namespace

void add_backup_commands(CLI::App& app, Action& chosen, bool& local) {
  add_diff(app, chosen);
  auto* backup = app.add_subcommand("backup", "Full and incremental backups in a directory")
                     ->require_subcommand(1);
  add_create(*backup, chosen);
  const auto directory = std::make_shared<std::string>();
  auto* list = backup->add_subcommand("list", "The points that there are");
  list->callback([directory, &chosen, &local] {
    local = true;
    chosen = [directory](Context& context) { return run_backup_list(context, *directory); };
  });
  list->add_option("DIRECTORY", *directory)->required();
  const auto number = std::make_shared<std::uint32_t>(0);
  auto* verify = backup->add_subcommand("verify", "Read everything, and say what is damaged");
  verify->callback([directory, number, &chosen, &local] {
    local = true;
    chosen = [directory, number](Context& context) {
      return run_backup_verify(context, *directory, *number);
    };
  });
  verify->add_option("DIRECTORY", *directory)->required();
  verify->add_option("--point", *number, "Only this one and what it builds on")
      ->check(CLI::PositiveNumber);
  add_restore(app, chosen, local);
}

}  // namespace tandem::ctl
