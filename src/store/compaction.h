// Compaction: gives whole zones back to the pool. Free blocks that lie scattered over a group's
// zones are of use to that group only; here the sparsest zones are emptied into the free blocks of
// the others, in the background and at a modest rate.
//
//   survey   walks the live maps: how many blocks of each zone can be moved
//   choose   the zones that cost least, as long as all of it fits into the rest with some to spare;
//            nothing is allocated in them any more (SpaceMap::close_zone)
//   copy     walks the maps again: what lies in those zones is read, checked and written elsewhere.
//            Copies that no map names yet are left out of the bitmap, so a crash forgets them
//   enter    a checkpoint, as it freezes, changes the entries that are still as they were, all at
//            once, and keeps the state right behind them as a mark (checkpoint_move.cc)
//
// Why only together with a mark: a copy keeps the position of the record that wrote it, because
// both nodes know the block by that, while lists of dead blocks judge by positions. So moves lie
// only on the edge in front of a kept state; that state is not joined to its successor before its
// parent cannot be taken for one that maps the copies (Group::may_join, decisions/0016).
//
// What a named state, a clone or a fork of the line maps stays where it is: it would be there
// twice.
//
// A restart ends a run; what was entered stays, and the zones are open again. Thread: the group's
// reactor. Memory: one number per zone, and one batch.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "store/group.h"

namespace tandem::store {

struct CompactionReport {
  enum class State { kNever, kRunning, kFinished, kStopped };
  State state = State::kNever;
  bool by_itself = false;  // the pool was short, nobody asked
  UtcNs started, ended;
  std::string outcome;             // why it ended; empty: all that was planned was moved
  std::uint64_t zones_chosen = 0;  // to be emptied
  std::uint64_t zones_emptied = 0;
  std::uint64_t zones_waiting = 0;  // empty once nothing older needs what is left in them
  std::uint64_t blocks_total = 0;   // to be moved, about
  std::uint64_t blocks_moved = 0;   // data and map nodes
  std::uint64_t bad_blocks = 0;     // that failed their checksum, and stay where they are
};

class Compaction {
 public:
  explicit Compaction(Group& group) : group_(group) {}
  Compaction(const Compaction&) = delete;
  Compaction& operator=(const Compaction&) = delete;

  /// Errors: kBusy while one runs or a full copy is received; kRefused: nothing to gain; or why the
  /// group cannot be read.
  Status start(bool by_itself);
  /// Ends it; what was moved stays moved. kNotFound when none runs.
  Status stop();
  /// The group closes.
  void suspend();
  /// Bytes a second, read and written; at once.
  void set_rate(std::uint64_t bytes_per_second);
  /// Free blocks of the group that it leaves to it; before it starts.
  void set_slack(std::uint64_t blocks) { slack_ = blocks; }
  CompactionReport report() const;
  /// Since the last run so much was written that another one stays below a quarter of it.
  bool is_affordable() const;

  // --- for the group's supply of space ----------------------------------------------------------
  /// The group needs the space itself: the zones are open again. False: there are none.
  bool give_way();
  /// The same, unless a run is under way.
  bool reopen_waiting() { return !running_ && give_way(); }
  /// Until no run is under way: it gives back what it took and did not enter.
  Task<void> wait_over();
  /// The zone is not the group's data zone any more.
  void zone_left(ZoneId zone);
  /// Leaves that the next checkpoint may dirty, and blocks for what they replace.
  std::uint64_t leaves_pinned() const { return batch_.pins.size(); }
  std::uint64_t list_blocks() const;

  // --- for checkpoints --------------------------------------------------------------------------
  /// Every copy of the batch is written.
  bool is_ready() const { return ready_; }
  struct Entered {
    Lsn oldest;                           // birth of what was moved
    std::vector<format::DeadBlock> dead;  // where it was; data only
  };
  /// Part of a checkpoint that freezes. Nothing: no entry was as it had been. The batch is over.
  std::optional<Entered> enter(Lsn at);
  /// Copies that no map names yet.
  void exclude(std::vector<Extent>& extents) const;

 private:
  struct Cursor {
    VolumeId volume;
    std::uint64_t leaf = 0;
    std::map<std::uint32_t, std::uint64_t> above;  // node that was visited last, by level
  };
  struct Leaf {
    Group::VolumePtr volume;
    NodeRef node;
  };
  /// A map node at a place of the pool.
  struct NodeAt {
    std::uint32_t level = 0;
    std::uint64_t index = 0;
    format::MapEntry entry;
  };
  struct Move {
    Group::VolumePtr volume;
    std::uint64_t block = 0;
    format::MapEntry from;
    PoolBlock to;
  };
  struct NodeMove {
    Group::VolumePtr volume;
    std::uint32_t level = 0;
    std::uint64_t index = 0;
  };
  struct Batch {
    std::vector<Move> moves;
    std::vector<NodeMove> nodes;
    std::vector<NodeRef> pins;
  };

  Task<void> run();
  Task<Status> survey();
  bool choose_zones();
  Task<void> move_all();
  void finish();
  Task<Result<std::optional<Leaf>>> next_leaf(Cursor& cursor);
  Task<Result<std::vector<NodeAt>>> nodes_at(Cursor& cursor, const Leaf& leaf);
  Task<Status> move_leaf(Cursor& cursor, const Leaf& leaf);
  Task<Status> copy(const Leaf& leaf, std::vector<Move> moves);
  Task<Status> write_copies(std::vector<Move>& moves, const IoBuffer& data);
  Task<Status> enter_batch();
  void drop_batch();
  void open_zones();
  Task<void> keep_pace(std::uint64_t blocks);
  Status check_room(std::uint64_t blocks) const;
  Lsn lasting() const;
  bool has_lasting() const;
  std::set<ZoneId> zones_with_lists() const;
  std::map<ZoneId, std::uint32_t> books() const;
  std::uint64_t slack() const;
  std::size_t pins_max() const;
  bool is_closed(PoolBlock block) const;
  bool must_end() const;
  void end_because(std::string why);

  Group& group_;
  CompactionReport report_;
  std::map<ZoneId, std::uint32_t> movable_;  // blocks, by zone
  std::set<ZoneId> closed_;
  Batch batch_;
  bool ready_ = false;
  bool running_ = false;  // a coroutine is under way
  bool stopping_ = false;
  bool suspended_ = false;
  std::uint64_t bytes_per_second_ = 64u << 20;
  std::optional<std::uint64_t> slack_;   // nullopt: as the group is large
  std::optional<Nanoseconds> ended_at_;  // the last run, monotonic
  std::uint64_t written_before_ = 0;     // payload bytes of the log when the last run ended
  Condition wake_, over_;
};

}  // namespace tandem::store
