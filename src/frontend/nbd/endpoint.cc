#include "frontend/nbd/endpoint.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

namespace tandem::nbd {
namespace {

constexpr std::string_view kUnixPrefix = "unix:";
constexpr int kBacklog = 128;

/// Closes on every way out but release().
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

Error system_error(ErrorCode code, const std::string& endpoint, const char* what) {
  return Error{code,
               "nbd: cannot listen on " + endpoint + ": " + what + ": " + std::strerror(errno)};
}

void set_option(int fd, int level, int name, int value) {
  // A hint to the kernel; a connection works without it.
  (void)::setsockopt(fd, level, name, &value, sizeof value);
}

/// Removes a socket file that nobody listens on any more (a killed process leaves it behind).
Status clear_stale(const std::string& endpoint, const sockaddr_un& address) {
  struct stat file {};
  if (::lstat(address.sun_path, &file) != 0) {
    if (errno == ENOENT) return ok();
    return system_error(ErrorCode::kIo, endpoint, "stat");
  }
  if (!S_ISSOCK(file.st_mode))
    return Error{ErrorCode::kExists, "nbd: cannot listen on " + endpoint +
                                         ": the path exists and is not a socket; remove it or "
                                         "choose another path"};
  const Fd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (probe.get() < 0) return system_error(ErrorCode::kIo, endpoint, "socket");
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (::connect(probe.get(), generic, sizeof address) == 0 || errno != ECONNREFUSED)
    return Error{ErrorCode::kBusy, "nbd: cannot listen on " + endpoint +
                                       ": another process listens there; stop it or choose "
                                       "another path"};
  if (::unlink(address.sun_path) != 0) return system_error(ErrorCode::kIo, endpoint, "unlink");
  return ok();
}

Result<Listener> bind_unix(const std::string& endpoint, unsigned mode) {
  const std::string path = endpoint.substr(kUnixPrefix.size());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return Error{ErrorCode::kInvalid, "nbd: '" + endpoint + "' needs a path of 1 to " +
                                          std::to_string(sizeof address.sun_path - 1) + " bytes"};
  std::memcpy(address.sun_path, path.data(), path.size());
  TANDEM_TRY(clear_stale(endpoint, address));

  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return system_error(ErrorCode::kIo, endpoint, "socket");
  // Before bind(), so that the file never has wider permissions; after it, past the umask.
  (void)::fchmod(fd.get(), mode);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return system_error(errno == EADDRINUSE ? ErrorCode::kBusy : ErrorCode::kIo, endpoint, "bind");
  if (::chmod(path.c_str(), mode) != 0) return system_error(ErrorCode::kIo, endpoint, "chmod");
  if (::listen(fd.get(), kBacklog) != 0) return system_error(ErrorCode::kIo, endpoint, "listen");
  struct stat file {};
  if (::lstat(path.c_str(), &file) != 0) return system_error(ErrorCode::kIo, endpoint, "stat");
  return Listener{.fd = fd.release(),
                  .endpoint = endpoint,
                  .path = path,
                  .device = file.st_dev,
                  .inode = file.st_ino};
}

std::string text_of(const sockaddr_storage& address) {
  char host[INET6_ADDRSTRLEN] = "?";
  if (address.ss_family == AF_INET6) {
    const auto& v6 = reinterpret_cast<const sockaddr_in6&>(address);
    ::inet_ntop(AF_INET6, &v6.sin6_addr, host, sizeof host);
    return std::string("[") + host + "]:" + std::to_string(ntohs(v6.sin6_port));
  }
  const auto& v4 = reinterpret_cast<const sockaddr_in&>(address);
  ::inet_ntop(AF_INET, &v4.sin_addr, host, sizeof host);
  return std::string(host) + ":" + std::to_string(ntohs(v4.sin_port));
}

Result<Listener> bind_address(const std::string& endpoint, const addrinfo& address) {
  Fd fd(::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd.get() < 0) return system_error(ErrorCode::kIo, endpoint, "socket");
  set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  // "[::]" means IPv6 only, whatever the host's default, so that "0.0.0.0" can be added beside it.
  if (address.ai_family == AF_INET6) set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (::bind(fd.get(), address.ai_addr, address.ai_addrlen) != 0)
    return system_error(errno == EADDRINUSE ? ErrorCode::kBusy : ErrorCode::kIo, endpoint, "bind");
  if (::listen(fd.get(), kBacklog) != 0) return system_error(ErrorCode::kIo, endpoint, "listen");
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &size) != 0)
    return system_error(ErrorCode::kIo, endpoint, "getsockname");
  return Listener{.fd = fd.release(), .endpoint = text_of(bound)};
}

Result<Listener> bind_tcp(const std::string& endpoint) {
  const std::size_t colon = endpoint.rfind(':');
  std::string host = endpoint.substr(0, colon == std::string::npos ? 0 : colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string::npos) {
    host.clear();
  }
  const std::string port = colon == std::string::npos ? "" : endpoint.substr(colon + 1);
  const bool digits = !port.empty() && port.size() <= 5 &&
                      port.find_first_not_of("0123456789") == std::string::npos;
  if (host.empty() || !digits || std::stoul(port) > 65535)
    return Error{ErrorCode::kInvalid, "nbd: '" + endpoint +
                                          "' is not an endpoint; write unix:/path, host:port or "
                                          "[IPv6]:port"};
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (const int failed = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); failed != 0)
    return Error{ErrorCode::kInvalid, "nbd: cannot listen on " + endpoint + ": host '" + host +
                                          "': " + ::gai_strerror(failed)};
  auto bound = bind_address(endpoint, *found);
  ::freeaddrinfo(found);
  return bound;
}

}  // namespace

Result<Listener> bind_endpoint(const std::string& endpoint, unsigned unix_socket_mode) {
  if (endpoint.starts_with(kUnixPrefix)) return bind_unix(endpoint, unix_socket_mode);
  return bind_tcp(endpoint);
}

void remove_socket_file(const Listener& listener) {
  if (listener.path.empty()) return;
  struct stat file {};
  if (::lstat(listener.path.c_str(), &file) != 0) return;
  if (file.st_dev == listener.device && file.st_ino == listener.inode)
    (void)::unlink(listener.path.c_str());
}

std::string prepare_connection(int fd, bool local) {
  if (local) {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return "unix";
    return "unix:pid=" + std::to_string(peer.pid) + ",uid=" + std::to_string(peer.uid);
  }
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  // An idle guest may be silent for ever; one whose host is gone must not hold its slot for ever.
  set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, 60);
  set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, 15);
  set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) return "tcp";
  return text_of(peer);
}

}  // namespace tandem::nbd
