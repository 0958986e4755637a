// Volume: the one narrow interface that front ends see.
//
// Thread: everything here is called and resumed on the reactor's thread.
// Completion: every task completes exactly once; a front end that goes away must still await its
// tasks. Offsets and lengths are bytes; any alignment works, 4 KiB is fast.
// Change of the primary: operations may wait until it is decided. kReadOnly, from any operation of
// a volume that was not opened read-only, says that the node is a mirror of it now: that is no
// answer for a client, but a reason to end its connection, so that it asks again where the volume
// is.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tandem/base/buffer.h"
#include "tandem/base/result.h"
#include "tandem/base/task.h"

namespace tandem {

struct VolumeInfo {
  std::string name;
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 512;  // 512 or 4096: what the guest is told
  bool read_only = false;                   // of a snapshot
};

struct WriteOptions {
  bool fua = false;      // complete only when durable as a flush would make it
  bool no_hole = false;  // write_zeroes: keep the range allocated (reported as data that is zero)
};

/// A run of equal allocation, as NBD's base:allocation reports it.
struct AllocationExtent {
  std::uint64_t length_bytes = 0;
  bool hole = false;  // not allocated
  bool zero = false;  // reads as zeroes
};

/// A run of bytes that differ from those of an older point, or that do not.
struct ChangeExtent {
  std::uint64_t length_bytes = 0;
  bool changed = false;
  bool operator==(const ChangeExtent&) const = default;
};

/// What differs between a snapshot of a volume and that volume, or a later snapshot of it. Stays
/// what it is when the snapshot is renamed, and when another gets its name.
class Changes {
 public:
  virtual ~Changes() = default;
  /// Runs covering a prefix of [offset, offset+length), at most `extents_max`, at least one;
  /// neighbours differ. By blocks of 4 KiB, exact but for one thing: a block that was written again
  /// with the bytes it had counts as changed. One that was written and discarded since, and read as
  /// zeroes before, does not. What lies behind the snapshot's end was zeroes. Of a volume that is
  /// being written a change that completed before the call is seen, a concurrent one may be.
  /// Errors: kInvalid outside the volume, kNotFound once either point was deleted, and those of
  /// read().
  virtual Task<Result<std::vector<ChangeExtent>>> extents(std::uint64_t offset,
                                                          std::uint64_t length,
                                                          std::size_t extents_max) = 0;
};

class Volume {
 public:
  virtual ~Volume() = default;

  /// Name, size and flags as of now; the size grows on a resize.
  virtual VolumeInfo info() const = 0;

  /// The last acknowledged content of [offset, offset+length), or one concurrent with it, per 4 KiB
  /// block. Errors: kInvalid outside the volume, kCorrupt (checksum), kIo, kFenced.
  virtual Task<Result<IoBuffer>> read(std::uint64_t offset, std::uint64_t length) = 0;

  /// Writes `data` at `offset`. Takes a share of `data`: it must not change any more.
  /// Completes when the group's mode is satisfied (local, or local and mirror).
  /// Order: a write called after another completed takes effect behind it; of two overlapping
  /// writes in flight either may be the later one, but both nodes and every recovery agree which.
  /// Durable: after a flush() called after this completed, or now with `fua`.
  /// Errors: kNoSpace (nothing changed), kReadOnly, kFenced (sticky), kInvalid, kIo.
  virtual Task<Status> write(std::uint64_t offset, IoBuffer data, WriteOptions options) = 0;

  /// Everything completed before this call is on stable storage on each node the mode names.
  virtual Task<Status> flush() = 0;

  /// Reads as zeroes afterwards; whole 4 KiB blocks give their space back.
  virtual Task<Status> discard(std::uint64_t offset, std::uint64_t length,
                               WriteOptions options) = 0;
  virtual Task<Status> write_zeroes(std::uint64_t offset, std::uint64_t length,
                                    WriteOptions options) = 0;

  /// Runs of allocation covering a prefix of [offset, offset+length), at most `extents_max`, at
  /// least one; neighbours differ.
  virtual Task<Result<std::vector<AllocationExtent>>> allocation(std::uint64_t offset,
                                                                 std::uint64_t length,
                                                                 std::size_t extents_max) = 0;

  /// Names of the snapshots that keep this volume, oldest first: what changes_since() takes.
  virtual std::vector<std::string> snapshots() const { return {}; }
  /// Errors: kNotFound: no such snapshot, or this volume is not in it.
  virtual Result<std::shared_ptr<Changes>> changes_since(std::string_view snapshot) {
    return Error{ErrorCode::kNotFound, "no snapshot " + std::string(snapshot)};
  }
};

/// What a front end may export right now.
class VolumeDirectory {
 public:
  virtual ~VolumeDirectory() = default;
  /// The volumes this node serves (those of groups it is primary of), by export name: their own, or
  /// of a clone "group/volume"; behind them what kept states have of volumes, as "volume@snapshot":
  /// read-only, also on mirrors.
  virtual std::vector<VolumeInfo> list() const = 0;
  /// The volume of that name, which may be "group/volume" of any group, else of a snapshot when
  /// there is an '@' in it, or why not (kNotFound, kReadOnly on a mirror, kFenced, kUnavailable
  /// while the group starts). The volume stays valid while the pointer is held; once the group
  /// stops serving, its operations answer kFenced, kCancelled, or kReadOnly on a mirror.
  virtual Result<std::shared_ptr<Volume>> open(std::string_view name) = 0;
  /// Whether the clients of the volume of that name (no '@') may stay: it is served here, or its
  /// group is about to decide who serves it, and what they ask waits.
  virtual bool exports(std::string_view name) const = 0;
};

}  // namespace tandem
