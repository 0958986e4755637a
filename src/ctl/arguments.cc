#include "ctl/arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <optional>

#include "ctl/backup_arguments.h"
#include "ctl/commands.h"
#include "ctl/format.h"

namespace tandem::ctl {
namespace {

constexpr const char* kFooter =
    "Nodes and certificates may also come from TANDEM_NODE (comma-separated), TANDEM_CA,\n"
    "TANDEM_CERTIFICATE and TANDEM_KEY, or from ~/.config/tandem/client.toml or\n"
    "/etc/tandem/client.toml: [client] node = [\"HOST:PORT\"], ca, certificate, key.\n"
    "With several nodes, status and lists ask all of them; a command goes to the one that holds\n"
    "the group in the right role.\n"
    "\n"
    "Exit codes: 0 done; 1 failed; 2 usage or configuration; 3 node unreachable;\n"
    "4 refused (a precondition or the confirmation is missing); 5 not found;\n"
    "6 something needs attention (status --check, verify).\n";

/// What the words of the command line ended in.
struct Words {
  Settings settings;
  std::string timeout, watch, interval, size, rate, mode, from, to;
  std::string name, group, address, fence_command;
  std::uint32_t block_size = 512;
  std::vector<std::string> changes;
  std::string label, new_name, branch, at;
  PairOptions pair;
  RecoverOptions recover;
  bool local = false;  // asks no node
  bool yes = false, force = false, everywhere = false;
  bool check = false;
  bool quick = false;
  bool stop = false;
  bool crash_consistent = false, require_consistent = false;
  CLI::Option* watch_option = nullptr;
  CLI::Option* label_option = nullptr;
};

using Action = std::function<Exit(Context&)>;

CLI::App* command(CLI::App& parent, const char* name, const char* description, Action& chosen,
                  Action action) {
  auto* app = parent.add_subcommand(name, description);
  app->callback([&chosen, action = std::move(action)] { chosen = action; });
  return app;
}

void add_global_options(CLI::App& app, Words& w) {
  app.add_option("--node", w.settings.nodes, "A node's service, HOST:PORT; may be repeated")
      ->type_name("HOST:PORT")
      ->allow_extra_args(false);
  app.add_option("--ca", w.settings.ca, "The CA that signed the nodes' certificates")
      ->type_name("FILE");
  app.add_option("--certificate", w.settings.certificate, "Our certificate")->type_name("FILE");
  app.add_option("--key", w.settings.key, "Its key")->type_name("FILE");
  app.add_flag("--insecure", w.settings.insecure, "No TLS (nodes with tls = false)");
  app.add_option("--timeout", w.timeout,
                 "How long to wait for a node (10s; 60s where it writes much first)")
      ->type_name("TIME");
  app.add_flag("--json", w.settings.json, "Print JSON, exact; errors as JSON on stderr");
}

void add_status_commands(CLI::App& app, Words& w, Action& chosen) {
  auto* status = command(app, "status", "All nodes and groups, and what the mirrors lack", chosen,
                         [&w](Context& context) {
                           if (w.watch_option->count() == 0)
                             return run_status(context, {}, w.check);
                           const auto every = parse_duration(w.watch.empty() ? "2s" : w.watch);
                           if (!every) return fail_usage(context, every.error().message);
                           return run_status(context, *every, w.check);
                         });
  w.watch_option = status->add_option("--watch", w.watch, "Again every so often (2s)")
                       ->type_name("SECONDS")
                       ->expected(0, 1);
  status->add_flag(
      "--check", w.check,
      "For monitoring: exit code 6 unless every node answers, every group is served and "
      "protected, no hook failed, nothing is damaged, and no pool is filling up");
  auto* latency = command(app, "latency",
                          "Where the time of writes, flushes and reads goes, stage by stage, on "
                          "each node: counted since "
                          "it was started",
                          chosen, [&w](Context& context) {
                            if (w.interval.empty())
                              return run_latency(context, w.group, std::nullopt);
                            const auto interval = parse_duration(w.interval);
                            if (!interval) return fail_usage(context, interval.error().message);
                            return run_latency(context, w.group, *interval);
                          });
  latency->add_option("GROUP", w.group, "Of all groups without it");
  latency->add_option("--interval", w.interval, "Only of what happens from now on, for so long")
      ->type_name("SECONDS");
  auto* pool = app.add_subcommand("pool", "The space that nodes store in")->require_subcommand(1);
  command(*pool, "show", "Where every byte of each node's pool is", chosen, run_pool_show);
  auto* compact = command(
      *pool, "compact",
      "Give space that lies scattered in a group's zones back to the pool, on each node named that "
      "holds it; in the background, 'pool show' tells how it goes. Data that snapshots hold stays "
      "where it is. The zones are of use to other groups, and to what is below the pool",
      chosen, [&w](Context& context) { return run_pool_compact(context, w.group, w.stop); });
  compact->add_option("GROUP", w.group, "The group")->required();
  compact->add_flag("--stop", w.stop, "End it; what was moved stays moved");
}

void add_volume_commands(CLI::App& app, Words& w, Action& chosen) {
  auto* volume = app.add_subcommand("volume", "Virtual disks")->require_subcommand(1);
  auto* create = command(*volume, "create", "Make a volume", chosen, [&w](Context& context) {
    const auto size = parse_size(w.size);
    if (!size) return fail_usage(context, size.error().message);
    return run_volume_create(context, {w.name, w.group, *size, w.block_size});
  });
  create->add_option("NAME", w.name)->required();
  create->add_option("--size", w.size, "As in 1GiB")->required()->type_name("SIZE");
  create->add_option("--group", w.group, "Its consistency group; a new one of its name without it")
      ->type_name("GROUP");
  create->add_option("--block-size", w.block_size, "Logical block")
      ->check(CLI::IsMember({512, 4096}))
      ->type_name("512|4096");
  command(*volume, "list", "All volumes", chosen, run_volume_list);
  auto* resize = command(*volume, "resize", "Grow a volume", chosen, [&w](Context& context) {
    const auto size = parse_size(w.size);
    if (!size) return fail_usage(context, size.error().message);
    return run_volume_resize(context, w.name, *size);
  });
  resize->add_option("NAME", w.name)->required();
  resize->add_option("--size", w.size, "The new size, as in 2GiB")->required()->type_name("SIZE");
  auto* remove =
      command(*volume, "delete", "Delete a volume and its data", chosen,
              [&w](Context& context) { return run_volume_delete(context, w.name, w.yes); });
  remove->add_option("NAME", w.name)->required();
  remove->add_flag("--yes", w.yes, "Do not ask");
}

void add_group_commands(CLI::App& app, Words& w, Action& chosen) {
  auto* group = app.add_subcommand("group", "Consistency groups")->require_subcommand(1);
  command(*group, "list", "All groups", chosen, run_group_list);
  command(*group, "show", "Everything about a group", chosen,
          [&w](Context& context) { return run_group_show(context, w.group); })
      ->add_option("GROUP", w.group)
      ->required();
  auto* set =
      command(*group, "set", "Change settings while it runs: what happens when mirrors lag or fail",
              chosen, [&w](Context& context) { return run_set(context, w.group, "", w.changes); });
  set->add_option("GROUP", w.group)->required();
  set->add_option("KEY=VALUE", w.changes,
                  "lag_bytes=256MiB, lag_time=30s, lag_action=degrade|throttle|stall, "
                  "without_mirror=degrade|block, snapshots.every=15m, snapshots.keep=24h (or a "
                  "number), snapshots.hourly|daily|weekly|monthly=7, history=6h, "
                  "history.bytes=20GiB, of this node; an empty value is the default")
      ->required();
  auto* remove =
      command(*group, "delete", "Delete one node's copy of a group", chosen,
              [&w](Context& context) { return run_group_delete(context, w.group, w.yes); });
  remove->add_option("GROUP", w.group)->required();
  remove->add_flag("--yes", w.yes, "Do not ask");

  auto* mode = command(app, "mode", "What a write waits for", chosen, [&w](Context& context) {
    const auto parsed = parse_mode(w.mode);
    if (!parsed) return fail_usage(context, parsed.error().message);
    return run_mode(context, w.group, *parsed);
  });
  mode->add_option("GROUP", w.group)->required();
  mode->add_option("MODE", w.mode, "async, flush or sync")->required();

  auto* mirror = app.add_subcommand("mirror", "Where a group is copied to")->require_subcommand(1);
  auto* add =
      command(*mirror, "add", "Mirror a group to another node", chosen, [&w](Context& context) {
        if (w.mode.empty()) return run_mirror_add(context, w.group, w.address, std::nullopt);
        const auto parsed = parse_mode(w.mode);
        if (!parsed) return fail_usage(context, parsed.error().message);
        return run_mirror_add(context, w.group, w.address, *parsed);
      });
  add->add_option("GROUP", w.group)->required();
  add->add_option("ADDRESS", w.address, "The other node's service, HOST:PORT")->required();
  add->add_option("--mode", w.mode,
                  "async, flush or sync (sync; async on a node that is a mirror itself, and feeds "
                  "this one); of the group, or, when it has other mirrors already, of this one")
      ->type_name("MODE");
  const auto r = std::make_shared<SeedRequest>();
  auto* seed = command(*mirror, "seed", "Make a mirror here out of a backup that was carried here",
                       chosen, [r](Context& context) { return run_mirror_seed(context, *r); });
  seed->footer(
      "Runs with the certificate of a node, as replication does: --certificate and --key\n"
      "of the mirror's node. Then, at the primary: tandem mirror add GROUP ADDRESS. The\n"
      "first synchronisation sends what changed since the point.");
  seed->add_option("DIRECTORY", r->directory, "Of the group's backup")->required();
  seed->add_option("--point", r->number, "Which one (the last)")->check(CLI::PositiveNumber);
  auto* tune =
      command(*mirror, "set", "Change settings of a mirror while it runs", chosen,
              [&w](Context& context) { return run_set(context, w.group, w.address, w.changes); });
  tune->add_option("GROUP", w.group)->required();
  tune->add_option("ADDRESS", w.address)->required();
  tune->add_option(
          "KEY=VALUE", w.changes,
          "catch_up_rate=20MiB (a second), catch_up_times=\"22:00-06:00 off\", "
          "compression=off|on|auto, mode=async|flush|sync|group (the group's own), relay=on|off "
          "(fed also while this node is a mirror itself); an empty value is the default")
      ->required();
  auto* drop =
      command(*mirror, "remove", "Mirror a group no longer", chosen,
              [&w](Context& context) { return run_mirror_remove(context, w.group, w.address); });
  drop->add_option("GROUP", w.group)->required();
  drop->add_option("ADDRESS", w.address)->required();
}

void add_scrub_commands(CLI::App& app, Words& w, Action& chosen) {
  auto* scrub = app.add_subcommand("scrub", "Read and check all of a copy, and repair it")
                    ->require_subcommand(1);
  auto* start = command(*scrub, "start", "Begin it on each node named that holds the group", chosen,
                        [&w](Context& context) { return run_scrub_start(context, w.group); });
  start->add_option("GROUP", w.group, "The group")->required();
  auto* stop = command(*scrub, "stop", "End it there as it is", chosen,
                       [&w](Context& context) { return run_scrub_stop(context, w.group); });
  stop->add_option("GROUP", w.group, "The group")->required();
  auto* status = command(*scrub, "status", "How far it is, and what it found", chosen,
                         [&w](Context& context) { return run_scrub_status(context, w.group); });
  status->add_option("GROUP", w.group, "The group")->required();
  auto* verify = command(app, "verify", "Compare all copies of a group by checksums; no data moves",
                         chosen, [&w](Context& context) {
                           VerifyOptions options{w.group, w.name, w.quick, std::nullopt};
                           if (!w.rate.empty()) {
                             const auto rate = parse_size(w.rate);
                             if (!rate) return fail_usage(context, rate.error().message);
                             options.bytes_per_second = *rate;
                           }
                           return run_verify(context, options);
                         });
  verify->add_option("GROUP", w.group, "The group")->required();
  verify
      ->add_option("--snapshot", w.name,
                   "At this one, which all have; else one is made, and deleted at the end")
      ->type_name("NAME");
  verify->add_flag("--quick", w.quick, "Compare what the maps name, without reading the data");
  verify->add_option("--rate", w.rate, "Each node reads at most so much in a second")
      ->type_name("SIZE");
}

void add_snapshot_commands(CLI::App& app, Words& w, Action& chosen) {
  auto* snapshot =
      app.add_subcommand("snapshot", "States of a group that are kept")->require_subcommand(1);
  auto* create = command(*snapshot, "create", "Keep the present state, on the mirrors too", chosen,
                         [&w](Context& context) {
                           if (!w.at.empty())
                             return run_point_create(context, {w.group, w.at, w.name, w.label});
                           CreateSnapshot request{w.group, w.name, w.label};
                           if (w.crash_consistent) request.hook = SnapshotHook::kSkip;
                           if (w.require_consistent) request.hook = SnapshotHook::kRequire;
                           return run_snapshot_create(context, request);
                         });
  create->add_option("GROUP", w.group)->required();
  create->add_option("NAME", w.name, "The time in UTC without it");
  create->add_option("--label", w.label, "What it is for, in words")->type_name("TEXT");
  auto* at = create
                 ->add_option("--at", w.at,
                              "Not the present state but one of the history of this node's copy "
                              "(else the primary's): a time or a record, as for recover. Kept "
                              "there only")
                 ->type_name("TIME|LSN");
  auto* crash = create
                    ->add_flag("--crash-consistent", w.crash_consistent,
                               "Without the commands that the node has around snapshots")
                    ->excludes(at);
  create
      ->add_flag("--require-consistent", w.require_consistent,
                 "No snapshot unless those commands succeed")
      ->excludes(crash)
      ->excludes(at);
  auto* list = command(*snapshot, "list", "All snapshots, of each node", chosen,
                       [&w](Context& context) { return run_snapshot_list(context, w.group); });
  list->add_option("GROUP", w.group);
  auto* show = command(
      *snapshot, "show", "Everything about a snapshot, and what deleting it would give back",
      chosen, [&w](Context& context) { return run_snapshot_show(context, w.group, w.name); });
  show->add_option("GROUP", w.group)->required();
  show->add_option("NAME", w.name)->required();
  auto* remove =
      command(*snapshot, "delete", "Delete a snapshot on one node, or everywhere", chosen,
              [&w](Context& context) {
                return run_snapshot_delete(context, w.group, w.name, w.everywhere, w.yes);
              });
  remove->add_option("GROUP", w.group)->required();
  remove->add_option("NAME", w.name)->required();
  remove->add_flag("--everywhere", w.everywhere, "On every node that has it");
  remove->add_flag("--yes", w.yes, "Do not ask");
  auto* rename = command(*snapshot, "rename", "Rename a snapshot on one node, or everywhere",
                         chosen, [&w](Context& context) {
                           RenameSnapshot request{w.group, w.name, w.new_name, {}};
                           if (w.label_option->count() != 0) request.label = w.label;
                           return run_snapshot_rename(context, request, w.everywhere);
                         });
  rename->add_option("GROUP", w.group)->required();
  rename->add_option("NAME", w.name)->required();
  rename->add_option("NEW", w.new_name)->required();
  w.label_option = rename->add_option("--label", w.label, "Another label, too")->type_name("TEXT");
  rename->add_flag("--everywhere", w.everywhere, "On every node that has it");
  auto* rollback = command(
      *snapshot, "rollback", "Make a kept state the newest again; what is newest stays as a branch",
      chosen, [&w](Context& context) {
        return run_snapshot_rollback(context, {w.group, w.name, w.branch}, w.yes);
      });
  rollback->add_option("GROUP", w.group)->required();
  rollback->add_option("SNAPSHOT", w.name, "A snapshot, a branch or a point")->required();
  rollback->add_option("--branch", w.branch, "What the branch is called; by the time without it")
      ->type_name("NAME");
  rollback->add_flag("--yes", w.yes, "Do not ask; what is undone is printed all the same");
}

void add_time_commands(CLI::App& app, Words& w, Action& chosen) {
  auto* history = command(app, "history",
                          "How far back a group can go, what was written when, and what happened",
                          chosen, [&w](Context& context) {
                            return run_history(context, {w.group, w.from, w.to});
                          });
  history->add_option("GROUP", w.group)->required();
  history->add_option("--from", w.from, "Only from here on, as in 12:00, 12:00:30 or \"1h ago\"")
      ->type_name("TIME");
  history->add_option("--to", w.to, "Only up to here")->type_name("TIME");
  auto* recover = command(
      app, "recover", "A group as it was at any moment of its history: as a clone, or in place",
      chosen, [&w](Context& context) { return run_recover(context, w.recover); });
  recover->add_option("NAME", w.recover.what, "A group, or a volume of it")->required();
  recover
      ->add_option("--at", w.recover.at,
                   "When: 2026-05-01T12:00:00Z, 12:00 or 12:00:30 (today, UTC), \"10m ago\", or "
                   "the number of a record")
      ->required()
      ->type_name("TIME|LSN");
  recover->add_option("--name", w.recover.name, "What the clone is called")->type_name("NAME");
  recover->add_flag("--in-place", w.recover.in_place,
                    "Roll the group back, after showing what that undoes; what is newest stays as "
                    "a branch");
  recover->add_option("--branch", w.recover.branch, "What the branch is called")->type_name("NAME");
  recover->add_flag("--yes", w.recover.yes, "Do not ask");
  auto* clone =
      command(app, "clone",
              "A writable copy of a group that shares its data; on a mirror: a failover "
              "test",
              chosen, [&w](Context& context) { return run_clone(context, w.group, w.name); });
  clone->add_option("GROUP[@SNAPSHOT]", w.group, "As it is now without a snapshot")->required();
  clone->add_option("NAME", w.name, "The new group's name")->required();
}

void add_role_commands(CLI::App& app, Words& w, Action& chosen) {
  command(app, "receipt", "What a promotion would recover and lose", chosen,
          [&w](Context& context) { return run_receipt(context, w.group); })
      ->add_option("GROUP", w.group)
      ->required();
  auto* promote = command(app, "promote", "Make a mirror serve: the primary is gone", chosen,
                          [&w](Context& context) {
                            return run_promote(context, w.group, w.yes, w.force, w.fence_command);
                          });
  promote->add_option("GROUP", w.group)->required();
  promote->add_flag("--yes", w.yes, "Do not ask; the receipt is printed all the same");
  promote->add_flag("--force", w.force, "Even though the primary answers");
  promote
      ->add_option("--fence-command", w.fence_command,
                   "Run here first, with /bin/sh, to make sure that the primary is off; when it "
                   "fails nothing is promoted (TANDEM_GROUP, TANDEM_PRIMARY, TANDEM_NODE are set)")
      ->type_name("COMMAND");
  command(app, "demote", "Stop serving and wait for a primary", chosen,
          [&w](Context& context) { return run_demote(context, w.group); })
      ->add_option("GROUP", w.group)
      ->required();
  auto* switchover =
      command(app, "switchover", "Change roles without loss: both nodes are up", chosen,
              [&w](Context& context) { return run_switchover(context, w.group, w.to); });
  switchover->add_option("GROUP", w.group)->required();
  switchover->add_option("--to", w.to, "Which mirror, when there are several")
      ->type_name("HOST:PORT");
}

void add_pair_commands(CLI::App& app, Words& w, Action& chosen) {
  auto* pair = app.add_subcommand("pair", "Make two nodes trust each other")->require_subcommand(1);
  const auto common = [&w](CLI::App* sub) {
    sub->add_option("--name", w.pair.name, "This node's name, as in its configuration")->required();
    sub->add_option("--address", w.pair.addresses,
                    "A name or IP address by which this node is reached; may be repeated")
        ->allow_extra_args(false);
    sub->add_option("--directory", w.pair.directory, "Where keys and certificates go")
        ->default_val("/etc/tandem/certificates");
    sub->add_option("--config", w.pair.config, "The node's configuration to write the files into");
    sub->preparse_callback([&w](std::size_t) { w.local = true; });
  };
  auto* start = command(
      *pair, "start", "On the first node: make a token and wait", chosen, [&w](Context& context) {
        const auto valid = parse_duration(w.timeout.empty() ? "10min" : w.timeout);
        if (!valid) return fail_usage(context, valid.error().message);
        w.pair.valid = *valid;
        return run_pair_start(context, w.pair);
      });
  common(start);
  start->add_option("--listen", w.pair.listen, "Where to wait for the other node")
      ->default_val("0.0.0.0:7789");
  auto* join = command(*pair, "join", "On the second node: join with the token", chosen,
                       [&w](Context& context) { return run_pair_join(context, w.pair); });
  common(join);
  join->add_option("FIRST", w.pair.address, "HOST:PORT of the node that waits")->required();
  join->add_option("TOKEN", w.pair.token)->required();
}

/// Options of the whole command may stand behind the subcommand, too.
void let_options_fall_through(CLI::App& app) {
  for (auto* sub : app.get_subcommands([](CLI::App*) { return true; })) {
    sub->fallthrough();
    let_options_fall_through(*sub);
  }
}

}  // namespace

int run(std::vector<std::string> words, Context& context, const Environment& environment,
        const std::vector<std::string>& files) {
  Words w;
  Action chosen;
  CLI::App app("The operator's command of Tandem: two nodes, one replicated SAN.", "tandem");
  app.footer(kFooter);
  app.set_version_flag("--version", std::string(TANDEM_VERSION));
  app.require_subcommand(1);
  add_global_options(app, w);
  add_status_commands(app, w, chosen);
  add_volume_commands(app, w, chosen);
  add_group_commands(app, w, chosen);
  add_snapshot_commands(app, w, chosen);
  add_backup_commands(app, chosen, w.local);
  add_time_commands(app, w, chosen);
  add_scrub_commands(app, w, chosen);
  add_role_commands(app, w, chosen);
  add_pair_commands(app, w, chosen);
  let_options_fall_through(app);

  // Errors of the line itself are JSON, too, when --json is anywhere on it.
  const bool json = std::find(words.begin(), words.end(), "--json") != words.end();
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the end
  try {
    app.parse(words);
  } catch (const CLI::Success& success) {  // --help, --version
    app.exit(success, context.out, context.err);
    return static_cast<int>(Exit::kOk);
  } catch (const CLI::ParseError& error) {
    context.settings.json = json;
    return static_cast<int>(
        fail_usage(context, std::string(error.what()) + "; see 'tandem --help'"));
  }
  context.settings = w.settings;
  if (!w.timeout.empty()) {
    const auto timeout = parse_duration(w.timeout);
    if (!timeout) return static_cast<int>(fail_usage(context, timeout.error().message));
    context.settings.timeout = *timeout;
    context.settings.timeout_given = true;
  }
  if (w.local) return static_cast<int>(chosen(context));
  if (const auto done = complete(context.settings, environment, files); !done)
    return static_cast<int>(fail(context, done.error(), false));
  const auto& set = context.settings;
  if (!set.insecure && (set.ca.empty() || set.certificate.empty() || set.key.empty()))
    return static_cast<int>(fail_usage(
        context,
        "no certificates: give --ca, --certificate and --key (or TANDEM_CA, TANDEM_CERTIFICATE and "
        "TANDEM_KEY, or a client.toml), or --insecure for nodes that have tls = false"));
  return static_cast<int>(chosen(context));
}

}  // namespace tandem::ctl
