// Map entries, descriptor and its chain, dead list: see format/FORMAT.md.
#include "format/checkpoint.h"

#include "format/checksum.h"
#include "tests/unit/format_fixture.h"

namespace tandem::format {
namespace {

TEST(MapEntryFormat, GoldenBytes) {
  std::array<std::byte, 2 * kMapEntryBytes> node{};
  const MapEntry e{PoolBlock{0x1234567890}, Lsn{0x11223344556677}, 0xcafef00d};
  store_entry(node.data(), 1, e);
  EXPECT_EQ(hex(node),
            "00000000000000000000000000000000"
            "9078563412776655443322110df0feca");
  EXPECT_EQ(load_entry(node.data(), 1), e);
  EXPECT_EQ(load_entry(node.data(), 0), MapEntry{});
}

TEST(MapEntryFormat, RandomEntriesDoNotDisturbEachOther) {
  TestRandom random(9);
  Block node{};
  std::array<MapEntry, kMapFanout> model{};
  for (int round = 0; round < 5000; ++round) {
    const auto i = static_cast<std::uint32_t>(random.below(kMapFanout));
    model[i] = {PoolBlock{random.bits(40)}, Lsn{random.bits(56)},
                static_cast<std::uint32_t>(random.next())};
    store_entry(node.data(), i, model[i]);
  }
  for (std::uint32_t i = 0; i < kMapFanout; ++i) EXPECT_EQ(load_entry(node.data(), i), model[i]);
}

TEST(MapEntryFormat, TellsHolesZeroesAndData) {
  EXPECT_TRUE(MapEntry{}.is_hole());
  EXPECT_TRUE((MapEntry{PoolBlock{}, Lsn{5}, 0}).is_hole());
  EXPECT_TRUE((MapEntry{kZeroBlock, Lsn{5}, 0}).is_zero());
  EXPECT_FALSE((MapEntry{kZeroBlock, Lsn{5}, 0}).has_data());
  EXPECT_TRUE((MapEntry{PoolBlock{2}, Lsn{5}, 0}).has_data());
}

TEST(MapEntryFormat, HeightGrowsWithTheVolume) {
  EXPECT_EQ(map_height(0), 1u);
  EXPECT_EQ(map_height(256), 1u);
  EXPECT_EQ(map_height(257), 2u);
  EXPECT_EQ(map_height(65536), 2u);
  EXPECT_EQ(map_height(65537), 3u);
  EXPECT_EQ(map_height((std::uint64_t{1} << 52) / kBlockBytes), 5u);
}

Descriptor descriptor() {
  Descriptor d;
  d.group = counting_uuid(0xa0);
  d.name = "grp";
  d.point = {Timeline{2}, Lsn{0x1000}, Digest{0xd1d1d1d1d1d1d1d1}, UtcNs{0x16}, 0x9000};
  d.role = Role::kMirror;
  d.mode = ReplicationMode::kSync;
  d.awaiting_image = true;
  d.fenced_by = Timeline{5};
  d.next_volume_id = 6;
  d.log_next = PoolBlock{0x4321};
  d.log_boot = 0xb007b007;
  d.dead = {PoolBlock{0x700}, PoolBlock{0x800}, 201, 2};
  d.data_horizon = Lsn{0xfff};
  d.history = {{Timeline{1}, Lsn{0}, UtcNs{0x11}}, {Timeline{2}, Lsn{0x800}, UtcNs{0x12}}};
  VolumeState v;
  v.id = VolumeId{5};
  v.name = "disk";
  v.size_bytes = 1 << 30;
  v.height = 3;
  v.allocated_blocks = 77;
  v.data_blocks = 66;
  v.map_nodes = 33;
  v.borrowed_data = 7;
  v.borrowed_nodes = 8;
  v.level_born = {Lsn{0}, Lsn{0}, Lsn{0x123}};
  v.deleted_at = Lsn{0xabc};
  v.root = {PoolBlock{0x4444}, Lsn{0x999}, 0x12345678};
  d.volumes = {v};
  d.held = {PoolBlock{0x900}, PoolBlock{0xa00}, 5, 1};
  SnapshotState s;
  s.at = {Timeline{2}, Lsn{0xf00}, Digest{0xe1}, UtcNs{0x15}, 0x8000};
  s.nodes_upto = Lsn{0xef0};
  s.clones = 2;
  s.moved_from = Lsn{0xeed};
  s.name = "before";
  s.label = "upgrade";
  s.consistency = Consistency::kApplication;
  s.being_deleted = true;
  s.volumes = {v};
  s.held = {PoolBlock{0xb00}, PoolBlock{0xc00}, 7, 1};
  s.id = SnapshotId{4};
  s.kind = SnapshotKind::kBranch;
  s.reaped = {.volume = 1, .level = 2, .next = 3, .freed_blocks = 44};
  SnapshotState older;
  older.id = SnapshotId{3};
  older.at.lsn = Lsn{0xe00};
  older.name = "older";
  s.parent = older.id;
  d.snapshots = {older, s};
  d.parent = older.id;
  d.next_snapshot_id = SnapshotId{5};
  d.skipped = {{Lsn{0xe00}, Lsn{0xe80}}};
  d.nodes_upto = Lsn{0xdf0};
  d.origin = counting_uuid(0xc0);
  d.origin_state = SnapshotId{9};
  const LogPoint agreed{Timeline{1}, Lsn{0x7f0}, Digest{0xd0d0d0d0d0d0d0d0}, UtcNs{0x13}, 0x4000};
  d.slots = {{"host:1", Lsn{0x900}, Lsn{0x800}, 0x5000, true, agreed}};
  d.settings = {{"history", "6h"}};
  d.log_zones = {{ZoneId{4}, Lsn{0x100}}, {ZoneId{6}, Lsn{0xf00}}};
  d.bitmap = {{2, PoolBlock{0x7777}, 0x0badcafe}};
  return d;
}

/// As the first release wrote it: snapshots in a row, and one count of map nodes.
constexpr const char* kVersion1 =
    "5444444701000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf03006772700200000000000000001000"
    "0000000000d1d1d1d1d1d1d1d1160000000000000000900000000000000102010005000000000000"
    "0006000000214300000000000007b007b00000000000070000000000000008000000000000c90000"
    "000000000002000000000000000009000000000000000a0000000000000500000000000000010000"
    "0000000000ff0f000000000000210000000000000002000000010000000000000000000000000000"
    "00110000000000000002000000000000000008000000000000120000000000000001000000050000"
    "00bc0a000000000000000000400000000000020000030000004d0000000000000042000000000000"
    "00444400000000000099090000000000007856341204006469736b01000000000900000000000000"
    "080000000000000050000000000000010000000600686f73743a31010000000700686973746f7279"
    "020036680200000004000000000100000000000006000000000f0000000000000100000002000000"
    "7777000000000000fecaad0b010000000200000000000000000f000000000000e100000000000000"
    "150000000000000000800000000000000101000b000000000000000c000000000000070000000000"
    "0000010000000000000006006265666f72650700757067726164650100000005000000bc0a000000"
    "000000000000400000000000020000030000004d0000000000000042000000000000004444000000"
    "00000099090000000000007856341204006469736b";

TEST(DescriptorFormat, VersionOneIsStillRead) {
  const auto back = decode_descriptor(from_hex(kVersion1));
  ASSERT_TRUE(back.has_value()) << back.error().message;
  Descriptor wanted = descriptor();
  wanted.snapshots.erase(wanted.snapshots.begin());
  for (auto* volume : {&wanted.volumes[0], &wanted.snapshots[0].volumes[0]}) {
    volume->map_nodes = volume->borrowed_data = volume->borrowed_nodes = 0;
    volume->level_born = {};
  }
  wanted.volumes[0].map_nodes = 33;
  auto& snapshot = wanted.snapshots[0];
  snapshot.id = SnapshotId{1};
  snapshot.parent = SnapshotId{};
  snapshot.kind = SnapshotKind::kSnapshot;
  snapshot.reaped = {};
  snapshot.clones = 0;
  snapshot.moved_from = Lsn{};
  snapshot.nodes_upto = Lsn{};
  wanted.nodes_upto = snapshot.at.lsn;
  wanted.parent = SnapshotId{1};
  wanted.next_snapshot_id = SnapshotId{2};
  wanted.slots[0].agreed = {};
  wanted.skipped.clear();
  wanted.origin = {};
  wanted.origin_state = {};
  EXPECT_EQ(*back, wanted);
}

/// Before there was compaction.
constexpr const char* kVersion2 =
    "5444444702000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf03006772700200000000000000001000"
    "0000000000d1d1d1d1d1d1d1d1160000000000000000900000000000000102010005000000000000"
    "0006000000214300000000000007b007b00000000000070000000000000008000000000000c90000"
    "000000000002000000000000000009000000000000000a0000000000000500000000000000010000"
    "0000000000ff0f000000000000030000000500000001000000000e000000000000800e0000000000"
    "00f00d000000000000c0c1c2c3c4c5c6c7c8c9cacbcccdcecf090000000200000001000000000000"
    "00000000000000000011000000000000000200000000000000000800000000000012000000000000"
    "000100000005000000bc0a000000000000000000400000000000020000030000004d000000000000"
    "00420000000000000021000000000000000700000000000000080000000000000000000000000000"
    "00000000000000000023010000000000004444000000000000990900000000000078563412040064"
    "69736b01000000000900000000000000080000000000000050000000000000010000000100000000"
    "000000f007000000000000d0d0d0d0d0d0d0d0130000000000000000400000000000000600686f73"
    "743a31010000000700686973746f7279020036680200000004000000000100000000000006000000"
    "000f00000000000001000000020000007777000000000000fecaad0b020000000300000000000000"
    "00000000000000000000000000000000000000000000000000000000000000000000000000000100"
    "000000000000000e0000000000000000000000000000000000000000000000000000000000000000"
    "000000000000000000000000000000000000000000000000000000000000000005006f6c64657200"
    "0000000000040000000300000001010000000203000000000000002c0000000000000000000000f0"
    "0e000000000000020000000200000000000000000f000000000000e1000000000000001500000000"
    "00000000800000000000000101000b000000000000000c0000000000000700000000000000010000"
    "000000000006006265666f72650700757067726164650100000005000000bc0a0000000000000000"
    "00400000000000020000030000004d00000000000000420000000000000021000000000000000700"
    "00000000000008000000000000000000000000000000000000000000000023010000000000004444"
    "00000000000099090000000000007856341204006469736b";

TEST(DescriptorFormat, VersionTwoIsStillRead) {
  const auto back = decode_descriptor(from_hex(kVersion2));
  ASSERT_TRUE(back.has_value()) << back.error().message;
  Descriptor wanted = descriptor();
  wanted.snapshots[1].moved_from = Lsn{};
  EXPECT_EQ(*back, wanted);
}

TEST(DescriptorFormat, GoldenBytes) {
  const auto bytes = encode_descriptor(descriptor());
  EXPECT_EQ(hex(bytes),
            "5444444703000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf03006772700200000000000000001000"
            "0000000000d1d1d1d1d1d1d1d1160000000000000000900000000000000102010005000000000000"
            "0006000000214300000000000007b007b00000000000070000000000000008000000000000c90000"
            "000000000002000000000000000009000000000000000a0000000000000500000000000000010000"
            "0000000000ff0f000000000000030000000500000001000000000e000000000000800e0000000000"
            "00f00d000000000000c0c1c2c3c4c5c6c7c8c9cacbcccdcecf090000000200000001000000000000"
            "00000000000000000011000000000000000200000000000000000800000000000012000000000000"
            "000100000005000000bc0a000000000000000000400000000000020000030000004d000000000000"
            "00420000000000000021000000000000000700000000000000080000000000000000000000000000"
            "00000000000000000023010000000000004444000000000000990900000000000078563412040064"
            "69736b01000000000900000000000000080000000000000050000000000000010000000100000000"
            "000000f007000000000000d0d0d0d0d0d0d0d0130000000000000000400000000000000600686f73"
            "743a31010000000700686973746f7279020036680200000004000000000100000000000006000000"
            "000f00000000000001000000020000007777000000000000fecaad0b020000000300000000000000"
            "00000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "0000000000000100000000000000000e000000000000000000000000000000000000000000000000"
            "00000000000000000000000000000000000000000000000000000000000000000000000000000000"
            "05006f6c646572000000000000040000000300000001010000000203000000000000002c00000000"
            "00000000000000f00e00000000000002000000ed0e0000000000000200000000000000000f000000"
            "000000e100000000000000150000000000000000800000000000000101000b000000000000000c00"
            "00000000000700000000000000010000000000000006006265666f72650700757067726164650100"
            "000005000000bc0a000000000000000000400000000000020000030000004d000000000000004200"
            "00000000000021000000000000000700000000000000080000000000000000000000000000000000"
            "0000000000002301000000000000444400000000000099090000000000007856341204006469736b");
  const auto back = decode_descriptor(bytes);
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, descriptor());
}

Descriptor random_descriptor(TestRandom& random) {
  Descriptor d;
  d.group = random.uuid();
  d.name = random.text(128);
  d.point = {Timeline{random.next()}, Lsn{random.next()}, Digest{random.next()},
             UtcNs{random.next()}, random.next()};
  d.role = static_cast<Role>(random.below(3));
  d.mode = static_cast<ReplicationMode>(random.below(3));
  d.awaiting_image = random.below(2) != 0;
  d.fenced_by = Timeline{random.next()};
  d.next_volume_id = static_cast<std::uint32_t>(random.next());
  d.log_next = PoolBlock{random.next()};
  d.log_boot = random.next();
  d.dead = {PoolBlock{random.next()}, PoolBlock{random.next()}, random.next(), random.next()};
  d.held = {PoolBlock{random.next()}, PoolBlock{random.next()}, random.next(), random.next()};
  d.data_horizon = Lsn{random.next()};
  for (auto n = 1 + random.below(5); n-- != 0;) {
    d.history.push_back({Timeline{random.next()}, Lsn{random.next()}, UtcNs{random.next()}});
  }
  for (auto n = random.below(9); n-- != 0;) {
    VolumeState v;
    v.id = VolumeId{static_cast<std::uint32_t>(random.next())};
    v.name = random.text(128);
    v.size_bytes = 1 + random.bits(52);
    v.logical_block_bytes = random.below(2) != 0 ? 512 : 4096;
    v.height = map_height(blocks_for(v.size_bytes));
    v.allocated_blocks = random.next();
    v.data_blocks = random.next();
    v.map_nodes = random.next();
    v.borrowed_data = random.next();
    v.borrowed_nodes = random.next();
    for (std::uint32_t i = 0; i < v.height; ++i) v.level_born[i] = Lsn{random.next()};
    v.deleted_at = Lsn{random.below(2) != 0 ? random.next() : 0};
    v.root = {PoolBlock{random.next()}, Lsn{random.next()},
              static_cast<std::uint32_t>(random.next())};
    d.volumes.push_back(std::move(v));
  }
  Lsn at;
  for (auto n = random.below(4); n-- != 0;) {
    SnapshotState s;
    at = Lsn{at.value + 1 + random.below(1000)};
    s.id = d.next_snapshot_id;
    d.next_snapshot_id = d.next_snapshot_id.next();
    s.parent = d.parent;
    if (random.below(2) != 0) d.parent = s.id;
    s.kind = static_cast<SnapshotKind>(random.below(4));
    if (random.below(2) != 0) s.skipped.push_back({Lsn{random.next()}, Lsn{random.next()}});
    s.nodes_upto = Lsn{random.next()};
    s.clones = static_cast<std::uint32_t>(random.next());
    s.moved_from = Lsn{random.next()};
    s.reaped = {static_cast<std::uint32_t>(random.next()),
                static_cast<std::uint32_t>(random.below(6)), random.next(), random.next()};
    s.at = {Timeline{random.next()}, at, Digest{random.next()}, UtcNs{random.next()},
            random.next()};
    s.name = random.text(128);
    s.label = random.text(500);
    s.consistency = static_cast<Consistency>(random.below(3));
    s.being_deleted = random.below(2) != 0;
    s.held = {PoolBlock{random.next()}, PoolBlock{random.next()}, random.next(), random.next()};
    for (const auto& v : d.volumes) {
      if (random.below(2) != 0) s.volumes.push_back(v);
    }
    d.snapshots.push_back(std::move(s));
  }
  for (auto n = random.below(4); n-- != 0;) {
    const LogPoint agreed{Timeline{random.next()}, Lsn{random.next()}, Digest{random.next()},
                          UtcNs{random.next()}, random.next()};
    d.slots.push_back({random.text(300), Lsn{random.next()}, Lsn{random.next()}, random.next(),
                       random.below(2) != 0, agreed});
  }
  for (auto n = random.below(4); n-- != 0;) d.settings[random.text(60)] = random.text(60);
  for (auto n = 1 + random.below(40); n-- != 0;) {
    d.log_zones.push_back({ZoneId{static_cast<std::uint32_t>(random.next())}, Lsn{random.next()}});
  }
  for (auto n = random.below(400); n-- != 0;) {
    d.bitmap.push_back({static_cast<std::uint32_t>(random.next()), PoolBlock{random.next()},
                        static_cast<std::uint32_t>(random.next())});
  }
  return d;
}

TEST(DescriptorFormat, RandomContentSurvives) {
  TestRandom random(10);
  for (int round = 0; round < 200; ++round) {
    const Descriptor d = random_descriptor(random);
    const auto back = decode_descriptor(encode_descriptor(d));
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(*back, d);
  }
}

/// The buffer was a little too small for each of them.
TEST(DescriptorFormat, ManyVolumesInManySnapshotsFit) {
  Descriptor d = descriptor();
  d.volumes.assign(20, d.volumes[0]);
  for (std::size_t i = 0; i < d.volumes.size(); ++i) d.volumes[i].id = VolumeId{std::uint32_t(i)};
  for (auto& s : d.snapshots) s.volumes = d.volumes;
  d.slots.assign(40, d.slots[0]);
  const SnapshotState state = d.snapshots.back();
  for (std::uint32_t i = 100; i < 400; ++i) {
    d.snapshots.push_back(state);
    d.snapshots.back().id = SnapshotId{i};
  }
  d.next_snapshot_id = SnapshotId{400};
  const auto back = decode_descriptor(encode_descriptor(d));
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back, d);
}

TEST(DescriptorFormat, EveryTruncationIsRefused) {
  const auto bytes = encode_descriptor(descriptor());
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    const auto back = decode_descriptor(cut);
    ASSERT_FALSE(back.has_value()) << n;
    EXPECT_EQ(back.error().code, n < 8 && n >= 4 ? ErrorCode::kUnsupported : ErrorCode::kCorrupt);
  }
}

/// Counts are checked against what is left before anything is reserved for them.
TEST(DescriptorFormat, NoiseIsHarmless) {
  TestRandom random(11);
  const auto bytes = encode_descriptor(descriptor());
  for (int round = 0; round < 20000; ++round) {
    auto noisy = bytes;
    for (auto n = 1 + random.below(8); n-- != 0;) {
      noisy[8 + random.below(noisy.size() - 8)] = static_cast<std::byte>(random.next());
    }
    const auto back = decode_descriptor(noisy);
    if (!back) continue;
    EXPECT_LT(back->volumes.size() + back->bitmap.size() + back->slots.size(), bytes.size());
  }
}

TEST(DescriptorFormat, NewerVersionIsNamed) {
  auto bytes = encode_descriptor(descriptor());
  store_le(bytes.data() + 4, 7, 4);
  const auto back = decode_descriptor(bytes);
  ASSERT_FALSE(back.has_value());
  EXPECT_EQ(back.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(back.error().message.find("version 7"), std::string::npos) << back.error().message;
}

TEST(DescriptorFormat, RefusesWhatRecoveryCouldNotUse) {
  const auto refused = [](auto change) {
    Descriptor d = descriptor();
    change(d);
    return !decode_descriptor(encode_descriptor(d)).has_value();
  };
  EXPECT_TRUE(refused([](Descriptor& d) { d.history.clear(); }));
  EXPECT_TRUE(refused([](Descriptor& d) { d.log_zones.clear(); }));
  EXPECT_TRUE(refused([](Descriptor& d) { d.volumes[0].height = 0; }));
  EXPECT_TRUE(refused([](Descriptor& d) { d.volumes[0].height = 7; }));
  EXPECT_TRUE(refused([](Descriptor& d) { d.volumes[0].height = 2; })) << "too low for its size";
  EXPECT_TRUE(refused([](Descriptor& d) { d.volumes[0].size_bytes = 0; }));
  EXPECT_TRUE(refused([](Descriptor& d) { d.volumes[0].size_bytes = kVolumeBytesMax + 1; }));
  EXPECT_TRUE(refused([](Descriptor& d) { d.volumes[0].logical_block_bytes = 513; }));
  EXPECT_TRUE(refused([](Descriptor& d) { d.role = static_cast<Role>(3); }));
  EXPECT_TRUE(refused([](Descriptor& d) { d.mode = static_cast<ReplicationMode>(9); }));
  EXPECT_FALSE(refused([](Descriptor& d) { d.volumes.clear(); }));
}

// --- chain blocks --------------------------------------------------------------------------------

Block chain_block() {
  Block page;
  const std::string_view text = "hello";
  encode_chain_block(Page(page), {PoolBlock{0xabcdef}, 0x01020304,
                                  std::as_bytes(std::span(text.data(), text.size()))});
  return page;
}

TEST(ChainBlockFormat, GoldenBytes) {
  const Block page = chain_block();
  expect_golden(page,
                "54444348010000005c7bb8b705000000efcdab000000000004030201000000000000000000000000"
                "00000000000000000000000000000000000000000000000068656c6c6f");
  const auto back = decode_chain_block(ConstPage(page));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->next, PoolBlock{0xabcdef});
  EXPECT_EQ(back->next_crc32c, 0x01020304u);
  EXPECT_EQ(hex(back->payload), "68656c6c6f");
}

TEST(ChainBlockFormat, FullAndEmptyPayloadSurvive) {
  std::vector<std::byte> payload(kChainPayloadBytes, std::byte{0x5a});
  Block page;
  encode_chain_block(Page(page), {PoolBlock{}, 0, payload});
  auto back = decode_chain_block(ConstPage(page));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(hex(back->payload), hex(payload));
  encode_chain_block(Page(page), {PoolBlock{}, 0, {}});
  back = decode_chain_block(ConstPage(page));
  ASSERT_TRUE(back.has_value());
  EXPECT_TRUE(back->payload.empty());
}

TEST(ChainBlockFormat, DamageAndNewerVersions) {
  expect_every_flip_refused(chain_block(), decode_chain_block);
  expect_noise_refused(chain_block(), decode_chain_block, 12);
  Block page = chain_block();
  store_le(&page[4], 2, 4);
  seal_page(page, 8);
  EXPECT_EQ(decode_chain_block(ConstPage(page)).error().code, ErrorCode::kUnsupported);
  page = chain_block();
  store_le(&page[12], kChainPayloadBytes + 1, 4);
  seal_page(page, 8);
  EXPECT_EQ(decode_chain_block(ConstPage(page)).error().code, ErrorCode::kCorrupt);
}

// --- dead list -----------------------------------------------------------------------------------

Block dead_chunk() {
  Block page;
  encode_dead_chunk(Page(page), DeadChunk{PoolBlock{0x700},
                                          PoolBlock{0x800},
                                          counting_uuid(0x30),
                                          {{PoolBlock{0x1234567890}, Lsn{0x11223344556677},
                                            Lsn{0x0877665544332211},
                                            /*is_node=*/true},
                                           {PoolBlock{2}, Lsn{3}, Lsn{4}}}});
  return page;
}

TEST(DeadChunkFormat, GoldenBytes) {
  const Block page = dead_chunk();
  expect_golden(page,
                "5444444401000000b763e77d02000000000700000000000000080000000000003031323334353637"
                "38393a3b3c3d3e3f0000000000000000000000000000000090785634127766554433221111223344"
                "5566778802000000000300000000000004");
  const auto back = decode_dead_chunk(ConstPage(page));
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->at, PoolBlock{0x700});
  EXPECT_EQ(back->next, PoolBlock{0x800});
  ASSERT_EQ(back->blocks.size(), 2u);
  EXPECT_EQ(back->blocks[0],
            (DeadBlock{PoolBlock{0x1234567890}, Lsn{0x11223344556677}, Lsn{0x0877665544332211},
                       /*is_node=*/true}));
}

TEST(DeadChunkFormat, RandomContentSurvives) {
  TestRandom random(13);
  for (int round = 0; round < 100; ++round) {
    DeadChunk chunk{PoolBlock{random.next()}, PoolBlock{random.next()}, random.uuid(), {}};
    const auto count = round == 0 ? kDeadPerChunk : random.below(kDeadPerChunk + 1);
    while (chunk.blocks.size() < count) {
      chunk.blocks.push_back({PoolBlock{random.bits(40)}, Lsn{random.bits(56)},
                              Lsn{random.bits(56)}, random.below(2) != 0});
    }
    Block page;
    encode_dead_chunk(Page(page), chunk);
    const auto back = decode_dead_chunk(ConstPage(page));
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(back->at, chunk.at);
    EXPECT_EQ(back->group, chunk.group);
    EXPECT_EQ(back->blocks, chunk.blocks);
  }
}

TEST(DeadChunkFormat, DamageAndNewerVersions) {
  expect_every_flip_refused(dead_chunk(), decode_dead_chunk);
  expect_noise_refused(dead_chunk(), decode_dead_chunk, 14);
  Block page = dead_chunk();
  store_le(&page[4], 2, 4);
  seal_page(page, 8);
  EXPECT_EQ(decode_dead_chunk(ConstPage(page)).error().code, ErrorCode::kUnsupported);
  page = dead_chunk();
  store_le(&page[12], kDeadPerChunk + 1, 4);
  seal_page(page, 8);
  EXPECT_EQ(decode_dead_chunk(ConstPage(page)).error().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace tandem::format
