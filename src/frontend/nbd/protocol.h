// Numbers of the NBD protocol, with the names of its specification. Everything on the wire is big
// endian. No logic here; codec.h turns these into messages.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem::nbd {

inline constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;    // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;
inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr std::uint32_t kStructuredReplyMagic = 0x668e33ef;

// Handshake flags (server) and client flags: the same two bits.
inline constexpr std::uint16_t kFixedNewstyle = 1 << 0;
inline constexpr std::uint16_t kNoZeroes = 1 << 1;

namespace option {
inline constexpr std::uint32_t kExportName = 1;
inline constexpr std::uint32_t kAbort = 2;
inline constexpr std::uint32_t kList = 3;
inline constexpr std::uint32_t kStartTls = 5;
inline constexpr std::uint32_t kInfo = 6;
inline constexpr std::uint32_t kGo = 7;
inline constexpr std::uint32_t kStructuredReply = 8;
inline constexpr std::uint32_t kListMetaContext = 9;
inline constexpr std::uint32_t kSetMetaContext = 10;
}  // namespace option

namespace rep {
inline constexpr std::uint32_t kAck = 1;
inline constexpr std::uint32_t kServer = 2;
inline constexpr std::uint32_t kInfo = 3;
inline constexpr std::uint32_t kMetaContext = 4;
inline constexpr std::uint32_t kErrorBit = 1u << 31;
inline constexpr std::uint32_t kErrUnsup = kErrorBit + 1;
inline constexpr std::uint32_t kErrPolicy = kErrorBit + 2;
inline constexpr std::uint32_t kErrInvalid = kErrorBit + 3;
inline constexpr std::uint32_t kErrTlsRequired = kErrorBit + 5;
inline constexpr std::uint32_t kErrUnknown = kErrorBit + 6;
inline constexpr std::uint32_t kErrTooBig = kErrorBit + 9;
}  // namespace rep

namespace info {
inline constexpr std::uint16_t kExport = 0;
inline constexpr std::uint16_t kName = 1;
inline constexpr std::uint16_t kBlockSize = 3;
}  // namespace info

// Transmission flags: what an export can do.
namespace can {
inline constexpr std::uint16_t kHasFlags = 1 << 0;
inline constexpr std::uint16_t kReadOnly = 1 << 1;
inline constexpr std::uint16_t kFlush = 1 << 2;
inline constexpr std::uint16_t kFua = 1 << 3;
inline constexpr std::uint16_t kTrim = 1 << 5;
inline constexpr std::uint16_t kWriteZeroes = 1 << 6;
inline constexpr std::uint16_t kDf = 1 << 7;
inline constexpr std::uint16_t kMultiConn = 1 << 8;
inline constexpr std::uint16_t kCache = 1 << 10;
inline constexpr std::uint16_t kFastZero = 1 << 11;
}  // namespace can

namespace command {
inline constexpr std::uint16_t kRead = 0;
inline constexpr std::uint16_t kWrite = 1;
inline constexpr std::uint16_t kDisc = 2;
inline constexpr std::uint16_t kFlush = 3;
inline constexpr std::uint16_t kTrim = 4;
inline constexpr std::uint16_t kCache = 5;
inline constexpr std::uint16_t kWriteZeroes = 6;
inline constexpr std::uint16_t kBlockStatus = 7;
}  // namespace command

// Command flags.
namespace flag {
inline constexpr std::uint16_t kFua = 1 << 0;
inline constexpr std::uint16_t kNoHole = 1 << 1;
inline constexpr std::uint16_t kDf = 1 << 2;
inline constexpr std::uint16_t kReqOne = 1 << 3;
inline constexpr std::uint16_t kFastZero = 1 << 4;
}  // namespace flag

namespace chunk {
inline constexpr std::uint16_t kDone = 1 << 0;  // flag of the last chunk of a reply
inline constexpr std::uint16_t kNone = 0;
inline constexpr std::uint16_t kOffsetData = 1;
inline constexpr std::uint16_t kOffsetHole = 2;
inline constexpr std::uint16_t kBlockStatus = 5;
inline constexpr std::uint16_t kError = (1 << 15) + 1;
}  // namespace chunk

// Status flags of base:allocation.
inline constexpr std::uint32_t kStateHole = 1 << 0;
inline constexpr std::uint32_t kStateZero = 1 << 1;

/// The errors a server may send; values as on Linux, whatever the platform.
enum class WireError : std::uint32_t {
  kNone = 0,
  kPerm = 1,
  kIo = 5,
  kNoMemory = 12,
  kInvalid = 22,
  kNoSpace = 28,
  kOverflow = 75,
  kNotSupported = 95,
  kShutdown = 108,
};

inline constexpr std::size_t kHelloBytes = 18;
inline constexpr std::size_t kClientFlagsBytes = 4;
inline constexpr std::size_t kOptionHeaderBytes = 16;
inline constexpr std::size_t kRequestBytes = 28;
inline constexpr std::size_t kSimpleReplyBytes = 16;
inline constexpr std::size_t kChunkHeaderBytes = 20;
inline constexpr std::size_t kStringBytesMax = 4096;  // of names and error messages

/// Status flag of tandem:changed and qemu:dirty-bitmap.
inline constexpr std::uint32_t kStateChanged = 1 << 0;

inline constexpr char kBaseAllocation[] = "base:allocation";
inline constexpr char kChangedSince[] = "tandem:changed:";
inline constexpr char kDirtyBitmap[] = "qemu:dirty-bitmap:";
inline constexpr std::uint32_t kBaseAllocationId = 1;

}  // namespace tandem::nbd
