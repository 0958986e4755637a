#include "store/content_check.h"

#include <algorithm>

#include "format/bytes.h"
#include "format/checksum.h"
#include "store/group.h"
#include "store/snapshot_pin.h"

namespace tandem::store {

using format::MapEntry;

namespace {

/// Read at once: see scrub.cc.
constexpr std::size_t kBlocksPerRead = 64;

Digest digest_of(const std::vector<ContentBlock>& blocks) {
  if (blocks.empty()) return Digest{};
  std::vector<std::byte> bytes(blocks.size() * 12);
  format::Encoder out(bytes);
  for (const auto& block : blocks) {
    out.u64(block.number);
    out.u32(block.crc32c);
  }
  return format::chain(Digest{}, bytes);
}

}  // namespace

bool ContentCheck::is_full() const {
  const std::uint64_t pieces = report_.next - request_.first;
  return blocks_ >= kBlocksMax || pieces >= kPiecesMax || (request_.detail && pieces != 0);
}

void ContentCheck::note(std::uint64_t byte, std::string outcome) {
  if (report_.findings.size() >= kFindingsMax) return;
  report_.findings.push_back({request_.volume, request_.snapshot, byte, std::move(outcome)});
}

Task<void> ContentCheck::look_at_next() {
  ContentPiece piece{.number = report_.next++, .digest = {}, .blocks = 0, .readable = true};
  const std::uint64_t first = piece.number * format::kMapFanout;
  auto node = co_await cache_.load(tree_, 0, piece.number, false);
  if (!node) {
    note(first * kBlockBytes, node.error().message);
    piece.readable = false;
    report_.pieces.push_back(piece);
    co_return;
  }
  if (!*node) co_return;
  std::vector<MapEntry> entries(format::kMapFanout);
  std::vector<ContentBlock> named;
  for (std::uint32_t i = 0; i < format::kMapFanout; ++i) {
    const MapEntry entry = (*node)->entry(i);
    const std::uint32_t crc = entry.has_data() ? entry.crc32c : format::crc32c_of_zero_block();
    if (request_.detail && entry.lsn != Lsn{})
      report_.blocks.push_back({first + i, entry.lsn, crc});
    if (!entry.has_data()) continue;
    ++piece.blocks;
    entries[i] = entry;
    if (crc != format::crc32c_of_zero_block()) named.push_back({first + i, entry.lsn, crc});
  }
  if (piece.blocks == 0) co_return;
  piece.digest = digest_of(named);
  report_.pieces.push_back(piece);
  blocks_ += piece.blocks;
  if (request_.read) co_await read(first, entries);
}

Task<void> ContentCheck::read(std::uint64_t first, const std::vector<MapEntry>& entries) {
  for (std::size_t i = 0; i < entries.size(); i += kBlocksPerRead) {
    const std::vector<MapEntry> some(entries.begin() + static_cast<std::ptrdiff_t>(i),
                                     entries.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                           i + kBlocksPerRead, entries.size())));
    const bool any = std::any_of(some.begin(), some.end(),
                                 [](const MapEntry& entry) { return entry.has_data(); });
    if (!any) continue;
    const auto bad = co_await reader_.check(first + i, some);
    for (const auto& found : bad) {
      ++report_.bad_blocks;
      if (!found.error) ++report_.repaired_blocks;
      note(found.block * kBlockBytes, found.error ? found.error->message : "given back by a peer");
    }
  }
}

// --- Group ---------------------------------------------------------------------------------------

Task<Result<ContentReport>> Group::check_content(ContentRequest request) {
  auto hold = gate_.hold();
  if (stopped_ || closing_) co_return refusal();
  const auto snapshot = find_snapshot(request.snapshot);
  const auto index = snapshot ? snapshot->index_of(request.volume) : std::nullopt;
  if (!index) {
    co_return Error{ErrorCode::kNotFound,
                    snapshot ? "snapshot " + request.snapshot + " of group " + name_ +
                                   " has no volume " + request.volume
                             : "group " + name_ + " has no snapshot " + request.snapshot};
  }
  const SnapshotPin pin(snapshot->readers);
  while (!snapshot->ready && !stopped_ && !closing_) co_await snapshot->became_ready.wait();
  if (stopped_ || closing_) co_return refusal();
  VolumeCore& volume = *snapshot->volumes[*index];
  constexpr std::uint64_t kPieceBytes = format::kMapFanout * kBlockBytes;
  const std::uint64_t pieces = (volume.state.size_bytes + kPieceBytes - 1) / kPieceBytes;
  ContentCheck check(reader(volume), cache_, volume.tree, request);
  ContentReport& report = check.report();
  while (report.next < pieces && !check.is_full()) {
    co_await check.look_at_next();
    if (stopped_ || closing_) co_return refusal();
    // Where nothing is, nothing is waited for.
    if (report.next % 64 == 0) co_await next_turn(runtime_.executor);
  }
  report.end = report.next >= pieces;
  co_return std::move(report);
}

}  // namespace tandem::store
