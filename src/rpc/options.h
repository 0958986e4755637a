// What the rpc module is told: where to listen and whom to trust.
#pragma once

#include <chrono>
#include <string>

namespace tandem::rpc {

/// Files in PEM. `ca` signs the certificates of both sides; each side shows its own and demands the
/// other's. A service looks at them again while it runs (ServiceOptions::certificate_check); a
/// client reads them when it is made.
struct TlsOptions {
  std::string ca;
  std::string certificate;
  std::string key;
};

struct ServiceOptions {
  std::string listen;  // host:port; port 0: any free one
  bool tls = true;     // false: no encryption, and anybody who reaches the port is believed
  TlsOptions files;    // with tls
  /// How often to look whether the files changed; connections that exist are not affected.
  std::chrono::seconds certificate_check{10};
  /// How long a dialled link may take to be connected (name, TCP, TLS, HTTP/2).
  std::chrono::milliseconds connect_timeout{5000};
  /// A ping goes out on an idle connection after this time; without an answer within
  /// `keepalive_timeout` the connection and its streams end.
  std::chrono::milliseconds keepalive{10000};
  std::chrono::milliseconds keepalive_timeout{5000};
  /// How long a closed link may still deliver what was sent before close().
  std::chrono::milliseconds linger{2000};
  /// How long gRPC's thread looks for more before it sleeps, where it always serves (rpc/loop.h):
  /// see tandem/base/spin.h.
  std::chrono::nanoseconds spin{0};
};

struct ClientOptions {
  std::string address;  // host:port of a node's service
  bool tls = true;
  TlsOptions files;
  std::chrono::milliseconds timeout{10000};  // of each call, connecting included
};

}  // namespace tandem::rpc
