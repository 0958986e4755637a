#include "store/map_diff.h"

#include <algorithm>

namespace tandem::store {
namespace {

/// Leaves that one call compares: bounds its time and what it pushes out of the cache.
constexpr std::size_t kLeavesMax = 512;

bool same_content(const MapEntry& a, const MapEntry& b) {
  if (!a.has_data() || !b.has_data()) return !a.has_data() && !b.has_data();
  return a.crc32c == b.crc32c && (a.where == b.where || a.lsn == b.lsn);
}

}  // namespace

MapEntry MapDiff::Side::entry(std::uint32_t level, std::uint64_t index) const {
  if (level + 1 < tree.height) {
    return node ? node->entry(static_cast<std::uint32_t>(index % format::kMapFanout)) : MapEntry{};
  }
  return level + 1 == tree.height && index == 0 ? tree.root : MapEntry{};
}

/// The entry that names the node does not tell all: the node is above the root, or it or what is
/// below it has changed since it was written.
bool MapDiff::may_hide_more(const MapTree& tree, std::uint32_t level, std::uint64_t index) const {
  if (level >= tree.height) return index == 0;
  const std::uint64_t leaves = leaves_below(level);
  return cache_.has_dirty(tree, level, index * leaves, (index + 1) * leaves - 1);
}

bool MapDiff::shared(const Side& older, const Side& newer, std::uint32_t level,
                     std::uint64_t index) const {
  return older.entry(level, index) == newer.entry(level, index) &&
         !may_hide_more(older.tree, level, index) && !may_hide_more(newer.tree, level, index);
}

Task<Result<NodeRef>> MapDiff::load(MapTree& tree, std::uint32_t level, std::uint64_t index) {
  const std::uint64_t leaves = leaves_below(level);
  const bool outside = index * leaves >= leaves_below(tree.height - 1);
  if (level >= tree.height || outside) co_return NodeRef{};
  co_return co_await cache_.load(tree, level, index, false);
}

/// What follows, up to block `end_block`, is changed or not.
void MapDiff::add(std::uint64_t end_block, bool changed) {
  const std::uint64_t to = std::min(end_block * kBlockBytes, end_);
  if (to <= at_) return;
  if (extents_.empty() || extents_.back().changed != changed) extents_.push_back({0, changed});
  extents_.back().length_bytes += to - at_;
  at_ = to;
}

/// The two nodes at a place differ, or may.
Task<Status> MapDiff::compare(std::uint32_t level, std::uint64_t index) {
  auto older = co_await load(older_, level, index);
  if (!older) co_return Error(std::move(older.error()));
  // The live one last: a leaf that was loaded may be replaced by a copy while others run.
  auto newer = co_await load(newer_, level, index);
  if (!newer) co_return Error(std::move(newer.error()));
  const Side before{older_, std::move(*older)}, now{newer_, std::move(*newer)};
  const std::uint64_t base = index * format::kMapFanout;
  if (level == 0) {
    --leaves_left_;
    for (std::uint32_t i = 0; i < format::kMapFanout && extents_.size() <= extents_max_; ++i) {
      const MapEntry a = before.node ? before.node->entry(i) : MapEntry{};
      const MapEntry b = now.node ? now.node->entry(i) : MapEntry{};
      add(base + i + 1, !same_content(a, b));
    }
    co_return ok();
  }
  const std::uint64_t below = leaves_below(level - 1) * format::kMapFanout;  // blocks
  for (std::uint64_t child = base; child < base + format::kMapFanout && !full(); ++child) {
    if ((child + 1) * below * kBlockBytes <= at_) continue;
    if (shared(before, now, level - 1, child)) {
      add((child + 1) * below, false);
      continue;
    }
    Status done = co_await compare(level - 1, child);
    if (!done) co_return done;
  }
  co_return ok();
}

Task<Result<std::vector<ChangeExtent>>> MapDiff::run(std::uint64_t offset, std::uint64_t length,
                                                     std::size_t extents_max) {
  extents_max_ = extents_max;
  end_ = offset + length;
  for (std::uint32_t height = 0; height != newer_.height;) {
    // Again when the live tree got another root meanwhile.
    height = newer_.height;
    at_ = offset;
    leaves_left_ = kLeavesMax;
    extents_.clear();
    const std::uint32_t top = std::max(older_.height, height) - 1;
    if (shared({older_, nullptr}, {newer_, nullptr}, top, 0)) continue;
    Status done = co_await compare(top, 0);
    if (!done) co_return Error(std::move(done.error()));
  }
  // Equal maps, or a range that reaches behind the end of both.
  if (leaves_left_ != 0 && extents_.size() <= extents_max_) add(UINT64_MAX / kBlockBytes, false);
  if (extents_.size() > extents_max_) extents_.resize(extents_max_);
  co_return std::move(extents_);
}

}  // namespace tandem::store
