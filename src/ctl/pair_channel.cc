#include "ctl/pair_channel.h"

#include <netdb.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "ctl/pair_certificates.h"

namespace tandem::ctl {
namespace {

constexpr std::size_t kPartBytes = 16;
constexpr std::size_t kMessageBytesMax = 64 << 10;
constexpr int kPatienceSeconds = 10;
constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz234567";  // base32

struct Free {
  void operator()(SSL* p) const { SSL_free(p); }
  void operator()(SSL_CTX* p) const { SSL_CTX_free(p); }
  void operator()(X509* p) const { X509_free(p); }
  void operator()(BIO* p) const { BIO_free(p); }
  void operator()(addrinfo* p) const { freeaddrinfo(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&&) = delete;
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  int fd() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  /// No single step of a conversation takes longer.
  void be_patient() const {
    const timeval limit{kPatienceSeconds, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  }

 private:
  int fd_;
};

std::string openssl_reason() {
  const unsigned long code = ERR_get_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  ERR_clear_error();
  return reason ? reason : "the connection ended";
}

Result<Owned<addrinfo>> resolve(const std::string& address, bool to_listen) {
  const auto colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0 || colon + 1 == address.size())
    return Error{ErrorCode::kInvalid, "\"" + address + "\" is not an address: write HOST:PORT"};
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (to_listen ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(host.c_str(), address.c_str() + colon + 1, &hints, &found);
  if (failed != 0)
    return Error{ErrorCode::kInvalid, "\"" + address + "\": " + std::string(gai_strerror(failed))};
  return Owned<addrinfo>(found);
}

Result<Socket> listen_at(const std::string& address, std::string& bound) {
  auto found = resolve(address, true);
  if (!found) return std::move(found.error());
  const addrinfo& at = **found;
  Socket socket(::socket(at.ai_family, at.ai_socktype | SOCK_CLOEXEC, at.ai_protocol));
  const int on = 1;
  if (!socket || ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(socket.fd(), at.ai_addr, at.ai_addrlen) != 0 || ::listen(socket.fd(), 4) != 0)
    return Error{ErrorCode::kBusy, "cannot listen on " + address + ": " + std::strerror(errno)};
  sockaddr_storage name{};
  socklen_t length = sizeof name;
  ::getsockname(socket.fd(), reinterpret_cast<sockaddr*>(&name), &length);
  const auto port =
      ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(name).sin6_port
                                       : reinterpret_cast<const sockaddr_in&>(name).sin_port);
  bound = address.substr(0, address.rfind(':') + 1) + std::to_string(port);
  return socket;
}

Result<Socket> connect_to(const std::string& address) {
  auto found = resolve(address, false);
  if (!found) return std::move(found.error());
  std::string why = "nothing to try";
  for (const addrinfo* at = found->get(); at != nullptr; at = at->ai_next) {
    Socket socket(::socket(at->ai_family, at->ai_socktype | SOCK_CLOEXEC, at->ai_protocol));
    if (socket) socket.be_patient();  // SO_SNDTIMEO bounds connect() too
    if (socket && ::connect(socket.fd(), at->ai_addr, at->ai_addrlen) == 0) return socket;
    why = std::strerror(errno);
  }
  return Error{ErrorCode::kUnavailable, "cannot reach " + address + ": " + why +
                                            "; does 'tandem pair start' still wait there?"};
}

bool write_all(SSL* ssl, const std::string& text) {
  std::string out = std::to_string(text.size()) + "\n" + text;
  std::size_t at = 0;
  while (at < out.size()) {
    const int n = SSL_write(ssl, out.data() + at, static_cast<int>(out.size() - at));
    if (n <= 0) return false;
    at += static_cast<std::size_t>(n);
  }
  return true;
}

/// A length in decimal, a line break, and so many bytes.
bool read_all(SSL* ssl, std::string& text) {
  std::size_t length = 0;
  for (char c = 0; SSL_read(ssl, &c, 1) == 1;) {
    if (c == '\n') {
      text.resize(length);
      for (std::size_t at = 0; at < length;) {
        const int n = SSL_read(ssl, text.data() + at, static_cast<int>(length - at));
        if (n <= 0) return false;
        at += static_cast<std::size_t>(n);
      }
      return true;
    }
    if (c < '0' || c > '9') return false;
    length = length * 10 + static_cast<std::size_t>(c - '0');
    if (length > kMessageBytesMax) return false;
  }
  return false;
}

Owned<SSL_CTX> make_context(const SSL_METHOD* method) {
  Owned<SSL_CTX> context(SSL_CTX_new(method));
  if (context) SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  return context;
}

std::string peer_digest(SSL* ssl) {
  Owned<X509> certificate(SSL_get1_peer_certificate(ssl));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  if (!certificate || X509_digest(certificate.get(), EVP_sha256(), digest, &length) != 1) return {};
  return std::string(reinterpret_cast<const char*>(digest), length).substr(0, kPartBytes);
}

bool equal(const std::string& a, const std::string& b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string check_of(const std::string& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest, &length, EVP_sha256(), nullptr);
  return std::string(reinterpret_cast<const char*>(digest), 2);
}

}  // namespace

Result<Token> Token::make(const std::string& certificate_pem) {
  unsigned char secret[kPartBytes];
  const auto digest = certificate_digest(certificate_pem);
  if (digest.empty() || RAND_bytes(secret, sizeof secret) != 1)
    return Error{ErrorCode::kInvalid, "cannot make a token: " + openssl_reason()};
  return Token{{reinterpret_cast<const char*>(secret), sizeof secret},
               digest.substr(0, kPartBytes)};
}

std::string Token::text() const {
  std::string bytes = secret + digest;
  bytes += check_of(bytes);
  std::string out;
  unsigned bits = 0, held = 0;
  for (const char c : bytes) {
    bits = (bits << 8 | static_cast<unsigned char>(c)) & 0xffff;
    for (held += 8; held >= 5; held -= 5) out += kAlphabet[bits >> (held - 5) & 31];
  }
  if (held > 0) out += kAlphabet[bits << (5 - held) & 31];
  return out;
}

Result<Token> Token::parse(const std::string& text) {
  std::string bytes;
  unsigned bits = 0, held = 0;
  for (const char c : text) {
    const char* at = c != 0 ? std::strchr(kAlphabet, c) : nullptr;
    if (at == nullptr)
      return Error{ErrorCode::kInvalid,
                   "this is no token: it has letters and the digits 2 to 7, as 'tandem pair start' "
                   "showed it"};
    bits = (bits << 5 | static_cast<unsigned>(at - kAlphabet)) & 0xffff;
    held += 5;
    if (held < 8) continue;
    held -= 8;
    bytes += static_cast<char>(bits >> held & 0xff);
  }
  const bool whole = bytes.size() == 2 * kPartBytes + 2;
  const std::string body = bytes.substr(0, 2 * kPartBytes);
  if (!whole || !equal(check_of(body), bytes.substr(body.size())))
    return Error{ErrorCode::kInvalid, "the token is mistyped or not complete; copy it again"};
  return Token{body.substr(0, kPartBytes), body.substr(kPartBytes)};
}

Status serve_pairing(const PairServer& server, const std::string& listen,
                     std::chrono::steady_clock::time_point until) {
  auto context = make_context(TLS_server_method());
  if (!context ||
      SSL_CTX_use_certificate_chain_file(context.get(), server.certificate_path.c_str()) != 1 ||
      SSL_CTX_use_PrivateKey_file(context.get(), server.key_path.c_str(), SSL_FILETYPE_PEM) != 1)
    return Error{ErrorCode::kInvalid, server.certificate_path + ": " + openssl_reason()};
  std::string bound;
  auto door = listen_at(listen, bound);
  if (!door) return std::move(door.error());
  server.ready(bound);
  for (bool done = false; !done;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        until - std::chrono::steady_clock::now());
    pollfd wait{door->fd(), POLLIN, 0};
    if (left.count() <= 0 || ::poll(&wait, 1, static_cast<int>(left.count())) == 0)
      return Error{ErrorCode::kUnavailable,
                   "nobody joined in time and the token is void; start again"};
    Socket guest(::accept4(door->fd(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!guest) continue;
    guest.be_patient();
    Owned<SSL> ssl(SSL_new(context.get()));
    std::string request;
    if (ssl && SSL_set_fd(ssl.get(), guest.fd()) == 1 && SSL_accept(ssl.get()) == 1 &&
        read_all(ssl.get(), request)) {
      (void)write_all(ssl.get(), server.answer(request, done));
      SSL_shutdown(ssl.get());
    }
    ERR_clear_error();
  }
  return ok();
}

Result<std::string> ask_to_pair(const std::string& address, const Token& token,
                                const std::string& request) {
  auto socket = connect_to(address);
  if (!socket) return std::move(socket.error());
  auto context = make_context(TLS_client_method());
  Owned<SSL> ssl(context ? SSL_new(context.get()) : nullptr);
  // No authority is known yet: the token's digest takes its place, below.
  if (!ssl || SSL_set_fd(ssl.get(), socket->fd()) != 1 || SSL_connect(ssl.get()) != 1)
    return Error{ErrorCode::kUnavailable, "no TLS at " + address + ": " + openssl_reason()};
  if (!equal(peer_digest(ssl.get()), token.digest))
    return Error{ErrorCode::kRefused,
                 address +
                     " shows another certificate than the token was made for: it is not that "
                     "node, or somebody is in between. Nothing was sent to it"};
  std::string answer;
  if (!write_all(ssl.get(), request) || !read_all(ssl.get(), answer))
    return Error{ErrorCode::kUnavailable, address + " gave no answer: " + openssl_reason()};
  SSL_shutdown(ssl.get());
  return answer;
}

}  // namespace tandem::ctl
