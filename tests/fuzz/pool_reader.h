// Reads all that a pool has.
#pragma once

#include "store/group.h"
#include "tests/support/sim_disk.h"

namespace tandem::fuzz {

/// Every volume of the group and of its kept states: data or an error, and whatever is said of
/// allocation is at least one extent. True: there was no error.
Task<bool> read_group(store::Group& group);

/// Opens the pool on `image`, which must have no broken group and give every block.
void check_is_sound(const sim::SimImage& image);

}  // namespace tandem::fuzz
