// The metadata contexts of an export: its allocation, and what changed since each snapshot.
//
//   base:allocation              the specification's
//   tandem:changed:SNAPSHOT      flag 1: the range differs from what SNAPSHOT keeps
//   qemu:dirty-bitmap:SNAPSHOT   the same, under the name that QEMU and its tools look for
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "frontend/nbd/codec.h"
#include "tandem/base/task.h"
#include "tandem/volume.h"

namespace tandem::nbd {

/// More in one connection is refused: a BLOCK_STATUS asks all of them.
inline constexpr std::size_t kMetaContextsMax = 32;

struct MetaContext {
  std::uint32_t id = 0;
  std::string name;
  std::shared_ptr<Changes> changes;  // null: base:allocation
};

/// The names that the queries of LIST_META_CONTEXT ask for; without queries all. A query that ends
/// with ':' asks for all names behind it.
std::vector<std::string> list_contexts(const Volume& volume,
                                       const std::vector<std::string>& queries);
/// What SET_META_CONTEXT selects: those that there are, each once. Nullopt: too many.
std::optional<std::vector<MetaContext>> select_contexts(Volume& volume,
                                                        const std::vector<std::string>& queries);

/// A context's extents in a prefix of the range, at most `extents_max`.
Task<Result<std::vector<StatusExtent>>> extents_of(const MetaContext& context, Volume& volume,
                                                   std::uint64_t offset, std::uint32_t length,
                                                   std::size_t extents_max);

}  // namespace tandem::nbd
