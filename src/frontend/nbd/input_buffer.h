// InputBuffer: bytes received and not yet parsed, in one piece.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace tandem::nbd {

class InputBuffer {
 public:
  explicit InputBuffer(std::size_t capacity);

  std::span<const std::byte> available() const { return {memory_.get() + begin_, end_ - begin_}; }
  std::size_t size() const { return end_ - begin_; }
  std::size_t capacity() const { return capacity_; }
  /// The first `bytes` of available() are done with.
  void consume(std::size_t bytes);
  /// Where to receive into. Moves what is left to the front first, so it invalidates available().
  std::span<std::byte> space();
  /// `bytes` were received into space().
  void commit(std::size_t bytes);

 private:
  std::size_t capacity_;
  std::unique_ptr<std::byte[]> memory_;  // pages that were never received into cost nothing
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
};

}  // namespace tandem::nbd
