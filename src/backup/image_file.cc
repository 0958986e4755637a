#include "backup/image_file.h"

#include <fcntl.h>

namespace tandem::backup {

Result<ImageFile> ImageFile::create(const Path& path, std::uint64_t size_bytes) {
  std::error_code failed;
  const auto there = std::filesystem::status(path, failed);
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there))
    return Error{ErrorCode::kInvalid, path.string() +
                                          " is not a file; restore to one, then copy "
                                          "it where it belongs"};
  Path partial = path;
  partial += ".partial";
  auto file = File::open(partial, O_WRONLY | O_CREAT | O_TRUNC);
  if (!file) return Error(std::move(file.error()));
  TANDEM_TRY(file->truncate(size_bytes));
  return ImageFile(path, std::move(*file), size_bytes);
}

Status ImageFile::write(std::uint64_t offset, std::span<const std::byte> data) {
  return file_.write_at(offset, data);
}

Status ImageFile::finish() {
  TANDEM_TRY(file_.sync());
  return rename_durably(file_.path(), path_);
}

}  // namespace tandem::backup
