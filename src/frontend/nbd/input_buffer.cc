#include "frontend/nbd/input_buffer.h"

#include <cstring>

#include "tandem/base/check.h"

namespace tandem::nbd {

InputBuffer::InputBuffer(std::size_t capacity)
    : capacity_(capacity), memory_(std::make_unique_for_overwrite<std::byte[]>(capacity)) {}

void InputBuffer::consume(std::size_t bytes) {
  CHECK(bytes <= size());
  begin_ += bytes;
  if (begin_ == end_) begin_ = end_ = 0;
}

std::span<std::byte> InputBuffer::space() {
  if (begin_ != 0) {
    std::memmove(memory_.get(), memory_.get() + begin_, size());
    end_ -= begin_;
    begin_ = 0;
  }
  return {memory_.get() + end_, capacity_ - end_};
}

void InputBuffer::commit(std::size_t bytes) {
  CHECK(bytes <= capacity_ - end_);
  end_ += bytes;
}

}  // namespace tandem::nbd
