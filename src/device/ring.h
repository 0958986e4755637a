// Ring: one io_uring of one reactor. Only src/device knows that liburing exists.
//
// Operations queued in one turn go to the kernel together (submit()); completions are handed out by
// reap(), never from within queue(). What does not fit waits here, in order.
// Thread: the reactor's.
#pragma once

#include <liburing.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tandem/base/result.h"

namespace tandem::device {

/// One entry for the ring; its owner keeps it alive until finish() was called.
class RingOperation {
 public:
  /// Fills in the entry (all but user_data).
  virtual void prepare(io_uring_sqe& sqe) = 0;
  /// `result` as in the completion queue entry: not negative, or -errno.
  virtual void finish(int result) = 0;

 protected:
  ~RingOperation() = default;

 private:
  friend class Ring;
  RingOperation* next_ = nullptr;
};

class Ring {
 public:
  /// Errors: kUnsupported with what to change, kIo.
  static Result<std::unique_ptr<Ring>> create(unsigned entries);
  /// CHECKs that nothing is in flight.
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  void queue(RingOperation& operation);
  /// Hands everything queued that fits to the kernel, in one system call when there is anything.
  void submit();
  /// Finishes what has completed; returns how many.
  std::size_t reap();
  /// Queued or in the kernel.
  std::size_t unfinished() const { return waiting_ + in_flight_; }
  /// A completion is ready to be reaped, or requests still wait to be submitted.
  bool has_work();

  /// Signalled on completions, but only between arm() and disarm(), so that a busy loop pays
  /// nothing for it. After arm() check has_work() once more before sleeping.
  int event_fd() const { return event_fd_; }
  void arm();
  void disarm();

  /// Pins `arena` so that transfers within it skip the mapping of their pages. One arena a ring;
  /// the same again is fine. Errors: kRefused (RLIMIT_MEMLOCK), kBusy (another arena), kIo.
  Status register_arena(std::span<std::byte> arena);
  /// Index of the registered buffer that wholly contains `bytes`, or -1.
  int arena_index(std::span<const std::byte> bytes) const;
  /// A slot for use with IOSQE_FIXED_FILE, or -1 when the kernel refuses: use the descriptor.
  int register_file(int fd);
  void unregister_file(int slot);

 private:
  Ring() = default;
  Status open(unsigned entries);

  io_uring ring_{};
  bool open_ = false;
  int event_fd_ = -1;
  std::size_t in_flight_max_ = 0;
  std::size_t in_flight_ = 0;
  std::size_t waiting_ = 0;
  RingOperation* first_ = nullptr;
  RingOperation* last_ = nullptr;
  std::span<std::byte> arena_;
  std::vector<bool> file_slots_;
};

}  // namespace tandem::device
