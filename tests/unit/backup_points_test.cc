// Chains of points against plain copies: whatever was written, and wherever it was interrupted,
// each point comes back as it was.
#include <fcntl.h>

#include "tests/unit/backup_fixture.h"

namespace tandem::backup {
namespace {

class BackupPoints : public BackupTest {
 protected:
  /// Some writes, discards and, now and then, another size: larger, or smaller as of a volume that
  /// was made anew under its name.
  static void change(Bytes& volume, TestRandom& random) {
    if (random.below(4) == 0) volume.resize(kBlock * (64 + random.below(1200)) + 512);
    for (auto writes = random.below(12); writes > 0; --writes) {
      const auto at = random.below(volume.size());
      const auto length = std::min<std::uint64_t>(volume.size() - at, 1 + random.below(1 << 18));
      const auto kind = random.below(3);  // zeroes, one byte, noise
      const auto byte = static_cast<std::byte>(random.next());
      for (auto i = at; i < at + length; ++i)
        volume[i] = kind == 0   ? std::byte{}
                    : kind == 1 ? byte
                                : static_cast<std::byte>(random.next());
    }
  }

  /// Fails at random, and is gone on with, as if by another process. Returns how often it failed.
  int save_with_failures(const Bytes& now, const Bytes* older, TestRandom& random) {
    int failures = 0, tries = 0;
    {
      Repository repository = open();
      Manifest plan = plan_of(repository, now, older);
      EXPECT_TRUE(repository.begin(plan));
    }
    for (;;) {
      Repository repository = open();
      auto plan = repository.plan();
      EXPECT_TRUE(plan);
      MemorySource source(now, older, random.next());
      // Ever later: zeroes that it reads leave nothing to go on from.
      source.fail_after = random.below(12) + static_cast<std::uint64_t>(tries++);
      const Path file = repository.plan_path() / "volume-1.data";
      auto writer = ChunkWriter::open(file, static_cast<int>(random.below(2)));
      EXPECT_TRUE(writer);
      if (!save(source, **writer, plan->volumes[0].based, {})) {
        ++failures;
        tear(file, random);
        continue;
      }
      const auto summary = (*writer)->finish();
      EXPECT_TRUE(summary);
      plan->volumes[0].summary = *summary;
      EXPECT_TRUE(repository.commit(*plan));
      return failures;
    }
  }

  /// What a power cut does to the end of a file.
  static void tear(const Path& path, TestRandom& random) {
    auto file = File::open(path, O_RDWR);
    ASSERT_TRUE(file);
    const auto size = std::filesystem::file_size(path);
    if (size == 0 || random.below(3) == 0) return;
    const auto at = size - 1 - random.below(std::min<std::uint64_t>(size, 5000));
    ASSERT_TRUE(file->truncate(at));
    const bool hole = random.below(2) == 0;
    ASSERT_TRUE(file->truncate(hole ? size : at));
  }
};

TEST_F(BackupPoints, EachComesBackWhereverItWasInterrupted) {
  int failures = 0, shrunk = 0;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    TestRandom random(seed);
    std::vector<Bytes> states;
    Bytes volume(kBlock * 512);
    for (int i = 0; i < 7; ++i) {
      change(volume, random);
      const bool full = states.empty() || random.below(5) == 0;
      shrunk += !full && volume.size() < states.back().size() ? 1 : 0;
      failures += save_with_failures(volume, full ? nullptr : &states.back(), random);
      states.push_back(volume);
    }
    const Repository repository = open(false);
    for (std::uint32_t number = 1; number <= states.size(); ++number) {
      const auto& state = states[number - 1];
      // The target is larger: the rest must be zero, too.
      const auto bytes = restored(repository, number, state.size() + 3 * kBlock);
      ASSERT_TRUE(bytes) << bytes.error().message;
      Bytes wanted = state;
      wanted.resize(state.size() + 3 * kBlock);
      ASSERT_TRUE(*bytes == wanted) << "seed " << seed << " point " << number;
    }
    const auto scope = repository.scope(0);
    ASSERT_TRUE(scope);
    EXPECT_EQ(repository.verify(*scope, {}).whole.size(), states.size());
    std::filesystem::remove_all(directory);
  }
  EXPECT_GT(failures, 50);
  EXPECT_GT(shrunk, 3);
}

TEST_F(BackupPoints, WhatIsThereIsNotReadAgain) {
  Bytes volume(16 << 20, std::byte{1});
  Repository repository = open();
  Manifest plan = plan_of(repository, volume, nullptr);
  ASSERT_TRUE(repository.begin(plan));
  const Path file = repository.plan_path() / "volume-1.data";
  MemorySource first(volume, nullptr, 1);
  first.fail_after = 10;
  {
    auto writer = ChunkWriter::open(file, 0);
    ASSERT_TRUE(writer);
    EXPECT_FALSE(save(first, **writer, false, {}));
  }
  EXPECT_EQ(first.bytes_read, 10u << 20);
  auto writer = ChunkWriter::open(file, 0);
  ASSERT_TRUE(writer);
  EXPECT_EQ((*writer)->next(), 10u << 20);
  MemorySource second(volume, nullptr, 1);
  ASSERT_TRUE(save(second, **writer, false, {}));
  EXPECT_EQ(second.bytes_read, 6u << 20);
}

TEST_F(BackupPoints, ZeroesTakeNoSpaceAndNoReading) {
  Bytes volume(64 << 20);
  std::fill_n(volume.begin() + (3 << 20), kBlock, std::byte{7});
  // Stored zeroes, which the source takes for data.
  Repository repository = open();
  std::uint64_t told = 0;
  MemorySource source(volume, nullptr, 1);
  auto writer = ChunkWriter::open(directory / "data", 0);
  ASSERT_TRUE(writer);
  const auto bytes = bytes_to_save(source, 0, false);
  ASSERT_TRUE(bytes);
  ASSERT_TRUE(save(source, **writer, false, [&](std::uint64_t n) { told += n; }));
  EXPECT_EQ(told, *bytes);
  EXPECT_LT(source.bytes_read, 23u << 20);
  const auto summary = (*writer)->finish();
  ASSERT_TRUE(summary);
  EXPECT_LE(summary->data_bytes, 64u << 10);
  EXPECT_EQ(summary->zero_bytes, 0u);
  EXPECT_LT(summary->file_bytes, 66u << 10);
}

TEST_F(BackupPoints, ADamagedChunkIsPassedOver) {
  auto writer = ChunkWriter::open(directory / "data", 0);
  ASSERT_TRUE(writer);
  const Bytes block(kBlock, std::byte{5});
  for (std::uint64_t i = 0; i < 3; ++i) ASSERT_TRUE((*writer)->data(i * kBlock, block));
  ASSERT_TRUE((*writer)->finish());
  const std::byte wrong[] = {std::byte{6}};
  auto file = File::open(directory / "data", O_RDWR);
  ASSERT_TRUE(file && file->write_at(40 + kBlock + 40 + 9, wrong));
  auto reader = ChunkReader::open(directory / "data");
  ASSERT_TRUE(reader && (*reader)->next());
  const auto bad = (*reader)->next();
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().code, ErrorCode::kCorrupt);
  ASSERT_TRUE((*reader)->damaged());
  EXPECT_EQ((*reader)->damaged()->offset, kBlock);
  EXPECT_EQ((*reader)->damaged()->length, kBlock);
  const auto third = (*reader)->next();
  ASSERT_TRUE(third && *third);
  EXPECT_EQ((*third)->offset, 2 * kBlock);
  EXPECT_FALSE((*reader)->damaged());
}

}  // namespace
}  // namespace tandem::backup
