// How the second node asks the first for its certificate: one request, one answer, over TLS. The
// second node knows the first by the digest of its certificate, which is in the token; the first
// knows the second by the secret in the token. Blocking, with time-outs.
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "tandem/base/result.h"

namespace tandem::ctl {

/// What an operator carries from the first node to the second, in one word.
struct Token {
  std::string secret;  // 16 bytes
  std::string digest;  // first 16 bytes of the SHA-256 of the first node's certificate
  std::string text() const;
  /// kInvalid: mistyped (a check sum tells), or not a token at all.
  static Result<Token> parse(const std::string& text);
  /// With a new secret.
  static Result<Token> make(const std::string& certificate_pem);
};

/// Waits for requests at `listen` and answers each with what `answer` gives, until it gives "done"
/// or `until`. At most one at a time, each with a few seconds; more than that come to nothing.
struct PairServer {
  std::string certificate_path, key_path;
  /// The answer to one request, and whether it was the last.
  std::function<std::string(const std::string& request, bool& done)> answer;
  /// Called once with the bound address.
  std::function<void(const std::string& address)> ready;
};
Status serve_pairing(const PairServer& server, const std::string& listen,
                     std::chrono::steady_clock::time_point until);

/// The answer of the node at `address`. Nothing is sent before its certificate has the digest of
/// `token`. kUnavailable: nobody there; kRefused: somebody else is.
Result<std::string> ask_to_pair(const std::string& address, const Token& token,
                                const std::string& request);

}  // namespace tandem::ctl
