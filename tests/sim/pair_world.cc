#include "tests/sim/pair_world.h"

#include <functional>
#include <optional>

namespace tandem::sim {

using namespace std::chrono_literals;

/// Calls to the other node's control: over the same network, and answered late or never.
class PairNode::Peers final : public control::PeerControl {
 public:
  explicit Peers(PairNode& node) : world_(node.world_), node_(node) {}

  Task<Result<Receipt>> take_over(std::string address, std::string group,
                                  Nanoseconds limit) override {
    const Answer instead = node_.take_over_;
    if (instead.error && !instead.although) {
      co_await sleep_for(node_.node_, Nanoseconds(world_.runtime().random().below(2'000'000)));
      co_return *instead.error;
    }
    auto call = std::make_shared<Call<Result<Receipt>>>();
    spawn(ask<Result<Receipt>>(
        call, address, [group](control::NodeControl& peer) { return peer.take_over(group); }));
    auto answering = answer(call, limit);
    auto answered = co_await std::move(answering);
    if (instead.error) co_return *instead.error;
    co_return answered;
  }
  Task<Status> add_mirror(std::string address, AddMirror request, Nanoseconds limit) override {
    auto call = std::make_shared<Call<Status>>();
    spawn(ask<Status>(call, address,
                      [request](control::NodeControl& peer) { return peer.add_mirror(request); }));
    co_return co_await answer(call, limit);
  }

 private:
  template <class T>
  struct Call {
    std::optional<T> answer;
  };
  template <class T>
  Task<void> ask(std::shared_ptr<Call<T>> call, std::string address,
                 std::function<Task<T>(control::NodeControl&)> what) {
    const Nanoseconds delay(world_.runtime().random().between(20'000, 2'000'000));
    co_await sleep_for(world_.runtime(), delay);
    PairNode* peer = world_.node_at(address);
    const auto is_heard = [&] {
      return peer != nullptr && !peer->is_dead() &&
             world_.network().is_open_between(node_.address(), address);
    };
    if (!is_heard()) co_return;
    auto doing = what(peer->control());
    T done = co_await std::move(doing);
    if (is_heard()) call->answer = std::move(done);
  }
  template <class T>
  Task<T> answer(std::shared_ptr<Call<T>> call, Nanoseconds limit) {
    const Nanoseconds end = world_.runtime().now() + limit;
    while (!call->answer && world_.runtime().now() < end) co_await sleep_for(node_.node_, 1ms);
    if (call->answer) co_return std::move(*call->answer);
    co_return Error{ErrorCode::kUnavailable, "the other node did not answer"};
  }

  PairWorld& world_;
  PairNode& node_;
};

PairNode::PairNode(PairWorld& world, std::string name)
    : world_(world),
      name_(std::move(name)),
      address_(name_ + ":1"),
      node_(world.runtime().add_node()),
      buffers_(64 << 20),
      image_(world.shape().disk_bytes),
      peers_(std::make_unique<Peers>(*this)) {
  format();
}

PairNode::~PairNode() {
  if (is_up() && !disk_->is_off()) disk_->kill();
  stop();
}

void PairNode::format() {
  CHECK(!is_up());
  image_ = StoreNode::formatted(world_.shape(), world_.runtime().random().next());
}

Status PairNode::start(std::uint64_t cut_after) {
  CHECK(!is_up());
  ++boots_;
  SimRuntime& runtime = world_.runtime();
  SimDisk::Options disk_options;
  disk_options.name = name_;
  disk_options.seed = runtime.random().next();
  disk_options.executor = &node_;
  disk_options.latency_max = world_.shape().latency_max;
  disk_ = std::make_unique<SimDisk>(runtime, image_, disk_options);
  if (cut_after != 0) disk_->power_off_after(cut_after, {});
  auto opened =
      runtime.run(store::Pool::open(node_.runtime(), *disk_, buffers_, world_.shape().options));
  if (!opened) return Error(std::move(opened.error()));
  pool_ = std::move(*opened);
  control::ControlOptions options;
  options.node = name_;
  options.version = "simulated";
  options.service_address = address_;
  options.peer_wait = 3s;
  options.peer_call_limit = 2s;
  options.catch_up_limit = 3s;
  options.pause_limit = 2s;
  options.replication.heartbeat_interval = 100ms;
  options.replication.timeout = 1s;
  options.replication.handshake_timeout = 1s;
  options.replication.backoff_first = 10ms;
  options.replication.backoff_max = 200ms;
  options.hooks = hooks_;
  control_ = std::make_unique<control::NodeControl>(
      node_.runtime(), *pool_, world_.network().dialer(node_, address_), *peers_, options);
  world_.network().listen(address_, node_, &control_->acceptor());
  control_->start();
  for (const auto& broken : pool_->broken_groups()) {
    return Error{broken.error.code, name_ + ": broken group: " + broken.error.message};
  }
  return ok();
}

void PairNode::stop() {
  if (!disk_) return;
  SimRuntime& runtime = world_.runtime();
  world_.network().listen(address_, node_, nullptr);
  if (control_) runtime.run(control_->stop());
  control_.reset();
  if (pool_) runtime.run(pool_->close());
  pool_.reset();
  CHECK(runtime.run_until([&] { return disk_->in_flight() == 0; }));
  image_ = disk_->remains();
  disk_.reset();
}

void PairNode::power_cut() {
  disk_->power_off({});
  bury();
}

void PairNode::kill() {
  disk_->kill();
  bury();
}

void PairNode::bury() {
  CHECK(disk_->is_off());
  node_.resume();  // else nothing of it unwinds
  world_.network().cut(address_);
  stop();
}

GroupStatus PairNode::status() {
  const NodeStatus status = world_.runtime().run(control_->status());
  for (const auto& group : status.groups) {
    if (group.name == "g") return group;
  }
  return {};
}

Task<Result<StoreModel::Found>> PairNode::read_volumes(std::string snapshot) {
  StoreModel::Found found;
  for (const auto& info : control_->list()) {
    const auto at = info.name.find('@');
    const std::string of = at == std::string::npos ? "" : info.name.substr(at + 1);
    if (of != snapshot) continue;
    auto volume = control_->open(info.name);
    if (!volume) co_return Error(std::move(volume.error()));
    auto data = co_await (*volume)->read(0, info.size_bytes);
    if (!data) co_return Error(std::move(data.error()));
    found[info.name.substr(0, at)].assign(data->data(), data->data() + data->size());
  }
  co_return found;
}

Result<StoreModel::Found> PairNode::read_all(const std::string& snapshot) {
  return world_.runtime().run(read_volumes(snapshot));
}

Result<std::shared_ptr<Volume>> PairNode::open_volume(const std::string& name) {
  if (!is_up()) return Error{ErrorCode::kUnavailable, name_ + " is down"};
  return control_->open(name);
}

Task<Status> PairNode::create_volume(std::string name, std::uint64_t size_bytes) {
  CreateVolume request;
  request.name = std::move(name);
  request.group = "g";
  request.size_bytes = size_bytes;
  co_return co_await control_->create_volume(std::move(request));
}

Task<Status> PairNode::resize_volume(std::string name, std::uint64_t size_bytes) {
  co_return co_await control_->resize_volume(std::move(name), size_bytes);
}

Task<Status> PairNode::delete_volume(std::string name) {
  co_return co_await control_->delete_volume(std::move(name));
}

Task<Status> PairNode::checkpoint() { co_return co_await group()->checkpoint(); }

PairWorld::PairWorld(std::uint64_t seed, StoreShape shape)
    : shape_(shape), runtime_(seed), network_(runtime_), a_(*this, "a"), b_(*this, "b") {}

PairWorld::~PairWorld() = default;

bool PairWorld::until(const std::function<bool()>& done, Nanoseconds limit) {
  const Nanoseconds end = runtime_.now() + limit;
  while (!done()) {
    if (runtime_.now() >= end) return false;
    runtime_.run_for(5ms);
  }
  return true;
}

PairNode* PairWorld::node_at(const std::string& address) {
  for (PairNode* node : {&a_, &b_, c_.get()}) {
    if (node != nullptr && node->address() == address) return node;
  }
  return nullptr;
}

PairNode& PairWorld::third() {
  if (!c_) c_ = std::make_unique<PairNode>(*this, "c");
  return *c_;
}

bool PairWorld::are_level(PairNode& one, PairNode& other) {
  store::Group* left = one.group();
  store::Group* right = other.group();
  if (left == nullptr || right == nullptr || left->stopped() || right->stopped()) return false;
  return left->head().lsn == left->tail().lsn && left->head().lsn == right->head().lsn &&
         left->head().digest == right->head().digest && right->durable() == right->head().lsn &&
         left->durable() == left->head().lsn;
}

}  // namespace tandem::sim
