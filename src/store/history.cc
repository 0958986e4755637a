// History: every position in a window behind the head can be had again.
//
// Marks, kept states without a name, are made by checkpoints now and then. The log is kept from the
// oldest of them on, and so is what died since (Checkpoint::freeze takes its position for the
// horizon). A point is made from the mark in front of it and the log behind that, aside, and then
// kept like any other state (checkpoint_point.cc).
//
// Copies of a pair keep a short history even when nobody asked for one: from a mark in front of
// what the other copies are known to hold. A former primary goes back there when it rejoins
// (rollback.cc), and so does a mirror when another one that had less was promoted.
#include <algorithm>
#include <map>

#include "format/checksum.h"
#include "store/aside.h"
#include "store/group.h"
#include "tandem/base/log.h"

namespace tandem::store {

using format::RecordType;

namespace {

/// A mark at least so often: bounds what is replayed to make a point.
constexpr Nanoseconds kMarkEveryMin = std::chrono::seconds(1);
constexpr Nanoseconds kMarkEveryMax = std::chrono::minutes(5);
constexpr std::int64_t kMarksPerWindow = 100;
/// While a mirror is away they all stay.
constexpr std::size_t kMarksForSpaceMax = 16;
/// An operator looks for one of them; more are neither read nor sent.
constexpr std::size_t kVolumeChangesMax = 1000;

struct VolumeSize {
  VolumeId id;
  std::uint64_t bytes;
  bool operator==(const VolumeSize&) const = default;
};

std::vector<VolumeSize> sizes_of(const std::vector<format::VolumeState>& volumes) {
  std::vector<VolumeSize> sizes;
  for (const auto& volume : volumes) {
    if (!volume.being_deleted()) sizes.push_back({volume.id, volume.size_bytes});
  }
  std::sort(sizes.begin(), sizes.end(), [](const auto& a, const auto& b) { return a.id < b.id; });
  return sizes;
}

/// What `record` does to `volumes` (names and sizes in front of it); nullopt: nothing.
std::optional<VolumeChange> change_by(const format::Record& record,
                                      std::map<VolumeId, SnapshotVolume>& volumes) {
  const auto id = record.header.volume;
  if (record.header.type == RecordType::kVolumeCreate) {
    const auto body = format::decode_volume_create(record);
    volumes[id] = {body->name, body->size_bytes};
    return VolumeChange{{}, VolumeChange::Kind::kCreated, body->name, 0, body->size_bytes};
  }
  const auto found = volumes.find(id);
  if (found == volumes.end()) return std::nullopt;
  auto& [name, bytes] = found->second;
  if (record.header.type == RecordType::kVolumeResize) {
    const auto before = std::exchange(bytes, *format::decode_volume_resize(record));
    if (bytes == before) return std::nullopt;
    return VolumeChange{{}, VolumeChange::Kind::kResized, name, before, bytes};
  }
  if (record.header.type != RecordType::kVolumeDelete) return std::nullopt;
  VolumeChange change{{}, VolumeChange::Kind::kDeleted, std::move(name), bytes, 0};
  volumes.erase(found);
  return change;
}

}  // namespace

void Group::set_history_policy(HistoryPolicy policy) { history_policy_ = policy; }

/// Kept states that lead to the live one, newest first.
std::vector<Group::SnapshotPtr> Group::line() const {
  std::vector<SnapshotPtr> line;
  for (auto it = snapshots_.find(parent_); it != snapshots_.end();
       it = snapshots_.find(it->second->state.parent)) {
    line.push_back(it->second);
  }
  return line;
}

/// The kept state that the line goes through at that position.
Group::SnapshotPtr Group::on_line(Lsn at) const {
  for (const auto& snapshot : line()) {
    if (snapshot->state.at.lsn == at) return snapshot;
  }
  return nullptr;
}

/// The newest state of the line that is not behind `at`, of those whose nodes the line goes on
/// with: not of the copies that points have.
Group::SnapshotPtr Group::base_for(Lsn at) const {
  Lsn shared = nodes_upto_;
  for (const auto& snapshot : line()) {
    const auto& state = snapshot->state;
    if (state.at.lsn <= at && !snapshot->reaping && shared == state.at.lsn) return snapshot;
    // Records in front of it name places that the states behind it may not map any more.
    if (state.at.lsn <= at && state.moved_from != Lsn{}) return nullptr;
    shared = state.nodes_upto;
  }
  return nullptr;
}

bool Group::is_skipped(Lsn lsn) const {
  return std::any_of(skipped_.begin(), skipped_.end(),
                     [lsn](const auto& range) { return range.has(lsn); });
}

/// Positions that nobody asks about any more: neither in the log, nor common with a mirror.
void Group::forget_skipped() {
  Lsn oldest = log_start();
  for (const auto& slot : slots_) {
    if (slot.agreed.lsn != Lsn{}) oldest = std::min(oldest, slot.agreed.lsn);
  }
  std::erase_if(skipped_, [&](const auto& range) {
    if (range.upto > oldest) return false;
    skipped_forgotten_ = std::max(skipped_forgotten_, range.upto);
    return true;
  });
}

/// What this copy may have to go back to when it rejoins: the last position that the other copies
/// are known to hold.
std::optional<Lsn> Group::rejoin_floor() const {
  if (role_ == Role::kMirror) return std::min(primary_durable_, durable_everywhere_);
  if (role_ == Role::kFenced) return Lsn{};  // where it parted shows when it rejoins
  return lowest_hold();
}

/// Every position from there to the head can be had.
std::optional<Lsn> Group::history_start(std::optional<Lsn> floor) const {
  // As long as nobody has said what is wanted, nothing that is there may go.
  const auto window = history_policy_ ? history_policy_->window : Nanoseconds::max();
  if (window <= Nanoseconds{0} && !floor) return std::nullopt;
  const auto now = runtime_.clock.utc().value;
  const auto ns = static_cast<std::uint64_t>(window.count());
  const UtcNs oldest{now > ns ? now - ns : 0};
  std::optional<Lsn> start;
  bool has_marks = false;
  for (const auto& snapshot : line()) {
    const auto& state = snapshot->state;
    if (state.at.lsn < std::max(log_start(), history_floor_)) break;
    has_marks |= state.kind == format::SnapshotKind::kMark;
    if (!state.being_deleted) start = state.at.lsn;
    const bool is_covered = window <= Nanoseconds{0} || state.at.utc <= oldest;
    if (start && is_covered && (!floor || *start <= *floor)) break;
  }
  return history_policy_ || has_marks || floor ? start : std::nullopt;
}

std::size_t Group::marks() const {
  return static_cast<std::size_t>(std::count_if(
      snapshots_.begin(), snapshots_.end(),
      [](const auto& entry) { return entry.second->state.kind == format::SnapshotKind::kMark; }));
}

/// One is due when there is none, then after a share of the window in which something happened, and
/// when space is wanted: only what died in front of a mark goes while the history begins there.
bool Group::mark_is_due() const {
  if (!history_policy_ || recovering_ || state_is_due() || awaiting_image()) return false;
  const Nanoseconds window = history_policy_->window;
  if (window <= Nanoseconds{0} && !rejoin_floor()) return false;
  const auto newest = snapshots_.find(parent_);
  if (newest == snapshots_.end()) return head_.lsn != Lsn{};
  const auto& at = newest->second->state.at;
  if (at.lsn >= head_.lsn) return false;
  if (!history_start()) return true;
  const Nanoseconds every =
      window <= Nanoseconds{0}
          ? kMarkEveryMax
          : std::clamp<Nanoseconds>(window / kMarksPerWindow, kMarkEveryMin, kMarkEveryMax);
  const auto now = runtime_.clock.utc().value;
  const bool is_old = now > at.utc.value + static_cast<std::uint64_t>(every.count());
  const bool wants_space = starved_ || has_much_to_free() || has_many_dead();
  return is_old || (wants_space && marks() < kMarksForSpaceMax) ||
         log_pages_since_checkpoint_ >= pool_.options().checkpoint_log_pages;
}

/// The first state of the history is not its beginning any more.
void Group::give_up_history() {
  if (const auto start = history_start()) history_floor_ = start->next();
}

/// Marks that no history needs are given back.
void Group::trim_history() {
  if (history_policy_ && history_status().bytes > history_policy_->bytes_max) give_up_history();
  const auto start = history_start();
  const auto line = this->line();
  const auto is_mark = [](const SnapshotPtr& s) {
    return s->state.kind == format::SnapshotKind::kMark && !s->state.being_deleted;
  };
  for (const auto& [id, snapshot] : snapshots_) {
    if (!is_mark(snapshot)) continue;
    const auto found = std::find(line.begin(), line.end(), snapshot);
    auto& state = snapshot->state;
    if (!start || found == line.end() || state.at.lsn < *start) state.being_deleted = true;
    // Compaction makes marks at the position of older ones.
    const bool is_replaced = found != line.end() && found != line.begin() &&
                             is_mark(*std::prev(found)) &&
                             (*std::prev(found))->state.at.lsn == state.at.lsn;
    if (is_replaced) state.being_deleted = true;
  }
}

Group::HistoryStatus Group::history_status() const {
  HistoryStatus status;
  const bool is_wanted = !history_policy_ || history_policy_->window > Nanoseconds{0};
  const auto start = history_start();
  if (!start || !is_wanted) return status;  // what a rejoin needs is nobody's history
  const std::uint64_t blocks = log_.pages() + dead_.waiting();
  // What a mark maps and the state behind it does not is listed with that one. From the first state
  // on that was not made for the history it may be needed by that as well: then it counts for it.
  std::uint64_t of_marks = 0, gone = held_.entries;
  for (const auto& snapshot : line()) {
    const auto& state = snapshot->state;
    const bool is_in = state.at.lsn >= *start;
    if (is_in) status.marks.insert(status.marks.begin(), state.at);
    if (state.kind != format::SnapshotKind::kMark) {
      of_marks = 0;
    } else if (is_in && !state.being_deleted) {
      of_marks += gone;
    }
    gone = state.held.entries;
  }
  status.bytes = (blocks + of_marks) * kBlockBytes;
  status.start = status.marks.front();
  status.marks.push_back(head_);
  return status;
}

Error Group::outside_of_history(std::string what) const {
  const auto start = history_start();
  return {ErrorCode::kNotFound, "group " + name_ + ": " + std::move(what) +
                                    " is not in the history here, which " +
                                    (start ? "has LSN " + std::to_string(start->value) + " to " +
                                                 std::to_string(head_.lsn.value)
                                           : "is not kept: set 'history' to a time such as 6h")};
}

/// A way through the log, page by page; pass() is called for each of its records in turn.
struct Group::LogWalk {
  LogReader reader;
  LogPoint at;   // behind the last record that was passed
  LogPage page;  // with its records behind `at` as it was

  LogWalk(Group& group, const LogPoint& from) : reader(group.log_source(), from.lsn), at(from) {}

  /// Errors: kNotFound, kIo, kCorrupt.
  Task<Status> next(Lsn end) {
    auto read = co_await reader.next(end);
    if (!read) co_return Error(std::move(read.error()));
    page = std::move(*read);
    std::erase_if(page.records, [this](const auto& r) { return r.record.header.lsn <= at.lsn; });
    co_return ok();
  }

  void pass(const format::Record& record) {
    at.lsn = record.header.lsn;
    at.utc = record.header.utc;
    at.digest = format::chain(at.digest, record.canonical);
    if (record.has_data()) at.payload_bytes += record.header.block_count * kBlockBytes;
    if (record.header.type == RecordType::kTimeline) {
      at.timeline = *format::decode_timeline(record);
    }
  }
};

Task<Result<LogPoint>> Group::position_at(UtcNs time) {
  auto hold = gate_.hold();
  const auto start = history_start();
  SnapshotPtr base;
  for (const auto& snapshot : line()) {
    if (!start || snapshot->state.at.lsn < *start) break;
    base = snapshot;
    if (snapshot->state.at.utc <= time) break;
  }
  if (!base || base->state.at.utc > time || time > runtime_.clock.utc()) {
    co_return outside_of_history("that time");
  }
  const SnapshotPin pin(base->readers);
  LogWalk walk(*this, base->state.at);
  const Lsn end = head_.lsn;
  LogPoint last = walk.at;
  while (walk.at.lsn < end) {
    Status read = co_await walk.next(end);
    if (!read) co_return Error(std::move(read.error()));
    for (const auto& placed : walk.page.records) {
      if (placed.record.header.utc > time || placed.record.header.lsn > end) co_return last;
      walk.pass(placed.record);
      if (!is_skipped(walk.at.lsn)) last = walk.at;
    }
    co_await next_turn(runtime_.executor);
  }
  co_return last;
}

Task<Result<std::vector<VolumeChange>>> Group::changes_between(const Snapshot& from, Lsn upto) {
  std::map<VolumeId, SnapshotVolume> volumes;
  for (const auto& v : from.state.volumes) {
    if (!v.being_deleted()) volumes[v.id] = {v.name, v.size_bytes};
  }
  std::vector<VolumeChange> changes;
  LogWalk walk(*this, from.state.at);
  while (walk.at.lsn < upto) {
    Status read = co_await walk.next(upto);
    if (!read) co_return Error(std::move(read.error()));
    for (const auto& placed : walk.page.records) {
      if (walk.at.lsn == upto) break;
      walk.pass(placed.record);
      if (is_skipped(walk.at.lsn)) continue;
      auto change = change_by(placed.record, volumes);
      if (!change) continue;
      change->at = walk.at;
      changes.push_back(std::move(*change));
    }
    if (stopped_ || closing_) co_return refusal();
    co_await next_turn(runtime_.executor);
  }
  co_return changes;
}

Task<std::vector<VolumeChange>> Group::volume_changes() {
  auto hold = gate_.hold();
  std::vector<VolumeChange> changes;
  const auto start = history_start();
  auto newer = sizes_of(volumes());
  Lsn upto = head_.lsn;
  for (const auto& state : line()) {
    if (!start || state->state.at.lsn < *start || changes.size() >= kVolumeChangesMax) break;
    auto older = sizes_of(state->state.volumes);
    if (older != newer) {
      const SnapshotPin pin(state->readers);
      auto found = co_await changes_between(*state, upto);
      if (found) {
        changes.insert(changes.begin(), found->begin(), found->end());
      } else if (state->state.at.lsn >= log_start()) {
        // The rest of the history is as good as it was.
        log_event(Level::kWarn, "history.unreadable", "group={} behind={} error=\"{}\"", name_,
                  state->state.at.lsn.value, found.error().message);
      }
    }
    newer = std::move(older);
    upto = state->state.at.lsn;
  }
  co_return changes;
}

Task<Result<LogPoint>> Group::keep_point(Lsn at, std::string name, std::string label) {
  auto hold = gate_.hold();
  TANDEM_CO_TRY(check_names(name, label));
  const auto lock = co_await point_lock_.lock();
  while (turn_ && !stopped_ && !closing_) co_await applied_.wait();
  if (stopped_ || closing_) co_return refusal();
  if (find_snapshot(name)) {
    co_return Error{ErrorCode::kExists, "group " + name_ + " has a snapshot " + name};
  }
  if (at == head_.lsn && !state_is_due()) {
    // Nothing is applied before it is kept.
    snapshot_due_ =
        SnapshotDue{{.name = name, .label = std::move(label)}, format::SnapshotKind::kPoint};
    const LogPoint point = head_;
    Status kept = co_await checkpoint();
    if (!kept) co_return Error(std::move(kept.error()));
    co_return point;
  }
  const auto start = history_start();
  const auto base = base_for(at);
  if (!start || !base || at < *start || base->state.at.lsn < log_start() || at > head_.lsn ||
      is_skipped(at)) {
    co_return outside_of_history("LSN " + std::to_string(at.value));
  }
  const SnapshotPin pin(base->readers);
  auto target = std::make_shared<PointTarget>();
  target->base = base;
  target->state.at = base->state.at;
  target->state.skipped = base->state.skipped;
  target->state.name = std::move(name);
  target->state.label = std::move(label);
  point_target_ = target;  // from here on a rollback waits
  while (!base->ready && !stopped_ && !closing_) co_await base->became_ready.wait();
  for (auto& volume : cores_of(base->state.volumes)) target->volumes[volume->state.id] = volume;
  Status made = co_await replay_into(*target, at);
  // Its maps, and what the live ones have changed since the base, are on disk then.
  if (made) made = co_await checkpoint();
  if (made) {
    point_reserve_ =
        target->nodes.size() / format::kDeadPerChunk + dead_.queue().chunks + kReapReserve + 8;
    for (const auto& [id, snapshot] : snapshots_) point_reserve_ += snapshot->state.held.chunks;
    point_reserve_ += held_.chunks;
    made = co_await take_aside_space(1);
  }
  point_due_ = made.has_value();
  while (made && point_due_) made = co_await checkpoint();
  point_reserve_ = 0;
  const LogPoint point = target->state.at;
  if (!made) co_await drop_point(std::move(target));
  advance();
  if (!made) co_return Error(std::move(made.error()));
  co_return point;
}

Task<Status> Group::replay_into(PointTarget& target, Lsn upto) {
  LogWalk walk(*this, target.state.at);
  while (walk.at.lsn < upto) {
    Status read = co_await walk.next(upto);
    if (!read) co_return read;
    for (const auto& placed : walk.page.records) {
      if (walk.at.lsn == upto) break;
      walk.pass(placed.record);
      if (is_skipped(walk.at.lsn)) continue;
      Status done = co_await replay_one(target, placed);
      if (!done) co_return done;
    }
    if (stopped_ || closing_) co_return refusal();
    co_await next_turn(runtime_.executor);
    while (checkpoint_is_due()) {
      Status written = co_await checkpoint();
      if (!written) co_return written;
    }
  }
  target.state.at = walk.at;
  target.state.skipped = skipped_;
  std::erase_if(target.state.skipped, [&](const auto& range) { return range.upto > upto; });
  co_return ok();
}

Task<Status> Group::replay_one(PointTarget& target, const format::PlacedRecord& placed) {
  const auto& record = placed.record;
  const auto& h = record.header;
  if (h.type == RecordType::kVolumeCreate) {
    auto volume = core_of(record);
    volume->tree = cores_of({volume->state}).front()->tree;
    volume->tree.height = format::map_height(blocks_for(volume->state.size_bytes));
    target.volumes[h.volume] = std::move(volume);
    co_return ok();
  }
  const auto found = target.volumes.find(h.volume);
  if (found == target.volumes.end()) co_return ok();
  const VolumePtr volume = found->second;
  if (h.type == RecordType::kVolumeResize) {
    apply_resize(*volume, record);
  } else if (h.type == RecordType::kVolumeDelete) {
    const auto lock = co_await checkpoint_lock_.lock();
    cache_.drop_volume(volume->tree);
    for (auto it = target.nodes.begin(); it != target.nodes.end();) {
      if (it->second.volume != h.volume) {
        ++it;
        continue;
      }
      space_.undo_allocate({it->first, 1});
      it = target.nodes.erase(it);
    }
    target.volumes.erase(h.volume);
  } else if (h.type <= RecordType::kZero) {
    std::vector<NodeRef> pins;
    Status pinned = co_await pin_leaves(*volume, record, pins);
    if (!pinned) co_return pinned;
    // Its checkpoint writes them anew, beside the old ones: a full pool refuses the point.
    Status space = co_await take_aside_space(pins.size() * volume->tree.height);
    if (!space) co_return space;
    if (h.type == RecordType::kWrite) {
      apply_write(*volume, record, placed.extents, nullptr);
    } else {
      apply_range(*volume, record, nullptr);
    }
  }
  co_return ok();
}

/// It is given up: what was written of it is free again.
Task<void> Group::drop_point(std::shared_ptr<PointTarget> target) {
  const auto lock = co_await checkpoint_lock_.lock();
  if (point_target_ != target) co_return;
  point_target_.reset();
  point_due_ = false;
  for (const auto& [id, volume] : target->volumes) cache_.drop_volume(volume->tree);
  for (const auto& [node, of] : target->nodes) space_.undo_allocate({node, 1});
}

}  // namespace tandem::store
