// PairChaos: the life of a pair in one seed's world. In each episode a safety phase, in which
// faults strike and an operator does what operators do, and a liveness phase, in which the faults
// end, the operator does what the runbook says, and everything must come together again.
//
// Checked, by the number of the promise in the design:
//   1, 2  what a promoted or restarted copy has is a prefix of what its clients did, with all that
//         its mode and its crashes must have left (lines.h says how that is known);
//   3     so is what the mirror's disk holds at any moment, promoted as it is;
//   4, 8  what clients read is right or an error, and each call is answered once; a block that went
//         bad on one node only is repaired from the other (pair_rot.cc says how that is known);
//   5     two nodes never serve one timeline, and a fenced one acknowledges nothing;
//   6     what only a former primary held is a branch on it that reads as it was served;
//   9,10  snapshots read as the state they were asked for in, and every block is accounted for;
//   and at the end of an episode both copies are the same, by digest and by content.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/pair_world.h"
#include "tests/sim/simulate/chronicle.h"
#include "tests/sim/simulate/lines.h"
#include "tests/sim/simulate/swarm.h"

namespace tandem::sim {

class PairChaos {
 public:
  PairChaos(std::uint64_t seed, const Swarm& swarm, Chronicle& chronicle);
  ~PairChaos();
  PairChaos(const PairChaos&) = delete;
  PairChaos& operator=(const PairChaos&) = delete;

  void run();
  const std::string& problem() const { return problem_; }
  std::uint64_t trace() { return world_.runtime().trace_hash(); }
  Nanoseconds time() { return world_.runtime().now(); }
  std::size_t acknowledged() const { return acknowledged_; }

 private:
  class Door;
  /// Clients of one node, from its being judged to its end.
  struct Session {
    std::unique_ptr<Door> door;
    std::unique_ptr<StoreClients> clients;
    bool over = false;
    std::optional<std::size_t> acknowledged_when_fenced;
    Nanoseconds fenced_at{0};
  };
  /// What a former primary held alone and must keep as a branch.
  struct Tail {
    Hold hold;
    Lsn end;
    Nanoseconds rewound_at{0};  // 0: not yet
  };
  /// A page of a disk that went bad, until it is written again.
  struct Rotten {
    SimPageRef was, is;
  };
  struct Side {
    PairNode* node = nullptr;
    Side* other = nullptr;
    Hold hold;
    // As it was before the node served its line again, and how many changes were confirmed then. As
    // long as no more were, another crash may lead back to that: it may take from its mirror the
    // records that it had lost, and served without.
    std::optional<Hold> unserved;
    std::size_t confirmed = 0;
    // The clients that its primary's writers wait for it: from the product's own events.
    bool gate_closed = false;
    Lsn barrier;
    ReplicationMode mode = ReplicationMode::kAsync;  // that this node, serving, surely has
    std::uint64_t judged_boot = 0;
    LineKey judged{};  // what it serves was judged, and has clients
    std::unique_ptr<Session> session;
    std::map<LineKey, Tail> tails;
    Nanoseconds resume_at{0};
    std::size_t orders = 0;       // of the operator, under way
    std::size_t mode_orders = 0;  // ever
    bool promoting = false;
    bool fault_armed = false;  // of its disk, that may cost what is not durable
    std::size_t read_faults_armed = 0;  // each fails one read
    bool unreachable = false;
    bool cut_in_start = false;
    std::string slot_state;                  // of its only mirror
    std::map<std::uint64_t, Rotten> rotten;  // by page of its disk
  };
  struct Snapshot {
    std::string node;  // where it was asked for
    LineKey line{};
    std::unique_ptr<StoreModel> model;  // as of the answer
    std::uint64_t called = 0;
    bool acknowledged = false, durable = true;
  };

  // pair_chaos.cc: what happens
  bool complain(const std::string& what);
  void begin();
  void safety_phase();
  void strike(Act act);
  void strike_node(Act act, Side& side);
  void strike_disk(Act act, Side& side);
  void strike_network(Act act, Side& side);
  void order(Act act, Side& side);
  void heal();
  void start_node(Side& side);
  void crash(Side& side, bool power);
  void notice_crash(Side& side);
  void lose_cache(Side& side);
  void pause(Side& side);
  Act draw_act();
  Side& side_of(std::string_view name);
  Side* serving_side();
  bool can_be_asked(const Side& side) const;
  void report();

  // pair_orders.cc: what the operator does; each ends by itself
  Task<void> promote(Side& side, bool force);
  Task<void> demote(Side& side);
  Task<void> switch_over(Side& side);
  Task<void> add_mirror(Side& side);
  Task<void> set_mode(Side& side, ReplicationMode mode);
  Task<void> take_snapshot(Side& side);
  Task<void> drop_snapshot(Side& side, std::string name);
  Task<void> checkpoint(Side& side);
  void tidy(Act act, Side& side);
  void roll_back(Side& side, const std::string& name);
  bool end_session(Side& side);

  // pair_watch.cc: what is noticed, and judged
  void on_event(const LogEvent& event);
  void worst_moment(const LogEvent& event);
  void on_gate(const LogEvent& event);
  void on_rewound(const LogEvent& event);
  void watch();
  void watch_side(Side& side);
  void watch_tail(Side& side);
  static bool went_on(const TimelineHistory& history, const LineKey& line, const Tail& tail);
  void watch_gate(Side& side);
  void close_windows(Side& mirror);
  bool is_judged(const Side& side) const;
  bool confirmed_nothing(Side& side, const LineKey& line);
  void judge(Side& side);
  bool judge_content(Side& side, const TimelineHistory& history, const StoreModel::Found& found);
  void begin_session(Side& side);
  void look_at_mirror();

  // pair_rot.cc: silent damage, and what may be asked of a copy that has some
  void rot(Side& side);
  bool is_behind_recovery(Side& side, const std::vector<std::uint64_t>& pages);
  bool has_rot(const Side& side) const;
  void give_back(Side& side);
  SimImage without_rot(const Side& side, SimImage image) const;
  Result<StoreModel::Found> read_again(Side& side, const std::string& snapshot, const char* mark);
  bool scrub_whole(Side& side);

  // pair_calm.cc: the liveness phase
  void liveness_phase();
  bool calm_step();
  void repair(Side& side);
  void choose_primary();
  void settle_two_primaries();
  bool pair_up(Side& primary);
  bool give_up_copy(Side& primary, const SlotStatus& slot);
  bool make_room(Side& side);
  bool is_following(Side& primary);
  void verify();
  bool verify_snapshots(Side& side);
  bool verify_tails(Side& side);
  bool verify_disk(Side& side);
  void clean_up();

  template <class T>
  T run(Task<T> task) {
    return world_.runtime().run(std::move(task));
  }

  std::uint64_t seed_;
  Swarm swarm_;
  Chronicle& chronicle_;
  SimRandom random_;
  PairWorld world_;
  std::array<Side, 2> sides_;
  Lines lines_;
  std::map<std::string, Snapshot> snapshots_;
  std::size_t names_ = 0, episode_ = 0, acknowledged_ = 0;
  bool calm_ = false;
  // Of the liveness phase: since when the pair is refused, and how far the operator went.
  Nanoseconds refused_since_{0}, nobody_since_{0};
  Lsn reached_;  // by the mirror
  std::size_t new_timelines_ = 0;
  std::string problem_;
};

}  // namespace tandem::sim
