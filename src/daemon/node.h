// Node: one running tandemd. The only place that knows every module: it builds them in the order of
// their dependencies, and takes them down in reverse.
//
//   Storage (reactor, buffers, device, pool)
//     └─ rpc::Service ── its dialer and its way to call peers
//          └─ control::NodeControl ── every group's replication; which volumes are served
//               └─ nbd::Server
//
// Thread: everything on the thread that calls run(), but request_stop().
#pragma once

#include <memory>
#include <string>

#include "daemon/config.h"
#include "tandem/base/result.h"

namespace tandem::daemon {

struct NodeOptions {
  Config config;
  std::string version;
  bool create_pool = false;  // as --create-pool
};

class Node {
 public:
  /// Opens the pool and starts every service; groups may still be starting when it returns.
  /// Errors: the pool (kBusy, kNotFound, kCorrupt, …), an address in use, a certificate.
  static Result<std::unique_ptr<Node>> start(NodeOptions options);
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  /// Serves until SIGTERM, SIGINT or request_stop(), then stops cleanly: clients are answered and
  /// disconnected, every group drained and checkpointed. A second signal ends the process at once.
  void run();
  /// Any thread.
  void request_stop();

 private:
  struct Impl;
  explicit Node(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// What can be checked without touching the pool: certificates exist and fit, addresses resolve.
Status check_node(const Config& config);

}  // namespace tandem::daemon
