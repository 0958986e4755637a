// TLS for NBD connections, on OpenSSL. The only files of this module that name OpenSSL are tls.cc
// and, through the opaque types here, transport.cc.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "frontend/nbd/options.h"
#include "tandem/base/result.h"

struct ssl_ctx_st;
struct ssl_st;

namespace tandem::nbd {

/// What one non-blocking transfer came to.
struct IoResult {
  enum class Kind {
    kBytes,  // `bytes` were moved; fewer than asked for means that the socket is exhausted
    kAgain,  // nothing now; wait for the socket
    kEnd,    // the peer closed, or the connection failed
  };
  Kind kind = Kind::kEnd;
  std::size_t bytes = 0;
};

/// Certificates and policy, shared by the connections of a server. TLS 1.2 or newer.
class TlsContext {
 public:
  /// Errors: kInvalid, naming the file and OpenSSL's reason.
  static Result<std::shared_ptr<TlsContext>> make(const TlsOptions& options);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  ssl_ctx_st* native() const { return context_; }

 private:
  explicit TlsContext(ssl_ctx_st* context) : context_(context) {}
  ssl_ctx_st* context_;
};

/// One connection's TLS state over a non-blocking socket that it does not own.
class TlsStream {
 public:
  TlsStream(std::shared_ptr<TlsContext> context, int fd);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  enum class Handshake { kDone, kWantRead, kWantWrite, kFailed };
  /// One step of the server's side; `why` is set on failure.
  Handshake handshake(std::string& why);
  IoResult receive(std::span<iovec> into);
  /// After kAgain the same bytes must be offered again, possibly followed by more.
  IoResult send(std::span<const iovec> from);
  /// Says goodbye if the socket takes it now.
  void close_notify();
  /// Common name of the client's certificate, or "".
  std::string peer_name() const;

 private:
  std::shared_ptr<TlsContext> context_;
  ssl_st* ssl_;
  int fd_;
  std::unique_ptr<std::byte[]> staging_;  // small pieces become one record here
  bool failed_ = false;
};

}  // namespace tandem::nbd
