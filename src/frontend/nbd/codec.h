// Pure encoding and decoding of NBD messages: no I/O, no state, no time.
//
// Decoders take borrowed bytes of exactly the size that is named, and answer nullopt for what the
// specification calls invalid. Encoders append to `out`. Golden bytes are in the unit tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/nbd/protocol.h"
#include "tandem/base/result.h"

namespace tandem::nbd {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;

// --- Handshake -------------------------------------------------------------------------------

struct OptionHeader {
  std::uint32_t option = 0;
  std::uint32_t length = 0;  // bytes of option data that follow
};

/// Data of INFO and GO.
struct ExportRequest {
  std::string name;
  std::vector<std::uint16_t> info;  // NBD_INFO_* the client asks for
};

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
struct MetaContextRequest {
  std::string export_name;
  std::vector<std::string> queries;
};

struct BlockSizes {
  std::uint32_t minimum = 1;
  std::uint32_t preferred = 4096;
  std::uint32_t maximum = 0;  // bytes of payload
};

void append_hello(Bytes& out, std::uint16_t handshake_flags);
/// The server's answer to EXPORT_NAME; `padded` adds the 124 zeroes of old clients.
void append_export_name_reply(Bytes& out, std::uint64_t size_bytes, std::uint16_t flags,
                              bool padded);
void append_option_reply(Bytes& out, std::uint32_t option, std::uint32_t type, ByteView data = {});
/// An error (rep::kErr…) with a message for a human; longer messages are cut.
void append_option_error(Bytes& out, std::uint32_t option, std::uint32_t type,
                         std::string_view message);
void append_server(Bytes& out, std::uint32_t option, std::string_view name);
void append_info_export(Bytes& out, std::uint32_t option, std::uint64_t size_bytes,
                        std::uint16_t flags);
void append_info_name(Bytes& out, std::uint32_t option, std::string_view name);
void append_info_block_size(Bytes& out, std::uint32_t option, const BlockSizes& sizes);
void append_meta_context(Bytes& out, std::uint32_t option, std::uint32_t id, std::string_view name);

std::uint32_t decode_client_flags(std::span<const std::byte, kClientFlagsBytes> from);
/// Nullopt: wrong magic, so the stream cannot be parsed any further.
std::optional<OptionHeader> decode_option_header(
    std::span<const std::byte, kOptionHeaderBytes> from);
/// A string without NUL of at most kStringBytesMax bytes.
std::optional<std::string> decode_name(ByteView from);
std::optional<ExportRequest> decode_export_request(ByteView from);
std::optional<MetaContextRequest> decode_meta_context_request(ByteView from);

// --- Transmission ----------------------------------------------------------------------------

struct Request {
  std::uint16_t flags = 0;
  std::uint16_t type = 0;
  std::uint64_t cookie = 0;  // echoed in the reply
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  bool operator==(const Request&) const = default;
};

struct StatusExtent {
  std::uint32_t length = 0;
  std::uint32_t flags = 0;  // kState…
};

/// Nullopt: wrong magic, so the stream cannot be parsed any further.
std::optional<Request> decode_request(std::span<const std::byte, kRequestBytes> from);

void append_simple_reply(Bytes& out, std::uint64_t cookie, WireError error);
/// The head of a chunk whose `length` bytes of data the caller sends behind it.
void append_offset_data_head(Bytes& out, std::uint64_t cookie, bool done, std::uint64_t offset,
                             std::uint32_t length);
void append_offset_hole(Bytes& out, std::uint64_t cookie, bool done, std::uint64_t offset,
                        std::uint32_t length);
/// One context's part of the reply.
void append_block_status(Bytes& out, std::uint64_t cookie, bool done, std::uint32_t context_id,
                         std::span<const StatusExtent> extents);
/// Always the last chunk of its reply; longer messages are cut.
void append_error_chunk(Bytes& out, std::uint64_t cookie, WireError error,
                        std::string_view message);

/// What a guest is told. Fenced and unavailable become EIO: a guest stops or retries on it, and a
/// client that gets ESHUTDOWN must disconnect, which is right only when this server goes away.
WireError wire_error(ErrorCode code);

/// A client's text as it may stand in a log line: control characters and quotes become '?', and it
/// is cut at 256 bytes.
std::string printable(std::string_view text);

}  // namespace tandem::nbd
