// The way of a relay's records (message::Hello::sources) as protobuf.
#pragma once

#include <vector>

#include "tandem/base/result.h"
#include "tandem/port/link.h"
#include "tandem/v1/replication.pb.h"

namespace tandem::rpc {

inline constexpr int kSourcesMax = 16;

using ProtoSources = google::protobuf::RepeatedPtrField<v1::Source>;
void to_proto(const std::vector<message::Source>& sources, ProtoSources* out);
/// kInvalid: malformed, or a longer chain than kSourcesMax.
Status from_proto(const ProtoSources& in, std::vector<message::Source>& out);

}  // namespace tandem::rpc
