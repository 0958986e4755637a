// LogReader: the pages of a group's log in order, from some position on, many in one read.
//
// Thread: the group's reactor, one call at a time. Memory: at most kPagesAheadMax pages, as long as
// the reader or one of their pages is there.
#pragma once

#include <cstdint>
#include <vector>

#include "format/log_page.h"
#include "format/pool_layout.h"
#include "store/log_zones.h"
#include "tandem/base/buffer.h"
#include "tandem/base/task.h"
#include "tandem/port/block_device.h"

namespace tandem::store {

/// A group's log on a device. What it refers to outlives all that read it.
struct LogSource {
  BlockDevice& device;
  BufferPool& buffers;
  const format::Superblock& geometry;
  const LogZones& zones;
  Uuid group;
};

struct LogPage {
  IoBuffer bytes;  // the records are part of it
  format::LogPageHeader header;
  std::vector<format::PlacedRecord> records;
};

class LogReader {
 public:
  LogReader(LogSource log, Lsn after) : log_(log), at_(after) {}

  /// Behind the last record that was read.
  Lsn position() const { return at_; }
  /// The page of the record behind position(); the first one may begin with older records. `end` is
  /// behind position() and all up to there is on the device: what lies behind it is read too, but
  /// not believed. Reads more at a time the longer it goes on.
  /// Errors: kNotFound: the log was let go of there; kCorrupt, kIo.
  Task<Result<LogPage>> next(Lsn end);

 private:
  Task<Status> find();
  Task<Status> read_ahead(Lsn end);

  LogSource log_;
  Lsn at_;
  PoolBlock place_;  // of the page behind at_; 0: not found yet
  IoBuffer ahead_;   // pages from place_ on, but for the first `taken_`
  std::uint64_t taken_ = 0;
  Lsn whole_upto_;  // the records of these pages that were there when they were read
  std::uint64_t pages_at_once_ = 1;
};

}  // namespace tandem::store
