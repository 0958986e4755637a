// A point of a backup as the image that a mirror begins as: see replication/PROTOCOL.md, "A seed".
//
// Thread: any, one call at a time.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "backup/layered.h"
#include "backup/repository.h"
#include "backup/volume_io.h"
#include "tandem/base/uuid.h"
#include "tandem/port/link.h"

namespace tandem::backup {

/// What is needed of a point, once it is known to be all there.
struct SeedPlan {
  Uuid group;
  SeedPoint seed;
  std::vector<std::vector<Layer>> layers;  // of each of the seed's volumes
  std::uint64_t volume_bytes = 0;          // all volumes' sizes together
  std::uint64_t blocks = 0;                // of 4 KiB, that have data, at most
};

/// Reads manifests only. Errors: kUnsupported: why no mirror can be made from this point, although
/// it may be whole; kNotFound, kCorrupt: what is missing or damaged.
Result<SeedPlan> plan_seed(const Repository& repository, const Point& point);

message::ImageBegin image_of(const SeedPlan& plan);

/// The blocks that are not zero, with the position of the point: they are the same there, whichever
/// record wrote them.
class SeedReader {
 public:
  /// `progress` goes by bytes of volumes.
  static Result<std::unique_ptr<SeedReader>> open(const SeedPlan& plan, Progress progress);

  /// The next blocks of one volume, at most kPieceBytesMax of data. Without entries: the end, and
  /// every byte of every file turned out to be what its manifest describes. kCorrupt: which file is
  /// not.
  Result<message::ImageBlocks> next();

 private:
  struct Part {
    VolumeId id;
    std::unique_ptr<LayeredReader> reader;
  };
  SeedReader(Lsn at, Progress progress) : at_(at), progress_(std::move(progress)) {}
  void take(message::ImageBlocks& out, IoBuffer& data);
  void end_block(message::ImageBlocks& out, IoBuffer& data);
  static bool is_full(const message::ImageBlocks& out);

  const Lsn at_;  // the point
  const Progress progress_;
  std::vector<Part> parts_;
  std::size_t part_ = 0;               // being read
  std::optional<Chunk> piece_;         // what of the last piece was not taken yet
  std::optional<VolumeBlock> filling_;  // has some of its bytes, behind the entries' in the buffer
};

}  // namespace tandem::backup
