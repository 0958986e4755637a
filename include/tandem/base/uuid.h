// 128-bit identities of pools, groups and nodes (RFC 4122 text form, version 4).
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tandem {

struct Uuid {
  std::array<std::uint8_t, 16> bytes{};
  auto operator<=>(const Uuid&) const = default;
  bool is_nil() const { return *this == Uuid{}; }
  std::string text() const;  // 8-4-4-4-12 lower-case hex
  static std::optional<Uuid> parse(std::string_view text);
  /// Version 4 from 128 random bits.
  static Uuid from_random(std::uint64_t high, std::uint64_t low);
};

}  // namespace tandem
