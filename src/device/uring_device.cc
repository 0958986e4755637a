#include "device/uring_device.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "device/device_file.h"
#include "device/read_queue.h"
#include "device/ring.h"
#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::device {
namespace {

constexpr std::size_t kZeroPieceBytes = std::size_t{1} << 20;
constexpr std::size_t kTransferMaxBytes = std::size_t{1} << 30;  // a ring entry counts in 32 bits
constexpr int kRetriesMax = 64;
constexpr std::size_t kLongReadBytes = std::size_t{64} << 10;

class UringDevice;

/// Those that a ReadQueue is for: of longer ones the disk has enough to do with a few.
bool is_short_read(const IoRequest& request) {
  return request.kind == IoRequest::Kind::kRead && request.buffer.size() < kLongReadBytes;
}

/// One IoRequest on its way; goes to the ring again for the rest of a short transfer.
class Transfer final : public RingOperation {
 public:
  explicit Transfer(UringDevice& device) : device_(device) {}
  void begin(IoRequest& request) {
    request_ = &request;
    done_bytes_ = 0;
    retries_ = 0;
  }
  void prepare(io_uring_sqe& sqe) override;
  void finish(int result) override;
  IoRequest& request() const { return *request_; }

 private:
  std::uint64_t total_bytes() const {
    return request_->kind == IoRequest::Kind::kZero ? request_->length : request_->buffer.size();
  }
  void prepare_transfer(io_uring_sqe& sqe);
  void advance(int bytes);
  void again();
  void end(int error);

  UringDevice& device_;
  IoRequest* request_ = nullptr;
  std::uint64_t done_bytes_ = 0;
  int retries_ = 0;
};

class UringDevice final : public BlockDevice {
 public:
  UringDevice(Reactor& reactor, DeviceFile file, IoBuffer zeroes, std::string path, bool read_only)
      : reactor_(reactor),
        ring_(reactor.ring()),
        file_(std::move(file)),
        file_slot_(ring_.register_file(file_.fd())),
        zeroes_(std::move(zeroes)),
        path_(std::move(path)),
        read_only_(read_only),
        reads_(reactor) {}

  ~UringDevice() override {
    CHECK(idle_.size() == transfers_.size() && reads_.is_idle());  // nothing may be in flight
    ring_.unregister_file(file_slot_);
  }

  void submit(IoRequest& request) override;
  std::uint64_t size_bytes() const override { return file_.size_bytes(); }
  std::string name() const override { return path_; }

  void finish(Transfer& transfer, int error) {
    IoRequest& request = transfer.request();
    idle_.push_back(&transfer);
    request.error = error;
    if (is_short_read(request)) {
      reads_.finished();
      start_reads();
    }
    request.complete(request);
  }
  Ring& ring() { return ring_; }
  const DeviceFile& file() const { return file_; }
  int file_slot() const { return file_slot_; }
  std::span<std::byte> zeroes() const { return zeroes_.bytes(); }

 private:
  void check_request(const IoRequest& request) const;
  bool is_inside(std::uint64_t offset, std::uint64_t bytes) const;
  void fail(IoRequest& request, int error);

  void start(IoRequest& request);
  void start_reads();

  Reactor& reactor_;
  Ring& ring_;
  DeviceFile file_;
  int file_slot_;
  IoBuffer zeroes_;
  std::string path_;
  bool read_only_;
  std::vector<std::unique_ptr<Transfer>> transfers_;
  std::vector<Transfer*> idle_;
  ReadQueue reads_;
};

void Transfer::prepare(io_uring_sqe& sqe) {
  const int slot = device_.file_slot();
  const int fd = slot >= 0 ? slot : device_.file().fd();
  switch (request_->kind) {
    case IoRequest::Kind::kRead:
    case IoRequest::Kind::kWrite:
    case IoRequest::Kind::kZero:
      prepare_transfer(sqe);
      break;
    case IoRequest::Kind::kFlush:
      io_uring_prep_fsync(&sqe, fd, IORING_FSYNC_DATASYNC);
      break;
    case IoRequest::Kind::kDiscard:
      io_uring_prep_fallocate(&sqe, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                              static_cast<off_t>(request_->offset),
                              static_cast<off_t>(request_->length));
      break;
  }
  sqe.fd = fd;
  if (slot >= 0) sqe.flags |= IOSQE_FIXED_FILE;
}

void Transfer::prepare_transfer(io_uring_sqe& sqe) {
  const bool is_read = request_->kind == IoRequest::Kind::kRead;
  const bool is_zero = request_->kind == IoRequest::Kind::kZero;
  const auto left = total_bytes() - done_bytes_;
  const auto piece = static_cast<std::size_t>(
      std::min<std::uint64_t>(left, is_zero ? kZeroPieceBytes : kTransferMaxBytes));
  const auto memory =
      is_zero ? device_.zeroes().first(piece) : request_->buffer.subspan(done_bytes_, piece);
  const auto at = request_->offset + done_bytes_;
  const auto bytes = static_cast<unsigned>(piece);
  const int index = device_.ring().arena_index(memory);
  if (index >= 0) {
    is_read ? io_uring_prep_read_fixed(&sqe, -1, memory.data(), bytes, at, index)
            : io_uring_prep_write_fixed(&sqe, -1, memory.data(), bytes, at, index);
  } else {
    is_read ? io_uring_prep_read(&sqe, -1, memory.data(), bytes, at)
            : io_uring_prep_write(&sqe, -1, memory.data(), bytes, at);
  }
}

void Transfer::finish(int result) {
  if (result == -EINTR || result == -EAGAIN) {
    if (++retries_ > kRetriesMax) return end(EIO);
    return again();
  }
  if (request_->kind == IoRequest::Kind::kDiscard) {
    // Content is undefined afterwards in any case, so a device without discard has done its part.
    return end(result == -EOPNOTSUPP || result == -ENODEV ? 0 : -result);
  }
  if (result < 0) return end(-result);
  if (request_->kind == IoRequest::Kind::kFlush) return end(0);
  advance(result);
}

void Transfer::advance(int bytes) {
  // A buffered file may stop anywhere; O_DIRECT goes on only at a whole block.
  const auto whole = static_cast<std::uint64_t>(bytes) / kBlockBytes * kBlockBytes;
  if (whole == 0) return end(EIO);  // the file ends here: somebody has cut it
  done_bytes_ += whole;
  if (done_bytes_ >= total_bytes()) return end(0);
  again();
}

void Transfer::again() { device_.ring().queue(*this); }
void Transfer::end(int error) { device_.finish(*this, error); }

void UringDevice::check_request(const IoRequest& request) const {
  CHECK(reactor_.is_here());
  CHECK(request.complete != nullptr);
  if (request.kind == IoRequest::Kind::kFlush) return;
  const bool is_range =
      request.kind == IoRequest::Kind::kDiscard || request.kind == IoRequest::Kind::kZero;
  const std::uint64_t bytes = is_range ? request.length : request.buffer.size();
  CHECK(bytes > 0 && bytes % kBlockBytes == 0);
  CHECK(request.offset % kBlockBytes == 0);
  CHECK(request.kind == IoRequest::Kind::kRead || is_inside(request.offset, bytes));
  CHECK(reinterpret_cast<std::uintptr_t>(request.buffer.data()) % kBlockBytes == 0);
}

bool UringDevice::is_inside(std::uint64_t offset, std::uint64_t bytes) const {
  return offset <= size_bytes() && bytes <= size_bytes() - offset;
}

/// In a turn of its own, without the kernel.
void UringDevice::fail(IoRequest& request, int error) {
  reactor_.post([&request, error] {
    request.error = error;
    request.complete(request);
  });
}

void UringDevice::submit(IoRequest& request) {
  check_request(request);
  request.error = 0;
  const bool is_read = request.kind == IoRequest::Kind::kRead;
  if (is_read && !is_inside(request.offset, request.buffer.size())) return fail(request, EIO);
  if (read_only_ && !is_read && request.kind != IoRequest::Kind::kFlush) {
    return fail(request, EROFS);
  }
  if (!is_short_read(request)) return start(request);
  reads_.ask(request);
  start_reads();
}

void UringDevice::start_reads() {
  while (IoRequest* read = reads_.next()) start(*read);
}

void UringDevice::start(IoRequest& request) {
  if (idle_.empty()) {
    transfers_.push_back(std::make_unique<Transfer>(*this));
    idle_.push_back(transfers_.back().get());
  }
  Transfer* transfer = idle_.back();
  idle_.pop_back();
  transfer->begin(request);
  ring_.queue(*transfer);
}

}  // namespace

Result<std::unique_ptr<BlockDevice>> open_device(Reactor& reactor, BufferPool& buffers,
                                                 const DeviceOptions& options) {
  auto file = DeviceFile::open(options);
  if (!file) return std::move(file.error());
  const Status pinned = reactor.ring().register_arena(buffers.arena());
  if (!pinned && pinned.error().code != ErrorCode::kBusy) {
    log_event(Level::kWarn, "device.unpinned", "reason=\"{}\" effect=\"slower transfers\"",
              pinned.error().message);
  }
  IoBuffer zeroes = buffers.allocate(kZeroPieceBytes);
  std::memset(zeroes.data(), 0, zeroes.size());
  return std::unique_ptr<BlockDevice>(new UringDevice(reactor, std::move(*file), std::move(zeroes),
                                                      options.path, options.read_only));
}

}  // namespace tandem::device
