// Between our errors and gRPC's statuses. The exact code travels by name in the trailing metadata,
// so that a client of ours gets back what the node returned; the status code is for everybody else.
#pragma once

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <optional>
#include <string>
#include <string_view>

#include "rpc/options.h"
#include "tandem/base/result.h"

namespace tandem::rpc {

inline constexpr const char* kErrorKey = "tandem-error";

std::optional<ErrorCode> parse_error_code(std::string_view name);

/// The status for `error`; puts its code into `context`'s trailing metadata.
grpc::Status to_status(const Error& error, grpc::ServerContext& context);

/// The code that the other side named, if it named one: then it was one of ours and has answered.
std::optional<ErrorCode> named_code(const grpc::ClientContext& context);

/// `status` must not be OK; `address` is whom we called.
Error from_status(const grpc::Status& status, const grpc::ClientContext& context,
                  const std::string& address);

/// The same of a call of ours, with a hint when it looks like a failed handshake (explain_tls).
/// What a node says itself, or has from another one, is no failure of this connection, and has
/// none.
Error explain_failure(const grpc::Status& status, const grpc::ClientContext& context,
                      const std::string& address, bool tls, const TlsOptions& files);

}  // namespace tandem::rpc
