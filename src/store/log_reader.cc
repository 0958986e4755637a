#include "store/log_reader.h"

#include <algorithm>
#include <span>
#include <utility>

#include "tandem/base/check.h"

namespace tandem::store {
namespace {

constexpr std::uint64_t kPagesAheadMax = 64;
constexpr std::uint64_t kPagesGrowth = 4;

Task<Result<IoBuffer>> read_pages(const LogSource& log, PoolBlock at, std::uint64_t count) {
  IoBuffer pages = log.buffers.allocate(count * kBlockBytes);
  IoBatch io(log.device);
  io.read(at.value * kBlockBytes, pages.bytes());
  Status read = co_await io.run();
  if (!read) co_return Error(std::move(read.error()));
  co_return pages;
}

std::span<const std::byte, kBlockBytes> page_of(const IoBuffer& bytes) {
  return std::span<const std::byte, kBlockBytes>(bytes.data(), kBlockBytes);
}

}  // namespace

/// The page that holds the record behind at_, by bisecting its zone: pages of a zone are in log
/// order.
Task<Status> LogReader::find() {
  const auto span = log_.zones.zone_for(at_);
  std::uint32_t low = 0, high = span.pages;
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    auto page = co_await read_pages(log_, PoolBlock{span.first.value + middle}, 1);
    if (!page) co_return Error(std::move(page.error()));
    auto header = format::decode_log_page_header(page_of(*page));
    // A page still in flight: what we look for is in front of it.
    if (!header || header->group != log_.group || header->before.lsn > at_) {
      high = middle;
    } else {
      low = middle;
    }
  }
  place_ = PoolBlock{span.first.value + low};
  co_return ok();
}

/// From place_ on, within the zone.
Task<Status> LogReader::read_ahead(Lsn end) {
  const std::uint64_t zone = log_.geometry.zone_blocks;
  const std::uint64_t count = std::min(pages_at_once_, zone - place_.value % zone);
  auto pages = co_await read_pages(log_, place_, count);
  if (!pages) co_return Error(std::move(pages.error()));
  ahead_ = std::move(*pages);
  taken_ = 0;
  whole_upto_ = end;
  pages_at_once_ = std::min(pages_at_once_ * kPagesGrowth, kPagesAheadMax);
  co_return ok();
}

Task<Result<LogPage>> LogReader::next(Lsn end) {
  CHECK(at_ < end);
  if (place_ == PoolBlock{}) {
    Status found = co_await find();
    if (!found) co_return Error(std::move(found.error()));
  }
  if (taken_ * kBlockBytes == ahead_.size() || at_ >= whole_upto_) {
    Status read = co_await read_ahead(end);
    if (!read) co_return Error(std::move(read.error()));
  }
  LogPage page{.bytes = ahead_.slice(taken_ * kBlockBytes, kBlockBytes)};
  auto header = format::decode_log_page_header(page_of(page.bytes));
  if (!header) co_return Error(std::move(header.error()));
  auto records = format::decode_log_page_body(page_of(page.bytes), *header);
  if (!records) co_return Error(std::move(records.error()));
  if (header->group != log_.group || header->before.lsn > at_)
    co_return Error{ErrorCode::kNotFound, "the log was let go meanwhile"};
  page.header = *header;
  page.records = std::move(*records);
  if (!page.records.empty()) at_ = std::max(at_, page.records.back().record.header.lsn);
  ++taken_;
  const std::uint64_t zone = log_.geometry.zone_blocks;
  const bool zone_ends = place_.value % zone == zone - 1;
  place_ = zone_ends ? log_.geometry.zone_start(header->next_zone) : place_.next();
  co_return page;
}

}  // namespace tandem::store
