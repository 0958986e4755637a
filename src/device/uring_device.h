// open_device: the production BlockDevice, a file or a block device behind the reactor's io_uring.
//
// O_DIRECT where the filesystem allows it; the descriptor and the arena of the buffer pool are
// registered with the ring, so transfers from pool buffers pin no pages. Requests of one turn of
// the reactor go to the kernel in one system call. Short transfers are continued; what cannot be
// continued is EIO. kDiscard punches a hole (a device that cannot is no error: the content of a
// discarded range is undefined). kZero writes real zeroes, so that no unwritten extent remains.
// Short reads may wait for others, in their order: see read_queue.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "device/reactor.h"
#include "tandem/base/buffer.h"
#include "tandem/base/result.h"
#include "tandem/port/block_device.h"

namespace tandem::device {

struct DeviceOptions {
  std::string path;
  /// Make the file (sparse, of size_bytes), or take an empty file or a block device that begins
  /// with 1 MiB of zeroes; anything else is refused with kExists: nothing is ever overwritten.
  bool create = false;
  /// With `create`: the size, a multiple of 4 KiB; zero means the whole of a block device.
  std::uint64_t size_bytes = 0;
  /// Shares the lock with other readers; writes answer EROFS.
  bool read_only = false;
  bool direct = true;
};

/// Opens and locks `options.path`. The device must be destroyed before `reactor` and `buffers`,
/// with nothing in flight. Reactor's thread, or before the reactor runs. Errors: kNotFound, kBusy
/// (in use by another daemon, mounted, …), kExists, kNoSpace, kInvalid, kUnsupported, kIo.
Result<std::unique_ptr<BlockDevice>> open_device(Reactor& reactor, BufferPool& buffers,
                                                 const DeviceOptions& options);

}  // namespace tandem::device
