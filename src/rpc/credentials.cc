#include "rpc/credentials.h"

#include <grpcpp/security/tls_certificate_provider.h>
#include <grpcpp/security/tls_credentials_options.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include "tandem/base/log.h"

namespace tandem::rpc {
namespace {

struct Free {
  void operator()(BIO* p) const { BIO_free(p); }
  void operator()(X509* p) const { X509_free(p); }
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

/// Enough for any chain; a file that is larger is not a certificate.
constexpr std::size_t kFileBytesMax = 1 << 20;

Result<std::string> read_file(const std::string& path, const char* what) {
  if (path.empty())
    return Error{ErrorCode::kInvalid, std::string("TLS needs a ") + what +
                                          " file; name one, or turn TLS off where that is safe"};
  std::string text;
  std::string trouble = "it is empty";
  if (std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
      file) {
    char part[4096];
    std::size_t n;
    while (text.size() < kFileBytesMax && (n = std::fread(part, 1, sizeof part, file.get())) > 0)
      text.append(part, n);
    if (std::ferror(file.get())) {
      trouble = std::strerror(errno);
      text.clear();
    }
  } else {
    trouble = std::strerror(errno);
  }
  if (text.empty())
    return Error{ErrorCode::kInvalid,
                 std::string("cannot read the ") + what + " file " + path + ": " + trouble};
  return text;
}

Owned<BIO> reader(const std::string& text) {
  return Owned<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

Owned<X509> parse_certificate(const std::string& text) {
  auto bio = reader(text);
  Owned<X509> certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  return certificate;
}

/// Never asks anybody for a pass phrase.
int no_pass_phrase(char*, int, int, void*) { return 0; }

Owned<EVP_PKEY> parse_key(const std::string& text) {
  auto bio = reader(text);
  Owned<EVP_PKEY> key(PEM_read_bio_PrivateKey(bio.get(), nullptr, &no_pass_phrase, nullptr));
  ERR_clear_error();
  return key;
}

std::string subject(X509* certificate) {
  Owned<BIO> bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), X509_get_subject_name(certificate), 0, XN_FLAG_ONELINE);
  char* data = nullptr;
  const auto length = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(length)};
}

std::string time_text(const ASN1_TIME* time) {
  Owned<BIO> bio(BIO_new(BIO_s_mem()));
  ASN1_TIME_print(bio.get(), time);
  char* data = nullptr;
  const auto length = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(length)};
}

std::string trouble(const std::string& path) {
  const auto text = read_file(path, "certificate");
  if (!text) return text.error().message;
  const auto certificate = parse_certificate(*text);
  if (!certificate) return path + " is not a certificate in PEM";
  const auto* begin = X509_get0_notBefore(certificate.get());
  const auto* end = X509_get0_notAfter(certificate.get());
  if (X509_cmp_current_time(end) < 0)
    return "certificate " + path + " (" + subject(certificate.get()) + ") expired on " +
           time_text(end) + ": make a new one";
  if (X509_cmp_current_time(begin) > 0)
    return "certificate " + path + " (" + subject(certificate.get()) + ") is valid only from " +
           time_text(begin) + ": set this machine's clock or wait";
  return {};
}

}  // namespace

Result<Certificates> load_certificates(const TlsOptions& files) {
  auto ca = read_file(files.ca, "CA");
  if (!ca) return ca.error();
  auto own = read_file(files.certificate, "certificate");
  if (!own) return own.error();
  auto key_text = read_file(files.key, "key");
  if (!key_text) return key_text.error();
  if (!parse_certificate(*ca))
    return Error{ErrorCode::kInvalid, "the CA file " + files.ca + " holds no certificate in PEM"};
  const auto certificate = parse_certificate(*own);
  if (!certificate)
    return Error{ErrorCode::kInvalid,
                 "the certificate file " + files.certificate + " holds no certificate in PEM"};
  const auto key = parse_key(*key_text);
  if (!key)
    return Error{ErrorCode::kInvalid,
                 "the key file " + files.key + " holds no private key in PEM without pass phrase"};
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return Error{ErrorCode::kInvalid,
                 "the key " + files.key + " does not belong to the certificate " +
                     files.certificate + ": name the pair that was made together"};
  }
  return Certificates{std::move(*ca), std::move(*own), std::move(*key_text)};
}

std::string certificate_trouble(const TlsOptions& files) {
  auto own = trouble(files.certificate);
  return own.empty() ? trouble(files.ca) : own;
}

std::shared_ptr<grpc::ServerCredentials> server_credentials(const ServiceOptions& options) {
  if (!options.tls) return grpc::InsecureServerCredentials();
  namespace tls = grpc::experimental;
  // "Experimental" is the name of the interface; the same code runs behind all of gRPC's TLS.
  tls::TlsServerCredentialsOptions credentials(
      std::make_shared<tls::FileWatcherCertificateProvider>(
          options.files.key, options.files.certificate, options.files.ca,
          static_cast<unsigned>(options.certificate_check.count())));
  credentials.watch_root_certs();
  credentials.watch_identity_key_cert_pairs();
  credentials.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  return tls::TlsServerCredentials(credentials);
}

FreshCredentials::FreshCredentials(bool tls, TlsOptions files, const Certificates& first)
    : tls_(tls),
      files_(std::move(files)),
      stamp_(stamp()),
      credentials_(channel_credentials(tls, first)) {}

std::string FreshCredentials::stamp() const {
  std::string all;
  for (const auto& path : {files_.ca, files_.certificate, files_.key}) {
    struct stat at {};
    if (!tls_ || ::stat(path.c_str(), &at) != 0) continue;
    all += std::to_string(at.st_ino) + "." + std::to_string(at.st_size) + "." +
           std::to_string(at.st_mtim.tv_sec) + "." + std::to_string(at.st_mtim.tv_nsec) + " ";
  }
  return all;
}

Status FreshCredentials::check() {
  auto now = stamp();
  if (now == stamp_) return ok();
  auto loaded = load_certificates(files_);
  // Not remembered on failure: half of a pair may be there, and the other half comes in a moment.
  if (!loaded) return loaded.error();
  stamp_ = std::move(now);
  credentials_ = channel_credentials(tls_, *loaded);
  const auto trouble = certificate_trouble(files_);
  log_event(trouble.empty() ? Level::kInfo : Level::kError, "tls.reloaded",
            "certificate={} trouble=\"{}\"", files_.certificate, trouble);
  return ok();
}

std::shared_ptr<grpc::ChannelCredentials> FreshCredentials::now() {
  if (const Status checked = check(); !checked) {
    log_event(Level::kWarn, "tls.reload_failed", "reason=\"{}\" effect=\"the old stay in use\"",
              checked.error().message);
  }
  return credentials_;
}

Standing standing_of(const grpc::AuthContext* context) {
  if (!context || !context->IsPeerAuthenticated()) return Standing::kNode;
  const auto pem = context->FindPropertyValues(GRPC_X509_PEM_CERT_PROPERTY_NAME);
  if (pem.empty()) return Standing::kViewer;
  const auto certificate = parse_certificate({pem.front().data(), pem.front().size()});
  if (!certificate) return Standing::kViewer;
  const X509_NAME* name = X509_get_subject_name(certificate.get());
  auto standing = Standing::kNode;
  for (int at = -1; (at = X509_NAME_get_index_by_NID(name, NID_organizationalUnitName, at)) >= 0;) {
    const ASN1_STRING* unit = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
    const std::string_view text(reinterpret_cast<const char*>(ASN1_STRING_get0_data(unit)),
                                static_cast<std::size_t>(ASN1_STRING_length(unit)));
    // Of several the one that is good for the least.
    if (text == kViewerUnit) return Standing::kViewer;
    if (text == kOperatorUnit) standing = Standing::kOperator;
  }
  return standing;
}

std::shared_ptr<grpc::ChannelCredentials> channel_credentials(bool tls, const Certificates& pem) {
  if (!tls) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = pem.ca;
  options.pem_private_key = pem.key;
  options.pem_cert_chain = pem.certificate;
  return grpc::SslCredentials(options);
}

std::string peer_name(const grpc::AuthContext* context) {
  if (!context || !context->IsPeerAuthenticated()) return {};
  for (const char* property : {GRPC_X509_CN_PROPERTY_NAME, GRPC_X509_SAN_PROPERTY_NAME}) {
    const auto values = context->FindPropertyValues(property);
    if (!values.empty()) return {values.front().data(), values.front().size()};
  }
  return {};
}

Error explain_tls(Error error, bool tls, const TlsOptions& files) {
  if (error.code != ErrorCode::kUnavailable) return error;
  const auto mentions = [&](const char* word) {
    return error.message.find(word) != std::string::npos;
  };
  const bool theirs = mentions("CERTIFICATE_VERIFY_FAILED") ||
                      mentions("certificate verify failed") || mentions("not verified") ||
                      mentions("not in peer certificate");
  const bool handshake = theirs || mentions("andshake") || mentions("SSL") ||
                         mentions("Socket closed") || mentions("Connection reset") ||
                         mentions("recvmsg") || mentions("Broken pipe");
  if (!handshake) return error;
  if (!tls) {
    error.message += " (TLS is off on this side: does the other demand it?)";
    return error;
  }
  if (const auto own = certificate_trouble(files); !own.empty()) {
    error.message += " (" + own + ")";
  } else if (mentions("WRONG_VERSION_NUMBER") || mentions("wrong version number")) {
    error.message += " (no TLS there: is it a tandem node's service, and with tls on?)";
  } else if (theirs) {
    error.message += " (its certificate is not one that " + files.ca +
                     " vouches for: signed by another CA, expired, or made for other names)";
  } else {
    error.message += " (if it rejects our certificate " + files.certificate +
                     ", its log says why: both nodes must be signed by the same CA)";
  }
  return error;
}

}  // namespace tandem::rpc
