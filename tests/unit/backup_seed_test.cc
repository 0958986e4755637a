// A point of a backup as an image: the blocks that are not zero, whole, each once, with the point's
// position; and nothing to install from a backup that is damaged or not of a whole group.
#include <fstream>

#include "backup/seed.h"
#include "format/checksum.h"
#include "tests/unit/backup_fixture.h"

namespace tandem::backup {
namespace {

class BackupSeed : public BackupTest {
 protected:
  static constexpr VolumeId kVolume{4};

  static Manifest with_seed(Manifest plan) {
    plan.seed =
        SeedPoint{.point = {Timeline(2), plan.snapshot.lsn, Digest(77), plan.snapshot.utc, 4096},
                  .history = {{Timeline(1), Lsn(0), UtcNs(1)}, {Timeline(2), Lsn(50), UtcNs(2)}},
                  .next_volume_id = 9,
                  .volumes = {{kVolume, "v", plan.volumes[0].size_bytes, 512}}};
    return plan;
  }
  void add(const Bytes& now, const Bytes* older, std::uint64_t seed) {
    Repository repository = open();
    Manifest plan = with_seed(plan_of(repository, now, older));
    ASSERT_TRUE(repository.begin(plan));
    MemorySource source(now, older, seed);
    finish_point(repository, plan, source);
  }
  static void change(Bytes& volume, TestRandom& random) {
    for (auto writes = random.below(40); writes > 0; --writes) {
      const auto at = random.below(volume.size());
      const auto length = std::min<std::uint64_t>(volume.size() - at, 1 + random.below(1 << 17));
      const auto byte = static_cast<std::byte>(random.below(3));
      std::fill_n(volume.begin() + static_cast<std::ptrdiff_t>(at), length, byte);
    }
  }
  /// The volume that the image makes; fails the test when a block of it is not as it must be.
  static Result<Bytes> taken(const SeedPlan& plan, std::size_t size) {
    std::uint64_t told = 0;
    auto reader = SeedReader::open(plan, [&](std::uint64_t bytes) { told += bytes; });
    if (!reader) return Error(std::move(reader.error()));
    Bytes volume(blocks_for(size) * kBlock);
    std::uint64_t next = 0;
    for (;;) {
      const auto blocks = (*reader)->next();
      if (!blocks) return blocks.error();
      if (blocks->entries.empty()) break;
      EXPECT_EQ(blocks->volume, kVolume);
      EXPECT_LE(blocks->entries.size() * kBlock, kPieceBytesMax);
      EXPECT_EQ(blocks->payload.at(0).size(), blocks->entries.size() * kBlock);
      for (std::size_t i = 0; i < blocks->entries.size(); ++i) {
        const auto& entry = blocks->entries[i];
        const auto bytes = blocks->payload[0].bytes().subspan(i * kBlock, kBlock);
        EXPECT_GE(entry.block.value, next);
        next = entry.block.value + 1;
        EXPECT_EQ(entry.lsn, plan.seed.point.lsn);
        EXPECT_EQ(entry.crc32c, format::crc32c(bytes));
        EXPECT_FALSE(is_zero(bytes));
        std::copy(bytes.begin(), bytes.end(),
                  volume.begin() + static_cast<std::ptrdiff_t>(entry.block.value * kBlock));
      }
    }
    EXPECT_EQ(told, size);
    volume.resize(size);
    return volume;
  }
};

TEST_F(BackupSeed, AnyPointOfAChainIsTakenWhole) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    std::filesystem::remove_all(directory);
    TestRandom random(seed);
    std::vector<Bytes> points{Bytes(kBlock * (1 + random.below(900)) + 512 * random.below(8))};
    for (int i = 0; i < 4; ++i) {
      change(points.back(), random);
      add(points.back(), i == 0 ? nullptr : &points[points.size() - 2], seed);
      points.push_back(points.back());
    }
    points.pop_back();
    const Repository repository = open(false);
    for (std::size_t i = 0; i < points.size(); ++i) {
      const auto plan = plan_seed(repository, repository.points()[i]);
      ASSERT_TRUE(plan) << plan.error().message;
      const auto volume = taken(*plan, points[i].size());
      ASSERT_TRUE(volume) << volume.error().message;
      EXPECT_EQ(*volume, points[i]) << "seed " << seed << ", point " << i + 1;
    }
  }
}

TEST_F(BackupSeed, TheImageSaysWhatThePointWas) {
  add(Bytes(kBlock * 3, std::byte{1}), nullptr, 1);
  const Repository repository = open(false);
  const auto plan = plan_seed(repository, repository.points()[0]);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->group.text(), "0c5aa1f4-0000-4000-8000-000000000001");
  const auto begin = image_of(*plan);
  EXPECT_EQ(begin.point, plan->seed.point);
  EXPECT_EQ(begin.history, plan->seed.history);
  EXPECT_EQ(begin.next_volume_id, 9u);
  EXPECT_EQ(begin.blocks_total, 3u);
  EXPECT_FALSE(begin.base);
  ASSERT_EQ(begin.volumes.size(), 1u);
  EXPECT_EQ(begin.volumes[0].id, kVolume);
  EXPECT_EQ(begin.volumes[0].size_bytes, kBlock * 3);
}

TEST_F(BackupSeed, ADamagedFileHasNoEnd) {
  Bytes now(kBlock * 600, std::byte{7});
  TestRandom random(3);
  for (auto& byte : now) byte = static_cast<std::byte>(random.next());
  add(now, nullptr, 1);
  const auto file = directory / "000001" / "volume-1.data";
  const auto size = std::filesystem::file_size(file);
  for (const std::uint64_t at : {std::uint64_t{0}, size / 2, size - 1}) {
    std::fstream data(file, std::ios::binary | std::ios::in | std::ios::out);
    data.seekg(static_cast<std::streamoff>(at));
    const auto byte = static_cast<char>(data.get());
    const auto put = [&](char what) {
      data.seekp(static_cast<std::streamoff>(at));
      data.put(what);
      data.flush();
    };
    put(static_cast<char>(byte ^ 1));
    const Repository repository = open(false);
    const auto plan = plan_seed(repository, repository.points()[0]);
    ASSERT_TRUE(plan);
    const auto volume = taken(*plan, now.size());
    ASSERT_FALSE(volume) << at;
    EXPECT_EQ(volume.error().code, ErrorCode::kCorrupt);
    put(byte);
  }
}

TEST_F(BackupSeed, WhatCannotBeOneSaysWhy) {
  const Bytes now(kBlock * 3, std::byte{1});
  add_point(*std::make_unique<Repository>(open()), now, nullptr);  // of version 1
  const auto refusal = [&] {
    const Repository repository = open(false);
    return plan_seed(repository, repository.points().back()).error();
  };
  EXPECT_EQ(refusal().code, ErrorCode::kUnsupported);
  EXPECT_NE(refusal().message.find("can be restored all the same"), std::string::npos);
  const auto add_changed = [&](auto change_manifest) {
    Repository repository = open();
    Manifest plan = with_seed(plan_of(repository, now, nullptr));
    change_manifest(plan);
    ASSERT_TRUE(repository.begin(plan));
    MemorySource source(now, nullptr, 1);
    finish_point(repository, plan, source);
  };
  add_changed([](Manifest& m) { m.seed->volumes.push_back({VolumeId(5), "w", kBlock, 512}); });
  EXPECT_EQ(refusal().code, ErrorCode::kUnsupported);
  EXPECT_NE(refusal().message.find("it lacks volume w"), std::string::npos);
  add_changed([](Manifest& m) { m.seed->volumes[0].size_bytes = kBlock; });
  EXPECT_EQ(refusal().code, ErrorCode::kCorrupt);
  add_changed([](Manifest& m) { m.seed->history.pop_back(); });
  EXPECT_EQ(refusal().code, ErrorCode::kCorrupt);
  add_changed([](Manifest& m) { m.group_id = "none"; });
  EXPECT_EQ(refusal().code, ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace tandem::backup
