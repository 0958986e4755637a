#include "device/device_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "tandem/base/log.h"
#include "tandem/base/units.h"

namespace tandem::device {
namespace {

constexpr std::size_t kBlankBytes = std::size_t{1} << 20;  // what must be zero to count as empty

ErrorCode code_of(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return ErrorCode::kNotFound;
    case EBUSY:
    case ETXTBSY:
      return ErrorCode::kBusy;
    case ENOSPC:
    case EDQUOT:
      return ErrorCode::kNoSpace;
    case EEXIST:
      return ErrorCode::kExists;
    case EROFS:
      return ErrorCode::kReadOnly;
    case EACCES:
    case EPERM:
      return ErrorCode::kRefused;
    default:
      return ErrorCode::kIo;
  }
}

const char* cure_of(int error) {
  switch (error) {
    case ENOENT:
      return "; check the path, or create the pool with --create-pool";
    case EACCES:
    case EPERM:
      return "; give the daemon's user read and write access";
    case EBUSY:
      return "; it is mounted or part of another device: unmount it or choose another";
    case ENOSPC:
    case EDQUOT:
      return "; free space on the filesystem that holds it";
    case EFBIG:
      return "; the filesystem cannot hold a file of this size: choose a smaller pool";
    case EMFILE:
    case ENFILE:
      return "; raise the limit of open files (LimitNOFILE=)";
    default:
      return "";
  }
}

Error failed(const std::string& path, const char* what, int error) {
  return {code_of(error),
          "pool " + path + ": " + what + ": " + std::strerror(error) + cure_of(error)};
}

struct Opened {
  int fd = -1;
  bool direct = false;
  bool fresh = false;  // this call made the file
};

int open_once(const std::string& path, int flags, bool& fresh, bool create) {
  fresh = false;
  int fd = ::open(path.c_str(), flags);
  if (fd >= 0 || errno != ENOENT || !create) return fd;
  fd = ::open(path.c_str(), flags | O_CREAT | O_EXCL, 0600);
  // Some filesystems make the file and only then refuse O_DIRECT: it is ours all the same.
  fresh = fd >= 0 || errno == EINVAL;
  return fd;
}

Result<Opened> open_path(const DeviceOptions& options) {
  int flags = (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  struct stat at {};
  if (::stat(options.path.c_str(), &at) == 0) {
    if (S_ISBLK(at.st_mode)) {
      flags |= options.read_only ? 0 : O_EXCL;  // the kernel refuses what is mounted
    } else if (!S_ISREG(at.st_mode)) {
      return Error{ErrorCode::kInvalid, "pool " + options.path +
                                            " is neither a regular file nor a block device; "
                                            "choose one of these"};
    }
  }
  Opened opened;
  if (options.direct) {
    opened.fd = open_once(options.path, flags | O_DIRECT, opened.fresh, options.create);
    opened.direct = opened.fd >= 0;
    if (opened.fd < 0 && errno != EINVAL) return failed(options.path, "cannot be opened", errno);
  }
  if (opened.fd < 0) {
    bool made = false;
    opened.fd = open_once(options.path, flags, made, options.create);
    if (opened.fd < 0) return failed(options.path, "cannot be opened", errno);
    opened.fresh = opened.fresh || made;
    if (options.direct) {
      log_event(Level::kWarn, "device.buffered",
                "path={} reason=\"the filesystem refuses O_DIRECT\" effect=\"slower, and the page "
                "cache holds the data twice\"",
                options.path);
    }
  }
  return opened;
}

/// The process that holds a flock on the file, from /proc/locks; 0 when not found.
int lock_holder(int fd) {
  struct stat at {};
  if (::fstat(fd, &at) != 0) return 0;
  char wanted[64];
  std::snprintf(wanted, sizeof wanted, "%02x:%02x:%llu", major(at.st_dev), minor(at.st_dev),
                static_cast<unsigned long long>(at.st_ino));
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    std::istringstream words(line);
    std::string id, kind, rule, access, pid, file;
    words >> id >> kind >> rule >> access >> pid >> file;
    if (kind == "FLOCK" && file == wanted) return std::atoi(pid.c_str());
  }
  return 0;
}

/// A process that is ending has no program any more, but holds its lock until its I/O is over.
bool is_ending(int pid) {
  char program[256];
  const std::string link = "/proc/" + std::to_string(pid) + "/exe";
  return pid <= 0 || ::readlink(link.c_str(), program, sizeof program) < 0;
}

constexpr int kLockWaitMs = 10'000, kLockPollMs = 20;

void sync_directory_of(const std::string& path) {
  const auto slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const int fd = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  (void)::fsync(fd);
  ::close(fd);
}

Result<bool> is_blank(int fd, const std::string& path, std::uint64_t size_bytes) {
  void* memory = nullptr;
  if (::posix_memalign(&memory, kBlockBytes, kBlankBytes) != 0) {
    return Error{ErrorCode::kIo, "no memory to look at " + path};
  }
  std::unique_ptr<char, void (*)(void*)> bytes(static_cast<char*>(memory), std::free);
  const auto length = static_cast<std::size_t>(std::min<std::uint64_t>(size_bytes, kBlankBytes));
  const auto n = ::pread(fd, memory, length, 0);
  if (n < 0) return failed(path, "cannot be read", errno);
  return std::all_of(bytes.get(), bytes.get() + n, [](char c) { return c == 0; });
}

}  // namespace

Result<DeviceFile> DeviceFile::open(const DeviceOptions& options) {
  if (options.create && options.size_bytes % kBlockBytes != 0) {
    return Error{ErrorCode::kInvalid, "pool " + options.path + ": its size of " +
                                          std::to_string(options.size_bytes) +
                                          " bytes is not a multiple of 4096; round it"};
  }
  auto opened = open_path(options);
  if (!opened) return std::move(opened.error());
  DeviceFile file(opened->fd);
  file.direct_ = opened->direct;
  const Status ready = [&]() -> Status {
    TANDEM_TRY(file.lock(options));
    TANDEM_TRY(file.take_size(options, opened->fresh));
    if (options.create) TANDEM_TRY(file.prepare_new(options));
    return ok();
  }();
  if (!ready) {
    if (opened->fresh) ::unlink(options.path.c_str());  // leave nothing half made
    return Error(ready.error());
  }
  return file;
}

DeviceFile::~DeviceFile() {
  if (fd_ >= 0) ::close(fd_);
}

Status DeviceFile::lock(const DeviceOptions& options) {
  const int how = (options.read_only ? LOCK_SH : LOCK_EX) | LOCK_NB;
  int pid = 0;
  for (int waited_ms = 0;; waited_ms += kLockPollMs) {
    if (::flock(fd_, how) == 0) return ok();
    if (errno != EWOULDBLOCK) return failed(options.path, "cannot be locked", errno);
    pid = lock_holder(fd_);
    // After a kill the next daemon may come before the last write of the old one is over.
    if (!is_ending(pid) || waited_ms >= kLockWaitMs) break;
    ::usleep(kLockPollMs * 1000);
  }
  return Error{ErrorCode::kBusy, "pool " + options.path + " is in use by another daemon" +
                                     (pid > 0 ? " (pid " + std::to_string(pid) + ")" : "") +
                                     "; stop that one first, or give this one another pool"};
}

Status DeviceFile::take_size(const DeviceOptions& options, bool fresh) {
  struct stat at {};
  if (::fstat(fd_, &at) != 0) return failed(options.path, "cannot be examined", errno);
  if (S_ISBLK(at.st_mode)) {
    std::uint64_t bytes = 0;
    int sector_bytes = 0;
    if (::ioctl(fd_, BLKGETSIZE64, &bytes) != 0 || ::ioctl(fd_, BLKSSZGET, &sector_bytes) != 0) {
      return failed(options.path, "cannot be measured", errno);
    }
    if (sector_bytes > static_cast<int>(kBlockBytes)) {
      return Error{ErrorCode::kUnsupported, "pool " + options.path + " has sectors of " +
                                                std::to_string(sector_bytes) +
                                                " bytes; at most 4096 are supported"};
    }
    size_bytes_ = bytes / kBlockBytes * kBlockBytes;
    if (!options.create) return ok();
    if (options.size_bytes > size_bytes_) {
      return Error{ErrorCode::kInvalid, "pool " + options.path + " has only " +
                                            std::to_string(size_bytes_) +
                                            " bytes; configure no more, or no size at all"};
    }
    if (options.size_bytes != 0) size_bytes_ = options.size_bytes;
    return ok();
  }
  if (!options.create) {
    size_bytes_ = static_cast<std::uint64_t>(at.st_size) / kBlockBytes * kBlockBytes;
    return ok();
  }
  if (!fresh && at.st_size != 0) {
    return Error{ErrorCode::kExists, "pool " + options.path + " exists and is not empty (" +
                                         std::to_string(at.st_size) +
                                         " bytes); it is not overwritten: choose another path, or "
                                         "remove it yourself"};
  }
  if (options.size_bytes == 0) {
    return Error{ErrorCode::kInvalid,
                 "pool " + options.path + " is a file and needs a size to be created"};
  }
  size_bytes_ = options.size_bytes;
  return ok();
}

Status DeviceFile::prepare_new(const DeviceOptions& options) {
  struct stat at {};
  if (::fstat(fd_, &at) != 0) return failed(options.path, "cannot be examined", errno);
  if (S_ISBLK(at.st_mode)) {
    auto blank = is_blank(fd_, options.path, size_bytes_);
    if (!blank) return std::move(blank.error());
    if (!*blank) {
      return Error{ErrorCode::kExists,
                   "pool " + options.path +
                       " is a device that is not empty; it is not overwritten: check that it is "
                       "the right one, then wipe it with: blkdiscard -z -l 1MiB " +
                       options.path};
    }
    return ok();
  }
  if (::ftruncate(fd_, static_cast<off_t>(size_bytes_)) != 0) {
    return failed(options.path, "cannot be given its size", errno);
  }
  if (::fsync(fd_) != 0) return failed(options.path, "cannot be made durable", errno);
  sync_directory_of(options.path);
  return ok();
}

}  // namespace tandem::device
