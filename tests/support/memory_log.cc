#include "tests/support/memory_log.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tandem/base/check.h"

namespace tandem::sim {
namespace {

constexpr std::size_t kRecordBytes = 48;

std::uint64_t mix(std::uint64_t h, std::uint64_t v) {
  h ^= v + 0x9e3779b97f4a7c15ull + (h << 6) + (h >> 2);
  h *= 0xff51afd7ed558ccdull;
  return h ^ (h >> 33);
}

std::uint64_t hash(std::span<const std::byte> bytes) {
  std::uint64_t h = bytes.size();
  for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t v;
    std::memcpy(&v, bytes.data() + i, 8);
    h = mix(h, v);
  }
  return h;
}

void put(std::vector<std::byte>& out, std::uint64_t v) {
  for (int i = 0; i < 8; ++i) out.push_back(static_cast<std::byte>(v >> (8 * i)));
}

std::uint64_t get(const std::byte* from) {
  std::uint64_t v = 0;
  for (int i = 0; i < 8; ++i) v |= static_cast<std::uint64_t>(from[i]) << (8 * i);
  return v;
}

Digest chained(Digest before, std::span<const std::byte> record) {
  return Digest{mix(before.value, hash(record))};
}

}  // namespace

IoBuffer stamped_block(VolumeBlock block, std::uint64_t stamp) {
  IoBuffer buffer = IoBuffer::on_heap(kBlockBytes);
  std::uint64_t word = mix(block.value, stamp);
  for (std::size_t i = 0; i < kBlockBytes; i += 16) {
    std::memcpy(buffer.data() + i, &stamp, 8);
    std::memcpy(buffer.data() + i + 8, &word, 8);
  }
  return buffer;
}

std::vector<std::byte> MemoryLog::Entry::encode() const {
  std::vector<std::byte> out;
  out.reserve(kRecordBytes);
  put(out, point.lsn.value);
  put(out, point.utc.value);
  put(out, opens_timeline ? 7 : 1);
  put(out, opens_timeline ? point.timeline.value : block.value);
  put(out, stamp);
  put(out, data.empty() ? 0 : hash(data.bytes()));
  return out;
}

MemoryLog::MemoryLog(SimNode& node, GroupIdentity identity, Options options)
    : node_(node), identity_(std::move(identity)), options_(options) {
  chain_[Lsn{0}] = Digest{0};
}

MemoryLog::~MemoryLog() { CHECK(work_.held() == 0); }

LogPoint MemoryLog::point_at(Lsn lsn) const {
  if (lsn == base_.lsn) return base_;
  CHECK(lsn > base_.lsn && lsn <= tail_lsn());
  return entries_[lsn.value - base_.lsn.value - 1].point;
}

std::optional<Digest> MemoryLog::chain_at(Lsn lsn) const {
  const auto found = chain_.find(lsn);
  return found == chain_.end() ? std::nullopt : std::optional(found->second);
}

std::map<VolumeBlock, std::uint64_t> MemoryLog::content() const {
  std::map<VolumeBlock, std::uint64_t> out;
  for (const auto& [block, cell] : base_cells_) out[block] = cell.stamp;
  for (const Entry& entry : entries_)
    if (!entry.opens_timeline) out[entry.block] = entry.stamp;
  return out;
}

Lsn MemoryLog::append(Entry entry) {
  const LogPoint before = point_at(tail_lsn());
  entry.point.lsn = before.lsn.next();
  entry.point.utc = std::max(entry.point.utc, before.utc);
  if (!entry.opens_timeline) entry.point.timeline = before.timeline;
  if (entry.opens_timeline) history_.push_back({entry.point.timeline, before.lsn, entry.point.utc});
  entry.point.payload_bytes = before.payload_bytes + entry.data.size();
  entry.point.digest = chained(before.digest, entry.encode());
  chain_[entry.point.lsn] = entry.point.digest;
  entries_.push_back(std::move(entry));
  return tail_lsn();
}

void MemoryLog::grew() {
  if (!listener_ || listener_posted_) return;
  listener_posted_ = true;
  node_.post([this, holder = std::make_shared<Gate::Holder>(work_.hold())] {
    listener_posted_ = false;
    if (listener_) listener_();
  });
}

Task<void> MemoryLog::device_time(Nanoseconds max) {
  const auto delay = Nanoseconds(node_.next() % (max.count() + 1));
  co_await sleep_for(node_, delay);
  while (frozen_) co_await changed_.wait();
}

// Marks records up to `upto` written after a while; the head moves over the first run of written.
Task<void> MemoryLog::write_out(Lsn upto) {
  auto holder = work_.hold();
  co_await device_time(options_.write_max);
  for (std::uint64_t lsn = head_.value + 1; lsn <= upto.value; ++lsn) {
    if (lsn > tail_lsn().value) break;
    entries_[lsn - base_.lsn.value - 1].written = true;
  }
  while (head_ < tail_lsn() && entries_[head_.value - base_.lsn.value].written)
    head_ = head_.next();
  changed_.notify_all();
}

Task<Status> MemoryLog::write(VolumeBlock block, std::uint64_t stamp) {
  auto holder = work_.hold();
  if (fenced_) co_return Error{ErrorCode::kFenced, "fenced"};
  Entry entry;
  entry.block = block;
  entry.stamp = stamp;
  entry.data = stamped_block(block, stamp);
  entry.point.utc = node_.utc();
  const Lsn lsn = append(std::move(entry));
  grew();
  // In order of completion on a device, marking only this record.
  co_await device_time(options_.write_max);
  if (lsn > base_.lsn) entries_[lsn.value - base_.lsn.value - 1].written = true;
  while (head_ < tail_lsn() && entries_[head_.value - base_.lsn.value].written)
    head_ = head_.next();
  changed_.notify_all();
  while (!fenced_ && (head_ < lsn || (remote_.written && *remote_.written < lsn)))
    co_await changed_.wait();
  if (fenced_) co_return Error{ErrorCode::kFenced, "fenced"};
  acknowledged_ = std::max(acknowledged_, lsn);
  co_return ok();
}

Task<Status> MemoryLog::flush() {
  auto holder = work_.hold();
  if (fenced_) co_return Error{ErrorCode::kFenced, "fenced"};
  const Lsn upto = acknowledged_;
  auto flushed = co_await flush_local();
  if (!flushed) co_return flushed;
  ++remote_flushes_;
  grew();
  while (!fenced_ && remote_.durable && *remote_.durable < upto) co_await changed_.wait();
  --remote_flushes_;
  if (fenced_) co_return Error{ErrorCode::kFenced, "fenced"};
  acknowledged_flush_ = std::max(acknowledged_flush_, upto);
  co_return ok();
}

void MemoryLog::fence() {
  fenced_ = true;
  changed_.notify_all();
}

Task<Status> MemoryLog::open_timeline() {
  auto holder = work_.hold();
  CHECK(head_ == tail_lsn());
  Entry entry;
  entry.opens_timeline = true;
  entry.point.timeline = history_.back().timeline.next();
  entry.point.utc = node_.utc();
  const Lsn lsn = append(std::move(entry));
  co_await write_out(lsn);
  auto flushed = co_await flush_local();
  if (flushed) fenced_ = false;
  co_return flushed;
}

void MemoryLog::power_cut() {
  CHECK(work_.held() == 0);
  const Lsn keep{durable_.value + node_.next() % (head_.value - durable_.value + 1)};
  while (tail_lsn() > keep) {
    if (entries_.back().opens_timeline) history_.pop_back();
    chain_.erase(tail_lsn());
    entries_.pop_back();
  }
  for (Entry& entry : entries_) entry.written = true;
  head_ = durable_ = keep;
  acknowledged_ = std::min(acknowledged_, keep);
  remote_ = {};
  listener_ = nullptr;
  image_.reset();
  install_.reset();
  remote_flushes_ = 0;
}

void MemoryLog::trim(Lsn upto) {
  CHECK(upto <= durable_ && upto <= head_);
  while (base_.lsn < upto) {
    const Entry& entry = entries_.front();
    if (!entry.opens_timeline) base_cells_[entry.block] = {entry.stamp, entry.point.lsn};
    base_ = entry.point;
    entries_.pop_front();
  }
}

void MemoryLog::freeze(bool frozen) {
  frozen_ = frozen;
  changed_.notify_all();
}

Task<Result<Digest>> MemoryLog::digest_at(Lsn at) {
  auto holder = work_.hold();
  co_await next_turn(node_);
  if (digest_error_) co_return *digest_error_;
  if (at < base_.lsn || at > tail_lsn())
    co_return Error{ErrorCode::kNotFound, "the log does not reach there"};
  const Digest digest = point_at(at).digest;
  co_return false_digests_ ? Digest{~digest.value} : digest;
}

Task<Result<RecordBatch>> MemoryLog::read_after(Lsn after, std::size_t bytes_max) {
  auto holder = work_.hold();
  if (node_.next() % 4 == 0) co_await device_time(options_.write_max);  // from disk
  if (after < base_.lsn) co_return Error{ErrorCode::kNotFound, "the log was let go"};
  RecordBatch batch;
  batch.before = batch.after = point_at(after).digest;
  std::size_t bytes = 0;
  for (Lsn lsn = after.next(); lsn <= tail_lsn(); lsn = lsn.next()) {
    const Entry& entry = entries_[lsn.value - base_.lsn.value - 1];
    if (!batch.empty() && bytes + entry.data.size() > bytes_max) break;
    if (batch.empty()) batch.first = lsn;
    batch.last = lsn;
    batch.after = entry.point.digest;
    const auto encoded = entry.encode();
    batch.records.insert(batch.records.end(), encoded.begin(), encoded.end());
    if (!entry.data.empty()) batch.payload.push_back(entry.data);
    bytes += entry.data.size();
  }
  co_return std::move(batch);
}

void MemoryLog::set_append_listener(std::function<void()> listener) {
  listener_ = std::move(listener);
}

void MemoryLog::set_remote_ack(RemoteAck ack) {
  remote_ = ack;
  changed_.notify_all();
}

Task<Status> MemoryLog::apply(RecordBatch batch) {
  auto holder = work_.hold();
  if (auto error = std::exchange(next_apply_error_, std::nullopt)) co_return std::move(*error);
  if (batch.first != tail_lsn().next() || batch.before != point_at(tail_lsn()).digest)
    co_return Error{ErrorCode::kInvalid, "the batch does not follow the tail"};
  std::vector<Entry> decoded;
  std::size_t next_payload = 0;
  for (std::size_t at = 0; at + kRecordBytes <= batch.records.size(); at += kRecordBytes) {
    const std::byte* r = batch.records.data() + at;
    Entry entry;
    entry.point.utc = UtcNs{get(r + 8)};
    entry.opens_timeline = get(r + 16) == 7;
    if (entry.opens_timeline) entry.point.timeline = Timeline{get(r + 24)};
    entry.block = VolumeBlock{entry.opens_timeline ? 0 : get(r + 24)};
    entry.stamp = get(r + 32);
    if (!entry.opens_timeline) {
      if (next_payload >= batch.payload.size() ||
          hash(batch.payload[next_payload].bytes()) != get(r + 40)) {
        co_return Error{ErrorCode::kCorrupt, "the data does not match its record"};
      }
      entry.data = batch.payload[next_payload++];
    }
    decoded.push_back(std::move(entry));
  }
  for (Entry& entry : decoded) append(std::move(entry));
  CHECK(tail_lsn() == batch.last && point_at(batch.last).digest == batch.after);
  applies_max_ = std::max(applies_max_, ++applies_);
  co_await write_out(batch.last);
  while (head_ < batch.last) co_await changed_.wait();
  --applies_;
  co_return ok();
}

Task<Status> MemoryLog::flush_local() {
  auto holder = work_.hold();
  const Lsn covers = head_;
  co_await device_time(options_.flush_max);
  ++flushes_;
  const Lsn before = durable_;
  durable_ = std::max(durable_, std::min(covers, tail_lsn()));
  if (durable_ != before) grew();
  co_return ok();
}

Task<Result<message::ImageBegin>> MemoryLog::begin_image(std::optional<LogPoint> since) {
  auto holder = work_.hold();
  CHECK(!image_);
  co_await next_turn(node_);
  Cells cells = cells_now();
  if (since) std::erase_if(cells, [&](const auto& c) { return c.second.lsn <= since->lsn; });
  message::ImageBegin begin;
  begin.point = point_at(tail_lsn());
  begin.history = history_;
  begin.volumes.push_back({VolumeId{1}, "v", 1ull << 30, 512});
  begin.next_volume_id = 2;
  begin.blocks_total = cells.size();
  begin.base = std::move(since);
  image_.emplace();
  image_->point = begin.point;
  image_->cells = std::move(cells);
  image_->next = image_->cells.begin();
  co_return std::move(begin);
}

Task<Result<message::ImageBlocks>> MemoryLog::read_image(std::size_t bytes_max) {
  auto holder = work_.hold();
  CHECK(image_);
  co_await device_time(options_.write_max);
  message::ImageBlocks blocks;
  blocks.volume = VolumeId{1};
  // Small pieces, so that a cut in the middle is a cut in the middle.
  const std::size_t count =
      std::max<std::size_t>(1, std::min<std::size_t>(bytes_max / kBlockBytes, 8));
  while (image_->next != image_->cells.end() && blocks.entries.size() < count) {
    const auto& [block, cell] = *image_->next;
    IoBuffer data = stamped_block(block, cell.stamp);
    blocks.entries.push_back({block, static_cast<std::uint32_t>(hash(data.bytes())), cell.lsn});
    blocks.payload.push_back(std::move(data));
    ++image_->next;
  }
  co_return std::move(blocks);
}

Task<Status> MemoryLog::rewind(Lsn to) {
  auto holder = work_.hold();
  co_await device_time(options_.write_max);
  if (!keeps_history_ || to < base_.lsn) {
    co_return Error{ErrorCode::kNotFound, "that state is not kept"};
  }
  branches_[head_] = content();
  while (tail_lsn() > to) entries_.pop_back();
  head_ = durable_ = to;
  std::erase_if(history_, [to](const auto& f) { return f.fork >= to && f.fork != Lsn{}; });
  changed_.notify_all();
  co_return ok();
}

Task<Status> MemoryLog::begin_install(message::ImageBegin begin) {
  auto holder = work_.hold();
  CHECK(!install_);
  co_await next_turn(node_);
  if (begin.base && (!keeps_history_ || begin.base->lsn > head_ || begin.base->lsn < base_.lsn ||
                     point_at(begin.base->lsn).digest != begin.base->digest)) {
    co_return Error{ErrorCode::kNotFound, "that state is not kept"};
  }
  install_.emplace();
  install_->begin = std::move(begin);
  co_return ok();
}

Task<Status> MemoryLog::install_blocks(message::ImageBlocks blocks) {
  auto holder = work_.hold();
  CHECK(install_);
  co_await device_time(options_.write_max);
  for (std::size_t i = 0; i < blocks.entries.size(); ++i) {
    const auto& entry = blocks.entries[i];
    const IoBuffer& data = blocks.payload[i];
    if (static_cast<std::uint32_t>(hash(data.bytes())) != entry.crc32c)
      co_return Error{ErrorCode::kCorrupt, "a block of the image does not match its checksum"};
    std::uint64_t stamp;
    std::memcpy(&stamp, data.data(), 8);
    install_->cells[entry.block] = {stamp, entry.lsn};
  }
  co_return ok();
}

Task<Status> MemoryLog::finish_install(message::ImageEnd end) {
  auto holder = work_.hold();
  CHECK(install_);
  co_await device_time(options_.flush_max);
  if (end.point != install_->begin.point || install_->cells.size() != install_->begin.blocks_total)
    co_return Error{ErrorCode::kInvalid, "the image is not complete"};
  if (const auto& base = install_->begin.base) {
    while (tail_lsn() > base->lsn) entries_.pop_back();
    install_->cells.merge(cells_now());
    ++differences_;
  }
  entries_.clear();
  base_ = end.point;
  base_cells_ = std::move(install_->cells);
  history_ = install_->begin.history;
  chain_.clear();
  chain_[base_.lsn] = base_.digest;
  head_ = durable_ = base_.lsn;
  install_.reset();
  changed_.notify_all();
  co_return ok();
}

MemoryLog::Cells MemoryLog::cells_now() const {
  Cells cells = base_cells_;
  for (const Entry& entry : entries_)
    if (!entry.opens_timeline) cells[entry.block] = {entry.stamp, entry.point.lsn};
  return cells;
}

BlockVersion MemoryLog::version_of(VolumeBlock block) const {
  const Cells cells = cells_now();
  const Cell& cell = cells.at(block);
  const auto crc = static_cast<std::uint32_t>(hash(stamped_block(block, cell.stamp).bytes()));
  return {VolumeId{1}, block, cell.lsn, crc};
}

Task<Result<IoBuffer>> MemoryLog::find_block(BlockVersion version) {
  auto holder = work_.hold();
  co_await device_time(options_.write_max);
  const Cells cells = cells_now();
  const auto cell = cells.find(version.block);
  if (cell == cells.end() || version_of(version.block) != version)
    co_return Error{ErrorCode::kNotFound, "another version is here"};
  if (lost_.count(version.block) != 0) co_return Error{ErrorCode::kCorrupt, "damaged here too"};
  ++blocks_found_;
  co_return stamped_block(version.block, cell->second.stamp);
}

}  // namespace tandem::sim
