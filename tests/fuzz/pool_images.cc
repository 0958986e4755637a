#include "tests/fuzz/pool_images.h"

#include <set>

#include "format/checksum.h"
#include "format/log_page.h"
#include "format/map_node.h"
#include "store/group.h"

namespace tandem::fuzz {
namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t kDiskBytes = 8 << 20;
constexpr std::uint64_t kZoneBytes = 256 << 10;
constexpr std::size_t kCrcOffset = 8;
constexpr std::size_t kEditsMax = 64;
constexpr std::size_t kDataBlocks = 2;  // that are edited, too

// ---- a life of a pool -----------------------------------------------------------------------

/// A pool's first life. What it is asked for must succeed.
class Life {
 public:
  Life(sim::SimRuntime& world, store::Pool& pool) : world_(world), pool_(pool) {
    auto made = world_.run(pool.create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync));
    CHECK(made.has_value());
    group_ = *made;
    group_->serve(true);
  }

  /// Everything that a descriptor and a log can say, in as few blocks as that takes.
  void live() {
    group_->set_history_policy({.window = 1h});
    must(group_->create_volume("a", 2 << 20, 512));
    must(group_->create_volume("b", 64 << 10, 4096));
    must(group_->create_volume("c", 64 << 10, 4096));
    write("a", 0, 64 << 10, 1);
    write("a", 1536 << 10, 8 << 10, 2);  // another leaf
    write("b", 4096, 4096, 3);
    must(group_->create_snapshot({.name = "first", .label = "of a life"}));
    write("a", 8 << 10, 16 << 10, 4);
    must(open("a")->write_zeroes(32 << 10, 8 << 10, {.no_hole = true}));
    must(open("a")->discard(48 << 10, 8 << 10, {}));
    must(pool_.clone_group(*group_, "first", "k"));
    must(group_->set_settings({{"key", "value"}}));
    must(group_->set_slots({{.address = "peer:1", .written = Lsn{3}, .durable = Lsn{3}}}));
    must(group_->rollback("first", "abandoned"));
    write("b", 0, 8 << 10, 5);
    must(group_->delete_volume("c"));
    must(group_->checkpoint());
    // Behind the checkpoint: one log page for nearly each.
    write("a", 4096, 12 << 10, 6);
    must(group_->resize_volume("b", 2 << 20));
    write("b", 1 << 20, 4096, 7);
    must(open("a")->discard(0, 4096, {}));
    must(open("a")->write_zeroes(16 << 10, 4096, {.no_hole = true}));
    must(group_->flush_local());
    must(group_->create_volume("d", 8 << 10, 512));
    write("d", 0, 8 << 10, 8);
    must(group_->delete_volume("b"));
    write("a", 0, 4096, 9);
  }
  void become_mirror() { must(group_->set_role(Role::kMirror)); }

 private:
  template <class R>
  void must(Task<R> task) {
    const R done = world_.run(std::move(task));
    CHECK(done.has_value());
  }
  std::shared_ptr<Volume> open(const char* name) {
    auto volume = group_->open_volume(name);
    CHECK(volume.has_value());
    return std::move(*volume);
  }
  void write(const char* name, std::uint64_t offset, std::uint64_t bytes, int stamp) {
    IoBuffer data = IoBuffer::on_heap(bytes);
    std::memset(data.data(), stamp, bytes);
    must(open(name)->write(offset, std::move(data), {}));
  }

  sim::SimRuntime& world_;
  store::Pool& pool_;
  store::Group* group_;
};

enum class End { kPowerCut, kStop, kMirror };

sim::SimImage image_of_a_life(End end) {
  sim::SimRuntime world(7);
  sim::SimDisk disk(world, sim::SimImage(kDiskBytes), {.seed = 7});
  HeapBuffers buffers;
  store::FormatOptions options;
  options.zone_bytes = kZoneBytes;
  CHECK(world.run(store::Pool::format(world.runtime(), disk, options)).has_value());
  auto pool = world.run(store::Pool::open(world.runtime(), disk, buffers.pool(), store_options()));
  CHECK(pool.has_value());
  Life life(world, **pool);
  life.live();
  if (end == End::kMirror) life.become_mirror();
  if (end == End::kPowerCut) disk.power_off({.mode = sim::CutOptions::Mode::kKeepAll});
  world.run((*pool)->close());
  pool->reset();
  world.run_until([&] { return disk.in_flight() == 0; });
  return disk.remains();
}

// ---- what blocks say of each other ----------------------------------------------------------

format::Page page_of(std::vector<std::byte>& block) { return format::Page(block); }

bool has_page_checksum(const std::vector<std::byte>& block) {
  return format::page_is_whole(block, kCrcOffset);
}

/// What a volume holds here is one byte, again and again.
bool is_data(const std::vector<std::byte>& block) {
  return std::all_of(block.begin(), block.end(), [&](std::byte b) { return b == block.front(); });
}

/// Without the zeroes at its end, but for the next field.
std::size_t bytes_of(const std::vector<std::byte>& block) {
  const auto last =
      std::find_if(block.rbegin(), block.rend(), [](std::byte b) { return b != std::byte{}; });
  return std::min<std::size_t>(static_cast<std::size_t>(block.rend() - last) + 16, block.size());
}

struct LogPage {
  format::LogPageHeader header;
  LogPoint end;
};

std::optional<LogPage> log_page(std::vector<std::byte>& block) {
  const auto header = format::decode_log_page_header(page_of(block));
  if (!header) return std::nullopt;
  const auto records = format::decode_log_page_body(page_of(block), *header);
  if (!records) return std::nullopt;
  LogPoint end = header->before;
  for (const auto& placed : *records) {
    end.lsn = placed.record.header.lsn;
    end.utc = placed.record.header.utc;
    end.digest = format::chain(end.digest, placed.record.canonical);
    if (placed.record.has_data())
      end.payload_bytes += placed.record.header.block_count * kBlockBytes;
    if (placed.record.header.type == format::RecordType::kTimeline)
      end.timeline = *format::decode_timeline(placed.record);
  }
  return LogPage{*header, end};
}

}  // namespace

store::StoreOptions store_options() {
  store::StoreOptions options;
  options.map_cache_bytes = 64 * kBlockBytes;
  options.recent_bytes_max = 256 << 10;
  options.checkpoint_log_pages = 512;
  return options;
}

PoolImage::PoolImage(sim::SimImage image) : image_(std::move(image)) {
  std::map<std::uint32_t, std::uint64_t> by_checksum;
  std::map<std::uint64_t, LogPage> log;
  std::vector<std::uint64_t> used;
  std::size_t data = 0;
  const std::uint64_t blocks = image_.size_bytes() / kBlockBytes;
  for (std::uint64_t number = 0; number < blocks; ++number) {
    Block block = read(number);
    if (std::all_of(block.begin(), block.end(), [](std::byte b) { return b == std::byte{}; }))
      continue;
    const auto anchor = format::decode_anchor(page_of(block));
    if (anchor && !anchor->live) continue;
    used.push_back(number);
    if (!is_data(block) || data++ < kDataBlocks) editable_.push_back({number, bytes_of(block)});
    by_checksum[format::crc32c(block)] = number;
    if (const auto page = log_page(block)) log[number] = *page;
  }
  // A checksum of 32 bits is found nowhere by accident, so this needs to know no format.
  for (const auto from : used) {
    const Block block = read(from);
    for (std::size_t offset = 0; offset + 4 <= kBlockBytes; ++offset) {
      const auto value = static_cast<std::uint32_t>(format::load_le(block.data() + offset, 4));
      const auto named = by_checksum.find(value);
      if (named != by_checksum.end()) named_by_[named->second].push_back({from, offset});
    }
  }
  for (const auto& [number, page] : log)
    for (const auto& [next, other] : log)
      if (other.header.before == page.end && other.header.group == page.header.group)
        next_page_[number] = next;
}

PoolImage::Block PoolImage::read(std::uint64_t number) const {
  Block block(kBlockBytes);
  image_.read(number * kBlockBytes, block);
  return block;
}

PoolImage::Block& PoolImage::change(Blocks& blocks, std::uint64_t number) const {
  const auto found = blocks.find(number);
  return found != blocks.end() ? found->second : blocks.emplace(number, read(number)).first->second;
}

/// Which block, where in it, what: bytes, an addition to a number, or another block's content.
void PoolImage::edit(Input& input, Blocks& blocks) const {
  const auto kind = input.u8();
  const auto& at = editable_[input.u8() % editable_.size()];
  const std::size_t offset = input.u16() % at.bytes;
  Block& block = change(blocks, at.number);
  const auto room = block.size() - offset;
  if (kind < 0x80) {
    const auto bytes = input.bytes(1 + kind % 32);
    std::copy_n(bytes.begin(), std::min(bytes.size(), room),
                block.begin() + static_cast<long>(offset));
  } else if (kind < 0xf0) {
    const int width = std::min<int>(1 << kind % 4, static_cast<int>(room));
    auto* value = block.data() + offset;
    const auto step = static_cast<std::uint64_t>(static_cast<std::int8_t>(input.u8()));
    format::store_le(value, format::load_le(value, width) + step, width);
  } else {
    block = read(editable_[input.u8() % editable_.size()].number);
  }
}

sim::SimImage PoolImage::edited(Input& input, bool sealed) const {
  Blocks blocks;
  for (std::size_t i = 0; i < kEditsMax && !input.empty(); ++i) edit(input, blocks);
  if (sealed) seal(blocks);
  sim::SimImage image = image_;
  for (const auto& [number, block] : blocks) image.write(number * kBlockBytes, block);
  return image;
}

void PoolImage::seal(Blocks& blocks) const {
  std::vector<std::uint64_t> changed;
  for (const auto& [number, block] : blocks) changed.push_back(number);
  for (const auto number : changed) seal_one(blocks, number);
}

/// And what follows from it. Checksums name blocks in no circle, nor do log pages.
void PoolImage::seal_one(Blocks& blocks, std::uint64_t number) const {
  Block& block = change(blocks, number);
  if (has_page_checksum(read(number))) format::seal_page(block, kCrcOffset);
  const auto crc = format::crc32c(block);
  if (const auto names = named_by_.find(number); names != named_by_.end()) {
    for (const auto& name : names->second) {
      Block& from = change(blocks, name.from);
      if (format::load_le(from.data() + name.offset, 4) == crc) continue;
      format::store_le(from.data() + name.offset, crc, 4);
      seal_one(blocks, name.from);
    }
  }
  chain_log(blocks, number);
}

void PoolImage::chain_log(Blocks& blocks, std::uint64_t number) const {
  const auto next = next_page_.find(number);
  if (next == next_page_.end()) return;
  const auto page = log_page(change(blocks, number));
  Block& behind = change(blocks, next->second);
  auto header = format::decode_log_page_header(page_of(behind));
  if (!page || !header || header->before == page->end) return;
  header->before = page->end;
  format::finish_log_page(page_of(behind), *header);
  seal_one(blocks, next->second);
}

const PoolImage& pool_after_power_cut() {
  static const PoolImage image(image_of_a_life(End::kPowerCut));
  return image;
}

const PoolImage& pool_after_clean_stop() {
  static const PoolImage image(image_of_a_life(End::kStop));
  return image;
}

const sim::SimImage& pool_of_a_mirror() {
  static const sim::SimImage image = image_of_a_life(End::kMirror);
  return image;
}

}  // namespace tandem::fuzz
