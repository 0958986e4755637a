// The edge between Link's messages and their bytes: proto/tandem/v1/replication.proto.
//
// Records and ImageBlocks leave as a small header followed by their payload as slices that hold
// references to the IoBuffers (no copy), and arrive with one copy into 4 KiB-aligned buffers of at
// most 1 MiB each. The bytes are those a generated serialiser would write.
// Thread: any; the functions share nothing but the count of slices.
#pragma once

#include <grpcpp/support/byte_buffer.h>

#include <cstddef>

#include "tandem/base/buffer.h"
#include "tandem/base/result.h"
#include "tandem/port/link.h"

namespace tandem::rpc {

/// No message is larger, in either direction.
inline constexpr std::size_t kMessageBytesMax = 64u << 20;
/// Payload arrives in pieces of this size, so that they come out of the pool.
inline constexpr std::size_t kPieceBytes = 1u << 20;
inline constexpr std::size_t kImageEntriesMax = kMessageBytesMax / kBlockBytes;
inline constexpr int kHistoryMax = 65536;
inline constexpr int kImageVolumesMax = 65536;
inline constexpr std::size_t kNameBytesMax = 1024;

/// kInvalid when the message is larger than kMessageBytesMax or contradicts itself.
Result<grpc::ByteBuffer> encode(Message message);

/// kInvalid for anything that is not one well-formed message: sizes that do not match, unknown
/// kinds, counts beyond the limits.
Result<Message> decode(const grpc::ByteBuffer& bytes, BufferPool& pool);

/// Slices handed to gRPC that still hold an IoBuffer. It must be 0 before their pool goes away.
std::size_t payload_slices_outstanding();

}  // namespace tandem::rpc
