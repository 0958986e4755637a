#include "tests/sim/pair_world.h"

namespace tandem::sim {

using namespace std::chrono_literals;

/// Calls the other node's control, some time later.
class PairNode::Peers final : public control::PeerControl {
 public:
  explicit Peers(PairNode& node) : node_(node) {}
  Task<Result<Receipt>> take_over(std::string address, std::string group, Nanoseconds) override {
    const Answer answer = node_.take_over_;
    auto finding = find(std::move(address));
    PairNode* other = co_await std::move(finding);
    if (answer.error && !answer.although) co_return *answer.error;
    if (other == nullptr) co_return gone();
    auto promoting = other->control().take_over(std::move(group));
    auto promoted = co_await std::move(promoting);
    if (answer.error) co_return *answer.error;
    co_return promoted;
  }
  Task<Status> add_mirror(std::string address, AddMirror request, Nanoseconds) override {
    auto finding = find(std::move(address));
    PairNode* other = co_await std::move(finding);
    if (other == nullptr) co_return gone();
    auto adding = other->control().add_mirror(std::move(request));
    co_return co_await std::move(adding);
  }

 private:
  static Error gone() { return {ErrorCode::kUnavailable, "that node is down"}; }
  Task<PairNode*> find(std::string address) {
    SimRuntime& runtime = node_.world_.runtime();
    co_await sleep_for(node_.node_, Nanoseconds(runtime.random().below(2'000'000)));
    co_return node_.world_.at(address);
  }
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

Status PairNode::start() {
  CHECK(!is_up());
  SimRuntime& runtime = world_.runtime();
  SimDisk::Options disk_options;
  disk_options.name = name_;
  disk_options.seed = runtime.random().next();
  disk_options.executor = &node_;
  disk_options.latency_max = world_.shape().latency_max;
  disk_ = std::make_unique<SimDisk>(runtime, image_, disk_options);
  auto opened =
      runtime.run(store::Pool::open(node_.runtime(), *disk_, buffers_, world_.shape().options));
  if (!opened) return Error(std::move(opened.error()));
  pool_ = std::move(*opened);
  control::ControlOptions options;
  options.node = name_;
  options.version = "simulated";
  options.service_address = address_;
  options.peer_wait = 3s;
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
  world_.network().cut(address_);
  stop();
}

void PairNode::kill() {
  disk_->kill();
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

Task<Result<StoreModel::Found>> PairNode::read_volumes() {
  StoreModel::Found found;
  for (const auto& info : control_->list()) {
    auto volume = control_->open(info.name);
    if (!volume) co_return Error(std::move(volume.error()));
    auto data = co_await (*volume)->read(0, info.size_bytes);
    if (!data) co_return Error(std::move(data.error()));
    found[info.name].assign(data->data(), data->data() + data->size());
  }
  co_return found;
}

Result<StoreModel::Found> PairNode::read_all() { return world_.runtime().run(read_volumes()); }

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

PairNode* PairWorld::at(const std::string& address) {
  for (PairNode* node : {&a_, &b_, c_.get()})
    if (node != nullptr && node->is_up() && node->address() == address) return node;
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
