#include "rpc/wire.h"

#include <algorithm>

#include "rpc/bulk_copy.h"

namespace tandem::rpc::wire {

std::size_t varint_bytes(std::uint64_t value) {
  std::size_t bytes = 1;
  while (value >= 0x80) {
    value >>= 7;
    ++bytes;
  }
  return bytes;
}

void Writer::varint(std::uint64_t value) {
  while (value >= 0x80) {
    out_.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out_.push_back(static_cast<char>(value));
}

void Writer::tag(std::uint32_t field, WireType type) {
  varint(std::uint64_t{field} << 3 | static_cast<std::uint32_t>(type));
}

void Writer::varint_field(std::uint32_t field, std::uint64_t value) {
  if (value == 0) return;
  tag(field, WireType::kVarint);
  varint(value);
}

void Writer::fixed64_field(std::uint32_t field, std::uint64_t value) {
  if (value == 0) return;
  tag(field, WireType::kFixed64);
  fixed64(value);
}

void Writer::bytes_field(std::uint32_t field, std::size_t bytes) {
  tag(field, WireType::kBytes);
  varint(bytes);
}

void Writer::fixed64(std::uint64_t value) {
  for (int i = 0; i < 8; ++i) out_.push_back(static_cast<char>(value >> (8 * i)));
}

void Writer::fixed32(std::uint32_t value) {
  for (int i = 0; i < 4; ++i) out_.push_back(static_cast<char>(value >> (8 * i)));
}

void Writer::raw(std::span<const std::byte> bytes) {
  out_.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

Reader::Reader(const std::vector<grpc::Slice>& slices) : slices_(slices) {
  for (const auto& slice : slices) total_ += slice.size();
}

bool Reader::byte(std::uint8_t& value) {
  while (slice_ < slices_.size() && offset_ == slices_[slice_].size()) {
    ++slice_;
    offset_ = 0;
  }
  if (slice_ == slices_.size()) return false;
  value = slices_[slice_].begin()[offset_++];
  ++position_;
  return true;
}

bool Reader::varint(std::uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    std::uint8_t b;
    if (!byte(b)) return false;
    if (shift == 63 && b > 1) return false;  // more than 64 bits
    value |= std::uint64_t{static_cast<std::uint8_t>(b & 0x7f)} << shift;
    if ((b & 0x80) == 0) return true;
  }
  return false;
}

bool Reader::tag(std::uint32_t& field, WireType& type) {
  std::uint64_t value;
  if (!varint(value) || value > UINT32_MAX) return false;
  field = static_cast<std::uint32_t>(value >> 3);
  type = static_cast<WireType>(value & 7);
  return field != 0;
}

bool Reader::flag(bool& value) {
  std::uint64_t number = 0;
  if (!varint(number)) return false;
  value = number != 0;
  return true;
}

bool Reader::fixed64(std::uint64_t& value) {
  std::byte raw[8];
  if (!copy(raw)) return false;
  value = 0;
  for (int i = 0; i < 8; ++i) value |= std::to_integer<std::uint64_t>(raw[i]) << (8 * i);
  return true;
}

bool Reader::fixed32(std::uint32_t& value) {
  std::byte raw[4];
  if (!copy(raw)) return false;
  value = 0;
  for (int i = 0; i < 4; ++i) value |= std::to_integer<std::uint32_t>(raw[i]) << (8 * i);
  return true;
}

bool Reader::copy(std::span<std::byte> to) {
  if (to.size() > remaining()) return false;
  while (!to.empty()) {
    const auto& slice = slices_[slice_];
    const auto n = std::min(to.size(), slice.size() - offset_);
    bulk_copy(to, std::as_bytes(std::span(slice.begin() + offset_, n)));
    to = to.subspan(n);
    offset_ += n;
    position_ += n;
    if (offset_ == slice.size()) {
      ++slice_;
      offset_ = 0;
    }
  }
  return true;
}

bool Reader::skip(std::uint64_t bytes) {
  if (bytes > remaining()) return false;
  position_ += bytes;
  while (bytes > 0) {
    const auto n = std::min<std::uint64_t>(bytes, slices_[slice_].size() - offset_);
    offset_ += n;
    bytes -= n;
    if (offset_ == slices_[slice_].size()) {
      ++slice_;
      offset_ = 0;
    }
  }
  return true;
}

bool Reader::skip_value(WireType type) {
  std::uint64_t length;
  switch (type) {
    case WireType::kVarint:
      return varint(length);
    case WireType::kFixed64:
      return skip(8);
    case WireType::kFixed32:
      return skip(4);
    case WireType::kBytes:
      return varint(length) && skip(length);
  }
  return false;
}

namespace {

/// Length of the valid UTF-8 sequence at `text`, or 0.
std::size_t sequence_bytes(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  const auto lead = at(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((at(i) & 0xc0) != 0x80) return 0;
  }
  const auto second = at(1);
  if (lead == 0xe0 && second < 0xa0) return 0;  // overlong
  if (lead == 0xed && second > 0x9f) return 0;  // surrogate
  if (lead == 0xf0 && second < 0x90) return 0;  // overlong
  if (lead == 0xf4 && second > 0x8f) return 0;  // beyond U+10FFFF
  return length;
}

}  // namespace

std::string utf8(std::string text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto n = sequence_bytes(std::string_view(text).substr(i));
    if (n == 0) text[i] = '?';
    i += std::max<std::size_t>(n, 1);
  }
  return text;
}

}  // namespace tandem::rpc::wire
