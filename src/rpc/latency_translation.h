// tandem/latency.h between contract and protobuf. Thread: any.
#pragma once

#include "tandem/base/result.h"
#include "tandem/latency.h"
#include "tandem/v1/control.pb.h"

namespace tandem::rpc {

void to_proto(const NodeLatency& latency, v1::NodeLatency* out);
/// kUnsupported when the node speaks of roles that this build does not know.
Result<NodeLatency> from_proto(const v1::NodeLatency& in);

}  // namespace tandem::rpc
