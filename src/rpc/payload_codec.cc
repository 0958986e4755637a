#include "rpc/payload_codec.h"

#include <lz4.h>

#include <algorithm>
#include <cstring>

#include "rpc/link_codec.h"

namespace tandem::rpc {
namespace {

constexpr std::size_t kLengthBytes = 4;

void append_length(std::string& out, std::size_t length) {
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<char>(length >> (8 * i)));
}

std::size_t read_length(const std::byte* from) {
  std::size_t length = 0;
  for (int i = 0; i < 4; ++i) length |= std::to_integer<std::size_t>(from[i]) << (8 * i);
  return length;
}

/// Appends one piece; never more than its own bytes and their length.
void append_piece(std::string& out, const std::string& raw) {
  const std::size_t at = out.size() + kLengthBytes;
  out.resize(at + raw.size());
  const int packed = LZ4_compress_default(raw.data(), out.data() + at, static_cast<int>(raw.size()),
                                          static_cast<int>(raw.size() - 1));
  const std::size_t length = packed > 0 ? static_cast<std::size_t>(packed) : raw.size();
  if (packed <= 0) std::memcpy(out.data() + at, raw.data(), raw.size());
  out.resize(at + length);
  std::string head;
  append_length(head, length);
  std::memcpy(out.data() + at - kLengthBytes, head.data(), kLengthBytes);
}

}  // namespace

std::optional<std::string> compress(const std::vector<IoBuffer>& payload) {
  std::size_t raw_bytes = 0;
  for (const auto& buffer : payload) raw_bytes += buffer.size();
  const std::size_t worth = raw_bytes - raw_bytes / 8;
  std::string out, piece;
  piece.reserve(std::min(raw_bytes, kPieceBytes));
  for (const auto& buffer : payload) {
    for (std::size_t at = 0; at < buffer.size();) {
      const std::size_t part = std::min(buffer.size() - at, kPieceBytes - piece.size());
      piece.append(reinterpret_cast<const char*>(buffer.data()) + at, part);
      at += part;
      if (piece.size() < kPieceBytes) continue;
      append_piece(out, piece);
      piece.clear();
      if (out.size() >= worth) return std::nullopt;
    }
  }
  if (!piece.empty()) append_piece(out, piece);
  if (out.size() >= worth) return std::nullopt;
  return out;
}

bool decompress(std::span<const std::byte> wire, std::uint64_t raw_bytes, BufferPool& pool,
                std::vector<IoBuffer>& payload) {
  if (raw_bytes > kMessageBytesMax) return false;
  while (raw_bytes > 0) {
    const std::size_t whole = std::min<std::uint64_t>(raw_bytes, kPieceBytes);
    if (wire.size() < kLengthBytes) return false;
    const std::size_t length = read_length(wire.data());
    wire = wire.subspan(kLengthBytes);
    if (length > wire.size() || length > whole || length == 0) return false;
    auto piece = pool.allocate(whole);
    if (length == whole) {
      std::memcpy(piece.data(), wire.data(), whole);
    } else {
      const int unpacked = LZ4_decompress_safe(reinterpret_cast<const char*>(wire.data()),
                                               reinterpret_cast<char*>(piece.data()),
                                               static_cast<int>(length), static_cast<int>(whole));
      if (unpacked != static_cast<int>(whole)) return false;
    }
    payload.push_back(std::move(piece));
    wire = wire.subspan(length);
    raw_bytes -= whole;
  }
  return wire.empty();
}

}  // namespace tandem::rpc
