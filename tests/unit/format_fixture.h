// What the tests of the formats share: bytes from hexadecimal text, and chance that repeats.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "format/bytes.h"
#include "format/pool_layout.h"

namespace tandem::format {

/// splitmix64: the same sequence on every machine.
class TestRandom {
 public:
  explicit TestRandom(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  std::uint64_t below(std::uint64_t bound) { return bound == 0 ? 0 : next() % bound; }
  std::uint64_t bits(int n) { return next() >> (64 - n); }
  Uuid uuid() { return Uuid::from_random(next(), next()); }
  std::string text(std::size_t bytes_max) {
    std::string s(below(bytes_max + 1), ' ');
    for (auto& c : s) c = static_cast<char>('a' + below(26));
    return s;
  }

 private:
  std::uint64_t state_;
};

using Block = std::array<std::byte, kBlockBytes>;

inline std::string hex(std::span<const std::byte> bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (auto b : bytes) {
    out += kDigits[std::to_integer<int>(b) >> 4];
    out += kDigits[std::to_integer<int>(b) & 15];
  }
  return out;
}

inline std::vector<std::byte> from_hex(std::string_view text) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(std::string(text.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

/// `bytes` start as `golden` says and are zero behind it.
inline void expect_golden(std::span<const std::byte> bytes, std::string_view golden) {
  const std::size_t n = golden.size() / 2;
  ASSERT_LE(n, bytes.size());
  EXPECT_EQ(hex(bytes.first(n)), golden);
  for (std::size_t i = n; i < bytes.size(); ++i) {
    ASSERT_EQ(bytes[i], std::byte{}) << "byte " << i << " should be zero";
  }
}

/// 16 bytes counting up from `first`, as the golden bytes have them.
inline Uuid counting_uuid(std::uint8_t first) {
  Uuid u;
  for (std::size_t i = 0; i < u.bytes.size(); ++i) {
    u.bytes[i] = static_cast<std::uint8_t>(first + i);
  }
  return u;
}

/// `decode(page)` refuses `page` with any single bit of it flipped.
template <class Decode>
void expect_every_flip_refused(Block page, Decode decode) {
  ASSERT_TRUE(decode(ConstPage(page)).has_value());
  for (std::size_t bit = 0; bit < 8 * kBlockBytes; ++bit) {
    const auto mask = static_cast<std::byte>(1u << (bit % 8));
    page[bit / 8] ^= mask;
    ASSERT_FALSE(decode(ConstPage(page)).has_value()) << "bit " << bit;
    page[bit / 8] ^= mask;
  }
}

/// `decode(page)` neither crashes nor succeeds on pages of noise, some with the right magic.
template <class Decode>
void expect_noise_refused(const Block& whole, Decode decode, std::uint64_t seed) {
  TestRandom random(seed);
  for (int round = 0; round < 500; ++round) {
    Block page;
    for (std::size_t i = 0; i < page.size(); i += 8) store_le(&page[i], random.next(), 8);
    const std::size_t kept = random.below(3) * random.below(128);
    std::copy_n(whole.begin(), kept, page.begin());
    ASSERT_FALSE(decode(ConstPage(page)).has_value());
  }
}

}  // namespace tandem::format
