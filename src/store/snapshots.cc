// Kept states of a group. A snapshot is a record; the checkpoint that freezes exactly its position
// writes the maps, and what it maps is not reused while it exists (which blocks those are:
// checkpoint_space.cc). Branches come from rollbacks (rollback.cc) and rejoins.
#include <algorithm>

#include "store/snapshot_handle.h"
#include "tandem/base/log.h"

namespace tandem::store {

using format::RecordHeader;
using format::RecordType;

namespace {

/// Volumes of kept states have ids of their own in the map cache; see also image.cc.
constexpr std::uint32_t kSnapshotCacheIds = 0xc0000000;

}  // namespace

Status Group::check_names(std::string_view name, std::string_view label) {
  if (name.empty() || name.size() > format::kSnapshotNameBytesMax ||
      name.find('@') != std::string_view::npos) {
    return Error{ErrorCode::kInvalid, "a snapshot's name must have 1 to 128 bytes, none of them @"};
  }
  if (label.size() > format::kSnapshotLabelBytesMax) {
    return Error{ErrorCode::kInvalid, "a snapshot's label can have 512 bytes"};
  }
  return ok();
}

Group::SnapshotPtr Group::find_snapshot(std::string_view name) const {
  for (const auto& [id, snapshot] : snapshots_) {
    if (snapshot->state.has_name() && snapshot->state.name == name) return snapshot;
  }
  return nullptr;
}

std::vector<format::SnapshotState> Group::snapshots() const {
  std::vector<format::SnapshotState> out;
  for (const auto& [id, snapshot] : snapshots_) {
    if (snapshot->state.has_name()) out.push_back(snapshot->state);
  }
  return out;
}

std::optional<SeedPoint> Group::seed_point(std::string_view name) const {
  const auto found = find_snapshot(name);
  const auto states = line();
  if (std::find(states.begin(), states.end(), found) == states.end()) return std::nullopt;
  SeedPoint seed{.point = found->state.at, .next_volume_id = next_volume_id_};
  std::copy_if(history_.begin(), history_.end(), std::back_inserter(seed.history),
               [&](const auto& fork) { return fork.timeline <= seed.point.timeline; });
  for (const auto& v : found->state.volumes)
    seed.volumes.push_back({v.id, v.name, v.size_bytes, v.logical_block_bytes});
  return seed;
}

std::vector<const format::SnapshotState*> Group::kept_states() const {
  std::vector<const format::SnapshotState*> out;
  out.reserve(snapshots_.size());
  for (const auto& [id, snapshot] : snapshots_) out.push_back(&snapshot->state);
  return out;
}

const format::SnapshotState* Group::kept_state(std::string_view name) const {
  const auto found = find_snapshot(name);
  return found ? &found->state : nullptr;
}

Task<Result<LogPoint>> Group::create_snapshot(format::SnapshotBody body,
                                              std::optional<Nanoseconds> consistent_until) {
  auto hold = gate_.hold();
  if (role_ != Role::kPrimary || stopped_ || closing_) co_return refusal();
  TANDEM_CO_TRY(check_names(body.name, body.label));
  if (find_snapshot(body.name)) {
    co_return Error{ErrorCode::kExists, "group " + name_ + " has a snapshot " + body.name};
  }
  RecordHeader header{.type = RecordType::kSnapshot};
  std::vector<std::byte> canonical(format::kRecordHeaderBytes + 5 + body.name.size() +
                                   body.label.size());
  format::Encoder out(canonical);
  format::encode_snapshot(out, header, body);
  auto logged = co_await append_control(std::move(canonical), consistent_until);
  if (!logged) co_return Error(std::move(logged.error()));
  // The record is applied; the checkpoint that freezes its state has begun, or waits for another.
  while (!snapshot_at(*logged) && !stopped_ && !closing_) co_await applied_.wait();
  const auto kept = snapshot_at(*logged);
  if (!kept) co_return refusal();
  co_return kept->state.at;
}

/// Enters a snapshot in memory; another of its name moves aside. (Names are unique where they are
/// given, but another copy may keep what the primary has deleted. One being deleted has no name.)
Group::SnapshotPtr Group::add_snapshot(format::SnapshotState state) {
  if (auto older = state.has_name() ? find_snapshot(state.name) : nullptr) {
    older->state.name += "~" + std::to_string(older->state.at.lsn.value);
  }
  auto snapshot = std::make_shared<Snapshot>();
  snapshot->state = std::move(state);
  snapshots_[snapshot->state.id] = snapshot;
  return snapshot;
}

/// With trees of their own, as they are on disk.
std::vector<Group::VolumePtr> Group::cores_of(const std::vector<format::VolumeState>& volumes) {
  std::vector<VolumePtr> out;
  for (const auto& v : volumes) {
    auto volume = std::make_shared<VolumeCore>();
    volume->state = v;
    volume->tree = {static_cast<std::uint16_t>(slot_),
                    VolumeId{kSnapshotCacheIds + next_cache_id_++}, v.height, v.root, 0};
    out.push_back(std::move(volume));
  }
  return out;
}

/// The roots in its state are on disk.
void Group::snapshot_is_ready(Snapshot& snapshot) {
  // A branch has those of the state that was live, with what is cached of them.
  if (snapshot.volumes.empty()) snapshot.volumes = cores_of(snapshot.state.volumes);
  snapshot.ready = true;
  snapshot.became_ready.notify_all();
}

void Group::drop_snapshot(format::SnapshotId id) {
  auto found = snapshots_.find(id);
  CHECK(found != snapshots_.end() && found->second->readers == 0);
  for (const auto& volume : found->second->volumes) cache_.drop_volume(volume->tree);
  const auto& state = found->second->state;
  if (state.kind != format::SnapshotKind::kMark) {
    log_event(Level::kInfo, "snapshot.deleted", "group={} snapshot={} lsn={}", name_, state.name,
              state.at.lsn.value);
  }
  snapshots_.erase(found);
}

void Group::wake_snapshot_readers() {
  for (const auto& [id, snapshot] : snapshots_) snapshot->became_ready.notify_all();
}

/// Deleted, and nobody needs it any more.
bool Group::is_given_up(const Snapshot& snapshot) const {
  return snapshot.ready && snapshot.state.being_deleted && snapshot.readers == 0 &&
         snapshot.state.clones == 0;
}

/// States that came out of it, the live one included.
std::size_t Group::successors_of(format::SnapshotId id) const {
  std::size_t successors = parent_ == id ? 1 : 0;
  for (const auto& [other, snapshot] : snapshots_)
    successors += snapshot->state.parent == id ? 1 : 0;
  return successors;
}

bool Group::reaps_snapshots() const {
  return std::any_of(snapshots_.begin(), snapshots_.end(), [this](const auto& entry) {
    if (!is_given_up(*entry.second)) return false;
    const auto successors = successors_of(entry.first);
    return successors == 0 || (successors == 1 && may_join(*entry.second));
  });
}

Task<Status> Group::delete_snapshot(std::string name) {
  auto hold = gate_.hold();
  if (stopped_ || closing_) co_return refusal();
  const auto snapshot = find_snapshot(name);
  if (!snapshot) {
    co_return Error{ErrorCode::kNotFound, "group " + name_ + " has no snapshot " + name};
  }
  auto& state = snapshot->state;
  const bool is_wanted = !history_policy_ || history_policy_->window > Nanoseconds{0};
  const auto start = history_start();
  const auto on_line = base_for(state.at.lsn);
  if (is_wanted && start && state.at.lsn >= *start && on_line == snapshot) {
    // The history needs it: it goes with that.
    state.kind = format::SnapshotKind::kMark;
    state.name.clear();
    state.label.clear();
  } else {
    state.being_deleted = true;
  }
  co_return co_await checkpoint();
}

Task<Status> Group::rename_snapshot(std::string name, std::string new_name, std::string label) {
  auto hold = gate_.hold();
  if (stopped_ || closing_) co_return refusal();
  TANDEM_CO_TRY(check_names(new_name, label));
  const auto snapshot = find_snapshot(name);
  if (!snapshot) {
    co_return Error{ErrorCode::kNotFound, "group " + name_ + " has no snapshot " + name};
  }
  const auto taken = find_snapshot(new_name);
  if (taken && taken != snapshot) {
    co_return Error{ErrorCode::kExists, "group " + name_ + " has a snapshot " + new_name};
  }
  snapshot->state.name = std::move(new_name);
  snapshot->state.label = std::move(label);
  co_return co_await checkpoint();
}

std::optional<std::size_t> Group::Snapshot::index_of(std::string_view volume) const {
  for (std::size_t i = 0; i < state.volumes.size(); ++i) {
    if (state.volumes[i].name == volume) return i;
  }
  return std::nullopt;
}

Result<SnapshotHandle> Group::handle_of(std::string_view snapshot, std::string_view volume) {
  const auto found = find_snapshot(snapshot);
  if (!found) {
    return Error{ErrorCode::kNotFound,
                 "group " + name_ + " has no snapshot " + std::string(snapshot)};
  }
  const auto index = found->index_of(volume);
  if (!index) {
    return Error{ErrorCode::kNotFound, "snapshot " + std::string(snapshot) + " of group " + name_ +
                                           " has no volume " + std::string(volume)};
  }
  return SnapshotHandle(shared_from_this(), found, *index);
}

Task<Status> Group::doubt_snapshot(Lsn at) {
  auto hold = gate_.hold();
  if (stopped_ || closing_) co_return refusal();
  const auto found = snapshot_at(at);
  if (!found) co_return Error{ErrorCode::kNotFound, "the snapshot is gone"};
  found->state.consistency = format::Consistency::kHookFailed;
  co_return co_await checkpoint();
}

Result<std::shared_ptr<Volume>> Group::open_snapshot(std::string_view name,
                                                     std::string_view volume) {
  if (stopped_ || closing_) return refusal();
  auto handle = handle_of(name, volume);
  if (!handle) return Error(std::move(handle.error()));
  return std::shared_ptr<Volume>(std::make_shared<SnapshotHandle>(std::move(*handle)));
}

/// Unique to a state with one successor is what died right behind it and was born behind its
/// parent; to one without, what it maps and its parent does not. With more of them, nothing comes
/// free before all but one are gone.
Task<Result<std::uint64_t>> Group::blocks_unique_to(std::string name) {
  auto hold = gate_.hold();
  const auto lock = co_await checkpoint_lock_.lock();  // chains stay as they are
  const auto snapshot = find_snapshot(name);
  if (!snapshot) {
    co_return Error{ErrorCode::kNotFound, "group " + name_ + " has no snapshot " + name};
  }
  const auto& state = snapshot->state;
  const auto successors = successors_of(state.id);
  const auto parent = snapshots_.find(state.parent);
  if (successors > 1) co_return 0;
  if (successors == 0) {
    const std::uint64_t shared =
        parent == snapshots_.end() ? 0 : parent->second->state.pool_blocks() - state.held.entries;
    co_return state.pool_blocks() - shared;
  }
  const Lsn before = parent == snapshots_.end() ? Lsn{} : parent->second->state.at.lsn;
  DeadChain rest = held_;
  for (const auto& [id, other] : snapshots_) {
    if (other->state.parent == state.id) rest = other->state.held;
  }
  std::uint64_t unique = 0;
  while (rest.chunks != 0) {
    auto chunk = co_await dead_chunks_.first(rest);
    if (!chunk) co_return Error(std::move(chunk.error()));
    for (const auto& dead : chunk->blocks) {
      unique += dead.birth > (dead.is_node ? std::min(before, state.nodes_upto) : before) ? 1 : 0;
    }
    rest.head = chunk->next;
    --rest.chunks;
  }
  co_return unique;
}

/// What kept states map and the live one does not. Each adds to its parent what it maps more: what
/// it maps, less what they share, which is what the parent maps less what is listed as dead.
std::uint64_t Group::kept_blocks() const {
  std::int64_t blocks = static_cast<std::int64_t>(held_.entries);
  const auto mapped = [this](format::SnapshotId id) {
    const auto found = snapshots_.find(id);
    return found == snapshots_.end()
               ? std::int64_t{0}
               : static_cast<std::int64_t>(found->second->state.pool_blocks());
  };
  blocks -= mapped(parent_);
  for (const auto& [id, snapshot] : snapshots_) {
    const auto& state = snapshot->state;
    blocks += mapped(id) - mapped(state.parent) + static_cast<std::int64_t>(state.held.entries) -
              static_cast<std::int64_t>(state.reaped.freed_blocks);
  }
  return blocks > 0 ? static_cast<std::uint64_t>(blocks) : 0;
}

// --- SnapshotHandle ------------------------------------------------------------------------------

VolumeInfo SnapshotHandle::info() const {
  const auto& v = snapshot_->state.volumes[index_];
  return {.name = v.name + "@" + snapshot_->state.name,
          .size_bytes = v.size_bytes,
          .logical_block_bytes = v.logical_block_bytes,
          .read_only = true};
}

Task<Status> SnapshotHandle::ready() {
  while (!snapshot_->ready && !group_.stopped_ && !group_.closing_) {
    co_await snapshot_->became_ready.wait();
  }
  co_return still_there();
}

Task<Status> SnapshotHandle::ready(std::uint64_t offset, std::uint64_t length) {
  Status there = co_await ready();
  if (!there) co_return there;
  co_return check(offset, length);
}

Status SnapshotHandle::still_there() const {
  if (group_.stopped_ || group_.closing_) return group_.refusal();
  if (!snapshot_->state.has_name()) {
    return Error{ErrorCode::kNotFound, "snapshot " + snapshot_->state.name + " was deleted"};
  }
  return ok();
}

Status SnapshotHandle::check(std::uint64_t offset, std::uint64_t length) const {
  const auto& v = snapshot_->state.volumes[index_];
  if (length == 0 || offset > v.size_bytes || length > v.size_bytes - offset) {
    return Error{ErrorCode::kInvalid, "outside of volume " + v.name};
  }
  return ok();
}

Task<Result<IoBuffer>> SnapshotHandle::read(std::uint64_t offset, std::uint64_t length) {
  auto hold = group_.gate_.hold();
  Status fits = co_await ready(offset, length);
  if (!fits) co_return Error(std::move(fits.error()));
  const Reading reading(*snapshot_);
  VolumeReader reader = group_.reader(core());
  co_return co_await reader.read(offset, length);
}

Task<Result<std::vector<AllocationExtent>>> SnapshotHandle::allocation(std::uint64_t offset,
                                                                       std::uint64_t length,
                                                                       std::size_t extents_max) {
  auto hold = group_.gate_.hold();
  Status fits = co_await ready(offset, length);
  if (!fits) co_return Error(std::move(fits.error()));
  const Reading reading(*snapshot_);
  VolumeReader reader = group_.reader(core());
  co_return co_await reader.allocation(offset, length, extents_max);
}

Status SnapshotHandle::read_only() const {
  return Error{ErrorCode::kReadOnly, "snapshot " + snapshot_->state.name + " of group " +
                                         group_.name_ + " cannot be written"};
}

Task<Status> SnapshotHandle::write(std::uint64_t, IoBuffer, WriteOptions) { co_return read_only(); }
Task<Status> SnapshotHandle::flush() { co_return ok(); }
Task<Status> SnapshotHandle::discard(std::uint64_t, std::uint64_t, WriteOptions) {
  co_return read_only();
}
Task<Status> SnapshotHandle::write_zeroes(std::uint64_t, std::uint64_t, WriteOptions) {
  co_return read_only();
}

}  // namespace tandem::store
