#include "format/pool_layout.h"

#include "format/bytes.h"
#include "format/checksum.h"

namespace tandem::format {
namespace {

constexpr std::uint32_t kSuperblockMagic = 0x42534454;  // "TDSB"
constexpr std::uint32_t kAnchorMagic = 0x4e414454;      // "TDAN"
constexpr std::uint32_t kTableMagic = 0x545a4454;       // "TDZT"
constexpr std::size_t kCrcOffset = 8;

void encode_head(Encoder& out, std::uint32_t magic) {
  out.u32(magic);
  out.u32(kPoolFormatVersion);
  out.u32(0);  // crc
  out.u32(0);
}

Status decode_head(Decoder& in, ConstPage page, std::uint32_t magic, const char* what) {
  const auto found = in.u32();
  const auto version = in.u32();
  in.skip(8);
  if (found != magic) {
    return Error{ErrorCode::kCorrupt, std::string("no ") + what + " here"};
  }
  if (version != kPoolFormatVersion) {
    return Error{ErrorCode::kUnsupported, std::string(what) + " has format version " +
                                              std::to_string(version) +
                                              ", this build knows version 1; upgrade this node"};
  }
  if (!page_is_whole(page, kCrcOffset)) {
    return Error{ErrorCode::kCorrupt, std::string(what) + " fails its checksum"};
  }
  return ok();
}

constexpr std::uint64_t kAnchorsStart = 2;

}  // namespace

std::uint32_t Superblock::table_pages() const {
  return (zones + kZonesPerTablePage - 1) / kZonesPerTablePage;
}
PoolBlock Superblock::anchor_at(std::uint32_t slot, std::uint32_t copy) const {
  return PoolBlock{kAnchorsStart + 2 * std::uint64_t{slot} + copy};
}
PoolBlock Superblock::table_at(std::uint32_t page, std::uint32_t copy) const {
  return PoolBlock{kAnchorsStart + 2 * kGroupSlots + 2 * std::uint64_t{page} + copy};
}
std::uint64_t Superblock::fixed_blocks() const {
  return kAnchorsStart + 2 * kGroupSlots + 2 * std::uint64_t{table_pages()};
}
ZoneId Superblock::first_zone() const {
  return ZoneId{static_cast<std::uint32_t>((fixed_blocks() + zone_blocks - 1) / zone_blocks)};
}

void encode_superblock(Page page, const Superblock& s) {
  Encoder out(page);
  encode_head(out, kSuperblockMagic);
  out.uuid(s.pool);
  out.u64(s.blocks);
  out.u32(kBlockBytes);
  out.u32(s.zone_blocks);
  out.u32(s.zones);
  out.u32(kGroupSlots);
  out.u64(s.created.value);
  out.zeroes(page.size() - out.position());
  seal_page(page, kCrcOffset);
}

Result<Superblock> decode_superblock(ConstPage page) {
  Decoder in(page);
  TANDEM_TRY(decode_head(in, page, kSuperblockMagic, "Tandem superblock"));
  Superblock s;
  s.pool = in.uuid();
  s.blocks = in.u64();
  const auto block_bytes = in.u32();
  s.zone_blocks = in.u32();
  s.zones = in.u32();
  const auto slots = in.u32();
  s.created = UtcNs{in.u64()};
  if (block_bytes != kBlockBytes || slots != kGroupSlots || s.zone_blocks == 0 ||
      s.zone_blocks % 64 != 0 || s.zones > UINT32_MAX / 2 ||
      std::uint64_t{s.zones} * s.zone_blocks > s.blocks || s.first_zone().value >= s.zones) {
    return Error{ErrorCode::kCorrupt, "superblock describes an impossible geometry"};
  }
  return s;
}

void encode_anchor(Page page, const Anchor& a) {
  Encoder out(page);
  encode_head(out, kAnchorMagic);
  out.uuid(a.pool);
  out.u32(a.slot);
  out.u32(a.live ? 1 : 0);
  out.u64(a.sequence);
  out.uuid(a.group);
  out.u64(a.descriptor.value);
  out.u32(a.descriptor_crc32c);
  out.u32(0);
  out.u64(a.descriptor_bytes);
  out.u64(a.checkpoint.value);
  out.zeroes(page.size() - out.position());
  seal_page(page, kCrcOffset);
}

Result<Anchor> decode_anchor(ConstPage page) {
  Decoder in(page);
  TANDEM_TRY(decode_head(in, page, kAnchorMagic, "group anchor"));
  Anchor a;
  a.pool = in.uuid();
  a.slot = in.u32();
  a.live = in.u32() != 0;
  a.sequence = in.u64();
  a.group = in.uuid();
  a.descriptor = PoolBlock{in.u64()};
  a.descriptor_crc32c = in.u32();
  in.skip(4);
  a.descriptor_bytes = in.u64();
  a.checkpoint = Lsn{in.u64()};
  return a;
}

void encode_zone_table(Page page, const Uuid& pool, const ZoneTablePage& table) {
  CHECK(table.entries.size() == kZonesPerTablePage);
  Encoder out(page);
  encode_head(out, kTableMagic);
  out.uuid(pool);
  out.u32(table.index);
  out.u32(0);
  out.u64(table.sequence);
  out.zeroes(16);
  for (const auto& e : table.entries) {
    out.u16(e.owner);
    out.u16(e.prepared ? 1 : 0);
  }
  out.zeroes(page.size() - out.position());
  seal_page(page, kCrcOffset);
}

Result<ZoneTablePage> decode_zone_table(ConstPage page, const Uuid& pool) {
  Decoder in(page);
  TANDEM_TRY(decode_head(in, page, kTableMagic, "zone table page"));
  ZoneTablePage table;
  if (in.uuid() != pool) return Error{ErrorCode::kCorrupt, "zone table of another pool"};
  table.index = in.u32();
  in.skip(4);
  table.sequence = in.u64();
  in.skip(16);
  for (std::uint32_t i = 0; i < kZonesPerTablePage; ++i) {
    ZoneEntry e;
    e.owner = in.u16();
    e.prepared = (in.u16() & 1) != 0;
    if (e.owner != kZoneFree && e.owner >= kGroupSlots) {
      return Error{ErrorCode::kCorrupt, "zone table names an impossible group slot"};
    }
    table.entries.push_back(e);
  }
  return table;
}

}  // namespace tandem::format
