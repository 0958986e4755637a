#include "frontend/nbd/tls.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "tandem/base/check.h"

namespace tandem::nbd {
namespace {

constexpr std::size_t kRecordBytes = 16 << 10;  // the most that one TLS record carries

std::string openssl_reason() {
  const unsigned long code = ERR_get_error();
  if (code == 0) return "no reason given";
  char text[256];
  ERR_error_string_n(code, text, sizeof text);
  ERR_clear_error();
  return text;
}

// A BIO over a socket that never raises SIGPIPE; OpenSSL's own socket BIO uses plain write().
int bio_fd(BIO* bio) {
  return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(bio)));
}

int bio_write(BIO* bio, const char* data, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t sent = ::send(bio_fd(bio), data, static_cast<std::size_t>(size), MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  return static_cast<int>(sent);
}

int bio_read(BIO* bio, char* data, int size) {
  BIO_clear_retry_flags(bio);
  const ssize_t got = ::recv(bio_fd(bio), data, static_cast<std::size_t>(size), 0);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  return static_cast<int>(got);
}

long bio_control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

int bio_create(BIO* bio) {
  BIO_set_init(bio, 1);
  return 1;
}

BIO_METHOD* socket_method() {
  static BIO_METHOD* method = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tandem socket");
    CHECK(m != nullptr);
    BIO_meth_set_write(m, bio_write);
    BIO_meth_set_read(m, bio_read);
    BIO_meth_set_ctrl(m, bio_control);
    BIO_meth_set_create(m, bio_create);
    return m;
  }();
  return method;
}

Error bad_file(const std::string& what, const std::string& path) {
  return Error{ErrorCode::kInvalid, "nbd TLS: cannot use " + what + " '" + path +
                                        "': " + openssl_reason() +
                                        "; check the path, its permissions and that it is PEM"};
}

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::make(const TlsOptions& options) {
  SSL_CTX* native = SSL_CTX_new(TLS_server_method());
  CHECK(native != nullptr);
  std::shared_ptr<TlsContext> context(new TlsContext(native));
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_mode(native, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                               SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  if (SSL_CTX_use_certificate_chain_file(native, options.certificate.c_str()) != 1)
    return bad_file("certificate", options.certificate);
  if (SSL_CTX_use_PrivateKey_file(native, options.key.c_str(), SSL_FILETYPE_PEM) != 1)
    return bad_file("key", options.key);
  if (SSL_CTX_check_private_key(native) != 1)
    return bad_file("key (it does not belong to the certificate)", options.key);
  if (!options.client_ca.empty()) {
    if (SSL_CTX_load_verify_locations(native, options.client_ca.c_str(), nullptr) != 1)
      return bad_file("client CA", options.client_ca);
    SSL_CTX_set_verify(native, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  return context;
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

TlsStream::TlsStream(std::shared_ptr<TlsContext> context, int fd)
    : context_(std::move(context)),
      ssl_(SSL_new(context_->native())),
      fd_(fd),
      staging_(std::make_unique_for_overwrite<std::byte[]>(kRecordBytes)) {
  CHECK(ssl_ != nullptr);
  BIO* bio = BIO_new(socket_method());
  CHECK(bio != nullptr);
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(fd_)));
  SSL_set_bio(ssl_, bio, bio);
}

TlsStream::~TlsStream() { SSL_free(ssl_); }

TlsStream::Handshake TlsStream::handshake(std::string& why) {
  ERR_clear_error();
  const int done = SSL_accept(ssl_);
  if (done == 1) return Handshake::kDone;
  switch (SSL_get_error(ssl_, done)) {
    case SSL_ERROR_WANT_READ:
      return Handshake::kWantRead;
    case SSL_ERROR_WANT_WRITE:
      return Handshake::kWantWrite;
    default:
      break;
  }
  why = openssl_reason();
  failed_ = true;
  return Handshake::kFailed;
}

IoResult TlsStream::receive(std::span<iovec> into) {
  std::size_t total = 0;
  for (const iovec& piece : into) {
    std::size_t at = 0;
    while (at < piece.iov_len) {
      ERR_clear_error();
      std::size_t got = 0;
      const int done =
          SSL_read_ex(ssl_, static_cast<std::byte*>(piece.iov_base) + at, piece.iov_len - at, &got);
      if (done == 1) {
        at += got;
        total += got;
        continue;
      }
      if (total > 0) return {IoResult::Kind::kBytes, total};
      if (SSL_get_error(ssl_, done) == SSL_ERROR_WANT_READ) return {IoResult::Kind::kAgain, 0};
      failed_ = true;
      return {IoResult::Kind::kEnd, 0};
    }
  }
  return {IoResult::Kind::kBytes, total};
}

IoResult TlsStream::send(std::span<const iovec> from) {
  std::size_t total = 0;
  std::size_t piece = 0;
  std::size_t at = 0;  // within from[piece]
  while (piece < from.size()) {
    const auto* data = static_cast<const std::byte*>(from[piece].iov_base) + at;
    std::size_t size = std::min(from[piece].iov_len - at, kRecordBytes);
    if (size < kRecordBytes) {
      // Heads and small payloads travel in one record; a retry offers the same bytes again.
      size = 0;
      for (std::size_t i = piece; i < from.size() && size < kRecordBytes; ++i) {
        const std::size_t skip = i == piece ? at : 0;
        const std::size_t take = std::min(from[i].iov_len - skip, kRecordBytes - size);
        std::memcpy(staging_.get() + size, static_cast<const std::byte*>(from[i].iov_base) + skip,
                    take);
        size += take;
      }
      data = staging_.get();
    }
    ERR_clear_error();
    std::size_t sent = 0;
    const int done = SSL_write_ex(ssl_, data, size, &sent);
    if (done != 1) {
      if (total > 0) return {IoResult::Kind::kBytes, total};
      const int error = SSL_get_error(ssl_, done);
      if (error == SSL_ERROR_WANT_WRITE) return {IoResult::Kind::kAgain, 0};
      failed_ = true;
      return {IoResult::Kind::kEnd, 0};
    }
    total += sent;
    while (piece < from.size() && sent >= from[piece].iov_len - at) {
      sent -= from[piece].iov_len - at;
      ++piece;
      at = 0;
    }
    at += sent;
  }
  return {IoResult::Kind::kBytes, total};
}

void TlsStream::close_notify() {
  if (failed_ || !SSL_is_init_finished(ssl_)) return;
  ERR_clear_error();
  SSL_shutdown(ssl_);
  ERR_clear_error();
}

std::string TlsStream::peer_name() const {
  X509* certificate = SSL_get1_peer_certificate(ssl_);
  if (certificate == nullptr) return "";
  char name[256];
  const int size = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), NID_commonName,
                                             name, sizeof name);
  X509_free(certificate);
  return size > 0 ? std::string(name, static_cast<std::size_t>(size)) : "";
}

}  // namespace tandem::nbd
