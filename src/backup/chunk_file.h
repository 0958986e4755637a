// A volume's part of a point: chunks of data and of zeroes, each with its sum. See FORMAT.md.
//
// Thread: any, one call at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "backup/files.h"
#include "backup/volume_io.h"
#include "tandem/base/result.h"

namespace tandem::backup {

/// A whole data file.
struct Summary {
  std::uint64_t file_bytes = 0;
  std::uint64_t chunks = 0;
  std::uint64_t data_bytes = 0;  // of the volume, uncompressed
  std::uint64_t zero_bytes = 0;
  std::string sha256;
  bool operator==(const Summary&) const = default;
};

struct Chunk {
  std::uint64_t offset = 0, length = 0;
  bool zero = false;
  std::span<const std::byte> data;  // good until the next chunk is read; empty when `zero`
};

class ChunkReader {
 public:
  static Result<std::unique_ptr<ChunkReader>> open(const Path& path);
  virtual ~ChunkReader() = default;
  /// Nullopt at the end. kCorrupt: what is damaged; damaged() says whether to go on.
  virtual Result<std::optional<Chunk>> next() = 0;
  /// Behind a kCorrupt: the range of the volume whose content is lost; next() goes on behind it.
  /// Nullopt: nobody can tell what the rest of the file was.
  virtual std::optional<Chunk> damaged() const = 0;
  /// Bytes of the file read so far that were chunks, damaged ones included.
  virtual std::uint64_t file_bytes() const = 0;
  /// Of what was read so far; of the file once next() has given nullopt.
  virtual Summary summary() const = 0;
};

class ChunkWriter {
 public:
  /// Goes on behind the whole chunks at the front of the file, if there are any; what follows them
  /// is cut off. `zstd_level` 0: not compressed.
  static Result<std::unique_ptr<ChunkWriter>> open(const Path& path, int zstd_level);
  virtual ~ChunkWriter() = default;
  /// Where the ranges written so far end; the next one begins there or behind.
  virtual std::uint64_t next() const = 0;
  virtual Status data(std::uint64_t offset, std::span<const std::byte> bytes) = 0;
  virtual Status zeroes(std::uint64_t offset, std::uint64_t length) = 0;
  /// Durable when it returns.
  virtual Result<Summary> finish() = 0;
};

}  // namespace tandem::backup
