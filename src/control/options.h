// What the daemon tells control, and what control needs of other nodes.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "replication/options.h"
#include "tandem/base/result.h"
#include "tandem/base/task.h"
#include "tandem/control.h"
#include "tandem/port/executor.h"

namespace tandem::control {

/// Makes sure that a former primary serves no more, before another node is promoted.
/// Thread: the reactor's.
class Fencer {
 public:
  virtual ~Fencer() = default;
  /// `primary`: the node's name, "" if it was never heard. An error stops the promotion; its
  /// message is shown to the operator.
  virtual Task<Status> fence(std::string group, std::string primary) = 0;
};

struct HookCall {
  std::string group;
  std::string snapshot;  // "": `after` at the start of the node
  std::string volumes;   // names, blanks between
  std::string held;      // of `after`, whether `before` succeeded: yes | no | maybe (at the start)
};

/// The operator's commands around the snapshots of a group: `before` brings what writes there to a
/// consistent state and holds it so, `after` lets it go on. What `before` holds may need this very
/// node to answer its writes, so neither may block the reactor.
/// Thread: the reactor's.
class SnapshotHooks {
 public:
  virtual ~SnapshotHooks() = default;
  /// How long each of a group's commands may take; nothing: it has none.
  virtual std::optional<Nanoseconds> limit(const std::string& group) const = 0;
  /// An error says what failed and how.
  virtual Task<Status> before(HookCall call) = 0;
  virtual Task<Status> after(HookCall call) = 0;
  /// The node stops: every `before` ends at once, with an error.
  virtual void hurry() = 0;
};

struct ControlOptions {
  std::string node;  // this node's name
  std::string version;
  std::string service_address;   // host:port where other nodes reach this one; "" if not known
  std::vector<std::string> nbd;  // for NodeStatus
  bool nbd_tls = false;
  /// A primary that starts waits at most so long for its mirrors before it serves.
  Nanoseconds peer_wait = std::chrono::seconds(10);
  /// A switchover first waits at most so long for its mirror to have what is there; clients go on.
  Nanoseconds catch_up_limit = std::chrono::seconds(30);
  /// Then writes are held. A demotion or switchover gives up, and they go on, when the rest takes
  /// longer; the promotion of the other node has `peer_call_limit` on top.
  Nanoseconds pause_limit = std::chrono::seconds(10);
  Nanoseconds peer_call_limit = std::chrono::seconds(10);
  Fencer* fencer = nullptr;        // outlives the control; null: fencing is the operator's matter
  SnapshotHooks* hooks = nullptr;  // likewise; null: no group has any
  /// Of the pool: how full it may be before the status warns.
  unsigned pool_warn_percent = 80, pool_critical_percent = 90;
  replication::ReplicationOptions replication;
};

/// Control calls to other nodes, for a planned switchover. Thread: the reactor's. Errors: the other
/// node's own; kUnavailable when it did not answer in time, so that nobody knows what it did.
class PeerControl {
 public:
  virtual ~PeerControl() = default;
  virtual Task<Result<Receipt>> take_over(std::string address, std::string group,
                                          Nanoseconds limit) = 0;
  virtual Task<Status> add_mirror(std::string address, AddMirror request, Nanoseconds limit) = 0;
};

}  // namespace tandem::control
