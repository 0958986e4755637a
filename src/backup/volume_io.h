// What backup and restore see of a volume: runs to read from, ranges to write to. An NBD export is
// both, an image file the latter.
//
// Thread: any, one call at a time. Offsets and lengths are bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "tandem/base/result.h"

namespace tandem::backup {

/// A run of a volume that is of one kind.
struct Run {
  std::uint64_t offset = 0, length = 0;
  bool changed = true;  // since the snapshot that was asked about; true when none was
  bool zero = false;    // reads as zeroes
  bool operator==(const Run&) const = default;
};

/// The most that is read, written and kept as one.
inline constexpr std::size_t kPieceBytesMax = 1 << 20;

class Source {
 public:
  virtual ~Source() = default;
  virtual std::uint64_t size_bytes() const = 0;
  /// What one read may be at most; not above kPieceBytesMax.
  virtual std::size_t piece_bytes_max() const { return kPieceBytesMax; }
  /// The runs from `offset` on, without gaps, of a part that the source chooses; at least one.
  virtual Result<std::vector<Run>> runs(std::uint64_t offset) = 0;
  /// Reads those of `runs` that are not zero (at most piece_bytes_max() each) and gives all to
  /// `sink`, in order; several are under way at once. `data` is good during the call only; for zero
  /// it is empty.
  using Sink = std::function<Status(const Run& run, std::span<const std::byte> data)>;
  virtual Status read(std::span<const Run> runs, const Sink& sink) = 0;
};

class Target {
 public:
  virtual ~Target() = default;
  virtual std::uint64_t size_bytes() const = 0;
  /// Begins a write; `data` is copied. No two ranges overlap. Errors of earlier writes come out in
  /// later calls, at the latest in finish().
  virtual Status write(std::uint64_t offset, std::span<const std::byte> data) = 0;
  virtual Status zero(std::uint64_t offset, std::uint64_t length) = 0;
  /// All of it is done, and durable, when this returns.
  virtual Status finish() = 0;
};

/// Told how many more bytes of work are done.
using Progress = std::function<void(std::uint64_t bytes)>;

}  // namespace tandem::backup
