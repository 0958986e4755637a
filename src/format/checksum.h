// The two checksums of Tandem.
//
// crc32c (Castagnoli, RFC 3720 appendix B.4) guards single blocks and pages against damage.
// The digest (XXH3, 64 bits, seeded with the value before) is chained over records, so that equal
// digests at an LSN mean equal histories; it is not a defence against a forger, TLS is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "tandem/base/units.h"

namespace tandem::format {

std::uint32_t crc32c(std::span<const std::byte> bytes);

/// The chain value behind a record whose canonical bytes are `record`.
Digest chain(Digest before, std::span<const std::byte> record);

/// crc32c of 4096 zero bytes.
std::uint32_t crc32c_of_zero_block();

/// Pages carry their own checksum: computed with the field itself as zero.
void seal_page(std::span<std::byte> page, std::size_t crc_offset);
bool page_is_whole(std::span<const std::byte> page, std::size_t crc_offset);

}  // namespace tandem::format
