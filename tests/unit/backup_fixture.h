// A volume in memory for the tests of backups: a source that tells what it differs in from an older
// state and can fail in the middle, and a target. A directory that goes with the test.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "backup/layered.h"
#include "backup/repository.h"
#include "backup/restore.h"
#include "backup/save.h"
#include "format/bytes.h"
#include "tests/unit/format_fixture.h"

namespace tandem::backup {

using Bytes = std::vector<std::byte>;
using format::TestRandom;

inline constexpr std::size_t kBlock = 4096;

inline bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{}; });
}

/// Tells runs by blocks as a node does, a few at a time; what lies behind `older`'s end was zeroes.
class MemorySource final : public Source {
 public:
  MemorySource(const Bytes& now, const Bytes* older, std::uint64_t seed)
      : now_(now), older_(older), random_(seed) {}
  std::uint64_t size_bytes() const override { return now_.size(); }

  Result<std::vector<Run>> runs(std::uint64_t offset) override {
    std::vector<Run> runs;
    const auto runs_max = 1 + random_.below(5);
    while (offset < now_.size()) {
      const auto length = std::min<std::uint64_t>(kBlock - offset % kBlock, now_.size() - offset);
      const Run run{offset, length, is_changed(offset, length), is_known_zero(offset, length)};
      const bool goes_on =
          !runs.empty() && runs.back().changed == run.changed && runs.back().zero == run.zero;
      if (!goes_on && runs.size() == runs_max) break;
      if (goes_on) {
        runs.back().length += length;
      } else {
        runs.push_back(run);
      }
      offset += length;
    }
    return runs;
  }

  Status read(std::span<const Run> runs, const Sink& sink) override {
    for (const auto& run : runs) {
      if (fail_after == 0) return Error{ErrorCode::kIo, "out of order"};
      --fail_after;
      if (run.zero) {
        TANDEM_TRY(sink(run, {}));
        continue;
      }
      EXPECT_LE(run.length, kPieceBytesMax);
      bytes_read += run.length;
      TANDEM_TRY(sink(run, std::span(now_).subspan(run.offset, run.length)));
    }
    return ok();
  }

  std::uint64_t fail_after = ~std::uint64_t{};
  std::uint64_t bytes_read = 0;

 private:
  bool is_changed(std::uint64_t offset, std::uint64_t length) const {
    if (older_ == nullptr) return true;
    for (auto at = offset; at < offset + length; ++at) {
      if (now_[at] != (at < older_->size() ? (*older_)[at] : std::byte{})) return true;
    }
    return false;
  }
  /// Of every third block it does not know that it is zero.
  bool is_known_zero(std::uint64_t offset, std::uint64_t length) const {
    return offset / kBlock % 3 != 0 && is_zero(std::span(now_).subspan(offset, length));
  }

  const Bytes& now_;
  const Bytes* older_;
  TestRandom random_;
};

class MemoryTarget final : public Target {
 public:
  explicit MemoryTarget(std::size_t size, std::byte filled_with = {}) : bytes(size, filled_with) {}
  std::uint64_t size_bytes() const override { return bytes.size(); }
  Status write(std::uint64_t offset, std::span<const std::byte> data) override {
    std::copy(data.begin(), data.end(), bytes.begin() + static_cast<std::ptrdiff_t>(offset));
    return ok();
  }
  Status zero(std::uint64_t offset, std::uint64_t length) override {
    std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(offset), length, std::byte{});
    return ok();
  }
  Status finish() override {
    finished = true;
    return ok();
  }
  Bytes bytes;
  bool finished = false;
};

class BackupTest : public testing::Test {
 protected:
  BackupTest() {
    std::string pattern = testing::TempDir() + "/tandem-backup-XXXXXX";
    directory = ::mkdtemp(pattern.data());
  }
  ~BackupTest() override { std::filesystem::remove_all(directory); }

  Repository open(bool to_write = true) {
    auto repository = Repository::open(directory, to_write);
    EXPECT_TRUE(repository) << repository.error().message;
    return std::move(*repository);
  }

  /// Writes a point of volume "v"; `older` null: a full one.
  static void add_point(Repository& repository, const Bytes& now, const Bytes* older,
                        std::uint64_t seed = 1) {
    Manifest plan = plan_of(repository, now, older);
    ASSERT_TRUE(repository.begin(plan));
    MemorySource source(now, older, seed);
    finish_point(repository, plan, source);
  }

  static Manifest plan_of(const Repository& repository, const Bytes& now, const Bytes* older) {
    Manifest plan;
    plan.group = "g";
    plan.group_id = "0c5aa1f4-0000-4000-8000-000000000001";
    plan.node = "alpha";
    const auto number = repository.points().size() + 1;
    plan.snapshot = {"s" + std::to_string(number), Lsn(number * 100), UtcNs(number * 1000)};
    if (older != nullptr) {
      const Point& last = repository.points().back();
      plan.from = From{last.number, last.manifest->snapshot, last.manifest_sha256};
    }
    VolumePart part;
    part.name = "v";
    part.size_bytes = now.size();
    part.based = older != nullptr;
    part.file = "volume-1.data";
    plan.volumes = {part};
    return plan;
  }

  static void finish_point(Repository& repository, Manifest& plan, Source& source) {
    auto writer = ChunkWriter::open(repository.plan_path() / "volume-1.data", 1);
    ASSERT_TRUE(writer);
    const auto saved = save(source, **writer, plan.volumes[0].based, {});
    ASSERT_TRUE(saved) << saved.error().message;
    const auto summary = (*writer)->finish();
    ASSERT_TRUE(summary);
    plan.volumes[0].summary = *summary;
    const auto done = repository.commit(plan);
    ASSERT_TRUE(done) << done.error().message;
  }

  static Result<Bytes> restored(const Repository& repository, std::uint32_t number,
                                std::size_t target_size) {
    const auto point = repository.find(number);
    if (!point) return point.error();
    const auto layers = repository.layers(**point, "v");
    if (!layers) return layers.error();
    const auto reader = LayeredReader::open(*layers);
    if (!reader) return reader.error();
    MemoryTarget target(target_size, std::byte{0xee});
    TANDEM_TRY(restore(**reader, target, false, {}));
    EXPECT_TRUE(target.finished);
    return std::move(target.bytes);
  }

  Path directory;
};

}  // namespace tandem::backup
