#include "rpc/bulk_copy.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "tandem/base/check.h"

namespace tandem::rpc {
namespace {

#ifdef __SSE2__
constexpr std::size_t kLine = 64;
/// Fewer bytes are headers, which are read at once.
constexpr std::size_t kStreamMin = 1024;

void stream_line(std::byte* to, const std::byte* from) {
  const auto* in = reinterpret_cast<const __m128i*>(from);
  auto* out = reinterpret_cast<__m128i*>(to);
  const __m128i a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1);
  const __m128i c = _mm_loadu_si128(in + 2), d = _mm_loadu_si128(in + 3);
  _mm_stream_si128(out, a);
  _mm_stream_si128(out + 1, b);
  _mm_stream_si128(out + 2, c);
  _mm_stream_si128(out + 3, d);
}
#endif

}  // namespace

void bulk_copy(std::span<std::byte> to, std::span<const std::byte> from) {
  CHECK(from.size() <= to.size());
#ifdef __SSE2__
  if (from.size() >= kStreamMin) {
    const std::size_t head = -reinterpret_cast<std::uintptr_t>(to.data()) % kLine;
    std::copy_n(from.data(), head, to.data());
    std::size_t at = head;
    for (; from.size() - at >= kLine; at += kLine) stream_line(to.data() + at, from.data() + at);
    _mm_sfence();  // before the buffer is handed to the kernel
    to = to.subspan(at);
    from = from.subspan(at);
  }
#endif
  std::copy(from.begin(), from.end(), to.begin());
}

}  // namespace tandem::rpc
