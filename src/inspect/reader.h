// BlockReader: a pool as its inspector sees it, blocks that are read one after the other.
//
// The inspector never writes and shares no code with the engine but the decoders of format/, so
// that it can look at pools which the engine refuses, and so that a mistake of the engine does not
// repeat itself in the tool that looks for it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "tandem/base/result.h"
#include "tandem/base/units.h"

namespace tandem::inspect {

class BlockReader {
 public:
  virtual ~BlockReader() = default;
  /// Fills `into` (whole blocks) from block `first` on. Errors: kIo; kCorrupt when the pool ends
  /// before that.
  virtual Status read(PoolBlock first, std::span<std::byte> into) = 0;
  /// Whole blocks of the file or device.
  virtual std::uint64_t blocks() const = 0;
  virtual std::string name() const = 0;
};

/// A pool file or block device, opened read-only under a shared lock, which keeps a daemon from
/// starting on it meanwhile.
class FileReader final : public BlockReader {
 public:
  /// Errors: kBusy while a daemon holds the pool, unless `force`; kNotFound, kRefused, kIo.
  static Result<std::unique_ptr<FileReader>> open(const std::string& path, bool force);
  ~FileReader() override;
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;

  Status read(PoolBlock first, std::span<std::byte> into) override;
  std::uint64_t blocks() const override { return blocks_; }
  std::string name() const override { return path_; }
  /// A daemon holds the pool and changes it while we look: what we find need not fit together.
  bool in_use() const { return in_use_; }

 private:
  FileReader(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  int fd_;
  std::string path_;
  std::uint64_t blocks_ = 0;
  bool in_use_ = false;
};

}  // namespace tandem::inspect
