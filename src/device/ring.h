// Ring: one io_uring of one reactor. Only src/device knows that liburing exists.
//
// Operations queued in one turn go to the kernel together, in one system call: by submit(), or by
// sleep(), which waits for a completion in the same call. Completions are handed out by reap(),
// never from within queue(). What does not fit waits here, in order.
// Thread: the reactor's, but for wake().
#pragma once

#include <liburing.h>

#include <chrono>
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
  bool lazy_ = false;
};

class Ring {
 public:
  /// Errors: kUnsupported with what to change, kIo.
  static Result<std::unique_ptr<Ring>> create(unsigned entries);
  /// CHECKs that close() left nothing in flight.
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  /// For the device: the next submit() hands it over.
  void queue(RingOperation& operation);
  /// For what only waits for others (a socket's next request): it goes along with the next
  /// submission, at the latest with sleep(), and may stay in the kernel for ever. In order with
  /// what is queued otherwise.
  void queue_lazily(RingOperation& operation);
  /// Hands everything that waits and fits to the kernel, if that is more than lazy operations.
  void submit();
  void submit_all();
  /// Hands over everything, and waits at most `longest` for a completion or wake().
  void sleep(std::chrono::nanoseconds longest);
  /// Ends the sleep() of now, or the next one. Any thread.
  void wake();
  /// Finishes what has completed.
  void reap();
  /// Waits a moment for what ends by itself (removals of polls). Nothing may be queued afterwards.
  void close();
  /// A completion is ready to be reaped, or requests still wait to be submitted.
  bool has_work();

  /// Pins `arena` so that transfers within it skip the mapping of their pages. One arena a ring;
  /// the same again is fine. Errors: kRefused (RLIMIT_MEMLOCK), kBusy (another arena), kIo.
  Status register_arena(std::span<std::byte> arena);
  /// Index of the registered buffer that wholly contains `bytes`, or -1.
  int arena_index(std::span<const std::byte> bytes) const;
  /// A slot for use with IOSQE_FIXED_FILE, or -1 when the kernel refuses: use the descriptor.
  int register_file(int fd);
  void unregister_file(int slot);

 private:
  class Wakeup;

  Ring();
  Status open(unsigned entries);
  void append(RingOperation& operation, bool lazy);
  void fill();
  std::size_t unfinished() const { return waiting_ + in_flight_ + lazy_in_flight_; }

  io_uring ring_{};
  bool open_ = false;
  std::unique_ptr<Wakeup> wakeup_;
  std::size_t in_flight_max_ = 0;
  std::size_t in_flight_ = 0;       // bounded, so that completions never overflow
  std::size_t lazy_in_flight_ = 0;  // as many as there are connections; the kernel keeps those
  std::size_t waiting_ = 0;
  bool urgent_ = false;  // more than lazy operations wait
  RingOperation* first_ = nullptr;
  RingOperation* last_ = nullptr;
  std::span<std::byte> arena_;
  std::vector<bool> file_slots_;
};

}  // namespace tandem::device
