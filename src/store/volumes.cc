// Volumes of a group: made, grown and deleted by records, so that both nodes agree.
#include <algorithm>

#include "store/group.h"
#include "store/volume_handle.h"
#include "tandem/base/log.h"

namespace tandem::store {

using format::RecordHeader;
using format::RecordType;

namespace {

/// Leaves of a deleted volume that are emptied in one step.
constexpr std::size_t kReapLeaves = 64;

Status check_size(std::uint64_t bytes, std::uint32_t logical_block_bytes) {
  if (bytes == 0 || bytes > format::kVolumeBytesMax || bytes % logical_block_bytes != 0) {
    return Error{ErrorCode::kInvalid, "a volume's size must be a multiple of its logical block (" +
                                          std::to_string(logical_block_bytes) +
                                          " bytes), more than 0 and at most 4 PiB"};
  }
  return ok();
}

}  // namespace

std::vector<format::VolumeState> Group::volumes() const {
  std::vector<format::VolumeState> out;
  for (const auto& [id, volume] : volumes_) {
    if (volume->state.being_deleted()) continue;
    out.push_back(volume->state);
    out.back().height = volume->tree.height;
    out.back().root = volume->tree.root;
  }
  return out;
}

Group::VolumePtr Group::find_volume(std::string_view name) const {
  for (const auto& [id, volume] : volumes_) {
    if (volume->state.name == name && !volume->state.being_deleted()) return volume;
  }
  return nullptr;
}

Group::VolumePtr Group::find_volume(VolumeId id) const {
  auto it = volumes_.find(id);
  return it == volumes_.end() || it->second->state.being_deleted() ? nullptr : it->second;
}

VolumeReader Group::reader(VolumeCore& volume) {
  return {device_, pool_.buffers(), cache_, volume.tree, volume.state, *repair_};
}

Result<std::shared_ptr<Volume>> Group::open_volume(std::string_view name) {
  auto volume = find_volume(name);
  if (!volume) {
    return Error{ErrorCode::kNotFound, "no volume " + std::string(name) + " in group " + name_};
  }
  if (!serving_) return refusal();
  return std::shared_ptr<Volume>(
      std::make_shared<VolumeHandle>(shared_from_this(), std::move(volume)));
}

/// Appends one record; durable on this node when it returns, with its LSN.
Task<Result<Lsn>> Group::append_control(std::vector<std::byte> canonical,
                                        std::optional<Nanoseconds> consistent_until) {
  Pending pending;
  pending.canonical = std::move(canonical);
  pending.consistent_until = consistent_until;
  auto appending = append_control(std::move(pending));
  co_return co_await std::move(appending);
}

Task<Result<Lsn>> Group::append_control(Pending pending) {
  auto hold = gate_.hold();
  if (holds(/*change=*/true) && type_of(pending) != RecordType::kTimeline) {
    co_return Error{ErrorCode::kUnavailable,
                    "group " + name_ + " is changing its primary; try again in some seconds"};
  }
  const auto reign = reign_;
  Completion completion;
  pending.completion = &completion;
  enqueue(std::move(pending));
  Status logged = co_await completion;
  if (!logged) co_return Error(std::move(logged.error()));
  Status durable = co_await flush_local_to(completion.last);
  if (!durable) co_return Error(std::move(durable.error()));
  if (!reigns_since(reign)) co_return refusal();
  co_return completion.last;
}

Task<Status> Group::create_volume(std::string name, std::uint64_t size_bytes,
                                  std::uint32_t logical_block_bytes) {
  if (role_ != Role::kPrimary || stopped_ || closing_) co_return refusal();
  if (logical_block_bytes != 512 && logical_block_bytes != 4096) {
    co_return Error{ErrorCode::kInvalid, "the logical block must be 512 or 4096 bytes"};
  }
  Status size = check_size(size_bytes, logical_block_bytes);
  if (!size) co_return size;
  if (name.empty() || name.size() > format::kVolumeNameBytesMax) {
    co_return Error{ErrorCode::kInvalid, "a volume's name must have 1 to 128 bytes"};
  }
  if (find_volume(name)) {
    co_return Error{ErrorCode::kExists, "volume " + name + " exists already"};
  }
  RecordHeader header{.type = RecordType::kVolumeCreate, .volume = VolumeId{next_volume_id_++}};
  std::vector<std::byte> canonical(format::kRecordHeaderBytes + 14 + name.size());
  format::Encoder out(canonical);
  format::encode_volume_create(out, header, {size_bytes, logical_block_bytes, std::move(name)});
  auto logged = co_await append_control(std::move(canonical));
  if (!logged) co_return Error(std::move(logged.error()));
  co_return ok();
}

Task<Status> Group::resize_volume(std::string name, std::uint64_t size_bytes) {
  if (role_ != Role::kPrimary || stopped_ || closing_) co_return refusal();
  auto volume = find_volume(name);
  if (!volume) co_return Error{ErrorCode::kNotFound, "no volume " + name + " in group " + name_};
  Status size = check_size(size_bytes, volume->state.logical_block_bytes);
  if (!size) co_return size;
  if (size_bytes < volume->state.size_bytes) {
    co_return Error{ErrorCode::kInvalid,
                    "volume " + name + " has " + std::to_string(volume->state.size_bytes) +
                        " bytes; it can only grow, because shrinking would cut off data"};
  }
  RecordHeader header{.type = RecordType::kVolumeResize, .volume = volume->state.id};
  std::vector<std::byte> canonical(format::kRecordHeaderBytes + 8);
  format::Encoder out(canonical);
  format::encode_volume_resize(out, header, size_bytes);
  auto logged = co_await append_control(std::move(canonical));
  if (!logged) co_return Error(std::move(logged.error()));
  co_return ok();
}

Task<Status> Group::delete_volume(std::string name) {
  if (role_ != Role::kPrimary || stopped_ || closing_) co_return refusal();
  auto volume = find_volume(name);
  if (!volume) co_return Error{ErrorCode::kNotFound, "no volume " + name + " in group " + name_};
  RecordHeader header{.type = RecordType::kVolumeDelete, .volume = volume->state.id};
  std::vector<std::byte> canonical(format::kRecordHeaderBytes);
  format::Encoder out(canonical);
  format::encode_range(out, header);
  auto logged = co_await append_control(std::move(canonical));
  if (!logged) co_return Error(std::move(logged.error()));
  co_return ok();
}

/// Loads and pins every leaf that `record` will change, so that applying it needs no I/O.
Task<Status> Group::pin_leaves(VolumeCore& volume, const format::Record& record,
                               std::vector<NodeRef>& pins) {
  const std::uint64_t first = record.header.first_block.value;
  const std::uint64_t last = first + record.header.block_count - 1;
  const std::uint64_t first_leaf = first / format::kMapFanout;
  const std::uint64_t last_leaf = last / format::kMapFanout;
  if (record.header.type != RecordType::kDiscard) {
    for (std::uint64_t leaf = first_leaf; leaf <= last_leaf; ++leaf) {
      NodeRef node = cache_.peek(volume.tree, 0, leaf);
      if (!node) {
        auto loaded = co_await cache_.load(volume.tree, 0, leaf, true);
        if (!loaded) co_return Error(std::move(loaded.error()));
        node = std::move(*loaded);
        // Others have their turn, also between leaves that need no I/O.
        if ((leaf - first_leaf) % 64 == 63) co_await next_turn(runtime_.executor);
      }
      pins.push_back(std::move(node));
    }
    co_return ok();
  }
  for (std::uint64_t before = UINT64_MAX; before != volume.tree.leaves_created;) {
    before = volume.tree.leaves_created;
    auto leaves = co_await cache_.load_range(volume.tree, first_leaf, last_leaf);
    if (!leaves) co_return Error(std::move(leaves.error()));
    pins = std::move(*leaves);
  }
  co_return ok();
}

Task<Result<std::uint64_t>> Group::blocks_newer_than(Lsn since) {
  auto hold = gate_.hold();
  std::uint64_t blocks = 0;
  std::vector<VolumePtr> volumes;
  for (const auto& [id, volume] : volumes_) volumes.push_back(volume);
  for (const auto& volume : volumes) {
    constexpr std::size_t kLeaves = 64;
    for (std::uint64_t next = 0;;) {
      auto leaves = co_await cache_.load_newer(volume->tree, next, since, kLeaves);
      if (!leaves) co_return Error(std::move(leaves.error()));
      for (const auto& leaf : *leaves) {
        for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
          blocks += leaf->entry(i).lsn > since ? 1 : 0;
        }
        next = leaf->key().index + 1;
      }
      if (leaves->size() < kLeaves) break;
    }
  }
  co_return blocks;
}

bool Group::has_doomed_volumes() const {
  return std::any_of(volumes_.begin(), volumes_.end(),
                     [](const auto& v) { return v.second->state.being_deleted(); });
}

void Group::reap_deleted_soon() {
  if (reaping_ || stopped_ || closing_) return;
  reaping_ = true;
  spawn(reap_deleted());
}

/// Nothing is left of volumes that were deleted.
Task<void> Group::wait_doomed_gone() {
  while (has_doomed_volumes() && !stopped_ && !closing_) {
    reap_deleted_soon();
    co_await doomed_gone_.wait();
  }
}

/// Empties the maps of deleted volumes leaf by leaf. Each step is whole in any checkpoint, so a
/// crash loses no block and frees none twice; it goes on after a restart.
Task<void> Group::reap_deleted() {
  auto hold = gate_.hold();
  for (;;) {
    VolumePtr doomed;
    for (const auto& [id, volume] : volumes_) {
      if (volume->state.being_deleted()) doomed = volume;
    }
    if (!doomed || closing_ || stopped_) break;
    auto leaves = co_await cache_.load_newer(doomed->tree, 0, Lsn{}, kReapLeaves);
    if (!leaves) {
      log_event(Level::kError, "volume.delete-stuck", "group={} volume={} error=\"{}\"", name_,
                doomed->state.name, leaves.error().message);
      break;
    }
    for (const auto& leaf : *leaves) {
      for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
        const auto now = cache_.peek(doomed->tree, 0, leaf->key().index)->entry(i);
        if (now == MapEntry{}) continue;
        cache_.change(doomed->tree, 0, leaf->key().index, i, MapEntry{});
        if (!now.has_data()) continue;
        let_die(*doomed, now, doomed->state.deleted_at, &dead_);
        --doomed->state.data_blocks;
      }
    }
    const bool done = leaves->empty();
    leaves->clear();
    if (!done) {
      if (checkpoint_is_due()) {
        Status written = co_await checkpoint();
        if (!written) break;
      }
      co_await next_turn(runtime_.executor);
      continue;
    }
    // A checkpoint drops the emptied nodes; then nothing is left of it.
    Status written = co_await checkpoint();
    if (!written) break;
    if (!doomed->tree.root.is_hole()) continue;
    cache_.drop_volume(doomed->tree);
    std::erase_if(volumes_, [&](const auto& v) { return v.second == doomed; });
    log_event(Level::kInfo, "volume.deleted", "group={} volume={}", name_, doomed->state.name);
  }
  reaping_ = false;
  doomed_gone_.notify_all();
  advance();
}

}  // namespace tandem::store
