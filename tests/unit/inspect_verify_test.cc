// verify: a pool that the engine made is sound at every instant, and damage to any part is found.
#include <algorithm>

#include "format/checksum.h"
#include "format/map_node.h"
#include "inspect/log_walk.h"
#include "tests/unit/inspect_fixture.h"

namespace tandem::inspect {
namespace {

TEST(Verify, EmptyPoolIsSound) {
  PoolLife life(1);
  expect_sound(life.disk.remains());
  ASSERT_TRUE(life.open().has_value());
  ASSERT_TRUE(life.make_group("g").has_value());
  life.stop();
  expect_sound(life.disk.remains());
  EXPECT_EQ(verify(life.disk.remains()).groups.size(), 1u);
}

TEST(Verify, EverythingIsAccountedForAfterACleanStop) {
  for (const auto seed : sim::seeds_to_run(1, 12)) {
    SCOPED_TRACE(seed);
    PoolLife life(seed);
    ASSERT_TRUE(life.open().has_value());
    ASSERT_TRUE(life.make_group("g").has_value());
    life.live(400);
    life.stop();
    const auto image = life.disk.remains();
    expect_sound(image);
    const auto report = verify(image);
    ASSERT_EQ(report.groups.size(), 1u);
    EXPECT_EQ(report.groups[0].head, report.groups[0].checkpoint);
    EXPECT_EQ(report.notes, 0u) << report.text();
  }
}

/// The image of any crash is sound as it is, after recovery, and after more life and another stop.
TEST(Verify, EveryCrashImageIsSound) {
  for (const auto seed : sim::seeds_to_run(100, 25)) {
    SCOPED_TRACE(seed);
    sim::SimImage image(PoolLife::kDiskBytes);
    LogPoint head;
    {
      PoolLife life(seed);
      ASSERT_TRUE(life.open().has_value());
      ASSERT_TRUE(life.make_group("g").has_value());
      life.disk.power_off_after(life.world.random().between(20, 2500), {});
      life.live(2000);
      life.stop();
      image = life.disk.remains();
    }
    expect_sound(image);
    const auto before = verify(image);
    ASSERT_EQ(before.groups.size(), 1u);
    head = before.groups[0].head;
    PoolLife again(seed, image);
    ASSERT_TRUE(again.open().has_value());
    // The inspector and the engine agree on where the log ends.
    EXPECT_EQ(again.group()->head(), head);
    again.live(200);
    again.stop();
    expect_sound(again.disk.remains());
  }
}

/// A full copy that was interrupted leaves nothing behind, one that was installed everything.
TEST(Verify, FullCopiesLeaveNothingBehind) {
  for (const auto seed : sim::seeds_to_run(300, 6)) {
    SCOPED_TRACE(seed);
    PoolLife from(seed);
    ASSERT_TRUE(from.open().has_value());
    ASSERT_TRUE(from.make_group("g").has_value());
    from.live(300);
    PoolLife to(seed + 1);
    ASSERT_TRUE(to.open().has_value());
    ASSERT_TRUE(to.make_group("g", Role::kMirror).has_value());
    for (const bool finish : {false, true, true}) {
      auto begin = from.world.run(from.group()->begin_image({}));
      ASSERT_TRUE(begin.has_value()) << begin.error().message;
      const LogPoint point = begin->point;
      Status began = to.world.run(to.group()->begin_install(std::move(*begin)));
      ASSERT_TRUE(began.has_value()) << began.error().message;
      for (int messages = 0;; ++messages) {
        auto blocks = from.world.run(from.group()->read_image(200 << 10));
        ASSERT_TRUE(blocks.has_value()) << blocks.error().message;
        if (blocks->entries.empty()) break;
        ASSERT_LT(messages, 1000);
        Status taken = to.world.run(to.group()->install_blocks(std::move(*blocks)));
        ASSERT_TRUE(taken.has_value()) << taken.error().message;
        if (messages % 4 == 2) {
          ASSERT_TRUE(to.world.run(to.group()->checkpoint()).has_value());
          expect_sound(to.now());
        }
        if (!finish && messages == 6) break;
      }
      if (finish) {
        Status installed = to.world.run(to.group()->finish_install({point}));
        ASSERT_TRUE(installed.has_value()) << installed.error().message;
      } else {
        to.group()->abandon_install();
      }
      from.group()->end_image();
      ASSERT_TRUE(to.world.run(to.group()->checkpoint()).has_value());
      expect_sound(to.now());
      ASSERT_FALSE(testing::Test::HasFailure());
      from.live(100);
    }
    from.stop();
    to.stop();
    expect_sound(from.disk.remains());
    expect_sound(to.disk.remains());
  }
}

// --- damage --------------------------------------------------------------------------------------

/// A pool with data, dead blocks, and a log behind its checkpoint.
class VerifyDamage : public testing::Test {
 protected:
  VerifyDamage() : image_(PoolLife::kDiskBytes) {
    PoolLife life(7);
    EXPECT_TRUE(life.open().has_value());
    EXPECT_TRUE(life.make_group("g").has_value());
    life.live(200);
    life.group()->set_log_hold(Lsn{0});
    life.live(200);
    EXPECT_TRUE(life.world.run(life.group()->checkpoint()).has_value());
    for (int i = 0; i < 3; ++i) write_more(life);
    EXPECT_TRUE(life.world.run(life.group()->flush_local()).has_value());
    image_ = life.now();
    ImageReader reader(image_);
    auto pool = PoolView::load(reader);
    EXPECT_TRUE(pool.has_value());
    auto group = load_group(*pool, 0);
    EXPECT_TRUE(group.has_value());
    group_ = *group;
    superblock_ = pool->superblock();
    EXPECT_FALSE(load_log_tail(*pool, group_, true).pages.empty());
    expect_sound(image_);
  }
  static void write_more(PoolLife& life) {
    const auto volumes = life.group()->volumes();
    auto volume = life.group()->open_volume(volumes.front().name);
    EXPECT_TRUE(volume.has_value());
    IoBuffer data = IoBuffer::on_heap(kBlockBytes);
    std::memset(data.data(), 0x5a, kBlockBytes);
    EXPECT_TRUE(life.world.run((*volume)->write(0, data, {})).has_value());
  }

  std::vector<std::byte> page(PoolBlock at) const {
    std::vector<std::byte> bytes(kBlockBytes);
    image_.read(at.value * kBlockBytes, bytes);
    return bytes;
  }
  /// Verify of a copy in which `block` is damaged.
  VerifyReport with_damage(PoolBlock block, VerifyOptions options = {}) const {
    sim::SimImage copy = image_;
    sim::SimRandom random(1);
    copy.corrupt(block.value * kBlockBytes + 512, 512, random);
    return verify(copy, options);
  }
  /// Verify of a copy in which `block` holds `bytes`.
  VerifyReport with_block(PoolBlock block, std::span<const std::byte> bytes) const {
    sim::SimImage copy = image_;
    copy.write(block.value * kBlockBytes, bytes);
    return verify(copy);
  }
  static bool finds(const VerifyReport& report, const std::string& part, const std::string& text) {
    return std::any_of(report.findings.begin(), report.findings.end(), [&](const Finding& f) {
      return f.severity == Finding::Severity::kProblem && f.part == part &&
             (f.place + f.what).find(text) != std::string::npos;
    });
  }
  /// A volume of more than one level, with something in it.
  const format::VolumeState& mapped_volume() const {
    const auto& volumes = group_.descriptor.volumes;
    const auto it = std::find_if(volumes.begin(), volumes.end(), [](const auto& v) {
      return v.height > 1 && v.allocated_blocks > 0 && !v.being_deleted();
    });
    EXPECT_NE(it, volumes.end());
    return *it;
  }
  /// Its first mapped block.
  format::MapEntry first_data() const {
    format::MapEntry entry = mapped_volume().root;
    for (std::uint32_t level = mapped_volume().height; level-- > 0;) {
      const auto node = page(entry.where);
      for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
        entry = format::load_entry(node.data(), i);
        if (entry.has_data()) break;
      }
    }
    return entry;
  }
  /// Puts other bytes into a bitmap page and seals the way from the anchor to it anew.
  VerifyReport with_bitmap(std::size_t index, std::span<const std::byte> bits) const {
    sim::SimImage copy = image_;
    format::Descriptor d = group_.descriptor;
    copy.write(d.bitmap[index].where.value * kBlockBytes, bits);
    d.bitmap[index].crc32c = format::crc32c(bits);
    return verify(rewritten(std::move(copy), d));
  }
  sim::SimImage rewritten(sim::SimImage copy, const format::Descriptor& d) const {
    const auto bytes = format::encode_descriptor(d);
    format::ChainBlock block;
    std::array<std::byte, kBlockBytes> out;
    for (std::size_t i = group_.chain.size(); i-- > 0;) {
      const auto from = std::min(bytes.size(), i * format::kChainPayloadBytes);
      const auto to = std::min(bytes.size(), from + format::kChainPayloadBytes);
      block.payload = std::span(bytes).subspan(from, to - from);
      format::encode_chain_block(format::Page(out), block);
      copy.write(group_.chain[i].value * kBlockBytes, out);
      block.next = group_.chain[i];
      block.next_crc32c = format::crc32c(out);
    }
    format::Anchor anchor = group_.anchor;
    anchor.descriptor_crc32c = block.next_crc32c;
    anchor.descriptor_bytes = bytes.size();
    format::encode_anchor(format::Page(out), anchor);
    for (std::uint32_t i = 0; i < 2; ++i) {
      copy.write(superblock_.anchor_at(0, i).value * kBlockBytes, out);
    }
    return copy;
  }

  sim::SimImage image_;
  GroupView group_;
  format::Superblock superblock_;
};

TEST_F(VerifyDamage, OfFixedPlaces) {
  EXPECT_TRUE(finds(with_damage(PoolBlock{0}), "superblock", "block 0"));
  EXPECT_TRUE(finds(with_damage(PoolBlock{1}), "superblock", "block 1"));
  // One torn copy of what is written in turn is what a power cut leaves.
  const auto anchor = with_damage(superblock_.anchor_at(9, 0));
  EXPECT_TRUE(anchor.sound()) << anchor.text();
  EXPECT_EQ(anchor.notes, 1u);
  sim::SimImage copy = image_;
  sim::SimRandom random(1);
  for (std::uint32_t i = 0; i < 2; ++i) {
    copy.corrupt(superblock_.anchor_at(9, i).value * kBlockBytes, 512, random);
    copy.corrupt(superblock_.table_at(0, i).value * kBlockBytes, 512, random);
  }
  const auto both = verify(copy);
  EXPECT_TRUE(finds(both, "anchor", "slot 9"));
  EXPECT_TRUE(finds(both, "zones", "both copies"));
  copy = image_;
  copy.truncate(copy.size_bytes() - (256 << 10));
  EXPECT_TRUE(finds(verify(copy), "superblock", "truncated"));
}

TEST_F(VerifyDamage, OfTheDescriptor) {
  for (auto block : group_.chain) {
    EXPECT_TRUE(finds(with_damage(block), "descriptor", std::to_string(block.value)));
  }
}

TEST_F(VerifyDamage, OfMapAndData) {
  const auto root = mapped_volume().root.where;
  EXPECT_TRUE(finds(with_damage(root), "map", std::to_string(root.value)));
  const auto data = first_data().where;
  const auto report = with_damage(data);
  EXPECT_TRUE(finds(report, "data", "pool block " + std::to_string(data.value)));
  EXPECT_TRUE(finds(report, "data", "volume " + mapped_volume().name));
  // Nothing else is blamed: the log holds the same block, if a mirror may still ask for it.
  for (const auto& f : report.findings) EXPECT_TRUE(f.part == "data" || f.part == "log") << f.what;
  // What was not read cannot be found damaged.
  EXPECT_TRUE(with_damage(data, {.data = false}).sound());
}

TEST_F(VerifyDamage, OfTheDeadList) {
  ASSERT_NE(group_.descriptor.dead.chunks, 0u);
  const auto chunk = group_.descriptor.dead.head;
  EXPECT_TRUE(finds(with_damage(chunk), "dead", std::to_string(chunk.value)));
}

TEST_F(VerifyDamage, OfTheLog) {
  const auto zone = superblock_.zone_start(group_.descriptor.log_zones.front().zone);
  EXPECT_TRUE(finds(with_damage(zone), "log", "pool block " + std::to_string(zone.value)));
  // The page behind the checkpoint was flushed; so its loss is more than a crash.
  ImageReader reader(image_);
  auto pool = PoolView::load(reader);
  const auto tail = load_log_tail(*pool, group_, true);
  const auto& placed = tail.pages.front().records.front();
  ASSERT_TRUE(placed.record.has_data());
  if (tail.pages.front().last() <= tail.durable) {
    EXPECT_TRUE(finds(with_damage(placed.extents.front().start), "log", "the disk lost it"));
  } else {
    const auto report = with_damage(placed.extents.front().start);
    EXPECT_TRUE(report.sound()) << report.text();
    EXPECT_GE(report.notes, 1u);
  }
}

TEST_F(VerifyDamage, OfTheBitmap) {
  const auto& first = group_.descriptor.bitmap.front();
  EXPECT_TRUE(finds(with_damage(first.where), "bitmap", "page " + std::to_string(first.index)));
  auto bits = page(first.where);
  // A mapped block that the bitmap calls free.
  const auto data = first_data().where.value;
  ASSERT_LT(data, format::kBitsPerBitmapPage);
  bits[data / 8] ^= static_cast<std::byte>(1u << (data % 8));
  auto report = with_bitmap(0, bits);
  EXPECT_TRUE(finds(report, "space", "block " + std::to_string(data) + "block "));
  EXPECT_TRUE(finds(report, "space", "may be overwritten"));
  // A block in use that nothing refers to: the last free one of some data zone.
  bits = page(first.where);
  PoolBlock free;
  for (auto zone : group_.zones) {
    if (group_.is_log_zone(zone)) continue;
    const auto last = superblock_.zone_start(zone).value + superblock_.zone_blocks - 1;
    const bool used = (std::to_integer<unsigned>(bits[last / 8]) >> (last % 8)) & 1;
    if (!used) free = PoolBlock{last};
  }
  ASSERT_NE(free.value, 0u);
  bits[free.value / 8] |= static_cast<std::byte>(1u << (free.value % 8));
  report = with_bitmap(0, bits);
  EXPECT_TRUE(finds(report, "space", "lost")) << report.text();
  // A block of a zone that is not the group's.
  bits = page(first.where);
  bits[0] |= std::byte{1};
  EXPECT_TRUE(finds(with_bitmap(0, bits), "bitmap", "in no data zone"));
}

TEST_F(VerifyDamage, OfCountsAndPositions) {
  const auto with = [&](auto change) {
    format::Descriptor d = group_.descriptor;
    change(d);
    return verify(rewritten(image_, d));
  };
  EXPECT_TRUE(with([](format::Descriptor&) {}).sound());
  EXPECT_TRUE(finds(with([](auto& d) { ++d.volumes[0].allocated_blocks; }), "map", "maps"));
  EXPECT_TRUE(finds(with([](auto& d) { ++d.volumes[0].data_blocks; }), "map", "blocks of data"));
  EXPECT_TRUE(finds(with([](auto& d) { ++d.dead.entries; }), "dead", "counted"));
  EXPECT_TRUE(finds(with([](auto& d) { d.volumes[0].id = VolumeId{99}; }), "descriptor", "id"));
  EXPECT_TRUE(finds(with([](auto& d) { d.log_zones[0].zone = ZoneId{90}; }), "descriptor", "zone"));
  EXPECT_TRUE(
      finds(with([](auto& d) { d.point.lsn = d.point.lsn.next(); }), "descriptor", "position"));
  EXPECT_TRUE(finds(with([](auto& d) { d.point.digest = Digest{1}; }), "log", "digest"));
  EXPECT_TRUE(finds(with([](auto& d) { ++d.volumes[0].map_nodes; }), "map", "map nodes"));
}

TEST_F(VerifyDamage, NoiseAnywhereNeverCrashesTheInspector) {
  sim::SimRandom random(5);
  std::size_t found = 0;
  for (int round = 0; round < 60; ++round) {
    sim::SimImage copy = image_;
    for (auto n = random.between(1, 40); n-- != 0;) {
      const auto block =
          random.chance(1, 3) ? random.below(600) : random.below(copy.size_bytes() / kBlockBytes);
      copy.corrupt(block * kBlockBytes + 512 * random.below(8), 512, random);
    }
    ImageReader reader(copy);
    const auto report = verify_pool(reader, {});
    found += !report || !report->sound() ? 1 : 0;
  }
  EXPECT_GT(found, 30u);
}

}  // namespace
}  // namespace tandem::inspect
