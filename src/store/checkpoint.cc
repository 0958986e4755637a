#include "store/checkpoint.h"

#include "format/checksum.h"
#include "store/compaction.h"
#include "store/image.h"
#include "tandem/base/log.h"

namespace tandem::store {

using format::MapEntry;

namespace {

/// Nodes written in one batch; bounds memory and leaves room for writes in between.
constexpr std::size_t kNodesPerBatch = 128;

}  // namespace

Task<Status> Group::checkpoint() {
  auto hold = gate_.hold();
  auto lock = co_await checkpoint_lock_.lock();
  if (stopped_) co_return refusal();
  checkpoint_reserve_ =
      2 * (cache_.dirty_leaves(static_cast<std::uint16_t>(slot_)) + compaction_->leaves_pinned()) +
      64;
  Checkpoint checkpoint(*this);
  Status done = co_await checkpoint.run();
  checkpoint_reserve_ = 0;
  space_.thaw();
  cache_.evict();  // what was dirty may go now
  space_news_.notify_all();
  schedule_pump();
  if (!done) {
    Error why = done.error();
    why.message = "checkpoint failed: " + why.message;
    stop(std::move(why));
  }
  co_return done;
}

Task<Status> Checkpoint::run() {
  freeze();
  Status done = co_await write_maps();
  if (!done) co_return done;
  done = co_await settle_dead();
  if (!done) co_return done;
  done = co_await write_bitmap_and_descriptor();
  if (!done) co_return done;
  co_return co_await commit();
}

void Checkpoint::freeze() {
  auto& g = group_;
  if (g.turn_) take_turn();
  if (g.snapshot_due_) take_snapshot();
  if (g.point_due_) take_point();
  take_moves();
  if (!turned_ && !new_snapshot_ && g.mark_is_due()) take_mark();
  g.trim_history();
  g.forget_skipped();
  descriptor_.group = g.id_;
  descriptor_.name = g.name_;
  descriptor_.point = g.head_;
  descriptor_.history = g.history_;
  descriptor_.role = g.role_;
  descriptor_.mode = g.mode_;
  descriptor_.fenced_by = g.fenced_by_;
  descriptor_.awaiting_image = g.awaiting_image();
  descriptor_.next_volume_id = g.next_volume_id_;
  descriptor_.origin = g.origin_;
  descriptor_.origin_state = g.origin_state_;
  descriptor_.slots = g.slots_;
  descriptor_.settings = g.settings_;
  descriptor_.log_boot = g.head_boot_;
  descriptor_.log_zones = g.log_.zones();
  descriptor_.log_next = g.in_flight_.empty() ? g.log_.next() : g.in_flight_.front()->at;
  // Zones that pages in flight opened already are behind log_next: recovery finds them by itself.
  while (descriptor_.log_zones.size() > 1 &&
         g.pool_.superblock().zone_of(descriptor_.log_next) != descriptor_.log_zones.back().zone) {
    descriptor_.log_zones.pop_back();
  }
  horizon_ = g.horizon();
  if (g.release_all_dead_) horizon_ = Lsn{UINT64_MAX};
  g.data_horizon_ = std::max(g.data_horizon_, std::min(horizon_, descriptor_.point.lsn));
  descriptor_.data_horizon = g.data_horizon_;
  trimmed_ = g.log_.trimmable(std::min(horizon_, descriptor_.point.lsn));
  descriptor_.log_zones.erase(
      descriptor_.log_zones.begin(),
      descriptor_.log_zones.begin() +
          static_cast<std::ptrdiff_t>(std::min(trimmed_.size(), descriptor_.log_zones.size() - 1)));
  g.log_pages_since_checkpoint_ = g.in_flight_.size();

  if (g.image_target_) asides_.push_back(g.image_target_);
  if (g.point_target_) asides_.push_back(g.point_target_);
  add_trees();
  for (const auto& aside : asides_) {
    excluded_.insert(excluded_.end(), aside->data.begin(), aside->data.end());
    for (const auto& [node, of] : aside->nodes) excluded_.push_back({node, 1});
  }
  for (auto& leaf : g.cache_.freeze(static_cast<std::uint16_t>(g.slot_))) {
    leaves_[leaf->key().volume].push_back(std::move(leaf));
  }
  for (const auto& page : g.in_flight_) {
    for (const auto& places : page->places) {
      excluded_.insert(excluded_.end(), places.begin(), places.end());
    }
  }
  for (const auto& e : g.not_replayed_) excluded_.push_back(e);
  g.compaction_->exclude(excluded_);
  g.dead_.freeze();
  freeze_snapshots();
  dirty_pages_ = g.space_.freeze();
  // What is left out now must be in the next bitmap.
  for (const auto& e : excluded_) g.space_.mark_dirty(e);
}

/// Every map that may be dirty, with the state that it belongs to.
void Checkpoint::add_trees() {
  const auto add = [this](const Group::VolumePtr& volume, TreeState::Of of) {
    trees_.push_back({volume, of, {}, volume->tree.height, volume->tree.root, 0, Lsn{}});
    if (of == TreeState::Of::kAside) return;
    trees_.back().deleted_at = volume->state.deleted_at;
    auto& volumes = of == TreeState::Of::kLive ? descriptor_.volumes : branch_->state.volumes;
    trees_.back().index = volumes.size();
    volumes.push_back(volume->state);
    volumes.back().height = volume->tree.height;
  };
  for (const auto& [id, volume] : group_.volumes_) add(volume, TreeState::Of::kLive);
  if (branch_) {
    for (const auto& volume : branch_->volumes) add(volume, TreeState::Of::kBranch);
  }
  for (const auto& aside : asides_) {
    for (const auto& [id, volume] : aside->volumes) {
      add(volume, TreeState::Of::kAside);
      trees_.back().aside = aside;
    }
  }
}

/// The volume as the descriptor will have it.
format::VolumeState& Checkpoint::entered(const TreeState& tree) {
  return tree.of == TreeState::Of::kLive ? descriptor_.volumes[tree.index]
                                         : descriptor_.snapshots.back().volumes[tree.index];
}

Result<PoolBlock> Checkpoint::take_block() {
  auto run = group_.space_.allocate(1);
  if (!run) {
    return Error{ErrorCode::kNoSpace, "no block left for the checkpoint of group " + group_.name_};
  }
  taken_.push_back(*run);
  return run->start;
}

Result<PoolBlock> Checkpoint::take_node(const TreeState& tree, std::uint32_t level, Lsn newest) {
  auto place = take_block();
  if (!place || !tree.aside) return place;
  taken_.pop_back();
  const auto& state = tree.volume->state;
  tree.aside->nodes[*place] = {state.id, std::max(newest, state.level_born[level])};
  return place;
}

/// A map node that no newer state of its tree names.
void Checkpoint::replace_node(const TreeState& tree, std::uint32_t level, const MapEntry& before) {
  --tree.volume->state.map_nodes;
  if (group_.is_borrowed(before.where)) {
    --tree.volume->state.borrowed_nodes;
  } else if (tree.of == TreeState::Of::kLive && turned_) {
    release(before.where);  // of a full copy: no kept state has it
  } else if (tree.aside && tree.aside->nodes.erase(before.where) != 0) {
    group_.space_.undo_allocate({before.where, 1});
  } else {
    Lsn death = tree.of == TreeState::Of::kBranch ? left_ : descriptor_.point.lsn;
    if (tree.deleted_at != Lsn{}) death = tree.deleted_at;
    const Lsn birth = std::max(before.lsn, tree.volume->state.level_born[level]);
    const DeadBlock dead{before.where, birth, death, true};
    if (tree.aside) {
      tree.aside->replaced.push_back(dead);
    } else if (has_moved_ && tree.deleted_at == Lsn{}) {
      bury_moved(dead);
    } else {
      bury(dead);
    }
  }
}

Task<Status> Checkpoint::write_maps() {
  for (auto& tree : trees_) {
    auto leaves = leaves_.find(tree.volume->tree.volume.value);
    if (leaves != leaves_.end()) {
      const auto nodes = std::exchange(leaves->second, {});
      Status done = co_await write_level(tree, 0, nodes);
      if (!done) co_return done;
    }
    for (std::uint32_t level = 1; level < tree.height; ++level) {
      auto nodes = group_.cache_.dirty_inner(tree.volume->tree, level);
      Status done = co_await write_level(tree, level, std::move(nodes));
      if (!done) co_return done;
    }
    if (tree.of == TreeState::Of::kAside) continue;
    entered(tree).root = tree.root;
    entered(tree).map_nodes = tree.volume->state.map_nodes;
    entered(tree).borrowed_nodes = tree.volume->state.borrowed_nodes;
  }
  // Of volumes of kept states: a write that came too late pinned them, empty.
  for (const auto& [volume, nodes] : leaves_) {
    for (const auto& node : nodes) group_.cache_.written(node);
  }
  enter_snapshot_roots();
  co_return ok();
}

/// Writes nodes of one level to new places and enters them in their parents.
Task<Status> Checkpoint::write_level(TreeState& tree, std::uint32_t level,
                                     std::vector<NodeRef> nodes) {
  for (std::size_t done = 0; done < nodes.size();) {
    const std::size_t end = std::min(nodes.size(), done + kNodesPerBatch);
    IoBatch io(group_.device_);
    std::vector<MapEntry> entries;
    for (std::size_t i = done; i < end; ++i) {
      if (nodes[i]->is_empty()) {
        entries.push_back(MapEntry{});
        continue;
      }
      // No snapshot maps what is written of a volume behind its deletion.
      const Lsn newest = std::max(nodes[i]->newest(), tree.deleted_at);
      auto place = take_node(tree, level, newest);
      if (!place) co_return Error(std::move(place.error()));
      entries.push_back({*place, newest, format::crc32c(nodes[i]->bytes())});
      io.write(place->value * kBlockBytes, nodes[i]->bytes());
    }
    // Their parents at once: linking would wait for the disk once for each.
    Gate under_way;
    std::vector<NodeRef> parents;
    for (std::size_t i = done; i < end && level + 1 < tree.volume->tree.height; ++i) {
      spawn(keep_parent(tree.volume->tree, level, nodes[i]->key().index, parents, under_way));
    }
    Status written = co_await io.run();
    co_await under_way.close();
    if (!written) co_return written;
    for (std::size_t i = done; i < end; ++i) {
      Status linked = co_await link(tree, nodes[i], level, entries[i - done]);
      if (!linked) co_return linked;
      group_.cache_.written(nodes[i]);
    }
    group_.schedule_pump();  // it may have been held back until some were clean
    done = end;
  }
  co_return ok();
}

/// An error will be met again by who needs it.
Task<void> Checkpoint::keep_parent(MapTree& tree, std::uint32_t level, std::uint64_t index,
                                   std::vector<NodeRef>& kept, Gate& under_way) {
  const Gate::Holder hold(under_way);
  auto parent = co_await group_.cache_.load(tree, level + 1, index / format::kMapFanout, true);
  if (parent) kept.push_back(std::move(*parent));
}

Task<Status> Checkpoint::link(TreeState& tree, const NodeRef& node, std::uint32_t level,
                              const MapEntry& entry) {
  MapTree& live = tree.volume->tree;
  const std::uint64_t index = node->key().index;
  MapEntry before;
  if (level + 1 == live.height) {
    before = live.root;
    live.root = entry;
  } else {
    const std::uint64_t parent = index / format::kMapFanout;
    auto above = co_await group_.cache_.load(live, level + 1, parent, true);
    if (!above) co_return Error(std::move(above.error()));
    const auto i = static_cast<std::uint32_t>(index % format::kMapFanout);
    // A node that came and went without a trace must not touch its parent: a snapshot of this very
    // position may have it.
    if ((*above)->entry(i) == entry) co_return ok();
    before = group_.cache_.change(live, level + 1, parent, i, entry);
  }
  if (level + 1 == tree.height) tree.root = entry;
  if (before.has_data()) replace_node(tree, level, before);
  if (entry.has_data()) ++tree.volume->state.map_nodes;
  co_return ok();
}

/// Every page in `pages` gets a new place; that itself changes pages, until nothing new is touched.
Status Checkpoint::place_bitmap_pages(std::set<std::uint32_t>& pages) {
  for (bool again = true; again;) {
    again = false;
    const std::vector<std::uint32_t> now(pages.begin(), pages.end());
    for (auto index : now) {
      if (bitmap_.count(index) != 0) continue;
      auto place = take_block();
      if (!place) return place.error();
      bitmap_[index] = {index, *place, 0};
      pages.insert(SpaceMap::page_of(*place));
      auto old = group_.bitmap_.find(index);
      if (old != group_.bitmap_.end()) {
        release(old->second.where);
        pages.insert(SpaceMap::page_of(old->second.where));
      }
      again = true;
    }
  }
  return ok();
}

/// The bits of a page as they were at the frozen position, plus what this checkpoint did.
void Checkpoint::patch(std::uint32_t index, std::span<std::byte> bits) const {
  group_.space_.frozen_page(index, bits);
  const std::uint64_t base = std::uint64_t{index} * format::kBitsPerBitmapPage;
  const auto put = [&](PoolBlock first, std::uint32_t count, bool used) {
    for (std::uint64_t block = first.value; block < first.value + count; ++block) {
      if (block < base || block >= base + format::kBitsPerBitmapPage) continue;
      const auto bit = static_cast<std::byte>(1u << ((block - base) % 8));
      auto& byte = bits[(block - base) / 8];
      byte = used ? byte | bit : byte & ~bit;
    }
  };
  for (const auto& e : excluded_) put(e.start, e.count, false);
  for (const auto& e : taken_) put(e.start, e.count, true);
  for (auto block : released_) put(block, 1, false);
}

Task<Status> Checkpoint::write_bitmap_and_descriptor() {
  auto& g = group_;
  std::set<std::uint32_t> pages(dirty_pages_.begin(), dirty_pages_.end());
  for (auto block : g.descriptor_blocks_) release(block);
  for (const auto& e : taken_) pages.insert(SpaceMap::page_of(e.start));
  for (auto block : released_) pages.insert(SpaceMap::page_of(block));
  // The chain is as long as the descriptor with every page listed, and a little longer.
  const auto bytes_at_most =
      format::encode_descriptor(descriptor_).size() + 16 * (g.bitmap_.size() + pages.size() + 16);
  const auto chain_blocks = bytes_at_most / format::kChainPayloadBytes + 2;
  for (std::size_t i = 0; i < chain_blocks; ++i) {
    auto place = take_block();
    if (!place) co_return Error(std::move(place.error()));
    chain_.push_back(*place);
    pages.insert(SpaceMap::page_of(*place));
  }
  Status placed = place_bitmap_pages(pages);
  if (!placed) co_return placed;

  std::vector<IoBuffer> contents;
  IoBatch io(g.device_);
  for (auto& [index, page] : bitmap_) {
    contents.push_back(g.pool_.buffers().allocate(kBlockBytes));
    patch(index, contents.back().bytes());
    page.crc32c = format::crc32c(contents.back().bytes());
    io.write(page.where.value * kBlockBytes, contents.back().bytes());
  }
  Status written = co_await io.run();
  if (!written) co_return written;
  for (const auto& [index, page] : g.bitmap_) bitmap_.try_emplace(index, page);
  for (const auto& [index, page] : bitmap_) descriptor_.bitmap.push_back(page);

  const auto bytes = format::encode_descriptor(descriptor_);
  CHECK(bytes.size() <= chain_.size() * format::kChainPayloadBytes);
  std::uint32_t head_crc = 0;
  written = co_await write_descriptor(chain_, bytes, head_crc);
  if (!written) co_return written;
  anchor_.slot = g.slot_;
  anchor_.sequence = g.anchor_sequence_ + 1;
  anchor_.live = true;
  anchor_.group = g.id_;
  anchor_.descriptor = chain_.front();
  anchor_.descriptor_crc32c = head_crc;
  anchor_.descriptor_bytes = bytes.size();
  anchor_.checkpoint = descriptor_.point.lsn;
  co_return ok();
}

/// Back to front, because each block carries the checksum of the next.
Task<Status> Checkpoint::write_descriptor(const std::vector<PoolBlock>& chain,
                                          const std::vector<std::byte>& bytes,
                                          std::uint32_t& head_crc) {
  std::vector<IoBuffer> contents;
  IoBatch io(group_.device_);
  format::ChainBlock block;
  for (std::size_t i = chain.size(); i-- > 0;) {
    const std::size_t from = std::min(bytes.size(), i * format::kChainPayloadBytes);
    const std::size_t to = std::min(bytes.size(), from + format::kChainPayloadBytes);
    block.payload = std::span(bytes).subspan(from, to - from);
    contents.push_back(group_.pool_.buffers().allocate(kBlockBytes));
    format::encode_chain_block(format::Page(contents.back().bytes()), block);
    head_crc = format::crc32c(contents.back().bytes());
    io.write(chain[i].value * kBlockBytes, contents.back().bytes());
    block.next = chain[i];
    block.next_crc32c = head_crc;
  }
  co_return co_await io.run();
}

Task<Status> Checkpoint::commit() {
  auto& g = group_;
  if (const auto block = g.space_.contradiction()) {
    co_return Error{ErrorCode::kCorrupt, "pool block " + std::to_string(block->value) +
                                             " is given back, but the bitmap has it as free: " +
                                             "serve the group from its other copy"};
  }
  Status flushed = co_await g.pool_.flush();
  if (!flushed) co_return flushed;
  // A write that failed behind the frozen position does not matter; a stop does.
  if (g.stopped_) co_return g.refusal();
  // The log up to here is durable now; a full copy, which has no log, only with the anchor.
  if (!g.release_all_dead_) g.durable_ = std::max(g.durable_, descriptor_.point.lsn);
  Status anchored = co_await g.pool_.write_anchor(anchor_);
  if (!anchored) co_return anchored;

  g.durable_ = std::max(g.durable_, descriptor_.point.lsn);
  if (g.role_ == Role::kMirror) g.tell_appended();
  g.anchor_sequence_ = anchor_.sequence + 1;  // it was written twice
  g.checkpoint_lsn_ = descriptor_.point.lsn;
  commit_snapshots();
  g.bitmap_ = std::move(bitmap_);
  g.last_checkpoint_ = std::move(descriptor_);
  g.descriptor_blocks_ = std::move(chain_);
  // A full copy that is being read may still need what was released.
  if (!g.image_source_) g.space_.commit_released();

  auto zones = std::move(trimmed_);
  g.log_.trim(zones.size());
  if (!zones.empty() && !g.log_.has_spare()) {
    g.log_.give_spare(zones.back());
    zones.pop_back();
  }
  // Empty data zones go back to the pool, but for one that will be wanted soon.
  auto empty = g.space_.empty_zones();
  std::stable_partition(empty.begin(), empty.end(),
                        [&g](ZoneId zone) { return g.space_.is_closed(zone); });
  if (!empty.empty()) {
    if (g.space_.is_closed(empty.back())) g.space_.open_zone(empty.back());
    g.compaction_->zone_left(empty.back());
    empty.pop_back();
  }
  for (auto zone : empty) {
    g.space_.remove_zone(zone);
    g.compaction_->zone_left(zone);
    zones.push_back(zone);
  }
  if (zones.empty()) co_return ok();
  co_return co_await g.pool_.return_zones(g.slot_, std::move(zones));
}

}  // namespace tandem::store
