// The implementation of Peers over the completion loop; inside the module.
#pragma once

#include <memory>

#include "rpc/credentials.h"
#include "rpc/loop.h"
#include "rpc/options.h"
#include "rpc/peers.h"

namespace tandem::rpc {

/// `options` and `credentials` must outlive the result.
std::unique_ptr<Peers> make_peers(std::shared_ptr<Loop> loop, const ServiceOptions& options,
                                  FreshCredentials& credentials);

}  // namespace tandem::rpc
