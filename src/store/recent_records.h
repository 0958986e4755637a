// RecentRecords: the newest records in memory, for a mirror that keeps up.
//
// Thread: the group's reactor. Memory: at most `bytes_max` of records and data; the oldest go first
// and are then read from the log on disk.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "tandem/port/link.h"

namespace tandem::store {

class RecentRecords {
 public:
  explicit RecentRecords(std::size_t bytes_max) : bytes_max_(bytes_max) {}
  /// Nothing is kept while disabled.
  void enable(bool on);
  bool enabled() const { return enabled_; }
  /// `batch.first` must follow the last one added, else everything older is dropped.
  void add(RecordBatch batch);
  void clear();
  /// Position in front of the oldest record; nullopt when empty.
  std::optional<Lsn> start() const;
  /// Records behind `after` (which must not be in front of start()), about `bytes_max`.
  RecordBatch read_after(Lsn after, std::size_t bytes_max) const;

 private:
  std::size_t bytes_max_;
  bool enabled_ = false;
  std::size_t bytes_ = 0;
  std::deque<RecordBatch> batches_;
};

/// `batch` without its records up to and including `after`.
RecordBatch drop_records(const RecordBatch& batch, Lsn after);

}  // namespace tandem::store
