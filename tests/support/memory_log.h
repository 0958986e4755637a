// MemoryLog: a ReplicatedLog in memory, for tests of replication without the store.
//
// It writes blocks of one volume, takes seeded time for every "device" operation, keeps local
// acknowledgement and remote gates exactly as replicated_log.h demands, and can lose power. Its
// records are encoded by a private format: replication must treat them as opaque.
// Thread: its node's. Nothing may be in flight when it is destroyed: see quiesce().
#pragma once

#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tandem/base/sync.h"
#include "tandem/replicated_log.h"
#include "tests/support/sim_runtime.h"

namespace tandem::sim {

class MemoryLog final : public ReplicatedLog {
 public:
  struct Options {
    Nanoseconds write_max = std::chrono::microseconds(100);
    Nanoseconds flush_max = std::chrono::microseconds(200);
  };
  MemoryLog(SimNode& node, GroupIdentity identity, Options options);
  MemoryLog(SimNode& node, GroupIdentity identity) : MemoryLog(node, identity, Options{}) {}
  ~MemoryLog() override;

  // --- the guest's side ----------------------------------------------------------------------
  /// Writes `stamp` to `block`; completes when acknowledged, kFenced after fence().
  Task<Status> write(VolumeBlock block, std::uint64_t stamp);
  Task<Status> flush();
  /// From now on nothing is acknowledged; everything that waits fails with kFenced.
  void fence();
  /// The first record of the next timeline, as a promotion writes it.
  Task<Status> open_timeline();

  // --- faults --------------------------------------------------------------------------------
  /// What a power cut leaves: everything durable, and of the rest a seeded prefix. Call quiesce()
  /// first: it lets operations in flight end in the void.
  void power_cut();
  /// Drops records up to `upto` from the log, whatever is held.
  void trim(Lsn upto);
  void fail_next_apply(Error error) { next_apply_error_ = std::move(error); }
  /// While true device operations of apply() and write() do not complete.
  void freeze(bool frozen);
  /// find_block() answers for it that it is damaged here too.
  void lose_block(VolumeBlock block) { lost_.insert(block); }
  /// digest_at() cannot read the log until null is given.
  void fail_digests(std::optional<Error> error) { digest_error_ = std::move(error); }
  /// While true digest_at() answers as if the log held other records.
  void falsify_digests(bool on) { false_digests_ = on; }
  /// Whether rewind() finds the state it is asked for.
  void keep_history(bool on) { keeps_history_ = on; }
  Task<void> quiesce() { return work_.close(); }

  // --- what a test checks --------------------------------------------------------------------
  /// The chain at `lsn`, also when the log was trimmed; nullopt for an LSN that never was.
  std::optional<Digest> chain_at(Lsn lsn) const;
  std::map<VolumeBlock, std::uint64_t> content() const;
  Lsn acknowledged() const { return acknowledged_; }              // highest acknowledged write
  Lsn acknowledged_flush() const { return acknowledged_flush_; }  // covered by one
  RemoteAck remote_ack() const { return remote_; }
  std::optional<Lsn> log_hold() const { return hold_; }
  Lsn primary_durable() const { return primary_durable_; }
  Lsn durable_everywhere() const { return durable_everywhere_; }
  bool installing() const { return install_.has_value(); }
  std::uint64_t flushes() const { return flushes_; }
  std::size_t differences() const { return differences_; }  // images that were one
  /// What rewind() left behind, by the last position of each.
  const std::map<Lsn, std::map<VolumeBlock, std::uint64_t>>& branches() const { return branches_; }
  std::size_t applies_in_flight_max() const { return applies_max_; }
  /// The version of `block` now.
  BlockVersion version_of(VolumeBlock block) const;
  const BlockSource& block_source() const { return block_source_; }
  std::uint64_t blocks_found() const { return blocks_found_; }

  // --- ReplicatedLog -------------------------------------------------------------------------
  GroupIdentity identity() const override { return identity_; }
  LogPoint head() const override { return point_at(head_); }
  LogPoint tail() const override { return point_at(tail_lsn()); }
  Lsn durable() const override { return durable_; }
  Lsn checkpoint_lsn() const override { return durable_; }  // as if each flush were one
  TimelineHistory history() const override { return history_; }
  Lsn log_start() const override { return base_.lsn; }
  Task<Result<Digest>> digest_at(Lsn at) override;
  Task<Result<RecordBatch>> read_after(Lsn after, std::size_t bytes_max) override;
  std::uint64_t unflushed_bytes_max() const override { return 32 << 20; }
  void set_append_listener(std::function<void()> listener) override;
  bool flush_waits_for_remote() const override { return remote_flushes_ > 0; }
  void set_remote_ack(RemoteAck ack) override;
  void set_log_hold(std::optional<Lsn> from) override { hold_ = from; }
  void expect_nobody_else() override {}
  Task<Status> apply(RecordBatch batch) override;
  Task<Status> flush_local() override;
  void set_primary_durable(Lsn durable, Lsn everywhere) override {
    primary_durable_ = durable;
    durable_everywhere_ = everywhere;
  }
  Task<Status> rewind(Lsn to) override;
  Task<Result<message::ImageBegin>> begin_image(std::optional<LogPoint> since) override;
  Task<Result<message::ImageBlocks>> read_image(std::size_t bytes_max) override;
  void end_image() override { image_.reset(); }
  Task<Status> begin_install(message::ImageBegin begin) override;
  Task<Status> install_blocks(message::ImageBlocks blocks) override;
  Task<Status> finish_install(message::ImageEnd end) override;
  void abandon_install() override { install_.reset(); }
  /// Content is that of the model; see lose_block().
  Task<Result<IoBuffer>> find_block(BlockVersion version) override;
  void set_block_source(BlockSource source) override { block_source_ = std::move(source); }
  StageTimes& times() override { return times_; }

 private:
  struct Entry {
    LogPoint point;  // at and including this record
    bool opens_timeline = false;
    VolumeBlock block;
    std::uint64_t stamp = 0;
    IoBuffer data;
    bool written = false;
    std::vector<std::byte> encode() const;
  };
  struct Cell {
    std::uint64_t stamp = 0;
    Lsn lsn;
  };
  using Cells = std::map<VolumeBlock, Cell>;
  struct Install {
    message::ImageBegin begin;
    Cells cells;
  };

  Lsn tail_lsn() const { return Lsn{base_.lsn.value + entries_.size()}; }
  LogPoint point_at(Lsn lsn) const;
  Cells cells_now() const;
  Lsn append(Entry entry);
  Task<void> write_out(Lsn upto);
  Task<void> device_time(Nanoseconds max);
  void grew();
  void rebuild();

  SimNode& node_;
  GroupIdentity identity_;
  StageTimes times_;
  Options options_;
  TimelineHistory history_{{Timeline{1}, Lsn{0}, UtcNs{0}}};
  LogPoint base_;  // what lies before entries_
  Cells base_cells_;
  std::deque<Entry> entries_;
  std::map<Lsn, Digest> chain_;  // of every record that ever was, for the checks
  Lsn head_, durable_;
  Lsn acknowledged_, acknowledged_flush_;
  RemoteAck remote_;
  std::optional<Lsn> hold_;
  Lsn primary_durable_, durable_everywhere_;
  std::function<void()> listener_;
  bool listener_posted_ = false;
  std::size_t remote_flushes_ = 0;
  bool fenced_ = false;
  bool frozen_ = false;
  std::size_t differences_ = 0;
  bool false_digests_ = false;
  std::optional<Error> digest_error_;
  bool keeps_history_ = false;
  std::map<Lsn, std::map<VolumeBlock, std::uint64_t>> branches_;
  std::optional<Error> next_apply_error_;
  std::uint64_t flushes_ = 0;
  std::size_t applies_ = 0, applies_max_ = 0;
  Condition changed_;
  struct Image {
    LogPoint point;
    Cells cells;
    Cells::const_iterator next;
  };
  std::optional<Image> image_;
  std::optional<Install> install_;
  BlockSource block_source_;
  std::set<VolumeBlock> lost_;
  std::uint64_t blocks_found_ = 0;
  Gate work_;
};

/// A block whose bytes name themselves.
IoBuffer stamped_block(VolumeBlock block, std::uint64_t stamp);

}  // namespace tandem::sim
