// Between the contracts' small types and protobuf's: shared by replication and control.
#pragma once

#include <optional>
#include <string>

#include "tandem/base/result.h"
#include "tandem/base/uuid.h"
#include "tandem/log_point.h"
#include "tandem/v1/common.pb.h"

namespace tandem::rpc {

/// 16 bytes, or none for the nil uuid.
std::string uuid_bytes(const Uuid& uuid);
bool parse_uuid(const std::string& bytes, Uuid& uuid);

void to_proto(const LogPoint& point, v1::LogPoint* out);
LogPoint from_proto(const v1::LogPoint& in);

void to_proto(const TimelineHistory& history,
              google::protobuf::RepeatedPtrField<v1::TimelineFork>* out);
TimelineHistory from_proto(const google::protobuf::RepeatedPtrField<v1::TimelineFork>& in);

v1::Role to_proto(Role role);
v1::ReplicationMode to_proto(ReplicationMode mode);
v1::ErrorCode to_proto(ErrorCode code);
/// Nothing for values that this build does not know.
std::optional<Role> from_proto(v1::Role role);
std::optional<ReplicationMode> from_proto(v1::ReplicationMode mode);
std::optional<ErrorCode> from_proto(v1::ErrorCode code);

}  // namespace tandem::rpc
