// An image file that a volume is restored to: sparse, there only when it is whole, and gone on with
// when the restore was interrupted in any way.
#pragma once

#include "backup/files.h"
#include "backup/image_journal.h"
#include "backup/volume_io.h"

namespace tandem::backup {

/// So much is written at most between two notes of what is durable, and so much is written again.
inline constexpr std::uint64_t kImageStepBytes = 32 << 20;

class ImageFile final : public Target {
 public:
  struct Options {
    bool anew = false;  // forget what an interrupted restore has written
    std::uint64_t step_bytes = kImageStepBytes;
  };

  /// Writes beside `path`, to a file that is named after `identity`, until finish() renames it over
  /// `path`. What is durable there of an interrupted restore of the same identity is kept; all
  /// behind it reads as zeroes. kInvalid: `path` is something else than a file; kBusy: another
  /// process restores the same to there.
  static Result<ImageFile> open(const Path& path, const ImageIdentity& identity, Options options);

  std::uint64_t size_bytes() const override { return journal_.identity.size_bytes; }
  /// Ascending. What is durable already is not written again. kCorrupt: it was another content, so
  /// it is given up; opened again, the file is begun anew.
  Status write(std::uint64_t offset, std::span<const std::byte> data) override;
  Status zero(std::uint64_t, std::uint64_t) override { return ok(); }  // a new file is
  Status finish() override;

  /// How far it was durable when it was opened; 0: it is begun.
  std::uint64_t resumed_at() const { return resumed_at_; }
  /// Why it is begun anew in spite of what an interrupted restore left; "": it is not.
  const std::string& anew_because() const { return anew_because_; }
  /// Of the bytes given to write(): those that were there.
  std::uint64_t found_bytes() const { return found_bytes_; }

 private:
  ImageFile(Path path, File file, const ImageIdentity& identity, Options options)
      : path_(std::move(path)), file_(std::move(file)), options_(options) {
    journal_.identity = identity;
  }
  Path journal_path() const;
  Status lock();
  Status begin();
  Result<std::string> take_over();
  Status keep_journal() const;
  Status check_front();
  Status make_durable(std::uint64_t end);

  Path path_;
  File file_;  // locked
  Options options_;
  ImageJournal journal_;  // as it is on disk, once begun
  std::string anew_because_;
  std::uint64_t resumed_at_ = 0, found_bytes_ = 0, unsynced_bytes_ = 0;
  Digest given_;  // chained over what write() was given
  bool front_is_checked_ = false;
};

}  // namespace tandem::backup
