// What stands behind the service's calls; the reactor's, except where said.
#pragma once

#include <cstddef>

#include "tandem/base/sync.h"
#include "tandem/control.h"
#include "tandem/port/link.h"

namespace tandem::rpc {

struct Front {
  Front(Control& control_in, LinkAcceptor& acceptor_in)
      : control(control_in), acceptor(acceptor_in) {}
  Control& control;
  LinkAcceptor& acceptor;
  bool stopping = false;    // answers kUnavailable from here on
  std::size_t running = 0;  // control calls
  Condition idle;           // notified when `running` reaches 0
};

/// More control calls at a time are answered with kBusy.
inline constexpr std::size_t kControlCallsMax = 64;
/// More streams at a time are answered with kUnavailable.
inline constexpr std::size_t kStreamsMax = 1024;

}  // namespace tandem::rpc
