#include "store/scrub.h"

#include <algorithm>
#include <charconv>

#include "format/checksum.h"
#include "store/repair.h"
#include "store/snapshot_pin.h"
#include "tandem/base/log.h"
#include "tandem/port/wait.h"

namespace tandem::store {

using format::MapEntry;

namespace {

constexpr const char* kNote = "state/scrub";
/// At least so often it is made durable how far it came.
constexpr Nanoseconds kKeepEvery = std::chrono::minutes(1);
/// Read at once: short, so that what guests read meanwhile does not wait for long.
constexpr std::uint64_t kBlocksPerRead = 64;
constexpr std::uint64_t kNoteVersion = 2;  // 1 named states by their position

}  // namespace

// --- life ----------------------------------------------------------------------------------------

Status Scrub::start() {
  if (running_) {
    return Error{ErrorCode::kBusy, "group " + group_.name_ + " is being scrubbed already"};
  }
  if (group_.stopped_ || group_.closing_) return group_.refusal();
  report_ = ScrubReport{};
  report_.state = ScrubReport::State::kRunning;
  report_.started = group_.runtime_.clock.utc();
  const GroupUse use = group_.use();
  report_.blocks_total = use.data_blocks + use.snapshot_blocks;
  cursor_ = Cursor{};
  whole_ = true;
  running_ = true;
  group_.repair_->begin_census();
  log_event(Level::kInfo, "scrub.started", "group={} blocks={}", group_.name_,
            report_.blocks_total);
  spawn(run(true));
  return ok();
}

void Scrub::resume() {
  if (running_ || !recall() || report_.state != ScrubReport::State::kRunning) return;
  running_ = true;
  log_event(Level::kInfo, "scrub.resumed", "group={} blocks_read={}", group_.name_,
            report_.blocks_read);
  spawn(run(false));
}

Status Scrub::stop() {
  if (!running_) {
    return Error{ErrorCode::kNotFound, "group " + group_.name_ + " is not being scrubbed"};
  }
  stopping_ = true;
  wake_.notify_all();
  return ok();
}

void Scrub::suspend() {
  suspended_ = true;
  wake_.notify_all();
}

void Scrub::set_rate(std::uint64_t bytes_per_second) {
  if (bytes_per_second == bytes_per_second_) return;
  bytes_per_second_ = bytes_per_second;
  wake_.notify_all();
}

bool Scrub::must_end() const {
  return stopping_ || suspended_ || group_.closing_ || group_.stopped_.has_value();
}

Task<void> Scrub::run(bool anew) {
  auto hold = group_.gate_.hold();
  if (anew) {
    // So that the inner nodes on disk lead to all that was written before.
    Status written = co_await group_.checkpoint();
    if (!written) stopping_ = true;
    cursor_.began = group_.next_snapshot_id_;
  }
  auto& clock = group_.runtime_.clock;
  Nanoseconds kept_at = clock.monotonic();
  while (!must_end() && cursor_.phase != Phase::kDone) {
    co_await step();
    note();
    if (!must_end() && clock.monotonic() - kept_at >= kKeepEvery) {
      co_await group_.checkpoint_in_background();
      kept_at = clock.monotonic();
    }
    // States that share all they have cost no waiting otherwise, and there may be thousands.
    co_await next_turn(group_.runtime_.executor);
  }
  running_ = false;
  if (cursor_.phase == Phase::kDone || stopping_) co_await finish();
}

/// The result is kept on disk, so that the next one is not due at once after a restart.
Task<void> Scrub::finish() {
  const bool done = cursor_.phase == Phase::kDone;
  report_.state = done ? ScrubReport::State::kFinished : ScrubReport::State::kStopped;
  report_.ended = group_.runtime_.clock.utc();
  stopping_ = false;
  if (done && whole_) group_.repair_->end_census();
  log_event(report_.bad_blocks + report_.bad_nodes == 0 ? Level::kInfo : Level::kWarn,
            done ? "scrub.finished" : "scrub.stopped",
            "group={} blocks={} nodes={} bad_blocks={} repaired_blocks={} bad_nodes={} "
            "repaired_nodes={}",
            group_.name_, report_.blocks_read, report_.nodes_read, report_.bad_blocks,
            report_.repaired_blocks, report_.bad_nodes, report_.repaired_nodes);
  note();
  if (!group_.stopped_ && !group_.closing_) co_await group_.checkpoint_in_background();
}

/// Spreads the reads over time; nothing is made good after a pause.
Task<void> Scrub::keep_pace(std::uint64_t blocks) {
  if (must_end()) co_return;
  const double seconds =
      static_cast<double>(blocks * kBlockBytes) / static_cast<double>(bytes_per_second_);
  co_await wait_at_most(group_.runtime_.executor, wake_,
                        Nanoseconds(static_cast<std::int64_t>(seconds * 1e9)));
}

// --- which state, which volume -------------------------------------------------------------------

/// The newest state on the way up from `parent` that was walked, and is still there.
Group::SnapshotPtr Scrub::base_of(format::SnapshotId parent) const {
  const auto& all = group_.snapshots_;
  const auto walked_below = cursor_.phase == Phase::kLive ? cursor_.began : cursor_.state;
  for (auto it = all.find(parent); it != all.end(); it = all.find(it->second->state.parent)) {
    const auto& state = it->second->state;
    const bool is_walked = it->first < walked_below && state.kind != format::SnapshotKind::kMark;
    if (is_walked && it->second->ready && !state.being_deleted) return it->second;
  }
  return nullptr;
}

void Scrub::leave_state() {
  cursor_.inside = false;
  cursor_.volume = VolumeId{};
  cursor_.leaf = 0;
}

/// Enters the next state when none is being walked. False: the phase is over.
bool Scrub::choose_state() {
  const auto& all = group_.snapshots_;
  if (cursor_.phase == Phase::kLive) {
    const bool entered = cursor_.inside;
    cursor_.inside = true;
    return !entered || cursor_.volume.value != UINT32_MAX;
  }
  const auto end = cursor_.phase == Phase::kSnapshots ? cursor_.began : cursor_.live_ended;
  if (cursor_.inside) {
    const auto now = all.find(cursor_.state);
    if (now != all.end() && !now->second->state.being_deleted) return true;
    leave_state();  // it was deleted under our hands
  }
  for (auto it = all.upper_bound(cursor_.state); it != all.end() && it->first < end; ++it) {
    const bool is_mark = it->second->state.kind == format::SnapshotKind::kMark;
    if (!it->second->ready || it->second->state.being_deleted || is_mark) continue;
    cursor_.state = it->first;
    cursor_.inside = true;
    return true;
  }
  return false;
}

/// What is being walked is not there any more: what it names may be anything by now. (Snapshots are
/// pinned meanwhile.)
bool Scrub::is_over(const Walk& walk) const {
  return must_end() || (!walk.snapshot && group_.find_volume(walk.volume->state.id) != walk.volume);
}

/// The volume at the cursor, or the next one of the state. Nothing: the state is done.
std::optional<Scrub::Walk> Scrub::choose_volume() {
  Walk walk;
  const auto take = [&](const Group::VolumePtr& volume) {
    const bool better = !walk.volume || volume->state.id < walk.volume->state.id;
    if (volume->state.id < cursor_.volume || volume->state.being_deleted() || !better) return;
    walk.volume = volume;
  };
  if (cursor_.phase == Phase::kLive) {
    for (const auto& [id, volume] : group_.volumes_) take(volume);
    walk.base_snapshot = base_of(group_.parent_);
  } else {
    walk.snapshot = group_.snapshots_.at(cursor_.state);
    for (const auto& volume : walk.snapshot->volumes) take(volume);
    walk.base_snapshot = base_of(walk.snapshot->state.parent);
  }
  if (!walk.volume) return std::nullopt;
  if (walk.volume->state.id != cursor_.volume) {
    cursor_.volume = walk.volume->state.id;
    cursor_.leaf = 0;
  }
  if (walk.base_snapshot) {
    for (const auto& volume : walk.base_snapshot->volumes) {
      if (volume->state.id == cursor_.volume) walk.base = volume;
    }
  }
  return walk;
}

/// One leaf, or one move of the cursor.
Task<void> Scrub::step() {
  if (!choose_state()) {
    if (cursor_.phase == Phase::kSnapshots) {
      cursor_.phase = Phase::kLive;
    } else if (cursor_.phase == Phase::kLive) {
      cursor_.phase = Phase::kLate;
      cursor_.live_ended = group_.next_snapshot_id_;
    } else {
      cursor_.phase = Phase::kDone;
    }
    leave_state();
    co_return;
  }
  auto walk = choose_volume();
  if (!walk) {
    const bool live = cursor_.phase == Phase::kLive;
    leave_state();
    if (live) cursor_.inside = true, cursor_.volume = VolumeId{UINT32_MAX};
    co_return;
  }
  std::size_t unused = 0;
  const SnapshotPin pin(walk->snapshot ? walk->snapshot->readers : unused);
  const SnapshotPin base_pin(walk->base_snapshot ? walk->base_snapshot->readers : unused);
  const std::uint32_t top = walk->volume->tree.height - 1;
  const MapEntry root = walk->volume->tree.root;
  std::optional<std::uint64_t> leaf;
  const bool shared = co_await is_shared(*walk, top, 0, root);
  if (root.has_data() && !shared) {
    if (cursor_.leaf == 0) co_await check_node(*walk, top, 0, root);
    leaf = co_await next_leaf(*walk, top, 0, cursor_.leaf);
  }
  if (!leaf) {
    cursor_.volume = cursor_.volume.next();
    cursor_.leaf = 0;
    co_return;
  }
  co_await check_leaf(*walk, *leaf);
  // Interrupted within it, it is looked at again.
  if (!must_end()) cursor_.leaf = *leaf + 1;
}

// --- the maps ------------------------------------------------------------------------------------

/// How the map names node `index` of `level` now.
Task<Result<MapEntry>> Scrub::entry_of(Group::VolumeCore& volume, std::uint32_t level,
                                       std::uint64_t index) {
  MapTree& tree = volume.tree;
  if (level + 1 >= tree.height) {
    co_return level + 1 == tree.height&& index == 0 ? tree.root : MapEntry{};
  }
  auto above = co_await group_.cache_.load(tree, level + 1, index / format::kMapFanout, false);
  if (!above) co_return Error(std::move(above.error()));
  if (!*above) co_return MapEntry{};
  co_return (*above)->entry(static_cast<std::uint32_t>(index % format::kMapFanout));
}

/// The base names the same place: it was walked there.
Task<bool> Scrub::is_shared(Walk& walk, std::uint32_t level, std::uint64_t index,
                            const MapEntry& entry) {
  if (!walk.base || !entry.has_data()) co_return false;
  auto there = co_await entry_of(*walk.base, level, index);
  co_return there && there->where == entry.where;
}

/// The first leaf from `from` on, below node `index` of `level`, that is not shared with the base.
/// Checks the nodes that it comes to for the first time. What lies below a damaged node is skipped.
Task<std::optional<std::uint64_t>> Scrub::next_leaf(Walk& walk, std::uint32_t level,
                                                    std::uint64_t index, std::uint64_t from) {
  if (level == 0) co_return index < from ? std::nullopt : std::optional(index);
  auto node = co_await group_.cache_.load(walk.volume->tree, level, index, false);
  if (!node || !*node) co_return std::nullopt;  // check_node() said so already
  const std::uint64_t below = leaves_below(level - 1);
  for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
    const std::uint64_t child = index * format::kMapFanout + i;
    if ((child + 1) * below <= from) continue;
    const MapEntry entry = (*node)->entry(i);
    if (!entry.has_data()) continue;
    const bool shared = co_await is_shared(walk, level - 1, child, entry);
    if (shared) continue;
    if (child * below >= from) co_await check_node(walk, level - 1, child, entry);
    auto found = co_await next_leaf(walk, level - 1, child, std::max(from, child * below));
    if (found) co_return found;
  }
  co_return std::nullopt;
}

/// Whether a node's place on disk holds it, whatever the cache holds.
Task<void> Scrub::check_node(Walk& walk, std::uint32_t level, std::uint64_t index, MapEntry entry) {
  IoBuffer there = group_.pool_.buffers().allocate(kBlockBytes);
  IoBatch io(group_.device_);
  io.read(entry.where.value * kBlockBytes, there.bytes());
  const Status read = co_await io.run();
  ++report_.nodes_read;
  if (read && format::crc32c(there.bytes()) == entry.crc32c) co_return;
  auto now = co_await entry_of(*walk.volume, level, index);
  if (!now || !(*now == entry) || is_over(walk)) co_return;  // a checkpoint moved it meanwhile
  ++report_.bad_nodes;
  const bool rewritten = co_await rewrite_node(walk, level, index, entry);
  if (rewritten) ++report_.repaired_nodes;
  find_bad_node(walk, level, index,
                rewritten
                    ? "map node, written again from memory"
                    : "map node: what lies below it cannot be read here; fill this copy anew");
}

/// Its content may still be in memory, unchanged.
Task<bool> Scrub::rewrite_node(Walk& walk, std::uint32_t level, std::uint64_t index,
                               MapEntry entry) {
  const auto lock = co_await group_.checkpoint_lock_.lock();  // see Repair::write_back
  const NodeRef node = group_.cache_.peek(walk.volume->tree, level, index);
  if (!node || format::crc32c(node->bytes()) != entry.crc32c) co_return false;
  auto now = co_await entry_of(*walk.volume, level, index);
  if (!now || !(*now == entry)) co_return false;
  IoBuffer content = group_.pool_.buffers().allocate(kBlockBytes);
  std::copy(node->bytes().begin(), node->bytes().end(), content.bytes().begin());
  if (format::crc32c(content.bytes()) != entry.crc32c) co_return false;
  IoBatch write(group_.device_);
  write.write(entry.where.value * kBlockBytes, content.bytes());
  const Status written = co_await write.run();
  if (!written) co_return false;
  IoBatch again(group_.device_);
  again.read(entry.where.value * kBlockBytes, content.bytes());
  const Status read = co_await again.run();
  co_return read&& format::crc32c(content.bytes()) == entry.crc32c;
}

// --- the data ------------------------------------------------------------------------------------

Task<void> Scrub::check_leaf(Walk& walk, std::uint64_t leaf) {
  auto node = co_await group_.cache_.load(walk.volume->tree, 0, leaf, false);
  if (!node || !*node) co_return;
  NodeRef base;
  if (walk.base) {
    auto loaded = co_await group_.cache_.load(walk.base->tree, 0, leaf, false);
    if (loaded) base = std::move(*loaded);
  }
  for (std::uint32_t i = 0; i < format::kMapFanout && !must_end(); i += kBlocksPerRead) {
    std::vector<MapEntry> entries(kBlocksPerRead);
    std::uint64_t blocks = 0;
    for (std::uint32_t j = 0; j < kBlocksPerRead; ++j) {
      const MapEntry entry = (*node)->entry(i + j);
      if (!entry.has_data() || (base && base->entry(i + j).where == entry.where)) continue;
      entries[j] = entry;
      ++blocks;
    }
    if (blocks == 0) continue;
    co_await check_blocks(walk, leaf * format::kMapFanout + i, entries);
    report_.blocks_read += blocks;
    co_await keep_pace(blocks);
  }
}

/// Holes are not looked at.
Task<void> Scrub::check_blocks(Walk& walk, std::uint64_t first,
                               const std::vector<MapEntry>& entries) {
  VolumeReader reader = group_.reader(*walk.volume);
  const auto bad = co_await reader.check(first, entries);
  if (is_over(walk)) co_return;
  for (const auto& found : bad) {
    ++report_.bad_blocks;
    if (!found.error) ++report_.repaired_blocks;
    find_bad(walk, found.block, found.error ? found.error->message : "given back by a peer");
  }
}

void Scrub::find_bad(const Walk& walk, std::uint64_t block, std::string outcome) {
  const std::string snapshot = walk.snapshot ? walk.snapshot->state.name : "";
  log_event(Level::kWarn, "scrub.bad-block",
            "group={} volume={} snapshot={} byte={} outcome=\"{}\"", group_.name_,
            walk.volume->state.name, snapshot.empty() ? "none" : snapshot, block * kBlockBytes,
            outcome);
  if (report_.findings.size() >= kFindingsMax) return;
  report_.findings.push_back(
      {walk.volume->state.name, snapshot, block * kBlockBytes, std::move(outcome)});
}

void Scrub::find_bad_node(const Walk& walk, std::uint32_t level, std::uint64_t index,
                          std::string outcome) {
  find_bad(walk, index * leaves_below(level) * format::kMapFanout, std::move(outcome));
}

// --- the note that outlives a restart ------------------------------------------------------------

// One line of numbers, then a line for each finding.
void Scrub::note() {
  const auto& r = report_;
  std::string text;
  for (const std::uint64_t number :
       {kNoteVersion, static_cast<std::uint64_t>(r.state), r.started.value, r.ended.value,
        r.blocks_total, r.blocks_read, r.nodes_read, r.bad_blocks, r.repaired_blocks, r.bad_nodes,
        r.repaired_nodes, static_cast<std::uint64_t>(cursor_.phase),
        std::uint64_t{cursor_.state.value}, std::uint64_t{cursor_.inside},
        std::uint64_t{cursor_.volume.value}, cursor_.leaf, std::uint64_t{cursor_.began.value},
        std::uint64_t{cursor_.live_ended.value}}) {
    text += std::to_string(number) + " ";
  }
  for (const auto& finding : r.findings) {
    std::string outcome = finding.outcome.substr(0, 200);
    std::replace_if(
        outcome.begin(), outcome.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
    text += "\n" + std::to_string(finding.byte) + "\t" + finding.volume + "\t" + finding.snapshot +
            "\t" + outcome;
  }
  group_.settings_[kNote] = std::move(text);
}

namespace {

/// The text up to `end`, which is taken off with it.
std::string_view cut(std::string_view& text, char end) {
  const auto at = text.find(end);
  const auto part = text.substr(0, at);
  text = at == std::string_view::npos ? std::string_view() : text.substr(at + 1);
  return part;
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  (void)std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

/// False: there is no note, or one of another release.
bool Scrub::recall() {
  const auto noted = group_.settings_.find(kNote);
  if (noted == group_.settings_.end()) return false;
  std::string_view text = noted->second;
  std::string_view line = cut(text, '\n');
  std::vector<std::uint64_t> n;
  while (!line.empty()) n.push_back(number(cut(line, ' ')));
  if (n.size() != 18 || n[0] != kNoteVersion || n[1] > 3 || n[11] > 3) return false;
  report_.state = static_cast<ScrubReport::State>(n[1]);
  report_.started = UtcNs{n[2]};
  report_.ended = UtcNs{n[3]};
  report_.blocks_total = n[4];
  report_.blocks_read = n[5];
  report_.nodes_read = n[6];
  report_.bad_blocks = n[7];
  report_.repaired_blocks = n[8];
  report_.bad_nodes = n[9];
  report_.repaired_nodes = n[10];
  cursor_ = {.phase = static_cast<Phase>(n[11]),
             .state = format::SnapshotId{static_cast<std::uint32_t>(n[12])},
             .inside = n[13] != 0,
             .volume = VolumeId{static_cast<std::uint32_t>(n[14])},
             .leaf = n[15],
             .began = format::SnapshotId{static_cast<std::uint32_t>(n[16])},
             .live_ended = format::SnapshotId{static_cast<std::uint32_t>(n[17])}};
  report_.findings.clear();
  while (!text.empty() && report_.findings.size() < kFindingsMax) {
    std::string_view finding = cut(text, '\n');
    ScrubFinding f;
    f.byte = number(cut(finding, '\t'));
    f.volume = cut(finding, '\t');
    f.snapshot = cut(finding, '\t');
    f.outcome = finding;
    report_.findings.push_back(std::move(f));
  }
  return true;
}

}  // namespace tandem::store
