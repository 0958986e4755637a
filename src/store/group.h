// Group: volumes that share one log, on one node. The store's centre: everything else in this
// folder is a part of it.
//
// One write, from call to acknowledgement (write.cc):
//   submit()  checks, checksums and queues it, with its map leaves loaded and pinned
//   pump()    takes what waits, gives it LSNs and places, and sends one log page with all its data
//             to the device; several pages may be in flight
//   apply()   in log order, once page and data are written: changes the map, lists dead blocks
//   release() acknowledges in log order, as far as RemoteAck lets it
//
// Thread: the reactor's. After close() only the destructor may be called.
#pragma once

#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "format/checkpoint.h"
#include "format/log_page.h"
#include "store/dead_list.h"
#include "store/group_use.h"
#include "store/log_reader.h"
#include "store/log_streams.h"
#include "store/log_zones.h"
#include "store/map.h"
#include "store/pool.h"
#include "store/recent_records.h"
#include "store/snapshot_pin.h"
#include "store/space_map.h"
#include "store/volume_reader.h"
#include "tandem/integrity.h"
#include "tandem/kept_states.h"
#include "tandem/latency.h"
#include "tandem/replicated_log.h"
#include "tandem/volume.h"

namespace tandem::store {

class Compaction;
class Repair;
class Scrub;
class VolumeHandle;
class SnapshotHandle;

class Group final : public ReplicatedLog, public std::enable_shared_from_this<Group> {
 public:
  enum class Close { kCheckpoint, kAbandon };
  ~Group() override;

  // --- volumes (primary; each is a record in the log) ------------------------------------------
  Task<Status> create_volume(std::string name, std::uint64_t size_bytes,
                             std::uint32_t logical_block_bytes);
  Task<Status> resize_volume(std::string name, std::uint64_t size_bytes);  // grow only
  Task<Status> delete_volume(std::string name);
  /// As they are now; those being deleted are left out.
  std::vector<format::VolumeState> volumes() const;
  Result<std::shared_ptr<Volume>> open_volume(std::string_view name);

  // --- kept states (snapshots.cc, history.cc): of the whole group, as each node decides ---------
  /// A record in the log, so that every copy keeps the same state. Primary. Durable here when it
  /// returns. What gets its position behind `consistent_until` (monotonic) says that its hook
  /// failed. Errors: kExists, kInvalid, or why nothing can be written.
  Task<Result<LogPoint>> create_snapshot(
      format::SnapshotBody body, std::optional<Nanoseconds> consistent_until = std::nullopt);
  /// Those that have a name (snapshots, branches, points), without those being deleted; in the
  /// order in which they were kept.
  std::vector<format::SnapshotState> snapshots() const;
  /// All of them, also those without a name and those being deleted; until the next await.
  std::vector<const format::SnapshotState*> kept_states() const;
  /// The one that has this name; null: there is none. Until the next await.
  const format::SnapshotState* kept_state(std::string_view name) const;
  /// Of a snapshot of the present line; nothing: there is none of that name, or it is on a branch.
  std::optional<SeedPoint> seed_point(std::string_view snapshot) const;
  /// The one that the live state came out of; 0: none.
  format::SnapshotId parent() const { return parent_; }
  /// On this node only. Its exports answer kNotFound from then on; space comes back in the
  /// background. Durable when it returns.
  Task<Status> delete_snapshot(std::string name);
  Task<Status> rename_snapshot(std::string name, std::string new_name, std::string label);
  /// It is not what its record says: its hook failed.
  Task<Status> doubt_snapshot(Lsn at);
  /// Read-only, in any role. Errors: kNotFound.
  Result<std::shared_ptr<Volume>> open_snapshot(std::string_view snapshot, std::string_view volume);
  /// Blocks that deleting the snapshot would give back.
  Task<Result<std::uint64_t>> blocks_unique_to(std::string snapshot);
  /// Makes a kept state the newest: a record in the log, so that every copy does the same. The
  /// state so far stays as a branch, named `branch` ("": by its position), unless nothing happened
  /// since the kept one. Primary that serves. Volumes opened before answer kNotFound from then on;
  /// open them anew. Nothing is copied. Durable here when it returns; returns where the branch
  /// ends. Errors: kNotFound; kExists: a state has the branch's name; kRefused: that state is not
  /// part of this log (the tail of a former primary), so a mirror cannot have it.
  Task<Result<LogPoint>> rollback(std::string snapshot, std::string branch);

  // --- history (history.cc): every position in a window behind the head can be had again --------
  /// Keeps the log, and what is needed to make any state of the last `window` out of it, but no
  /// more than `bytes_max` of it. Zero: no history. In force at once; kept in the settings by
  /// control, which says it again after every start.
  struct HistoryPolicy {
    Nanoseconds window{0};
    std::uint64_t bytes_max = UINT64_MAX;
  };
  void set_history_policy(HistoryPolicy policy);
  /// What there is: any position from `start` to the head can be kept as a point.
  struct HistoryStatus {
    std::optional<LogPoint> start;  // nullopt: no history is kept here
    std::uint64_t bytes = 0;        // log and blocks that are kept for it
    /// One of many positions in it, oldest first: for rates over time.
    std::vector<LogPoint> marks;
  };
  HistoryStatus history_status() const;
  /// Volumes created, grown and deleted in it, oldest first. Read from the log, but only from where
  /// the volumes differ between two neighbours of the history's states: a volume that was created
  /// and deleted between two of them is not seen. The newest ones, when there are very many.
  Task<std::vector<VolumeChange>> volume_changes();
  /// The last record not behind `time`. Errors: kNotFound: outside of the history; says what it is.
  Task<Result<LogPoint>> position_at(UtcNs time);
  /// Keeps the state at `at`, which is in the history, as a point: a kept state like a snapshot, on
  /// this node only. Takes as long as replaying the log from the mark in front of it. Durable when
  /// it returns. Errors: kNotFound (outside of the history; says what it is), kExists, kNoSpace.
  Task<Result<LogPoint>> keep_point(Lsn at, std::string name, std::string label);

  /// See content_check.h. Errors: kNotFound.
  Task<Result<ContentReport>> check_content(ContentRequest request);

  // --- what control decides ---------------------------------------------------------------------
  std::uint32_t slot() const { return slot_; }
  Role role() const { return role_; }
  ReplicationMode mode() const { return mode_; }
  Timeline fenced_by() const { return fenced_by_; }
  /// True: reads and writes through volumes are answered. Needs the role of primary.
  void serve(bool on);
  bool serving() const { return serving_; }
  /// While the role is being decided: what of the operations of volumes may begin. The others wait,
  /// and have no effect meanwhile; those under way go on. A fence, a stop and a close end the wait.
  enum class Admits { kAll, kReads, kNothing };
  void admit(Admits what);
  /// Changes and flushes of volumes that began and are not answered yet.
  std::size_t changes_under_way() const { return changes_under_way_; }
  /// Changes and persists role and mode. Leaving kPrimary stops serving at once: every write that
  /// waits is answered kFenced before this suspends.
  Task<Status> set_role(Role role, Timeline fenced_by = Timeline{});
  Task<Status> set_mode(ReplicationMode mode);
  const std::vector<format::SlotState>& slots() const { return slots_; }
  Task<Status> set_slots(std::vector<format::SlotState> slots);
  /// Remembered with the next checkpoint; a restart keeps the log from there.
  void note_slot(const format::SlotState& now);
  /// The last checkpoint holds what note_slot() said of it.
  bool slot_is_kept(std::string_view address) const;
  /// What the operator set for this group on this node; meaning and checks are control's.
  const format::Settings& settings() const { return settings_; }
  Task<Status> set_settings(format::Settings settings);  // durable when it returns
  /// Promotion: becomes primary on a timeline above every one that this copy knows and `above`;
  /// durable when it returns. Does not serve yet.
  Task<Result<LogPoint>> start_timeline(Timeline above = Timeline{});
  /// A primary that serves goes on to a timeline above every one that this copy knows, between two
  /// writes. Its record is durable here when it returns; no mirror is waited for.
  Task<Result<LogPoint>> raise_timeline();
  /// A mirror that has not received anything yet cannot be promoted.
  bool awaiting_image() const { return role_ == Role::kMirror && head_.lsn == Lsn{0}; }
  /// Distinct blocks of all volumes that carry a position newer than `since`.
  Task<Result<std::uint64_t>> blocks_newer_than(Lsn since);

  Task<Status> checkpoint();
  GroupUse use() const;
  /// Writes and flushes that were not answered yet (waiting.cc).
  struct Waiting {
    enum class For { kDisk, kCheckpoint, kMemory, kSpace, kMirror };
    For what{};
    Nanoseconds since{};  // monotonic: when one was answered last, or the first came
  };
  /// nullopt: there are none. Of writes and of flushes, those that wait for longer.
  std::optional<Waiting> waiting() const;
  /// Writes answered with kNoSpace since the group was opened.
  struct Refusals {
    std::uint64_t count = 0;
    UtcNs last;
  };
  const Refusals& refusals() const { return refusals_; }
  /// Free in this group's zones; use() says where all the other blocks are.
  std::uint64_t free_blocks() const { return space_.free_blocks() + space_.closed_blocks(); }
  /// Met since the group was opened.
  DamageStatus damage() const;
  Scrub& scrub() { return *scrub_; }
  Compaction& compaction() { return *compaction_; }
  /// Why the group stopped (a failed flush, a broken device); nothing is served until a restart.
  const std::optional<Error>& stopped() const { return stopped_; }
  /// What its stages took since it was opened.
  GroupLatency latency() const;

  // --- ReplicatedLog ----------------------------------------------------------------------------
  GroupIdentity identity() const override;
  LogPoint head() const override { return head_; }
  LogPoint tail() const override { return tail_; }
  Lsn durable() const override { return durable_; }
  Lsn checkpoint_lsn() const override { return checkpoint_lsn_; }
  TimelineHistory history() const override { return history_; }
  Lsn log_start() const override { return std::max(log_.start(), data_horizon_); }
  Task<Result<Digest>> digest_at(Lsn at) override;
  Task<Result<RecordBatch>> read_after(Lsn after, std::size_t bytes_max) override;
  void set_append_listener(std::function<void()> listener) override;
  bool flush_waits_for_remote() const override {
    return remote_flush_waiters_ != 0 || awaits_others_;
  }
  std::uint64_t unflushed_bytes_max() const override;
  void set_remote_ack(RemoteAck ack) override;
  void set_log_hold(std::optional<Lsn> from) override;
  void expect_nobody_else() override { unnamed_hold_.reset(); }
  Task<Status> apply(RecordBatch batch) override;
  Task<Status> flush_local() override;
  void set_primary_durable(Lsn durable, Lsn everywhere) override;
  Task<Status> rewind(Lsn to) override;
  Task<Result<message::ImageBegin>> begin_image(std::optional<LogPoint> since) override;
  Task<Result<message::ImageBlocks>> read_image(std::size_t bytes_max) override;
  void end_image() override;
  Task<Status> begin_install(message::ImageBegin begin) override;
  Task<Status> install_blocks(message::ImageBlocks blocks) override;
  Task<Status> finish_install(message::ImageEnd end) override;
  void abandon_install() override;
  Task<Result<IoBuffer>> find_block(BlockVersion version) override;
  void set_block_source(BlockSource source) override;
  StageTimes& times() override { return times_; }

  // --- for Pool -------------------------------------------------------------------------------
  static Task<Result<std::shared_ptr<Group>>> create(Pool& pool, format::Anchor anchor,
                                                     std::string name, Role role,
                                                     ReplicationMode mode);
  /// What a clone begins as.
  struct Origin {
    Uuid group;
    std::uint32_t next_volume_id = 1;
    format::SnapshotState state;
  };
  static Task<Result<std::shared_ptr<Group>>> create_clone(Pool& pool, format::Anchor anchor,
                                                           std::string name, Origin origin);
  static Task<Result<std::shared_ptr<Group>>> open(Pool& pool, format::Anchor anchor);
  /// Clones that need a kept state: it stays, also without its name. Durable when it returns.
  Task<Result<Origin>> lend(std::string snapshot);
  Task<Status> take_back(format::SnapshotId state);
  /// As the pool's groups have it: a crash may have left other counts.
  void set_clones(std::map<format::SnapshotId, std::uint32_t> clones);
  bool has_clones() const;
  Uuid origin() const { return origin_; }
  format::SnapshotId origin_state() const { return origin_state_; }
  Task<void> close(Close how);
  format::Anchor anchor_of_nothing() const;
  /// Serves nothing from now on: the device lost data, or refuses it. Sticky until a restart.
  void stop(Error error);
  void set_node_name(std::string node) { node_ = std::move(node); }

 private:
  /// Blocks that deleting a snapshot may take for a while.
  static constexpr std::uint64_t kReapReserve = 16;

  friend class VolumeHandle;
  friend class SnapshotHandle;
  friend class SnapshotChanges;
  friend class Recovery;
  friend class Repair;
  friend class Scrub;
  friend class Compaction;
  friend class Checkpoint;

  struct VolumeCore {
    format::VolumeState state;  // root and height live in `tree`
    MapTree tree;
    // Writes under way, and blocks that a partial write has locked: see volume_handle.cc.
    std::list<BlockRange> writing, locked;
    Condition range_freed;
    bool left = false;  // the live state became another: this is a branch's now
  };
  using VolumePtr = std::shared_ptr<VolumeCore>;
  struct Snapshot {
    format::SnapshotState state;
    std::vector<VolumePtr> volumes;  // with trees of their own
    bool ready = false;              // its maps are on disk
    bool reaping = false;            // some of what only it maps may be gone
    Condition became_ready;
    std::size_t readers = 0;  // operations under way; it is not taken apart under them
    std::optional<std::size_t> index_of(std::string_view volume) const;  // in state's volumes
  };
  using SnapshotPtr = std::shared_ptr<Snapshot>;

  /// The live state is to become another one: with the next checkpoint, and nothing is applied in
  /// between. The one so far becomes a branch, unless it is what is kept in front of it.
  struct Turn {
    format::SnapshotId parent;              // of the new live state
    std::vector<VolumePtr> volumes;         // of it
    LogPoint left;                          // where the one so far ends
    std::string branch;                     // "": it is not kept but given back in the background
    std::vector<format::LsnRange> skipped;  // of the new live state
    DeadChain held{};                       // what of its parent it does not map
  };

  struct Aside;        // aside.h
  struct PointTarget;  // aside.h

  /// What a caller of submit() waits for.
  struct Completion {
    std::coroutine_handle<> waiter;
    std::optional<Status> status;
    Lsn last;  // its last record
    // Monotonic, of what is timed: when it was called, and since when it waits for the mirror.
    std::optional<Nanoseconds> called{}, mirror_awaited{};
    bool await_ready() const noexcept { return status.has_value(); }
    void await_suspend(std::coroutine_handle<> h) noexcept { waiter = h; }
    Status await_resume() { return std::move(*status); }
    void complete(Status s) {
      CHECK(!status);
      status = std::move(s);
      if (waiter) waiter.resume();
    }
  };
  /// One record on its way into the log.
  struct Pending {
    std::vector<std::byte> canonical;  // LSN and time are filled in by pump(), unless replicated
    IoBuffer data;                     // of a write
    std::vector<NodeRef> pins;         // the leaves it changes
    Completion* completion = nullptr;  // on the last record of a request
    std::uint64_t request_blocks = 0;  // on the first record: blocks that the whole request needs
    bool discards = false;             // nothing to do when it pins nothing
    bool replicated = false;           // comes with LSN and time from the primary
    SnapshotPtr target;                // of a rollback: where it goes
    std::unique_ptr<SnapshotPin> pin;  // of it
    std::optional<Nanoseconds> consistent_until;  // of a snapshot
  };
  /// One log page on its way to the device.
  struct PageInFlight {
    PoolBlock at;
    LogPoint before, after;
    IoBuffer page;
    std::vector<IoBuffer> staging;
    std::vector<Pending> records;
    std::vector<std::vector<Extent>> places;  // per record
    std::unique_ptr<IoBatch> io;
    bool done = false;
    Status status;
    Nanoseconds formed{}, came_back{};  // monotonic
    std::uint64_t timed = 0;            // requests that end here and are timed
  };

  Group(Pool& pool, const format::Anchor& anchor);
  static Task<Result<std::shared_ptr<Group>>> create(Pool& pool, std::shared_ptr<Group> group,
                                                     const format::Anchor& anchor);

  // clones.cc
  bool is_borrowed(PoolBlock block) const;

  // write.cc
  static format::RecordType type_of(const Pending& pending);
  void enqueue(Pending pending);
  void schedule_pump();
  void pump();
  void tell_appended();
  std::unique_ptr<PageInFlight> form_page();
  bool place_record(PageInFlight& page, Pending& pending, format::Encoder& body);
  void stage_data(PageInFlight& page);
  Task<void> run_page(PageInFlight& page);
  void advance();
  void advance_soon();
  bool may_apply(const PageInFlight& page);
  bool state_is_due() const { return snapshot_due_ || turn_; }
  void apply_page(PageInFlight& page);
  void apply_record(const format::Record& record, const std::vector<Extent>& places);
  VolumePtr core_of(const format::Record& record) const;
  void apply_write(VolumeCore& volume, const format::Record& record,
                   const std::vector<Extent>& places, DeadList* dead);
  void apply_range(VolumeCore& volume, const format::Record& record, DeadList* dead);
  void apply_resize(VolumeCore& volume, const format::Record& record);
  void set_size(VolumeCore& volume, std::uint64_t bytes, Lsn at);
  void let_die(VolumeCore& volume, const format::MapEntry& entry, Lsn death, DeadList* dead);
  void release_acks();
  void fail_waiting(const Error& error);
  Error refusal() const;  // why a write cannot be taken now
  Task<void> wait_applied(Lsn lsn);

  // times.cc
  void note_formed(PageInFlight& page);
  void note_applied(const PageInFlight& page);
  void note_answered(const Completion& completion, Nanoseconds now);

  // waiting.cc
  bool writes_wait() const { return !queue_.empty() || !in_flight_.empty() || !acks_.empty(); }
  Waiting::For what_writes_wait_for() const;

  // flush.cc
  Task<Status> flush_to(Lsn target, bool remote);
  Task<Status> flush_local_to(Lsn target);
  void flush_if_much();

  // supply.cc: space for data and log
  std::uint64_t reserve() const;
  std::uint64_t available() const;
  void supply_if_low();
  Task<void> supply();
  Task<bool> relieve();  // true: something changed, try again
  std::uint64_t blocks_asked() const;
  bool has_room() const;  // for the request at the front
  bool space_is_low() const;
  void refuse_front();

  // horizon.cc: what other copies and the history may still ask for
  Lsn horizon() const { return horizon(others_hold(), rejoin_floor()); }
  Lsn horizon(std::optional<Lsn> others, std::optional<Lsn> floor) const;
  std::optional<Lsn> lowest_hold() const;
  std::optional<Lsn> others_hold() const;
  bool may_wait_for_others() const;
  Task<void> wait_for_others();

  // group.cc
  bool holds(bool change) const {
    return admits_ != Admits::kAll && (change || admits_ == Admits::kNothing);
  }
  Task<void> until_admitted(bool change);
  /// What began in an earlier reign is not confirmed, also when this copy is primary again: its new
  /// timeline is not durable yet, and may not have it.
  bool reigns_since(std::uint64_t reign) const {
    return role_ == Role::kPrimary && reign_ == reign;
  }
  Timeline timeline_above(Timeline above) const;
  static std::vector<std::byte> timeline_record(Timeline timeline);

  // volumes.cc
  Task<Result<Lsn>> append_control(std::vector<std::byte> canonical,
                                   std::optional<Nanoseconds> consistent_until = std::nullopt);
  Task<Result<Lsn>> append_control(Pending pending);
  VolumePtr find_volume(std::string_view name) const;
  VolumePtr find_volume(VolumeId id) const;
  VolumeReader reader(VolumeCore& volume);
  Task<Status> pin_leaves(VolumeCore& volume, const format::Record& record,
                          std::vector<NodeRef>& pins);
  bool has_doomed_volumes() const;
  void reap_deleted_soon();
  Task<void> reap_deleted();
  Task<void> wait_doomed_gone();

  // snapshots.cc
  static Status check_names(std::string_view name, std::string_view label);
  SnapshotPtr find_snapshot(std::string_view name) const;
  Result<SnapshotHandle> handle_of(std::string_view snapshot, std::string_view volume);
  std::vector<std::string> snapshots_with(std::string_view volume) const;
  SnapshotPtr snapshot_at(Lsn at) const;
  SnapshotPtr add_snapshot(format::SnapshotState state);
  std::vector<VolumePtr> cores_of(const std::vector<format::VolumeState>& volumes);
  void snapshot_is_ready(Snapshot& snapshot);
  void drop_snapshot(format::SnapshotId id);
  std::uint64_t kept_blocks() const;

  // rollback.cc
  bool is_in_log(const LogPoint& point) const;
  void turn_back(const format::RevertBody& body);
  Task<Result<SnapshotPtr>> state_at(Lsn at);
  Task<Status> take_spare();
  Task<Status> clear_spare();
  void restart_log();

  void wake_snapshot_readers();  // the group stopped or closes
  bool is_given_up(const Snapshot& snapshot) const;
  std::size_t successors_of(format::SnapshotId id) const;
  bool may_join(const Snapshot& snapshot) const;  // checkpoint_move.cc
  bool leaves_nothing(const Turn& turn) const;    // checkpoint_space.cc
  bool reaps_snapshots() const;

  // background.cc
  void start_background();
  void schedule_tick();
  Task<void> tick();
  bool has_much_to_free() const;
  bool has_many_dead() const;
  bool checkpoint_is_due() const;
  bool is_held_back() const;
  void checkpoint_soon();
  Task<void> checkpoint_in_background();

  // ship.cc
  Task<Result<RecordBatch>> read_log(Lsn after, std::size_t bytes_max);
  LogSource log_source() { return {device_, pool_.buffers(), pool_.superblock(), log_, id_}; }
  Status check_record(const format::Record& record, Timeline timeline) const;
  struct Incoming;
  struct LeavesAhead;
  static Result<std::vector<Incoming>> unpack(const RecordBatch& batch, BufferPool& buffers);
  void read_leaves_ahead(const format::Record& record, LeavesAhead& ahead);
  Task<void> read_leaf_ahead(VolumePtr volume, std::uint64_t leaf, LeavesAhead& ahead);
  Task<Status> queue_incoming(const RecordBatch& batch, std::vector<Incoming> incoming,
                              Completion& completion);
  Task<void> wait_queue_applied();

  // history.cc
  std::size_t marks() const;
  bool mark_is_due() const;
  void trim_history();
  void give_up_history();
  std::vector<SnapshotPtr> line() const;
  SnapshotPtr on_line(Lsn at) const;
  SnapshotPtr base_for(Lsn at) const;
  std::optional<Lsn> history_start() const { return history_start(rejoin_floor()); }
  std::optional<Lsn> history_start(std::optional<Lsn> floor) const;
  std::optional<Lsn> rejoin_floor() const;
  bool is_skipped(Lsn lsn) const;
  void forget_skipped();
  Error outside_of_history(std::string what) const;
  struct LogWalk;
  Task<Result<std::vector<VolumeChange>>> changes_between(const Snapshot& from, Lsn upto);
  Task<Status> replay_into(PointTarget& target, Lsn upto);
  Task<Status> replay_one(PointTarget& target, const format::PlacedRecord& placed);
  Task<void> drop_point(std::shared_ptr<PointTarget> target);

  // image.cc
  struct ImageSource;
  struct ImageTarget;
  Task<Status> take_aside_space(std::uint64_t blocks);
  Task<Result<SnapshotPtr>> common_state(LogPoint point);
  VolumePtr begin_as(const ImageTarget& target, const message::ImageVolume& volume);
  void replace_by(ImageTarget& target);
  Task<void> drop_target();

  Pool& pool_;
  Runtime runtime_;
  BlockDevice& device_;
  MapCache& cache_;
  const std::uint32_t slot_;
  Uuid id_;
  std::string name_;
  std::string node_;

  // Positions. durable_ <= head_.lsn <= tail_.lsn.
  LogPoint head_;  // applied: on the device and in the map
  LogPoint tail_;  // has an LSN
  Lsn durable_;
  TimelineHistory history_;
  std::uint64_t boot_ = 0;       // of pages written since this start, or since the log began anew
  std::uint64_t head_boot_ = 0;  // of the page that holds head_
  bool boot_page_written_ = false;

  Role role_ = Role::kPrimary;
  ReplicationMode mode_ = ReplicationMode::kAsync;
  Timeline fenced_by_;
  bool serving_ = false;
  Admits admits_ = Admits::kAll;
  Condition admitted_;  // admits_ changed, or nobody is held any more
  std::size_t changes_under_way_ = 0;
  std::uint64_t reign_ = 0;  // how often it ceased to be primary
  bool closing_ = false;
  std::optional<Error> stopped_;
  std::vector<format::SlotState> slots_;
  format::Settings settings_;

  SpaceMap space_;
  DeadChunks dead_chunks_;
  DeadList dead_;
  DeadChain held_;  // see format::Descriptor::held
  std::map<format::SnapshotId, SnapshotPtr> snapshots_;
  format::SnapshotId parent_;  // of the live state
  format::SnapshotId next_snapshot_id_{1};
  // The snapshot, or the rollback, whose record is head_: nothing more is applied until a
  // checkpoint has frozen it.
  struct SnapshotDue {
    format::SnapshotBody body;
    format::SnapshotKind kind = format::SnapshotKind::kSnapshot;
  };
  std::optional<SnapshotDue> snapshot_due_;
  std::optional<Turn> turn_;
  Lsn nodes_upto_;                         // see format::Descriptor
  std::vector<format::LsnRange> skipped_;  // see format::Descriptor
  Lsn skipped_forgotten_;  // the newest position of ranges that were dropped from there
  std::optional<HistoryPolicy> history_policy_;  // nullopt: not said since the start
  Lsn history_floor_;                            // what is in front was given up for space
  std::shared_ptr<PointTarget> point_target_;
  bool point_due_ = false;           // the next checkpoint keeps it
  std::uint64_t point_reserve_ = 0;  // blocks that this takes
  AsyncMutex point_lock_;            // one is made at a time
  bool reverting_ = false;           // a rollback is on its way: no new writes
  bool recovering_ = false;  // a record that is still to be replayed may need any kept state
  std::vector<Extent> not_replayed_;  // recovery: places of records behind head_
  LogZones log_;
  RecentRecords recent_;
  LogStreams log_streams_{gate_, name_};
  std::map<VolumeId, VolumePtr> volumes_;
  std::uint32_t next_volume_id_ = 1;
  Uuid origin_;  // of a clone, see format::Descriptor
  format::SnapshotId origin_state_;

  std::deque<Pending> queue_;
  LogPoint queued_;                    // behind the last replicated record in queue_
  std::uint64_t promised_blocks_ = 0;  // of a request whose first records are placed already
  std::deque<std::unique_ptr<PageInFlight>> in_flight_;
  std::deque<Completion*> acks_;                        // applied, waiting for RemoteAck
  Nanoseconds writes_answered_{}, flushes_answered_{};  // see Waiting::since
  Refusals refusals_;
  const UtcNs opened_;
  StageTimes times_;
  bool pump_scheduled_ = false;
  bool appended_posted_ = false;
  bool advancing_ = false;
  Condition applied_;             // head_ moved, or the group stopped
  AsyncMutex apply_lock_;         // keeps replicated batches in order while leaves are loaded
  std::size_t leaves_ahead_ = 0;  // of batches that wait for it

  bool flushing_ = false;
  std::uint64_t flushed_payload_ = 0;  // where flush_if_much() did so last
  Condition flushed_;
  RemoteAck remote_;
  Condition remote_changed_;
  std::size_t remote_flush_waiters_ = 0;
  std::function<void()> append_listener_;
  std::optional<Lsn> hold_;          // of its slots; on a mirror: of every copy
  std::optional<Lsn> unnamed_hold_;  // since a promotion, for copies that may come back
  bool awaits_others_ = false;       // a write waits until these move
  std::optional<Lsn> awaited_in_vain_;
  Condition space_news_;  // they moved, or a checkpoint is done
  bool checkpoint_asked_ = false;
  Lsn primary_durable_, durable_everywhere_;
  Lsn data_horizon_;  // data of records up to here may be gone

  bool supplying_ = false;
  bool starved_ = false;  // pump() waits for space
  struct Freeable {
    Lsn head;
    std::uint64_t waiting = 0;  // dead blocks and pages of the log
    Lsn horizon;
    bool operator==(const Freeable&) const = default;
  };
  std::optional<Freeable> futile_;  // a checkpoint freed nothing of that
  Freeable freeable() const { return {head_.lsn, dead_.waiting() + log_.pages(), horizon()}; }

  // Of the last checkpoint.
  std::uint64_t anchor_sequence_ = 0;
  Lsn checkpoint_lsn_;
  std::uint64_t log_pages_since_checkpoint_ = 0;
  std::map<std::uint32_t, format::BitmapPage> bitmap_;
  std::vector<PoolBlock> descriptor_blocks_;
  AsyncMutex checkpoint_lock_;
  format::Descriptor last_checkpoint_;    // point, role, volumes
  std::uint64_t checkpoint_reserve_ = 0;  // blocks the running checkpoint may still take

  std::shared_ptr<ImageSource> image_source_;
  std::shared_ptr<ImageTarget> image_target_;
  std::uint32_t next_cache_id_ = 0;  // cache ids of volumes of kept states
  std::uint32_t next_image_id_ = 0;  // cache ids of volumes that are being received
  bool release_all_dead_ = false;    // the next checkpoint replaces everything

  std::unique_ptr<Repair> repair_;
  std::unique_ptr<Scrub> scrub_;
  std::unique_ptr<Compaction> compaction_;
  TimerId tick_timer_ = 0;
  bool reaping_ = false;
  Condition doomed_gone_;  // volumes that were deleted, or reaping them has ended
  Gate gate_;              // every coroutine of this group that runs on its own
};

}  // namespace tandem::store
