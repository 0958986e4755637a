#include "store/log_streams.h"

#include <algorithm>
#include <utility>

#include "format/checksum.h"

namespace tandem::store {
using format::Extent;

namespace {

/// With the one that is waited for.
constexpr std::size_t kBatchesAhead = 3;
/// More mirrors that lag at different places read their pages anew each time.
constexpr std::size_t kStreamsMax = 4;
constexpr std::uint64_t kPieceBlocks = 64;
/// A request costs a disk as much as so many blocks: gaps that small writes have left between the
/// holes that they filled are read, too.
constexpr std::uint64_t kGapBlocks = 8;

std::uint64_t end_of(const Extent& e) { return e.start.value + e.count; }

/// One request, and what is wanted of it, in order.
struct Piece {
  Extent whole;
  std::vector<Extent> wanted;
};

/// Where the data of records lies, in pieces as long as it lies together but for gaps of `gap_max`.
std::vector<Piece> pieces_of(const std::vector<format::PlacedRecord>& records,
                             std::uint64_t gap_max) {
  std::vector<Piece> pieces;
  const auto add = [&](const Extent& e) {
    if (!pieces.empty()) {
      auto& [whole, wanted] = pieces.back();
      const std::uint64_t start = e.start.value, end = end_of(whole);
      if (start >= end && start - end <= gap_max && end_of(e) - whole.start.value <= kPieceBlocks) {
        whole.count = static_cast<std::uint32_t>(end_of(e) - whole.start.value);
        if (start != end) return wanted.push_back(e);
        wanted.back().count += e.count;
        return;
      }
    }
    pieces.push_back({e, {e}});
  };
  for (const auto& placed : records)
    std::for_each(placed.extents.begin(), placed.extents.end(), add);
  return pieces;
}

Task<Result<std::vector<IoBuffer>>> read_pieces(const LogSource& log,
                                                const std::vector<Piece>& pieces) {
  std::vector<IoBuffer> data;
  IoBatch io(log.device);
  for (const Piece& piece : pieces) {
    data.push_back(log.buffers.allocate(piece.whole.count * kBlockBytes));
    io.read(piece.whole.start.value * kBlockBytes, data.back().bytes());
  }
  Status read = co_await io.run();
  if (!read) co_return Error(std::move(read.error()));
  std::vector<IoBuffer> wanted;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    for (const Extent& e : pieces[i].wanted) {
      const std::uint64_t offset = e.start.value - pieces[i].whole.start.value;
      wanted.push_back(data[i].slice(offset * kBlockBytes, e.count * kBlockBytes));
    }
  }
  co_return wanted;
}

}  // namespace

LogStreams::StreamPtr LogStreams::stream_at(const LogSource& log, Lsn after) {
  const auto found = std::find_if(streams_.begin(), streams_.end(), [after](const auto& stream) {
    return !stream->in_use && stream->position == after;
  });
  if (found != streams_.end()) {
    streams_.splice(streams_.begin(), streams_, found);
    streams_.front()->goes_on = true;
  } else {
    if (streams_.size() == kStreamsMax) streams_.pop_back();
    streams_.push_front(std::make_shared<Stream>(log, after));
  }
  return streams_.front();
}

Task<Result<RecordBatch>> LogStreams::read(LogSource log, Lsn after, Lsn end, std::size_t bytes_max,
                                           bool alone) {
  const StreamPtr stream = stream_at(log, after);
  stream->in_use = true;
  stream->idle = false;
  const std::size_t batches = alone && stream->goes_on ? kBatchesAhead : 1;
  auto batch = co_await take(*stream, log, end, bytes_max, batches);
  stream->in_use = false;
  if (!batch) streams_.remove(stream);
  co_return batch;
}

Task<Result<RecordBatch>> LogStreams::take(Stream& stream, LogSource log, Lsn end,
                                           std::size_t bytes_max, std::size_t batches) {
  while (stream.ahead.size() < batches && stream.planned < end && !stream.failed) {
    auto planned = co_await plan(stream, end, bytes_max);
    if (planned) {
      stream.planned = (*planned)->batch.last;
      stream.ahead.push_back(*planned);
      spawn(read_data(log, std::move(*planned)));
    } else {
      stream.failed = planned.error();
    }
  }
  if (stream.ahead.empty()) co_return *stream.failed;
  const BatchPtr next = stream.ahead.front();
  stream.ahead.pop_front();
  while (!next->read) co_await next->was_read.wait();
  if (!*next->read) co_return next->read->error();
  stream.position = next->batch.last;
  co_return std::move(next->batch);
}

/// Reads pages until their records are enough for a batch.
Task<Result<LogStreams::BatchPtr>> LogStreams::plan(Stream& stream, Lsn end,
                                                    std::size_t bytes_max) {
  auto ahead = std::make_shared<Batch>();
  RecordBatch& out = ahead->batch;
  const Lsn after = stream.planned;
  std::size_t bytes = 0;
  while (bytes < bytes_max && stream.reader.position() < end) {
    auto page = co_await stream.reader.next(end);
    if (!page) co_return Error(std::move(page.error()));
    Digest digest = page->header.before.digest;
    for (auto& placed : page->records) {
      const auto& record = placed.record;
      const Digest before = std::exchange(digest, format::chain(digest, record.canonical));
      if (record.header.lsn <= after) continue;
      if (out.empty()) out.first = record.header.lsn, out.before = before;
      out.records.insert(out.records.end(), record.canonical.begin(), record.canonical.end());
      bytes += record.canonical.size();
      out.last = record.header.lsn;
      if (!record.has_data()) continue;
      bytes += record.header.block_count * kBlockBytes;
      ahead->wanted.push_back(std::move(placed));
    }
    out.after = digest;
    ahead->pages.push_back(std::move(*page));
  }
  co_return ahead;
}

/// All of a batch's data at once. What is damaged in a gap is none of it.
Task<void> LogStreams::read_data(LogSource log, BatchPtr ahead) {
  auto hold = gate_.hold();
  const auto pieces = pieces_of(ahead->wanted, kGapBlocks);
  auto data = co_await read_pieces(log, pieces);
  if (!data) {
    const auto exact = pieces_of(ahead->wanted, 0);
    data = co_await read_pieces(log, exact);
  }
  if (data) ahead->batch.payload = std::move(*data);
  ahead->read = data ? check_data(*ahead) : Status(std::move(data.error()));
  ahead->wanted.clear();
  ahead->pages.clear();
  ahead->was_read.notify_all();
}

Status LogStreams::check_data(const Batch& ahead) const {
  auto piece = ahead.batch.payload.begin();
  std::size_t offset = 0;
  for (const auto& placed : ahead.wanted) {
    const auto& record = placed.record;
    for (std::uint32_t i = 0; i < record.header.block_count; ++i) {
      if (offset == piece->size()) ++piece, offset = 0;
      if (format::crc32c(piece->bytes().subspan(offset, kBlockBytes)) != record.crc(i)) {
        return Error{ErrorCode::kCorrupt, "group " + name_ + ": data of LSN " +
                                              std::to_string(record.header.lsn.value) +
                                              " fails its checksum"};
      }
      offset += kBlockBytes;
    }
  }
  return ok();
}

void LogStreams::drop_idle() {
  streams_.remove_if(
      [](const auto& stream) { return !stream->in_use && std::exchange(stream->idle, true); });
}

}  // namespace tandem::store
