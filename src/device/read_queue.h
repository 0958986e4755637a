// ReadQueue: the reads of a disk, and how many of them it is given at once.
//
// Some disks, mostly those of virtual machines, work through all they have been given before they
// report any of it. A client that keeps many reads under way then has all its answers at once, and
// takes them and asks anew while the disk has nothing to do: the two take turns instead of working
// at the same time. Given three quarters of the reads, such a disk works on while the client is
// busy with the answers of the last ones.
//
// A disk that works on many reads at once may lose by that, so it is measured: when reads come back
// all together again and again, they are counted with that limit and without it, in turns. It then
// stays for a while if it does not slow them down, else it stays away; either way twice as long as
// the last time that this was found, up to ten seconds.
//
// Reads begin in the order in which they were asked for. Thread: its device's.
#pragma once

#include <cstddef>
#include <deque>

#include "tandem/port/block_device.h"
#include "tandem/port/executor.h"

namespace tandem::device {

class ReadQueue {
 public:
  /// `clock` must outlive this.
  explicit ReadQueue(const Clock& clock) : clock_(clock) {}

  /// `read` is the caller's, and waits here until next() gives it back.
  void ask(IoRequest& read);
  /// The read that the disk gets now, if any: after ask() and after finished(), until there is
  /// none.
  IoRequest* next();
  /// One that the disk got came back.
  void finished();

  /// Nothing waits and nothing is in flight.
  bool is_idle() const { return waiting_.empty() && in_flight_ == 0; }
  /// The disk gets less than there is, for now.
  bool is_limited() const { return state_ == State::kWith || state_ == State::kKept; }

 private:
  // kWithout and kWith alternate, then it is decided.
  enum class State { kWatching, kWithout, kWith, kKept };
  struct Tally {
    std::size_t reads = 0;
    Nanoseconds time{0};
    double rate() const;  // reads a second
  };

  bool has_room() const;
  void round_ended();
  void look_at_clock();
  void end_turn(Nanoseconds now);
  void decide(Nanoseconds now);
  void enter(State state, Nanoseconds now);

  const Clock& clock_;
  std::deque<IoRequest*> waiting_;
  std::size_t in_flight_ = 0;

  State state_ = State::kWatching;
  Nanoseconds since_{0};      // the state began
  std::size_t finished_ = 0;  // since then
  std::size_t together_ = 0;  // came back since the disk got one
  std::size_t rounds_ = 0;    // one behind the other in which all came back together
  std::size_t most_ = 0;      // waited or were in flight at once since they were counted
  Tally without_, with_;
  int turns_ = 0;
  bool helped_ = false;  // the last time
  Nanoseconds verdict_for_{0};
  Nanoseconds verdict_until_{0};
};

}  // namespace tandem::device
