// PoolView: the fixed places of a pool, with both copies of everything and what is wrong with them.
// GroupView: a group's newest checkpoint as its anchor and descriptor tell it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "format/checkpoint.h"
#include "format/pool_layout.h"
#include "inspect/reader.h"
#include "tandem/base/result.h"

namespace tandem::inspect {

/// Two copies of one thing, written in turn; the whole one with the larger sequence counts.
template <class T>
struct Copies {
  std::array<Result<T>, 2> copy{Error{ErrorCode::kCorrupt, "not read"},
                                Error{ErrorCode::kCorrupt, "not read"}};
  std::optional<std::size_t> current;  // index into copy; none: both are damaged
  const T* get() const { return current ? &*copy[*current] : nullptr; }
};

class PoolView {
 public:
  /// `reader` must outlive the view. Fails only when no superblock is whole; everything else that
  /// is wrong is part of the view.
  static Result<PoolView> load(BlockReader& reader);

  BlockReader& reader() const { return *reader_; }
  const format::Superblock& superblock() const { return *superblocks_.get(); }
  const Copies<format::Superblock>& superblocks() const { return superblocks_; }
  const std::vector<Copies<format::Anchor>>& anchors() const { return anchors_; }  // by slot
  const std::vector<Copies<format::ZoneTablePage>>& table() const { return table_; }
  /// The entry of a zone; nullopt when its page of the table is damaged.
  std::optional<format::ZoneEntry> zone(ZoneId zone) const;
  bool owns(std::uint32_t slot, ZoneId zone) const;
  std::vector<ZoneId> zones_of(std::uint32_t slot) const;
  /// Blocks that the pool and the file both have.
  std::uint64_t blocks() const;
  /// Slots whose anchor says that a group lives there.
  std::vector<std::uint32_t> live_slots() const;

 private:
  BlockReader* reader_ = nullptr;
  Copies<format::Superblock> superblocks_;
  std::vector<Copies<format::Anchor>> anchors_;
  std::vector<Copies<format::ZoneTablePage>> table_;
};

struct GroupView {
  std::uint32_t slot = 0;
  format::Anchor anchor;
  format::Descriptor descriptor;
  std::vector<PoolBlock> chain;  // blocks of the descriptor
  std::set<ZoneId> zones;        // all that it owns
  /// Zones that the checkpoint knows as the log's.
  bool is_log_zone(ZoneId zone) const;
};

/// Errors: kNotFound (no group lives there), kCorrupt, kUnsupported, kIo.
Result<GroupView> load_group(const PoolView& pool, std::uint32_t slot);
/// By name or identity; "" means the only one. Errors: as above; kInvalid when "" is not enough.
Result<GroupView> find_group(const PoolView& pool, std::string_view name);

/// One block; shorthand for callers that need a page.
Result<std::vector<std::byte>> read_page(BlockReader& reader, PoolBlock at);
inline format::ConstPage as_page(const std::vector<std::byte>& bytes) {
  return format::ConstPage(bytes);
}

}  // namespace tandem::inspect
