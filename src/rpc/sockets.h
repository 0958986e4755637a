// Sockets: waits, with the reactor's ring, until one of gRPC's sockets has something.
//
// gRPC 1.51 keeps all sockets of a process in one epoll set, and whoever polls any completion queue
// serves them (src/core/lib/iomgr/ev_epoll1_linux.cc). The set is a descriptor like others: the
// reactor can wait for it.
//
// Thread: the reactor's.
#pragma once

#include <functional>
#include <memory>

#include "tandem/port/readiness.h"

namespace tandem::rpc {

class Sockets {
 public:
  /// The descriptor of gRPC's epoll set, its own for as long as the process lives; -1 when gRPC is
  /// another release, or was told to wait in another way. Initialises gRPC. Any thread.
  static int epoll_set();

  /// `ready` is called, never from within, whenever a socket may have something. Does not wait yet.
  Sockets(Readiness& readiness, std::function<void()> ready);
  ~Sockets();
  Sockets(const Sockets&) = delete;
  Sockets& operator=(const Sockets&) = delete;

  void watch();
  /// `ready` is not called any more until watch(). The reactor may still wake up once.
  void ignore();

 private:
  struct Watch;
  std::shared_ptr<Watch> watch_;
};

}  // namespace tandem::rpc
