// Copying payload out of messages into buffers that go to the disk next.
#pragma once

#include <cstddef>
#include <span>

namespace tandem::rpc {

/// As memcpy: `to` holds at least as much as `from`, and they do not overlap.
///
/// Stores past the caches. What takes a buffer to the disk runs on another core and has the
/// buffer's lines when it is filled again; to fetch each line first took five times as long (a
/// third of a mirror's time at 1 MiB writes), and so does glibc's `rep movsb` on AMD's Zen when the
/// source lies up to 16 bytes in front of the destination's place in its page, as behind HTTP/2's
/// headers.
void bulk_copy(std::span<std::byte> to, std::span<const std::byte> from);

}  // namespace tandem::rpc
