// tandem restore: a volume of a backup, to an image file or over another volume.
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "backup/image_file.h"
#include "backup/restore.h"
#include "ctl/backup_json.h"
#include "ctl/commands.h"
#include "ctl/format.h"
#include "ctl/nbd_export.h"
#include "ctl/progress.h"

namespace tandem::ctl {
namespace {

/// One volume of a point, to be written somewhere; what an interrupted one has done is found.
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
    auto opened = backup::ImageFile::open(request_.file, identity(), {.anew = request_.restart});
    if (!opened) return fail(context_, opened.error());
    backup::ImageFile image = std::move(*opened);
    anew_because_ = image.anew_because();
    if (!anew_because_.empty())
      say("What an interrupted restore left is begun anew: " + anew_because_ + ".");
    if (image.resumed_at() != 0)
      say("Going on with an interrupted restore: the first " + size_text(image.resumed_at()) +
          " are there.");
    auto done = write(image, [&](const auto& progress) {
      return backup::restore(*reader_, image, true, progress);
    });
    if (!done)
      return fail_partly(done.error(), request_.file + " was not made", "goes on from here");
    done->found = image.found_bytes();
    done->written -= done->found;
    return report(*done, request_.file);
  }

  backup::ImageIdentity identity() const {
    return {point_->manifest->group_id, point_->number, point_->manifest_sha256, volume_,
            reader_->size_bytes()};
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
    const auto done = write(target, [&](const auto& progress) {
      return *empty || request_.restart
                 ? backup::restore(*reader_, target, *empty, progress)
                 : backup::restore_difference(*reader_, target, target, progress);
    });
    if (!done)
      return fail_partly(done.error(), "volume " + name + " holds only a part now",
                         "writes the rest");
    return report(*done, "volume " + name + " at node " + node->node);
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

  template <typename Work>
  Result<backup::Restored> write(const backup::Target& target, const Work& work) {
    ProgressBar bar(context_, volume_, target.size_bytes());
    const backup::Progress progress = [&](std::uint64_t bytes) { bar.add(bytes); };
    return work(progress);
  }

  void say(const std::string& text) {
    if (!context_.settings.json) context_.out << text << "\n" << std::flush;
  }

  Exit fail_partly(const Error& error, const std::string& result, const std::string& again) {
    // A backup that is damaged stays so.
    const bool helps = error.code != ErrorCode::kCorrupt;
    return fail(context_, {error.code, error.message + "; " + result +
                                           (helps ? ": the same command again " + again : "")});
  }

  Exit report(const backup::Restored& done, const std::string& where) {
    if (context_.settings.json) {
      context_.out << json_text(
          {{"ok", true},
           {"point", point_->number},
           {"volume", volume_},
           {"size_bytes", reader_->size_bytes()},
           {"found_bytes", done.found},
           {"written_bytes", done.written},
           {"zeroed_bytes", done.zeroed},
           {"begun_anew_because", anew_because_.empty() ? Json(nullptr) : Json(anew_because_)},
           {"to", where}});
      return Exit::kOk;
    }
    say("Restored " + what() + ", " + size_text(reader_->size_bytes()) + ", to " + where + ".");
    if (done.found != 0)
      say("Found there already: " + size_text(done.found) +
          " of its data; written: " + size_text(done.written) + ".");
    return Exit::kOk;
  }

  Context& context_;
  const RestoreRequest& request_;
  const backup::Repository& repository_;
  const backup::Point* point_ = nullptr;
  std::string volume_;
  std::string anew_because_;  // "": it is not
  std::unique_ptr<backup::LayeredReader> reader_;
};

}  // namespace

Exit run_restore(Context& context, const RestoreRequest& request) {
  const auto repository = backup::Repository::open(request.directory, false);
  if (!repository) return fail(context, repository.error());
  return Restoration(context, request, *repository).run();
}

}  // namespace tandem::ctl
