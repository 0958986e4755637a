// tandem backup create: a snapshot is chosen or taken, and what differs from the last point's
// snapshot is written as a new point. Each step leaves behind what the next run goes on from.
#include <algorithm>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <thread>

#include "backup/save.h"
#include "ctl/backup_json.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/group_copies.h"
#include "ctl/progress.h"

namespace tandem::ctl {
namespace {

using backup::Manifest;
using backup::SnapshotId;
using backup::VolumePart;

/// A restore has the files of all points of a chain open at once.
constexpr std::size_t kChainMax = 250;
constexpr auto kMirrorLook = std::chrono::milliseconds(200);

/// "2026-05-01T12:00:00Z": as the nodes name snapshots by time.
std::string utc_name(UtcNs time) {
  const auto seconds = static_cast<std::time_t>(time.value / 1'000'000'000);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

class Creation {
 public:
  Creation(Context& context, const BackupRequest& request, GroupCopies& copies,
           backup::Repository repository)
      : context_(context), request_(request), copies_(copies), repository_(std::move(repository)) {}

  /// What the next run goes on with; "" when there is nothing.
  std::string advice() const {
    return repository_.plan() ? "; the same command goes on from here" : "";
  }

  Status run() {
    TANDEM_TRY(check_directory());
    TANDEM_TRY(look_for_a_plan());
    if (!resumed_) TANDEM_TRY(begin());
    if (plan_.snapshot.lsn.value == 0) TANDEM_TRY(take_snapshot());
    if (plan_.volumes.empty()) TANDEM_TRY(plan_volumes());
    for (auto& volume : plan_.volumes) TANDEM_TRY(copy(volume));
    TANDEM_TRY(repository_.commit(plan_));
    drop_old_snapshots();
    report();
    return ok();
  }

 private:
  void say(const std::string& text) {
    if (!context_.settings.json) context_.out << text << "\n" << std::flush;
  }

  Status check_directory() const {
    const auto plan = repository_.plan();
    const Manifest* there = plan ? &*plan : nullptr;
    for (const auto& point : repository_.points()) {
      if (point.manifest) there = &*point.manifest;
    }
    if (there == nullptr || there->group_id == copies_.id()) return ok();
    return Error{ErrorCode::kRefused, repository_.directory().string() +
                                          " is the backup of another group, " + there->group +
                                          " (" + there->group_id + "); use another directory"};
  }

  // --- Going on with what was interrupted ------------------------------------------------------

  Status look_for_a_plan() {
    const auto plan = repository_.plan();
    if (!plan) return ok();
    const auto why = against(*plan);
    if (!why) return why.error();
    const auto number = std::to_string(plan->number);
    if (why->empty()) {
      say("Going on with point " + number + ", which was interrupted.");
      plan_ = *plan;
      resumed_ = true;
      return ok();
    }
    say("The interrupted point " + number + " is begun anew: " + *why + ".");
    TANDEM_TRY(repository_.drop_plan());
    if (plan->snapshot_is_ours && plan->snapshot.lsn.value != 0) copies_.drop(plan->snapshot);
    return ok();
  }

  /// Why the plan is not gone on with, if it is not. An error: that cannot be told now.
  Result<std::string> against(const Manifest& plan) const {
    if (request_.restart) return std::string("as told");
    if (request_.full && plan.from) return std::string("a full backup was asked for");
    if (!request_.snapshot.empty() && request_.snapshot != plan.snapshot.name)
      return "it was of snapshot " + plan.snapshot.name;
    if (plan.snapshot.lsn.value == 0) return std::string();  // not taken yet
    const auto places = places_of(plan);
    if (!places && places.error().code == ErrorCode::kNotFound) return places.error().message;
    if (!places)
      return Error{places.error().code, "cannot go on with the interrupted point " +
                                            std::to_string(plan.number) + ": " +
                                            places.error().message + "; --restart begins it anew"};
    const auto names = wanted_volumes(*find_snapshot(*places->front().group, plan.snapshot));
    if (!names) return names.error();
    const bool same =
        plan.volumes.empty() ||  // not chosen yet
        std::equal(names->begin(), names->end(), plan.volumes.begin(), plan.volumes.end(),
                   [](const auto& name, const VolumePart& part) { return name == part.name; });
    return std::string(same ? "" : "it was of other volumes");
  }

  Result<std::vector<Place>> places_of(const Manifest& plan) const {
    return copies_.places(plan.snapshot, plan.from ? &plan.from->snapshot : nullptr);
  }

  // --- A new point -----------------------------------------------------------------------------

  Status begin() {
    plan_.group = request_.group;
    plan_.group_id = copies_.id();
    plan_.created = copies_.now();
    choose_base();
    plan_.snapshot_is_ours = request_.snapshot.empty();
    if (plan_.snapshot_is_ours) {
      plan_.snapshot.name = copies_.free_name("backup-" + utc_name(plan_.created));
    } else {
      TANDEM_TRY(use_snapshot());
    }
    return repository_.begin(plan_);
  }

  void choose_base() {
    const auto full = [&](const std::string& why) { full_because_ = why; };
    if (repository_.points().empty()) return full("it is the first");
    if (request_.full) return full("as told");
    const auto& last = repository_.points().back();
    if (!last.manifest) return full(last.manifest.error().message);
    const auto chain = repository_.scope(last.number);
    if (chain && chain->size() >= kChainMax)
      return full("the last one is " + std::to_string(kChainMax) + " points ago");
    const auto& snapshot = last.manifest->snapshot;
    if (copies_.keeps(snapshot)) {
      plan_.from = backup::From{last.number, snapshot, last.manifest_sha256};
      return;
    }
    const auto silent = copies_.silent_nodes();
    full("snapshot " + snapshot.name + ", of which point " + std::to_string(last.number) +
         " was made, is gone" + (silent.empty() ? "" : ", or at a node that is silent: " + silent));
  }

  /// The one that was named.
  Status use_snapshot() {
    const auto* found = copies_.find(request_.snapshot);
    if (found == nullptr)
      return Error{ErrorCode::kNotFound, "there is no snapshot " + request_.snapshot +
                                             " of group " + request_.group +
                                             "; 'tandem snapshot list' shows all"};
    plan_.snapshot = {found->name, found->lsn, found->utc};
    for (const auto& point : repository_.points()) {
      if (point.manifest && point.manifest->snapshot.is(found->lsn, found->utc))
        return Error{ErrorCode::kExists, "point " + std::to_string(point.number) +
                                             " is of snapshot " + found->name + " already"};
    }
    return ok();
  }

  /// The plan says its name already: a run after one that was killed in here finds it.
  Status take_snapshot() {
    const auto made = copies_.take(plan_.snapshot.name, "of the backup");
    if (!made) return made.error();
    plan_.snapshot = {made->name, made->lsn, made->utc};
    TANDEM_TRY(repository_.update(plan_));
    return copies_.ask();
  }

  Status plan_volumes() {
    auto places = wait_for_places();
    if (!places && places.error().code == ErrorCode::kNotFound && plan_.from) {
      full_because_ = places.error().message;
      plan_.from.reset();
      places = wait_for_places();
    }
    if (!places) return places.error();
    const auto& snapshot = *find_snapshot(*places->front().group, plan_.snapshot);
    plan_.consistency = snapshot.consistency;
    plan_.seed = seed_of(places->front(), snapshot.name);
    const auto names = wanted_volumes(snapshot);
    if (!names) return names.error();
    const Manifest* last = nullptr;
    if (plan_.from) {
      const auto point = repository_.find(plan_.from->number);
      if (!point) return point.error();
      last = &*(*point)->manifest;
    }
    for (const auto& name : *names) {
      VolumePart part;
      part.name = name;
      part.based = last != nullptr && last->find(name) != nullptr;
      part.file = "volume-" + std::to_string(plan_.volumes.size() + 1) + ".data";
      const auto opened = open(*places, part);
      if (!opened) return opened.error();
      part.size_bytes = opened->exported->size_bytes();
      part.logical_block_bytes = opened->exported->logical_block_bytes();
      plan_.volumes.push_back(std::move(part));
    }
    return repository_.update(plan_);
  }

  /// Without it the point is as good a backup, but no mirror can be made from it.
  std::optional<SeedPoint> seed_of(const Place& place, const std::string& snapshot) {
    const auto client = context_.connect(place.service, patient(context_.settings));
    auto shown = client ? (*client)->show_snapshot(place.group->name, snapshot)
                        : Result<SnapshotStatus>(client.error());
    if (shown && shown->seed) return std::move(shown->seed);
    say("No mirror can be made from this point: " +
        (shown ? "node " + place.node->node + " does not say what that needs"
               : shown.error().message) +
        ".");
    return std::nullopt;
  }

  Result<std::vector<std::string>> wanted_volumes(const SnapshotStatus& snapshot) const {
    const auto& asked = request_.volumes;
    for (const auto& name : asked) {
      if (!has_volume(snapshot, name))
        return Error{ErrorCode::kNotFound, "snapshot " + snapshot.name + " has no volume " + name};
    }
    std::vector<std::string> names;
    for (const auto& volume : snapshot.volumes) {
      if (asked.empty() || std::find(asked.begin(), asked.end(), volume.name) != asked.end())
        names.push_back(volume.name);
    }
    return names;
  }

  /// A mirror has a new snapshot a moment after the primary.
  Result<std::vector<Place>> wait_for_places() {
    const auto end = std::chrono::steady_clock::now() + patient(context_.settings);
    for (;;) {
      auto places = places_of(plan_);
      if (places || std::chrono::steady_clock::now() > end) return places;
      std::this_thread::sleep_for(kMirrorLook);
      TANDEM_TRY(copies_.ask());
    }
  }

  // --- The work --------------------------------------------------------------------------------

  Result<Opened> open(const std::vector<Place>& places, const VolumePart& part) const {
    return open_at_one(places, context_.settings, [&](const Place& place) {
      const auto* snapshot = find_snapshot(*place.group, plan_.snapshot);
      Wanted wanted{export_name(*place.group, part.name) + "@" + snapshot->name, ""};
      if (part.based) wanted.since = find_snapshot(*place.group, plan_.from->snapshot)->name;
      return wanted;
    });
  }

  Status copy(VolumePart& part) {
    const auto places = places_of(plan_);
    if (!places) return places.error();
    const auto opened = open(*places, part);
    if (!opened) return opened.error();
    auto& source = *opened->exported;
    const auto path = repository_.plan_path() / part.file;
    const auto file = backup::ChunkWriter::open(path, request_.zstd_level);
    if (!file) return file.error();
    Result<std::uint64_t> total = 0;
    if (ProgressBar::is_shown(context_))
      total = backup::bytes_to_save(source, (*file)->next(), part.based);
    if (!total) return total.error();
    {
      ProgressBar bar(context_, part.name, *total);
      TANDEM_TRY(
          backup::save(source, **file, part.based, [&](std::uint64_t bytes) { bar.add(bytes); }));
    }
    const auto summary = (*file)->finish();
    if (!summary) return summary.error();
    part.summary = *summary;
    plan_.node = opened->place->node->node;
    return ok();
  }

  // --- Afterwards ------------------------------------------------------------------------------

  /// The next increment needs the last one only.
  void drop_old_snapshots() {
    for (const auto& point : repository_.points()) {
      if (point.manifest && point.manifest->snapshot_is_ours && point.number != plan_.number)
        copies_.drop(point.manifest->snapshot);
    }
  }

  void report() {
    const auto& point = repository_.points().back();
    if (context_.settings.json) {
      Json out = to_json(point);
      out["directory"] = repository_.directory().string();
      out["resumed"] = resumed_;
      out["full_because"] = full_because_.empty() ? Json(nullptr) : Json(full_because_);
      context_.out << json_text(out);
      return;
    }
    std::uint64_t data_bytes = 0;
    for (const auto& volume : plan_.volumes) data_bytes += volume.summary.data_bytes;
    if (!full_because_.empty()) say("This is a full backup: " + full_because_ + ".");
    say("Point " + std::to_string(plan_.number) + " of group " + plan_.group + " is in " +
        point.path.string() + ": " + size_text(data_bytes) + " of data" +
        (plan_.from ? " since point " + std::to_string(plan_.from->number) : "") + ", " +
        size_text(file_bytes_of(*point.manifest)) + " on disk, " + plan_.consistency +
        ", read at node " + plan_.node + ".");
    say("Keep snapshot " + plan_.snapshot.name + ": the next backup writes what changed since.");
  }

  Context& context_;
  const BackupRequest& request_;
  GroupCopies& copies_;
  backup::Repository repository_;
  Manifest plan_;
  bool resumed_ = false;
  std::string full_because_;
};

}  // namespace

Exit run_backup_create(Context& context, const BackupRequest& request) {
  GroupCopies copies(context, request.group, request.nbd);
  if (const auto asked = copies.ask(); !asked) return fail(context, asked.error(), false);
  auto repository = backup::Repository::open(request.directory, true);
  if (!repository) return fail(context, repository.error());
  Creation creation(context, request, copies, std::move(*repository));
  if (const auto done = creation.run(); !done)
    return fail(context, {done.error().code, done.error().message + creation.advice()},
                done.error().code != ErrorCode::kUnavailable);
  return Exit::kOk;
}

}  // namespace tandem::ctl
