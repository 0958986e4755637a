#include "format/checksum.h"

#include <isa-l/crc.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>

#include "format/bytes.h"

namespace tandem::format {
namespace {

std::uint32_t extend(std::uint32_t state, std::span<const std::byte> bytes) {
  // ISA-L reads only; its signature predates const.
  auto* p = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data()));
  return crc32_iscsi(p, static_cast<int>(bytes.size()), state);
}

std::uint32_t page_crc(std::span<const std::byte> page, std::size_t crc_offset) {
  static constexpr std::array<std::byte, 4> kZero{};
  std::uint32_t state = extend(0xffffffffu, page.first(crc_offset));
  state = extend(state, kZero);
  return ~extend(state, page.subspan(crc_offset + 4));
}

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes) { return ~extend(0xffffffffu, bytes); }

Digest chain(Digest before, std::span<const std::byte> record) {
  return Digest{XXH3_64bits_withSeed(record.data(), record.size(), before.value)};
}

std::uint32_t crc32c_of_zero_block() {
  static const std::uint32_t value = [] {
    static constexpr std::array<std::byte, kBlockBytes> kZeroes{};
    return crc32c(kZeroes);
  }();
  return value;
}

void seal_page(std::span<std::byte> page, std::size_t crc_offset) {
  store_le(page.data() + crc_offset, page_crc(page, crc_offset), 4);
}

bool page_is_whole(std::span<const std::byte> page, std::size_t crc_offset) {
  return load_le(page.data() + crc_offset, 4) == page_crc(page, crc_offset);
}

}  // namespace tandem::format
