// Repository: a directory with the points of one group's backup. See FORMAT.md.
//
// Thread: any, one call at a time. One process at a time writes: the directory is locked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backup/manifest.h"
#include "backup/volume_io.h"

namespace tandem::backup {

/// A whole point, or one whose manifest cannot be trusted.
struct Point {
  std::uint32_t number = 0;
  Path path;
  Result<Manifest> manifest = Error{ErrorCode::kNotFound, "not read"};
  std::string manifest_sha256;
};

/// One of the data files, oldest first, that together make a volume as it was at a point.
struct Layer {
  std::uint32_t number = 0;
  Path file;
  VolumePart part;
};

/// What is wrong with a point.
struct Damage {
  std::uint32_t number = 0;
  std::string volume;                    // "": the point itself
  std::string what;                      // names the file
  std::uint64_t offset = 0, length = 0;  // of the volume, what cannot be trusted
};

struct Verdict {
  std::vector<std::uint32_t> whole;  // can be restored, with all that they build on
  std::vector<Damage> damages;
};

class Repository {
 public:
  /// To read: the directory must exist. To write: it is made, and locked until the object goes;
  /// kBusy when somebody else has it.
  static Result<Repository> open(const Path& directory, bool to_write);

  const Path& directory() const { return directory_; }
  const std::vector<Point>& points() const { return points_; }  // by number
  /// `number` 0: the last one. kNotFound; kCorrupt: its manifest is damaged.
  Result<const Point*> find(std::uint32_t number) const;
  /// Errors: kNotFound, kCorrupt: what is missing of it.
  Result<std::vector<Layer>> layers(const Point& point, const std::string& volume) const;

  /// The point that an interrupted backup began, if there is one.
  std::optional<Manifest> plan() const;
  Status drop_plan();
  /// Begins a point in place of any plan; its number is given here.
  Status begin(Manifest& plan);
  /// Replaces the plan; its data files stay.
  Status update(const Manifest& plan);
  /// Where the files of the plan are written.
  Path plan_path() const;
  /// `whole` has every volume's summary, and the files are synced. Durable when it returns.
  Status commit(const Manifest& whole);

  /// The point and those that it builds on, as far as they are there, ascending; of 0: all.
  /// kNotFound.
  Result<std::vector<const Point*>> scope(std::uint32_t number) const;
  /// Reads all of these points; `progress` goes by bytes of their files.
  Verdict verify(const std::vector<const Point*>& scope, const Progress& progress) const;

 private:
  static std::string name_of(std::uint32_t number);
  Status read_points();
  std::uint32_t next_number() const;
  Point read_point(std::uint32_t number) const;
  void verify_links(const Point& point, std::vector<Damage>& damages) const;

  Path directory_;
  std::optional<File> lock_;
  std::vector<Point> points_;
};

}  // namespace tandem::backup
