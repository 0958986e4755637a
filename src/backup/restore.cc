#include "backup/restore.h"

#include <algorithm>
#include <cstring>

#include "tandem/base/check.h"

namespace tandem::backup {
namespace {

/// So many pieces are compared at once: their reads are under way together.
constexpr std::size_t kPiecesMax = 16;

/// Gives every piece of `volume` to `take`.
template <typename Take>
Status for_each_piece(LayeredReader& volume, const Take& take) {
  for (;;) {
    const auto piece = volume.next();
    if (!piece) return piece.error();
    if (!*piece) return ok();
    TANDEM_TRY(take(**piece));
  }
}

/// The runs of a source, asked for in ascending order.
class RunsAhead {
 public:
  explicit RunsAhead(Source& source) : source_(source) {}

  /// Those of a range, without gaps.
  Result<std::vector<Run>> of(std::uint64_t offset, std::uint64_t length) {
    std::vector<Run> out;
    for (const auto end = offset + length; offset < end;) {
      while (next_ < runs_.size() && runs_[next_].offset + runs_[next_].length <= offset) ++next_;
      if (next_ == runs_.size()) {
        auto more = source_.runs(offset);
        if (!more) return Error(std::move(more.error()));
        runs_ = std::move(*more);
        next_ = 0;
      }
      Run run = runs_[next_];
      run.length = std::min(run.offset + run.length, end) - offset;
      run.offset = offset;
      offset += run.length;
      out.push_back(run);
    }
    return out;
  }

 private:
  Source& source_;
  std::vector<Run> runs_;
  std::size_t next_ = 0;
};

class Difference {
 public:
  Difference(Target& target, Source& content, const Progress& progress)
      : target_(target), content_(content), runs_(content), progress_(progress) {}

  Status take(const Chunk& chunk) {
    if (chunk.zero) return clear(chunk.offset, chunk.length);
    const auto bytes_max = content_.piece_bytes_max();
    for (std::size_t at = 0; at < chunk.data.size(); at += bytes_max) {
      const auto size = std::min(bytes_max, chunk.data.size() - at);
      TANDEM_TRY(add(chunk.offset + at, chunk.data.subspan(at, size)));
    }
    return ok();
  }

  Status clear(std::uint64_t offset, std::uint64_t length) {
    if (length == 0) return ok();
    const auto there = runs_.of(offset, length);
    if (!there) return there.error();
    for (const auto& run : *there) {
      if (run.zero) continue;
      TANDEM_TRY(target_.zero(run.offset, run.length));
      done_.zeroed += run.length;
    }
    if (progress_) progress_(length);
    return ok();
  }

  Result<Restored> finish() {
    TANDEM_TRY(compare());
    TANDEM_TRY(target_.finish());
    return done_;
  }

 private:
  struct Piece {
    Run there;  // of the content; zero: nothing to read
    std::vector<std::byte> data;
  };

  Status add(std::uint64_t offset, std::span<const std::byte> data) {
    const auto there = runs_.of(offset, data.size());
    if (!there) return there.error();
    const bool zero =
        std::all_of(there->begin(), there->end(), [](const Run& run) { return run.zero; });
    pieces_.push_back({{offset, data.size(), true, zero}, {data.begin(), data.end()}});
    return pieces_.size() < kPiecesMax ? ok() : compare();
  }

  Status compare() {
    std::vector<Run> runs;
    for (const auto& piece : pieces_) runs.push_back(piece.there);
    auto piece = pieces_.begin();
    const auto sink = [&](const Run& run, std::span<const std::byte> there) -> Status {
      const auto& data = (piece++)->data;
      if (there.size() == data.size() && std::memcmp(there.data(), data.data(), data.size()) == 0) {
        done_.found += run.length;
      } else {
        TANDEM_TRY(target_.write(run.offset, data));
        done_.written += run.length;
      }
      if (progress_) progress_(run.length);
      return ok();
    };
    TANDEM_TRY(content_.read(runs, sink));
    pieces_.clear();
    return ok();
  }

  Target& target_;
  Source& content_;
  RunsAhead runs_;
  const Progress& progress_;
  std::vector<Piece> pieces_;
  Restored done_;
};

}  // namespace

Result<Restored> restore(LayeredReader& volume, Target& target, bool target_is_zero,
                         const Progress& progress) {
  CHECK(target.size_bytes() >= volume.size_bytes());
  Restored done;
  const auto clear = [&](std::uint64_t offset, std::uint64_t length) -> Status {
    if (length == 0 || target_is_zero) return ok();
    done.zeroed += length;
    return target.zero(offset, length);
  };
  TANDEM_TRY(for_each_piece(volume, [&](const Chunk& now) -> Status {
    TANDEM_TRY(now.zero ? clear(now.offset, now.length) : target.write(now.offset, now.data));
    if (!now.zero) done.written += now.length;
    if (progress) progress(now.length);
    return ok();
  }));
  const auto rest = target.size_bytes() - volume.size_bytes();
  TANDEM_TRY(clear(volume.size_bytes(), rest));
  if (progress) progress(rest);
  TANDEM_TRY(target.finish());
  return done;
}

Result<Restored> restore_difference(LayeredReader& volume, Target& target, Source& content,
                                    const Progress& progress) {
  CHECK(target.size_bytes() >= volume.size_bytes() && content.size_bytes() == target.size_bytes());
  Difference difference(target, content, progress);
  TANDEM_TRY(
      for_each_piece(volume, [&](const Chunk& chunk) -> Status { return difference.take(chunk); }));
  TANDEM_TRY(difference.clear(volume.size_bytes(), target.size_bytes() - volume.size_bytes()));
  return difference.finish();
}

}  // namespace tandem::backup
