#include "store/compaction.h"

#include <algorithm>
#include <tuple>

#include "format/checksum.h"
#include "tandem/base/log.h"
#include "tandem/port/wait.h"

namespace tandem::store {

using format::MapEntry;

namespace {

/// Read and written at once: short, so that what guests do meanwhile does not wait for long.
constexpr std::uint64_t kBlocksAtOnce = 64;
/// One batch is one checkpoint and one mark; its leaves are pinned until then.
constexpr std::size_t kMovesMax = 32768;
constexpr std::size_t kPinsMax = 1024;
/// A batch that must not be entered now is tried again.
constexpr Nanoseconds kAgain = std::chrono::seconds(1);
/// Of what is written to a group, at most one part in so many is moved without being asked for.
constexpr std::uint64_t kWrittenPerMoved = 4;
/// And not sooner again than that: looking for what to move reads all maps.
constexpr Nanoseconds kPause = std::chrono::minutes(10);

}  // namespace

// --- life ----------------------------------------------------------------------------------------

/// Room for what the group writes between two checkpoints; else it would take the zones back at
/// once.
std::uint64_t Compaction::slack() const {
  const std::uint64_t zone = group_.pool_.superblock().zone_blocks;
  if (slack_) return *slack_;
  return std::max<std::uint64_t>(2 * zone, group_.space_.zone_count() * zone / 32);
}

std::size_t Compaction::pins_max() const {
  return std::clamp<std::size_t>(group_.cache_.capacity_nodes() / 8, 1, kPinsMax);
}

Status Compaction::start(bool by_itself) {
  const std::string group = "group " + group_.name_;
  if (running_) return Error{ErrorCode::kBusy, group + " is being compacted already"};
  if (group_.stopped_ || group_.closing_) return group_.refusal();
  if (group_.awaiting_image() || group_.image_target_) {
    return Error{ErrorCode::kBusy, group + " is receiving a full copy; compact it afterwards"};
  }
  if (!group_.history_policy_) {
    return Error{ErrorCode::kUnavailable, group + " has not started yet; try again"};
  }
  const std::uint64_t zone = group_.pool_.superblock().zone_blocks;
  if (group_.available() < slack() + zone) {
    const auto mib = [](std::uint64_t blocks) {
      return std::to_string(blocks * kBlockBytes >> 20) + " MiB";
    };
    return Error{ErrorCode::kRefused,
                 group + " has nothing to gain by compaction: " + mib(group_.free_blocks()) +
                     " are free in its zones, and it keeps " + mib(slack() + group_.reserve()) +
                     " of that to work with"};
  }
  report_ = CompactionReport{};
  report_.state = CompactionReport::State::kRunning;
  report_.by_itself = by_itself;
  report_.started = group_.runtime_.clock.utc();
  running_ = true;
  stopping_ = false;
  log_event(Level::kInfo, "compaction.started", "group={} by_itself={}", group_.name_, by_itself);
  spawn(run());
  return ok();
}

Status Compaction::stop() {
  if (!running_) {
    return Error{ErrorCode::kNotFound, "group " + group_.name_ + " is not being compacted"};
  }
  end_because("stopped by the operator");
  return ok();
}

void Compaction::suspend() {
  suspended_ = true;
  wake_.notify_all();
}

void Compaction::set_rate(std::uint64_t bytes_per_second) {
  if (bytes_per_second == bytes_per_second_) return;
  bytes_per_second_ = bytes_per_second;
  wake_.notify_all();
}

CompactionReport Compaction::report() const {
  CompactionReport report = report_;
  report.zones_waiting = running_ ? 0 : closed_.size();
  return report;
}

bool Compaction::is_affordable() const {
  if (running_) return false;
  const Nanoseconds now = group_.runtime_.clock.monotonic();
  if (ended_at_ && now - *ended_at_ < kPause) return false;
  // The log may have been taken back meanwhile.
  const std::uint64_t now_written = std::max(group_.head_.payload_bytes, written_before_);
  const std::uint64_t written = now_written - written_before_;
  return report_.state == CompactionReport::State::kNever ||
         written / kBlockBytes >= report_.blocks_moved * kWrittenPerMoved;
}

bool Compaction::must_end() const {
  return stopping_ || suspended_ || group_.closing_ || group_.stopped_.has_value();
}

void Compaction::end_because(std::string why) {
  if (!stopping_) report_.outcome = std::move(why);
  stopping_ = true;
  wake_.notify_all();
}

Task<void> Compaction::run() {
  auto hold = group_.gate_.hold();
  // What died so far is free then, and not taken for something that holds a zone.
  Status done = co_await group_.checkpoint();
  if (done && !must_end()) done = co_await survey();
  if (!done) end_because(done.error().message);
  if (!must_end() && choose_zones()) {
    // What was placed there before is mapped when the walk begins.
    const Lsn placed = group_.tail_.lsn;
    const auto& pages = group_.in_flight_;
    while (!pages.empty() && pages.front()->before.lsn < placed && !must_end()) {
      co_await group_.applied_.wait();
    }
    co_await move_all();
  }
  drop_batch();
  if (!must_end()) (void)co_await group_.checkpoint();  // frees what the last batch replaced
  finish();
}

void Compaction::finish() {
  const bool done = !stopping_ && !suspended_;
  if (!done) open_zones();
  running_ = false;
  stopping_ = false;
  movable_.clear();
  report_.state = done ? CompactionReport::State::kFinished : CompactionReport::State::kStopped;
  report_.ended = group_.runtime_.clock.utc();
  written_before_ = group_.head_.payload_bytes;
  ended_at_ = group_.runtime_.clock.monotonic();
  log_event(Level::kInfo, done ? "compaction.finished" : "compaction.stopped",
            "group={} zones_chosen={} zones_emptied={} zones_waiting={} blocks_moved={} "
            "bad_blocks={} outcome=\"{}\"",
            group_.name_, report_.zones_chosen, report_.zones_emptied, closed_.size(),
            report_.blocks_moved, report_.bad_blocks, report_.outcome);
  over_.notify_all();
}

/// Spreads the work over time; nothing is made good after a pause.
Task<void> Compaction::keep_pace(std::uint64_t blocks) {
  if (must_end() || blocks == 0) co_return;
  const double seconds =
      static_cast<double>(blocks * kBlockBytes) / static_cast<double>(bytes_per_second_);
  co_await wait_at_most(group_.runtime_.executor, wake_,
                        Nanoseconds(static_cast<std::int64_t>(seconds * 1e9)));
}

// --- space ---------------------------------------------------------------------------------------

bool Compaction::give_way() {
  if (closed_.empty()) return false;
  if (running_) end_because("gave way: the group needed the space itself");
  open_zones();
  return true;
}

Task<void> Compaction::wait_over() {
  while (running_) co_await over_.wait();
}

/// What the next checkpoint needs for the batch is kept back from everybody else (Group::reserve),
/// so it must be there before the batch grows.
Status Compaction::check_room(std::uint64_t blocks) const {
  if (group_.available() >= blocks) return ok();
  return Error{ErrorCode::kNoSpace, "gave way: the group needed the space itself"};
}

void Compaction::open_zones() {
  for (auto zone : closed_) group_.space_.open_zone(zone);
  closed_.clear();
}

void Compaction::zone_left(ZoneId zone) { report_.zones_emptied += closed_.erase(zone); }

bool Compaction::is_closed(PoolBlock block) const {
  return closed_.count(group_.pool_.superblock().zone_of(block)) != 0;
}

std::uint64_t Compaction::list_blocks() const {
  return batch_.moves.empty() && batch_.nodes.empty()
             ? 0
             : (batch_.moves.size() + batch_.nodes.size()) / format::kDeadPerChunk + 4;
}

// --- what may be moved ---------------------------------------------------------------------------

/// Blocks born up to there are mapped by a state that stays.
Lsn Compaction::lasting() const {
  for (const auto& snapshot : group_.line()) {
    const auto& state = snapshot->state;
    if (state.has_name() || state.clones != 0 || group_.successors_of(state.id) > 1) {
      return state.at.lsn;
    }
  }
  return Lsn{};
}

bool Compaction::has_lasting() const {
  return std::any_of(group_.snapshots_.begin(), group_.snapshots_.end(), [this](const auto& s) {
    return s.second->state.has_name() || s.second->state.clones != 0 ||
           group_.successors_of(s.first) != 1;
  });
}

/// The ends of lists stay where they are for as long as there is something to list.
std::set<ZoneId> Compaction::zones_with_lists() const {
  std::set<ZoneId> zones;
  const auto add = [&](const format::DeadChain& chain) {
    for (const auto block : {chain.head, chain.tail}) {
      if (block.value != 0) zones.insert(group_.pool_.superblock().zone_of(block));
    }
  };
  add(group_.dead_.queue());
  add(group_.held_);
  for (const auto& [id, snapshot] : group_.snapshots_) add(snapshot->state.held);
  return zones;
}

/// What every checkpoint writes to another place anyhow, or can be made to.
std::map<ZoneId, std::uint32_t> Compaction::books() const {
  std::map<ZoneId, std::uint32_t> books;
  const auto& geometry = group_.pool_.superblock();
  for (const auto block : group_.descriptor_blocks_) ++books[geometry.zone_of(block)];
  for (const auto& [index, page] : group_.bitmap_) ++books[geometry.zone_of(page.where)];
  return books;
}

/// The next leaf that has something newer than what stays; none at the end.
Task<Result<std::optional<Compaction::Leaf>>> Compaction::next_leaf(Cursor& cursor) {
  for (;;) {
    Leaf leaf;
    for (const auto& [id, volume] : group_.volumes_) {
      if (id < cursor.volume || volume->state.being_deleted() || leaf.volume) continue;
      leaf.volume = volume;
    }
    if (!leaf.volume) co_return std::optional<Leaf>{};
    const VolumeId id = leaf.volume->state.id;
    if (id != cursor.volume) cursor = Cursor{id, 0, {}};
    const auto misses = group_.cache_.misses();
    auto found = co_await group_.cache_.load_newer(leaf.volume->tree, cursor.leaf, lasting(), 1);
    if (!found) co_return Error(std::move(found.error()));
    const auto read = std::min<std::uint64_t>(group_.cache_.misses() - misses, kBlocksAtOnce);
    if (!found->empty()) {
      leaf.node = std::move(found->front());
      cursor.leaf = leaf.node->key().index + 1;
      co_await keep_pace(read);
      co_return std::optional<Leaf>(std::move(leaf));
    }
    cursor = Cursor{id.next(), 0, {}};
  }
}

/// Where the leaf is on disk, and the nodes above it that were not visited before.
Task<Result<std::vector<Compaction::NodeAt>>> Compaction::nodes_at(Cursor& cursor,
                                                                   const Leaf& leaf) {
  std::vector<NodeAt> nodes;
  auto& tree = leaf.volume->tree;
  std::uint64_t index = leaf.node->key().index;
  for (std::uint32_t level = 0; level < tree.height; ++level, index /= format::kMapFanout) {
    const auto last = cursor.above.find(level);
    if (last != cursor.above.end() && last->second == index) break;
    MapEntry entry = tree.root;
    if (level + 1 < tree.height) {
      auto above = co_await group_.cache_.load(tree, level + 1, index / format::kMapFanout, false);
      if (!above) co_return Error(std::move(above.error()));
      entry = *above ? (*above)->entry(static_cast<std::uint32_t>(index % format::kMapFanout))
                     : MapEntry{};
    }
    cursor.above[level] = index;
    if (entry.has_data() && entry.lsn > lasting()) nodes.push_back({level, index, entry});
  }
  co_return nodes;
}

Task<Status> Compaction::survey() {
  const auto& geometry = group_.pool_.superblock();
  movable_.clear();
  for (Cursor cursor; !must_end();) {
    auto leaf = co_await next_leaf(cursor);
    if (!leaf) co_return Error(std::move(leaf.error()));
    if (!*leaf) break;
    const Lsn stays = lasting();
    for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
      const MapEntry entry = (*leaf)->node->entry(i);
      if (entry.has_data() && entry.lsn > stays) ++movable_[geometry.zone_of(entry.where)];
    }
    auto nodes = co_await nodes_at(cursor, **leaf);
    if (!nodes) co_return Error(std::move(nodes.error()));
    for (const auto& node : *nodes) ++movable_[geometry.zone_of(node.entry.where)];
    co_await next_turn(group_.runtime_.executor);
  }
  co_return ok();
}

/// The cheapest first. False: there is none.
bool Compaction::choose_zones() {
  struct Candidate {
    ZoneId zone;
    std::uint32_t movable, used;
  };
  const std::uint32_t zone_blocks = group_.pool_.superblock().zone_blocks;
  const bool strict = has_lasting();  // what cannot be moved may be there for good
  const auto lists = zones_with_lists();
  auto books = this->books();
  std::vector<Candidate> candidates;
  for (const auto& use : group_.space_.zone_uses()) {
    if (use.closed || use.used == 0 || lists.count(use.zone) != 0) continue;
    const std::uint32_t movable = std::min(movable_[use.zone], use.used);
    if (strict && movable + books[use.zone] < use.used) continue;
    candidates.push_back({use.zone, movable, use.used});
  }
  std::sort(candidates.begin(), candidates.end(), [](const auto& a, const auto& b) {
    return std::tie(a.movable, a.used, a.zone) < std::tie(b.movable, b.used, b.zone);
  });
  std::uint64_t room = group_.available();
  const std::uint64_t kept =
      slack() + pins_max() * 2 + group_.bitmap_.size() + format::kMapHeightMax;
  std::vector<ZoneId> chosen;
  for (const auto& c : candidates) {
    const std::uint64_t cost = zone_blocks - c.used + c.movable;
    if (room < kept + cost) break;
    room -= cost;
    chosen.push_back(c.zone);
    report_.blocks_total += c.movable;
  }
  if (chosen.empty()) {
    end_because(
        "nothing to gain: no zone of the group can be emptied into the free blocks of the "
        "others" +
        std::string(strict ? " without moving what snapshots hold" : ""));
    return false;
  }
  for (auto zone : chosen) {
    group_.space_.close_zone(zone);
    closed_.insert(zone);
  }
  report_.zones_chosen = chosen.size();
  for (const auto& [index, page] : group_.bitmap_) {
    if (is_closed(page.where)) group_.space_.mark_page_dirty(index);
  }
  return true;
}

// --- moving --------------------------------------------------------------------------------------

Task<void> Compaction::move_all() {
  Status done = ok();
  Cursor cursor;
  while (done && !must_end()) {
    auto leaf = co_await next_leaf(cursor);
    if (!leaf) {
      done = Error(std::move(leaf.error()));
      break;
    }
    if (!*leaf) break;
    done = co_await move_leaf(cursor, **leaf);
    if (done && (batch_.pins.size() >= pins_max() || batch_.moves.size() >= kMovesMax)) {
      done = co_await enter_batch();
    }
    co_await next_turn(group_.runtime_.executor);
  }
  const bool is_cramped = !done && done.error().code == ErrorCode::kNoSpace;
  if ((done || is_cramped) && !must_end()) {
    Status entered = co_await enter_batch();
    if (!entered) done = std::move(entered);
  }
  if (!done) end_because(done.error().message);
}

/// What of the leaf lies in zones that are being emptied: its entries, itself, and nodes above it.
Task<Status> Compaction::move_leaf(Cursor& cursor, const Leaf& leaf) {
  auto nodes = co_await nodes_at(cursor, leaf);
  if (!nodes) co_return Error(std::move(nodes.error()));
  const std::uint64_t height = leaf.volume->tree.height;
  Status room = check_room(2 * (nodes->size() + 1) * (height + 1));
  if (!room) co_return room;
  for (const auto& node : *nodes) {
    if (!is_closed(node.entry.where)) continue;
    auto pinned = co_await group_.cache_.load(leaf.volume->tree, node.level, node.index, false);
    if (!pinned) co_return Error(std::move(pinned.error()));
    if (!*pinned) continue;
    batch_.nodes.push_back({leaf.volume, node.level, node.index});
    batch_.pins.push_back(std::move(*pinned));
  }
  const Lsn stays = lasting();
  std::vector<Move> moves;
  for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
    const MapEntry entry = leaf.node->entry(i);
    if (!entry.has_data() || entry.lsn <= stays || !is_closed(entry.where)) continue;
    moves.push_back({leaf.volume, leaf.node->key().index * format::kMapFanout + i, entry, {}});
  }
  if (moves.empty()) co_return ok();
  batch_.pins.push_back(leaf.node);
  for (std::size_t i = 0; i < moves.size() && !must_end(); i += kBlocksAtOnce) {
    const auto first = moves.begin() + static_cast<std::ptrdiff_t>(i);
    const auto count = std::min<std::size_t>(kBlocksAtOnce, moves.size() - i);
    Status copied =
        co_await copy(leaf, std::vector<Move>(first, first + static_cast<std::ptrdiff_t>(count)));
    if (!copied) co_return copied;
  }
  co_return ok();
}

Task<Status> Compaction::copy(const Leaf& leaf, std::vector<Move> moves) {
  auto& g = group_;
  IoBuffer data = g.pool_.buffers().allocate(moves.size() * kBlockBytes);
  IoBatch io(g.device_);
  for (std::size_t i = 0; i < moves.size(); ++i) {
    io.read(moves[i].from.where.value * kBlockBytes,
            data.bytes().subspan(i * kBlockBytes, kBlockBytes));
  }
  (void)co_await io.run();  // the checksums tell
  std::vector<Move> whole;
  VolumeReader reader = g.reader(*leaf.volume);
  for (std::size_t i = 0; i < moves.size() && !must_end(); ++i) {
    const auto block = data.bytes().subspan(i * kBlockBytes, kBlockBytes);
    if (format::crc32c(block) != moves[i].from.crc32c) {
      IoBatch again(g.device_);
      again.read(moves[i].from.where.value * kBlockBytes, block);
      (void)co_await again.run();
    }
    if (format::crc32c(block) == moves[i].from.crc32c) {
      if (whole.size() != i) {
        std::copy(block.begin(), block.end(), data.data() + whole.size() * kBlockBytes);
      }
      whole.push_back(std::move(moves[i]));
      continue;
    }
    // Overwritten meanwhile, or damaged: then it is repaired where it is, if a peer has it.
    const std::vector<MapEntry> entries(1, moves[i].from);
    const auto bad = co_await reader.check(moves[i].block, entries);
    if (bad.empty()) continue;
    ++report_.bad_blocks;
    log_event(Level::kWarn, "compaction.bad-block", "group={} volume={} byte={} outcome=\"{}\"",
              g.name_, leaf.volume->state.name, moves[i].block * kBlockBytes,
              bad[0].error ? bad[0].error->message : "given back by a peer");
  }
  if (whole.empty() || must_end()) co_return ok();
  Status written = co_await write_copies(whole, data);
  if (!written) co_return written;
  co_await keep_pace(2 * moves.size());
  co_return ok();
}

/// The copies belong to the batch before they are written: from here on it gives them back.
Task<Status> Compaction::write_copies(std::vector<Move>& moves, const IoBuffer& data) {
  auto& g = group_;
  Status room = check_room(moves.size() + 1);
  if (!room) co_return room;
  IoBatch io(g.device_);
  for (std::size_t done = 0; done < moves.size();) {
    // However many: into holes, not into zones that could be given back.
    const auto run = g.space_.allocate(static_cast<std::uint32_t>(moves.size() - done), 1);
    CHECK(run.has_value());
    io.write(run->start.value * kBlockBytes,
             data.bytes().subspan(done * kBlockBytes, run->count * kBlockBytes));
    for (std::uint32_t i = 0; i < run->count; ++i, ++done) {
      moves[done].to = PoolBlock{run->start.value + i};
      batch_.moves.push_back(std::move(moves[done]));
    }
  }
  co_return co_await io.run();
}

// --- entering ------------------------------------------------------------------------------------

/// Durable when it returns, or given up.
Task<Status> Compaction::enter_batch() {
  if (batch_.moves.empty() && batch_.nodes.empty()) {
    batch_.pins.clear();
    co_return ok();
  }
  ready_ = true;
  while (ready_ && !must_end()) {
    Status done = co_await group_.checkpoint();
    if (!done) co_return done;
    if (!ready_) break;
    // A state is being made aside: it must not find the maps changed under its base.
    co_await wait_at_most(group_.runtime_.executor, wake_, kAgain);
  }
  co_return ok();
}

void Compaction::exclude(std::vector<Extent>& extents) const {
  for (const auto& move : batch_.moves) extents.push_back({move.to, 1});
}

void Compaction::drop_batch() {
  for (const auto& move : batch_.moves) group_.space_.undo_allocate({move.to, 1});
  batch_ = Batch{};
  ready_ = false;
}

std::optional<Compaction::Entered> Compaction::enter(Lsn at) {
  auto& g = group_;
  CHECK(ready_);
  Entered entered{Lsn{UINT64_MAX}, {}};
  const Lsn stays = lasting();  // a snapshot may have been taken meanwhile
  const auto is_live = [&](const Group::VolumePtr& volume) {
    return g.find_volume(volume->state.id) == volume;
  };
  std::uint64_t moved = 0;
  for (const auto& move : batch_.moves) {
    const auto& from = move.from;
    const std::uint64_t leaf = move.block / format::kMapFanout;
    const auto i = static_cast<std::uint32_t>(move.block % format::kMapFanout);
    const auto node = is_live(move.volume) ? g.cache_.peek(move.volume->tree, 0, leaf) : NodeRef{};
    if (!node || !(node->entry(i) == from) || from.lsn <= stays) {
      g.space_.undo_allocate({move.to, 1});
      continue;
    }
    g.cache_.change(move.volume->tree, 0, leaf, i, {move.to, from.lsn, from.crc32c});
    entered.dead.push_back({from.where, from.lsn, at});
    entered.oldest = std::min(entered.oldest, from.lsn);
    ++moved;
  }
  for (const auto& move : batch_.nodes) {
    const auto node =
        is_live(move.volume) ? g.cache_.peek(move.volume->tree, move.level, move.index) : NodeRef{};
    if (!node || node->newest() <= stays) continue;
    g.cache_.rewrite(node);
    entered.oldest = std::min(entered.oldest, node->newest());
    ++moved;
  }
  batch_ = Batch{};
  ready_ = false;
  report_.blocks_moved += moved;
  if (moved == 0) return std::nullopt;
  return entered;
}

}  // namespace tandem::store
