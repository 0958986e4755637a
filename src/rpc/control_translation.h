// Between control.h and proto/tandem/v1/control.proto: nothing but fields.
#pragma once

#include "tandem/control.h"
#include "tandem/v1/control.pb.h"

namespace tandem::rpc {

void to_proto(const NodeStatus& status, v1::NodeStatus* out);
/// kUnsupported when the node speaks of roles or modes that this build does not know.
Result<NodeStatus> from_proto(const v1::NodeStatus& in);

void to_proto(const SnapshotStatus& snapshot, v1::SnapshotStatus* out);
SnapshotStatus from_proto(const v1::SnapshotStatus& in);

void to_proto(const RolledBack& done, v1::RollBackResponse* out);
RolledBack from_proto(const v1::RollBackResponse& in);

void to_proto(const HistoryStatus& history, v1::HistoryStatus* out);
HistoryStatus from_proto(const v1::HistoryStatus& in);

void to_proto(const Receipt& receipt, v1::Receipt* out);
Receipt from_proto(const v1::Receipt& in);

}  // namespace tandem::rpc
