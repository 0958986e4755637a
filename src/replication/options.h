// What an operator can tune about replication, and the bounds that keep it finite.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "tandem/log_point.h"
#include "tandem/port/executor.h"
#include "tandem/port/link.h"

namespace tandem::replication {

/// Positions said in heartbeats that both sides remember until the mirror has found them equal; of
/// older ones the answer is not looked at.
inline constexpr std::size_t kHeadsMax = 1024;

struct ReplicationOptions {
  /// What this release speaks; tests play other releases.
  message::VersionRange versions = message::kProtocolVersions;
  /// A primary says where it is this often, half as often when idle; the mirror answers each time.
  Nanoseconds heartbeat_interval = std::chrono::seconds(1);
  /// Silence of this length means that the other side is lost. Several heartbeats.
  Nanoseconds timeout = std::chrono::seconds(5);
  /// A dialled peer must answer the Hello, and an accepted one send its Start, within this time.
  Nanoseconds handshake_timeout = std::chrono::seconds(5);
  /// How long a refused peer may take to read why before the stream is closed.
  Nanoseconds parting_time = std::chrono::seconds(1);
  /// How long a peer may take to give back a block that is damaged here; a reader waits meanwhile.
  Nanoseconds inquiry_timeout = std::chrono::seconds(3);
  /// Pause before dialling again: doubles from first to max, each time with up to half of jitter.
  Nanoseconds backoff_first = std::chrono::milliseconds(100);
  Nanoseconds backoff_max = std::chrono::seconds(5);

  /// Payload of one message: small while the mirror follows (latency), larger while it catches up,
  /// which must not keep the disk from the application's writes for long, and of an image.
  std::size_t batch_bytes = 256u << 10;
  std::size_t catch_up_bytes = 512u << 10;
  std::size_t bulk_bytes = 1u << 20;
  /// A message costs both nodes more than the few blocks it carries. What no writer and no flush
  /// waits for is gathered for so long, or up to batch_bytes: a mirror in mode async is behind by
  /// as much.
  Nanoseconds gather_time = std::chrono::milliseconds(5);
  /// Nothing more is queued on a link whose own backlog is above this.
  std::size_t link_backlog_bytes = 2u << 20;
  /// Shipped and not yet written by the mirror; above either bound shipping pauses.
  std::size_t window_bytes = 32u << 20;
  std::size_t window_batches = 1024;
  /// A mirror that lacks no more than this counts as following; in mode sync writes wait for it
  /// then.
  std::uint64_t following_lag_bytes = 4u << 20;
  std::uint64_t following_lag_records = 4096;

  /// Batches that the mirror applies at the same time; above either bound it stops reading.
  std::size_t apply_bytes_max = 16u << 20;
  std::size_t apply_batches_max = 32;
};

/// How often deadlines are looked at: the precision of every time-out.
inline Nanoseconds tick_period(const ReplicationOptions& options) {
  return std::min(options.heartbeat_interval, options.timeout / 4);
}

/// A configured mirror of a group.
struct SlotOptions {
  std::string address;  // host:port of the mirror node's service
  ReplicationMode mode = ReplicationMode::kAsync;
  std::optional<LogPoint> last_known;  // what it had written when it was last heard, if known
  Lsn last_durable;                    // and what of it was durable
  LogPoint agreed;                     // the last position known to be the same; LSN 0: none
};

}  // namespace tandem::replication
