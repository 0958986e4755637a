// Superblock, anchor, zone table and the checksums: see format/FORMAT.md.
#include "format/pool_layout.h"

#include "format/checksum.h"
#include "tests/unit/format_fixture.h"

namespace tandem::format {
namespace {

std::span<const std::byte> bytes_of(std::string_view s) {
  return std::as_bytes(std::span(s.data(), s.size()));
}

TEST(Checksum, IsCrc32c) {
  EXPECT_EQ(crc32c(bytes_of("123456789")), 0xe3069283u);
  EXPECT_EQ(crc32c({}), 0u);
  EXPECT_EQ(crc32c_of_zero_block(), 0x98f94189u);
}

TEST(Checksum, DigestIsSeededXxh3) {
  EXPECT_EQ(chain(Digest{0}, {}).value, 0x2d06800538d394c2ull);
  const auto one = bytes_of("one");
  EXPECT_NE(chain(Digest{0}, one), chain(Digest{1}, one));
  EXPECT_NE(chain(chain(Digest{0}, one), bytes_of("two")),
            chain(chain(Digest{0}, bytes_of("two")), one));
}

Superblock superblock() {
  Superblock s;
  s.pool = counting_uuid(0x10);
  s.blocks = 0x123456;
  s.zone_blocks = 4096;
  s.zones = 0x123;
  s.created = UtcNs{0x0102030405060708};
  return s;
}

Anchor anchor() {
  Anchor a;
  a.pool = counting_uuid(0x10);
  a.slot = 7;
  a.live = true;
  a.sequence = 0x1122334455667788;
  a.group = counting_uuid(0xa0);
  a.descriptor = PoolBlock{0x99aabb};
  a.descriptor_crc32c = 0xcafef00d;
  a.descriptor_bytes = 5000;
  a.checkpoint = Lsn{0x77};
  return a;
}

ZoneTablePage zone_table() {
  ZoneTablePage t;
  t.index = 3;
  t.sequence = 9;
  t.entries.assign(kZonesPerTablePage, ZoneEntry{});
  t.entries[2] = {7, true};
  t.entries[1007] = {255, false};
  return t;
}

auto decode_table = [](ConstPage page) { return decode_zone_table(page, counting_uuid(0x10)); };

TEST(Superblock, GoldenBytes) {
  Block page;
  encode_superblock(Page(page), superblock());
  expect_golden(page,
                "54445342010000003f84ee4300000000101112131415161718191a1b1c1d1e1f5634120000000000"
                "001000000010000023010000000100000807060504030201");
  const auto back = decode_superblock(ConstPage(page));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, superblock());
}

TEST(Superblock, PlacesFollowFromGeometry) {
  const Superblock s = superblock();
  EXPECT_EQ(s.table_pages(), 1u);
  EXPECT_EQ(s.anchor_at(0, 0), PoolBlock{2});
  EXPECT_EQ(s.anchor_at(7, 1), PoolBlock{17});
  EXPECT_EQ(s.table_at(0, 1), PoolBlock{515});
  EXPECT_EQ(s.fixed_blocks(), 516u);
  EXPECT_EQ(s.first_zone(), ZoneId{1});
  EXPECT_EQ(s.zone_start(ZoneId{2}), PoolBlock{8192});
  EXPECT_EQ(s.zone_of(PoolBlock{8191}), ZoneId{1});
  EXPECT_EQ(s.zone_of(PoolBlock{8192ull << 32}), ZoneId{UINT32_MAX}) << "behind the pool";
  Superblock large = s;
  large.zones = 1009;
  EXPECT_EQ(large.table_pages(), 2u);
}

TEST(Superblock, RefusesImpossibleGeometry) {
  const auto refused = [](auto change) {
    Superblock s = superblock();
    change(s);
    Block page;
    encode_superblock(Page(page), s);
    const auto back = decode_superblock(ConstPage(page));
    return !back && back.error().code == ErrorCode::kCorrupt;
  };
  EXPECT_TRUE(refused([](Superblock& s) { s.zone_blocks = 0; }));
  EXPECT_TRUE(refused([](Superblock& s) { s.zone_blocks = 100; }));
  EXPECT_TRUE(refused([](Superblock& s) { s.zones = 0; }));
  EXPECT_TRUE(refused([](Superblock& s) { s.zones = 1; }));  // no zone behind the fixed places
  EXPECT_TRUE(refused([](Superblock& s) { s.blocks = 4096; }));
  EXPECT_TRUE(refused([](Superblock& s) { s.zones = UINT32_MAX, s.blocks = UINT64_MAX; }));
  EXPECT_FALSE(refused([](Superblock& s) { s.created = UtcNs{0}; }));
}

TEST(Anchor, GoldenBytes) {
  Block page;
  encode_anchor(Page(page), anchor());
  expect_golden(page,
                "5444414e01000000b79411cf00000000101112131415161718191a1b1c1d1e1f0700000001000000"
                "8877665544332211a0a1a2a3a4a5a6a7a8a9aaabacadaeafbbaa9900000000000df0feca00000000"
                "881300000000000077");
  const auto back = decode_anchor(ConstPage(page));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, anchor());
}

TEST(ZoneTable, GoldenBytes) {
  Block page;
  encode_zone_table(Page(page), counting_uuid(0x10), zone_table());
  EXPECT_EQ(hex(std::span(page).first(80)),
            "54445a5401000000bdb7c3ce00000000101112131415161718191a1b1c1d1e1f0300000000000000"
            "090000000000000000000000000000000000000000000000ffff0000ffff000007000100ffff0000");
  EXPECT_EQ(hex(std::span(page).subspan(64 + 4 * 1005)), "ffff0000ffff0000ff000000");
  EXPECT_EQ(crc32c(page), 1299357260u);
  const auto back = decode_table(ConstPage(page));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->index, 3u);
  EXPECT_EQ(back->sequence, 9u);
  EXPECT_EQ(back->entries, zone_table().entries);
}

TEST(ZoneTable, RefusesAnotherPoolsAndImpossibleOwners) {
  Block page;
  encode_zone_table(Page(page), counting_uuid(0x11), zone_table());
  EXPECT_FALSE(decode_table(ConstPage(page)).has_value());
  auto table = zone_table();
  table.entries[5].owner = kGroupSlots;
  encode_zone_table(Page(page), counting_uuid(0x10), table);
  EXPECT_FALSE(decode_table(ConstPage(page)).has_value());
}

TEST(PoolPages, RandomContentSurvives) {
  TestRandom random(1);
  for (int round = 0; round < 200; ++round) {
    Block page;
    Anchor a;
    a.pool = random.uuid();
    a.slot = static_cast<std::uint32_t>(random.below(kGroupSlots));
    a.live = random.below(2) != 0;
    a.sequence = random.next();
    a.group = random.uuid();
    a.descriptor = PoolBlock{random.next()};
    a.descriptor_crc32c = static_cast<std::uint32_t>(random.next());
    a.descriptor_bytes = random.next();
    a.checkpoint = Lsn{random.next()};
    encode_anchor(Page(page), a);
    const auto back = decode_anchor(ConstPage(page));
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(*back, a);

    ZoneTablePage t{static_cast<std::uint32_t>(random.next()), random.next(), {}};
    for (std::uint32_t i = 0; i < kZonesPerTablePage; ++i) {
      const auto owner =
          random.below(2) != 0 ? kZoneFree : static_cast<std::uint16_t>(random.below(256));
      t.entries.push_back({owner, random.below(2) != 0});
    }
    encode_zone_table(Page(page), a.pool, t);
    const auto table = decode_zone_table(ConstPage(page), a.pool);
    ASSERT_TRUE(table.has_value());
    EXPECT_EQ(table->entries, t.entries);

    Superblock s;
    s.pool = random.uuid();
    s.zone_blocks = 64 * static_cast<std::uint32_t>(1 + random.below(1024));
    s.zones = static_cast<std::uint32_t>(600 + random.below(1 << 20));
    s.blocks = std::uint64_t{s.zones} * s.zone_blocks + random.below(s.zone_blocks);
    s.created = UtcNs{random.next()};
    encode_superblock(Page(page), s);
    const auto super = decode_superblock(ConstPage(page));
    ASSERT_TRUE(super.has_value());
    EXPECT_EQ(*super, s);
  }
}

TEST(PoolPages, EveryBitCounts) {
  Block page;
  encode_superblock(Page(page), superblock());
  expect_every_flip_refused(page, decode_superblock);
  encode_anchor(Page(page), anchor());
  expect_every_flip_refused(page, decode_anchor);
  encode_zone_table(Page(page), counting_uuid(0x10), zone_table());
  expect_every_flip_refused(page, decode_table);
}

TEST(PoolPages, NoiseIsRefused) {
  Block page;
  encode_superblock(Page(page), superblock());
  expect_noise_refused(page, decode_superblock, 2);
  encode_anchor(Page(page), anchor());
  expect_noise_refused(page, decode_anchor, 3);
  encode_zone_table(Page(page), counting_uuid(0x10), zone_table());
  expect_noise_refused(page, decode_table, 4);
}

TEST(PoolPages, NewerVersionIsNamed) {
  const auto newer = [](Block& page) {
    store_le(&page[4], 2, 4);
    seal_page(page, 8);
  };
  const auto expect_unsupported = [](const Error& error) {
    EXPECT_EQ(error.code, ErrorCode::kUnsupported);
    EXPECT_NE(error.message.find("version 2"), std::string::npos) << error.message;
    EXPECT_NE(error.message.find("upgrade"), std::string::npos) << error.message;
  };
  Block page;
  encode_superblock(Page(page), superblock());
  newer(page);
  expect_unsupported(decode_superblock(ConstPage(page)).error());
  encode_anchor(Page(page), anchor());
  newer(page);
  expect_unsupported(decode_anchor(ConstPage(page)).error());
  encode_zone_table(Page(page), counting_uuid(0x10), zone_table());
  newer(page);
  expect_unsupported(decode_table(ConstPage(page)).error());
}

}  // namespace
}  // namespace tandem::format
