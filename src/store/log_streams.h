// LogStreams: records out of the log on disk, batch after batch, for mirrors that lag.
//
// Who asks for one batch behind the other gets the next ones read ahead: a disk that is asked for
// one at a time, and for its pages before its data, stands still most of the time. Not while others
// write, whose writes would stand behind all of that in the disk's queue.
//
// Thread: the group's reactor; calls may overlap. Memory: kBatchesAhead batches for each mirror
// that catches up, until about two calls of drop_idle() after its last.
#pragma once

#include <cstddef>
#include <deque>
#include <list>
#include <memory>
#include <optional>
#include <string>

#include "store/log_reader.h"
#include "tandem/base/sync.h"
#include "tandem/port/link.h"

namespace tandem::store {

class LogStreams {
 public:
  /// What is read ahead holds `gate`. `name`: of the group, for messages.
  LogStreams(Gate& gate, const std::string& name) : gate_(gate), name_(name) {}

  /// Records behind `after` of those up to `end`, which are on the device: about `bytes_max` of
  /// them, whole pages; what was read ahead is as long as the call before asked for. `alone`:
  /// nobody writes, so the disk is free for more. Errors: kNotFound: the log does not reach there
  /// any more; kCorrupt, kIo.
  Task<Result<RecordBatch>> read(LogSource log, Lsn after, Lsn end, std::size_t bytes_max,
                                 bool alone);
  /// Forgets what nobody asked for since the last call. What is under way ends by itself.
  void drop_idle();
  /// The log is another one now.
  void clear() { streams_.clear(); }

 private:
  /// A batch whose data may still be on its way.
  struct Batch {
    RecordBatch batch;
    std::vector<LogPage> pages;  // what the records in `wanted` are part of
    std::vector<format::PlacedRecord> wanted;
    std::optional<Status> read;
    Condition was_read;
  };
  using BatchPtr = std::shared_ptr<Batch>;
  struct Stream {
    Stream(const LogSource& log, Lsn after) : reader(log, after), position(after), planned(after) {}
    LogReader reader;
    Lsn position;                 // behind what was taken
    Lsn planned;                  // behind what is read ahead
    std::deque<BatchPtr> ahead;   // from `position` to `planned`
    std::optional<Error> failed;  // why there is nothing behind `planned`
    bool goes_on = false;         // asked for the second time
    bool in_use = false, idle = false;
  };
  using StreamPtr = std::shared_ptr<Stream>;

  StreamPtr stream_at(const LogSource& log, Lsn after);
  Task<Result<RecordBatch>> take(Stream& stream, LogSource log, Lsn end, std::size_t bytes_max,
                                 std::size_t batches);
  static Task<Result<BatchPtr>> plan(Stream& stream, Lsn end, std::size_t bytes_max);
  Task<void> read_data(LogSource log, BatchPtr ahead);
  Status check_data(const Batch& ahead) const;

  Gate& gate_;
  const std::string& name_;
  std::list<StreamPtr> streams_;  // the one that was used last comes first
};

}  // namespace tandem::store
