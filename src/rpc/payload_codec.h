// Compression of payload on the wire.
//
// Payload is compressed in pieces of kPieceBytes (the last is shorter), each on its own: a u32
// length, little-endian, and that many bytes. A piece whose length equals what it stands for is
// stored as it is.
// Thread: any; nothing is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "tandem/base/buffer.h"
#include "tandem/port/link.h"

namespace tandem::rpc {

/// LZ4 of `payload`, or nothing when less than an eighth would be saved: then it is sent as it is.
std::optional<std::string> compress(const std::vector<IoBuffer>& payload);

/// The payload of `raw_bytes` that `wire` stands for, in pieces of at most kPieceBytes out of
/// `pool`. False: `wire` is malformed or stands for something else.
bool decompress(std::span<const std::byte> wire, std::uint64_t raw_bytes, BufferPool& pool,
                std::vector<IoBuffer>& payload);

}  // namespace tandem::rpc
