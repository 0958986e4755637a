// Pools that nobody wrote: sound by every checksum, and impossible. A record behind the log's end
// that cannot follow, and chains that lead back into themselves. Recovery refuses the first and
// says which record it is, comes to an end in the second, and changes nothing in either case.
#include <gtest/gtest.h>

#include <cstring>

#include "format/checksum.h"
#include "format/log_page.h"
#include "tests/sim/store_node.h"

namespace tandem::sim {
namespace {

using format::RecordHeader;
using format::RecordType;
using Block = std::array<std::byte, kBlockBytes>;
using Bytes = std::vector<std::byte>;

constexpr std::uint64_t kVolumeBlocks = 64;
constexpr std::size_t kCrcOffset = 8, kChainNextCrcOffset = 24;

StoreShape shape() {
  StoreShape shape;
  shape.disk_bytes = 12 << 20;
  return shape;
}

/// The pool of a killed node: volume "v" of group "g" with id 1, snapshot "s", blocks that died
/// since and that a mirror may ask for, all in a checkpoint, and one write behind it.
class ForgedPool {
 public:
  ForgedPool() : image_(StoreNode::formatted(shape(), 1)) {
    const SimLog log;  // it is killed on purpose
    SimRuntime world(1);
    StoreNode node(world, image_, shape(), 1);
    CHECK(world.run(node.start()));
    auto made =
        world.run(node.pool().create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
    CHECK(made);
    store::Group& group = **made;
    group.serve(true);
    CHECK(world.run(group.create_volume("v", kVolumeBlocks * kBlockBytes, 4096)));
    const auto write = [&](std::uint64_t block, int stamp) {
      auto volume = group.open_volume("v");
      IoBuffer data = IoBuffer::on_heap(kBlockBytes);
      std::memset(data.data(), stamp, data.size());
      CHECK(volume && world.run((*volume)->write(block * kBlockBytes, std::move(data), {})));
    };
    for (std::uint64_t block = 0; block < 8; ++block) write(block, 1);
    CHECK(world.run(group.create_snapshot({.name = "s", .label = ""})));
    group.set_log_hold(group.head().lsn);
    for (int stamp = 2; stamp < 5; ++stamp) {
      for (std::uint64_t block = 0; block < 8; ++block) write(block, stamp);
    }
    CHECK(world.run(group.checkpoint()));
    write(9, 9);
    CHECK(world.run(group.flush_local()));
    node.disk().power_off({.mode = CutOptions::Mode::kKeepAll});
    world.run(node.stop());
    world.run_until([&] { return node.disk().in_flight() == 0; });
    image_ = node.disk().remains();
    find();
  }

  // --- the log ---------------------------------------------------------------------------------
  const LogPoint& end() const { return end_; }
  /// What a record with this type would have for a header, behind `behind` others.
  RecordHeader next(RecordType type, VolumeId volume, std::uint64_t behind = 0) const {
    RecordHeader header{.type = type, .volume = volume};
    header.lsn = Lsn{end_.lsn.value + 1 + behind};
    header.utc = UtcNs{end_.utc.value + 1 + behind};
    return header;
  }
  RecordHeader range(RecordType type, std::uint64_t first, std::uint32_t count) const {
    RecordHeader header = next(type, VolumeId{1});
    header.first_block = VolumeBlock{first};
    header.block_count = count;
    return header;
  }
  /// One page behind the last one, by the same writer. `places`: of each record's data.
  void append(const std::vector<Bytes>& records, const std::vector<format::Extent>& places = {},
              ZoneId next_zone = {}) {
    Block page{};
    format::Encoder body(std::span<std::byte>(page).subspan(format::kLogPageHeaderBytes));
    for (const auto& record : records) {
      body.raw(record);
      format::encode_placement(body, places);
    }
    format::LogPageHeader header = last_page_;
    header.at = header.at.next();
    CHECK(is_last_of_zone(header.at) == (next_zone != ZoneId{}));
    CHECK(header.at.value % zone_blocks() != 0);
    header.before = end_;
    header.record_count = static_cast<std::uint32_t>(records.size());
    header.used_bytes = static_cast<std::uint32_t>(body.position());
    header.first_of_boot = false;
    header.durable = end_.lsn;
    header.next_zone = next_zone;
    format::finish_log_page(page, header);
    put(header.at, page);
  }
  /// Pages with a record each, up to the last but one of the log's zone. What follows them follows
  /// the last.
  void fill_zone() {
    while (!is_last_of_zone(last_page_.at.next())) {
      append({range_record()});
      find();
    }
  }

  // --- the checkpoint --------------------------------------------------------------------------
  format::Anchor& anchor() { return anchor_; }
  format::Descriptor descriptor() const {
    Bytes bytes;
    for (PoolBlock at : chain_) {
      const Block block = get(at);
      const auto part = format::decode_chain_block(block);
      bytes.insert(bytes.end(), part->payload.begin(), part->payload.end());
    }
    return format::decode_descriptor(bytes).value();
  }
  /// In the same blocks; it must be as long as it was.
  void put_descriptor(const format::Descriptor& descriptor) {
    const Bytes bytes = format::encode_descriptor(descriptor);
    CHECK(bytes.size() == anchor_.descriptor_bytes);
    PoolBlock next;
    std::uint32_t next_crc = 0;
    for (std::size_t i = chain_.size(); i-- > 0;) {
      const std::size_t from = std::min(bytes.size(), i * format::kChainPayloadBytes);
      const std::size_t size = std::min(bytes.size() - from, format::kChainPayloadBytes);
      Block block{};
      format::encode_chain_block(block, {next, next_crc, std::span(bytes).subspan(from, size)});
      put(chain_[i], block);
      next = chain_[i];
      next_crc = format::crc32c(block);
    }
    anchor_.descriptor_crc32c = next_crc;
    put_anchor();
  }
  /// A chain of one block that names itself as its next, with a checksum that is right.
  void put_circle(std::span<const std::byte> payload) {
    Block block{};
    format::encode_chain_block(block, {chain_[0], 0, payload});
    close_circle(block);
    put(chain_[0], block);
    anchor_.descriptor_crc32c = format::crc32c(block);
    put_anchor();
  }
  void put_anchor() {
    Block block{};
    format::encode_anchor(block, anchor_);
    put(anchor_place_, block);
  }

  Block get(PoolBlock at) const {
    Block block;
    image_.read(at.value * kBlockBytes, block);
    return block;
  }
  void put(PoolBlock at, const Block& block) { image_.write(at.value * kBlockBytes, block); }
  const SimImage& image() const { return image_; }

 private:
  static std::uint64_t zone_blocks() { return shape().zone_bytes / kBlockBytes; }
  static bool is_last_of_zone(PoolBlock at) {
    return at.value % zone_blocks() == zone_blocks() - 1;
  }
  Bytes range_record() const {
    Bytes bytes(1024);
    format::Encoder out(bytes);
    format::encode_range(out, range(RecordType::kZero, 0, 1));
    bytes.resize(out.position());
    return bytes;
  }
  void find() {
    chain_.clear();
    for (std::uint64_t i = 0; i < image_.size_bytes() / kBlockBytes; ++i) {
      const PoolBlock at{i};
      const Block block = get(at);
      if (const auto anchor = format::decode_anchor(block);
          anchor && anchor->live && anchor->sequence >= anchor_.sequence) {
        anchor_ = *anchor;
        anchor_place_ = at;
      }
      const auto page = format::decode_log_page_header(block);
      if (!page || page->before.lsn < last_page_.before.lsn) continue;
      last_page_ = *page;
      end_ = page->before;
      const auto records = format::decode_log_page_body(block, *page);
      for (const auto& placed : records.value()) {
        end_.lsn = placed.record.header.lsn;
        end_.utc = placed.record.header.utc;
        end_.digest = format::chain(end_.digest, placed.record.canonical);
        end_.payload_bytes += placed.record.has_data() ? kBlockBytes : 0;
      }
    }
    for (PoolBlock at = anchor_.descriptor; at.value != 0;) {
      chain_.push_back(at);
      const Block block = get(at);
      at = format::decode_chain_block(block)->next;
    }
  }

  /// The checksum of a whole block is an affine function of the 32 bits that name the next block's:
  /// solved for the value that is its own. Where there is none, another unused byte gives one.
  static void close_circle(Block& block) {
    const auto checksum_with = [&block](std::uint32_t named) {
      format::store_le(block.data() + kChainNextCrcOffset, named, 4);
      format::seal_page(block, kCrcOffset);
      return format::crc32c(block);
    };
    for (int unused = 0; unused < 256; ++unused) {
      block[40] = static_cast<std::byte>(unused);
      const std::uint32_t constant = checksum_with(0);
      // Row r: bit c is set when bit c of the name changes bit r of (checksum ^ name).
      std::array<std::uint64_t, 32> rows{};
      for (int c = 0; c < 32; ++c) {
        const std::uint32_t bit = 1u << c;
        const std::uint32_t changes = checksum_with(bit) ^ constant ^ bit;
        for (int r = 0; r < 32; ++r) rows[r] |= std::uint64_t{(changes >> r) & 1} << c;
      }
      for (int r = 0; r < 32; ++r) rows[r] |= std::uint64_t{(constant >> r) & 1} << 32;
      if (const auto named = solved(rows); named && checksum_with(*named) == *named) return;
    }
    CHECK(false);
  }
  /// Gauss; bit 32 of a row is its right side.
  static std::optional<std::uint32_t> solved(std::array<std::uint64_t, 32> rows) {
    for (int c = 0; c < 32; ++c) {
      const auto pivot = std::find_if(rows.begin() + c, rows.end(),
                                      [c](std::uint64_t row) { return row >> c & 1; });
      if (pivot == rows.end()) return std::nullopt;
      std::iter_swap(rows.begin() + c, pivot);
      for (int r = 0; r < 32; ++r) {
        if (r != c && (rows[r] >> c & 1) != 0) rows[r] ^= rows[c];
      }
    }
    std::uint32_t value = 0;
    for (int c = 0; c < 32; ++c) value |= static_cast<std::uint32_t>(rows[c] >> 32 & 1) << c;
    return value;
  }

  SimImage image_;
  format::LogPageHeader last_page_;
  LogPoint end_;
  format::Anchor anchor_;
  PoolBlock anchor_place_;
  std::vector<PoolBlock> chain_;
};

/// A node that opens a forged pool: in bounded time, or the process ends.
struct Opened {
  explicit Opened(const SimImage& image) : node(world, image, shape(), 2) {
    const Status opened = world.run(node.open(), std::chrono::minutes(1));
    EXPECT_TRUE(opened) << opened.error().message;
    changes = node.disk().counters().changes();
  }
  ~Opened() { world.run(node.stop()); }
  std::string refusal() {
    const auto& broken = node.pool().broken_groups();
    if (broken.empty()) return "";
    EXPECT_EQ(broken.front().error.code, ErrorCode::kCorrupt);
    EXPECT_EQ(changes, 0u) << "a group that is refused was changed";
    return broken.front().error.message;
  }
  SimLog log;
  SimRuntime world{2};
  StoreNode node;
  std::uint64_t changes = 0;
};

template <class Encode>
Bytes encoded(Encode&& encode) {
  Bytes bytes(1024);
  format::Encoder out(bytes);
  encode(out);
  bytes.resize(out.position());
  return bytes;
}

Bytes range(const RecordHeader& header) {
  return encoded([&](auto& out) { format::encode_range(out, header); });
}
Bytes resize(const RecordHeader& header, std::uint64_t blocks) {
  return encoded(
      [&](auto& out) { format::encode_volume_resize(out, header, blocks * kBlockBytes); });
}
Bytes create(const RecordHeader& header, std::string name) {
  return encoded([&](auto& out) {
    format::encode_volume_create(out, header, {kBlockBytes, 4096, std::move(name)});
  });
}

TEST(ForgedLog, WhatCanFollowIsReplayed) {
  ForgedPool pool;
  pool.append({resize(pool.next(RecordType::kVolumeResize, VolumeId{1}), kVolumeBlocks + 8),
               create(pool.next(RecordType::kVolumeCreate, VolumeId{2}, 1), "w"),
               range(pool.next(RecordType::kVolumeDelete, VolumeId{2}, 2))});
  Opened opened(pool.image());
  ASSERT_EQ(opened.refusal(), "") << "or the tests below prove nothing";
  const store::Group& group = *opened.node.group();
  EXPECT_EQ(group.head().lsn.value, pool.end().lsn.value + 3);
  ASSERT_EQ(group.volumes().size(), 1u);
  EXPECT_EQ(group.volumes()[0].size_bytes, (kVolumeBlocks + 8) * kBlockBytes);
}

/// A write may pass the record that deletes its volume: what is of no volume changes nothing.
TEST(ForgedLog, WhatIsOfNoVolumeChangesNothing) {
  for (const auto type : {RecordType::kVolumeResize, RecordType::kZero}) {
    ForgedPool pool;
    RecordHeader header = pool.range(type, 0, 1);
    header.volume = VolumeId{77};
    if (type == RecordType::kVolumeResize) header = pool.next(type, VolumeId{77});
    pool.append({type == RecordType::kZero ? range(header) : resize(header, 1)});
    Opened opened(pool.image());
    ASSERT_EQ(opened.refusal(), "");
    EXPECT_EQ(opened.node.group()->head().lsn, pool.end().lsn.next());
    EXPECT_EQ(opened.node.group()->volumes().size(), 1u);
    EXPECT_EQ(opened.node.group()->volumes()[0].size_bytes, kVolumeBlocks * kBlockBytes);
  }
}

/// Found by simulate: a page whose data never arrived is cut off, lies there still, and names a
/// zone that was given back since. One that counts must not.
TEST(ForgedLog, APageThatDoesNotCountMayLeadNowhere) {
  for (const bool is_whole : {false, true}) {
    SCOPED_TRACE(is_whole);
    ForgedPool pool;
    pool.fill_zone();
    const PoolBlock place{shape().disk_bytes / kBlockBytes - 1};
    Block data{};
    data[0] = std::byte{1};
    pool.put(place, data);
    const std::uint32_t crc = format::crc32c(data) ^ (is_whole ? 0u : 1u);
    const RecordHeader header = pool.range(RecordType::kWrite, 3, 1);
    const Bytes write = encoded([&](auto& out) { format::encode_write(out, header, {{crc}}); });
    // The last zone of the pool is nobody's.
    const auto zones = shape().disk_bytes / shape().zone_bytes;
    pool.append({write}, {{place, 1}}, ZoneId{static_cast<std::uint32_t>(zones - 1)});
    Opened opened(pool.image());
    if (is_whole) {
      EXPECT_NE(opened.refusal().find("which is not the group's"), std::string::npos);
    } else {
      ASSERT_EQ(opened.refusal(), "");
      EXPECT_EQ(opened.node.group()->head().lsn, pool.end().lsn);
    }
  }
}

void expect_refused(const std::vector<Bytes>& records, ForgedPool& pool, const std::string& why) {
  pool.append(records);
  Opened opened(pool.image());
  const auto refusal = opened.refusal();
  EXPECT_NE(refusal.find(why), std::string::npos) << "\"" << refusal << "\", wanted: " << why;
}

TEST(ForgedLog, ARecordThatCannotFollowIsRefused) {
  ForgedPool pool;
  const std::string which = "LSN " + std::to_string(pool.end().lsn.value + 1) + " ";
  const auto refused = [&](const Bytes& record, const std::string& why) {
    SCOPED_TRACE(why);
    expect_refused({record}, pool, which + why);
  };
  refused(create(pool.next(RecordType::kVolumeCreate, VolumeId{1}), "again"),
          "cannot be applied: volume id is in use");
  refused(resize(pool.next(RecordType::kVolumeResize, VolumeId{1}), kVolumeBlocks - 1),
          "cannot be applied: volume shrinks");
  for (const auto type : {RecordType::kZero, RecordType::kDiscard}) {
    refused(range(pool.range(type, kVolumeBlocks, 1)),
            "cannot be applied: range is outside of its volume");
    refused(range(pool.range(type, kVolumeBlocks - 1, 2)),
            "cannot be applied: range is outside of its volume");
  }
  refused(encoded([&](auto& out) {
            format::encode_timeline(out, pool.next(RecordType::kTimeline, VolumeId{}), Timeline{1});
          }),
          "cannot be applied: timeline runs backwards");
  refused(
      encoded([&](auto& out) {
        format::encode_revert(out, pool.next(RecordType::kRevert, VolumeId{}), {Lsn{3}, "branch"});
      }),
      "goes back to a state that is not kept here");
}

TEST(ForgedLog, NothingFollowsASnapshotInItsPage) {
  ForgedPool pool;
  const auto snapshot = encoded([&](auto& out) {
    format::encode_snapshot(out, pool.next(RecordType::kSnapshot, VolumeId{}),
                            {format::Consistency::kCrash, "t", ""});
  });
  const auto behind = range(pool.next(RecordType::kVolumeDelete, VolumeId{1}, 1));
  expect_refused({snapshot, behind}, pool, "a snapshot's record is not the last of its page");
}

TEST(ForgedDescriptor, AChainThatLeadsIntoItselfEnds) {
  const Bytes payload(100, std::byte{7});
  for (const bool is_empty : {false, true}) {
    SCOPED_TRACE(is_empty ? "without payload" : "with payload");
    ForgedPool pool;
    pool.anchor().descriptor_bytes = 10 * payload.size();
    pool.put_circle(is_empty ? std::span<const std::byte>() : payload);
    Opened opened(pool.image());
    const auto refusal = opened.refusal();
    EXPECT_NE(refusal.find("its chain leads nowhere"), std::string::npos) << refusal;
    // By what it should hold, or, when it says nothing at all, by the blocks that there are.
    const auto reads = opened.node.disk().counters().reads;
    const auto blocks = shape().disk_bytes / kBlockBytes;
    EXPECT_EQ(reads >= blocks, is_empty) << reads << " reads";
    EXPECT_LT(reads, 2 * blocks);
  }
}

TEST(ForgedDescriptor, ADeadListThatLeadsIntoItselfEnds) {
  ForgedPool pool;
  auto descriptor = pool.descriptor();
  ASSERT_EQ(descriptor.dead.chunks, 1u) << "nothing died";
  const PoolBlock at = descriptor.dead.head;
  Block block = pool.get(at);
  auto chunk = format::decode_dead_chunk(block);
  ASSERT_TRUE(chunk) << chunk.error().message;
  chunk->next = at;
  format::encode_dead_chunk(block, *chunk);
  pool.put(at, block);
  descriptor.dead.chunks = 1000;
  descriptor.dead.entries = descriptor.dead.chunks * chunk->blocks.size();
  pool.put_descriptor(descriptor);
  Opened opened(pool.image());
  ASSERT_EQ(opened.refusal(), "") << "nobody has looked at the list yet";
  store::Group& group = *opened.node.group();
  group.serve(true);
  // No mirror needs anything any more: the list is walked, and what it has is given back.
  group.set_log_hold(std::nullopt);
  const Status done = opened.world.run(group.checkpoint(), std::chrono::minutes(1));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(done.error().message.find("dead list goes on in a block that is free"),
            std::string::npos)
      << done.error().message;
  EXPECT_TRUE(group.stopped().has_value());
}

}  // namespace
}  // namespace tandem::sim
