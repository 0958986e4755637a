// Transport: one accepted socket, plain or TLS; non-blocking transfers and waits for readiness.
//
// A transfer is always tried first; the awaiters are for kAgain. One reader and one writer may wait
// at the same time. Everything runs on the reactor's thread.
#pragma once

#include <sys/uio.h>

#include <memory>
#include <span>
#include <string>

#include "frontend/nbd/tls.h"
#include "tandem/base/task.h"
#include "tandem/port/readiness.h"

namespace tandem::nbd {

class Transport {
 public:
  /// Owns `fd`, a connected stream socket, from now on.
  Transport(Readiness& readiness, int fd, std::string peer, bool local);
  ~Transport();
  Transport(const Transport&) = delete;
  Transport& operator=(const Transport&) = delete;

  IoResult receive(std::span<iovec> into);
  /// After kAgain the same bytes must be offered again, possibly followed by more.
  IoResult send(std::span<const iovec> from);

  /// False: interrupted, or the socket failed; the next transfer says which.
  ReadyAwaiter readable() { return until_ready(readiness_, read_wait_); }
  ReadyAwaiter writable() { return until_ready(readiness_, write_wait_); }

  /// Ends the waits of this moment; the connection stays.
  void interrupt();
  /// Ends the connection: transfers answer kEnd and waits end, now and later. Idempotent.
  void shutdown();
  bool is_shut_down() const { return shut_down_; }
  /// Sends TLS's goodbye and closes. Nothing may wait any more.
  void close();

  /// The server's side of a TLS handshake. False: it failed and the connection must be ended.
  Task<bool> start_tls(std::shared_ptr<TlsContext> context, std::string& why);
  bool encrypted() const { return tls_ != nullptr; }

  const std::string& peer() const { return peer_; }  // for messages
  bool is_local() const { return local_; }           // a Unix socket

 private:
  Readiness& readiness_;
  int fd_;
  ReadinessWait read_wait_;
  ReadinessWait write_wait_;
  std::string peer_;
  bool local_;
  bool shut_down_ = false;
  std::unique_ptr<TlsStream> tls_;
};

}  // namespace tandem::nbd
