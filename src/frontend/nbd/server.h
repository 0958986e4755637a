// nbd::Server: serves the volumes of a VolumeDirectory to NBD clients.
//
//   nbd::Server server({reactor, reactor.readiness(), asio.io()}, pool, directory);
//   Status bound = server.listen("unix:/run/tandem/nbd.sock");
//   …
//   co_await server.stop();
//
// Thread: every call, and everything it does, on the reactor's thread; only clients are accepted on
// the one that runs Loops::accepting. Lifetime: all references outlive the server; await stop()
// before destroying it.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/nbd/options.h"
#include "tandem/base/buffer.h"
#include "tandem/base/result.h"
#include "tandem/base/task.h"
#include "tandem/port/executor.h"
#include "tandem/port/readiness.h"
#include "tandem/volume.h"

namespace boost::asio {
class io_context;
}

namespace tandem::nbd {

/// What the server runs in.
struct Loops {
  Executor& executor;
  Readiness& readiness;
  boost::asio::io_context& accepting;
};

class Server {
 public:
  Server(const Loops& loops, BufferPool& pool, VolumeDirectory& directory, Options options = {});
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Accepts clients on "unix:/path" (a stale socket is replaced) or "host:port" ("[::1]:port";
  /// port 0 picks one), from now on. May be called several times.
  /// Errors: kInvalid (not an endpoint; a TLS file is unusable), kBusy, kExists, kIo.
  Status listen(std::string endpoint);
  /// Reads the TLS files again, for connections from now on. kInvalid: they do not do, and the old
  /// stay in use. Nothing happens without TLS.
  Status reload_tls();
  /// What was bound, in the order of the calls, with real port numbers.
  std::vector<std::string> endpoints() const;

  /// Accepts nobody any more, answers what is under way, closes every connection and waits for all
  /// of that. A client that does not take its replies is cut off after Options::drain_max.
  Task<void> stop();

  /// Ends the connections whose volume the directory exports no more, as stop() does, so that their
  /// clients look for it elsewhere (a node that was demoted or fenced). Who reads a snapshot may
  /// stay when it is deleted: each request says that it is gone. Returns before they are closed.
  void end_unserved();

  Stats stats() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::nbd
