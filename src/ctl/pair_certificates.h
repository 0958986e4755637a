// The pair's own certificate authority: made by the first node, signs what both nodes and their
// operators show each other. EC P-256, on OpenSSL.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tandem/base/result.h"

struct evp_pkey_st;
struct x509_st;

namespace tandem::ctl {

/// Whom a certificate is for.
struct Subject {
  std::string name;                    // the common name
  std::vector<std::string> addresses;  // names and IP addresses by which it is reached
  std::string unit;                    // organisational unit; "" for none
};

/// A private key and the request to certify it, both PEM. The key never leaves its node.
struct KeyRequest {
  std::string key;
  std::string request;
};
Result<KeyRequest> make_request(const std::string& name);

class Authority {
 public:
  /// The one in `directory` (ca.crt, ca.key), made there if there is none. kInvalid: half of it is
  /// there, or it is damaged.
  static Result<Authority> open(const std::string& directory);

  const std::string& certificate() const { return certificate_pem_; }
  /// A certificate for the key of `request` (PEM) and for `subject`, whatever the request says of
  /// itself. Valid for 825 days.
  Result<std::string> sign(const std::string& request, const Subject& subject) const;

 private:
  std::string certificate_pem_;
  std::shared_ptr<x509_st> certificate_;
  std::shared_ptr<evp_pkey_st> key_;
};

/// SHA-256 of a certificate (PEM) as 32 bytes; empty when it is none.
std::string certificate_digest(const std::string& pem);
/// The same as "AB:CD:…", as openssl x509 -fingerprint -sha256 shows it.
std::string fingerprint(const std::string& pem);

/// Replaces `path` in one step, readable for its owner only when `secret`.
Status write_file(const std::string& path, const std::string& text, bool secret);
Result<std::string> read_text(const std::string& path);

}  // namespace tandem::ctl
