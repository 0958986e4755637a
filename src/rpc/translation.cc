#include "rpc/translation.h"

#include <algorithm>

namespace tandem::rpc {

std::string uuid_bytes(const Uuid& uuid) {
  if (uuid.is_nil()) return {};
  return {reinterpret_cast<const char*>(uuid.bytes.data()), uuid.bytes.size()};
}

bool parse_uuid(const std::string& bytes, Uuid& uuid) {
  uuid = {};
  if (bytes.empty()) return true;
  if (bytes.size() != uuid.bytes.size()) return false;
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(uuid.bytes.data()));
  return true;
}

void to_proto(const LogPoint& point, v1::LogPoint* out) {
  out->set_timeline(point.timeline.value);
  out->set_lsn(point.lsn.value);
  out->set_digest(point.digest.value);
  out->set_utc_ns(point.utc.value);
  out->set_payload_bytes(point.payload_bytes);
}

LogPoint from_proto(const v1::LogPoint& in) {
  return {.timeline = Timeline(in.timeline()),
          .lsn = Lsn(in.lsn()),
          .digest = Digest(in.digest()),
          .utc = UtcNs(in.utc_ns()),
          .payload_bytes = in.payload_bytes()};
}

void to_proto(const TimelineHistory& history,
              google::protobuf::RepeatedPtrField<v1::TimelineFork>* out) {
  for (const auto& fork : history) {
    auto* added = out->Add();
    added->set_timeline(fork.timeline.value);
    added->set_fork(fork.fork.value);
    added->set_utc_ns(fork.utc.value);
  }
}

TimelineHistory from_proto(const google::protobuf::RepeatedPtrField<v1::TimelineFork>& in) {
  TimelineHistory history;
  history.reserve(static_cast<std::size_t>(in.size()));
  for (const auto& fork : in) {
    history.push_back({.timeline = Timeline(fork.timeline()),
                       .fork = Lsn(fork.fork()),
                       .utc = UtcNs(fork.utc_ns())});
  }
  return history;
}

v1::Role to_proto(Role role) {
  switch (role) {
    case Role::kPrimary:
      return v1::ROLE_PRIMARY;
    case Role::kMirror:
      return v1::ROLE_MIRROR;
    case Role::kFenced:
      return v1::ROLE_FENCED;
  }
  return v1::ROLE_UNSPECIFIED;
}

std::optional<Role> from_proto(v1::Role role) {
  switch (role) {
    case v1::ROLE_PRIMARY:
      return Role::kPrimary;
    case v1::ROLE_MIRROR:
      return Role::kMirror;
    case v1::ROLE_FENCED:
      return Role::kFenced;
    default:
      return std::nullopt;
  }
}

v1::ReplicationMode to_proto(ReplicationMode mode) {
  switch (mode) {
    case ReplicationMode::kAsync:
      return v1::REPLICATION_MODE_ASYNC;
    case ReplicationMode::kFlush:
      return v1::REPLICATION_MODE_FLUSH;
    case ReplicationMode::kSync:
      return v1::REPLICATION_MODE_SYNC;
  }
  return v1::REPLICATION_MODE_UNSPECIFIED;
}

std::optional<ReplicationMode> from_proto(v1::ReplicationMode mode) {
  switch (mode) {
    case v1::REPLICATION_MODE_ASYNC:
      return ReplicationMode::kAsync;
    case v1::REPLICATION_MODE_FLUSH:
      return ReplicationMode::kFlush;
    case v1::REPLICATION_MODE_SYNC:
      return ReplicationMode::kSync;
    default:
      return std::nullopt;
  }
}

v1::ErrorCode to_proto(ErrorCode code) {
  switch (code) {
    case ErrorCode::kIo:
      return v1::ERROR_CODE_IO;
    case ErrorCode::kCorrupt:
      return v1::ERROR_CODE_CORRUPT;
    case ErrorCode::kNoSpace:
      return v1::ERROR_CODE_NO_SPACE;
    case ErrorCode::kInvalid:
      return v1::ERROR_CODE_INVALID;
    case ErrorCode::kNotFound:
      return v1::ERROR_CODE_NOT_FOUND;
    case ErrorCode::kExists:
      return v1::ERROR_CODE_EXISTS;
    case ErrorCode::kReadOnly:
      return v1::ERROR_CODE_READ_ONLY;
    case ErrorCode::kFenced:
      return v1::ERROR_CODE_FENCED;
    case ErrorCode::kUnavailable:
      return v1::ERROR_CODE_UNAVAILABLE;
    case ErrorCode::kRefused:
      return v1::ERROR_CODE_REFUSED;
    case ErrorCode::kBusy:
      return v1::ERROR_CODE_BUSY;
    case ErrorCode::kUnsupported:
      return v1::ERROR_CODE_UNSUPPORTED;
    case ErrorCode::kCancelled:
      return v1::ERROR_CODE_CANCELLED;
  }
  return v1::ERROR_CODE_UNSPECIFIED;
}

std::optional<ErrorCode> from_proto(v1::ErrorCode code) {
  for (int c = 0; c <= static_cast<int>(ErrorCode::kCancelled); ++c) {
    const auto candidate = static_cast<ErrorCode>(c);
    if (to_proto(candidate) == code) return candidate;
  }
  return std::nullopt;
}

}  // namespace tandem::rpc
