// LogZones and RecentRecords.
#include <gtest/gtest.h>

#include "format/checksum.h"
#include "format/record.h"
#include "store/log_zones.h"
#include "store/recent_records.h"
#include "tests/support/sim_runtime.h"

namespace tandem::store {
namespace {

constexpr std::uint32_t kZoneBlocks = 64;

format::Superblock geometry() {
  format::Superblock s;
  s.zone_blocks = kZoneBlocks;
  s.zones = 100;
  s.blocks = std::uint64_t{kZoneBlocks} * 100;
  return s;
}

LogZones fresh_log() {
  LogZones log(geometry());
  log.restore({{ZoneId{4}, Lsn{1}}}, PoolBlock{4 * kZoneBlocks});
  return log;
}

/// Takes pages of `records` records each until `pages` are written; spares are zones 10, 11, …
void fill(LogZones& log, std::uint32_t pages, std::uint64_t records, Lsn& last,
          std::uint32_t& next_spare) {
  for (std::uint32_t i = 0; i < pages; ++i) {
    if (!log.has_spare()) log.give_spare(ZoneId{next_spare++});
    last = Lsn{last.value + records};
    log.take(last);
  }
}

TEST(LogZones, GoesOnInTheSpareZone) {
  LogZones log = fresh_log();
  Lsn last;
  for (std::uint32_t i = 0; i + 1 < kZoneBlocks; ++i) {
    ASSERT_TRUE(log.can_place());
    last = Lsn{last.value + 3};
    const auto place = log.take(last);
    EXPECT_EQ(place.at, PoolBlock{4 * kZoneBlocks + i});
    EXPECT_EQ(place.next_zone, ZoneId{0});
  }
  EXPECT_FALSE(log.can_place());
  log.give_spare(ZoneId{9});
  EXPECT_TRUE(log.can_place());
  EXPECT_TRUE(log.contains(ZoneId{9}));
  const auto place = log.take(Lsn{1000});
  EXPECT_EQ(place.at, PoolBlock{5 * kZoneBlocks - 1});
  EXPECT_EQ(place.next_zone, ZoneId{9});
  EXPECT_EQ(log.next(), PoolBlock{9 * kZoneBlocks});
  EXPECT_FALSE(log.has_spare());
  EXPECT_EQ(log.pages(), kZoneBlocks);
  EXPECT_EQ(log.zones(),
            (std::vector<format::LogZone>{{ZoneId{4}, Lsn{1}}, {ZoneId{9}, Lsn{1001}}}));
}

TEST(LogZones, FindsTheZoneOfARecord) {
  LogZones log = fresh_log();
  Lsn last;
  std::uint32_t spare = 10;
  fill(log, 3 * kZoneBlocks + 5, 2, last, spare);
  const auto zones = log.zones();
  ASSERT_EQ(zones.size(), 4u);
  const std::uint64_t per_zone = 2 * kZoneBlocks;
  for (std::uint64_t after = 0; after < last.value; ++after) {
    const auto span = log.zone_for(Lsn{after});
    const std::uint64_t expected = std::min<std::uint64_t>(after / per_zone, 3);
    EXPECT_EQ(span.first, geometry().zone_start(zones[expected].zone)) << after;
    EXPECT_EQ(span.pages, expected == 3 ? 5 : kZoneBlocks);
    EXPECT_EQ(span.last_zone, expected == 3);
  }
}

TEST(LogZones, TrimsWholeZonesThatNobodyNeeds) {
  LogZones log = fresh_log();
  Lsn last;
  std::uint32_t spare = 10;
  fill(log, 3 * kZoneBlocks, 2, last, spare);
  const std::uint64_t per_zone = 2 * kZoneBlocks;
  EXPECT_EQ(log.start(), Lsn{0});
  EXPECT_TRUE(log.trimmable(Lsn{per_zone - 1}).empty());
  EXPECT_EQ(log.trimmable(Lsn{per_zone}), (std::vector<ZoneId>{ZoneId{4}}));
  EXPECT_EQ(log.trimmable(last), (std::vector<ZoneId>{ZoneId{4}, ZoneId{10}, ZoneId{11}}));
  log.trim(2);
  EXPECT_EQ(log.start(), Lsn{2 * per_zone});
  EXPECT_FALSE(log.contains(ZoneId{10}));
  EXPECT_TRUE(log.contains(ZoneId{11}));
  EXPECT_EQ(log.pages(), kZoneBlocks);
  EXPECT_EQ(log.zone_for(Lsn{2 * per_zone}).first, PoolBlock{11 * kZoneBlocks});
}

TEST(LogZones, RecoveryFollowsWhatTheWriterDid) {
  LogZones written = fresh_log();
  LogZones followed = fresh_log();
  sim::SimRandom random(1);
  Lsn last;
  std::uint32_t spare = 10;
  for (int i = 0; i < 500; ++i) {
    if (!written.has_spare()) written.give_spare(ZoneId{spare++});
    last = Lsn{last.value + 1 + random.below(9)};
    const auto place = written.take(last);
    EXPECT_EQ(place.at, followed.next());
    ASSERT_TRUE(followed.follow(place.next_zone, last));
  }
  EXPECT_EQ(written.zones(), followed.zones());
  EXPECT_EQ(written.next(), followed.next());
}

TEST(LogZones, RecoveryRefusesALastPageWithoutSuccessor) {
  LogZones log = fresh_log();
  for (std::uint32_t i = 0; i + 1 < kZoneBlocks; ++i) ASSERT_TRUE(log.follow(ZoneId{}, Lsn{i + 1}));
  const auto before = log.next();
  EXPECT_FALSE(log.follow(ZoneId{}, Lsn{100}));
  EXPECT_EQ(log.next(), before);
  EXPECT_TRUE(log.follow(ZoneId{7}, Lsn{100}));
  EXPECT_EQ(log.next(), PoolBlock{7 * kZoneBlocks});
}

TEST(LogZones, RestartMakesTheOldLogTrimmable) {
  LogZones log = fresh_log();
  Lsn last;
  std::uint32_t spare = 10;
  fill(log, 2 * kZoneBlocks, 2, last, spare);
  log.give_spare(ZoneId{50});
  log.restart(Lsn{40});  // an older point than the old log reaches
  EXPECT_EQ(log.next(), PoolBlock{50 * kZoneBlocks});
  EXPECT_FALSE(log.has_spare());
  EXPECT_EQ(log.trimmable(Lsn{40}), (std::vector<ZoneId>{ZoneId{4}, ZoneId{10}, ZoneId{11}}));
  log.trim(3);
  EXPECT_EQ(log.start(), Lsn{40});
  EXPECT_EQ(log.pages(), 0u);
}

// --- RecentRecords -------------------------------------------------------------------------------

/// A log of writes and discards, cut into batches as pages are.
struct Records {
  explicit Records(std::uint64_t seed) : random(seed) {}

  RecordBatch next_batch(std::size_t count) {
    RecordBatch batch;
    batch.first = last.next();
    batch.before = digest;
    for (std::size_t i = 0; i < count; ++i) {
      last = last.next();
      const auto blocks = static_cast<std::uint32_t>(random.below(4));
      std::vector<std::byte> canonical(blocks != 0 ? format::write_record_bytes(blocks)
                                                   : format::kRecordHeaderBytes);
      format::Encoder out(canonical);
      format::RecordHeader h{.volume = VolumeId{1}, .lsn = last, .utc = UtcNs{last.value}};
      if (blocks != 0) {
        h.type = format::RecordType::kWrite;
        h.block_count = blocks;
        IoBuffer data = IoBuffer::on_heap(blocks * kBlockBytes);
        std::memset(data.data(), static_cast<int>(last.value), data.size());
        std::vector<std::uint32_t> crcs;
        for (std::uint32_t b = 0; b < blocks; ++b) {
          crcs.push_back(format::crc32c(data.bytes().subspan(b * kBlockBytes, kBlockBytes)));
        }
        format::encode_write(out, h, crcs);
        batch.payload.push_back(std::move(data));
      } else {
        h.type = format::RecordType::kDiscard;
        h.block_count = 1;
        format::encode_range(out, h);
      }
      digest = format::chain(digest, canonical);
      digests.push_back(digest);
      batch.records.insert(batch.records.end(), canonical.begin(), canonical.end());
    }
    batch.last = last;
    batch.after = digest;
    // Payload need not be cut where records are.
    if (batch.payload.size() > 1 && random.chance(1, 2)) {
      IoBuffer joined = IoBuffer::on_heap(batch.payload_bytes());
      std::size_t at = 0;
      for (const auto& p : batch.payload) {
        std::memcpy(joined.data() + at, p.data(), p.size());
        at += p.size();
      }
      batch.payload = {joined};
    }
    return batch;
  }
  Digest digest_at(Lsn lsn) const { return lsn.value == 0 ? Digest{} : digests[lsn.value - 1]; }

  /// `batch` starts behind `after`, is whole, and its data is what its records say.
  void expect_follows(const RecordBatch& batch, Lsn after) const {
    ASSERT_FALSE(batch.empty());
    EXPECT_EQ(batch.first, after.next());
    EXPECT_EQ(batch.before, digest_at(after));
    EXPECT_EQ(batch.after, digest_at(batch.last));
    std::vector<std::byte> payload;
    for (const auto& p : batch.payload)
      payload.insert(payload.end(), p.data(), p.data() + p.size());
    format::Decoder in(batch.records);
    Digest chained = batch.before;
    Lsn expected = after;
    std::size_t at = 0;
    while (in.remaining() != 0) {
      const auto record = format::decode_record(in);
      ASSERT_TRUE(record.has_value());
      expected = expected.next();
      EXPECT_EQ(record->header.lsn, expected);
      chained = format::chain(chained, record->canonical);
      if (!record->has_data()) continue;
      for (std::uint32_t b = 0; b < record->header.block_count; ++b) {
        ASSERT_LE(at + kBlockBytes, payload.size());
        EXPECT_EQ(format::crc32c(std::span(payload).subspan(at, kBlockBytes)), record->crc(b));
        at += kBlockBytes;
      }
    }
    EXPECT_EQ(at, payload.size());
    EXPECT_EQ(expected, batch.last);
    EXPECT_EQ(chained, batch.after);
  }

  sim::SimRandom random;
  Lsn last;
  Digest digest;
  std::vector<Digest> digests;  // behind LSN i + 1
};

TEST(RecentRecords, DropsRecordsInTheMiddleOfABatch) {
  Records records(1);
  records.next_batch(7);
  const RecordBatch batch = records.next_batch(20);
  records.expect_follows(drop_records(batch, Lsn{3}), Lsn{7});  // nothing to drop
  for (std::uint64_t after = 7; after < 27; ++after) {
    SCOPED_TRACE(after);
    records.expect_follows(drop_records(batch, Lsn{after}), Lsn{after});
  }
  EXPECT_TRUE(drop_records(batch, Lsn{27}).empty());
  EXPECT_TRUE(drop_records(batch, Lsn{99}).empty());
}

TEST(RecentRecords, AnyPositionCanBeReadOn) {
  Records records(2);
  RecentRecords recent(1 << 20);
  recent.enable(true);
  for (int i = 0; i < 12; ++i) recent.add(records.next_batch(1 + records.random.below(9)));
  ASSERT_EQ(recent.start(), Lsn{0});
  for (std::uint64_t start = 0; start < records.last.value; ++start) {
    for (const std::size_t bytes_max :
         {std::size_t{1}, std::size_t{64} << 10, std::size_t{1} << 30}) {
      const RecordBatch batch = recent.read_after(Lsn{start}, bytes_max);
      records.expect_follows(batch, Lsn{start});
      if (bytes_max == std::size_t{1} << 30) {
        EXPECT_EQ(batch.last, records.last);
      }
    }
  }
  EXPECT_TRUE(recent.read_after(records.last, 1 << 20).empty());
}

TEST(RecentRecords, MemoryIsBounded) {
  Records records(3);
  constexpr std::size_t kBytesMax = 200 << 10;
  RecentRecords recent(kBytesMax);
  recent.enable(true);
  for (int i = 0; i < 100; ++i) {
    recent.add(records.next_batch(5));
    ASSERT_TRUE(recent.start().has_value());
    const RecordBatch all = recent.read_after(*recent.start(), std::size_t{1} << 30);
    EXPECT_LE(all.records.size() + all.payload_bytes(), kBytesMax);
    records.expect_follows(all, *recent.start());
    EXPECT_EQ(all.last, records.last);
  }
  EXPECT_GT(recent.start()->value, 0u);
}

TEST(RecentRecords, ABatchLargerThanTheBoundIsStillKept) {
  Records records(4);
  RecentRecords recent(1000);
  recent.enable(true);
  recent.add(records.next_batch(50));
  records.expect_follows(recent.read_after(Lsn{0}, 1), Lsn{0});
  recent.add(records.next_batch(50));
  EXPECT_EQ(recent.start(), Lsn{50});
}

TEST(RecentRecords, AHoleForgetsWhatIsOlder) {
  Records records(5);
  RecentRecords recent(1 << 20);
  recent.enable(true);
  recent.add(records.next_batch(5));
  records.next_batch(5);  // not added
  recent.add(records.next_batch(5));
  EXPECT_EQ(recent.start(), Lsn{10});
  recent.clear();
  EXPECT_FALSE(recent.start().has_value());
}

TEST(RecentRecords, DisabledKeepsNothing) {
  Records records(6);
  RecentRecords recent(1 << 20);
  recent.add(records.next_batch(5));
  EXPECT_FALSE(recent.start().has_value());
  recent.enable(true);
  recent.add(records.next_batch(5));
  EXPECT_EQ(recent.start(), Lsn{5});
  recent.enable(false);
  EXPECT_FALSE(recent.start().has_value());
}

}  // namespace
}  // namespace tandem::store
