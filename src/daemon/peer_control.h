// PeerControl for src/control, by way of the node's gRPC service. Control knows no rpc, so the two
// are joined here.
//
// Thread: the reactor's.
#pragma once

#include <string>
#include <utility>

#include "control/options.h"
#include "rpc/peers.h"

namespace tandem::daemon {

class PeerControl final : public control::PeerControl {
 public:
  explicit PeerControl(rpc::Peers& peers) : peers_(peers) {}

  Task<Result<Receipt>> take_over(std::string address, std::string group,
                                  Nanoseconds limit) override {
    return peers_.take_over(std::move(address), std::move(group), limit);
  }
  Task<Status> add_mirror(std::string address, AddMirror request, Nanoseconds limit) override {
    return peers_.add_mirror(std::move(address), std::move(request), limit);
  }

 private:
  rpc::Peers& peers_;
};

}  // namespace tandem::daemon
