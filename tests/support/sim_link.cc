#include "tests/support/sim_link.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "tandem/base/check.h"
#include "tandem/base/sync.h"

namespace tandem::sim {

std::size_t message_bytes(const Message& message) {
  std::size_t bytes = 64;
  if (const auto* records = std::get_if<message::Records>(&message))
    bytes += records->batch.records.size() + records->batch.payload_bytes();
  if (const auto* blocks = std::get_if<message::ImageBlocks>(&message))
    for (const auto& p : blocks->payload) bytes += p.size();
  return bytes;
}

// Two ends; what end i sends waits in outbox[i] and arrives in inbox[1 - i].
struct SimConnection : std::enable_shared_from_this<SimConnection> {
  struct End {
    SimNode* node = nullptr;
    std::string name;
    std::deque<Message> outbox;
    std::size_t backlog = 0;
    std::deque<Message> inbox;
    bool delivering = false;  // of this end's outbox
    bool closed = false;      // by its owner
    bool broken = false;      // the stream ended for this end, once the inbox is empty
    std::string why;
    bool receiving = false;
    Condition arrived;
    Condition drained;
  };

  SimConnection(SimNetwork& n) : network(n) {}
  SimNetwork& network;
  End ends[2];
  std::string address;
  bool established = false;
  bool swallowed = false;
  bool severed = false;  // nothing sent from now on arrives

  bool is_blocked(int from) const {
    return network.is_blocked(ends[from].name, ends[1 - from].name);
  }
  void unblocked(int from) {
    pump(from);
    if (ends[from].closed && !swallowed) break_end(1 - from, "the peer closed the stream", true);
  }

  void wake(int side) {
    auto self = shared_from_this();
    ends[side].node->post([self, side] {
      self->ends[side].arrived.notify_all();
      self->ends[side].drained.notify_all();
    });
  }

  void pump(int from) {
    End& sender = ends[from];
    if (!established || swallowed || severed || sender.delivering || sender.outbox.empty()) return;
    if (is_blocked(from)) return;
    if (ends[1 - from].inbox.size() >= network.options_.window_messages) return;
    sender.delivering = true;
    const auto delay = Nanoseconds(network.random_.between(network.options_.delay_min.count(),
                                                           network.options_.delay_max.count()));
    auto self = shared_from_this();
    ends[1 - from].node->schedule_after(delay, [self, from] { self->deliver(from); });
  }

  void deliver(int from) {
    End& sender = ends[from];
    End& receiver = ends[1 - from];
    sender.delivering = false;
    if (swallowed || severed || sender.outbox.empty() || is_blocked(from)) return;
    sender.backlog -= message_bytes(sender.outbox.front());
    if (!receiver.closed && !receiver.broken) {
      receiver.inbox.push_back(std::move(sender.outbox.front()));
      ++network.delivered_;
    }
    sender.outbox.pop_front();
    wake(1 - from);
    wake(from);
    pump(from);
  }

  // An unknown prefix of what `from` sent arrives; the rest is gone.
  void drop_tail(int from) {
    End& sender = ends[from];
    End& receiver = ends[1 - from];
    std::size_t keep = swallowed || !established || is_blocked(from)
                           ? 0
                           : network.random_.below(sender.outbox.size() + 1);
    for (; keep > 0; --keep) {
      if (!receiver.closed && !receiver.broken) {
        receiver.inbox.push_back(std::move(sender.outbox.front()));
        ++network.delivered_;
      }
      sender.outbox.pop_front();
    }
    sender.outbox.clear();
    sender.backlog = 0;
  }

  void break_end(int side, const std::string& why, bool later) {
    if (ends[side].broken) return;
    if (later) {
      const auto delay = Nanoseconds(network.random_.below(2 * network.options_.delay_max.count()));
      auto self = shared_from_this();
      ends[side].node->schedule_after(delay,
                                      [self, side, why] { self->break_end(side, why, false); });
      return;
    }
    ends[side].broken = true;
    ends[side].why = why;
    wake(side);
  }

  void cut(const std::string& why) {
    if (severed) return;
    drop_tail(0);
    drop_tail(1);
    severed = true;
    break_end(0, why, true);
    break_end(1, why, true);
  }

  void close(int side) {
    if (ends[side].closed) return;
    ends[side].closed = true;
    drop_tail(side);
    if (!swallowed && !is_blocked(side)) break_end(1 - side, "the peer closed the stream", true);
    wake(side);
  }
};

class SimLink final : public Link {
 public:
  SimLink(std::shared_ptr<SimConnection> connection, int side)
      : connection_(std::move(connection)), side_(side) {}
  ~SimLink() override {
    CHECK(!me().receiving);
    connection_->close(side_);
  }
  void send(Message message) override {
    if (me().closed || me().broken) return;
    me().backlog += message_bytes(message);
    me().outbox.push_back(std::move(message));
    connection_->pump(side_);
  }
  std::size_t backlog_bytes() const override { return me().backlog; }
  Task<void> drained_below(std::size_t bytes) override {
    auto keep = connection_;
    const int side = side_;
    while (keep->ends[side].backlog >= bytes && !keep->ends[side].closed &&
           !keep->ends[side].broken) {
      co_await keep->ends[side].drained.wait();
    }
  }
  Task<Result<Message>> receive() override {
    auto keep = connection_;
    SimConnection::End& end = keep->ends[side_];
    const int from = 1 - side_;
    CHECK(!end.receiving);
    end.receiving = true;
    while (end.inbox.empty() && !end.closed && !end.broken) co_await end.arrived.wait();
    end.receiving = false;
    if (end.closed) co_return Error{ErrorCode::kUnavailable, "the stream was closed here"};
    if (end.inbox.empty()) co_return Error{ErrorCode::kUnavailable, end.why};
    Message message = std::move(end.inbox.front());
    end.inbox.pop_front();
    keep->pump(from);
    co_return std::move(message);
  }
  void close() override { connection_->close(side_); }
  std::string peer() const override { return connection_->ends[1 - side_].name; }

 private:
  SimConnection::End& me() const { return connection_->ends[side_]; }
  std::shared_ptr<SimConnection> connection_;
  int side_;
};

class SimNetwork::Dialer final : public LinkDialer {
 public:
  Dialer(SimNetwork& network, SimNode& node, std::string name)
      : network_(network), node_(node), name_(std::move(name)) {}
  std::unique_ptr<Link> dial(const std::string& address) override {
    auto connection = std::make_shared<SimConnection>(network_);
    connection->ends[0].node = connection->ends[1].node = &node_;
    connection->ends[0].name = name_;
    connection->ends[1].name = address;
    connection->address = address;
    network_.connections_.push_back(connection);
    auto link = std::make_unique<SimLink>(connection, 0);
    network_.connect(connection, address);
    return link;
  }
  bool is(const SimNode& node, const std::string& name) const {
    return &node_ == &node && name_ == name;
  }

 private:
  SimNetwork& network_;
  SimNode& node_;
  std::string name_;
};

SimNetwork::SimNetwork(SimRuntime& world, Options options)
    : world_(world), options_(options), random_(world.random().fork()) {}
SimNetwork::~SimNetwork() = default;

LinkDialer& SimNetwork::dialer(SimNode& node, const std::string& name) {
  for (auto& dialer : dialers_)
    if (dialer->is(node, name)) return *dialer;
  dialers_.push_back(std::make_unique<Dialer>(*this, node, name));
  return *dialers_.back();
}

void SimNetwork::listen(const std::string& address, SimNode& node, LinkAcceptor* acceptor) {
  listeners_[address] = {&node, acceptor};
}

void SimNetwork::connect(std::shared_ptr<SimConnection> connection, const std::string& address) {
  const auto delay =
      Nanoseconds(random_.between(options_.delay_min.count(), options_.delay_max.count()));
  const bool nobody = !is_open_between(connection->ends[0].name, address);
  if (nobody && random_.chance(1, 2)) {
    connection->ends[0].node->schedule_after(options_.dial_timeout, [connection] {
      connection->break_end(0, "connecting timed out", false);
    });
    return;
  }
  connection->ends[0].node->schedule_after(delay, [this, connection, address, nobody] {
    const auto found = listeners_.find(address);
    if (nobody || found == listeners_.end() || found->second.acceptor == nullptr) {
      connection->break_end(0, "connection refused", false);
      return;
    }
    if (connection->ends[0].closed || connection->ends[0].broken) return;
    connection->ends[1].node = found->second.node;
    LinkAcceptor* acceptor = found->second.acceptor;
    found->second.node->post([this, connection, acceptor, address] {
      if (listeners_[address].acceptor != acceptor) {
        connection->break_end(0, "connection refused", false);
        return;
      }
      connection->established = true;
      connection->pump(0);
      acceptor->accept(std::make_unique<SimLink>(connection, 1));
    });
  });
}

bool SimNetwork::touches(const SimConnection& connection, const std::string& name) const {
  return connection.ends[0].name == name || connection.ends[1].name == name;
}

void SimNetwork::cut(const std::string& name) {
  for (auto& weak : connections_)
    if (auto connection = weak.lock(); connection && touches(*connection, name))
      connection->cut("the connection was cut");
  std::erase_if(connections_, [](const auto& weak) { return weak.expired(); });
}

void SimNetwork::swallow(const std::string& name) {
  for (auto& weak : connections_)
    if (auto connection = weak.lock(); connection && touches(*connection, name))
      connection->swallowed = true;
}

void SimNetwork::set_reachable(const std::string& name, bool reachable) {
  unreachable_[name] = !reachable;
}

bool SimNetwork::is_blocked(const std::string& from, const std::string& to) const {
  return blocked_.contains({from, to});
}

bool SimNetwork::is_open_between(const std::string& one, const std::string& other) const {
  const auto is_reachable = [&](const std::string& name) {
    const auto found = unreachable_.find(name);
    return found == unreachable_.end() || !found->second;
  };
  return is_reachable(one) && is_reachable(other) && !is_blocked(one, other) &&
         !is_blocked(other, one);
}

void SimNetwork::set_blocked(const std::string& from, const std::string& to, bool blocked) {
  if (blocked) {
    blocked_.insert({from, to});
    return;
  }
  if (blocked_.erase({from, to}) == 0) return;
  for (auto& weak : connections_) {
    const auto connection = weak.lock();
    for (int side = 0; connection && side < 2; ++side) {
      if (connection->ends[side].name == from && connection->ends[1 - side].name == to)
        connection->unblocked(side);
    }
  }
}

std::size_t SimNetwork::open_streams() const {
  std::size_t open = 0;
  for (const auto& weak : connections_) {
    const auto connection = weak.lock();
    if (connection && connection->established && !connection->ends[0].closed &&
        !connection->ends[1].closed && !connection->ends[0].broken) {
      ++open;
    }
  }
  return open;
}

namespace {
class TakeOne final : public LinkAcceptor {
 public:
  void accept(std::unique_ptr<Link> link) override { taken = std::move(link); }
  std::unique_ptr<Link> taken;
};
}  // namespace

SimLinkPair make_link_pair(SimNetwork& network, SimNode& dialler, SimNode& acceptor) {
  TakeOne one;
  network.listen("pair", acceptor, &one);
  SimLinkPair pair;
  pair.dialler = network.dialer(dialler, "dialler").dial("pair");
  while (!one.taken) CHECK(network.world().step());
  network.listen("pair", acceptor, nullptr);
  pair.acceptor = std::move(one.taken);
  return pair;
}

}  // namespace tandem::sim
