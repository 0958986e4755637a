// Endpoints: what `listen` accepts, and the sockets it makes of it.
#pragma once

#include <cstdint>
#include <string>

#include "tandem/base/result.h"

namespace tandem::nbd {

/// A listening socket; the owner closes `fd` and, for a Unix socket, calls remove_socket_file().
struct Listener {
  int fd = -1;
  std::string endpoint;      // as bound: "unix:/path", "127.0.0.1:10809", "[::1]:10809"
  std::string path;          // of a Unix socket, else ""
  std::uint64_t device = 0;  // identity of the socket file that was made
  std::uint64_t inode = 0;
};

/// `endpoint` is "unix:/path" or "host:port" ("[::1]:port" for IPv6; port 0 picks one). A Unix
/// socket nobody listens on is replaced. Errors: kInvalid (not an endpoint), kBusy (in use), kIo.
Result<Listener> bind_endpoint(const std::string& endpoint, unsigned unix_socket_mode);

/// Removes the file unless somebody put another one in its place.
void remove_socket_file(const Listener& listener);

/// A connected socket's other side, for messages; also sets what every connection wants (no delay,
/// keep-alive).
std::string prepare_connection(int fd, bool local);

}  // namespace tandem::nbd
