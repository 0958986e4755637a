// An image file that a volume is restored to: sparse, and there only when it is whole.
#pragma once

#include "backup/files.h"
#include "backup/volume_io.h"

namespace tandem::backup {

class ImageFile final : public Target {
 public:
  /// Writes beside `path`, to PATH.partial, until finish() renames it over `path`. kInvalid: `path`
  /// is something else than a file.
  static Result<ImageFile> create(const Path& path, std::uint64_t size_bytes);

  std::uint64_t size_bytes() const override { return size_; }
  Status write(std::uint64_t offset, std::span<const std::byte> data) override;
  Status zero(std::uint64_t, std::uint64_t) override { return ok(); }  // a new file is
  Status finish() override;

 private:
  ImageFile(Path path, File file, std::uint64_t size)
      : path_(std::move(path)), file_(std::move(file)), size_(size) {}
  Path path_;
  File file_;
  std::uint64_t size_;
};

}  // namespace tandem::backup
