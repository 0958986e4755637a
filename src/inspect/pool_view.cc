#include "inspect/pool_view.h"

#include <algorithm>

#include "format/checksum.h"

namespace tandem::inspect {
namespace {

template <class T, class Decode>
Copies<T> read_copies(BlockReader& reader, PoolBlock first, PoolBlock second, Decode decode) {
  Copies<T> copies;
  const PoolBlock at[] = {first, second};
  for (std::size_t i = 0; i < 2; ++i) {
    auto page = read_page(reader, at[i]);
    copies.copy[i] = page ? decode(as_page(*page)) : Result<T>(std::move(page.error()));
  }
  return copies;
}

/// The whole copy with the larger sequence.
template <class T>
void choose_newest(Copies<T>& copies) {
  for (std::size_t i = 0; i < 2; ++i) {
    if (!copies.copy[i]) continue;
    if (!copies.current || copies.copy[i]->sequence > copies.get()->sequence) copies.current = i;
  }
}

}  // namespace

Result<std::vector<std::byte>> read_page(BlockReader& reader, PoolBlock at) {
  std::vector<std::byte> page(kBlockBytes);
  Status read = reader.read(at, page);
  if (!read) return Error(std::move(read.error()));
  return page;
}

Result<PoolView> PoolView::load(BlockReader& reader) {
  PoolView view;
  view.reader_ = &reader;
  auto& superblocks = view.superblocks_;
  superblocks = read_copies<format::Superblock>(reader, PoolBlock{0}, PoolBlock{1},
                                                format::decode_superblock);
  for (std::size_t i = 2; i-- > 0;) {
    if (superblocks.copy[i]) superblocks.current = i;
  }
  if (!superblocks.current) {
    const Error& first = superblocks.copy[0].error();
    return Error{first.code, reader.name() + ": " + first.message +
                                 " (second copy: " + superblocks.copy[1].error().message + ")"};
  }
  const format::Superblock& s = view.superblock();
  for (std::uint32_t slot = 0; slot < format::kGroupSlots; ++slot) {
    const auto decode = [&](format::ConstPage page) -> Result<format::Anchor> {
      auto anchor = format::decode_anchor(page);
      if (anchor && (anchor->slot != slot || anchor->pool != s.pool)) {
        return Error{ErrorCode::kCorrupt, "group anchor of another pool or slot"};
      }
      return anchor;
    };
    view.anchors_.push_back(
        read_copies<format::Anchor>(reader, s.anchor_at(slot, 0), s.anchor_at(slot, 1), decode));
    choose_newest(view.anchors_.back());
  }
  for (std::uint32_t index = 0; index < s.table_pages(); ++index) {
    const auto decode = [&](format::ConstPage page) -> Result<format::ZoneTablePage> {
      auto table = format::decode_zone_table(page, s.pool);
      if (table && table->index != index) {
        return Error{ErrorCode::kCorrupt, "zone table page of another place"};
      }
      return table;
    };
    view.table_.push_back(read_copies<format::ZoneTablePage>(reader, s.table_at(index, 0),
                                                             s.table_at(index, 1), decode));
    choose_newest(view.table_.back());
  }
  return view;
}

std::optional<format::ZoneEntry> PoolView::zone(ZoneId zone) const {
  const std::uint32_t index = zone.value / format::kZonesPerTablePage;
  if (index >= table_.size() || table_[index].get() == nullptr) return std::nullopt;
  return table_[index].get()->entries[zone.value % format::kZonesPerTablePage];
}

bool PoolView::owns(std::uint32_t slot, ZoneId id) const {
  if (id < superblock().first_zone() || id.value >= superblock().zones) return false;
  const auto entry = zone(id);
  return entry && entry->owner == slot;
}

std::vector<ZoneId> PoolView::zones_of(std::uint32_t slot) const {
  std::vector<ZoneId> out;
  for (ZoneId z = superblock().first_zone(); z.value < superblock().zones; z = z.next()) {
    if (owns(slot, z)) out.push_back(z);
  }
  return out;
}

std::uint64_t PoolView::blocks() const { return std::min(superblock().blocks, reader_->blocks()); }

std::vector<std::uint32_t> PoolView::live_slots() const {
  std::vector<std::uint32_t> out;
  for (std::uint32_t slot = 0; slot < anchors_.size(); ++slot) {
    if (anchors_[slot].get() != nullptr && anchors_[slot].get()->live) out.push_back(slot);
  }
  return out;
}

bool GroupView::is_log_zone(ZoneId zone) const {
  return std::any_of(descriptor.log_zones.begin(), descriptor.log_zones.end(),
                     [&](const auto& z) { return z.zone == zone; });
}

Result<GroupView> load_group(const PoolView& pool, std::uint32_t slot) {
  const format::Anchor* anchor = pool.anchors().at(slot).get();
  if (anchor == nullptr) {
    return Error{ErrorCode::kCorrupt, "both copies of the anchor are damaged"};
  }
  if (!anchor->live) return Error{ErrorCode::kNotFound, "no group lives in this slot"};
  GroupView group;
  group.slot = slot;
  group.anchor = *anchor;
  for (auto zone : pool.zones_of(slot)) group.zones.insert(zone);
  std::vector<std::byte> bytes;
  std::uint32_t crc = anchor->descriptor_crc32c;
  for (PoolBlock at = anchor->descriptor; at.value != 0;) {
    const std::string place = "descriptor block " + std::to_string(at.value);
    if (bytes.size() > anchor->descriptor_bytes || group.chain.size() > pool.blocks()) {
      return Error{ErrorCode::kCorrupt, place + ": the chain is longer than its anchor says"};
    }
    auto page = read_page(pool.reader(), at);
    if (!page) return Error{page.error().code, place + ": " + page.error().message};
    if (format::crc32c(*page) != crc) {
      return Error{ErrorCode::kCorrupt, place + ": is not what the block in front of it names"};
    }
    auto block = format::decode_chain_block(as_page(*page));
    if (!block) return Error{block.error().code, place + ": " + block.error().message};
    bytes.insert(bytes.end(), block->payload.begin(), block->payload.end());
    group.chain.push_back(at);
    at = block->next;
    crc = block->next_crc32c;
  }
  if (bytes.size() != anchor->descriptor_bytes) {
    return Error{ErrorCode::kCorrupt, "the descriptor has " + std::to_string(bytes.size()) +
                                          " bytes, its anchor says " +
                                          std::to_string(anchor->descriptor_bytes)};
  }
  auto descriptor = format::decode_descriptor(bytes);
  if (!descriptor) return Error(std::move(descriptor.error()));
  group.descriptor = std::move(*descriptor);
  return group;
}

Result<GroupView> find_group(const PoolView& pool, std::string_view name) {
  const auto slots = pool.live_slots();
  if (name.empty() && slots.size() == 1) return load_group(pool, slots.front());
  std::string names;
  for (auto slot : slots) {
    auto group = load_group(pool, slot);
    const std::string id = pool.anchors()[slot].get()->group.text();
    if (!name.empty() && (id == name || (group && group->descriptor.name == name))) return group;
    names += " " + (group ? group->descriptor.name : id + " (damaged)");
  }
  if (!name.empty()) {
    return Error{ErrorCode::kNotFound,
                 "no group " + std::string(name) +
                     " in this pool; there are:" + (names.empty() ? " none" : names)};
  }
  if (slots.empty()) return Error{ErrorCode::kNotFound, "this pool holds no group"};
  return Error{ErrorCode::kInvalid, "say which group with --group:" + names};
}

}  // namespace tandem::inspect
