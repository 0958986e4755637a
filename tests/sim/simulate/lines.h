// Lines: what the clients of a pair may expect of every copy, whoever served it and when.
//
// A line is what one node served on one timeline: a StoreModel of its clients' calls and answers,
// which no other line shares. A promotion begins a line with what the promoted copy had. While two
// nodes serve, two lines grow side by side. A line has several models, each made by a crash of the
// node that serves it: what a crash cost is gone from the newest one, but a mirror may still have
// it.
//
// A Hold is what a node's copy must have of a line beyond being a prefix of it: everything, of what
// the node served itself; everything up to some moment, of a mirror that was in sync until then.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tandem/log_point.h"
#include "tests/support/store_model.h"

namespace tandem::sim {

/// Two nodes may open timelines of one number, but not at the same time and place.
using LineKey = TimelineFork;
/// The line that a copy with this history is on. When a copy was made is no part of it.
inline LineKey key_of(const TimelineHistory& history) {
  LineKey key = history.back();
  if (history.size() == 1) key.utc = UtcNs{};
  return key;
}

inline constexpr std::uint64_t kForever = std::numeric_limits<std::uint64_t>::max();

struct Hold {
  LineKey line{};
  std::size_t model = 0;  // of the line, the one that the moments below count in
  bool own = false;       // the node served it
  // Everything acknowledged before this: what was written, so a power cut takes it away.
  std::uint64_t written = 0;
  std::uint64_t durable = 0;     // of a mirror: the same, on stable storage
  std::uint64_t gated_from = 0;  // flushes called from here on wait for the mirror; 0: none does

  /// A power cut, or a flush that failed: only what is durable counts.
  void lose_cache() { written = 0; }
};

struct Line {
  std::vector<std::unique_ptr<StoreModel>> models;  // the newest last
  std::string server;                               // the node's name

  StoreModel& now() { return *models.back(); }
  std::size_t newest() const { return models.size() - 1; }
};

class Lines {
 public:
  /// Forgets everything but what both copies hold now.
  void settle(const LineKey& key, const std::string& server, const StoreModel::Found& found);
  bool contains(const LineKey& key) const { return lines_.contains(key); }
  Line& at(const LineKey& key) { return lines_.at(key); }
  /// The newest line that a copy with this history lies on; null: none of them.
  const LineKey* newest_of(const TimelineHistory& history) const;
  /// Begins a line with what a promoted copy had, which was judged good.
  Line& begin(const LineKey& key, const std::string& server, const StoreModel::Found& found);
  /// Nothing, or why a copy on that line cannot have `found`.
  std::optional<std::string> check(const LineKey& key, const StoreModel::Found& found,
                                   const Hold& hold);
  /// The node that serves the line is back with `found`, after a crash that left what `hold` says.
  std::optional<std::string> restart(const LineKey& key, const StoreModel::Found& found,
                                     const Hold& hold);
  /// Its content may be `found` from now on, or not: a rollback is under way.
  void may_become(const LineKey& key, const StoreModel::Found& found);
  StoreModel::Demand demand_of(const LineKey& key, std::size_t model, const Hold& hold);
  /// A line that parted from this one in front of that position exists.
  bool parted_before(const TimelineHistory& history, Lsn end) const;
  void note_history(const TimelineHistory& history);

 private:
  /// Stamps name operations, so no two models may give one number to different ones.
  static constexpr OpId kOpsPerLine = 1'000'000;

  std::optional<std::size_t> explained_by(const LineKey& key, const StoreModel::Found& found,
                                          const Hold& hold, std::string& why);

  std::map<LineKey, Line> lines_;
  std::map<LineKey, LineKey> parents_;
  OpId next_op_ = 1;
};

}  // namespace tandem::sim
