#include "backup/chunk_file.h"

#include <fcntl.h>
#include <zstd.h>

#include <algorithm>
#include <vector>

#include "format/bytes.h"
#include "format/checksum.h"
#include "tandem/base/check.h"

namespace tandem::backup {
namespace {

using format::load_le;
using format::store_le;

constexpr std::uint64_t kMagic = 0x43424454;  // "TDBC"
constexpr std::size_t kHeaderBytes = 40, kSummedBytes = 32;
/// No volume is larger, so no range is.
constexpr std::uint64_t kVolumeBytesMax = std::uint64_t{1} << 52;

enum class Kind : std::uint8_t { kData = 1, kZstd = 2, kZeroes = 3 };

struct Header {
  Kind kind = Kind::kData;
  std::uint64_t offset = 0, length = 0;
  std::uint32_t stored = 0, crc = 0;
};

void encode(std::byte* out, const Header& header) {
  std::fill_n(out, kHeaderBytes, std::byte{});
  store_le(out, kMagic, 4);
  store_le(out + 4, static_cast<std::uint64_t>(header.kind), 1);
  store_le(out + 8, header.offset, 8);
  store_le(out + 16, header.length, 8);
  store_le(out + 24, header.stored, 4);
  store_le(out + 28, header.crc, 4);
  store_le(out + 32, format::crc32c({out, kSummedBytes}), 4);
}

std::optional<Header> decode(const std::byte* from) {
  if (load_le(from, 4) != kMagic || load_le(from + 32, 4) != format::crc32c({from, kSummedBytes}) ||
      load_le(from + 5, 3) != 0 || load_le(from + 36, 4) != 0)
    return std::nullopt;
  const Header header{.kind = static_cast<Kind>(load_le(from + 4, 1)),
                      .offset = load_le(from + 8, 8),
                      .length = load_le(from + 16, 8),
                      .stored = static_cast<std::uint32_t>(load_le(from + 24, 4)),
                      .crc = static_cast<std::uint32_t>(load_le(from + 28, 4))};
  const bool fits = header.length != 0 && header.length <= kVolumeBytesMax &&
                    header.offset <= kVolumeBytesMax - header.length;
  const bool data = header.kind == Kind::kData && header.stored == header.length;
  const bool zstd = header.kind == Kind::kZstd && header.stored < header.length;
  const bool zeroes = header.kind == Kind::kZeroes && header.stored == 0 && header.crc == 0;
  const bool right = zeroes || ((data || zstd) && header.length <= kPieceBytesMax);
  return fits && right ? std::optional(header) : std::nullopt;
}

class Reader final : public ChunkReader {
 public:
  explicit Reader(File file) : file_(std::move(file)) {}

  Result<std::optional<Chunk>> next() override {
    damaged_.reset();
    if (lost_) return lost();
    std::byte head[kHeaderBytes];
    const auto got = file_.read(head);
    if (!got) return got.error();
    if (*got == 0) return std::optional<Chunk>{};
    const auto header = *got == kHeaderBytes ? decode(head) : std::nullopt;
    lost_ = !header || header->offset < end_;
    if (lost_) return lost();
    // As large as this file's chunks: a restore has many files open.
    stored_.resize(std::max<std::size_t>(stored_.size(), header->stored));
    const auto stored = std::span(stored_).first(header->stored);
    const auto filled = file_.read(stored);
    if (!filled) return filled.error();
    lost_ = *filled < stored.size();
    if (lost_) return lost();
    sum_.add(head);
    sum_.add(stored);
    so_far_.file_bytes += kHeaderBytes + stored.size();
    end_ = header->offset + header->length;
    return unpack(*header, stored);
  }

  std::optional<Chunk> damaged() const override { return damaged_; }
  std::uint64_t file_bytes() const override { return so_far_.file_bytes; }

  Summary summary() const override {
    Summary summary = so_far_;
    summary.sha256 = sum_.hex();
    return summary;
  }

 private:
  Error lost() const {
    return {ErrorCode::kCorrupt, file_.path().string() + " is damaged or cut off at byte " +
                                     std::to_string(so_far_.file_bytes) +
                                     "; what follows cannot be told"};
  }

  Result<std::optional<Chunk>> unpack(const Header& header, std::span<const std::byte> stored) {
    Chunk chunk{header.offset, header.length, header.kind == Kind::kZeroes, stored};
    const bool whole = (chunk.zero || format::crc32c(stored) == header.crc) &&
                       (header.kind != Kind::kZstd || decompress(chunk));
    if (!whole) {
      damaged_ = chunk;
      return Error{ErrorCode::kCorrupt,
                   file_.path().string() + ": bytes " + std::to_string(chunk.offset) + "+" +
                       std::to_string(chunk.length) + " of the volume fail their checksum"};
    }
    ++so_far_.chunks;
    (chunk.zero ? so_far_.zero_bytes : so_far_.data_bytes) += chunk.length;
    return std::optional(chunk);
  }

  bool decompress(Chunk& chunk) {
    plain_.resize(chunk.length);
    const auto size =
        ZSTD_decompress(plain_.data(), plain_.size(), chunk.data.data(), chunk.data.size());
    chunk.data = plain_;
    return ZSTD_isError(size) == 0 && size == chunk.length;
  }

  File file_;
  std::vector<std::byte> stored_, plain_;
  std::optional<Chunk> damaged_;
  bool lost_ = false;
  std::uint64_t end_ = 0;
  Sha256 sum_;
  Summary so_far_;
};

class Writer final : public ChunkWriter {
 public:
  Writer(File file, int level) : file_(std::move(file)), level_(level) {}

  /// Takes over what is whole at the front of the file.
  Status take_over() {
    auto reader = ChunkReader::open(file_.path());
    if (!reader) return Error(std::move(reader.error()));
    for (;;) {
      const auto chunk = (*reader)->next();
      if (!chunk && chunk.error().code != ErrorCode::kCorrupt) return chunk.error();
      if (!chunk || !*chunk) break;
      end_ = (*chunk)->offset + (*chunk)->length;
      ++so_far_.chunks;
      ((*chunk)->zero ? so_far_.zero_bytes : so_far_.data_bytes) += (*chunk)->length;
      so_far_.file_bytes = (*reader)->file_bytes();
    }
    TANDEM_TRY(file_.truncate(so_far_.file_bytes));
    return sum_what_is_there();
  }

  std::uint64_t next() const override { return end_; }

  Status data(std::uint64_t offset, std::span<const std::byte> bytes) override {
    CHECK(!bytes.empty() && bytes.size() <= kPieceBytesMax);
    Header header{.kind = Kind::kData, .offset = offset, .length = bytes.size()};
    std::span<const std::byte> stored = bytes;
    if (level_ != 0) {
      packed_.resize(ZSTD_compressBound(bytes.size()));
      const auto size =
          ZSTD_compress(packed_.data(), packed_.size(), bytes.data(), bytes.size(), level_);
      // What does not shrink stays as it is.
      if (ZSTD_isError(size) == 0 && size < bytes.size()) {
        header.kind = Kind::kZstd;
        stored = std::span(packed_).first(size);
      }
    }
    header.stored = static_cast<std::uint32_t>(stored.size());
    header.crc = format::crc32c(stored);
    TANDEM_TRY(put(header, stored));
    so_far_.data_bytes += bytes.size();
    return ok();
  }

  Status zeroes(std::uint64_t offset, std::uint64_t length) override {
    TANDEM_TRY(put({.kind = Kind::kZeroes, .offset = offset, .length = length}, {}));
    so_far_.zero_bytes += length;
    return ok();
  }

  Result<Summary> finish() override {
    TANDEM_TRY(file_.sync());
    Summary summary = so_far_;
    summary.sha256 = sum_.hex();
    return summary;
  }

 private:
  Status put(const Header& header, std::span<const std::byte> stored) {
    CHECK(header.offset >= end_);
    record_.resize(kHeaderBytes);
    encode(record_.data(), header);
    record_.insert(record_.end(), stored.begin(), stored.end());
    TANDEM_TRY(file_.append(record_));
    sum_.add(record_);
    so_far_.file_bytes += record_.size();
    ++so_far_.chunks;
    end_ = header.offset + header.length;
    return ok();
  }

  Status sum_what_is_there() {
    auto again = File::open(file_.path(), O_RDONLY);
    if (!again) return Error(std::move(again.error()));
    std::vector<std::byte> piece(kPieceBytesMax);
    for (std::size_t got = piece.size(); got == piece.size();) {
      const auto read = again->read(piece);
      if (!read) return read.error();
      got = *read;
      sum_.add(std::span(piece).first(got));
    }
    return ok();
  }

  File file_;
  const int level_;
  std::vector<std::byte> packed_, record_;
  std::uint64_t end_ = 0;
  Sha256 sum_;
  Summary so_far_;
};

}  // namespace

Result<std::unique_ptr<ChunkReader>> ChunkReader::open(const Path& path) {
  auto file = File::open(path, O_RDONLY);
  if (!file) return Error(std::move(file.error()));
  return std::unique_ptr<ChunkReader>(std::make_unique<Reader>(std::move(*file)));
}

Result<std::unique_ptr<ChunkWriter>> ChunkWriter::open(const Path& path, int zstd_level) {
  auto file = File::open(path, O_WRONLY | O_CREAT | O_APPEND);
  if (!file) return Error(std::move(file.error()));
  auto writer = std::make_unique<Writer>(std::move(*file), zstd_level);
  TANDEM_TRY(writer->take_over());
  return std::unique_ptr<ChunkWriter>(std::move(writer));
}

}  // namespace tandem::backup
