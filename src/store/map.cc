#include "store/map.h"

#include <algorithm>
#include <cstring>

#include "format/checksum.h"

namespace tandem::store {

bool MapNode::is_empty() const {
  const auto bytes = content_.bytes();
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{}; });
}

Lsn MapNode::newest() const {
  Lsn newest;
  for (std::uint32_t i = 0; i < format::kMapFanout; ++i) newest = std::max(newest, entry(i).lsn);
  return newest;
}

MapCache::MapCache(BlockDevice& device, std::size_t cache_bytes)
    : device_(device),
      capacity_nodes_(std::max<std::size_t>(cache_bytes / kNodeBytes * 15 / 16, 8)),
      buffers_(cache_bytes + cache_bytes / 2) {}

MapCache::~MapCache() = default;

NodeRef MapCache::peek(const MapTree& tree, std::uint32_t level, std::uint64_t index) {
  auto it = nodes_.find(key(tree, level, index));
  if (it == nodes_.end()) return nullptr;
  touch(it->second);
  return it->second;
}

void MapCache::touch(const NodeRef& node) {
  if (!node->dirty_) lru_.splice(lru_.begin(), lru_, node->lru_);
}

Task<Result<NodeRef>> MapCache::load(MapTree& tree, std::uint32_t level, std::uint64_t index,
                                     bool create) {
  const NodeKey k = key(tree, level, index);
  for (;;) {
    if (auto node = peek(tree, level, index)) co_return node;
    if (loading_.count(k) != 0) {
      co_await loaded_.wait();
      continue;
    }
    if (level >= tree.height) co_return NodeRef{};
    NodeRef parent;
    if (level + 1 < tree.height) {
      auto above = co_await load(tree, level + 1, index / format::kMapFanout, false);
      if (!above) co_return Error(std::move(above.error()));
      parent = std::move(*above);
      if (auto node = peek(tree, level, index)) co_return node;
      if (loading_.count(k) != 0) continue;
    }
    const auto where_is_it = [&] {
      if (parent) return parent->entry(static_cast<std::uint32_t>(index % format::kMapFanout));
      return level + 1 == tree.height ? tree.root : MapEntry{};
    };
    const MapEntry entry = where_is_it();
    if (entry.is_hole()) co_return create ? insert_empty(tree, k) : NodeRef{};

    loading_[k] = 1;
    ++misses_;
    IoBuffer content = buffers_.allocate(kBlockBytes);
    IoBatch io(device_);
    io.read(entry.where.value * kBlockBytes, content.bytes());
    Status read = co_await io.run();
    loading_.erase(k);
    // The node may have moved while it was read; only then may its old place hold other bytes.
    const bool moved = !(where_is_it() == entry);
    const bool whole = read && format::crc32c(content.bytes()) == entry.crc32c;
    NodeRef node;
    if (!moved && whole) node = insert(k, std::move(content));
    if (!moved) note_read(k, entry.where, whole);
    loaded_.notify_all();
    if (node) co_return node;
    if (moved) continue;
    co_return Error{read ? ErrorCode::kCorrupt : ErrorCode::kIo,
                    "map node at pool block " + std::to_string(entry.where.value) + " (volume id " +
                        std::to_string(k.volume) + ", level " + std::to_string(level) + ", index " +
                        std::to_string(index) + ") " +
                        (read ? "fails its checksum" : "cannot be read: " + read.error().message) +
                        "; no peer has it, since a map is local: serve the group from its other "
                        "copy, and fill this one anew (RUNBOOK, a damaged map)"};
  }
}

void MapCache::note_read(const NodeKey& k, PoolBlock where, bool whole) {
  if (whole && damaged_.empty()) return;
  auto& damaged = damaged_[k.group_slot];
  if (whole) {
    damaged.erase(where);
  } else if (damaged.size() < kDamagedMax) {
    damaged.insert(where);
  }
}

std::size_t MapCache::damaged_nodes(std::uint16_t group_slot) const {
  const auto it = damaged_.find(group_slot);
  return it == damaged_.end() ? 0 : it->second.size();
}

NodeRef MapCache::insert(NodeKey k, IoBuffer content) {
  auto node = std::make_shared<MapNode>(k, std::move(content), alive_);
  CHECK(nodes_.emplace(k, node).second);
  lru_.push_front(node.get());
  node->lru_ = lru_.begin();
  evict();
  return node;
}

NodeRef MapCache::insert_empty(MapTree& tree, NodeKey k) {
  IoBuffer content = buffers_.allocate(kBlockBytes);
  std::memset(content.data(), 0, kBlockBytes);
  auto node = insert(k, std::move(content));
  // Dirty from the start, so that walks see it; a checkpoint writes nothing for an empty node.
  mark_dirty(node);
  if (k.level == 0) ++tree.leaves_created;
  return node;
}

void MapCache::mark_dirty(const NodeRef& node) {
  if (node->dirty_) return;
  lru_.erase(node->lru_);
  node->dirty_ = true;
  dirty_.emplace(node->key_, node);
  if (node->key_.level == 0) ++dirty_leaves_[node->key_.group_slot];
}

void MapCache::evict() {
  auto it = lru_.end();
  // Pinned nodes are skipped; look at a bounded number of them.
  for (int pinned = 0; alive_ > capacity_nodes_ && it != lru_.begin() && pinned < 64;) {
    --it;
    auto found = nodes_.find((*it)->key_);
    if (found->second.use_count() > 1) {
      ++pinned;
      continue;
    }
    it = lru_.erase(it);
    nodes_.erase(found);
  }
}

MapEntry MapCache::change(const MapTree& tree, std::uint32_t level, std::uint64_t index,
                          std::uint32_t i, const MapEntry& entry) {
  auto it = nodes_.find(key(tree, level, index));
  CHECK(it != nodes_.end());
  NodeRef node = it->second;
  if (node->frozen_) {
    IoBuffer content = buffers_.allocate(kBlockBytes);
    std::memcpy(content.data(), node->content_.data(), kBlockBytes);
    auto copy = std::make_shared<MapNode>(node->key_, std::move(content), alive_);
    copy->dirty_ = true;
    frozen_.erase(node->key_);
    node->successor_ = copy;
    it->second = copy;
    dirty_.emplace(copy->key_, copy);
    ++dirty_leaves_[copy->key_.group_slot];
    node = copy;
  } else {
    mark_dirty(node);
  }
  const MapEntry before = node->entry(i);
  format::store_entry(node->content_.data(), i, entry);
  return before;
}

void MapCache::rewrite(const NodeRef& node) {
  const auto it = nodes_.find(node->key_);
  CHECK(it != nodes_.end() && it->second == node && !node->frozen_);
  mark_dirty(node);
}

std::size_t MapCache::dirty_leaves(std::uint16_t group_slot) const {
  auto it = dirty_leaves_.find(group_slot);
  return it == dirty_leaves_.end() ? 0 : it->second;
}

std::vector<NodeRef> MapCache::freeze(std::uint16_t group_slot) {
  std::vector<NodeRef> out;
  auto it = dirty_.lower_bound(NodeKey{group_slot, 0, 0, 0});
  while (it != dirty_.end() && it->first.group_slot == group_slot) {
    if (it->first.level != 0) {
      ++it;
      continue;
    }
    it->second->frozen_ = true;
    out.push_back(it->second);
    CHECK(frozen_.emplace(it->first, it->second).second);
    it = dirty_.erase(it);
  }
  dirty_leaves_[group_slot] = 0;
  return out;
}

void MapCache::written(const NodeRef& node) {
  if (node->frozen_) {
    auto it = frozen_.find(node->key_);
    const bool current = it != frozen_.end() && it->second == node;
    node->frozen_ = false;
    if (!current) return;  // changed since: its copy took its place
    frozen_.erase(it);
  } else {
    dirty_.erase(node->key_);
  }
  node->dirty_ = false;
  lru_.push_front(node.get());
  node->lru_ = lru_.begin();
  evict();
}

std::vector<NodeRef> MapCache::dirty_inner(const MapTree& tree, std::uint32_t level) {
  std::vector<NodeRef> out;
  const NodeKey first = key(tree, level, 0);
  for (auto it = dirty_.lower_bound(first); it != dirty_.end(); ++it) {
    const auto& k = it->first;
    if (k.group_slot != first.group_slot || k.volume != first.volume || k.level != first.level) {
      break;
    }
    out.push_back(it->second);
  }
  return out;
}

void MapCache::grow(MapTree& tree, std::uint32_t height) {
  while (tree.height < height) {
    const MapEntry below = tree.root;
    tree.root = MapEntry{};
    ++tree.height;
    if (below.is_hole()) continue;
    insert_empty(tree, key(tree, tree.height - 1, 0));
    change(tree, tree.height - 1, 0, 0, below);
  }
}

bool MapCache::has_dirty(const MapTree& tree, std::uint32_t level, std::uint64_t first,
                         std::uint64_t last) const {
  for (std::uint32_t l = 0; l <= level; ++l) {
    const std::uint64_t leaves = leaves_below(l);
    const NodeKey from = key(tree, l, first / leaves), to = key(tree, l, last / leaves);
    for (const auto* nodes : {&dirty_, &frozen_}) {
      auto it = nodes->lower_bound(from);
      if (it != nodes->end() && it->first <= to) return true;
    }
  }
  return false;
}

struct MapCache::Walk {
  std::uint64_t first_leaf = 0, last_leaf = 0;
  std::optional<Lsn> since;  // only leaves with something newer
  std::size_t leaves_max = 0;
  std::vector<NodeRef> leaves;
  bool full() const { return leaves.size() >= leaves_max; }
};

Task<Status> MapCache::walk(MapTree& tree, std::uint32_t level, std::uint64_t index, Walk& w) {
  auto loaded = co_await load(tree, level, index, false);
  if (!loaded) co_return Error(std::move(loaded.error()));
  const NodeRef node = std::move(*loaded);
  if (level == 0) {
    const bool inside = index >= w.first_leaf && index <= w.last_leaf;
    if (node && inside && (!w.since || node->newest() > *w.since)) w.leaves.push_back(node);
    co_return ok();
  }
  const std::uint64_t below = leaves_below(level - 1);
  const std::uint64_t base = index * format::kMapFanout;
  for (std::uint32_t i = 0; i < format::kMapFanout && !w.full(); ++i) {
    const std::uint64_t first = (base + i) * below, last = first + below - 1;
    if (last < w.first_leaf || first > w.last_leaf) continue;
    const MapEntry entry = node ? node->entry(i) : MapEntry{};
    const bool on_disk = !entry.is_hole() && (!w.since || entry.lsn > *w.since);
    if (!on_disk &&
        !has_dirty(tree, level - 1, std::max(first, w.first_leaf), std::min(last, w.last_leaf))) {
      continue;
    }
    Status done = co_await walk(tree, level - 1, base + i, w);
    if (!done) co_return done;
  }
  co_return ok();
}

Task<Result<std::vector<NodeRef>>> MapCache::load_range(MapTree& tree, std::uint64_t first,
                                                        std::uint64_t last) {
  Walk w{.first_leaf = first, .last_leaf = last, .leaves_max = SIZE_MAX};
  Status done = co_await walk(tree, tree.height - 1, 0, w);
  if (!done) co_return Error(std::move(done.error()));
  co_return std::move(w.leaves);
}

Task<Result<std::vector<NodeRef>>> MapCache::load_newer(MapTree& tree, std::uint64_t first,
                                                        Lsn since, std::size_t leaves_max) {
  Walk w{
      .first_leaf = first, .last_leaf = UINT64_MAX / 2, .since = since, .leaves_max = leaves_max};
  Status done = co_await walk(tree, tree.height - 1, 0, w);
  if (!done) co_return Error(std::move(done.error()));
  co_return std::move(w.leaves);
}

void MapCache::forget(const NodeKey& first, const NodeKey& last) {
  for (auto it = nodes_.begin(); it != nodes_.end();) {
    if (it->first < first || last < it->first) {
      ++it;
      continue;
    }
    auto& node = it->second;
    if (node->dirty_) {
      if (!node->frozen_ && node->key_.level == 0) --dirty_leaves_[node->key_.group_slot];
      dirty_.erase(it->first);
      frozen_.erase(it->first);
    } else {
      lru_.erase(node->lru_);
    }
    it = nodes_.erase(it);
  }
}

void MapCache::drop_group(std::uint16_t slot) {
  damaged_.erase(slot);
  forget(NodeKey{slot, 0, 0, 0}, NodeKey{slot, UINT32_MAX, UINT8_MAX, UINT64_MAX});
}

void MapCache::drop_volume(const MapTree& tree) {
  const auto slot = tree.group_slot;
  forget(NodeKey{slot, tree.volume.value, 0, 0},
         NodeKey{slot, tree.volume.value, UINT8_MAX, UINT64_MAX});
}

}  // namespace tandem::store
