#include "tests/support/sim_disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <set>

#include "tandem/base/buffer.h"

namespace tandem::sim {
namespace {

using Kind = IoRequest::Kind;
constexpr std::uint64_t kDiskBytes = 1 << 20;

IoBuffer filled(char c, std::size_t blocks = 1) {
  IoBuffer buffer = IoBuffer::on_heap(blocks * kBlockBytes);
  std::memset(buffer.data(), c, buffer.size());
  return buffer;
}

Task<Status> write_at(BlockDevice& disk, std::uint64_t offset, IoBuffer data) {
  IoBatch io(disk);
  io.write(offset, data.bytes());
  co_return co_await io.run();
}

Task<Status> flush_it(BlockDevice& disk) {
  IoBatch io(disk);
  io.flush();
  co_return co_await io.run();
}

Task<Status> change_range(BlockDevice& disk, Kind kind, std::uint64_t offset, std::uint64_t n) {
  IoBatch io(disk);
  if (kind == Kind::kDiscard) io.discard(offset, n);
  if (kind == Kind::kZero) io.zero(offset, n);
  co_return co_await io.run();
}

Task<Result<IoBuffer>> read_at(BlockDevice& disk, std::uint64_t offset, std::size_t bytes) {
  IoBuffer buffer = IoBuffer::on_heap(bytes);
  IoBatch io(disk);
  io.read(offset, buffer.bytes());
  const Status done = co_await io.run();
  TANDEM_CO_TRY(done);
  co_return buffer;
}

Task<void> keep_status(Task<Status> task, std::optional<Status>* into) {
  Status status = co_await std::move(task);
  into->emplace(std::move(status));
}

class SimDiskTest : public testing::Test {
 protected:
  SimDiskTest() { start(SimImage(kDiskBytes)); }
  void start(SimImage image) {
    disk_ = std::make_unique<SimDisk>(world_, std::move(image), SimDisk::Options{.seed = ++boots_});
  }
  bool write(std::uint64_t offset, char c) {
    return world_.run(write_at(*disk_, offset, filled(c))).has_value();
  }
  bool flush() { return world_.run(flush_it(*disk_)).has_value(); }
  std::string read(std::uint64_t offset) {
    Result<IoBuffer> got = world_.run(read_at(*disk_, offset, kBlockBytes));
    return got ? std::string(reinterpret_cast<const char*>(got->data()), got->size()) : "error";
  }
  static std::string page(char c) { return std::string(kBlockBytes, c); }
  static std::string page_of(const SimImage& image, std::uint64_t offset) {
    std::string text(kBlockBytes, '?');
    image.read(offset, std::as_writable_bytes(std::span(text)));
    return text;
  }
  SimImage cut(CutOptions::Mode mode) { return disk_->crash_image({.mode = mode}, random_); }
  std::uint64_t boots_ = 0;
  SimRuntime world_{11};
  SimRandom random_{12};
  std::unique_ptr<SimDisk> disk_;
};

TEST_F(SimDiskTest, ReadsWhatWasWrittenAndZeroesElsewhere) {
  ASSERT_TRUE(write(8192, 'x'));
  EXPECT_EQ(read(8192), page('x'));
  EXPECT_EQ(read(0), page('\0'));
  EXPECT_EQ(disk_->counters().writes, 1u);
  EXPECT_EQ(disk_->counters().reads, 2u);
}

TEST_F(SimDiskTest, AReadBeyondTheEndIsAnError) {
  for (const std::uint64_t at : {std::uint64_t{kDiskBytes}, std::uint64_t{1} << 52}) {
    const auto read = world_.run(read_at(*disk_, at, kBlockBytes));
    ASSERT_FALSE(read);
    EXPECT_EQ(read.error().code, ErrorCode::kIo);
  }
}

TEST_F(SimDiskTest, ATebibyteCostsNothing) {
  start(SimImage(std::uint64_t{1} << 40));
  ASSERT_TRUE(write((std::uint64_t{1} << 40) - kBlockBytes, 'z'));
  ASSERT_TRUE(world_.run(change_range(*disk_, Kind::kDiscard, 0, std::uint64_t{1} << 39)));
  EXPECT_EQ(read((std::uint64_t{1} << 40) - kBlockBytes), page('z'));
}

TEST_F(SimDiskTest, OnlyAFlushMakesAWriteSurviveAPowerCut) {
  ASSERT_TRUE(write(0, 'a'));
  ASSERT_TRUE(flush());
  ASSERT_TRUE(write(0, 'b'));
  EXPECT_EQ(read(0), page('b'));
  EXPECT_EQ(disk_->pending_writes(), 1u);
  EXPECT_EQ(page_of(cut(CutOptions::Mode::kDropAll), 0), page('a'));
  EXPECT_EQ(page_of(cut(CutOptions::Mode::kKeepAll), 0), page('b'));
  ASSERT_TRUE(flush());
  EXPECT_EQ(disk_->pending_writes(), 0u);
  EXPECT_EQ(page_of(cut(CutOptions::Mode::kDropAll), 0), page('b'));
}

TEST_F(SimDiskTest, AFlushCoversOnlyWhatCompletedBeforeIt) {
  std::optional<Status> written, flushed;
  spawn(keep_status(write_at(*disk_, 0, filled('a')), &written));
  spawn(keep_status(flush_it(*disk_), &flushed));  // the write is still in flight
  world_.run_until_idle();
  ASSERT_TRUE(written && written->has_value() && flushed && flushed->has_value());
  EXPECT_EQ(page_of(cut(CutOptions::Mode::kDropAll), 0), page('\0'));
  EXPECT_EQ(disk_->pending_writes(), 1u);
}

TEST_F(SimDiskTest, ARandomCutKeepsDropsAndTears) {
  ASSERT_TRUE(write(0, 'a'));
  ASSERT_TRUE(flush());
  ASSERT_TRUE(write(0, 'b'));
  std::set<std::string> kinds;
  for (int i = 0; i < 500; ++i) {
    const std::string got = page_of(cut(CutOptions::Mode::kRandom), 0);
    bool garbage = false;
    for (std::size_t sector = 0; sector < kBlockBytes; sector += kSectorBytes) {
      const std::string s = got.substr(sector, kSectorBytes);
      garbage |= s != std::string(kSectorBytes, 'a') && s != std::string(kSectorBytes, 'b');
    }
    kinds.insert(garbage            ? "garbage"
                 : got == page('a') ? "old"
                 : got == page('b') ? "new"
                                    : "torn");
  }
  EXPECT_EQ(kinds, (std::set<std::string>{"garbage", "new", "old", "torn"}));
}

TEST_F(SimDiskTest, MasksEnumerateEverySubset) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(write(i * kBlockBytes, 'x'));
  ASSERT_EQ(disk_->pending_writes(), 3u);
  std::set<std::string> seen;
  for (std::uint64_t mask = 0; mask < 8; ++mask) {
    const SimImage image =
        disk_->crash_image({.mode = CutOptions::Mode::kByMask, .keep_mask = mask}, random_);
    std::string present;
    for (int i = 0; i < 3; ++i) present += page_of(image, i * kBlockBytes)[0] == 'x' ? '1' : '0';
    seen.insert(present);
  }
  EXPECT_EQ(seen.size(), 8u);
}

TEST_F(SimDiskTest, AKilledProcessLeavesTheCacheVolatile) {
  ASSERT_TRUE(write(0, 'a'));
  disk_->kill();
  EXPECT_TRUE(disk_->is_off());
  EXPECT_FALSE(write(4096, 'b'));  // nobody is there any more
  start(disk_->remains());
  EXPECT_EQ(read(0), page('a'));
  EXPECT_EQ(read(4096), page('\0'));
  EXPECT_EQ(page_of(cut(CutOptions::Mode::kDropAll), 0), page('\0'));  // it was never flushed
  ASSERT_TRUE(flush());
  EXPECT_EQ(page_of(cut(CutOptions::Mode::kDropAll), 0), page('a'));
}

TEST_F(SimDiskTest, WritesInFlightHappenOrNotWhenTheProcessDies) {
  std::set<char> seen;
  for (int i = 0; i < 40; ++i) {
    start(SimImage(kDiskBytes));
    std::optional<Status> written;
    spawn(keep_status(write_at(*disk_, 0, filled('a')), &written));
    disk_->kill();
    world_.run_until_idle();
    ASSERT_TRUE(written && !written->has_value());  // the owner hears EIO and can unwind
    const std::string got = page_of(disk_->remains(), 0);
    ASSERT_TRUE(got == page('a') || got == page('\0'));
    seen.insert(got[0]);
  }
  EXPECT_EQ(seen, (std::set<char>{'\0', 'a'}));
}

TEST_F(SimDiskTest, PowerGoesAtTheChosenMoment) {
  // Moments of one write and one flush: submitted, completed, submitted, completed.
  for (std::uint64_t moments = 0; moments <= 4; ++moments) {
    start(SimImage(kDiskBytes));
    disk_->power_off_after(moments, {.mode = CutOptions::Mode::kDropAll});
    EXPECT_EQ(write(0, 'a'), moments > 2);
    EXPECT_EQ(flush(), false);
    EXPECT_EQ(disk_->is_off(), true);
    // At moment 4 the flush has done its work, though nobody was told.
    EXPECT_EQ(page_of(disk_->remains(), 0), page(moments == 4 ? 'a' : '\0'));
  }
}

TEST_F(SimDiskTest, ObserverSeesEveryChangeTwice) {
  std::vector<std::pair<SimDisk::Moment, Kind>> seen;
  disk_->set_observer([&](SimDisk::Moment m, const IoRequest& r) { seen.emplace_back(m, r.kind); });
  ASSERT_TRUE(write(0, 'a'));
  EXPECT_EQ(read(0), page('a'));
  ASSERT_TRUE(flush());
  using M = SimDisk::Moment;
  EXPECT_EQ(seen, (std::vector<std::pair<M, Kind>>{{M::kSubmitted, Kind::kWrite},
                                                   {M::kCompleted, Kind::kWrite},
                                                   {M::kSubmitted, Kind::kFlush},
                                                   {M::kCompleted, Kind::kFlush}}));
  disk_->set_observer(nullptr);
}

TEST_F(SimDiskTest, AnOverlappingReadSeesOldOrNewPerSector) {
  ASSERT_TRUE(write(0, 'a'));
  bool mixed = false;
  for (int i = 0; i < 50; ++i) {
    std::optional<Status> written;
    spawn(keep_status(write_at(*disk_, 0, filled('b')), &written));
    const std::string got = read(0);
    for (char c : got) ASSERT_TRUE(c == 'a' || c == 'b');
    mixed |= got.find('a') != std::string::npos && got.find('b') != std::string::npos;
    world_.run_until_idle();
    ASSERT_EQ(read(0), page('b'));
    ASSERT_TRUE(write(0, 'a'));
  }
  EXPECT_TRUE(mixed);
}

TEST_F(SimDiskTest, OverlappingWritesLeaveEitherPerSector) {
  bool mixed = false;
  for (int i = 0; i < 50; ++i) {
    std::optional<Status> first, second;
    spawn(keep_status(write_at(*disk_, 0, filled('a')), &first));
    spawn(keep_status(write_at(*disk_, 0, filled('b')), &second));
    world_.run_until_idle();
    const std::string got = read(0);
    for (char c : got) ASSERT_TRUE(c == 'a' || c == 'b');
    mixed |= got != page('a') && got != page('b');
    ASSERT_EQ(got, read(0));  // decided once
  }
  EXPECT_TRUE(mixed);
}

TEST_F(SimDiskTest, FaultsHitTheNthRequestOfTheirKind) {
  disk_->inject({.kind = Kind::kWrite, .nth = 2});
  disk_->inject({.kind = Kind::kRead, .nth = 1});
  EXPECT_TRUE(write(0, 'a'));
  EXPECT_FALSE(write(4096, 'b'));
  EXPECT_TRUE(write(8192, 'c'));
  EXPECT_EQ(read(0), "error");
  EXPECT_EQ(read(0), page('a'));
}

TEST_F(SimDiskTest, NoSpaceIsStickyAndChangesNothing) {
  disk_->inject({.kind = Kind::kWrite, .nth = 1, .sticky = true, .error = ENOSPC});
  const Status status = world_.run(write_at(*disk_, 0, filled('a')));
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code, ErrorCode::kNoSpace);
  EXPECT_FALSE(write(0, 'b'));
  EXPECT_EQ(read(0), page('\0'));
  disk_->clear_faults();
  EXPECT_TRUE(write(0, 'b'));
}

TEST_F(SimDiskTest, AFailedFlushLosesDataForGood) {
  bool lost = false;
  for (int i = 0; i < 20; ++i) {
    start(SimImage(kDiskBytes));
    ASSERT_TRUE(write(0, 'a'));
    disk_->inject({.kind = Kind::kFlush});
    EXPECT_FALSE(flush());
    EXPECT_TRUE(flush());  // it claims success now: who trusts it is lost
    lost |= page_of(cut(CutOptions::Mode::kKeepAll), 0) == page('\0');
  }
  EXPECT_TRUE(lost);
}

TEST_F(SimDiskTest, ALyingFlushKeepsNothing) {
  disk_->set_lying_flush(true);
  ASSERT_TRUE(write(0, 'a'));
  ASSERT_TRUE(flush());
  EXPECT_EQ(page_of(cut(CutOptions::Mode::kDropAll), 0), page('\0'));
}

TEST_F(SimDiskTest, LostAndMisdirectedWritesReportSuccess) {
  disk_->inject({.kind = Kind::kWrite, .effect = DiskFault::Effect::kLose});
  EXPECT_TRUE(write(0, 'a'));
  EXPECT_EQ(read(0), page('\0'));
  disk_->inject(
      {.kind = Kind::kWrite, .effect = DiskFault::Effect::kMisdirect, .misdirect_to = 12288});
  EXPECT_TRUE(write(0, 'b'));
  EXPECT_EQ(read(0), page('\0'));
  EXPECT_EQ(read(12288), page('b'));
}

TEST_F(SimDiskTest, AStallDelaysOneRequest) {
  disk_->inject({.kind = Kind::kWrite,
                 .effect = DiskFault::Effect::kStall,
                 .stall = std::chrono::seconds(30)});
  const Nanoseconds before = world_.now();
  EXPECT_TRUE(write(0, 'a'));
  EXPECT_GE(world_.now() - before, std::chrono::seconds(30));
}

TEST_F(SimDiskTest, RotStaysUntilRewritten) {
  ASSERT_TRUE(write(0, 'a'));
  ASSERT_TRUE(write(4096, 'a'));
  disk_->corrupt(512, 1024);
  const std::string rotten = read(0);
  EXPECT_NE(rotten, page('a'));
  EXPECT_EQ(rotten.substr(0, 512), std::string(512, 'a'));
  EXPECT_EQ(rotten.substr(1536), std::string(kBlockBytes - 1536, 'a'));
  EXPECT_EQ(read(0), rotten);
  EXPECT_EQ(read(4096), page('a'));
  ASSERT_TRUE(flush());
  EXPECT_EQ(page_of(cut(CutOptions::Mode::kDropAll), 0), rotten);
  ASSERT_TRUE(write(0, 'b'));
  EXPECT_EQ(read(0), page('b'));
}

TEST_F(SimDiskTest, ZeroZeroesAndDiscardLeavesAnything) {
  std::set<std::string> after;
  for (int i = 0; i < 40; ++i) {
    ASSERT_TRUE(write(0, 'a'));
    ASSERT_TRUE(world_.run(change_range(*disk_, Kind::kDiscard, 0, 8192)));
    const std::string got = read(0);
    after.insert(got == page('a') ? "old" : got == page('\0') ? "zero" : "garbage");
    ASSERT_EQ(read(0), got);
  }
  EXPECT_EQ(after, (std::set<std::string>{"garbage", "old", "zero"}));
  ASSERT_TRUE(write(0, 'a'));
  ASSERT_TRUE(world_.run(change_range(*disk_, Kind::kZero, 0, 4096)));
  EXPECT_EQ(read(0), page('\0'));
}

TEST_F(SimDiskTest, ErrorRatesAreSeeded) {
  disk_->set_error_rate(Kind::kRead, 1, 4, EIO);
  int errors = 0;
  for (int i = 0; i < 200; ++i) errors += read(0) == "error";
  EXPECT_GT(errors, 20);
  EXPECT_LT(errors, 90);
}

TEST_F(SimDiskTest, ImagesAreValues) {
  SimImage image(kDiskBytes);
  const std::string text = "across two pages";
  image.write(4090, std::as_bytes(std::span(text)));
  SimImage copy = image;
  std::string got(text.size(), '?');
  copy.corrupt(4090, 1, random_);
  image.read(4090, std::as_writable_bytes(std::span(got)));
  EXPECT_EQ(got, text);
  EXPECT_EQ(image.durable().size(), 2u);
  copy.truncate(4096);
  EXPECT_EQ(copy.durable().size(), 1u);
  EXPECT_EQ(copy.size_bytes(), 4096u);
}

TEST(SimDiskDeathTest, MemoryThatChangesInFlightIsABug) {
  EXPECT_DEATH(
      {
        SimRuntime world(1);
        SimDisk disk(world, SimImage(kDiskBytes), {});
        IoBuffer buffer = filled('a');
        std::optional<Status> written;
        spawn(keep_status(write_at(disk, 0, buffer), &written));
        buffer.data()[17] = std::byte{1};
        world.run_until_idle();
      },
      "CHECK");
}

TEST(SimDisk, SameSeedSameTrace) {
  const auto run = [](std::uint64_t seed) {
    SimRuntime world(seed);
    SimDisk disk(world, SimImage(kDiskBytes), {.seed = seed});
    std::vector<std::optional<Status>> done(20);
    for (std::size_t i = 0; i < done.size(); ++i) {
      spawn(keep_status(write_at(disk, i * kBlockBytes, filled('a')), &done[i]));
    }
    world.run_until_idle();
    return world.trace_hash();
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

}  // namespace
}  // namespace tandem::sim
