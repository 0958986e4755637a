// The map: where each block of a volume is. A copy-on-write radix tree per volume, its nodes cached
// in bounded memory.
//
// Rules that keep it simple:
// - A leaf is changed only by applying log records, in log order. An inner node is changed only by
//   a checkpoint (and by growing a volume). So readers may walk at any time.
// - A dirty node is resident. A node that is not resident is on disk where its parent says.
// - freeze() marks the dirty leaves of a group as the state of a checkpoint; a later change of a
//   frozen leaf first copies it.
//
// Thread: the reactor's. Memory: `cache_bytes`, with what finds the nodes. A sixteenth of it is for
// dirty and pinned nodes beyond its capacity, which the group bounds by starting checkpoints and
// holding writes back.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <vector>

#include "format/map_node.h"
#include "tandem/base/buffer.h"
#include "tandem/port/block_device.h"

namespace tandem::store {

using format::MapEntry;

/// Leaves below one node of `level`; a leaf (level 0) is one itself.
constexpr std::uint64_t leaves_below(std::uint32_t level) {
  std::uint64_t leaves = 1;
  for (std::uint32_t i = 0; i < level; ++i) leaves *= format::kMapFanout;
  return leaves;
}

/// One volume's tree as it stands in memory.
struct MapTree {
  std::uint16_t group_slot = 0;
  VolumeId volume;
  std::uint32_t height = 1;
  MapEntry root;                     // the top node on disk; a hole: never written
  std::uint64_t leaves_created = 0;  // grows with every new leaf
};

struct NodeKey {
  std::uint16_t group_slot = 0;
  std::uint32_t volume = 0;
  std::uint8_t level = 0;
  std::uint64_t index = 0;  // which node of its level, from the left
  auto operator<=>(const NodeKey&) const = default;
};
struct NodeKeyHash {
  std::size_t operator()(const NodeKey& k) const noexcept {
    std::uint64_t h = k.index * 0x9e3779b97f4a7c15ull;
    h ^= (std::uint64_t{k.volume} << 24) ^ (std::uint64_t{k.level} << 16) ^ k.group_slot;
    return h * 0xff51afd7ed558ccdull >> 7;
  }
};

class MapNode {
 public:
  /// Counts itself in `alive` for as long as it lives.
  MapNode(NodeKey key, IoBuffer content, std::size_t& alive)
      : key_(key), content_(std::move(content)), alive_(alive) {
    ++alive_;
  }
  ~MapNode() { --alive_; }
  MapNode(const MapNode&) = delete;
  MapNode& operator=(const MapNode&) = delete;

  const NodeKey& key() const { return key_; }
  MapEntry entry(std::uint32_t i) const { return format::load_entry(content_.data(), i); }
  std::span<std::byte> bytes() const { return content_.bytes(); }
  bool is_empty() const;  // every entry all zero: needs no block on disk
  Lsn newest() const;     // of its entries

 private:
  friend class MapCache;
  NodeKey key_;
  IoBuffer content_;
  bool dirty_ = false;
  bool frozen_ = false;                 // dirty, and part of the running checkpoint
  std::shared_ptr<MapNode> successor_;  // the copy that took its place: pinned with it
  std::list<MapNode*>::iterator lru_;   // valid while clean
  std::size_t& alive_;
};
using NodeRef = std::shared_ptr<MapNode>;  // holding one pins the node

class MapCache {
 public:
  /// What a resident node takes: its content, itself, and its places in the tables below.
  static constexpr std::size_t kNodeBytes = kBlockBytes + 384;

  MapCache(BlockDevice& device, std::size_t cache_bytes);
  ~MapCache();

  /// The node if it is resident, else null.
  NodeRef peek(const MapTree& tree, std::uint32_t level, std::uint64_t index);
  /// The node, read from disk if need be; null when the tree has none there, unless `create`.
  /// Errors: kCorrupt (checksum), kIo. `tree` must outlive the task.
  Task<Result<NodeRef>> load(MapTree& tree, std::uint32_t level, std::uint64_t index, bool create);
  /// Changes entry `i` of the resident node `key`; returns what was there. Copies a frozen node.
  MapEntry change(const MapTree& tree, std::uint32_t level, std::uint64_t index, std::uint32_t i,
                  const MapEntry& entry);

  /// Every leaf of [first, last] that exists, loaded and pinned.
  Task<Result<std::vector<NodeRef>>> load_range(MapTree& tree, std::uint64_t first,
                                                std::uint64_t last);
  /// As load_range(), but only leaves with an entry newer than `since`, at most `leaves_max`.
  Task<Result<std::vector<NodeRef>>> load_newer(MapTree& tree, std::uint64_t first, Lsn since,
                                                std::size_t leaves_max);

  /// Whether a node of `level` or below, on the way to leaves [first, last], is not on disk where
  /// the entries above say. A running checkpoint cleans leaves first, so inner nodes count, too.
  bool has_dirty(const MapTree& tree, std::uint32_t level, std::uint64_t first,
                 std::uint64_t last) const;

  std::size_t dirty_leaves(std::uint16_t group_slot) const;
  /// Dirty nodes fill it: nothing may be dirtied before a checkpoint has written some.
  bool is_full_of_dirt() const { return dirty_.size() + frozen_.size() >= capacity_nodes_; }
  /// The dirty leaves of a group become frozen and are returned; none may be frozen already.
  std::vector<NodeRef> freeze(std::uint16_t group_slot);
  /// The next checkpoint writes the node to another place, though nothing changed in it.
  void rewrite(const NodeRef& node);
  /// A frozen leaf or a dirty inner node is on disk now.
  void written(const NodeRef& node);
  /// Drops clean nodes, least recently used first, until the bound holds or all others are pinned.
  void evict();
  /// Dirty nodes of one inner level of a tree, by index.
  std::vector<NodeRef> dirty_inner(const MapTree& tree, std::uint32_t level);
  /// The tree grew: puts levels above the old root.
  void grow(MapTree& tree, std::uint32_t height);
  /// Forgets all nodes of a group, or of one volume; dirty ones too.
  void drop_group(std::uint16_t group_slot);
  void drop_volume(const MapTree& tree);

  std::size_t resident_nodes() const { return nodes_.size(); }
  std::size_t capacity_nodes() const { return capacity_nodes_; }
  std::uint64_t misses() const { return misses_; }
  /// Nodes of a group whose places on disk do not hold them, as far as they were met.
  std::size_t damaged_nodes(std::uint16_t group_slot) const;

 private:
  static constexpr std::size_t kDamagedMax = 4096;
  struct Walk;
  NodeKey key(const MapTree& tree, std::uint32_t level, std::uint64_t index) const {
    return {tree.group_slot, tree.volume.value, static_cast<std::uint8_t>(level), index};
  }
  NodeRef insert(NodeKey key, IoBuffer content);
  NodeRef insert_empty(MapTree& tree, NodeKey key);
  void mark_dirty(const NodeRef& node);
  void touch(const NodeRef& node);
  void note_read(const NodeKey& key, PoolBlock where, bool whole);

  Task<Status> walk(MapTree& tree, std::uint32_t level, std::uint64_t index, Walk& walk);
  void forget(const NodeKey& first, const NodeKey& last);

  BlockDevice& device_;
  std::size_t capacity_nodes_;
  std::size_t alive_ = 0;  // resident ones, and the frozen ones whose copies took their places
  BufferPool buffers_;
  std::unordered_map<NodeKey, NodeRef, NodeKeyHash> nodes_;
  std::map<NodeKey, NodeRef> dirty_;   // ordered, so that walks find dirty leaves by range
  std::map<NodeKey, NodeRef> frozen_;  // dirty leaves of running checkpoints, still current
  std::map<std::uint16_t, std::size_t> dirty_leaves_;  // per group, frozen ones not counted
  std::list<MapNode*> lru_;                            // clean nodes; front: most recent
  std::map<NodeKey, int> loading_;
  Condition loaded_;
  std::uint64_t misses_ = 0;
  std::map<std::uint16_t, std::set<PoolBlock>> damaged_;  // at most kDamagedMax of a group
};

}  // namespace tandem::store
