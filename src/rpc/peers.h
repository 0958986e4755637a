// Control calls from this node to another, for planned switchovers and status, without blocking.
#pragma once

#include <memory>
#include <string>

#include "tandem/base/result.h"
#include "tandem/base/task.h"
#include "tandem/control.h"
#include "tandem/port/executor.h"

namespace tandem::rpc {

/// Thread: the reactor's. Each call connects, asks and disconnects, all within `limit`.
/// Errors: those of the other node's Control; kUnavailable when it does not answer in time.
class Peers {
 public:
  virtual ~Peers() = default;
  virtual Task<Result<NodeStatus>> status(std::string address, Nanoseconds limit) = 0;
  virtual Task<Result<Receipt>> receipt(std::string address, std::string group,
                                        Nanoseconds limit) = 0;
  virtual Task<Result<Receipt>> promote(std::string address, std::string group, bool force,
                                        Nanoseconds limit) = 0;
  /// See Control::take_over().
  virtual Task<Result<Receipt>> take_over(std::string address, std::string group,
                                          Nanoseconds limit) = 0;
  virtual Task<Status> add_mirror(std::string address, AddMirror request, Nanoseconds limit) = 0;
  virtual Task<Status> demote(std::string address, std::string group, Nanoseconds limit) = 0;
};

}  // namespace tandem::rpc
