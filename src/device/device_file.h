// DeviceFile: opening, creating and locking what a pool lives in; no asynchronous work.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "device/uring_device.h"
#include "tandem/base/result.h"

namespace tandem::device {

/// Owns the descriptor, and with it the lock.
class DeviceFile {
 public:
  static Result<DeviceFile> open(const DeviceOptions& options);
  DeviceFile(DeviceFile&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), size_bytes_(other.size_bytes_), direct_(other.direct_) {}
  DeviceFile& operator=(DeviceFile&&) = delete;
  ~DeviceFile();

  int fd() const { return fd_; }
  std::uint64_t size_bytes() const { return size_bytes_; }
  bool direct() const { return direct_; }

 private:
  explicit DeviceFile(int fd) : fd_(fd) {}
  Status lock(const DeviceOptions& options);
  Status take_size(const DeviceOptions& options, bool fresh);
  Status prepare_new(const DeviceOptions& options);

  int fd_ = -1;
  std::uint64_t size_bytes_ = 0;
  bool direct_ = false;
};

}  // namespace tandem::device
