#include "rpc/errors.h"

#include <string>
#include <string_view>

#include "rpc/credentials.h"
#include "rpc/wire.h"

namespace tandem::rpc {
namespace {

grpc::StatusCode status_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kIo:
      return grpc::StatusCode::INTERNAL;
    case ErrorCode::kCorrupt:
      return grpc::StatusCode::DATA_LOSS;
    case ErrorCode::kNoSpace:
      return grpc::StatusCode::RESOURCE_EXHAUSTED;
    case ErrorCode::kInvalid:
      return grpc::StatusCode::INVALID_ARGUMENT;
    case ErrorCode::kNotFound:
      return grpc::StatusCode::NOT_FOUND;
    case ErrorCode::kExists:
      return grpc::StatusCode::ALREADY_EXISTS;
    case ErrorCode::kReadOnly:
    case ErrorCode::kFenced:
    case ErrorCode::kRefused:
      return grpc::StatusCode::FAILED_PRECONDITION;
    case ErrorCode::kUnavailable:
      return grpc::StatusCode::UNAVAILABLE;
    case ErrorCode::kBusy:
      return grpc::StatusCode::ABORTED;
    case ErrorCode::kUnsupported:
      return grpc::StatusCode::UNIMPLEMENTED;
    case ErrorCode::kCancelled:
      return grpc::StatusCode::CANCELLED;
  }
  return grpc::StatusCode::UNKNOWN;
}

/// gRPC's text without what it puts around the reason.
std::string reason_of(std::string text) {
  for (const std::string_view before : {"last error: ", "UNKNOWN: "}) {
    if (const auto at = text.find(before); at != std::string::npos)
      text.erase(0, at + before.size());
  }
  return text.empty() ? "no reason given" : text;
}

}  // namespace

std::optional<ErrorCode> parse_error_code(std::string_view name) {
  for (int c = 0; c <= static_cast<int>(ErrorCode::kCancelled); ++c) {
    const auto code = static_cast<ErrorCode>(c);
    if (name == to_string(code)) return code;
  }
  return std::nullopt;
}

grpc::Status to_status(const Error& error, grpc::ServerContext& context) {
  context.AddTrailingMetadata(kErrorKey, to_string(error.code));
  return {status_code(error.code), wire::utf8(error.message)};
}

std::optional<ErrorCode> named_code(const grpc::ClientContext& context) {
  const auto& trailer = context.GetServerTrailingMetadata();
  const auto named = trailer.find(kErrorKey);
  if (named == trailer.end()) return std::nullopt;
  return parse_error_code({named->second.data(), named->second.size()});
}

Error from_status(const grpc::Status& status, const grpc::ClientContext& context,
                  const std::string& address) {
  if (const auto code = named_code(context)) return {*code, status.error_message()};
  const auto text = reason_of(status.error_message());
  switch (status.error_code()) {
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return {ErrorCode::kUnavailable, address + " did not answer in time: " + text};
    case grpc::StatusCode::UNIMPLEMENTED:
      return {ErrorCode::kUnsupported,
              address + " does not know this call: is it a tandem node of this version? " + text};
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return {ErrorCode::kInvalid, address + " rejected the message: " + text};
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return {ErrorCode::kRefused, address + " does not accept our identity: " + text};
    default:
      return {ErrorCode::kUnavailable, "cannot talk to " + address + ": " + text};
  }
}

Error explain_failure(const grpc::Status& status, const grpc::ClientContext& context,
                      const std::string& address, bool tls, const TlsOptions& files) {
  const Error error = from_status(status, context, address);
  return named_code(context) ? error : explain_tls(error, tls, files);
}

}  // namespace tandem::rpc
