// Certificates: loading, checking, and what to say when they do not do.
#pragma once

#include <grpcpp/security/auth_context.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>

#include <memory>
#include <string>

#include "rpc/options.h"
#include "tandem/base/result.h"

namespace tandem::rpc {

/// The PEM texts, read and checked as far as one side can: they parse, the key fits the
/// certificate.
struct Certificates {
  std::string ca;
  std::string certificate;
  std::string key;
};

/// kInvalid with the file and the cure. An expired certificate is no error here (a node must be
/// able to start); see certificate_trouble().
Result<Certificates> load_certificates(const TlsOptions& files);

/// "" or what is wrong today with the certificates in `files`: expired, not yet valid.
std::string certificate_trouble(const TlsOptions& files);

/// Plain-text credentials without `tls`.
std::shared_ptr<grpc::ChannelCredentials> channel_credentials(bool tls, const Certificates& pem);
/// The same for a server, which looks at its files again as often as the options say.
std::shared_ptr<grpc::ServerCredentials> server_credentials(const ServiceOptions& options);

/// A calling node's credentials, made anew when its files have changed. Thread: the reactor's.
class FreshCredentials {
 public:
  FreshCredentials(bool tls, TlsOptions files, const Certificates& first);
  std::shared_ptr<grpc::ChannelCredentials> now();
  /// Looks at the files. kInvalid: what changed does not do; the old certificates stay in use.
  Status check();

 private:
  std::string stamp() const;

  const bool tls_;
  const TlsOptions files_;
  std::string stamp_;  // of the files when they were looked at last
  std::shared_ptr<grpc::ChannelCredentials> credentials_;
};

/// What a certificate is good for, by an organisational unit in its subject.
enum class Standing {
  kNode,      // everything; also one without a unit of these, and everybody without TLS
  kOperator,  // everything but replication: its key is on desks, and a stream is the data itself
  kViewer,    // to look; also a certificate that cannot be read
};
inline constexpr const char* kOperatorUnit = "tandem-operator";
inline constexpr const char* kViewerUnit = "tandem-viewer";
Standing standing_of(const grpc::AuthContext* context);

/// The common name of the peer's certificate, else its first alternative name, else "".
std::string peer_name(const grpc::AuthContext* context);

/// `error` with a hint when it looks like a failed handshake: which files were used, and what is
/// wrong with them as far as this side can see.
Error explain_tls(Error error, bool tls, const TlsOptions& files);

}  // namespace tandem::rpc
