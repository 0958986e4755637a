#include "device/ring.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

#include "tandem/base/check.h"

namespace tandem::device {
namespace {

// The kernel takes at most 1 GiB in one registered buffer.
constexpr std::size_t kArenaPieceBytes = std::size_t{1} << 30;
constexpr unsigned kFileSlots = 64;
constexpr unsigned kReapBatch = 64;
constexpr int kLastSleeps = 1000;

int init_ring(io_uring& ring, unsigned entries) {
  io_uring_params params{};
  params.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL |
                 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  params.cq_entries = entries * 4;
  int rc = io_uring_queue_init_params(entries, &ring, &params);
  if (rc != -EINVAL) return rc;
  // Kernels before 5.19 know fewer flags; everything works without them, a little slower.
  params = {};
  params.flags = IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
  params.cq_entries = entries * 4;
  return io_uring_queue_init_params(entries, &ring, &params);
}

}  // namespace

/// A read of an eventfd that is always under way: whoever writes to it ends the reactor's sleep,
/// and the reactor needs no system call to see that.
class Ring::Wakeup final : public RingOperation {
 public:
  explicit Wakeup(Ring& ring) : ring_(ring), fd_(::eventfd(0, EFD_CLOEXEC)) {}
  ~Wakeup() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool usable() const { return fd_ >= 0; }
  void begin() {
    under_way_ = true;
    ring_.queue_lazily(*this);
  }
  void write() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto n = ::write(fd_, &one, sizeof one);  // fails on no eventfd
  }
  /// It will not be begun again.
  void retire() {
    retired_ = true;
    write();
  }
  bool under_way() const { return under_way_; }
  void prepare(io_uring_sqe& sqe) override {
    io_uring_prep_read(&sqe, fd_, &count_, sizeof count_, 0);
  }
  void finish(int) override {
    under_way_ = false;
    if (!retired_) begin();  // also when the thread that began it is gone, and the read with it
  }

 private:
  Ring& ring_;
  int fd_;
  std::uint64_t count_ = 0;
  bool under_way_ = false;
  bool retired_ = false;
};

Ring::Ring() = default;

Result<std::unique_ptr<Ring>> Ring::create(unsigned entries) {
  std::unique_ptr<Ring> ring(new Ring());
  TANDEM_TRY(ring->open(entries));
  return ring;
}

Status Ring::open(unsigned entries) {
  const int rc = init_ring(ring_, entries);
  if (rc == -ENOSYS || rc == -EPERM) {
    return Error{ErrorCode::kUnsupported,
                 std::string("io_uring is not available: ") + std::strerror(-rc) +
                     ". Tandem needs Linux 5.15 or newer with io_uring allowed: set sysctl "
                     "kernel.io_uring_disabled=0, and in a container allow io_uring_setup, "
                     "io_uring_enter and io_uring_register in its seccomp profile"};
  }
  if (rc != 0) {
    return Error{ErrorCode::kIo, std::string("io_uring with ") + std::to_string(entries) +
                                     " entries cannot be set up: " + std::strerror(-rc) +
                                     (rc == -ENOMEM ? "; raise the locked memory limit "
                                                      "(LimitMEMLOCK= or ulimit -l)"
                                                    : "")};
  }
  open_ = true;
  in_flight_max_ = ring_.cq.ring_entries;
  if ((ring_.features & IORING_FEAT_EXT_ARG) == 0) {
    return Error{ErrorCode::kUnsupported,
                 "io_uring of this kernel cannot wait with a time-out; Tandem needs Linux 5.15 or "
                 "newer"};
  }
  wakeup_ = std::make_unique<Wakeup>(*this);
  if (!wakeup_->usable()) {
    return Error{ErrorCode::kIo, std::string("no descriptor is left for the reactor's eventfd: ") +
                                     std::strerror(errno) + "; raise LimitNOFILE"};
  }
  if (io_uring_register_files_sparse(&ring_, kFileSlots) == 0) {
    file_slots_.assign(kFileSlots, false);
  }
  wakeup_->begin();
  return ok();
}

void Ring::close() {
  wakeup_->retire();
  for (int i = 0; i < kLastSleeps && unfinished() != 0; ++i) {
    sleep(std::chrono::milliseconds(1));
    reap();
  }
}

Ring::~Ring() {
  if (!open_) return;
  CHECK(unfinished() == 0);
  io_uring_queue_exit(&ring_);
}

void Ring::append(RingOperation& operation, bool lazy) {
  operation.next_ = nullptr;
  operation.lazy_ = lazy;
  (last_ ? last_->next_ : first_) = &operation;
  last_ = &operation;
  ++waiting_;
}

void Ring::queue(RingOperation& operation) {
  append(operation, false);
  urgent_ = true;
}

void Ring::queue_lazily(RingOperation& operation) { append(operation, true); }

/// Moves what waits to the submission queue, as far as it fits.
void Ring::fill() {
  while (first_ != nullptr && (first_->lazy_ || in_flight_ < in_flight_max_)) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) return;
    RingOperation* operation = first_;
    first_ = operation->next_;
    if (first_ == nullptr) last_ = nullptr;
    operation->prepare(*sqe);
    io_uring_sqe_set_data(sqe, operation);
    --waiting_;
    ++(operation->lazy_ ? lazy_in_flight_ : in_flight_);
  }
  urgent_ = first_ != nullptr;
}

void Ring::submit() {
  if (urgent_ || io_uring_sq_ready(&ring_) != 0) submit_all();
}

void Ring::submit_all() {
  fill();
  if (io_uring_sq_ready(&ring_) == 0) return;
  const int rc = io_uring_submit(&ring_);
  // Out of memory or out of completion slots: the entries stay queued for the next turn.
  CHECK(rc >= 0 || rc == -EAGAIN || rc == -EBUSY || rc == -EINTR || rc == -ENOMEM);
}

void Ring::sleep(std::chrono::nanoseconds longest) {
  fill();
  const bool more = first_ != nullptr && (first_->lazy_ || in_flight_ < in_flight_max_);
  if (more) longest = {};  // the submission queue is full: come back with the rest
  const auto whole = std::chrono::floor<std::chrono::seconds>(longest);
  __kernel_timespec limit{whole.count(), (longest - whole).count()};
  io_uring_cqe* cqe = nullptr;
  const int rc = io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &limit, nullptr);
  CHECK(rc >= 0 || rc == -ETIME || rc == -EAGAIN || rc == -EBUSY || rc == -EINTR || rc == -ENOMEM);
}

void Ring::wake() { wakeup_->write(); }

void Ring::reap() {
  // Only what was there at the start: a completion may queue more, and sockets want their turn.
  std::size_t finished = 0;
  io_uring_cqe* cqes[kReapBatch];
  for (;;) {
    const unsigned n = io_uring_peek_batch_cqe(&ring_, cqes, kReapBatch);
    if (n == 0) break;
    struct Done {
      RingOperation* operation;
      int result;
    } done[kReapBatch];
    for (unsigned i = 0; i < n; ++i) {
      done[i] = {static_cast<RingOperation*>(io_uring_cqe_get_data(cqes[i])), cqes[i]->res};
    }
    io_uring_cq_advance(&ring_, n);
    for (unsigned i = 0; i < n; ++i) --(done[i].operation->lazy_ ? lazy_in_flight_ : in_flight_);
    for (unsigned i = 0; i < n; ++i) done[i].operation->finish(done[i].result);
    finished += n;
    if (n < kReapBatch || finished >= in_flight_max_) break;
  }
}

bool Ring::has_work() {
  io_uring_cqe* cqe = nullptr;
  if (io_uring_peek_cqe(&ring_, &cqe) == 0) return true;
  return io_uring_sq_ready(&ring_) != 0 || (first_ != nullptr && in_flight_ < in_flight_max_);
}

Status Ring::register_arena(std::span<std::byte> arena) {
  if (arena.data() == arena_.data() && arena.size() == arena_.size()) return ok();
  if (!arena_.empty()) {
    return Error{ErrorCode::kBusy, "the ring has another arena registered already"};
  }
  std::vector<iovec> pieces;
  for (std::size_t at = 0; at < arena.size(); at += kArenaPieceBytes) {
    pieces.push_back({arena.data() + at, std::min(kArenaPieceBytes, arena.size() - at)});
  }
  const int rc =
      io_uring_register_buffers(&ring_, pieces.data(), static_cast<unsigned>(pieces.size()));
  if (rc == -ENOMEM || rc == -EPERM) {
    return Error{ErrorCode::kRefused,
                 std::string("the buffer arena of ") + std::to_string(arena.size() >> 20) +
                     " MiB cannot be pinned: " + std::strerror(-rc) +
                     "; raise the locked memory limit (LimitMEMLOCK=infinity or ulimit -l)"};
  }
  if (rc != 0) {
    return Error{ErrorCode::kIo,
                 std::string("the buffer arena cannot be registered: ") + std::strerror(-rc)};
  }
  arena_ = arena;
  return ok();
}

int Ring::arena_index(std::span<const std::byte> bytes) const {
  if (bytes.data() < arena_.data() || bytes.data() >= arena_.data() + arena_.size()) return -1;
  const auto at = static_cast<std::size_t>(bytes.data() - arena_.data());
  if (bytes.size() > arena_.size() - at) return -1;
  const auto first = at / kArenaPieceBytes;
  const auto last = (at + std::max<std::size_t>(bytes.size(), 1) - 1) / kArenaPieceBytes;
  return first == last ? static_cast<int>(first) : -1;
}

int Ring::register_file(int fd) {
  for (std::size_t slot = 0; slot < file_slots_.size(); ++slot) {
    if (file_slots_[slot]) continue;
    if (io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &fd, 1) != 1) return -1;
    file_slots_[slot] = true;
    return static_cast<int>(slot);
  }
  return -1;
}

void Ring::unregister_file(int slot) {
  if (slot < 0) return;
  int none = -1;
  (void)io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &none, 1);
  file_slots_[static_cast<std::size_t>(slot)] = false;
}

}  // namespace tandem::device
