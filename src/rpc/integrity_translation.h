// tandem/integrity.h between contract and protobuf. Thread: any.
#pragma once

#include "tandem/integrity.h"
#include "tandem/v1/control.pb.h"

namespace tandem::rpc {

void to_proto(const DamageStatus& damage, v1::DamageStatus* out);
DamageStatus from_proto(const v1::DamageStatus& in);

}  // namespace tandem::rpc
