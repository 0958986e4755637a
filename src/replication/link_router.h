// LinkRouter: takes every accepted stream, reads its Hello within a time-out, and hands it to the
// group it names. A silent or hostile dialer costs one bounded place here and nothing else.
//
// Thread: the reactor's. stop() must be awaited before destruction.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "replication/options.h"
#include "replication/timing.h"
#include "tandem/base/sync.h"
#include "tandem/port/executor.h"
#include "tandem/port/link.h"

namespace tandem::replication {

class GroupReplication;

struct RouterCallbacks {
  /// The group of that identity on this node, or null.
  std::function<GroupReplication*(const Uuid& group)> find;
  /// First contact of an unknown group: make an empty mirror copy of the same identity and name, or
  /// say why not (the name is taken, the pool is full, …).
  std::function<Task<Result<GroupReplication*>>(const message::Hello& hello)> create;
};

class LinkRouter final : public LinkAcceptor {
 public:
  LinkRouter(Runtime runtime, ReplicationOptions options, RouterCallbacks callbacks);
  ~LinkRouter() override;
  LinkRouter(const LinkRouter&) = delete;
  LinkRouter& operator=(const LinkRouter&) = delete;

  void accept(std::unique_ptr<Link> link) override;
  /// Closes streams that no group has taken yet. Groups are stopped by their owner.
  Task<void> stop();

 private:
  struct Guest {
    Link* link;
    Nanoseconds deadline;
  };
  Task<void> welcome(std::unique_ptr<Link> link);
  Task<void> turn_away(std::unique_ptr<Link> link, message::Refuse refusal);
  void set_deadline(Link* link, Nanoseconds in);
  void forget(Link* link);
  void tick();

  Runtime runtime_;
  const ReplicationOptions options_;
  RouterCallbacks callbacks_;
  Ticker ticker_;
  std::vector<Guest> guests_;
  AsyncMutex create_lock_;  // two first contacts of one group make one copy
  Gate running_;
  bool stopping_ = false;
};

}  // namespace tandem::replication
