// verify_pool: reads everything a pool holds and says what is wrong with it, and where every block
// went: live + dead + maps + books + log + free = zones.
//
// Works on a pool as any crash may have left it: what a crash explains is a note, what none
// explains is a problem. Memory: 3 bits per block of the pool, and the log behind the checkpoint.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "inspect/reader.h"
#include "tandem/log_point.h"

namespace tandem::inspect {

struct Finding {
  enum class Severity { kProblem, kNote };
  Severity severity = Severity::kProblem;
  std::string
      part;  // superblock | anchor | zones | descriptor | bitmap | map | data | dead | log | space
  std::string place;  // where: group, volume, block
  std::string what;   // what is wrong there, and what it means
};

/// Where the blocks of a group's zones went, at its checkpoint.
struct GroupBalance {
  std::string name;
  std::uint32_t slot = 0;
  LogPoint checkpoint, head;      // head: where a restart will be
  std::uint64_t data_blocks = 0;  // mapped by volumes
  std::uint64_t map_blocks = 0;
  std::uint64_t book_blocks = 0;      // descriptor, bitmaps, chunks of the dead list
  std::uint64_t dead_blocks = 0;      // listed in those chunks
  std::uint64_t snapshot_blocks = 0;  // the same, but mapped by snapshots
  std::uint64_t log_blocks = 0;       // zones that are the log's
  std::uint64_t free_blocks = 0;      // the rest, by the bitmap
  std::uint64_t zone_blocks = 0;      // all zones together
  std::uint64_t tail_blocks = 0;      // of the free ones: taken by the log behind the checkpoint
  std::uint64_t zeroed_blocks = 0;    // mapped, without a place
  std::uint64_t records_behind = 0;   // in the log behind the checkpoint
};

/// Where the blocks of the pool went: fixed + groups + free + other = blocks.
struct PoolBalance {
  std::uint64_t blocks = 0;
  std::uint64_t fixed_blocks = 0;  // superblock, anchors, zone table, and what is no whole zone
  std::uint64_t group_blocks = 0;  // zones of groups that can be read
  std::uint64_t free_blocks = 0;   // zones that nobody owns
  std::uint64_t other_blocks = 0;  // zones of slots without a group, or with one that is damaged
};

struct VerifyOptions {
  std::optional<std::uint32_t> slot;  // only this group, and the pool's own places
  bool data = true;                   // read the content of every block, too
  std::size_t findings_max = 1000;    // kept; all are counted
  /// Called now and then with blocks read and blocks to read.
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;
};

struct VerifyReport {
  std::vector<Finding> findings;  // problems and notes in the order in which they were found
  std::uint64_t problems = 0;
  std::uint64_t notes = 0;
  std::vector<GroupBalance> groups;
  PoolBalance pool;
  bool sound() const { return problems == 0; }
  std::string text() const;  // one finding a line
};

/// Fails only when there is no superblock to start from.
Result<VerifyReport> verify_pool(BlockReader& reader, const VerifyOptions& options);

}  // namespace tandem::inspect
