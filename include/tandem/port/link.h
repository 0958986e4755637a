// Link: one ordered stream of messages between the two copies of a group.
//
// Production: rpc/grpc_link (a gRPC bidirectional stream; the messages are translated to protobuf
// at its edge, src/replication/PROTOCOL.md). Simulation: tests/support/sim_link. Who has the
// records dials: the primary, or a mirror that feeds another one (a relay); the mirror accepts.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "tandem/base/buffer.h"
#include "tandem/base/result.h"
#include "tandem/base/task.h"
#include "tandem/log_point.h"

namespace tandem {

/// A run of consecutive records in their canonical encoding (format/record.h) with their data.
struct RecordBatch {
  Lsn first;  // LSN of the first record; 0 with no records
  Lsn last;
  Digest before;                   // chain value in front of `first`
  Digest after;                    // and behind `last`
  std::vector<std::byte> records;  // canonical records, back to back
  std::vector<IoBuffer> payload;   // the data of the write records, in order, back to back
  /// When the first record got its LSN on this node, monotonic; nothing: long ago, or elsewhere.
  std::optional<std::chrono::nanoseconds> appended{};
  bool empty() const { return records.empty(); }
  std::size_t payload_bytes() const {
    std::size_t n = 0;
    for (const auto& p : payload) n += p.size();
    return n;
  }
};

/// One version of one block, as the map of a copy names it: the record that wrote it, and its
/// checksum. Copies of a group whose histories agree mean the same bytes by it.
struct BlockVersion {
  VolumeId volume;
  VolumeBlock block;
  Lsn lsn;
  std::uint32_t crc32c = 0;
  // In the asker's copy the block is the same at every position from `lsn` up to here, and both
  // copies are known to be the same up to here. 0: not known; then only that very record is meant.
  // A copy that was seeded or installed as an image may name an older or a newer record for it.
  Lsn through{};
  auto operator<=>(const BlockVersion&) const = default;
};

namespace message {

/// Versions of the protocol: each side says which it speaks, and both use the newest that both do
/// (replication/handshake.h).
struct VersionRange {
  std::uint32_t oldest = 1;
  std::uint32_t newest = 1;
  bool operator==(const VersionRange&) const = default;
};
/// 2: an image may be a difference. 3: a mirror may dial, to feed another one.
inline constexpr VersionRange kProtocolVersions{1, 3};
/// Since this one a mirror may dial; its Hello says no older one.
inline constexpr std::uint32_t kRelayVersion = 3;

/// Ways to compress payload, as bits: the acceptor says which it can undo.
inline constexpr std::uint32_t kCodecLz4 = 1;

/// A copy that records pass on their way to another one.
struct Source {
  Uuid pool;
  std::string node;
  bool operator==(const Source&) const = default;
};

/// Dialer's first message: who I am and what I hold.
struct Hello {
  VersionRange versions = kProtocolVersions;
  GroupIdentity identity;
  Role role = Role::kPrimary;
  ReplicationMode mode = ReplicationMode::kAsync;
  LogPoint head;  // last record I hold; of a mirror: durably
  TimelineHistory history;
  // Of a mirror: who it has its records from at present, the farthest (the primary) first.
  std::vector<Source> sources{};
};
/// Acceptor's answer: the same about its copy; an empty one ends at LSN 0.
struct Welcome {
  VersionRange versions = kProtocolVersions;
  GroupIdentity identity;
  Role role = Role::kMirror;
  std::uint32_t codecs = kCodecLz4;
  LogPoint head;
  Lsn durable;
  TimelineHistory history;
};
/// Either side, then it closes: why the two cannot be paired. Carries the history that shows why.
struct Refuse {
  ErrorCode code = ErrorCode::kRefused;
  std::string reason;
  TimelineHistory history;
};
/// Dialer: records follow from behind `after`; with `from_image` an image (full copy) comes first.
/// `after` below the acceptor's end asks for the records behind it, to be sent to the dialer.
struct Start {
  Lsn after;
  bool from_image = false;
};
struct Records {
  RecordBatch batch;
  bool flush = false;     // make everything up to batch.last durable, then acknowledge
  bool compress = false;  // the transport may compress the payload; a wish, not content
  bool lone = false;      // awaited, and nothing else is on its way: a hint for the transport
};
/// Acceptor: cumulative positions of its copy.
struct Ack {
  Lsn received;  // in memory, checksums verified
  Lsn written;   // on the device (volatile cache)
  Lsn durable;   // flushed
  Lsn agreed{};  // here its digest was found equal to a heartbeat's; 0: none yet on this stream
};
/// Dialer, also when idle: where the primary is. `flush` asks for durability of all received.
struct Heartbeat {
  LogPoint head;  // the last record on its device
  Lsn durable;    // its own durable position
  UtcNs sent;
  bool flush = false;
  // Every copy of the group holds so much durably, and the primary in a checkpoint. A relay that
  // was not told it yet leaves it out.
  std::optional<Lsn> everywhere{};
};
/// The group at one point, for a mirror that the log no longer reaches: all of it, or how it
/// differs from a point that both hold. The mirror builds it aside and installs it in one step at
/// ImageEnd; until then its old state stays valid.
struct ImageVolume {
  VolumeId id;
  std::string name;
  std::uint64_t size_bytes = 0;
  std::uint32_t logical_block_bytes = 512;
};
struct ImageBegin {
  LogPoint point;
  TimelineHistory history;
  std::vector<ImageVolume> volumes;
  std::uint32_t next_volume_id = 1;
  std::uint64_t blocks_total = 0;  // for progress; at most, if it is a difference
  std::optional<LogPoint> base;    // a difference from here; nullopt: a full copy
};
struct ImageEntry {
  VolumeBlock block;
  std::uint32_t crc32c = 0;
  Lsn lsn;  // when the block was last written
};
struct ImageBlocks {
  VolumeId volume;
  std::vector<ImageEntry> entries;  // one per 4 KiB of payload; holes behind those
  std::vector<IoBuffer> payload;
  bool compress = false;  // as in Records
};
struct ImageEnd {
  LogPoint point;
};
/// Either side, once Start was sent: a block that is damaged here. Asked and answered beside the
/// records, in any order; `id` is the asker's.
struct BlockRequest {
  std::uint64_t id = 0;
  BlockVersion version;
};
/// The 4 KiB, or why not: kNotFound (another version is there), kCorrupt or kIo (damaged there
/// too), kBusy (too many questions at once).
struct BlockAnswer {
  std::uint64_t id = 0;
  std::optional<Error> refusal;
  IoBuffer data;  // empty with a refusal
};

}  // namespace message

using Message = std::variant<message::Hello, message::Welcome, message::Refuse, message::Start,
                             message::Records, message::Ack, message::Heartbeat,
                             message::ImageBegin, message::ImageBlocks, message::ImageEnd,
                             message::BlockRequest, message::BlockAnswer>;

/// Thread: every call and resumption is on the reactor's thread.
/// Ends: a stream may be cut anywhere; then, and after close() by either side, an unknown prefix of
/// what was sent arrives. Nothing may be concluded from a send() but by the peer's answer.
class Link {
 public:
  /// Destroying a link closes it; a pending receive() or drained_below() must have returned first
  /// (close(), then await).
  virtual ~Link() = default;
  /// Queues `message`; ordered; never blocks. Dropped without a word after close() or a cut.
  /// Payload buffers are shared until the transport is done with them.
  virtual void send(Message message) = 0;
  /// Bytes queued here and not yet handed to the network.
  virtual std::size_t backlog_bytes() const = 0;
  /// Suspends until backlog_bytes() is below `bytes`, or the link is closed or cut.
  virtual Task<void> drained_below(std::size_t bytes) = 0;
  /// The next message, or why there will be none (kUnavailable: cut or closed there; kInvalid:
  /// garbage; kCancelled: closed here). One receive() at a time.
  virtual Task<Result<Message>> receive() = 0;
  /// Ends the stream. A pending receive() or drained_below() returns later, never from
  /// within close(); what came but was not received is dropped, what was sent may still be
  /// delivered for a moment, or be lost. Idempotent.
  virtual void close() = 0;
  /// The other side's authenticated name (certificate), or "" without TLS.
  virtual std::string peer() const = 0;
};

class LinkDialer {
 public:
  virtual ~LinkDialer() = default;
  /// A stream to the node at `address` (host:port). Connecting happens behind the first receive();
  /// a failure shows there, within a bounded time.
  virtual std::unique_ptr<Link> dial(const std::string& address) = 0;
};

/// Given each accepted stream; the first message on it is a Hello. Must take it, always.
class LinkAcceptor {
 public:
  virtual ~LinkAcceptor() = default;
  virtual void accept(std::unique_ptr<Link> link) = 0;
};

}  // namespace tandem
