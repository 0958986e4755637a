// PeerControl for src/control, by way of the node's gRPC service.
//
// Thread: the reactor's. add_mirror() is rare (the last step of a switchover), so it borrows a
// thread for the synchronous client instead of holding the reactor up.
#pragma once

#include <string>

#include "control/options.h"
#include "rpc/options.h"
#include "rpc/peers.h"
#include "tandem/port/executor.h"

namespace tandem::daemon {

class PeerControl final : public control::PeerControl {
 public:
  /// `options`: this node's certificates; the address is each call's.
  PeerControl(Executor& executor, rpc::Peers& peers, rpc::ClientOptions options);

  Task<Result<Receipt>> promote(std::string address, std::string group, bool force,
                                Nanoseconds limit) override;
  Task<Status> add_mirror(std::string address, AddMirror request, Nanoseconds limit) override;

 private:
  Executor& executor_;
  rpc::Peers& peers_;
  const rpc::ClientOptions options_;
};

}  // namespace tandem::daemon
