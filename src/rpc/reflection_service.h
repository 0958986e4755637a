// grpc.reflection.v1alpha: lets grpcurl and its like list and call what this server offers without
// the .proto files. Ours, on our loop, because gRPC's plugin brings synchronous threads that would
// take turns with ours at polling.
#pragma once

#include <memory>

#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "rpc/loop.h"

namespace tandem::rpc {

using ReflectionAsyncService = grpc::reflection::v1alpha::ServerReflection::AsyncService;

void listen_for_reflection(ReflectionAsyncService& service, std::shared_ptr<Loop> loop);

/// The answer to one question (for the tests, too).
void reflect(const grpc::reflection::v1alpha::ServerReflectionRequest& question,
             grpc::reflection::v1alpha::ServerReflectionResponse& answer);

}  // namespace tandem::rpc
