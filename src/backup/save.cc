#include "backup/save.h"

#include <algorithm>
#include <cstring>

namespace tandem::backup {
namespace {

/// Zeroes inside of data are left out by so many bytes.
constexpr std::size_t kZeroBytes = 64 << 10;

bool is_wanted(const Run& run, bool based) { return based ? run.changed : !run.zero; }

bool is_zero(std::span<const std::byte> bytes) {
  return bytes.empty() || (bytes[0] == std::byte{} &&
                           std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

/// Cuts a run at the multiples of `bytes_max`; zeroes need no reading and stay whole.
void cut(const Run& run, std::size_t bytes_max, std::vector<Run>& pieces) {
  if (run.zero) return pieces.push_back(run);
  for (std::uint64_t at = run.offset, end = run.offset + run.length; at < end;) {
    const auto next = std::min<std::uint64_t>(end, (at / bytes_max + 1) * bytes_max);
    pieces.push_back({at, next - at, run.changed, false});
    at = next;
  }
}

/// The end of the part of `data` from `from` on that is all zeroes, or all not.
std::size_t end_of_part(std::span<const std::byte> data, std::size_t from, bool& zero) {
  for (auto at = from; at < data.size();) {
    const auto next = std::min(at + kZeroBytes, data.size());
    const bool here = is_zero(data.subspan(at, next - at));
    if (at == from) zero = here;
    if (here != zero) return at;
    at = next;
  }
  return data.size();
}

Status put(ChunkWriter& into, const Run& run, std::span<const std::byte> data, bool based) {
  if (run.zero) return into.zeroes(run.offset, run.length);
  for (std::size_t at = 0; at < data.size();) {
    bool zero = false;
    const auto end = end_of_part(data, at, zero);
    if (!zero) TANDEM_TRY(into.data(run.offset + at, data.subspan(at, end - at)));
    // What a full point does not have is zero anyway.
    if (zero && based) TANDEM_TRY(into.zeroes(run.offset + at, end - at));
    at = end;
  }
  return ok();
}

}  // namespace

Result<std::uint64_t> bytes_to_save(Source& source, std::uint64_t offset, bool based) {
  std::uint64_t bytes = 0;
  while (offset < source.size_bytes()) {
    const auto runs = source.runs(offset);
    if (!runs) return runs.error();
    for (const auto& run : *runs) bytes += is_wanted(run, based) ? run.length : 0;
    offset = runs->back().offset + runs->back().length;
  }
  return bytes;
}

Status save(Source& source, ChunkWriter& into, bool based, const Progress& progress) {
  for (std::uint64_t at = into.next(); at < source.size_bytes();) {
    const auto runs = source.runs(at);
    if (!runs) return runs.error();
    std::vector<Run> pieces;
    for (const auto& run : *runs) {
      if (is_wanted(run, based)) cut(run, source.piece_bytes_max(), pieces);
    }
    const auto sink = [&](const Run& run, std::span<const std::byte> data) -> Status {
      TANDEM_TRY(put(into, run, data, based));
      if (progress) progress(run.length);
      return ok();
    };
    TANDEM_TRY(source.read(pieces, sink));
    at = runs->back().offset + runs->back().length;
  }
  return ok();
}

}  // namespace tandem::backup
