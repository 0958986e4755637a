#include "backup/image_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "format/bytes.h"
#include "format/checksum.h"

namespace tandem::backup {
namespace {

Digest chain(Digest before, std::uint64_t offset, std::span<const std::byte> data) {
  std::byte place[8];
  format::store_le(place, offset, sizeof place);
  return format::chain(format::chain(before, place), data);
}

}  // namespace

Result<ImageFile> ImageFile::open(const Path& path, const ImageIdentity& identity,
                                  Options options) {
  std::error_code failed;
  const auto there = std::filesystem::status(path, failed);
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there))
    return Error{ErrorCode::kInvalid, path.string() +
                                          " is not a file; restore to one, then copy "
                                          "it where it belongs"};
  Path partial = path;
  partial += partial_suffix(identity);
  auto file = File::open(partial, O_RDWR | O_CREAT);
  if (!file) return Error(std::move(file.error()));
  ImageFile image(path, std::move(*file), identity, options);
  TANDEM_TRY(image.lock());
  TANDEM_TRY(image.begin());
  return image;
}

Path ImageFile::journal_path() const {
  Path path = file_.path();
  path += ".journal";
  return path;
}

Status ImageFile::lock() {
  const Error busy{ErrorCode::kBusy, "another tandem is restoring to " + file_.path().string() +
                                         "; wait until it is done"};
  if (::flock(file_.descriptor(), LOCK_EX | LOCK_NB) != 0) return busy;
  // Whoever had it before may have finished it meanwhile: then this is the image itself.
  struct stat ours {
  }, named{};
  if (::fstat(file_.descriptor(), &ours) != 0) return file_.error("look at");
  if (::stat(file_.path().c_str(), &named) != 0 || ours.st_ino != named.st_ino ||
      ours.st_dev != named.st_dev)
    return busy;
  return ok();
}

Status ImageFile::begin() {
  auto why = take_over();
  if (!why) return Error(std::move(why.error()));
  anew_because_ = std::move(*why);
  resumed_at_ = journal_.durable_bytes;
  // No journal may speak of bytes that are gone.
  if (resumed_at_ == 0) TANDEM_TRY(keep_journal());
  // A power cut may have left anything behind what is durable: cut off, it is zeroes.
  TANDEM_TRY(file_.truncate(resumed_at_));
  return file_.truncate(size_bytes());
}

/// Sets the journal to the one that is there if it can be trusted; else why not, if that is worth a
/// word.
Result<std::string> ImageFile::take_over() {
  struct stat there {};
  if (::fstat(file_.descriptor(), &there) != 0) return file_.error("look at");
  if (there.st_size == 0) return std::string();  // only just made
  if (options_.anew) return std::string("as told");
  const auto text = read_text(journal_path());
  if (!text && text.error().code == ErrorCode::kNotFound) return std::string("it has no journal");
  if (!text) return text.error();
  const auto found = parse_image_journal(*text);
  if (!found) return found.error().message;
  if (found->identity != journal_.identity) return std::string("its journal is of another restore");
  if (found->durable_bytes == 0) return std::string();
  // It may end anywhere behind: begin() was interrupted between its two steps.
  const auto size = static_cast<std::uint64_t>(there.st_size);
  if (found->durable_bytes > size || size > size_bytes())
    return std::string("it is not the file that its journal describes");
  journal_ = *found;
  return std::string();
}

/// Atomic, and durable when it returns.
Status ImageFile::keep_journal() const {
  Path fresh = journal_path();
  fresh += ".new";
  TANDEM_TRY(write_text(fresh, to_text(journal_)));
  return rename_durably(fresh, journal_path());
}

Status ImageFile::write(std::uint64_t offset, std::span<const std::byte> data) {
  const bool is_there = offset < resumed_at_;
  if (!is_there) {
    TANDEM_TRY(check_front());
    TANDEM_TRY(file_.write_at(offset, data));
    unsynced_bytes_ += data.size();
  }
  if (is_there) found_bytes_ += data.size();
  given_ = chain(given_, offset, data);
  return unsynced_bytes_ < options_.step_bytes ? ok() : make_durable(offset + data.size());
}

Status ImageFile::check_front() {
  if (front_is_checked_) return ok();
  front_is_checked_ = true;
  if (given_ == journal_.front) return ok();
  journal_.durable_bytes = 0;
  journal_.front = {};
  TANDEM_TRY(keep_journal());
  return Error{ErrorCode::kCorrupt, "the backup's files are others than those from which " +
                                        file_.path().string() +
                                        " was begun; the next restore begins it anew"};
}

Status ImageFile::make_durable(std::uint64_t end) {
  TANDEM_TRY(file_.sync_data());
  unsynced_bytes_ = 0;
  journal_.durable_bytes = end;
  journal_.front = given_;
  return keep_journal();
}

Status ImageFile::finish() {
  TANDEM_TRY(check_front());
  TANDEM_TRY(file_.sync());
  TANDEM_TRY(rename_durably(file_.path(), path_));
  std::error_code ignored;  // of no use any more, and in nobody's way
  std::filesystem::remove(journal_path(), ignored);
  return ok();
}

}  // namespace tandem::backup
