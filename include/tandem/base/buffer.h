// IoBuffer: a counted slice of aligned memory that travels with an operation.
//
// Ownership: copying an IoBuffer shares the memory (atomic count, any thread may drop the last
// reference: gRPC's do). Once a buffer was handed to a write it is immutable by convention.
// Alignment: memory of the pool starts at 4 KiB multiples, so whole buffers suit O_DIRECT.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "tandem/base/units.h"

namespace tandem {

class BufferPool;

namespace buffer_detail {
struct Slab {
  std::byte* memory;
  std::size_t capacity;
  BufferPool* pool;  // where it returns to; null: plain heap memory
  std::atomic<std::uint32_t> references{1};
};
void release(Slab* slab) noexcept;
}  // namespace buffer_detail

class IoBuffer {
 public:
  IoBuffer() = default;
  IoBuffer(const IoBuffer& o) noexcept : slab_(o.slab_), data_(o.data_), size_(o.size_) {
    if (slab_) slab_->references.fetch_add(1, std::memory_order_relaxed);
  }
  IoBuffer(IoBuffer&& o) noexcept
      : slab_(std::exchange(o.slab_, nullptr)),
        data_(std::exchange(o.data_, nullptr)),
        size_(std::exchange(o.size_, 0)) {}
  IoBuffer& operator=(IoBuffer o) noexcept {
    std::swap(slab_, o.slab_);
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  ~IoBuffer() {
    if (slab_ && slab_->references.fetch_sub(1, std::memory_order_acq_rel) == 1)
      buffer_detail::release(slab_);
  }

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  std::span<std::byte> bytes() const { return {data_, size_}; }
  /// Shares [offset, offset+length) of this buffer.
  IoBuffer slice(std::size_t offset, std::size_t length) const;
  bool is_block_aligned() const {
    return reinterpret_cast<std::uintptr_t>(data_) % kBlockBytes == 0 && size_ % kBlockBytes == 0;
  }

  /// Heap memory of `bytes`, 4 KiB aligned, outside any pool (tests, rare large requests).
  static IoBuffer on_heap(std::size_t bytes);

 private:
  friend class BufferPool;
  IoBuffer(buffer_detail::Slab* slab, std::size_t bytes)
      : slab_(slab), data_(slab->memory), size_(bytes) {}
  buffer_detail::Slab* slab_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// One arena of aligned memory, of huge pages where there are any, cut into power-of-two slabs of
/// 4 KiB to 1 MiB. The device registers the arena with the ring once. Falls back to the heap when
/// the arena is used up or the request is larger than 1 MiB, so allocate() never fails.
/// Thread-safe; must outlive its buffers.
class BufferPool {
 public:
  explicit BufferPool(std::size_t arena_bytes);
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// `bytes` of uninitialised memory, 4 KiB aligned; capacity is rounded up to 4 KiB.
  IoBuffer allocate(std::size_t bytes);
  std::span<std::byte> arena() const { return {arena_, arena_bytes_}; }
  std::size_t heap_fallbacks() const { return heap_fallbacks_.load(std::memory_order_relaxed); }

 private:
  friend void buffer_detail::release(buffer_detail::Slab*) noexcept;
  static constexpr int kClasses = 9;  // 4 KiB << 0 … 4 KiB << 8 = 1 MiB
  void give_back(buffer_detail::Slab* slab) noexcept;
  bool refill(int size_class);  // mutex_ held
  std::byte* arena_ = nullptr;
  std::size_t arena_bytes_ = 0;
  void* mapped_ = nullptr;  // with it the arena's alignment
  std::size_t mapped_bytes_ = 0;
  std::size_t arena_used_ = 0;
  std::mutex mutex_;  // guards arena_used_ and free_
  std::vector<buffer_detail::Slab*> free_[kClasses];
  std::vector<std::unique_ptr<buffer_detail::Slab>> slabs_;
  std::atomic<std::size_t> heap_fallbacks_{0};
};

}  // namespace tandem
