// What all channels and servers of ours have in common.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <memory>
#include <string>

#include "rpc/options.h"
#include "tandem/base/result.h"

namespace tandem::rpc {

/// A channel with a connection of its own, which fails within `connect_timeout` when nobody is
/// there. `address` has been checked with parse_address().
std::shared_ptr<grpc::Channel> make_channel(
    const std::string& address, const std::shared_ptr<grpc::ChannelCredentials>& credentials,
    std::chrono::milliseconds connect_timeout, std::chrono::milliseconds keepalive,
    std::chrono::milliseconds keepalive_timeout);

/// A command's channel. Sends gRPC's log nowhere. kInvalid: the address or the certificates, with
/// the cure.
Result<std::shared_ptr<grpc::Channel>> open_channel(const ClientOptions& options);

void configure_server(grpc::ServerBuilder& builder, const ServiceOptions& options);

/// gRPC's own complaints: to the event log, at most a few a second (`to_events`, a node), or
/// nowhere (a command). Process-wide.
void route_grpc_log(bool to_events);

}  // namespace tandem::rpc
