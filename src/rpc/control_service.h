// The Control service: each call runs as a task on the reactor, and its answer ends the call.
#pragma once

#include <memory>

#include "rpc/front.h"
#include "rpc/loop.h"
#include "tandem/v1/control.grpc.pb.h"

namespace tandem::rpc {

using ControlAsyncService = v1::Control::AsyncService;

/// Begins to wait for calls of every kind; `service` is registered with a started server and
/// outlives it.
void listen_for_control(ControlAsyncService& service, std::shared_ptr<Loop> loop,
                        std::shared_ptr<Front> front);

}  // namespace tandem::rpc
