// The node's gRPC service and its way to other nodes: replication, control, health and reflection
// on one address, one completion queue and one thread of ours.
//
// Order of life: the Executor and the BufferPool first; then create(), which gives the dialer that
// the replication layer needs; then the Control and the LinkAcceptor; then start(). In reverse:
// drain() while the reactor runs, stop(), then the rest. Links may outlive stop(): they are then
// closed. The pool may go only after stop() has returned.
//
// Thread: the reactor's, or any one thread while the reactor does not run.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "rpc/options.h"
#include "rpc/peers.h"
#include "tandem/base/buffer.h"
#include "tandem/base/result.h"
#include "tandem/base/task.h"
#include "tandem/control.h"
#include "tandem/port/executor.h"
#include "tandem/port/link.h"
#include "tandem/port/readiness.h"

namespace tandem::rpc {

class Service {
 public:
  /// Reads and checks the certificates, starts the thread; does not listen yet. `readiness`: the
  /// reactor's, which then waits for gRPC's sockets; null: the thread does. kInvalid: the
  /// configuration, with the file and the cure.
  static Result<std::unique_ptr<Service>> create(Executor& executor, Readiness* readiness,
                                                 BufferPool& pool, ServiceOptions options);
  virtual ~Service() = default;  // stops

  /// Links to other nodes, with this node's certificate; usable before start().
  virtual LinkDialer& dialer() = 0;
  /// Control calls to other nodes, with this node's certificate; usable before start().
  virtual Peers& peers() = 0;

  /// Looks now whether the certificate files changed, instead of at the next dial and the next
  /// certificate_check. kInvalid: they changed and do not do; the old stay in use.
  virtual Status reload_certificates() = 0;

  /// Listens and serves. kBusy: the address is taken; kInvalid: it is not one of this machine.
  virtual Status start(Control& control, LinkAcceptor& acceptor) = 0;
  /// The bound port; 0 before start().
  virtual std::uint16_t port() const = 0;

  /// Refuses new calls and streams and waits, at most `limit`, for the running control calls.
  /// Reactor only. Links stay up.
  virtual Task<void> drain(Nanoseconds limit) = 0;
  /// Ends everything: links are cut, running calls answered with kUnavailable. Blocks for as long
  /// as gRPC takes to tear down (milliseconds; bounded). Idempotent.
  virtual void stop() = 0;
};

/// create() and start() in one, for who needs no dialer before.
Result<std::unique_ptr<Service>> start_service(Executor& executor, BufferPool& pool,
                                               ServiceOptions options, Control& control,
                                               LinkAcceptor& acceptor);

}  // namespace tandem::rpc
