// Storage: the reactor, the buffers, the device and the pool of a node, in the order in which they
// depend on each other.
//
// Thread: open() makes the calling thread the reactor's; run the reactor on that thread.
#pragma once

#include <memory>

#include "daemon/config.h"
#include "device/reactor.h"
#include "store/pool.h"
#include "tandem/base/buffer.h"
#include "tandem/base/result.h"
#include "tandem/port/block_device.h"

namespace tandem::daemon {

class Storage {
 public:
  /// Opens the pool. With `create` (or pool.create) a pool that does not exist is made first: a
  /// missing or empty file, or a block device that begins with zeroes; anything else is refused.
  /// A file that was made is removed again when the pool cannot be written into it.
  /// Errors: those of open_device() and of Pool::open(); kNotFound names --create-pool.
  static Result<std::unique_ptr<Storage>> open(const Config& config, bool create);
  /// close() must have been awaited if the pool was opened.
  ~Storage() = default;
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  device::Reactor& reactor() { return *reactor_; }
  BufferPool& buffers() { return *buffers_; }
  store::Pool& pool() { return *pool_; }

  /// Drains and checkpoints every group, then lets go of the device and its lock.
  Task<void> close();

 private:
  Storage() = default;
  Status make_pool(const Config& config, bool create);
  Status open_pool(const Config& config);

  // Destroyed from the last to the first.
  std::unique_ptr<BufferPool> buffers_;
  std::unique_ptr<device::Reactor> reactor_;
  std::unique_ptr<BlockDevice> device_;
  std::unique_ptr<store::Pool> pool_;
};

}  // namespace tandem::daemon
