// BlockDevice: asynchronous read, write, flush and discard on one file or device.
//
// Production: device/uring_device (io_uring, O_DIRECT). Simulation: tests/support/sim_disk.
#pragma once

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "tandem/base/check.h"
#include "tandem/base/result.h"
#include "tandem/base/sync.h"

namespace tandem {

/// One operation on a device. The caller owns it and its memory until `complete` is called, exactly
/// once, on the reactor's thread, never from within submit().
struct IoRequest {
  enum class Kind { kRead, kWrite, kFlush, kDiscard, kZero };
  Kind kind = Kind::kRead;
  std::uint64_t offset = 0;     // bytes; a multiple of 4096
  std::uint64_t length = 0;     // bytes; used by kDiscard and kZero, a multiple of 4096
  std::span<std::byte> buffer;  // 4 KiB aligned memory and size; kRead fills it
  // Out: 0 or an errno. A short transfer is EIO, and so is a read beyond the end: damaged bytes may
  // have named that place. Any other request beyond the end is a bug.
  int error = 0;
  void (*complete)(IoRequest&) = nullptr;
};

class BlockDevice {
 public:
  virtual ~BlockDevice() = default;

  /// Starts `request`. Order: none between requests in flight; two overlapping writes in flight
  /// leave either, per sector. Durable: a write is after a kFlush submitted after its completion
  /// succeeds. A failed kFlush means earlier writes may be gone: never retry and trust.
  /// kDiscard: content becomes undefined (a file gets a hole). kZero: allocates and writes zeroes,
  /// so that a later write meets no unwritten extent.
  /// Requests submitted in one turn of the reactor go to the kernel in one system call.
  virtual void submit(IoRequest& request) = 0;
  virtual std::uint64_t size_bytes() const = 0;
  virtual std::string name() const = 0;  // for messages: the path
};

/// Several requests awaited together:
///   IoBatch io(device); io.write(at, bytes); io.read(at2, bytes2);
///   Status done = co_await io.run();
/// A vector of requests, so add everything before run(); the memory must live until run() returns.
class IoBatch {
 public:
  explicit IoBatch(BlockDevice& device) : device_(device) {}
  IoBatch(const IoBatch&) = delete;
  IoBatch& operator=(const IoBatch&) = delete;

  void read(std::uint64_t offset, std::span<std::byte> into) {
    add(IoRequest::Kind::kRead, offset, into.size(), into);
  }
  void write(std::uint64_t offset, std::span<std::byte> from) {
    add(IoRequest::Kind::kWrite, offset, from.size(), from);
  }
  void flush() { add(IoRequest::Kind::kFlush, 0, 0, {}); }
  void discard(std::uint64_t offset, std::uint64_t length) {
    add(IoRequest::Kind::kDiscard, offset, length, {});
  }
  void zero(std::uint64_t offset, std::uint64_t length) {
    add(IoRequest::Kind::kZero, offset, length, {});
  }
  bool empty() const { return requests_.empty(); }
  std::size_t size() const { return requests_.size(); }

  struct Awaiter {
    IoBatch& batch;
    bool await_ready() const noexcept { return batch.requests_.empty(); }
    void await_suspend(std::coroutine_handle<> h);
    Status await_resume() const { return batch.outcome(); }
  };
  /// Submits all and suspends until all have completed; the first error wins.
  Awaiter run() { return {*this}; }
  /// errno of request i after run().
  int error_of(std::size_t i) const { return requests_[i].error; }

 private:
  struct Member : IoRequest {
    IoBatch* batch = nullptr;
  };
  void add(IoRequest::Kind kind, std::uint64_t offset, std::uint64_t length,
           std::span<std::byte> buffer);
  Status outcome() const;
  static void on_complete(IoRequest& request);

  BlockDevice& device_;
  std::vector<Member> requests_;
  std::size_t pending_ = 0;
  std::coroutine_handle<> waiter_;
};

}  // namespace tandem
