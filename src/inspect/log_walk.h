// Walks a group's log: the pages in front of the checkpoint that are kept for a mirror, and those
// behind it that a restart will replay, up to where the log ends by the rules of recovery.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "format/log_page.h"
#include "inspect/pool_view.h"
#include "tandem/base/buffer.h"

namespace tandem::inspect {

struct LogPageView {
  PoolBlock at;
  IoBuffer bytes;  // the page; `records` point into it
  format::LogPageHeader header;
  std::vector<format::PlacedRecord> records;
  LogPoint after;
  Lsn last() const { return after.lsn; }
};

/// Decodes one block as a page of `group` at `at`.
Result<LogPageView> read_log_page(const PoolView& pool, const GroupView& group, PoolBlock at);

/// Pages in front of the checkpoint that hold records behind `from`, in order. `page` returns false
/// to stop; `damage` tells what does not follow, and the walk ends there.
void walk_kept_log(const PoolView& pool, const GroupView& group, Lsn from,
                   const std::function<bool(const LogPageView&)>& page,
                   const std::function<void(PoolBlock at, std::string what)>& damage);

/// The log behind the checkpoint.
struct LogTail {
  std::vector<LogPageView> pages;  // those a restart replays
  LogPoint head;                   // behind the last of them
  Lsn durable;                     // what the writer knew to be flushed
  std::string end;                 // why the log ends there
  PoolBlock end_at;
  std::size_t cut_pages = 0;          // whole pages whose data is not; a restart drops them
  std::vector<std::string> problems;  // what no crash explains
};
/// `read_data` false: pages are not checked against their data, so `cut_pages` stays 0.
LogTail load_log_tail(const PoolView& pool, const GroupView& group, bool read_data);

/// Reads the data of a write record; kCorrupt when any block fails its checksum.
Result<std::vector<std::byte>> read_record_data(const PoolView& pool,
                                                const format::PlacedRecord& placed);

}  // namespace tandem::inspect
