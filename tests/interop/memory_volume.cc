#include "tests/interop/memory_volume.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "tandem/base/check.h"

namespace tandem::test {
namespace {

void* map_zeroes(std::uint64_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  return memory;
}

/// How many of the first `count` bytes equal the first one; quick where they all do.
template <class Byte>
std::uint64_t equal_run(const Byte* first, std::uint64_t count) {
  constexpr std::uint64_t kStep = 64 << 10;
  std::uint64_t run = 1;
  while (count - run >= kStep && std::memcmp(first + run - 1, first + run, kStep) == 0)
    run += kStep;
  while (run < count && first[run] == first[0]) ++run;
  return run;
}

struct LaterAwaiter {
  const MemoryVolume::Later& later;
  bool await_ready() const noexcept { return !later; }
  void await_suspend(std::coroutine_handle<> caller) { later(caller); }
  void await_resume() const noexcept {}
};

}  // namespace

MemoryVolume::MemoryVolume(BufferPool& pool, std::string name, Options options)
    : pool_(pool), options_(options), mapped_bytes_(options.size_bytes) {
  info_ = {.name = std::move(name),
           .size_bytes = options.size_bytes,
           .logical_block_bytes = options.logical_block_bytes,
           .read_only = options.read_only};
  memory_ = static_cast<std::byte*>(map_zeroes(mapped_bytes_));
  blocks_ = static_cast<Block*>(map_zeroes(blocks_for(mapped_bytes_)));
}

MemoryVolume::~MemoryVolume() {
  ::munmap(memory_, mapped_bytes_);
  ::munmap(blocks_, blocks_for(mapped_bytes_));
}

void MemoryVolume::allocate_all() {
  for (std::uint64_t block = 0; block < blocks_for(info_.size_bytes); ++block) {
    const std::uint64_t at = block * kBlockBytes;
    const std::uint64_t size = std::min<std::uint64_t>(kBlockBytes, info_.size_bytes - at);
    const bool zero = std::all_of(memory_ + at, memory_ + at + size,
                                  [](std::byte b) { return b == std::byte{0}; });
    if (!zero) set_block(block, Block::kData);
  }
}

void MemoryVolume::grow(std::uint64_t size_bytes) {
  CHECK(size_bytes <= mapped_bytes_);
  info_.size_bytes = size_bytes;
}

void MemoryVolume::set_block(std::uint64_t block, Block state) {
  if (blocks_[block] == Block::kHole && state != Block::kHole) ++allocated_blocks_;
  if (blocks_[block] != Block::kHole && state == Block::kHole) --allocated_blocks_;
  blocks_[block] = state;
}

Task<Status> MemoryVolume::begin(VolumeCall call, std::uint64_t offset, std::uint64_t length) {
  co_await LaterAwaiter{later_};
  if (fault_) {
    if (auto error = fault_(call, offset, length)) co_return std::move(*error);
  }
  if (offset > info_.size_bytes || length > info_.size_bytes - offset)
    co_return Error{ErrorCode::kInvalid, "outside of volume " + info_.name};
  co_return ok();
}

Task<Result<IoBuffer>> MemoryVolume::read(std::uint64_t offset, std::uint64_t length) {
  ++counters_.reads;
  const Status begun = co_await begin(VolumeCall::kRead, offset, length);
  if (!begun) co_return Error(begun.error());
  IoBuffer data = pool_.allocate(length);
  std::memcpy(data.data(), memory_ + offset, length);
  co_return data;
}

Task<Status> MemoryVolume::write(std::uint64_t offset, IoBuffer data, WriteOptions options) {
  ++counters_.writes;
  counters_.fua += options.fua;
  const Status begun = co_await begin(VolumeCall::kWrite, offset, data.size());
  if (!begun) co_return Error(begun.error());
  const std::uint64_t first = offset / kBlockBytes;
  const std::uint64_t last = (offset + data.size() - 1) / kBlockBytes;
  std::uint64_t added = 0;
  for (std::uint64_t block = first; block <= last; ++block) added += blocks_[block] == Block::kHole;
  if (allocated_bytes() + added * kBlockBytes > options_.capacity_bytes)
    co_return Error{ErrorCode::kNoSpace, "volume " + info_.name + " may not take more space"};
  for (std::uint64_t block = first; block <= last; ++block) set_block(block, Block::kData);
  std::memcpy(memory_ + offset, data.data(), data.size());
  note_change(offset, data.size());
  co_return ok();
}

Task<Status> MemoryVolume::flush() {
  ++counters_.flushes;
  const Status begun = co_await begin(VolumeCall::kFlush, 0, 0);
  co_return begun;
}

Status MemoryVolume::zero(std::uint64_t offset, std::uint64_t length, bool keep_allocated) {
  note_change(offset, length);
  const std::uint64_t first = blocks_for(offset);
  const std::uint64_t end = (offset + length) / kBlockBytes;  // whole blocks only
  if (first >= end) {
    std::memset(memory_ + offset, 0, length);
    return ok();
  }
  // Whole pages go back to the system, so that a terabyte can be zeroed.
  std::memset(memory_ + offset, 0, first * kBlockBytes - offset);
  CHECK(::madvise(memory_ + first * kBlockBytes, (end - first) * kBlockBytes, MADV_DONTNEED) == 0);
  std::memset(memory_ + end * kBlockBytes, 0, offset + length - end * kBlockBytes);
  for (std::uint64_t block = first; block < end; ++block)
    set_block(block, keep_allocated ? Block::kZero : Block::kHole);
  return ok();
}

Task<Status> MemoryVolume::discard(std::uint64_t offset, std::uint64_t length,
                                   WriteOptions options) {
  ++counters_.discards;
  counters_.fua += options.fua;
  const Status begun = co_await begin(VolumeCall::kDiscard, offset, length);
  if (!begun) co_return Error(begun.error());
  co_return zero(offset, length, false);
}

Task<Status> MemoryVolume::write_zeroes(std::uint64_t offset, std::uint64_t length,
                                        WriteOptions options) {
  ++counters_.zeroes;
  counters_.fua += options.fua;
  counters_.no_hole += options.no_hole;
  const Status begun = co_await begin(VolumeCall::kWriteZeroes, offset, length);
  if (!begun) co_return Error(begun.error());
  co_return zero(offset, length, options.no_hole);
}

Task<Result<std::vector<AllocationExtent>>> MemoryVolume::allocation(std::uint64_t offset,
                                                                     std::uint64_t length,
                                                                     std::size_t extents_max) {
  ++counters_.allocations;
  const Status begun = co_await begin(VolumeCall::kAllocation, offset, length);
  if (!begun) co_return Error(begun.error());
  std::vector<AllocationExtent> extents;
  const std::uint64_t end = offset + length;
  for (std::uint64_t at = offset; at < end;) {
    const std::uint64_t block = at / kBlockBytes;
    const Block state = blocks_[block];
    const std::uint64_t run = equal_run(blocks_ + block, blocks_for(end) - block);
    const std::uint64_t next = std::min(end, (block + run) * kBlockBytes);
    const AllocationExtent piece{
        .length_bytes = next - at, .hole = state == Block::kHole, .zero = state != Block::kData};
    at = next;
    if (!extents.empty() && extents.back().hole == piece.hole &&
        extents.back().zero == piece.zero) {
      extents.back().length_bytes += piece.length_bytes;
    } else if (extents.size() == extents_max) {
      break;
    } else {
      extents.push_back(piece);
    }
  }
  co_return extents;
}

void MemoryVolume::note_change(std::uint64_t offset, std::uint64_t length) {
  for (const auto& snapshot : snapshots_) {
    for (std::uint64_t block = offset / kBlockBytes; block < blocks_for(offset + length); ++block)
      snapshot->changed[block] = true;
  }
}

void MemoryVolume::snapshot(std::string name) {
  snapshots_.push_back(std::make_shared<Snapshot>(
      Snapshot{std::move(name), std::vector<bool>(blocks_for(mapped_bytes_)), false}));
}

void MemoryVolume::delete_snapshot(std::string_view name) {
  for (const auto& snapshot : snapshots_) snapshot->deleted |= snapshot->name == name;
  std::erase_if(snapshots_, [](const auto& snapshot) { return snapshot->deleted; });
}

std::vector<std::string> MemoryVolume::snapshots() const {
  std::vector<std::string> names;
  for (const auto& snapshot : snapshots_) names.push_back(snapshot->name);
  return names;
}

class MemoryVolume::ChangesSince final : public Changes {
 public:
  ChangesSince(MemoryVolume& volume, std::shared_ptr<Snapshot> snapshot)
      : volume_(volume), snapshot_(std::move(snapshot)) {}

  Task<Result<std::vector<ChangeExtent>>> extents(std::uint64_t offset, std::uint64_t length,
                                                  std::size_t extents_max) override {
    const Status begun = co_await volume_.begin(VolumeCall::kChanges, offset, length);
    if (!begun) co_return Error(begun.error());
    if (snapshot_->deleted)
      co_return Error{ErrorCode::kNotFound, "snapshot " + snapshot_->name + " was deleted"};
    std::vector<ChangeExtent> extents;
    for (std::uint64_t at = offset; at < offset + length;) {
      const bool changed = snapshot_->changed[at / kBlockBytes];
      const std::uint64_t next = std::min(offset + length, (at / kBlockBytes + 1) * kBlockBytes);
      if (extents.empty() || extents.back().changed != changed) {
        if (extents.size() == extents_max) break;
        extents.push_back({0, changed});
      }
      extents.back().length_bytes += next - at;
      at = next;
    }
    co_return extents;
  }

 private:
  MemoryVolume& volume_;
  std::shared_ptr<Snapshot> snapshot_;
};

Result<std::shared_ptr<Changes>> MemoryVolume::changes_since(std::string_view snapshot) {
  for (const auto& one : snapshots_) {
    if (one->name == snapshot)
      return std::shared_ptr<Changes>(std::make_shared<ChangesSince>(*this, one));
  }
  return Volume::changes_since(snapshot);
}

std::vector<VolumeInfo> MemoryDirectory::list() const {
  std::vector<VolumeInfo> infos;
  for (const auto& [name, volume] : volumes_) infos.push_back(volume->info());
  return infos;
}

Result<std::shared_ptr<Volume>> MemoryDirectory::open(std::string_view name) {
  if (const auto refused = refused_.find(name); refused != refused_.end()) return refused->second;
  const auto found = volumes_.find(name);
  if (found == volumes_.end())
    return Error{ErrorCode::kNotFound, "no volume '" + std::string(name) + "' here"};
  return std::shared_ptr<Volume>(found->second);
}

void MemoryDirectory::add(std::shared_ptr<MemoryVolume> volume) {
  const std::string name = volume->info().name;
  volumes_[name] = std::move(volume);
}

}  // namespace tandem::test
