// Log pages: 4 KiB of records with their local placement. See FORMAT.md, "Log page".
//
// A page and all the data its records describe are one unit of recovery: either all of it is whole,
// or the log ends in front of it. None of its records is acknowledged before that.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "format/record.h"
#include "tandem/base/result.h"
#include "tandem/log_point.h"

namespace tandem::format {

inline constexpr std::size_t kLogPageHeaderBytes = 128;
inline constexpr std::size_t kLogPageBodyBytes = kBlockBytes - kLogPageHeaderBytes;

struct LogPageHeader {
  Uuid group;
  PoolBlock at;     // where this page is; a page found elsewhere is not accepted
  LogPoint before;  // the position in front of its first record
  std::uint32_t record_count = 0;
  std::uint32_t used_bytes = 0;  // of the body
  std::uint64_t boot = 0;        // random per start of the writer
  bool first_of_boot = false;    // any other page must carry the boot of the page before it
  Lsn durable;                   // records up to here were flushed when this page was built
  ZoneId next_zone;              // the log zone behind this one; 0: not known yet
  bool operator==(const LogPageHeader&) const = default;
};

/// `count` consecutive pool blocks from `start`.
struct Extent {
  PoolBlock start;
  std::uint32_t count = 0;
  bool operator==(const Extent&) const = default;
};

/// Bytes that a record with `canonical` bytes and `extents` takes in a page.
constexpr std::size_t placed_record_bytes(std::size_t canonical, std::size_t extents) {
  return canonical + 4 + 12 * extents;
}
void encode_placement(Encoder& out, std::span<const Extent> extents);

/// Fills the header of `page`, whose body is already encoded, and seals it.
void finish_log_page(std::span<std::byte, kBlockBytes> page, const LogPageHeader& header);

/// kCorrupt: not a whole log page. kUnsupported: written by a newer version.
Result<LogPageHeader> decode_log_page_header(std::span<const std::byte, kBlockBytes> page);

struct PlacedRecord {
  Record record;
  std::vector<Extent> extents;  // of a write: sums to block_count
};

/// All records of a page; spans point into `page`.
Result<std::vector<PlacedRecord>> decode_log_page_body(std::span<const std::byte, kBlockBytes> page,
                                                       const LogPageHeader& header);

}  // namespace tandem::format
