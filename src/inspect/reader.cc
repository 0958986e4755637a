#include "inspect/reader.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tandem::inspect {
namespace {

Error failed(const std::string& path, const char* what, int error) {
  const ErrorCode code = error == ENOENT                     ? ErrorCode::kNotFound
                         : error == EACCES || error == EPERM ? ErrorCode::kRefused
                                                             : ErrorCode::kIo;
  return {code, path + ": " + what + ": " + std::strerror(error)};
}

Result<std::uint64_t> measure(int fd, const std::string& path) {
  struct stat at {};
  if (::fstat(fd, &at) != 0) return failed(path, "cannot be examined", errno);
  if (S_ISREG(at.st_mode)) return static_cast<std::uint64_t>(at.st_size) / kBlockBytes;
  if (!S_ISBLK(at.st_mode)) {
    return Error{ErrorCode::kInvalid, path + ": is neither a regular file nor a block device"};
  }
  std::uint64_t bytes = 0;
  if (::ioctl(fd, BLKGETSIZE64, &bytes) != 0) return failed(path, "cannot be measured", errno);
  return bytes / kBlockBytes;
}

}  // namespace

Result<std::unique_ptr<FileReader>> FileReader::open(const std::string& path, bool force) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return failed(path, "cannot be opened", errno);
  std::unique_ptr<FileReader> reader(new FileReader(fd, path));
  auto blocks = measure(fd, path);
  if (!blocks) return Error(std::move(blocks.error()));
  reader->blocks_ = *blocks;
  if (::flock(fd, LOCK_SH | LOCK_NB) == 0) return reader;
  if (errno != EWOULDBLOCK) return failed(path, "cannot be locked", errno);
  if (!force) {
    return Error{ErrorCode::kBusy,
                 path +
                     ": a daemon holds this pool and changes it; stop the daemon first, or read "
                     "anyway with --force and expect contradictions"};
  }
  reader->in_use_ = true;
  return reader;
}

FileReader::~FileReader() { ::close(fd_); }

Status FileReader::read(PoolBlock first, std::span<std::byte> into) {
  const std::uint64_t count = into.size() / kBlockBytes;
  if (first.value >= blocks_ || count > blocks_ - first.value) {
    return Error{ErrorCode::kCorrupt, path_ + ": block " + std::to_string(first.value) +
                                          " is behind the end, at block " +
                                          std::to_string(blocks_)};
  }
  for (std::size_t done = 0; done < into.size();) {
    const auto at = static_cast<off_t>(first.value * kBlockBytes + done);
    const ssize_t n = ::pread(fd_, into.data() + done, into.size() - done, at);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed(path_, "cannot be read", errno);
    if (n == 0) return Error{ErrorCode::kCorrupt, path_ + ": was truncated while it was read"};
    done += static_cast<std::size_t>(n);
  }
  return ok();
}

}  // namespace tandem::inspect
