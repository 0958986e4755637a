// SimNetwork: links between simulated nodes that behave as gRPC streams do at their worst.
//
// Ordered within a stream, seeded delays, a bounded window (a receiver that does not read makes the
// sender's backlog grow). A cut or a close delivers an unknown prefix of what was under way. A
// half-open stream swallows messages without a word until somebody times out. Reconnecting makes a
// new stream beside the old one, so the two overlap.
// Thread: the world's. Closing a link never resumes its receiver inline.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tandem/port/link.h"
#include "tests/support/sim_runtime.h"

namespace tandem::sim {

class SimLink;
struct SimConnection;

class SimNetwork {
 public:
  struct Options {
    Nanoseconds delay_min = std::chrono::microseconds(5);
    Nanoseconds delay_max = std::chrono::microseconds(300);
    std::size_t window_messages = 8;
    Nanoseconds dial_timeout = std::chrono::seconds(3);
  };
  SimNetwork(SimRuntime& world, Options options);
  explicit SimNetwork(SimRuntime& world) : SimNetwork(world, Options{}) {}
  ~SimNetwork();

  /// The dialer of `node`, which the other side authenticates as `name`. Lives with the network.
  LinkDialer& dialer(SimNode& node, const std::string& name);
  /// From now on `acceptor` takes what is dialled at `address`; null: nobody listens.
  void listen(const std::string& address, SimNode& node, LinkAcceptor* acceptor);

  /// Cuts every stream of `name` (as dialer, or as the address it listens at).
  void cut(const std::string& name);
  /// Streams of `name` go silent without an error, both ways; new dials from or to it work.
  void swallow(const std::string& name);
  /// While false, dials from and to `name` find nobody (refused or, by chance, unanswered).
  void set_reachable(const std::string& name, bool reachable);
  /// While blocked, nothing that `from` sends reaches `to`, and neither can dial the other. What
  /// streams have under way waits and arrives afterwards, unless somebody gave them up meanwhile.
  void set_blocked(const std::string& from, const std::string& to, bool blocked);
  /// A call from the one to the other could be answered.
  bool is_open_between(const std::string& one, const std::string& other) const;
  /// Streams that neither side has closed.
  std::size_t open_streams() const;
  SimRuntime& world() { return world_; }
  std::uint64_t messages_delivered() const { return delivered_; }

 private:
  friend class SimLink;
  friend struct SimConnection;
  class Dialer;
  struct Listener {
    SimNode* node = nullptr;
    LinkAcceptor* acceptor = nullptr;
  };
  void connect(std::shared_ptr<SimConnection> connection, const std::string& address);
  bool touches(const SimConnection& connection, const std::string& name) const;
  bool is_blocked(const std::string& from, const std::string& to) const;

  SimRuntime& world_;
  Options options_;
  SimRandom random_;
  std::vector<std::unique_ptr<Dialer>> dialers_;
  std::map<std::string, Listener> listeners_;
  std::map<std::string, bool> unreachable_;
  std::set<std::pair<std::string, std::string>> blocked_;
  std::vector<std::weak_ptr<SimConnection>> connections_;
  std::uint64_t delivered_ = 0;
};

/// One end of a stream by itself, for tests that play the peer by hand.
struct SimLinkPair {
  std::unique_ptr<Link> dialler;
  std::unique_ptr<Link> acceptor;
};
SimLinkPair make_link_pair(SimNetwork& network, SimNode& dialler, SimNode& acceptor);

/// The bytes a message counts for in a backlog.
std::size_t message_bytes(const Message& message);

}  // namespace tandem::sim
