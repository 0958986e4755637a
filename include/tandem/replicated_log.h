// ReplicatedLog: what replication sees of a group's store, and nothing more.
//
// Thread: the reactor's. Implemented by store/group; replication/ is its only user.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "tandem/base/result.h"
#include "tandem/base/task.h"
#include "tandem/latency.h"
#include "tandem/log_point.h"
#include "tandem/port/link.h"

namespace tandem {

/// What writers must wait for besides the local disk. An empty member waits for nothing.
struct RemoteAck {
  std::optional<Lsn> written;  // acknowledge writes only up to here (mode sync)
  std::optional<Lsn> durable;  // acknowledge flushes only up to here (modes sync and flush)
};

/// Where the store asks for a block that is damaged here: the peers' copies of the group. Answers
/// within a bounded time; what it gives is still to be checked. Errors: kNotFound (they hold other
/// versions, or are damaged too), kUnavailable (nobody to ask). `through` of what is asked is as
/// far as this copy knows; replication bounds it by what it knows of the peer.
using BlockSource = std::function<Task<Result<IoBuffer>>(BlockVersion version)>;

class ReplicatedLog {
 public:
  virtual ~ReplicatedLog() = default;

  virtual GroupIdentity identity() const = 0;
  /// The last record this copy holds in order on its device.
  virtual LogPoint head() const = 0;
  /// The last record that has an LSN; on a primary it runs ahead of head() by what is in flight.
  virtual LogPoint tail() const = 0;
  virtual Lsn durable() const = 0;
  /// Where a restart begins: a damaged page of the log may cost what lies behind it.
  virtual Lsn checkpoint_lsn() const = 0;
  virtual TimelineHistory history() const = 0;

  // --- primary: shipping -------------------------------------------------------------------
  /// Oldest position behind which every record can still be read.
  virtual Lsn log_start() const = 0;
  /// The chain value at `at`; kNotFound: neither the log nor a kept state of this line has it.
  virtual Task<Result<Digest>> digest_at(Lsn at) = 0;
  /// Records behind `after` in order, at most about `bytes_max` (at least one record), from memory
  /// when they are recent, else from disk; includes records still in flight locally. Empty when
  /// `after` is tail(). Errors: kNotFound when the log no longer reaches there; kCorrupt, kIo.
  virtual Task<Result<RecordBatch>> read_after(Lsn after, std::size_t bytes_max) = 0;
  /// So much payload this copy leaves without a flush of its own. What copies keep for each other
  /// until they have told what they hold is a few times as much.
  virtual std::uint64_t unflushed_bytes_max() const = 0;
  /// `listener` runs (on the reactor, soon) after tail() moved, on a mirror also after durable()
  /// did, or a flush began to wait for RemoteAck::durable; null to remove. One listener.
  virtual void set_append_listener(std::function<void()> listener) = 0;
  /// True while a flush waits for RemoteAck::durable to reach some position.
  virtual bool flush_waits_for_remote() const = 0;
  /// See RemoteAck; loosening releases waiting writes at once.
  virtual void set_remote_ack(RemoteAck ack) = 0;
  /// Keeps every record behind `from` (and its data) readable; nullopt lets go. One hold: the
  /// slowest slot's. The store may let go by itself when the pool fills: see log_start().
  virtual void set_log_hold(std::optional<Lsn> from) = 0;
  /// Every copy that may come back has a slot: what a promotion kept for others is let go of.
  virtual void expect_nobody_else() = 0;

  // --- mirror: applying --------------------------------------------------------------------
  /// Appends records exactly as they are: `batch.first` must follow tail() and `batch.before` equal
  /// its digest; checksums of all data are verified first. Completes when the records are on the
  /// device (head() >= batch.last). Calls may overlap and complete in order. A copy that was
  /// primary is durably none any more before anything is appended.
  /// Errors: kCorrupt (nothing of the batch applied), kInvalid (does not follow), kNoSpace, kIo.
  virtual Task<Status> apply(RecordBatch batch) = 0;
  /// Everything applied before this call is durable afterwards, on this node only.
  virtual Task<Status> flush_local() = 0;
  /// What the primary holds durably and knows to be the same on both, and what every copy of the
  /// group holds, with those that this one feeds: the mirror keeps what a return to either would
  /// need, and what another mirror lacks.
  virtual void set_primary_durable(Lsn durable, Lsn everywhere) = 0;

  // --- rejoin ------------------------------------------------------------------------------
  /// Goes back to `to`: head() is there afterwards, and the records behind it stay as a branch that
  /// an operator can read, compare and delete. Nothing is copied. Not while this copy serves.
  /// Durable when it returns. Errors: kNotFound: the state at `to` cannot be made here any more.
  virtual Task<Status> rewind(Lsn to) = 0;

  // --- full copy, or a difference -----------------------------------------------------------
  /// Pins the present state and describes it; read_image walks it; end_image lets go. With `since`,
  /// a point that the mirror holds too, it is the difference from there, if that can be told.
  virtual Task<Result<message::ImageBegin>> begin_image(std::optional<LogPoint> since) = 0;
  /// The next blocks of the pinned state, about `bytes_max`; empty at the end.
  virtual Task<Result<message::ImageBlocks>> read_image(std::size_t bytes_max) = 0;
  virtual void end_image() = 0;
  /// The receiving side: builds a state aside, installs it atomically. A dropped or failed image
  /// leaves the group as it was. Errors: kNotFound: the state it differs from is not kept here.
  virtual Task<Status> begin_install(message::ImageBegin begin) = 0;
  virtual Task<Status> install_blocks(message::ImageBlocks blocks) = 0;
  virtual Task<Status> finish_install(message::ImageEnd end) = 0;
  virtual void abandon_install() = 0;

  // --- repair ------------------------------------------------------------------------------
  /// That very version, from this copy's volumes, snapshots or log alone: never asks a peer, so
  /// that two damaged copies do not ask each other in circles. Whole when it returns. Errors:
  /// kNotFound (another version is here), kCorrupt, kIo (damaged here too), kCancelled.
  virtual Task<Result<IoBuffer>> find_block(BlockVersion version) = 0;
  /// Null to remove; what was asked before may still be under way.
  virtual void set_block_source(BlockSource source) = 0;

  // --- measuring ---------------------------------------------------------------------------
  /// The group's, to which replication adds what it times.
  virtual StageTimes& times() = 0;
};

}  // namespace tandem
