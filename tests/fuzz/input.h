// Input: the bytes that libFuzzer hands to a target, read front to back; zeroes behind their end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "tandem/base/buffer.h"

namespace tandem::fuzz {

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : left_(std::as_bytes(std::span(data, size))) {}

  bool empty() const { return left_.empty(); }
  std::uint8_t u8() { return static_cast<std::uint8_t>(number(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t u64() { return number(8); }
  /// At most `count` bytes.
  std::span<const std::byte> bytes(std::size_t count) {
    const auto taken = left_.first(std::min(count, left_.size()));
    left_ = left_.subspan(taken.size());
    return taken;
  }
  std::span<const std::byte> rest() { return bytes(left_.size()); }

 private:
  std::uint64_t number(std::size_t count) {
    std::uint64_t value = 0;
    const auto from = bytes(count);
    if (!from.empty()) std::memcpy(&value, from.data(), from.size());
    return value;
  }
  std::span<const std::byte> left_;
};

/// A pool whose buffers all come from the heap, where the address sanitizer sees their ends.
class HeapBuffers {
 public:
  HeapBuffers() : pool_(1), arena_(pool_.allocate(pool_.arena().size())) {}
  BufferPool& pool() { return pool_; }

 private:
  BufferPool pool_;
  IoBuffer arena_;
};

}  // namespace tandem::fuzz
