#include "ctl/pair_certificates.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace tandem::ctl {
namespace {

constexpr long kDaysCa = 3650, kDaysNode = 825;
constexpr int kSerialBytes = 16;

struct Free {
  void operator()(BIO* p) const { BIO_free(p); }
  void operator()(X509* p) const { X509_free(p); }
  void operator()(X509_REQ* p) const { X509_REQ_free(p); }
  void operator()(X509_EXTENSION* p) const { X509_EXTENSION_free(p); }
  void operator()(EVP_PKEY* p) const { EVP_PKEY_free(p); }
  void operator()(BIGNUM* p) const { BN_free(p); }
};
template <class T>
using Owned = std::unique_ptr<T, Free>;

Error openssl_error(const std::string& what) {
  const unsigned long code = ERR_get_error();
  const char* reason = code != 0 ? ERR_reason_error_string(code) : nullptr;
  ERR_clear_error();
  return {ErrorCode::kInvalid, what + (reason ? ": " + std::string(reason) : "")};
}

Owned<BIO> reader(const std::string& text) {
  return Owned<BIO>(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const auto length = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(length)};
}

template <class Write>
std::string pem(Write write) {
  Owned<BIO> bio(BIO_new(BIO_s_mem()));
  write(bio.get());
  return text_of(bio.get());
}

std::string key_pem(EVP_PKEY* key) {
  return pem(
      [&](BIO* out) { PEM_write_bio_PrivateKey(out, key, nullptr, nullptr, 0, nullptr, nullptr); });
}

std::string certificate_pem(X509* certificate) {
  return pem([&](BIO* out) { PEM_write_bio_X509(out, certificate); });
}

bool add_name(X509_NAME* name, const char* field, const std::string& value) {
  return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(value.c_str()), -1, -1,
                                    0) == 1;
}

bool set_serial(X509* certificate) {
  unsigned char bytes[kSerialBytes];
  if (RAND_bytes(bytes, sizeof bytes) != 1) return false;
  bytes[0] &= 0x7f;  // a serial number is positive
  Owned<BIGNUM> number(BN_bin2bn(bytes, sizeof bytes, nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool add_extension(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  Owned<X509_EXTENSION> extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool is_ip(const std::string& address) {
  unsigned char bytes[16];
  return inet_pton(AF_INET, address.c_str(), bytes) == 1 ||
         inet_pton(AF_INET6, address.c_str(), bytes) == 1;
}

/// Letters, digits and what addresses are made of: nothing that OpenSSL's own syntax gives a
/// meaning to.
bool is_plain(const std::string& text) {
  return !text.empty() && text.size() <= 253 &&
         text.find_first_not_of(
             "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
             ".-_:") == std::string::npos;
}

Owned<X509> empty_certificate(long days) {
  Owned<X509> certificate(X509_new());
  const bool good =
      certificate && X509_set_version(certificate.get(), X509_VERSION_3) == 1 &&
      set_serial(certificate.get()) &&
      // The other node's clock may be a little behind.
      X509_gmtime_adj(X509_getm_notBefore(certificate.get()), -3600) != nullptr &&
      X509_gmtime_adj(X509_getm_notAfter(certificate.get()), days * 24 * 3600) != nullptr;
  return good ? std::move(certificate) : nullptr;
}

Owned<X509> make_ca(EVP_PKEY* key) {
  auto certificate = empty_certificate(kDaysCa);
  if (!certificate) return nullptr;
  X509* const ca = certificate.get();
  X509_NAME* name = X509_get_subject_name(ca);
  unsigned char id[4];
  char text[2 * sizeof id + 1];
  if (RAND_bytes(id, sizeof id) != 1) return nullptr;
  std::snprintf(text, sizeof text, "%02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
  const bool good = add_name(name, "O", "Tandem") &&
                    add_name(name, "CN", "Tandem authority " + std::string(text)) &&
                    X509_set_issuer_name(ca, name) == 1 && X509_set_pubkey(ca, key) == 1 &&
                    add_extension(ca, ca, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
                    add_extension(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign") &&
                    add_extension(ca, ca, NID_subject_key_identifier, "hash") &&
                    X509_sign(ca, key, EVP_sha256()) > 0;
  return good ? std::move(certificate) : nullptr;
}

}  // namespace

Status write_file(const std::string& path, const std::string& text, bool secret) {
  const std::string temporary = path + ".new";
  ::unlink(temporary.c_str());
  const int fd =
      ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, secret ? 0600 : 0644);
  // What was there keeps its owner and mode, as far as we may say so.
  struct stat before {};
  if (fd >= 0 && !secret && ::stat(path.c_str(), &before) == 0 &&
      ::fchown(fd, before.st_uid, before.st_gid) == 0)
    (void)::fchmod(fd, before.st_mode & 07777);
  const bool written = fd >= 0 &&
                       ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                       ::fsync(fd) == 0;
  const bool placed = written && ::rename(temporary.c_str(), path.c_str()) == 0;
  const int why = errno;
  if (fd >= 0) ::close(fd);
  if (placed) return ok();
  ::unlink(temporary.c_str());
  return Error{ErrorCode::kIo, "cannot write " + path + ": " + std::strerror(why)};
}

Result<std::string> read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (!in || !(text << in.rdbuf()))
    return Error{ErrorCode::kIo, "cannot read " + path + ": " + std::strerror(errno)};
  return text.str();
}

Result<KeyRequest> make_request(const std::string& name) {
  Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
  Owned<X509_REQ> request(X509_REQ_new());
  const bool good = key && request &&
                    add_name(X509_REQ_get_subject_name(request.get()), "CN", name) &&
                    X509_REQ_set_pubkey(request.get(), key.get()) == 1 &&
                    X509_REQ_sign(request.get(), key.get(), EVP_sha256()) > 0;
  if (!good) return openssl_error("cannot make a key for " + name);
  return KeyRequest{key_pem(key.get()),
                    pem([&](BIO* out) { PEM_write_bio_X509_REQ(out, request.get()); })};
}

Result<Authority> Authority::open(const std::string& directory) {
  const std::string certificate_path = directory + "/ca.crt", key_path = directory + "/ca.key";
  std::error_code none;
  const bool has_certificate = std::filesystem::exists(certificate_path, none);
  const bool has_key = std::filesystem::exists(key_path, none);
  Authority authority;
  if (!has_certificate && !has_key) {
    Owned<EVP_PKEY> key(EVP_EC_gen("P-256"));
    auto certificate = key ? make_ca(key.get()) : nullptr;
    if (!certificate) return openssl_error("cannot make the pair's authority");
    TANDEM_TRY(write_file(key_path, key_pem(key.get()), true));
    TANDEM_TRY(write_file(certificate_path, certificate_pem(certificate.get()), false));
  } else if (!has_certificate || !has_key) {
    return Error{ErrorCode::kInvalid,
                 (has_key ? certificate_path : key_path) +
                     " is missing beside its other half: the authority is on another node (pair "
                     "from there), or remove the half to begin anew"};
  }
  auto certificate_text = read_text(certificate_path);
  if (!certificate_text) return std::move(certificate_text.error());
  auto key_text = read_text(key_path);
  if (!key_text) return std::move(key_text.error());
  authority.certificate_pem_ = *certificate_text;
  authority.certificate_.reset(
      PEM_read_bio_X509(reader(*certificate_text).get(), nullptr, nullptr, nullptr), Free{});
  authority.key_.reset(PEM_read_bio_PrivateKey(reader(*key_text).get(), nullptr, nullptr, nullptr),
                       Free{});
  if (!authority.certificate_ || !authority.key_ ||
      X509_check_private_key(authority.certificate_.get(), authority.key_.get()) != 1)
    return openssl_error(certificate_path + " and " + key_path + " are no authority");
  return authority;
}

Result<std::string> Authority::sign(const std::string& request_pem, const Subject& subject) const {
  Owned<X509_REQ> request(
      PEM_read_bio_X509_REQ(reader(request_pem).get(), nullptr, nullptr, nullptr));
  EVP_PKEY* key = request ? X509_REQ_get0_pubkey(request.get()) : nullptr;
  if (!key || X509_REQ_verify(request.get(), key) != 1)
    return openssl_error("the request of " + subject.name + " is not one that its key signed");
  std::string names = "DNS:" + subject.name;
  for (const auto& address : subject.addresses) {
    if (!is_plain(address))
      return Error{ErrorCode::kInvalid, "\"" + address + "\" is no name or IP address"};
    if (address != subject.name) names += (is_ip(address) ? ",IP:" : ",DNS:") + address;
  }
  if (!is_plain(subject.name) || subject.name.find(':') != std::string::npos)
    return Error{ErrorCode::kInvalid, "\"" + subject.name + "\" cannot be a node's name"};
  auto certificate = empty_certificate(kDaysNode);
  X509* const out = certificate.get();
  X509* const ca = certificate_.get();
  const bool good =
      out && add_name(X509_get_subject_name(out), "O", "Tandem") &&
      (subject.unit.empty() || add_name(X509_get_subject_name(out), "OU", subject.unit)) &&
      add_name(X509_get_subject_name(out), "CN", subject.name) &&
      X509_set_issuer_name(out, X509_get_subject_name(ca)) == 1 && X509_set_pubkey(out, key) == 1 &&
      add_extension(out, ca, NID_basic_constraints, "critical,CA:FALSE") &&
      add_extension(out, ca, NID_key_usage, "critical,digitalSignature") &&
      add_extension(out, ca, NID_ext_key_usage, "serverAuth,clientAuth") &&
      add_extension(out, ca, NID_subject_alt_name, names) &&
      X509_sign(out, key_.get(), EVP_sha256()) > 0;
  if (!good) return openssl_error("cannot sign a certificate for " + subject.name);
  return certificate_pem(out);
}

std::string certificate_digest(const std::string& text) {
  Owned<X509> certificate(PEM_read_bio_X509(reader(text).get(), nullptr, nullptr, nullptr));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  ERR_clear_error();
  if (!certificate || X509_digest(certificate.get(), EVP_sha256(), digest, &length) != 1) return {};
  return {reinterpret_cast<const char*>(digest), length};
}

std::string fingerprint(const std::string& text) {
  std::string out;
  char hex[4];
  for (const char byte : certificate_digest(text)) {
    std::snprintf(hex, sizeof hex, "%s%02X", out.empty() ? "" : ":",
                  static_cast<unsigned char>(byte));
    out += hex;
  }
  return out;
}

}  // namespace tandem::ctl
