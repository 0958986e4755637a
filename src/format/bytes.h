// Little-endian cursors over bytes. Every format of Tandem is written and read through these two,
// never by casting a struct, so that padding and byte order cannot become the format.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/check.h"
#include "tandem/base/uuid.h"

namespace tandem::format {

inline void store_le(std::byte* at, std::uint64_t value, int bytes) {
  static_assert(std::endian::native == std::endian::little, "amd64 and arm64 only");
  std::memcpy(at, &value, static_cast<std::size_t>(bytes));
}
inline std::uint64_t load_le(const std::byte* at, int bytes) {
  std::uint64_t value = 0;
  std::memcpy(&value, at, static_cast<std::size_t>(bytes));
  return value;
}

/// Writes into a fixed span; running over its end is our bug.
class Encoder {
 public:
  explicit Encoder(std::span<std::byte> out) : out_(out) {}
  void u8(std::uint8_t v) { number(v, 1); }
  void u16(std::uint16_t v) { number(v, 2); }
  void u32(std::uint32_t v) { number(v, 4); }
  void u64(std::uint64_t v) { number(v, 8); }
  void number(std::uint64_t v, int bytes) { store_le(take(bytes), v, bytes); }
  void raw(std::span<const std::byte> bytes) {
    if (!bytes.empty()) std::memcpy(take(bytes.size()), bytes.data(), bytes.size());
  }
  void uuid(const Uuid& u) { std::memcpy(take(u.bytes.size()), u.bytes.data(), u.bytes.size()); }
  /// u16 length, then the bytes.
  void text(std::string_view s) {
    CHECK(s.size() <= 0xffff);
    u16(static_cast<std::uint16_t>(s.size()));
    raw(std::as_bytes(std::span(s.data(), s.size())));
  }
  void zeroes(std::size_t n) { std::memset(take(n), 0, n); }
  std::size_t position() const { return at_; }

 private:
  std::byte* take(std::size_t n) {
    CHECK(n <= out_.size() - at_);
    auto* p = out_.data() + at_;
    at_ += n;
    return p;
  }
  std::span<std::byte> out_;
  std::size_t at_ = 0;
};

/// Reads from untrusted bytes: running over the end sets failed() and yields zeroes from then on.
class Decoder {
 public:
  explicit Decoder(std::span<const std::byte> in) : in_(in) {}
  std::uint8_t u8() { return static_cast<std::uint8_t>(number(1)); }
  std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t u64() { return number(8); }
  std::uint64_t number(int bytes) {
    const auto* p = take(static_cast<std::size_t>(bytes));
    return p ? load_le(p, bytes) : 0;
  }
  Uuid uuid() {
    Uuid u;
    if (const auto* p = take(u.bytes.size())) std::memcpy(u.bytes.data(), p, u.bytes.size());
    return u;
  }
  std::string text() {
    const std::size_t n = u16();
    const auto* p = take(n);
    return p ? std::string(reinterpret_cast<const char*>(p), n) : std::string();
  }
  std::span<const std::byte> raw(std::size_t n) {
    const auto* p = take(n);
    return p ? std::span(p, n) : std::span<const std::byte>();
  }
  void skip(std::size_t n) { take(n); }
  std::size_t position() const { return at_; }
  std::size_t remaining() const { return in_.size() - at_; }
  bool failed() const { return failed_; }

 private:
  const std::byte* take(std::size_t n) {
    if (failed_ || n > in_.size() - at_) {
      failed_ = true;
      return nullptr;
    }
    const auto* p = in_.data() + at_;
    at_ += n;
    return p;
  }
  std::span<const std::byte> in_;
  std::size_t at_ = 0;
  bool failed_ = false;
};

}  // namespace tandem::format
