// Records: what the log is made of. See FORMAT.md, "Record".
//
// The canonical encoding is the same on disk and on the wire, on every node; the digest is chained
// over it. Where a node put the data (its placement) is local and is stored beside it, not in it.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "format/bytes.h"
#include "tandem/base/result.h"
#include "tandem/base/units.h"

namespace tandem::format {

enum class RecordType : std::uint8_t {
  kWrite = 1,         // first_block, block_count; body: a crc32c per block
  kDiscard = 2,       // first_block, block_count: not allocated, reads as zeroes
  kZero = 3,          // first_block, block_count: reads as zeroes, reported as allocated
  kVolumeCreate = 4,  // body: size, logical block, name
  kVolumeResize = 5,  // body: size (grows)
  kVolumeDelete = 6,
  kTimeline = 7,  // body: the new timeline; this record is its first
  kSnapshot = 8,  // body: consistency, name, label; keeps the state at its LSN; last of its page
  kRevert = 9,    // body: position of a kept state, name; that is the newest state again, and the
                  // one in front of this record a branch; alone in its page
};

inline constexpr std::size_t kRecordHeaderBytes = 40;
/// Larger writes are split, so that a page holds any record and small ones are not held up.
inline constexpr std::uint32_t kRecordBlocksMax = 64;
/// A discard or zero record covers at most this much, so that the leaves it changes are bounded.
inline constexpr std::uint32_t kRangeBlocksMax = 64 * 1024;
inline constexpr std::size_t kVolumeNameBytesMax = 128;
inline constexpr std::size_t kSnapshotNameBytesMax = 128;
inline constexpr std::size_t kSnapshotLabelBytesMax = 512;
/// 4 PiB: above this a map would need a sixth level.
inline constexpr std::uint64_t kVolumeBytesMax = std::uint64_t{1} << 52;

struct RecordHeader {
  RecordType type{};
  VolumeId volume;
  Lsn lsn;
  UtcNs utc;
  VolumeBlock first_block;
  std::uint32_t block_count = 0;
  bool operator==(const RecordHeader&) const = default;
};

/// A decoded record; `canonical` and `body` point into the decoded bytes.
struct Record {
  RecordHeader header;
  std::span<const std::byte> canonical;
  std::span<const std::byte> body;

  bool has_data() const { return header.type == RecordType::kWrite; }
  std::uint32_t crc(std::uint32_t i) const {
    return static_cast<std::uint32_t>(load_le(body.data() + 4 * i, 4));
  }
};

/// How a snapshot was taken.
enum class Consistency : std::uint8_t {
  kCrash = 0,        // as after a power cut at that moment
  kApplication = 1,  // the configured commands had quiesced the application
  kHookFailed = 2,   // they failed or took too long: the state is crash-consistent
};

struct SnapshotBody {
  Consistency consistency = Consistency::kCrash;
  std::string name;
  std::string label;
};

struct RevertBody {
  Lsn to;              // a kept state of this log
  std::string branch;  // name of what is abandoned
};

/// Changes the consistency of an encoded snapshot record.
void set_consistency(std::span<std::byte> canonical, Consistency consistency);

struct VolumeCreateBody {
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 512;
  std::string name;
};

void encode_write(Encoder& out, const RecordHeader& header, std::span<const std::uint32_t> crcs);
void encode_range(Encoder& out, const RecordHeader& header);  // kDiscard, kZero, kVolumeDelete
void encode_volume_create(Encoder& out, const RecordHeader& header, const VolumeCreateBody& body);
void encode_volume_resize(Encoder& out, const RecordHeader& header, std::uint64_t size_bytes);
void encode_timeline(Encoder& out, const RecordHeader& header, Timeline timeline);
void encode_snapshot(Encoder& out, const RecordHeader& header, const SnapshotBody& body);
void encode_revert(Encoder& out, const RecordHeader& header, const RevertBody& body);

constexpr std::size_t write_record_bytes(std::uint32_t blocks) {
  return kRecordHeaderBytes + 4 * static_cast<std::size_t>(blocks);
}

/// Decodes one record; every field that a later step trusts is validated here.
Result<Record> decode_record(Decoder& in);
Result<VolumeCreateBody> decode_volume_create(const Record& record);
Result<std::uint64_t> decode_volume_resize(const Record& record);
Result<Timeline> decode_timeline(const Record& record);
Result<SnapshotBody> decode_snapshot(const Record& record);
Result<RevertBody> decode_revert(const Record& record);

}  // namespace tandem::format
