#include "store/recent_records.h"

#include <algorithm>

#include "format/checksum.h"
#include "format/record.h"
#include "tandem/base/check.h"

namespace tandem::store {
namespace {

std::size_t cost(const RecordBatch& batch) {
  return batch.records.size() + batch.payload_bytes() + 256;
}

/// Appends the bytes of `payload` behind the first `skip`.
void append_payload(RecordBatch& out, const std::vector<IoBuffer>& payload, std::size_t skip) {
  for (const auto& piece : payload) {
    if (skip >= piece.size()) {
      skip -= piece.size();
      continue;
    }
    out.payload.push_back(piece.slice(skip, piece.size() - skip));
    skip = 0;
  }
}

}  // namespace

RecordBatch drop_records(const RecordBatch& batch, Lsn after) {
  if (after < batch.first) return batch;
  RecordBatch out;
  out.before = batch.before;
  out.after = batch.after;
  out.last = batch.last;
  out.appended = batch.appended;
  format::Decoder in(batch.records);
  std::size_t skip = 0;
  while (in.remaining() != 0) {
    const std::size_t at = in.position();
    auto record = format::decode_record(in);
    CHECK(record.has_value());
    if (record->header.lsn > after) {
      out.first = record->header.lsn;
      out.records.assign(batch.records.begin() + static_cast<std::ptrdiff_t>(at),
                         batch.records.end());
      append_payload(out, batch.payload, skip);
      return out;
    }
    out.before = format::chain(out.before, record->canonical);
    if (record->has_data()) skip += record->header.block_count * kBlockBytes;
  }
  return RecordBatch{};
}

void RecentRecords::enable(bool on) {
  enabled_ = on;
  if (!on) clear();
}

void RecentRecords::clear() {
  batches_.clear();
  bytes_ = 0;
}

void RecentRecords::add(RecordBatch batch) {
  if (!enabled_) return;
  if (!batches_.empty() && batches_.back().last.next() != batch.first) clear();
  bytes_ += cost(batch);
  batches_.push_back(std::move(batch));
  while (bytes_ > bytes_max_ && batches_.size() > 1) {
    bytes_ -= cost(batches_.front());
    batches_.pop_front();
  }
}

std::optional<Lsn> RecentRecords::start() const {
  if (batches_.empty()) return std::nullopt;
  return Lsn{batches_.front().first.value - 1};
}

RecordBatch RecentRecords::read_after(Lsn after, std::size_t bytes_max) const {
  CHECK(start() && *start() <= after);
  auto it = std::upper_bound(batches_.begin(), batches_.end(), after,
                             [](Lsn lsn, const RecordBatch& b) { return lsn < b.last; });
  if (it == batches_.end()) return RecordBatch{};
  RecordBatch out = drop_records(*it, after);
  std::size_t bytes = cost(out);
  for (++it; it != batches_.end() && bytes + cost(*it) <= bytes_max; ++it) {
    bytes += cost(*it);
    out.last = it->last;
    out.after = it->after;
    out.records.insert(out.records.end(), it->records.begin(), it->records.end());
    out.payload.insert(out.payload.end(), it->payload.begin(), it->payload.end());
  }
  return out;
}

}  // namespace tandem::store
