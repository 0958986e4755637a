// Where the time of what clients ask for goes, stage by stage: measured by each node for each of
// its groups, always, from its start on.
//
// Of a write, the stages follow each other: queue, device, order and, for those that had to wait
// for it, mirror. Together they are its whole time, so sums of stages can be compared with each
// other.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "tandem/base/histogram.h"
#include "tandem/base/units.h"
#include "tandem/log_point.h"

namespace tandem {

/// What is timed. A write counts once in each of its stages, however many share a page; a discard
/// or a write of zeroes is a write.
enum class Stage : std::uint8_t {
  kWriteQueue,   // from the call until its page is formed
  kWriteDevice,  // until the page came back from the device
  kWriteOrder,   // until it is applied: pages in front of it come first
  kWriteMirror,  // until the mirror lets it go; only of those that had to wait
  kWrite,        // from the call until it is answered
  kFlushDevice,  // the pool's flush, or waiting for one
  kFlushMirror,  // what the mirror's takes longer; only of those that had to wait
  kFlush,        // also of a write that asks for one (FUA), behind the write itself
  kRead,
  kShip,         // from when the oldest record of a batch is in its page until the link has it
  kRoundTrip,    // of a batch, until it is known that the mirror has written it
  kApply,        // on a mirror: from when a batch came until it is applied here
  kApplyDevice,  // the part of it in which its last page is with the device
  kApplyFlush,   // on a mirror: a flush that the primary asked for
};
inline constexpr std::size_t kStages = 14;

/// What shares a cost.
enum class Batch : std::uint8_t {
  kPage,     // records written together on a primary
  kShipped,  // records sent together
  kApplied,  // records received together
};
inline constexpr std::size_t kBatches = 3;

/// A reading of one stage.
struct StageLatency {
  struct Bucket {
    std::uint64_t from_ns = 0, below_ns = 0;  // [from, below)
    std::uint64_t count = 0;
    bool operator==(const Bucket&) const = default;
  };
  std::string operation;  // write | flush | read | link | mirror
  std::string stage;      // "whole" is the sum of an operation's others
  std::uint64_t count = 0;
  std::uint64_t sum_ns = 0;
  std::uint64_t max_ns = 0;
  std::vector<Bucket> buckets;  // those that are not empty, ascending

  double mean_ns() const;
  /// So many of all (0 to 1) took at most this long, as exactly as the buckets tell. 0: none.
  double quantile_ns(double share) const;
  bool operator==(const StageLatency&) const = default;
};

struct BatchSizes {
  std::string batch;  // page | shipped | applied
  std::uint64_t batches = 0;
  std::uint64_t records = 0;  // in all of them
  bool operator==(const BatchSizes&) const = default;
};

struct GroupLatency {
  std::string group;
  Role role = Role::kPrimary;  // now; the counts are of all roles that it had
  UtcNs since;                 // nothing before is counted
  std::vector<StageLatency> stages;
  std::vector<BatchSizes> batches;
};

struct NodeLatency {
  std::string node;
  UtcNs now;
  std::vector<GroupLatency> groups;
};

/// What happened between two readings of a group; all of `after` when counting began anew between
/// them. The largest time is only known by its bucket, unless it is the largest of all.
GroupLatency operator-(GroupLatency after, const GroupLatency& before);

/// The counts of one group. Thread: the reactor's.
class StageTimes {
 public:
  void add(Stage stage, std::chrono::nanoseconds took, std::uint64_t times = 1) {
    stages_[static_cast<std::size_t>(stage)].add(took, times);
  }
  void add(Batch batch, std::uint64_t records) {
    auto& sizes = batches_[static_cast<std::size_t>(batch)];
    ++sizes.batches;
    sizes.records += records;
  }
  const Histogram& of(Stage stage) const { return stages_[static_cast<std::size_t>(stage)]; }
  /// Without name, role and begin: stages that ever took place.
  GroupLatency reading() const;

 private:
  struct Sizes {
    std::uint64_t batches = 0, records = 0;
  };
  std::array<Histogram, kStages> stages_{};
  std::array<Sizes, kBatches> batches_{};
};

}  // namespace tandem
