// What can be done with a backup: list, verify, restore.
#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

#include "backup/image_file.h"
#include "backup/layered.h"
#include "ctl/backup_json.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/nbd_export.h"
#include "ctl/progress.h"

namespace tandem::ctl {
namespace {

std::string volumes_text(const backup::Manifest& manifest) {
  std::string text;
  for (const auto& volume : manifest.volumes)
    text += (text.empty() ? "" : ", ") + volume.name + " " + size_text(volume.size_bytes);
  return text;
}

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

namespace {

/// One volume of a point, to be written somewhere.
class Restoration {
 public:
  Restoration(Context& context, const RestoreRequest& request, const backup::Repository& repository)
      : context_(context), request_(request), repository_(repository) {}

  Exit run() {
    if (const auto found = find(); !found) return fail(context_, found.error());
    return request_.file.empty() ? to_volume() : to_file();
  }

 private:
  Status find() {
    const auto point = repository_.find(request_.number);
    if (!point) return point.error();
    point_ = *point;
    const auto& volumes = point_->manifest->volumes;
    volume_ = request_.volume;
    if (volume_.empty() && volumes.size() == 1) volume_ = volumes.front().name;
    if (volume_.empty() || point_->manifest->find(volume_) == nullptr)
      return Error{volume_.empty() ? ErrorCode::kRefused : ErrorCode::kNotFound,
                   (volume_.empty()
                        ? "say with --volume which one"
                        : "point " + std::to_string(point_->number) + " has no volume " + volume_) +
                       "; it has: " + volumes_text(*point_->manifest)};
    const auto layers = repository_.layers(*point_, volume_);
    if (!layers) return layers.error();
    auto reader = backup::LayeredReader::open(*layers);
    if (!reader) return Error(std::move(reader.error()));
    reader_ = std::move(*reader);
    return ok();
  }

  std::string what() const {
    const auto& m = *point_->manifest;
    return "volume " + volume_ + " of point " + std::to_string(point_->number) + " (" +
           time_text(m.snapshot.utc) + ")";
  }

  Exit to_file() {
    std::error_code ignored;
    const auto there = std::filesystem::file_size(request_.file, ignored);
    const bool taken = !ignored && there != 0;
    if (taken && !confirmed(context_, request_.yes,
                            "This replaces " + request_.file + " of " + size_text(there) + " by " +
                                what() + ".",
                            std::filesystem::path(request_.file).filename().string()))
      return Exit::kRefused;
    auto image = backup::ImageFile::create(request_.file, reader_->size_bytes());
    if (!image) return fail(context_, image.error());
    return write(*image, true, request_.file, "; " + request_.file + " was not made");
  }

  Exit to_volume() {
    const auto& name = request_.to_volume;
    auto chosen = choose(context_, context_.settings.timeout, "volume " + name + " as primary",
                         serves_volume(name));
    if (!chosen.client) return chosen.exit;
    const auto node = chosen.client->status();
    if (!node) return fail(context_, node.error(), chosen.client->reached());
    const auto address = nbd_address(*node, chosen.client->address(), request_.nbd);
    if (!address) return fail(context_, address.error());
    const auto volume = Export::open(*address, name, context_.settings, "");
    if (!volume) return fail(context_, volume.error());
    auto& target = **volume;
    if (target.size_bytes() < reader_->size_bytes())
      return refuse(context_, "volume " + name + " has " + size_text(target.size_bytes()) + ", " +
                                  what() + " needs " + size_text(reader_->size_bytes()) +
                                  "; 'tandem volume resize' makes it larger");
    const auto empty = is_empty(target);
    if (!empty) return fail(context_, empty.error());
    if (!*empty && !confirmed(context_, request_.yes,
                              "This overwrites all of volume " + name + " at node " + node->node +
                                  " by " + what() + ". Nobody may be using it.",
                              name))
      return Exit::kRefused;
    return write(target, *empty, "volume " + name + " at node " + node->node,
                 "; volume " + name + " holds only a part now: restore it again");
  }

  static Result<bool> is_empty(Export& target) {
    for (std::uint64_t at = 0; at < target.size_bytes();) {
      const auto runs = target.runs(at);
      if (!runs) return runs.error();
      for (const auto& run : *runs) {
        if (!run.zero) return false;
      }
      at = runs->back().offset + runs->back().length;
    }
    return true;
  }

  Exit write(backup::Target& target, bool is_zero, const std::string& where,
             const std::string& on_failure) {
    Status done = ok();
    {
      ProgressBar bar(context_, volume_, target.size_bytes());
      done =
          backup::restore(*reader_, target, is_zero, [&](std::uint64_t bytes) { bar.add(bytes); });
    }
    if (!done) return fail(context_, {done.error().code, done.error().message + on_failure});
    if (context_.settings.json) {
      context_.out << json_text({{"ok", true},
                                 {"point", point_->number},
                                 {"volume", volume_},
                                 {"size_bytes", reader_->size_bytes()},
                                 {"to", where}});
    } else {
      context_.out << "Restored " << what() << ", " << size_text(reader_->size_bytes()) << ", to "
                   << where << ".\n";
    }
    return Exit::kOk;
  }

  Context& context_;
  const RestoreRequest& request_;
  const backup::Repository& repository_;
  const backup::Point* point_ = nullptr;
  std::string volume_;
  std::unique_ptr<backup::LayeredReader> reader_;
};

}  // namespace

Exit run_restore(Context& context, const RestoreRequest& request) {
  const auto repository = backup::Repository::open(request.directory, false);
  if (!repository) return fail(context, repository.error());
  return Restoration(context, request, *repository).run();
}

}  // namespace tandem::ctl
