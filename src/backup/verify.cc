// Verification of a backup without a node: every byte of every file is read.
#include <algorithm>

#include "backup/repository.h"

namespace tandem::backup {
namespace {

void verify_file(const Point& point, const VolumePart& part, const Progress& progress,
                 std::vector<Damage>& damages) {
  const auto before = damages.size();
  const auto complain = [&](const std::string& what, std::uint64_t offset, std::uint64_t length) {
    damages.push_back({point.number, part.name, what, offset, length});
  };
  auto reader = ChunkReader::open(point.path / part.file);
  if (!reader) return complain(reader.error().message, 0, part.size_bytes);
  std::uint64_t told = 0, end = 0;
  for (;;) {
    const auto chunk = (*reader)->next();
    if (chunk && !*chunk) break;
    const auto lost = chunk ? std::nullopt : (*reader)->damaged();
    if (!chunk && !lost) return complain(chunk.error().message, end, part.size_bytes - end);
    const Chunk& where = chunk ? **chunk : *lost;
    if (where.offset + where.length > part.size_bytes)
      return complain("a chunk reaches behind the volume's end", end, part.size_bytes - end);
    if (lost) complain(chunk.error().message, lost->offset, lost->length);
    end = where.offset + where.length;
    const auto read = (*reader)->file_bytes();
    if (progress) progress(read - std::exchange(told, read));
  }
  if (damages.size() == before && (*reader)->summary() != part.summary)
    complain((point.path / part.file).string() + " is not the file that the manifest describes", 0,
             part.size_bytes);
}

}  // namespace

/// Whether the points that it builds on are there.
void Repository::verify_links(const Point& point, std::vector<Damage>& damages) const {
  for (const auto& volume : point.manifest->volumes) {
    const auto chain = layers(point, volume.name);
    if (!chain)
      damages.push_back({point.number, volume.name, chain.error().message, 0, volume.size_bytes});
  }
}

Result<std::vector<const Point*>> Repository::scope(std::uint32_t number) const {
  std::vector<const Point*> scope;
  if (number == 0) {
    for (const auto& point : points_) scope.push_back(&point);
    if (scope.empty()) return Error{ErrorCode::kNotFound, directory_.string() + " has no backup"};
    return scope;
  }
  for (auto point = points_.rbegin(); point != points_.rend(); ++point) {
    if (point->number != number) continue;
    scope.insert(scope.begin(), &*point);
    if (!point->manifest || !point->manifest->from) break;
    number = point->manifest->from->number;
  }
  if (!scope.empty()) return scope;
  return Error{ErrorCode::kNotFound, directory_.string() + " has no point " +
                                         std::to_string(number) +
                                         "; 'tandem backup list' shows what there is"};
}

Verdict Repository::verify(const std::vector<const Point*>& scope, const Progress& progress) const {
  Verdict verdict;
  for (const auto* point : scope) {
    const auto before = verdict.damages.size();
    if (!point->manifest) {
      verdict.damages.push_back({point->number, "", point->manifest.error().message, 0, 0});
      continue;
    }
    verify_links(*point, verdict.damages);
    for (const auto& volume : point->manifest->volumes)
      verify_file(*point, volume, progress, verdict.damages);
    const auto& from = point->manifest->from;
    const bool based_on_whole = !from || std::find(verdict.whole.begin(), verdict.whole.end(),
                                                   from->number) != verdict.whole.end();
    if (based_on_whole && verdict.damages.size() == before) verdict.whole.push_back(point->number);
  }
  return verdict;
}

}  // namespace tandem::backup
