// What a mirror that lags is sent out of the log on disk: every record once and in order for
// readers at different places while others write; read ahead only while nobody writes; gaps between
// the holes that small writes filled are read along, and what is damaged there harms nobody.
//
// A failure names its seed; replay it with TANDEM_SEED=<seed>.
#include <gtest/gtest.h>

#include <cstring>

#include "format/checksum.h"
#include "format/log_page.h"
#include "format/record.h"
#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

constexpr std::uint64_t kBlocks = 1200;
constexpr std::size_t kBatchBytes = 64 << 10;

class LaggingMirror : public ::testing::Test {
 protected:
  void begin(StoreShape shape, std::uint64_t seed) {
    world_ = std::make_unique<SimRuntime>(seed);
    node_ = std::make_unique<StoreNode>(*world_, StoreNode::formatted(shape, seed), shape, seed);
    ASSERT_TRUE(world_->run(node_->start()));
    auto made = world_->run(
        node_->pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
    ASSERT_TRUE(made);
    group().serve(true);
    ASSERT_TRUE(world_->run(group().create_volume("v", kBlocks * kBlockBytes, 4096)));
    auto volume = group().open_volume("v");
    ASSERT_TRUE(volume);
    volume_ = *volume;
  }
  void TearDown() override {
    volume_.reset();
    if (node_) world_->run(node_->stop());
  }

  store::Group& group() { return *node_->group(); }
  SimDisk& disk() { return node_->disk(); }

  Task<Status> write(std::uint64_t block, std::uint64_t count) {
    IoBuffer data = IoBuffer::on_heap(count * kBlockBytes);
    std::memset(data.data(), static_cast<int>(1 + ++writes_ % 255), data.size());
    co_return co_await volume_->write(block * kBlockBytes, std::move(data), {});
  }
  /// Every `step`-th block of the volume from `first` on, one after the other.
  Task<Status> write_each(std::uint64_t first, std::uint64_t step) {
    for (std::uint64_t block = first; block < kBlocks; block += step) {
      Status written = co_await write(block, 1);
      if (!written) co_return written;
    }
    co_return ok();
  }
  Task<void> keep_writing(SimRandom random, std::size_t count, Gate& gate) {
    const Gate::Holder hold(gate);
    for (std::size_t i = 0; i < count; ++i) {
      const std::uint64_t blocks = random.chance(1, 8) ? 20 : 1;
      const Status written = co_await write(random.below(kBlocks - blocks), blocks);
      EXPECT_TRUE(written);
    }
  }

  /// From `at` to the head as it is now; checks that records follow each other and that their data
  /// is theirs.
  Task<void> read_on(Lsn& at, std::size_t bytes_max, std::size_t& batches) {
    auto digest = co_await group().digest_at(at);
    if (!digest) {
      ADD_FAILURE() << digest.error().message;
      at = group().head().lsn;
      co_return;
    }
    const Lsn end = group().head().lsn;
    while (at < end) {
      auto batch = co_await group().read_after(at, bytes_max);
      if (!batch) {
        ADD_FAILURE() << "behind " << at.value << ": " << batch.error().message;
        at = end;
        co_return;
      }
      EXPECT_EQ(batch->first, at.next());
      EXPECT_EQ(batch->before, *digest);
      check(*batch, *digest, at);
      EXPECT_EQ(batch->last, at);
      EXPECT_EQ(batch->after, *digest);
      ++batches;
    }
  }
  Task<void> read_once(Lsn at, std::size_t bytes_max, std::size_t& batches, Gate& gate) {
    const Gate::Holder hold(gate);
    co_await read_on(at, bytes_max, batches);
  }
  /// Until the writers are caught up with.
  Task<void> read_to_end(Lsn at, std::size_t bytes_max, std::size_t& batches, Gate& gate) {
    const Gate::Holder hold(gate);
    while (at < group().head().lsn) co_await read_on(at, bytes_max, batches);
  }
  static void check(const RecordBatch& batch, Digest& digest, Lsn& last) {
    std::vector<std::byte> data;
    for (const auto& piece : batch.payload)
      data.insert(data.end(), piece.bytes().begin(), piece.bytes().end());
    format::Decoder in(batch.records);
    std::size_t at = 0;
    while (in.remaining() != 0) {
      const auto record = format::decode_record(in);
      ASSERT_TRUE(record);
      ASSERT_EQ(record->header.lsn, last.next());
      last = record->header.lsn;
      digest = format::chain(digest, record->canonical);
      for (std::uint32_t i = 0; record->has_data() && i < record->header.block_count; ++i) {
        ASSERT_LE(at + kBlockBytes, data.size());
        ASSERT_EQ(format::crc32c(std::span(data).subspan(at, kBlockBytes)), record->crc(i));
        at += kBlockBytes;
      }
    }
    EXPECT_EQ(at, data.size());
  }

  std::unique_ptr<SimRuntime> world_;
  std::unique_ptr<StoreNode> node_;
  std::shared_ptr<Volume> volume_;
  std::uint64_t writes_ = 0;
};

TEST_F(LaggingMirror, GetsEveryRecordOnceWhileOthersWrite) {
  for (const std::uint64_t seed : seeds_to_run(1, 12)) {
    SCOPED_TRACE(seed);
    SimLog log;
    SimRandom random(seed);
    StoreShape shape = StoreShape::from_seed(random.fork());
    shape.disk_bytes = 64 << 20;
    begin(shape, seed);
    ASSERT_FALSE(HasFatalFailure());
    group().set_log_hold(Lsn{0});
    Gate writers, readers;
    spawn(keep_writing(random.fork(), 150, writers));
    world_->run(writers.close());
    const Lsn middle{group().head().lsn.value / 2};
    std::size_t batches = 0;
    for (int round = 0; round < 3; ++round) {
      Gate more;
      for (int i = 0; i < 3; ++i) spawn(keep_writing(random.fork(), 60, more));
      // Two at the same place, and one more than is remembered.
      for (const Lsn from : {Lsn{0}, Lsn{0}, middle, Lsn{3}, group().head().lsn, Lsn{77}})
        spawn(read_to_end(from, kBlockBytes << random.below(6), batches, readers));
      world_->run(more.close());
    }
    world_->run(readers.close());
    EXPECT_GT(batches, 5u);
    TearDown();
    node_.reset();
  }
}

TEST_F(LaggingMirror, IsReadAheadForOnlyWhileNobodyWrites) {
  StoreShape shape;
  shape.disk_bytes = 64 << 20;
  shape.latency_max = SimDisk::Options{}.latency_min;  // each request takes the same
  begin(shape, 1);
  ASSERT_FALSE(HasFatalFailure());
  group().set_log_hold(Lsn{0});
  ASSERT_TRUE(world_->run(write_each(0, 1)));
  const auto time_of_one = [&](bool while_writing) {
    Gate writer, reader;
    std::size_t batches = 0;
    const auto begun = world_->now();
    if (while_writing) spawn(keep_writing(SimRandom(1), 2000, writer));
    spawn(read_once(Lsn{0}, kBatchBytes, batches, reader));
    world_->run(reader.close());
    const auto took = world_->now() - begun;
    world_->run(writer.close());
    return took / batches;
  };
  const auto alone = time_of_one(false);
  // Pages and data in turn would be more than one request's time each.
  EXPECT_LT(alone, shape.latency_max);
  EXPECT_GT(time_of_one(true), shape.latency_max);
}

TEST_F(LaggingMirror, GapsBetweenFilledHolesAreReadAlong) {
  StoreShape shape;
  shape.disk_bytes = 64 << 20;
  begin(shape, 1);
  ASSERT_FALSE(HasFatalFailure());
  // Two of three blocks die; what is written next goes where they were.
  ASSERT_TRUE(world_->run(write_each(0, 1)));
  ASSERT_TRUE(world_->run(write_each(0, 3)));
  ASSERT_TRUE(world_->run(write_each(1, 3)));
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(world_->run(group().checkpoint()));
  group().set_log_hold(group().head().lsn);
  const Lsn from = group().head().lsn;
  ASSERT_TRUE(world_->run(write_each(2, 3)));
  const auto records = group().head().lsn.value - from.value;

  const auto before = disk().counters();
  Gate reader;
  std::size_t batches = 0;
  spawn(read_once(from, kBatchBytes, batches, reader));
  world_->run(reader.close());
  const auto reads = disk().counters().reads - before.reads;
  const auto wanted = records * kBlockBytes;
  EXPECT_GT(disk().counters().bytes_read - before.bytes_read, wanted + wanted / 4)
      << "there were no gaps: this proves nothing";
  EXPECT_LT(reads, records / 2);

  // What is read last is data. If that request fails, each piece is read by itself: the damage may
  // be in a gap.
  const Lsn late{group().head().lsn.value - 20};
  const auto so_far = disk().counters().reads;
  ASSERT_TRUE(world_->run(group().read_after(late, kBatchBytes)));
  const auto reads_of_one = disk().counters().reads - so_far;
  disk().inject({.kind = IoRequest::Kind::kRead, .nth = reads_of_one});
  EXPECT_TRUE(world_->run(group().read_after(late, kBatchBytes)));
  EXPECT_GT(disk().counters().reads - so_far, 2 * reads_of_one + 4) << "it had no gaps";
  disk().inject({.kind = IoRequest::Kind::kRead, .sticky = true});
  EXPECT_FALSE(world_->run(group().read_after(late, kBatchBytes)));
  disk().clear_faults();
}

/// The search for a position passes over pages that it cannot read.
TEST_F(LaggingMirror, ADamagedPageOfTheLogIsNoOtherHistory) {
  StoreShape shape;
  shape.disk_bytes = 64 << 20;
  begin(shape, 1);
  ASSERT_FALSE(HasFatalFailure());
  group().set_log_hold(Lsn{0});
  ASSERT_TRUE(world_->run(write_each(0, 1)));
  ASSERT_TRUE(world_->run(group().checkpoint()));
  std::map<Lsn, Digest> right;
  for (Lsn at{1}; at < group().head().lsn; at = at.next()) {
    const auto digest = world_->run(group().digest_at(at));
    ASSERT_TRUE(digest) << digest.error().message;
    right[at] = *digest;
  }
  std::vector<std::uint64_t> pages;
  SimImage image = disk().remains();
  for (std::uint64_t at = 0; at < shape.disk_bytes; at += kBlockBytes) {
    std::array<std::byte, kBlockBytes> block;
    image.read(at, block);
    if (format::decode_log_page_header(block)) pages.push_back(at);
  }
  ASSERT_GT(pages.size(), 300u);
  for (std::size_t i = 16; i < pages.size(); i += 64) disk().corrupt(pages[i], kBlockBytes);
  for (std::size_t i = 32; i < pages.size(); i += 64) disk().corrupt(pages[i], kBlockBytes);
  std::size_t refused = 0;
  for (const auto& [at, digest] : right) {
    const auto found = world_->run(group().digest_at(at));
    if (found) {
      ASSERT_EQ(*found, digest) << "at LSN " << at.value;
    } else {
      ASSERT_EQ(found.error().code, ErrorCode::kCorrupt) << found.error().message;
      ++refused;
    }
  }
  EXPECT_GT(refused, 0u);
}

}  // namespace
}  // namespace tandem::sim
