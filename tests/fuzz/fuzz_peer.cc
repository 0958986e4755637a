// A hostile peer of a real copy: it passed TLS, and then says anything, as the primary that dials a
// mirror or as the mirror that a primary dials. The copy must not crash or wait forever, and what
// it has applied must still be there, and readable, when it is opened again.
//
// The first byte: whether a primary dials the peer, or the peer a mirror. The rest are messages
// (see HostilePeer), between which a little time passes.
#include <vector>

#include "replication/group_replication.h"
#include "replication/link_router.h"
#include "store/group.h"
#include "tandem/base/log.h"
#include "tests/fuzz/hostile_peer.h"
#include "tests/fuzz/pool_images.h"
#include "tests/fuzz/pool_reader.h"
#include "tests/support/sim_link.h"

namespace tandem::fuzz {
namespace {

using namespace std::chrono_literals;
using sim::SimDisk;
using sim::SimImage;
using sim::SimNode;
using sim::SimRuntime;

constexpr std::size_t kMessagesMax = 64;

replication::ReplicationOptions replication_options() {
  replication::ReplicationOptions options;
  options.heartbeat_interval = 100ms;
  options.timeout = 500ms;
  options.handshake_timeout = 500ms;
  options.inquiry_timeout = 300ms;
  options.parting_time = 100ms;
  options.backoff_first = 10ms;
  options.backoff_max = 50ms;
  return options;
}

/// Takes what it is dialled, and reads whatever comes.
class Streams final : public LinkAcceptor {
 public:
  void accept(std::unique_ptr<Link> link) override { take(std::move(link)); }
  void take(std::unique_ptr<Link> link) {
    if (link_) link_->close();
    old_.push_back(std::move(link_));
    link_ = std::move(link);
    ++reading_;
    spawn(read(*link_));
  }
  void send(Message message) { link_->send(std::move(message)); }
  bool is_open() const { return link_ && open_ == link_.get(); }
  void close() {
    if (link_) link_->close();
  }
  bool idle() const { return reading_ == 0; }

 private:
  Task<void> read(Link& link) {
    open_ = &link;
    for (bool goes_on = true; goes_on;) {
      const auto received = co_await link.receive();
      goes_on = received.has_value();
    }
    if (open_ == &link) open_ = nullptr;
    --reading_;
  }
  std::unique_ptr<Link> link_;
  std::vector<std::unique_ptr<Link>> old_;
  Link* open_ = nullptr;
  int reading_ = 0;
};

/// One copy of the group with its replication, and the peer.
class Session {
 public:
  Session(const SimImage& image, bool is_primary)
      : disk_(world_, image, {.seed = 5}), is_primary_(is_primary) {
    auto pool =
        world_.run(store::Pool::open(world_.runtime(), disk_, buffers_.pool(), store_options()));
    CHECK(pool.has_value() && (*pool)->broken_groups().empty());
    pool_ = std::move(*pool);
    group_ = pool_->find("g");
    CHECK(group_ != nullptr);
    start_replication();
  }

  void run(Input& input) {
    HostilePeer peer(*group_, buffers_.pool());
    for (std::size_t i = 0; i < kMessagesMax && !input.empty(); ++i) {
      if (!streams_.is_open()) connect();
      auto message = peer.next(input);
      if (message && streams_.is_open()) streams_.send(std::move(*message));
      world_.run_for(3ms);
    }
    world_.run_for(1s);
  }

  /// The power goes; what is left on the disk.
  SimImage end() {
    streams_.close();
    network_.listen("us", node_, nullptr);
    network_.listen("them", them_, nullptr);
    world_.run(router_->stop());
    world_.run(replication_->stop());
    router_.reset();
    replication_.reset();
    CHECK(world_.run_until([&] { return streams_.idle(); }));
    disk_.power_off({});
    world_.run(pool_->close());
    pool_.reset();
    world_.run_until([&] { return disk_.in_flight() == 0; });
    return disk_.remains();
  }

 private:
  void start_replication() {
    replication::Callbacks callbacks;
    callbacks.on_newer_timeline = [this](const TimelineHistory& history, const std::string&) {
      group_->serve(false);
      spawn(fence(replication::current_timeline(history)));
    };
    callbacks.become_mirror = [this] { return group_->set_role(Role::kMirror); };
    const auto options = replication_options();
    replication_ = std::make_unique<replication::GroupReplication>(
        node_.runtime(), *group_, network_.dialer(node_, "us"), options, std::move(callbacks),
        group_->role());
    replication::RouterCallbacks routes;
    routes.find = [this](const Uuid& id) {
      return id == group_->identity().group ? replication_.get() : nullptr;
    };
    router_ =
        std::make_unique<replication::LinkRouter>(node_.runtime(), options, std::move(routes));
    network_.listen("us", node_, router_.get());
    network_.listen("them", them_, &streams_);
    if (!is_primary_) return;
    CHECK(replication_->add_slot({.address = "them", .mode = ReplicationMode::kAsync}));
    spawn(begin_to_serve());
  }
  Task<void> begin_to_serve() {
    (void)co_await replication_->hear_peers(200ms);
    if (replication_->role() != Role::kPrimary) co_return;
    replication_->become_primary();
    group_->serve(true);
  }
  Task<void> fence(Timeline by) { (void)co_await group_->set_role(Role::kFenced, by); }
  void connect() {
    if (!is_primary_) streams_.take(network_.dialer(them_, "them").dial("us"));
    world_.run_until([&] { return streams_.is_open(); }, 200ms);
  }

  SimRuntime world_{5};
  SimNode& node_ = world_.main();
  SimNode& them_ = world_.add_node();
  sim::SimNetwork network_{world_};
  HeapBuffers buffers_;
  SimDisk disk_;
  bool is_primary_;
  std::unique_ptr<store::Pool> pool_;
  store::Group* group_ = nullptr;
  Streams streams_;
  std::unique_ptr<replication::GroupReplication> replication_;
  std::unique_ptr<replication::LinkRouter> router_;
};

}  // namespace
}  // namespace tandem::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace tandem::fuzz;
  tandem::set_log_sink([](tandem::Level, std::string_view) {});
  Input input(data, size);
  const bool is_primary = input.u8() & 1;
  auto image = is_primary ? pool_after_clean_stop().image() : pool_of_a_mirror();
  {
    Session session(image, is_primary);
    session.run(input);
    image = session.end();
  }
  check_is_sound(image);
  return 0;
}
