// Inside of verify: one group.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "inspect/log_walk.h"
#include "inspect/map_walk.h"
#include "inspect/pool_view.h"
#include "inspect/verify.h"

namespace tandem::inspect {

/// Collects findings; keeps a bounded number.
class Findings {
 public:
  Findings(VerifyReport& report, std::size_t kept_max) : report_(report), kept_max_(kept_max) {}
  void problem(std::string part, std::string place, std::string what) {
    ++report_.problems;
    keep({Finding::Severity::kProblem, std::move(part), std::move(place), std::move(what)});
  }
  void note(std::string part, std::string place, std::string what) {
    ++report_.notes;
    keep({Finding::Severity::kNote, std::move(part), std::move(place), std::move(what)});
  }

 private:
  void keep(Finding finding) {
    if (report_.findings.size() < kept_max_) report_.findings.push_back(std::move(finding));
  }
  VerifyReport& report_;
  std::size_t kept_max_;
};

/// One bit per block of the pool.
class BlockSet {
 public:
  explicit BlockSet(std::uint64_t blocks) : words_((blocks + 63) / 64) {}
  bool has(PoolBlock b) const { return (words_[b.value / 64] >> (b.value % 64)) & 1; }
  /// False when it was in already.
  bool add(PoolBlock b) {
    const bool fresh = !has(b);
    words_[b.value / 64] |= std::uint64_t{1} << (b.value % 64);
    return fresh;
  }

 private:
  std::vector<std::uint64_t> words_;
};

class GroupVerifier final : private MapVisitor {
 public:
  GroupVerifier(const PoolView& pool, const GroupView& group, const VerifyOptions& options,
                Findings& findings);
  GroupBalance run();

 private:
  using Extent = format::Extent;
  // verify_group.cc
  void check_descriptor();
  void read_bitmap();
  void check_maps();
  void check_dead();
  std::uint64_t check_chain(const format::DeadChain& chain, const std::string& list, bool held);
  void check_snapshots();
  bool is_taken_apart(NodePlace place) const;
  void check_leaks();
  void check_balance();
  /// Something of the checkpoint lives in `block`: it must be the group's, marked, and nobody
  /// else's, but for what kept states share.
  bool is_borrowed(PoolBlock block) const;
  bool refer(PoolBlock block, const char* part, const std::string& by);
  bool enter(const format::MapEntry& entry, NodePlace place) override;
  void node(const format::MapEntry& entry, NodePlace place,
            std::span<const std::byte> bytes) override;
  void damaged(const format::MapEntry& entry, NodePlace place, const Error& error) override;
  void leaf(NodePlace place, std::span<const std::byte> bytes);
  void check_run(std::uint64_t first_block, std::span<const format::MapEntry> run);
  bool in_data_zone(PoolBlock block) const;
  void advance(std::uint64_t blocks);
  // verify_log.cc
  void check_kept_log();
  void check_tail();
  void check_tail_record(const format::PlacedRecord& placed, bool flushed);
  std::string volume_name() const;
  std::string volume_place(VolumeBlock block) const;

  const PoolView& pool_;
  const GroupView& group_;
  const VerifyOptions& options_;
  Findings& findings_;
  std::string name_;
  GroupBalance balance_;
  std::set<ZoneId> log_zones_;  // of the checkpoint, and those that the tail entered
  BlockSet used_;               // by the bitmap
  BlockSet referred_;           // by the checkpoint
  BlockSet walked_;             // nodes and data seen through a map
  BlockSet placed_;             // by the tail
  // While a map is walked:
  const format::VolumeState* volume_ = nullptr;
  const format::SnapshotState* snapshot_ = nullptr;  // whose maps are walked; null: the live ones
  bool sharing_ = false;                             // what is referred to may be mapped, too
  std::uint64_t allocated_ = 0;
  std::uint64_t borrowed_data_ = 0;
  bool incomplete_ = false;  // a node of it is damaged: its counts mean nothing
  bool blind_ = false;       // something that refers to blocks cannot be read
  std::uint64_t blocks_done_ = 0, blocks_total_ = 0, blocks_shown_ = 0;
};

}  // namespace tandem::inspect
