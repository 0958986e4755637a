// Scrub: reads, in the background and at a modest rate, every block that this copy can reach, and
// has repaired what is damaged (repair.h).
//
//   snapshots   kept states in the order in which they were kept, as there were when it began; but
//               for marks: what only they map is checked when a point is made
//   live        the volumes, as a checkpoint at the beginning wrote them; what was written since
//   may
//               be passed over: it is the next one's
//   late        those kept meanwhile: they have what was overwritten before it was reached
//
// Each state is walked beside one it came out of that was walked before: where both name the same
// place, nothing below it is read again. So a thousand snapshots cost what is different in them,
// and it does not matter how states came to share blocks.
//
// The place that was reached is noted with every checkpoint (format::Settings, "state/scrub"), and
// there is one every minute: a restart goes on from there. Map nodes are checked too: one that is
// damaged on disk and whole in memory is written again, any other one is reported; what lies below
// it cannot be looked at.
//
// Thread: the group's reactor.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "store/group.h"

namespace tandem::store {

struct ScrubReport {
  enum class State { kNever, kRunning, kFinished, kStopped };
  State state = State::kNever;
  UtcNs started, ended;
  std::uint64_t blocks_total = 0;  // about, when it began
  std::uint64_t blocks_read = 0;
  std::uint64_t nodes_read = 0;
  std::uint64_t bad_blocks = 0;
  std::uint64_t repaired_blocks = 0;  // of those, given back by a peer
  std::uint64_t bad_nodes = 0;
  std::uint64_t repaired_nodes = 0;    // of those, written again from memory
  std::vector<ScrubFinding> findings;  // the first few, damaged nodes included
};

class Scrub {
 public:
  static constexpr std::size_t kFindingsMax = 16;

  explicit Scrub(Group& group) : group_(group) {}
  Scrub(const Scrub&) = delete;
  Scrub& operator=(const Scrub&) = delete;

  /// From the beginning. Errors: kBusy while one runs, or why the group cannot be read.
  Status start();
  /// Goes on where a restart interrupted one; nothing to do when none was.
  void resume();
  /// Ends it as it is; its result stays. kNotFound when none runs.
  Status stop();
  /// The group closes: a restart goes on.
  void suspend();
  /// Bytes a second; at once.
  void set_rate(std::uint64_t bytes_per_second);
  const ScrubReport& report() const { return report_; }

 private:
  enum class Phase { kSnapshots, kLive, kLate, kDone };
  /// Where it is: everything in front of it was looked at.
  struct Cursor {
    Phase phase = Phase::kSnapshots;
    format::SnapshotId state;  // that is being walked, or the last one that was
    bool inside = false;       // of `state`, or of the live volumes
    VolumeId volume;
    std::uint64_t leaf = 0;
    format::SnapshotId began, live_ended;  // the first that were kept later
  };
  /// One volume of one state, and the same volume of an older one.
  struct Walk {
    Group::VolumePtr volume, base;
    Group::SnapshotPtr snapshot, base_snapshot;  // null: live; none
  };

  Task<void> run(bool anew);
  Task<void> step();
  bool choose_state();
  std::optional<Walk> choose_volume();
  Group::SnapshotPtr base_of(format::SnapshotId parent) const;
  void leave_state();

  Task<std::optional<std::uint64_t>> next_leaf(Walk& walk, std::uint32_t level, std::uint64_t index,
                                               std::uint64_t from);
  Task<Result<format::MapEntry>> entry_of(Group::VolumeCore& volume, std::uint32_t level,
                                          std::uint64_t index);
  Task<bool> is_shared(Walk& walk, std::uint32_t level, std::uint64_t index,
                       const format::MapEntry& entry);
  Task<void> check_node(Walk& walk, std::uint32_t level, std::uint64_t index,
                        format::MapEntry entry);
  Task<bool> rewrite_node(Walk& walk, std::uint32_t level, std::uint64_t index,
                          format::MapEntry entry);
  Task<void> check_leaf(Walk& walk, std::uint64_t leaf);
  Task<void> check_blocks(Walk& walk, std::uint64_t first,
                          const std::vector<format::MapEntry>& entries);
  void find_bad(const Walk& walk, std::uint64_t block, std::string outcome);
  void find_bad_node(const Walk& walk, std::uint32_t level, std::uint64_t index,
                     std::string outcome);
  Task<void> keep_pace(std::uint64_t blocks);
  bool must_end() const;
  bool is_over(const Walk& walk) const;
  Task<void> finish();
  void note();
  bool recall();

  Group& group_;
  ScrubReport report_;
  Cursor cursor_;
  std::uint64_t bytes_per_second_ = 20u << 20;
  bool running_ = false;   // a coroutine is under way
  bool stopping_ = false;  // by the operator
  bool suspended_ = false;
  bool whole_ = false;  // from its beginning in this process
  Condition wake_;
};

}  // namespace tandem::store
