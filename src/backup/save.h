// From a volume to a data file.
#pragma once

#include "backup/chunk_file.h"
#include "backup/volume_io.h"

namespace tandem::backup {

/// How many bytes save() will go through from `offset` on; asks the source for its runs only.
Result<std::uint64_t> bytes_to_save(Source& source, std::uint64_t offset, bool based);

/// Writes what `into` lacks of `source`: `based`, what changed; else all that is not zero. Zeroes
/// that the source did not know of are found. Goes on at into.next(): what is in front is not read
/// again. Does not finish `into`.
Status save(Source& source, ChunkWriter& into, bool based, const Progress& progress);

}  // namespace tandem::backup
