// From a backup to an image file or a volume.
#pragma once

#include "backup/layered.h"
#include "backup/volume_io.h"

namespace tandem::backup {

/// Bytes of a target.
struct Restored {
  std::uint64_t found = 0;    // data of the backup that was there already
  std::uint64_t written = 0;  // data of the backup that was not
  std::uint64_t zeroed = 0;   // what was made zero, as it is in the backup
};

/// Writes a volume as it was into `target`, which is at least as large; what it has behind the end
/// becomes zero. `target_is_zero`: nothing needs to be zeroed. Finishes `target`. Progress goes by
/// bytes of the target.
Result<Restored> restore(LayeredReader& volume, Target& target, bool target_is_zero,
                         const Progress& progress);

/// The same, but writes and zeroes only where `content`, the same volume as `target`, has something
/// else; of what it knows to be zero nothing is read. Nobody else may be writing to it.
Result<Restored> restore_difference(LayeredReader& volume, Target& target, Source& content,
                                    const Progress& progress);

}  // namespace tandem::backup
