// tandem/integrity.h between contract and protobuf. Thread: any.
#pragma once

#include "tandem/integrity.h"
#include "tandem/v1/control.pb.h"

namespace tandem::rpc {

void to_proto(const DamageStatus& damage, v1::DamageStatus* out);
DamageStatus from_proto(const v1::DamageStatus& in);
void to_proto(const ScrubStatus& scrub, v1::ScrubStatus* out);
ScrubStatus from_proto(const v1::ScrubStatus& in);
void to_proto(const AgreementStatus& agreement, v1::AgreementStatus* out);
AgreementStatus from_proto(const v1::AgreementStatus& in);
v1::CheckContentRequest to_proto(const ContentRequest& request);
ContentRequest from_proto(const v1::CheckContentRequest& in);
void to_proto(const ContentReport& report, v1::CheckContentResponse* out);
ContentReport from_proto(const v1::CheckContentResponse& in);

}  // namespace tandem::rpc
