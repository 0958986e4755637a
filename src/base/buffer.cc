#include "tandem/base/buffer.h"

#include <sys/mman.h>

#include <cstdlib>

#include "tandem/base/check.h"

namespace tandem {
namespace {

constexpr std::size_t kArenaStep = 1 << 20;
/// A huge page. Of small ones 1 MiB takes 256 entries of a disk's list, often more than it has; so
/// that one write became two, and each page costs the kernel a look.
constexpr std::size_t kArenaUnit = 2 << 20;

std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

int class_for(std::size_t bytes) {
  int size_class = 0;
  while ((kBlockBytes << size_class) < bytes) ++size_class;
  return size_class;
}

}  // namespace

namespace buffer_detail {
void release(Slab* slab) noexcept {
  if (slab->pool != nullptr) {
    slab->pool->give_back(slab);
  } else {
    std::free(slab->memory);
    delete slab;
  }
}
}  // namespace buffer_detail

IoBuffer IoBuffer::slice(std::size_t offset, std::size_t length) const {
  CHECK(offset <= size_ && length <= size_ - offset);
  IoBuffer out = *this;
  out.data_ += offset;
  out.size_ = length;
  return out;
}

IoBuffer IoBuffer::on_heap(std::size_t bytes) {
  const std::size_t capacity = round_up(bytes == 0 ? 1 : bytes, kBlockBytes);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kBlockBytes, capacity));
  CHECK(memory != nullptr);
  return IoBuffer(new buffer_detail::Slab{memory, capacity, nullptr}, bytes);
}

BufferPool::BufferPool(std::size_t arena_bytes)
    : arena_bytes_(round_up(arena_bytes, kArenaStep)), mapped_bytes_(arena_bytes_ + kArenaUnit) {
  mapped_ = ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(mapped_ != MAP_FAILED);
  const auto start = round_up(reinterpret_cast<std::uintptr_t>(mapped_), kArenaUnit);
  arena_ = reinterpret_cast<std::byte*>(start);
  (void)::madvise(arena_, arena_bytes_, MADV_HUGEPAGE);  // small ones will do
}

BufferPool::~BufferPool() {
  std::size_t free_count = 0;
  for (const auto& list : free_) free_count += list.size();
  CHECK(free_count == slabs_.size());  // every buffer came back
  ::munmap(mapped_, mapped_bytes_);
}

IoBuffer BufferPool::allocate(std::size_t bytes) {
  if (bytes <= (kBlockBytes << (kClasses - 1))) {
    const int size_class = class_for(bytes);
    std::lock_guard lock(mutex_);
    if (!free_[size_class].empty() || refill(size_class)) {
      auto* slab = free_[size_class].back();
      free_[size_class].pop_back();
      slab->references.store(1, std::memory_order_relaxed);
      return IoBuffer(slab, bytes);
    }
  }
  heap_fallbacks_.fetch_add(1, std::memory_order_relaxed);
  return IoBuffer::on_heap(bytes);
}

bool BufferPool::refill(int size_class) {
  if (arena_used_ + kArenaStep > arena_bytes_) return false;
  const std::size_t slab_bytes = kBlockBytes << size_class;
  for (std::size_t at = 0; at < kArenaStep; at += slab_bytes) {
    slabs_.push_back(std::unique_ptr<buffer_detail::Slab>(
        new buffer_detail::Slab{arena_ + arena_used_ + at, slab_bytes, this}));
    free_[size_class].push_back(slabs_.back().get());
  }
  arena_used_ += kArenaStep;
  return true;
}

void BufferPool::give_back(buffer_detail::Slab* slab) noexcept {
  const int size_class = class_for(slab->capacity);
  std::lock_guard lock(mutex_);
  free_[size_class].push_back(slab);
}

}  // namespace tandem
