// grpc.health.v1: what load balancers, probes and orchestrators ask. Ours, on our loop, because
// gRPC's own brings threads that would take turns with ours at polling.
#pragma once

#include <atomic>
#include <memory>

#include "grpc/health/v1/health.grpc.pb.h"
#include "rpc/loop.h"

namespace tandem::rpc {

using HealthAsyncService = grpc::health::v1::Health::AsyncService;

/// `serving` is read at each check; it is set before the first call and cleared when the node
/// stops.
void listen_for_health(HealthAsyncService& service, std::shared_ptr<Loop> loop,
                       std::shared_ptr<const std::atomic<bool>> serving);

}  // namespace tandem::rpc
