#include "store/image.h"

#include <cstring>

#include "format/checksum.h"
#include "store/group.h"
#include "tandem/base/log.h"

namespace tandem::store {

using format::MapEntry;

namespace {

/// Volumes that are being received have ids of their own in the map cache.
constexpr std::uint32_t kImageCacheIds = 0x40000000;

}  // namespace

// --- sending -----------------------------------------------------------------------------------

Task<Result<message::ImageBegin>> Group::begin_image(std::optional<LogPoint> since) {
  auto hold = gate_.hold();
  // What a rollback took back behind `since` carries older positions than it had there.
  const auto is_base = [this](const LogPoint& point) {
    if (const auto kept = on_line(point.lsn)) return kept->state.at.digest == point.digest;
    return point.lsn >= skipped_forgotten_ && !is_skipped(point.lsn) && is_in_log(point);
  };
  if (since && !is_base(*since)) since.reset();
  end_image();
  // From here on nothing that is released is reused; so the checkpoint below stays readable.
  image_source_ = std::make_shared<ImageSource>();
  Status written = co_await checkpoint();
  if (!written) co_return Error(std::move(written.error()));
  message::ImageBegin begin;
  const auto lock = co_await checkpoint_lock_.lock();
  if (!image_source_) co_return Error{ErrorCode::kCancelled, "the full copy was given up"};
  // All of it as of one checkpoint: the live state may have moved on.
  begin.point = last_checkpoint_.point;
  begin.history = last_checkpoint_.history;
  begin.next_volume_id = last_checkpoint_.next_volume_id;
  for (const auto& v : last_checkpoint_.volumes) {
    if (v.being_deleted()) continue;
    begin.volumes.push_back({v.id, v.name, v.size_bytes, v.logical_block_bytes});
    begin.blocks_total += v.allocated_blocks;
    MapTree tree{static_cast<std::uint16_t>(slot_), VolumeId{kImageCacheIds + next_image_id_++},
                 v.height, v.root, 0};
    image_source_->volumes.push_back({v, tree});
  }
  if (since) {
    image_source_->since = since->lsn;
    const auto written = (begin.point.payload_bytes - since->payload_bytes) / kBlockBytes;
    begin.blocks_total = std::min(begin.blocks_total, written);
  }
  begin.base = std::move(since);
  co_return begin;
}

Task<Result<message::ImageBlocks>> Group::read_image(std::size_t bytes_max) {
  auto hold = gate_.hold();
  const auto shared = image_source_;  // end_image() may come while this waits
  if (!shared) co_return Error{ErrorCode::kCancelled, "the full copy was given up"};
  auto& source = *shared;
  const std::size_t blocks_max = std::max<std::size_t>(bytes_max / kBlockBytes, 1);
  message::ImageBlocks out;
  std::vector<message::ImageEntry> holes;
  const auto is_full = [&] { return out.entries.size() + holes.size() >= blocks_max; };
  IoBatch io(device_);
  while (source.volume < source.volumes.size() && !is_full()) {
    auto& current = source.volumes[source.volume];
    if (!source.leaf) {
      auto leaves = co_await cache_.load_newer(current.tree, source.next_leaf, source.since, 1);
      if (!leaves) co_return Error(std::move(leaves.error()));
      if (leaves->empty()) {
        cache_.drop_volume(current.tree);
        ++source.volume;
        source.next_leaf = 0;
        if (!out.entries.empty() || !holes.empty()) break;  // a message is about one volume
        continue;
      }
      source.leaf = leaves->front();
      source.entry = 0;
      source.next_leaf = source.leaf->key().index + 1;
    }
    out.volume = current.state.id;
    for (; source.entry < format::kMapFanout && !is_full(); ++source.entry) {
      const MapEntry entry = source.leaf->entry(source.entry);
      if (entry.lsn <= source.since) continue;
      const VolumeBlock block{source.leaf->key().index * format::kMapFanout + source.entry};
      if (entry.is_hole()) {
        if (source.since != Lsn{}) holes.push_back({block, 0, entry.lsn});
        continue;
      }
      out.entries.push_back({block, entry.crc32c, entry.lsn});
      out.payload.push_back(pool_.buffers().allocate(kBlockBytes));
      if (entry.is_zero()) {
        std::memset(out.payload.back().data(), 0, kBlockBytes);
      } else {
        io.read(entry.where.value * kBlockBytes, out.payload.back().bytes());
      }
    }
    if (source.entry == format::kMapFanout) source.leaf.reset();
  }
  Status read = co_await io.run();
  if (!read) co_return Error(std::move(read.error()));
  for (std::size_t i = 0; i < out.entries.size(); ++i) {
    if (format::crc32c(out.payload[i].bytes()) == out.entries[i].crc32c) continue;
    co_return Error{ErrorCode::kCorrupt, "group " + name_ + ": block " +
                                             std::to_string(out.entries[i].block.value) +
                                             " of volume id " + std::to_string(out.volume.value) +
                                             " fails its checksum; it cannot be copied"};
  }
  out.entries.insert(out.entries.end(), holes.begin(), holes.end());
  co_return out;
}

void Group::end_image() {
  if (!image_source_) return;
  image_source_->leaf.reset();
  for (auto& source : image_source_->volumes) cache_.drop_volume(source.tree);
  image_source_.reset();
  // What was released meanwhile becomes allocatable with the next checkpoint.
}

// --- receiving -----------------------------------------------------------------------------------

Task<Status> Group::begin_install(message::ImageBegin begin) {
  auto hold = gate_.hold();
  if (serving_ || stopped_ || closing_ || role_ != Role::kMirror) {
    co_return Error{ErrorCode::kRefused, "group " + name_ + " is no mirror here"};
  }
  abandon_install();
  auto target = std::make_shared<ImageTarget>();
  if (begin.base) {
    auto finding = common_state(*begin.base);
    auto base = co_await std::move(finding);
    if (!base) co_return Error(std::move(base.error()));
    target->base = std::move(*base);
    target->pin = std::make_unique<SnapshotPin>(target->base->readers);
  }
  // abandon_install() gives its blocks back behind this lock.
  const auto lock = co_await checkpoint_lock_.lock();
  if (image_target_) co_return Error{ErrorCode::kBusy, "another full copy is being received"};
  if (begin.history.empty()) co_return Error{ErrorCode::kInvalid, "full copy without a history"};
  for (const auto& v : begin.volumes) {
    const auto volume = begin_as(*target, v);
    if (volume->state.size_bytes > v.size_bytes || !target->volumes.emplace(v.id, volume).second) {
      co_return Error{ErrorCode::kInvalid, "full copy names a volume twice, or shrinks it"};
    }
    set_size(*volume, v.size_bytes, begin.point.lsn);
  }
  target->begin = std::move(begin);
  image_target_ = std::move(target);
  co_return ok();
}

/// The state at a point that the primary says both hold, if it is one.
Task<Result<Group::SnapshotPtr>> Group::common_state(LogPoint point) {
  const auto start = history_start();
  if (point.lsn > head_.lsn || (point.lsn < head_.lsn && (!start || point.lsn < *start))) {
    co_return outside_of_history("LSN " + std::to_string(point.lsn.value));
  }
  auto making = state_at(point.lsn);
  auto made = co_await std::move(making);
  if (!made) co_return Error(std::move(made.error()));
  const auto state = std::move(*made);
  while (!state->ready && !stopped_ && !closing_) co_await state->became_ready.wait();
  if (stopped_ || closing_) co_return refusal();
  if (state->state.at.digest != point.digest) {
    co_return Error{ErrorCode::kNotFound, "group " + name_ + " was another one at LSN " +
                                              std::to_string(point.lsn.value) + " here"};
  }
  co_return state;
}

/// A volume as the image begins with it: empty, or as in the state that the image differs from.
Group::VolumePtr Group::begin_as(const ImageTarget& target, const message::ImageVolume& v) {
  VolumePtr volume;
  if (target.base) {
    for (const auto& state : target.base->state.volumes) {
      if (state.id == v.id) volume = cores_of({state}).front();
    }
  }
  if (!volume) {
    volume = std::make_shared<VolumeCore>();
    volume->state.id = v.id;
    volume->tree = {static_cast<std::uint16_t>(slot_), VolumeId{kImageCacheIds + next_image_id_++},
                    format::map_height(blocks_for(v.size_bytes)), MapEntry{}, 0};
  }
  volume->state.name = v.name;
  volume->state.logical_block_bytes = v.logical_block_bytes;
  return volume;
}

Task<Status> Group::install_blocks(message::ImageBlocks blocks) {
  auto hold = gate_.hold();
  const auto target = image_target_;
  if (!target || target->abandoned)
    co_return Error{ErrorCode::kCancelled, "no full copy under way"};
  auto found = target->volumes.find(blocks.volume);
  std::size_t bytes = 0;
  for (const auto& p : blocks.payload) bytes += p.size();
  const std::size_t with_data = bytes / kBlockBytes;
  if (found == target->volumes.end() || bytes % kBlockBytes != 0 ||
      with_data > blocks.entries.size() || (!target->base && with_data != blocks.entries.size())) {
    co_return Error{ErrorCode::kInvalid, "full copy: blocks of an unknown volume, or cut short"};
  }
  const Lsn since = target->base ? target->base->state.at.lsn : Lsn{};
  VolumeCore& volume = *found->second;
  const std::uint64_t volume_blocks = blocks_for(volume.state.size_bytes);
  while (checkpoint_is_due()) {
    Status written = co_await checkpoint();
    if (!written) co_return written;
  }
  IoBuffer data = pool_.buffers().allocate(bytes);
  std::size_t at = 0;
  for (const auto& p : blocks.payload) {
    std::memcpy(data.data() + at, p.data(), p.size());
    at += p.size();
  }
  // Check and pin everything, take space, write, and only then enter it in the map.
  std::vector<NodeRef> pins;
  std::size_t wanted = 0, loads = 0;
  for (std::size_t i = 0; i < blocks.entries.size(); ++i) {
    const auto& e = blocks.entries[i];
    const bool is_hole = i >= with_data;
    if (e.block.value >= volume_blocks || e.lsn <= since || e.lsn > target->begin.point.lsn) {
      co_return Error{ErrorCode::kInvalid, "full copy: a block that cannot be part of it"};
    }
    if (!is_hole &&
        format::crc32c(data.bytes().subspan(i * kBlockBytes, kBlockBytes)) != e.crc32c) {
      co_return Error{ErrorCode::kCorrupt, "full copy: a block arrived damaged"};
    }
    wanted += !is_hole && e.crc32c != format::crc32c_of_zero_block() ? 1 : 0;
    NodeRef leaf = cache_.peek(volume.tree, 0, e.block.value / format::kMapFanout);
    if (!leaf) {
      auto loaded = co_await cache_.load(volume.tree, 0, e.block.value / format::kMapFanout, true);
      if (!loaded) co_return Error(std::move(loaded.error()));
      leaf = std::move(*loaded);
      // Writes have their turn, also between leaves that need no I/O.
      if (++loads % 64 == 0) co_await next_turn(runtime_.executor);
    }
    pins.push_back(std::move(leaf));
  }
  Status space = co_await take_aside_space(wanted);
  if (!space) co_return space;
  if (image_target_ != target || target->abandoned) {
    co_return Error{ErrorCode::kCancelled, "the full copy was given up"};
  }
  std::vector<PoolBlock> places;
  while (places.size() < wanted) {
    auto run = space_.allocate(static_cast<std::uint32_t>(wanted - places.size()));
    CHECK(run.has_value());
    if (!target->data.empty() &&
        target->data.back().start.value + target->data.back().count == run->start.value) {
      target->data.back().count += run->count;
    } else {
      target->data.push_back(*run);
    }
    for (std::uint32_t i = 0; i < run->count; ++i)
      places.push_back(PoolBlock{run->start.value + i});
  }
  IoBatch io(device_);
  std::vector<MapEntry> entries;
  std::size_t next = 0;
  for (std::size_t i = 0; i < blocks.entries.size(); ++i) {
    const auto& e = blocks.entries[i];
    if (i >= with_data) {
      entries.push_back({PoolBlock{}, e.lsn, 0});
      continue;
    }
    if (e.crc32c == format::crc32c_of_zero_block()) {
      entries.push_back({format::kZeroBlock, e.lsn, e.crc32c});
      continue;
    }
    entries.push_back({places[next++], e.lsn, e.crc32c});
    io.write(entries.back().where.value * kBlockBytes,
             data.bytes().subspan(i * kBlockBytes, kBlockBytes));
  }
  Status written = co_await io.run();
  if (!written) co_return written;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::uint64_t block = blocks.entries[i].block.value;
    const MapEntry old =
        cache_.change(volume.tree, 0, block / format::kMapFanout,
                      static_cast<std::uint32_t>(block % format::kMapFanout), entries[i]);
    if (old.lsn > since) co_return Error{ErrorCode::kInvalid, "full copy: a block came twice"};
    volume.state.allocated_blocks += entries[i].is_hole() ? 0 : 1;
    volume.state.allocated_blocks -= old.is_hole() ? 0 : 1;
    volume.state.data_blocks += entries[i].has_data() ? 1 : 0;
    if (!old.has_data()) continue;
    --volume.state.data_blocks;
    target->replaced.push_back({old.where, old.lsn, entries[i].lsn});
  }
  co_return ok();
}

/// Waits until `blocks` can be taken for what is made aside. Errors: kNoSpace.
Task<Status> Group::take_aside_space(std::uint64_t blocks) {
  while (available() < blocks) {
    auto zone = co_await pool_.take_zone(slot_);
    if (!zone) co_return Error(std::move(zone.error()));
    space_.add_zone(*zone);
  }
  co_return ok();
}

Task<Status> Group::finish_install(message::ImageEnd end) {
  auto hold = gate_.hold();
  const auto target = image_target_;
  if (!target || target->abandoned)
    co_return Error{ErrorCode::kCancelled, "no full copy under way"};
  if (end.point != target->begin.point) {
    co_return Error{ErrorCode::kInvalid, "full copy ends at another point than it began with"};
  }
  co_await wait_queue_applied();
  co_await wait_doomed_gone();
  const auto no_point = co_await point_lock_.lock();
  // Its maps are on disk then, and what it replaced is listed.
  Status listed = co_await checkpoint();
  if (!listed) co_return listed;
  Status spare = co_await take_spare();
  if (!spare) co_return spare;
  {
    // No checkpoint may see half of what follows.
    const auto lock = co_await checkpoint_lock_.lock();
    while (flushing_) co_await flushed_.wait();
    if (stopped_ || closing_ || image_target_ != target || target->abandoned) {
      co_return Error{ErrorCode::kCancelled, "the full copy was given up"};
    }
    spare = co_await clear_spare();
    if (!spare) co_return spare;
    // Nothing of the new state is durable before the checkpoint names it, whatever is flushed.
    flushing_ = true;
    replace_by(*target);
  }
  Status kept = co_await checkpoint();
  release_all_dead_ = false;
  flushing_ = false;
  flushed_.notify_all();
  if (!kept) co_return kept;
  log_event(Level::kInfo, "image.installed", "group={} lsn={} timeline={} from_lsn={}", name_,
            head_.lsn.value, head_.timeline.value,
            target->base ? target->base->state.at.lsn.value : 0);
  co_return ok();
}

/// Makes the received state the group's, in memory; the next checkpoint makes it so on disk.
void Group::replace_by(ImageTarget& target) {
  // What it replaces is given back like a branch; kept states stay.
  turn_ = Turn{.left = head_, .held = target.held};
  for (const auto& [id, volume] : target.volumes) turn_->volumes.push_back(volume);
  if (target.base) {
    const auto& state = target.base->state;
    turn_->parent = state.id;
    turn_->skipped = state.skipped;
    // What is not part of it any more is given back like a volume that was deleted.
    for (auto& volume : cores_of(state.volumes)) {
      if (target.volumes.count(volume->state.id) != 0) continue;
      volume->state.deleted_at = target.begin.point.lsn;
      turn_->volumes.push_back(std::move(volume));
    }
  }
  history_ = target.begin.history;
  head_ = tail_ = target.begin.point;
  next_volume_id_ = target.begin.next_volume_id;
  restart_log();
  image_target_.reset();
}

/// For a log that begins anew.
Task<Status> Group::take_spare() {
  while (!log_.has_spare() && !stopped_) {
    auto zone = co_await pool_.take_zone(slot_);
    if (!zone) co_return Error(std::move(zone.error()));
    if (log_.has_spare()) {
      space_.add_zone(*zone);
    } else {
      log_.give_spare(*zone);
    }
  }
  co_return ok();
}

/// What an abandoned log left there may follow the very position at which the new one begins.
Task<Status> Group::clear_spare() {
  if (!log_.has_spare()) co_return Error{ErrorCode::kBusy, "no zone for the log; try again"};
  IoBuffer zeroes = IoBuffer::on_heap(kBlockBytes);
  std::memset(zeroes.data(), 0, kBlockBytes);
  IoBatch io(device_);
  io.write(pool_.superblock().zone_start(*log_.spare()).value * kBlockBytes, zeroes.bytes());
  co_return co_await io.run();
}

/// The log begins anew behind the head; the old zones go back after the checkpoint, and what died
/// on the old way waits for nobody.
void Group::restart_log() {
  hold_.reset();
  unnamed_hold_.reset();
  for (auto& slot : slots_) slot.agreed = LogPoint{};
  recent_.clear();
  log_streams_.clear();
  log_.restart(head_.lsn);
  boot_ = runtime_.random.next();
  boot_page_written_ = false;
  data_horizon_ = head_.lsn;
  durable_ = Lsn{0};
  release_all_dead_ = true;
}

void Group::abandon_install() {
  if (!image_target_ || image_target_->abandoned) return;
  image_target_->abandoned = true;
  spawn(drop_target());
}

Task<void> Group::drop_target() {
  auto hold = gate_.hold();
  const auto lock = co_await checkpoint_lock_.lock();
  const auto target = std::exchange(image_target_, nullptr);
  if (!target) co_return;
  for (auto& [id, volume] : target->volumes) cache_.drop_volume(volume->tree);
  for (const auto& e : target->data) space_.undo_allocate(e);
  for (const auto& [node, of] : target->nodes) space_.undo_allocate({node, 1});
}

}  // namespace tandem::store
