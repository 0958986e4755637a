#include "frontend/nbd/meta_contexts.h"

#include <algorithm>
#include <string_view>

#include "tandem/base/check.h"

namespace tandem::nbd {
namespace {

/// The snapshot that a context's name ends with, or nullopt.
std::optional<std::string_view> snapshot_of(std::string_view context) {
  for (const std::string_view space : {kChangedSince, kDirtyBitmap}) {
    if (context.starts_with(space)) return context.substr(space.size());
  }
  return std::nullopt;
}

bool matches(std::string_view name, std::string_view query) {
  return name == query || (query.ends_with(':') && name.starts_with(query));
}

}  // namespace

std::vector<std::string> list_contexts(const Volume& volume,
                                       const std::vector<std::string>& queries) {
  std::vector<std::string> all{kBaseAllocation};
  const auto snapshots = volume.snapshots();
  for (const std::string_view space : {kChangedSince, kDirtyBitmap}) {
    for (const auto& snapshot : snapshots) all.push_back(std::string(space) + snapshot);
  }
  std::erase_if(all, [&](const std::string& name) {
    return !queries.empty() &&
           std::none_of(queries.begin(), queries.end(),
                        [&](const std::string& query) { return matches(name, query); });
  });
  return all;
}

std::optional<std::vector<MetaContext>> select_contexts(Volume& volume,
                                                        const std::vector<std::string>& queries) {
  std::vector<MetaContext> selected;
  std::uint32_t next_id = kBaseAllocationId + 1;
  for (const auto& query : queries) {
    const bool twice = std::any_of(selected.begin(), selected.end(),
                                   [&](const MetaContext& c) { return c.name == query; });
    if (twice) continue;
    MetaContext context{.id = kBaseAllocationId, .name = query, .changes = nullptr};
    if (query != kBaseAllocation) {
      const auto snapshot = snapshot_of(query);
      auto changes = snapshot ? volume.changes_since(*snapshot)
                              : Result<std::shared_ptr<Changes>>(ErrorCode::kNotFound, "");
      if (!changes) continue;
      context.id = next_id++;
      context.changes = std::move(*changes);
    }
    if (selected.size() == kMetaContextsMax) return std::nullopt;
    selected.push_back(std::move(context));
  }
  return selected;
}

Task<Result<std::vector<StatusExtent>>> extents_of(const MetaContext& context, Volume& volume,
                                                   std::uint64_t offset, std::uint32_t length,
                                                   std::size_t extents_max) {
  std::vector<StatusExtent> extents;
  std::uint64_t left = length;
  const auto add = [&](std::uint64_t bytes, std::uint32_t flags) {
    CHECK(bytes > 0 && bytes <= left && extents.size() < extents_max);
    left -= bytes;
    extents.push_back({.length = static_cast<std::uint32_t>(bytes), .flags = flags});
  };
  if (context.changes) {
    const auto known = co_await context.changes->extents(offset, length, extents_max);
    if (!known) co_return known.error();
    for (const auto& run : *known) add(run.length_bytes, run.changed ? kStateChanged : 0);
  } else {
    const auto known = co_await volume.allocation(offset, length, extents_max);
    if (!known) co_return known.error();
    for (const auto& run : *known)
      add(run.length_bytes, (run.hole ? kStateHole : 0u) | (run.zero ? kStateZero : 0u));
  }
  CHECK(!extents.empty());
  co_return extents;
}

}  // namespace tandem::nbd
