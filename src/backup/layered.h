// A volume as it was at a point, put together from the data files of the points that it builds on.
//
// Thread: any, one call at a time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "backup/repository.h"
#include "backup/volume_io.h"

namespace tandem::backup {

class LayeredReader {
 public:
  /// `layers` as Repository::layers() gives them: oldest first.
  static Result<std::unique_ptr<LayeredReader>> open(const std::vector<Layer>& layers);

  std::uint64_t size_bytes() const { return layers_.back().part.size_bytes; }
  /// The next piece, ascending, without gaps from 0 to size_bytes(); `data` is good until the next
  /// call. Nullopt at the end, once every file turned out to be what its manifest describes.
  /// kCorrupt: which file is not, and where.
  Result<std::optional<Chunk>> next();

 private:
  struct Open {
    VolumePart part;
    Path file;
    std::unique_ptr<ChunkReader> reader;
    std::optional<Chunk> chunk;  // the first that ends behind at_; none: the file is through
    bool through = false;
  };
  Status advance(Open& layer);
  Status check_the_rest();

  std::vector<Open> layers_;  // oldest first
  std::uint64_t at_ = 0;
};

}  // namespace tandem::backup
