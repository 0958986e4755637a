// Records and log pages: see format/FORMAT.md.
#include "format/checksum.h"
#include "format/log_page.h"
#include "format/map_node.h"
#include "tests/unit/format_fixture.h"

namespace tandem::format {
namespace {

using Bytes = std::vector<std::byte>;

template <class Encode>
Bytes encoded(Encode encode) {
  Bytes bytes(kBlockBytes);
  Encoder out(bytes);
  encode(out);
  bytes.resize(out.position());
  return bytes;
}

RecordHeader header(RecordType type, std::uint32_t volume, std::uint64_t lsn, std::uint64_t utc,
                    std::uint64_t block = 0, std::uint32_t count = 0) {
  return {type, VolumeId{volume}, Lsn{lsn}, UtcNs{utc}, VolumeBlock{block}, count};
}

Bytes write_record() {
  const std::uint32_t crcs[] = {0xdeadbeef, 0x01020304};
  return encoded([&](Encoder& out) {
    encode_write(out, header(RecordType::kWrite, 3, 0x1001, 0x17, 0x55, 2), crcs);
  });
}

Bytes discard_record() {
  return encoded([](Encoder& out) {
    encode_range(out, header(RecordType::kDiscard, 3, 0x1002, 0x18, 0x66, 0x100));
  });
}

Result<Record> decode(std::span<const std::byte> bytes) {
  Decoder in(bytes);
  return decode_record(in);
}

TEST(Record, GoldenBytes) {
  EXPECT_EQ(hex(write_record()),
            "01000800030000000110000000000000170000000000000055000000000000000200000000000000"
            "efbeadde04030201");
  EXPECT_EQ(hex(discard_record()),
            "02000000030000000210000000000000180000000000000066000000000000000001000000000000");
  EXPECT_EQ(hex(encoded([](Encoder& out) {
              encode_range(out, header(RecordType::kZero, 4, 0x1003, 0x19, 0x77, 1));
            })),
            "03000000040000000310000000000000190000000000000077000000000000000100000000000000");
  EXPECT_EQ(hex(encoded([](Encoder& out) {
              encode_volume_create(out, header(RecordType::kVolumeCreate, 5, 0x1004, 0x1a),
                                   {1u << 30, 512, "disk"});
            })),
            "040012000500000004100000000000001a0000000000000000000000000000000000000000000000"
            "00000040000000000002000004006469736b");
  EXPECT_EQ(hex(encoded([](Encoder& out) {
              encode_volume_resize(out, header(RecordType::kVolumeResize, 5, 0x1005, 0x1b),
                                   1ull << 31);
            })),
            "050008000500000005100000000000001b0000000000000000000000000000000000000000000000"
            "0000008000000000");
  EXPECT_EQ(hex(encoded([](Encoder& out) {
              encode_range(out, header(RecordType::kVolumeDelete, 5, 0x1006, 0x1c));
            })),
            "060000000500000006100000000000001c0000000000000000000000000000000000000000000000");
  EXPECT_EQ(hex(encoded([](Encoder& out) {
              encode_timeline(out, header(RecordType::kTimeline, 0, 0x1007, 0x1d), Timeline{9});
            })),
            "070008000000000007100000000000001d0000000000000000000000000000000000000000000000"
            "0900000000000000");
  EXPECT_EQ(hex(encoded([](Encoder& out) {
              encode_snapshot(out, header(RecordType::kSnapshot, 0, 0x1008, 0x1e),
                              {Consistency::kApplication, "a", "bc"});
            })),
            "080008000000000008100000000000001e0000000000000000000000000000000000000000000000"
            "0101006102006263");
}

TEST(Record, SnapshotsAreDecodedAndChecked) {
  const Bytes good = encoded([](Encoder& out) {
    encode_snapshot(out, header(RecordType::kSnapshot, 0, 9, 9),
                    {Consistency::kHookFailed, "daily", "before the upgrade"});
  });
  const auto body = decode_snapshot(*decode(good));
  ASSERT_TRUE(body.has_value());
  EXPECT_EQ(body->consistency, Consistency::kHookFailed);
  EXPECT_EQ(body->name, "daily");
  EXPECT_EQ(body->label, "before the upgrade");
  const auto refused = [&](std::size_t at, std::uint64_t value, int width) {
    Bytes bad = good;
    store_le(bad.data() + at, value, width);
    return !decode_snapshot(*decode(bad)).has_value();
  };
  EXPECT_TRUE(refused(kRecordHeaderBytes, 3, 1));      // consistency
  EXPECT_TRUE(refused(kRecordHeaderBytes + 1, 0, 2));  // no name
  EXPECT_TRUE(refused(kRecordHeaderBytes + 1, 6, 2));  // lengths do not add up
}

TEST(Record, DigestChainGolden) {
  const Digest first = chain(Digest{0}, write_record());
  EXPECT_EQ(first.value, 0xb8ab6027cfcba4b2ull);
  EXPECT_EQ(chain(first, discard_record()).value, 0xe1eacb93b1d4d2ceull);
}

TEST(Record, DecodesWhatWasEncoded) {
  const Bytes bytes = write_record();
  const auto record = decode(bytes);
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->header, header(RecordType::kWrite, 3, 0x1001, 0x17, 0x55, 2));
  EXPECT_TRUE(record->has_data());
  EXPECT_EQ(record->crc(0), 0xdeadbeefu);
  EXPECT_EQ(record->crc(1), 0x01020304u);
  EXPECT_EQ(hex(record->canonical), hex(bytes));

  const Bytes create = encoded([](Encoder& out) {
    encode_volume_create(out, header(RecordType::kVolumeCreate, 5, 1, 1), {1u << 30, 4096, "a b"});
  });
  const auto created = decode(create);
  ASSERT_TRUE(created.has_value());
  const auto body = decode_volume_create(*created);
  ASSERT_TRUE(body.has_value());
  EXPECT_EQ(body->size_bytes, 1u << 30);
  EXPECT_EQ(body->logical_block_bytes, 4096u);
  EXPECT_EQ(body->name, "a b");
}

TEST(Record, RefusesWhatNoWriterMakes) {
  const auto refused = [](Bytes bytes, std::size_t at, std::uint64_t value, int width) {
    store_le(bytes.data() + at, value, width);
    return !decode(bytes).has_value();
  };
  EXPECT_TRUE(refused(write_record(), 0, 0, 1));
  EXPECT_TRUE(refused(write_record(), 0, 9, 1));
  EXPECT_TRUE(refused(write_record(), 2, 4, 2));   // body and count differ
  EXPECT_TRUE(refused(write_record(), 32, 0, 4));  // no block
  EXPECT_TRUE(refused(discard_record(), 32, 0, 4));
  EXPECT_TRUE(refused(discard_record(), 32, kRangeBlocksMax + 1, 4));
  EXPECT_FALSE(refused(discard_record(), 32, kRangeBlocksMax, 4));
  EXPECT_TRUE(refused(discard_record(), 24, (std::uint64_t{1} << 52) + 1, 8));
  const Bytes resize = encoded([](Encoder& out) {
    encode_volume_resize(out, header(RecordType::kVolumeResize, 5, 1, 1), 4096);
  });
  EXPECT_FALSE(refused(resize, kRecordHeaderBytes, kVolumeBytesMax, 8));
  EXPECT_TRUE(refused(resize, kRecordHeaderBytes, kVolumeBytesMax + 512, 8));
  EXPECT_TRUE(refused(resize, kRecordHeaderBytes, 0, 8));
}

TEST(Record, RefusesImpossibleVolumes) {
  const auto refused = [](VolumeCreateBody body) {
    const Bytes bytes = encoded([&](Encoder& out) {
      encode_volume_create(out, header(RecordType::kVolumeCreate, 5, 1, 1), body);
    });
    const auto record = decode(bytes);
    return !record || !decode_volume_create(*record);
  };
  EXPECT_FALSE(refused({4096, 512, "v"}));
  EXPECT_TRUE(refused({4096, 512, ""}));
  EXPECT_TRUE(refused({4096, 1024, "v"}));
  EXPECT_TRUE(refused({0, 512, "v"}));
  EXPECT_TRUE(refused({4096 + 512, 4096, "v"}));
  EXPECT_TRUE(refused({kVolumeBytesMax + 4096, 4096, "v"}));
}

TEST(Record, UnknownFeatureIsUnsupported) {
  for (const std::size_t at : {std::size_t{1}, std::size_t{36}}) {
    Bytes bytes = write_record();
    bytes[at] = std::byte{1};
    const auto record = decode(bytes);
    ASSERT_FALSE(record.has_value());
    EXPECT_EQ(record.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(record.error().message.find("4097"), std::string::npos) << record.error().message;
  }
}

TEST(Record, EveryTruncationIsRefused) {
  const Bytes bytes = write_record();
  for (std::size_t n = 0; n < bytes.size(); ++n) {
    // A copy of exactly n bytes, so that reading further is seen by the sanitizer.
    const Bytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n));
    EXPECT_FALSE(decode(cut).has_value());
  }
}

TEST(Record, NoiseNeverReadsTooFar) {
  TestRandom random(5);
  for (int round = 0; round < 20000; ++round) {
    Bytes bytes(random.below(120));
    for (auto& b : bytes) b = static_cast<std::byte>(random.below(3) == 0 ? random.next() : 0);
    if (!bytes.empty()) bytes[0] = static_cast<std::byte>(random.below(9));
    const auto record = decode(bytes);
    if (!record) continue;
    EXPECT_LE(record->canonical.size(), bytes.size());
    EXPECT_EQ(record->canonical.size(), kRecordHeaderBytes + record->body.size());
    (void)decode_volume_create(*record);
  }
}

// --- pages ---------------------------------------------------------------------------------------

LogPageHeader page_header() {
  LogPageHeader h;
  h.group = counting_uuid(0xa0);
  h.at = PoolBlock{0x4321};
  h.before = {Timeline{2}, Lsn{0x1000}, Digest{0xd1d1d1d1d1d1d1d1}, UtcNs{0x16}, 0x9000};
  h.record_count = 2;
  h.boot = 0xb007b007;
  h.first_of_boot = true;
  h.durable = Lsn{0xff0};
  return h;
}

Block two_record_page(LogPageHeader h = page_header()) {
  Block page;
  page.fill(std::byte{0xee});  // finish_log_page() clears what is not used
  Encoder body{std::span(page).subspan(kLogPageHeaderBytes)};
  body.raw(write_record());
  const Extent places[] = {{PoolBlock{0x5000}, 1}, {PoolBlock{0x6000}, 1}};
  encode_placement(body, places);
  body.raw(discard_record());
  encode_placement(body, {});
  h.used_bytes = static_cast<std::uint32_t>(body.position());
  finish_log_page(Page(page), h);
  return page;
}

Result<std::vector<PlacedRecord>> decode_page(ConstPage page) {
  auto h = decode_log_page_header(page);
  if (!h) return Error(std::move(h.error()));
  return decode_log_page_body(page, *h);
}

TEST(LogPage, GoldenBytes) {
  expect_golden(two_record_page(),
                "544c4f47010001002e5ab92178000000a0a1a2a3a4a5a6a7a8a9aaabacadaeaf2143000000000000"
                "00100000000000000200000000000000d1d1d1d1d1d1d1d107b007b000000000f00f000000000000"
                "02000000000000000090000000000000160000000000000000000000000000000000000000000000"
                "00000000000000000100080003000000011000000000000017000000000000005500000000000000"
                "0200000000000000efbeadde04030201020000000050000000000000010000000060000000000000"
                "0100000002000000030000000210000000000000180000000000000066000000000000000001");
}

TEST(LogPage, DecodesWhatWasEncoded) {
  const Block page = two_record_page();
  const auto h = decode_log_page_header(ConstPage(page));
  ASSERT_TRUE(h.has_value());
  LogPageHeader expected = page_header();
  expected.used_bytes = 120;
  EXPECT_EQ(*h, expected);
  const auto records = decode_log_page_body(ConstPage(page), *h);
  ASSERT_TRUE(records.has_value());
  ASSERT_EQ(records->size(), 2u);
  EXPECT_EQ((*records)[0].record.header.lsn, Lsn{0x1001});
  EXPECT_EQ((*records)[0].extents,
            (std::vector<Extent>{{PoolBlock{0x5000}, 1}, {PoolBlock{0x6000}, 1}}));
  EXPECT_EQ((*records)[1].record.header.type, RecordType::kDiscard);
  EXPECT_TRUE((*records)[1].extents.empty());
  EXPECT_EQ(placed_record_bytes(write_record().size(), 2) +
                placed_record_bytes(discard_record().size(), 0),
            expected.used_bytes);
}

TEST(LogPage, EveryBitCounts) { expect_every_flip_refused(two_record_page(), decode_page); }

TEST(LogPage, NoiseIsRefused) { expect_noise_refused(two_record_page(), decode_page, 6); }

/// A page that is whole but says something else: `change` edits it before it is sealed again.
template <class Change>
Error error_of(Change change) {
  Block page = two_record_page();
  change(page);
  seal_page(page, 8);
  const auto records = decode_page(ConstPage(page));
  return records ? Error{ErrorCode::kCancelled, "accepted"} : records.error();
}

TEST(LogPage, NewerVersionAndUnknownFlagsAreUnsupported) {
  const Error version = error_of([](Block& page) { store_le(&page[4], 2, 2); });
  EXPECT_EQ(version.code, ErrorCode::kUnsupported);
  EXPECT_NE(version.message.find("version 2"), std::string::npos) << version.message;
  const Error flags = error_of([](Block& page) { store_le(&page[6], 3, 2); });
  EXPECT_EQ(flags.code, ErrorCode::kUnsupported);
  EXPECT_NE(flags.message.find("upgrade"), std::string::npos) << flags.message;
}

TEST(LogPage, RefusesContradictions) {
  constexpr std::size_t kPlacement = kLogPageHeaderBytes + 48, kSecond = kPlacement + 28;
  const auto corrupt = [](std::size_t at, std::uint64_t value, int width) {
    return error_of([&](Block& page) { store_le(&page[at], value, width); }).code ==
           ErrorCode::kCorrupt;
  };
  EXPECT_FALSE(corrupt(56, 1, 8));                     // only the digest differs
  EXPECT_TRUE(corrupt(12, kLogPageBodyBytes + 1, 4));  // used_bytes
  EXPECT_TRUE(corrupt(12, 119, 4));                    // cut
  EXPECT_TRUE(corrupt(12, 121, 4));                    // left over
  EXPECT_TRUE(corrupt(48, 1, 4));                      // too few records
  EXPECT_TRUE(corrupt(48, UINT32_MAX, 4));             // too many
  EXPECT_TRUE(corrupt(40, 0x1001, 8));                 // position in front
  EXPECT_TRUE(corrupt(kSecond + 8, 0x1003, 8));        // hole between records
  EXPECT_TRUE(corrupt(kPlacement, 1, 4));              // extents
  EXPECT_TRUE(corrupt(kPlacement, UINT32_MAX, 4));
  EXPECT_TRUE(corrupt(kPlacement + 12, 2, 4));  // more blocks than written
  EXPECT_TRUE(corrupt(kPlacement + 12, 0, 4));  // an empty run
  EXPECT_TRUE(corrupt(kPlacement + 4, 0, 8));   // in the superblock
  EXPECT_TRUE(corrupt(kPlacement + 4, 1, 8));
  EXPECT_TRUE(corrupt(kPlacement + 4, kPoolBlockMax + 1, 8));  // a map entry cannot hold it
  EXPECT_TRUE(corrupt(kPlacement + 4, UINT64_MAX, 8));
}

TEST(LogPage, RandomPagesSurvive) {
  TestRandom random(7);
  for (int round = 0; round < 300; ++round) {
    LogPageHeader h;
    h.group = random.uuid();
    h.at = PoolBlock{random.next()};
    h.before = {Timeline{random.next()}, Lsn{random.bits(50)}, Digest{random.next()},
                UtcNs{random.next()}, random.next()};
    h.boot = random.next();
    h.first_of_boot = random.below(2) != 0;
    h.durable = Lsn{random.next()};
    h.next_zone = ZoneId{static_cast<std::uint32_t>(random.next())};
    Block page;
    Encoder body{std::span(page).subspan(kLogPageHeaderBytes)};
    std::vector<RecordHeader> headers;
    std::vector<std::vector<Extent>> places;
    while (body.position() + 700 < kLogPageBodyBytes &&
           (headers.empty() || random.below(12) != 0)) {
      RecordHeader r =
          header(RecordType::kWrite, static_cast<std::uint32_t>(random.next()),
                 h.before.lsn.value + headers.size() + 1, random.next(), random.below(1 << 30), 0);
      std::vector<Extent> extents;
      if (random.below(4) == 0) {
        r.type = RecordType::kDiscard;
        r.block_count = static_cast<std::uint32_t>(1 + random.below(kRangeBlocksMax));
        encode_range(body, r);
      } else {
        const auto runs = 1 + random.below(8);
        for (std::uint64_t i = 0; i < runs; ++i) {
          extents.push_back(
              {PoolBlock{2 + random.bits(39)}, static_cast<std::uint32_t>(1 + random.below(8))});
          r.block_count += extents.back().count;
        }
        std::vector<std::uint32_t> crcs(r.block_count);
        for (auto& crc : crcs) crc = static_cast<std::uint32_t>(random.next());
        encode_write(body, r, crcs);
      }
      encode_placement(body, extents);
      headers.push_back(r);
      places.push_back(std::move(extents));
    }
    h.record_count = static_cast<std::uint32_t>(headers.size());
    h.used_bytes = static_cast<std::uint32_t>(body.position());
    finish_log_page(Page(page), h);
    const auto back = decode_log_page_header(ConstPage(page));
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(*back, h);
    const auto records = decode_log_page_body(ConstPage(page), *back);
    ASSERT_TRUE(records.has_value()) << records.error().message;
    ASSERT_EQ(records->size(), headers.size());
    for (std::size_t i = 0; i < headers.size(); ++i) {
      EXPECT_EQ((*records)[i].record.header, headers[i]);
      EXPECT_EQ((*records)[i].extents, places[i]);
    }
  }
}

/// It would follow itself, and whoever reads such a log would never come to its end.
TEST(LogPage, WithoutARecordIsRefused) {
  Block page = two_record_page();
  LogPageHeader h = page_header();
  h.record_count = 0;
  h.used_bytes = 0;
  finish_log_page(Page(page), h);
  const auto back = decode_log_page_header(ConstPage(page));
  ASSERT_FALSE(back.has_value());
  EXPECT_EQ(back.error().code, ErrorCode::kCorrupt);
}

/// Bodies of noise behind a valid header and checksum: what only a bug could write must be refused,
/// not believed or read beyond.
TEST(LogPage, SealedNoiseNeverReadsTooFar) {
  TestRandom random(8);
  for (int round = 0; round < 3000; ++round) {
    Block page = two_record_page();
    const auto changes = 1 + random.below(6);
    for (std::uint64_t i = 0; i < changes; ++i) {
      page[12 + random.below(kLogPageHeaderBytes + 120 - 12)] =
          static_cast<std::byte>(random.next());
    }
    seal_page(page, 8);
    const auto records = decode_page(ConstPage(page));
    if (!records) continue;
    for (const auto& placed : *records) {
      std::uint64_t blocks = 0;
      for (const auto& e : placed.extents) blocks += e.count;
      EXPECT_EQ(blocks, placed.record.has_data() ? placed.record.header.block_count : 0);
    }
  }
}

}  // namespace
}  // namespace tandem::format
