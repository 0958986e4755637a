// What bounds and configures the NBD front end, and what it counts.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

namespace tandem::nbd {

/// Paths of PEM files. Read once, when the server is made.
struct TlsOptions {
  std::string certificate;  // this node's chain
  std::string key;          // its private key
  std::string client_ca;    // clients must present a certificate of it; "" takes any client
  bool required = true;     // refuse clients that stay in plain text (Unix sockets are exempt)
};

struct Options {
  std::size_t connections_max = 256;
  // Per connection: what may be under way (from the request's header until its reply has left).
  // Beyond it the connection is not read any more, so only its own client waits.
  std::size_t requests_max = 256;
  std::size_t bytes_max = std::size_t{64} << 20;  // at least payload_bytes_max
  // Of all connections together; beyond it each may have one request under way.
  std::size_t all_bytes_max = std::size_t{512} << 20;
  std::uint32_t payload_bytes_max = std::uint32_t{32} << 20;  // of one read or write; advertised
  std::size_t input_bytes = std::size_t{256} << 10;           // receive buffer of a connection
  std::chrono::milliseconds handshake_max{10'000};  // from connect to the choice of an export
  std::chrono::milliseconds drain_max{5'000};       // to take the last replies at the end
  // Structured reads from this size on ask for the allocation first and send holes as holes.
  std::uint32_t sparse_read_bytes_min = std::uint32_t{64} << 10;
  unsigned unix_socket_mode = 0660;
  std::optional<TlsOptions> tls;
};

/// Counters since the start, except connections_open.
struct Stats {
  std::uint64_t connections_open = 0;
  std::uint64_t connections_total = 0;
  std::uint64_t connections_refused_total = 0;  // over connections_max, or failed in accept
  std::uint64_t handshakes_failed_total = 0;    // ended before an export was chosen
  std::uint64_t violations_total = 0;           // connections ended because of unparsable bytes
  std::uint64_t reads_total = 0;
  std::uint64_t writes_total = 0;
  std::uint64_t flushes_total = 0;
  std::uint64_t trims_total = 0;
  std::uint64_t zeroes_total = 0;
  std::uint64_t caches_total = 0;
  std::uint64_t block_status_total = 0;
  std::uint64_t read_bytes_total = 0;
  std::uint64_t written_bytes_total = 0;
  std::uint64_t errors_total = 0;      // requests answered with an error
  std::uint64_t unanswered_total = 0;  // left so when their volume moved to another node
};

}  // namespace tandem::nbd
