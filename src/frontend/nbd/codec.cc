#include "frontend/nbd/codec.h"

#include <algorithm>

#include "tandem/base/check.h"

namespace tandem::nbd {
namespace {

template <class T>
void put(Bytes& out, T value) {
  std::byte bytes[sizeof(T)];
  for (std::size_t i = 0; i < sizeof(T); ++i)
    bytes[i] = static_cast<std::byte>(value >> (8 * (sizeof(T) - 1 - i)));
  out.insert(out.end(), bytes, bytes + sizeof(T));
}

void put(Bytes& out, std::string_view text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  out.insert(out.end(), data, data + text.size());
}

std::string_view cut(std::string_view message) { return message.substr(0, kStringBytesMax); }

template <class T>
T get(const std::byte* from) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>((value << 8) | static_cast<T>(from[i]));
  return value;
}

/// Takes fields off the front of option data; once something is missing, it stays failed.
class Reader {
 public:
  explicit Reader(ByteView from) : rest_(from) {}
  template <class T>
  T number() {
    if (rest_.size() < sizeof(T)) return fail<T>();
    const T value = get<T>(rest_.data());
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  std::string text(std::size_t bytes) {
    if (rest_.size() < bytes) return fail<std::string>();
    auto name = decode_name(rest_.first(bytes));
    if (!name) return fail<std::string>();
    rest_ = rest_.subspan(bytes);
    return std::move(*name);
  }
  std::size_t left() const { return rest_.size(); }
  bool failed() const { return failed_; }
  /// Everything was there and nothing is left over.
  bool complete() const { return !failed_ && rest_.empty(); }

 private:
  template <class T>
  T fail() {
    failed_ = true;
    rest_ = {};
    return T{};
  }
  ByteView rest_;
  bool failed_ = false;
};

void put_option_reply_head(Bytes& out, std::uint32_t option, std::uint32_t type,
                           std::size_t length) {
  put<std::uint64_t>(out, kOptionReplyMagic);
  put<std::uint32_t>(out, option);
  put<std::uint32_t>(out, type);
  put<std::uint32_t>(out, static_cast<std::uint32_t>(length));
}

void put_chunk_head(Bytes& out, std::uint64_t cookie, bool done, std::uint16_t type,
                    std::size_t length) {
  put<std::uint32_t>(out, kStructuredReplyMagic);
  put<std::uint16_t>(out, done ? chunk::kDone : 0);
  put<std::uint16_t>(out, type);
  put<std::uint64_t>(out, cookie);
  put<std::uint32_t>(out, static_cast<std::uint32_t>(length));
}

}  // namespace

void append_hello(Bytes& out, std::uint16_t handshake_flags) {
  put<std::uint64_t>(out, kInitMagic);
  put<std::uint64_t>(out, kOptionMagic);
  put<std::uint16_t>(out, handshake_flags);
}

void append_export_name_reply(Bytes& out, std::uint64_t size_bytes, std::uint16_t flags,
                              bool padded) {
  put<std::uint64_t>(out, size_bytes);
  put<std::uint16_t>(out, flags);
  if (padded) out.insert(out.end(), 124, std::byte{0});
}

void append_option_reply(Bytes& out, std::uint32_t option, std::uint32_t type, ByteView data) {
  put_option_reply_head(out, option, type, data.size());
  out.insert(out.end(), data.begin(), data.end());
}

void append_option_error(Bytes& out, std::uint32_t option, std::uint32_t type,
                         std::string_view message) {
  CHECK(type & rep::kErrorBit);
  message = cut(message);
  put_option_reply_head(out, option, type, message.size());
  put(out, message);
}

void append_server(Bytes& out, std::uint32_t option, std::string_view name) {
  put_option_reply_head(out, option, rep::kServer, 4 + name.size());
  put<std::uint32_t>(out, static_cast<std::uint32_t>(name.size()));
  put(out, name);
}

void append_info_export(Bytes& out, std::uint32_t option, std::uint64_t size_bytes,
                        std::uint16_t flags) {
  put_option_reply_head(out, option, rep::kInfo, 12);
  put<std::uint16_t>(out, info::kExport);
  put<std::uint64_t>(out, size_bytes);
  put<std::uint16_t>(out, flags);
}

void append_info_name(Bytes& out, std::uint32_t option, std::string_view name) {
  put_option_reply_head(out, option, rep::kInfo, 2 + name.size());
  put<std::uint16_t>(out, info::kName);
  put(out, name);
}

void append_info_block_size(Bytes& out, std::uint32_t option, const BlockSizes& sizes) {
  put_option_reply_head(out, option, rep::kInfo, 14);
  put<std::uint16_t>(out, info::kBlockSize);
  put<std::uint32_t>(out, sizes.minimum);
  put<std::uint32_t>(out, sizes.preferred);
  put<std::uint32_t>(out, sizes.maximum);
}

void append_meta_context(Bytes& out, std::uint32_t option, std::uint32_t id,
                         std::string_view name) {
  put_option_reply_head(out, option, rep::kMetaContext, 4 + name.size());
  put<std::uint32_t>(out, id);
  put(out, name);
}

std::uint32_t decode_client_flags(std::span<const std::byte, kClientFlagsBytes> from) {
  return get<std::uint32_t>(from.data());
}

std::optional<OptionHeader> decode_option_header(
    std::span<const std::byte, kOptionHeaderBytes> from) {
  if (get<std::uint64_t>(from.data()) != kOptionMagic) return std::nullopt;
  return OptionHeader{.option = get<std::uint32_t>(from.data() + 8),
                      .length = get<std::uint32_t>(from.data() + 12)};
}

std::optional<std::string> decode_name(ByteView from) {
  if (from.size() > kStringBytesMax) return std::nullopt;
  std::string name(reinterpret_cast<const char*>(from.data()), from.size());
  if (name.find('\0') != std::string::npos) return std::nullopt;
  return name;
}

std::optional<ExportRequest> decode_export_request(ByteView from) {
  Reader reader(from);
  ExportRequest request;
  const auto name_bytes = reader.number<std::uint32_t>();
  request.name = reader.text(name_bytes);
  const auto count = reader.number<std::uint16_t>();
  for (std::uint16_t i = 0; i < count && !reader.failed(); ++i)
    request.info.push_back(reader.number<std::uint16_t>());
  if (!reader.complete()) return std::nullopt;
  return request;
}

std::optional<MetaContextRequest> decode_meta_context_request(ByteView from) {
  Reader reader(from);
  MetaContextRequest request;
  const auto name_bytes = reader.number<std::uint32_t>();
  request.export_name = reader.text(name_bytes);
  const auto count = reader.number<std::uint32_t>();
  // The count is the client's word; the loop ends where its data does.
  for (std::uint32_t i = 0; i < count && !reader.failed(); ++i) {
    const auto query_bytes = reader.number<std::uint32_t>();
    request.queries.push_back(reader.text(query_bytes));
  }
  if (!reader.complete()) return std::nullopt;
  return request;
}

std::optional<Request> decode_request(std::span<const std::byte, kRequestBytes> from) {
  if (get<std::uint32_t>(from.data()) != kRequestMagic) return std::nullopt;
  return Request{.flags = get<std::uint16_t>(from.data() + 4),
                 .type = get<std::uint16_t>(from.data() + 6),
                 .cookie = get<std::uint64_t>(from.data() + 8),
                 .offset = get<std::uint64_t>(from.data() + 16),
                 .length = get<std::uint32_t>(from.data() + 24)};
}

void append_simple_reply(Bytes& out, std::uint64_t cookie, WireError error) {
  put<std::uint32_t>(out, kSimpleReplyMagic);
  put<std::uint32_t>(out, static_cast<std::uint32_t>(error));
  put<std::uint64_t>(out, cookie);
}

void append_offset_data_head(Bytes& out, std::uint64_t cookie, bool done, std::uint64_t offset,
                             std::uint32_t length) {
  CHECK(length > 0 && length <= 0xfffffff0u);
  put_chunk_head(out, cookie, done, chunk::kOffsetData, std::size_t{8} + length);
  put<std::uint64_t>(out, offset);
}

void append_offset_hole(Bytes& out, std::uint64_t cookie, bool done, std::uint64_t offset,
                        std::uint32_t length) {
  CHECK(length > 0);
  put_chunk_head(out, cookie, done, chunk::kOffsetHole, 12);
  put<std::uint64_t>(out, offset);
  put<std::uint32_t>(out, length);
}

void append_block_status(Bytes& out, std::uint64_t cookie, bool done, std::uint32_t context_id,
                         std::span<const StatusExtent> extents) {
  CHECK(!extents.empty());
  put_chunk_head(out, cookie, done, chunk::kBlockStatus, 4 + 8 * extents.size());
  put<std::uint32_t>(out, context_id);
  for (const auto& extent : extents) {
    put<std::uint32_t>(out, extent.length);
    put<std::uint32_t>(out, extent.flags);
  }
}

void append_error_chunk(Bytes& out, std::uint64_t cookie, WireError error,
                        std::string_view message) {
  CHECK(error != WireError::kNone);
  message = cut(message);
  put_chunk_head(out, cookie, true, chunk::kError, 6 + message.size());
  put<std::uint32_t>(out, static_cast<std::uint32_t>(error));
  put<std::uint16_t>(out, static_cast<std::uint16_t>(message.size()));
  put(out, message);
}

WireError wire_error(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNoSpace:
      return WireError::kNoSpace;
    case ErrorCode::kInvalid:
      return WireError::kInvalid;
    case ErrorCode::kReadOnly:
    case ErrorCode::kRefused:
      return WireError::kPerm;
    case ErrorCode::kUnsupported:
      return WireError::kNotSupported;
    case ErrorCode::kCancelled:
      return WireError::kShutdown;
    case ErrorCode::kIo:
    case ErrorCode::kCorrupt:
    case ErrorCode::kNotFound:
    case ErrorCode::kExists:
    case ErrorCode::kFenced:
    case ErrorCode::kUnavailable:
    case ErrorCode::kBusy:
      return WireError::kIo;
  }
  return WireError::kIo;
}

std::string printable(std::string_view text) {
  std::string out(text.substr(0, 256));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || c == '"') c = '?';
  return out;
}

}  // namespace tandem::nbd
