// The implementation of Peers over the completion loop; inside the module.
#pragma once

#include <grpcpp/security/credentials.h>

#include <memory>

#include "rpc/loop.h"
#include "rpc/options.h"
#include "rpc/peers.h"

namespace tandem::rpc {

/// `options` must outlive the result.
std::unique_ptr<Peers> make_peers(std::shared_ptr<Loop> loop, const ServiceOptions& options,
                                  std::shared_ptr<grpc::ChannelCredentials> credentials);

}  // namespace tandem::rpc
