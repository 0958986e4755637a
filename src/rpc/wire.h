// Protobuf's wire format by hand, for the two messages that carry payload: their headers are small,
// their payload must not be copied into a message object first.
//
// Fields of value zero are left out, as proto3 does, so the bytes equal those of a generated
// serialiser. Thread: none of it is shared; a Reader borrows the slices it reads.
#pragma once

#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace tandem::rpc::wire {

enum class WireType : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::size_t varint_bytes(std::uint64_t value);

/// Appends fields to a byte string.
class Writer {
 public:
  void varint(std::uint64_t value);
  void tag(std::uint32_t field, WireType type);
  void varint_field(std::uint32_t field, std::uint64_t value);
  void fixed64_field(std::uint32_t field, std::uint64_t value);
  /// The head of a length-delimited field: its `bytes` bytes must follow.
  void bytes_field(std::uint32_t field, std::size_t bytes);
  void fixed64(std::uint64_t value);
  void fixed32(std::uint32_t value);
  void raw(std::span<const std::byte> bytes);
  void append(const Writer& other) { out_ += other.out_; }
  const std::string& out() const { return out_; }
  std::size_t size() const { return out_.size(); }

 private:
  std::string out_;
};

/// Reads fields from a run of slices. Every call returns false when the input ends too early or is
/// malformed; the reader is then of no further use.
class Reader {
 public:
  explicit Reader(const std::vector<grpc::Slice>& slices);
  bool varint(std::uint64_t& value);
  bool flag(bool& value);
  bool tag(std::uint32_t& field, WireType& type);
  bool fixed64(std::uint64_t& value);
  bool fixed32(std::uint32_t& value);
  bool copy(std::span<std::byte> to);
  bool skip(std::uint64_t bytes);
  /// Skips the value of a field of `type`.
  bool skip_value(WireType type);
  std::size_t position() const { return position_; }
  std::size_t remaining() const { return total_ - position_; }

 private:
  bool byte(std::uint8_t& value);
  const std::vector<grpc::Slice>& slices_;
  std::size_t slice_ = 0;   // index of the slice that holds the next byte
  std::size_t offset_ = 0;  // of the next byte in it
  std::size_t position_ = 0;
  std::size_t total_ = 0;
};

/// `text` with every byte that is not part of valid UTF-8 replaced by '?': protobuf strings must be
/// UTF-8, and a path or a system message may not be.
std::string utf8(std::string text);

}  // namespace tandem::rpc::wire
