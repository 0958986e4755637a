#include "backup/repository.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cstdio>

namespace tandem::backup {
namespace {

constexpr std::size_t kDigits = 6;
constexpr char kPartial[] = ".partial";

/// The number that a directory's name says, or 0.
std::uint32_t number_of(const std::string& name) {
  const bool digits =
      name.size() == kDigits &&
      std::all_of(name.begin(), name.end(), [](unsigned char c) { return c >= '0' && c <= '9'; });
  return digits ? static_cast<std::uint32_t>(std::stoul(name)) : 0;
}

Error lacks(const std::string& what, std::uint32_t number) {
  return {ErrorCode::kNotFound, "point " + std::to_string(number) + " needs " + what};
}

/// SHA256SUMS: of the manifest as `text`, and of the files that it describes.
std::string sums_of(const std::string& text, const Manifest& manifest) {
  std::string sums = sha256_of(text) + "  manifest.json\n";
  for (const auto& volume : manifest.volumes)
    sums += volume.summary.sha256 + "  " + volume.file + "\n";
  return sums;
}

}  // namespace

std::string Repository::name_of(std::uint32_t number) {
  char name[16];
  std::snprintf(name, sizeof name, "%06u", number);
  return name;
}

std::uint32_t Repository::next_number() const {
  return points_.empty() ? 1 : points_.back().number + 1;
}

Result<Repository> Repository::open(const Path& directory, bool to_write) {
  Repository repository;
  repository.directory_ = directory;
  std::error_code failed;
  if (to_write) std::filesystem::create_directories(directory, failed);
  if (failed)
    return Error{ErrorCode::kIo, "cannot make " + directory.string() + ": " + failed.message()};
  if (to_write) {
    auto lock = File::open(directory / "lock", O_RDWR | O_CREAT);
    if (!lock) return Error(std::move(lock.error()));
    if (::flock(lock->descriptor(), LOCK_EX | LOCK_NB) != 0)
      return Error{ErrorCode::kBusy, "another tandem is writing to " + directory.string() +
                                         "; wait until it is done"};
    repository.lock_ = std::move(*lock);
  }
  TANDEM_TRY(repository.read_points());
  return repository;
}

Status Repository::read_points() {
  std::error_code failed;
  std::filesystem::directory_iterator entries(directory_, failed);
  if (failed)
    return Error{ErrorCode::kNotFound,
                 "cannot read the backup in " + directory_.string() + ": " + failed.message()};
  for (const auto& entry : entries) {
    const auto number = number_of(entry.path().filename().string());
    if (number != 0) points_.push_back(read_point(number));
  }
  std::sort(points_.begin(), points_.end(),
            [](const Point& a, const Point& b) { return a.number < b.number; });
  return ok();
}

Point Repository::read_point(std::uint32_t number) const {
  Point point;
  point.number = number;
  point.path = directory_ / name_of(number);
  const auto damaged = [&](ErrorCode code, const std::string& why) {
    point.manifest =
        Error{code, "point " + std::to_string(number) + " (" + point.path.string() + "): " + why};
    return point;
  };
  const auto text = read_text(point.path / "manifest.json");
  const auto sums = read_text(point.path / "SHA256SUMS");
  if (!text || !sums)
    return damaged(ErrorCode::kCorrupt, (!text ? text.error() : sums.error()).message);
  point.manifest_sha256 = sha256_of(*text);
  if (!sums->starts_with(point.manifest_sha256 + "  manifest.json\n"))
    return damaged(ErrorCode::kCorrupt, "its manifest is not the one that SHA256SUMS names");
  point.manifest = parse_manifest(*text);
  if (!point.manifest) {
    const Error why = point.manifest.error();
    return damaged(why.code, "manifest.json: " + why.message);
  }
  if (point.manifest->number != number)
    return damaged(ErrorCode::kCorrupt, "its manifest is another point's");
  if (*sums != sums_of(*text, *point.manifest))
    return damaged(ErrorCode::kCorrupt, "SHA256SUMS is not what its manifest describes");
  return point;
}

Result<const Point*> Repository::find(std::uint32_t number) const {
  for (auto point = points_.rbegin(); point != points_.rend(); ++point) {
    if (number != 0 && point->number != number) continue;
    if (!point->manifest) return point->manifest.error();
    return &*point;
  }
  const std::string what = number == 0 ? "backup"
                                       : "point " + std::to_string(number) +
                                             "; 'tandem backup list' shows what there is";
  return Error{ErrorCode::kNotFound, directory_.string() + " has no " + what};
}

Result<std::vector<Layer>> Repository::layers(const Point& point, const std::string& volume) const {
  std::vector<Layer> layers;
  const Point* at = &point;
  for (;;) {
    const auto* part = at->manifest->find(volume);
    if (part == nullptr)
      return lacks(
          "volume " + volume + ", which point " + std::to_string(at->number) + " does not have",
          point.number);
    layers.insert(layers.begin(), Layer{at->number, at->path / part->file, *part});
    if (!part->based) return layers;
    const auto& from = at->manifest->from;
    if (!from || from->number >= at->number) return lacks("a point in front of it", at->number);
    const auto before = find(from->number);
    if (!before)
      return Error{before.error().code, "point " + std::to_string(point.number) + " needs point " +
                                            std::to_string(from->number) + ": " +
                                            before.error().message};
    if ((*before)->manifest_sha256 != from->manifest_sha256)
      return lacks("another point " + std::to_string(from->number) + " than the one that is here",
                   at->number);
    at = *before;
  }
}

Path Repository::plan_path() const { return directory_ / (name_of(next_number()) + kPartial); }

std::optional<Manifest> Repository::plan() const {
  const auto text = read_text(plan_path() / "plan.json");
  if (!text) return std::nullopt;
  auto plan = parse_manifest(*text);
  if (!plan || plan->number != next_number()) return std::nullopt;
  return std::move(*plan);
}

Status Repository::drop_plan() {
  // Of any number: points may have been taken away since.
  std::error_code failed;
  for (std::filesystem::directory_iterator entries(directory_, failed), end;
       !failed && entries != end; entries.increment(failed)) {
    const auto path = entries->path();
    if (path.extension() != kPartial || number_of(path.stem().string()) == 0) continue;
    std::filesystem::remove_all(path, failed);
    if (failed)
      return Error{ErrorCode::kIo, "cannot remove " + path.string() + ": " + failed.message()};
  }
  return ok();
}

Status Repository::begin(Manifest& plan) {
  TANDEM_TRY(drop_plan());
  plan.number = next_number();
  std::error_code failed;
  std::filesystem::create_directory(plan_path(), failed);
  if (failed)
    return Error{ErrorCode::kIo, "cannot make " + plan_path().string() + ": " + failed.message()};
  return update(plan);
}

Status Repository::update(const Manifest& plan) {
  // Under another name first: half a plan is none.
  TANDEM_TRY(write_text(plan_path() / "plan.new", to_text(plan)));
  return rename_durably(plan_path() / "plan.new", plan_path() / "plan.json");
}

Status Repository::commit(const Manifest& whole) {
  const Path partial = plan_path();
  const std::string text = to_text(whole);
  TANDEM_TRY(write_text(partial / "manifest.json", text));
  TANDEM_TRY(write_text(partial / "SHA256SUMS", sums_of(text, whole)));
  TANDEM_TRY(sync_directory(partial));
  const Path whole_path = directory_ / name_of(whole.number);
  TANDEM_TRY(rename_durably(partial, whole_path));
  std::error_code ignored;  // of no use any more, and in nobody's way
  std::filesystem::remove(whole_path / "plan.json", ignored);
  points_.push_back(read_point(whole.number));
  return points_.back().manifest ? ok() : Status(points_.back().manifest.error());
}

}  // namespace tandem::backup
