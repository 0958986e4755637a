#include "tests/sim/store_node.h"

#include <cstdio>
#include <cstdlib>

#include "store/compaction.h"
#include "tandem/base/log.h"

namespace tandem::sim {
namespace {

constexpr std::size_t kArenaBytes = 64 << 20;
constexpr std::size_t kLinesMax = 25;

Task<Status> format_pool(SimRuntime& world, SimDisk& disk, std::uint64_t zone_bytes) {
  store::FormatOptions options;
  options.zone_bytes = zone_bytes;
  co_return co_await store::Pool::format(world.runtime(), disk, options);
}

}  // namespace

SimLog::SimLog() {
  set_log_sink([this](Level level, std::string_view line) {
    if (std::getenv("TANDEM_LOG") != nullptr) {
      std::fprintf(stderr, "%.*s\n", static_cast<int>(line.size()), line.data());
    }
    if (level == Level::kError) ++errors_;
    lines_.emplace_back(line);
    if (lines_.size() > kLinesMax) lines_.pop_front();
  });
}

SimLog::~SimLog() { set_log_sink(nullptr); }

std::string SimLog::text() const {
  std::string text;
  for (const auto& line : lines_) text += line + "\n";
  return text;
}

StoreShape StoreShape::from_seed(SimRandom random) {
  StoreShape shape;
  shape.disk_bytes = std::uint64_t{8 + random.below(8)} << 20;
  shape.options.map_cache_bytes = (random.chance(1, 2) ? 4 : 64) * kBlockBytes;
  shape.options.pages_in_flight_max = static_cast<std::uint32_t>(random.between(1, 4));
  shape.options.checkpoint_log_pages = random.chance(1, 2) ? random.between(4, 32) : 512;
  shape.options.recent_bytes_max = random.chance(1, 2) ? 64 << 10 : 1 << 20;
  shape.options.flush_interval = std::chrono::milliseconds(random.chance(1, 2) ? 1 : 1000);
  shape.latency_max = Nanoseconds(random.chance(1, 2) ? 100'000 : 2'000'000);
  return shape;
}

StoreNode::StoreNode(SimRuntime& world, SimImage image, const StoreShape& shape, std::uint64_t seed)
    : world_(world),
      shape_(shape),
      disk_(world, std::move(image), {.seed = seed, .latency_max = shape.latency_max}),
      buffers_(kArenaBytes) {}

StoreNode::~StoreNode() {
  // Only after a failed test: let everything unwind, so that its message is the last word.
  if (!disk_.is_off() && pool_ != nullptr) disk_.kill();
  world_.run(stop());
  world_.run_until([this] { return disk_.in_flight() == 0; });
}

SimImage StoreNode::formatted(const StoreShape& shape, std::uint64_t seed) {
  SimRuntime world(seed);
  SimDisk disk(world, SimImage(shape.disk_bytes), {.seed = seed});
  const Status done = world.run(format_pool(world, disk, shape.zone_bytes));
  CHECK(done.has_value());
  return disk.remains();
}

Task<Status> StoreNode::open() {
  CHECK(pool_ == nullptr);
  auto pool = co_await store::Pool::open(world_.runtime(), disk_, buffers_, shape_.options);
  if (!pool) co_return Error(std::move(pool.error()));
  pool_ = std::move(*pool);
  co_return ok();
}

Task<Status> StoreNode::start() {
  const Status opened = co_await open();
  TANDEM_CO_TRY(opened);
  for (const auto& broken : pool_->broken_groups()) {
    co_return Error{broken.error.code, "broken group: " + broken.error.message};
  }
  for (store::Group* group : pool_->groups()) group->serve(true);
  co_return ok();
}

Task<void> StoreNode::stop() {
  if (pool_ == nullptr) co_return;
  co_await pool_->close();
  pool_.reset();
}

store::Group* StoreNode::group() const {
  const auto groups = pool_->groups();
  return groups.empty() ? nullptr : groups.front();
}

Task<Status> StoreNode::make_group(StoreClients& clients, StoreModel& model, std::size_t volumes,
                                   std::uint64_t size_bytes) {
  auto made = co_await pool_->create_group("g", Uuid{}, Role::kPrimary, ReplicationMode::kAsync);
  if (!made) co_return Error(std::move(made.error()));
  (*made)->serve(true);
  Status done = co_await clients.make_volumes(volumes, size_bytes);
  if (!done) co_return done;
  const OpId op = model.begin_flush();
  done = co_await (*made)->flush_local();
  if (done) model.acknowledge(op);
  co_return done;
}

Result<std::shared_ptr<Volume>> StoreNode::open_volume(const std::string& name) {
  return group()->open_volume(name);
}

Task<Status> StoreNode::create_volume(std::string name, std::uint64_t size_bytes) {
  co_return co_await group()->create_volume(std::move(name), size_bytes, 512);
}

Task<Status> StoreNode::resize_volume(std::string name, std::uint64_t size_bytes) {
  co_return co_await group()->resize_volume(std::move(name), size_bytes);
}

Task<Status> StoreNode::delete_volume(std::string name) {
  co_return co_await group()->delete_volume(std::move(name));
}

Task<Status> StoreNode::checkpoint() { co_return co_await group()->checkpoint(); }

void StoreNode::compact() {
  auto& compaction = group()->compaction();
  group()->set_history_policy({});
  compaction.set_slack(world_.random().below(64));
  if (!compaction.start(false)) (void)compaction.stop();
}

Task<Result<StoreModel::Found>> StoreNode::read_all() {
  constexpr std::uint64_t kPieceBytes = 256 << 10;
  StoreModel::Found found;
  for (store::Group* group : pool_->groups()) {
    for (const auto& state : group->volumes()) {
      auto volume = group->open_volume(state.name);
      TANDEM_CO_TRY(volume);
      auto& bytes = found[state.name];
      bytes.resize(state.size_bytes);
      for (std::uint64_t at = 0; at < bytes.size(); at += kPieceBytes) {
        const std::uint64_t length = std::min<std::uint64_t>(kPieceBytes, bytes.size() - at);
        auto piece = co_await (*volume)->read(at, length);
        if (!piece) co_return Error(std::move(piece.error()));
        CHECK(piece->size() == length);
        std::copy_n(piece->data(), length, bytes.data() + at);
      }
    }
  }
  co_return found;
}

namespace {

Task<Status> open_copy(StoreNode& node) {
  Status opened = co_await node.open();
  if (!opened) co_return opened;
  for (const auto& broken : node.pool().broken_groups()) {
    co_return Error{broken.error.code, "broken group: " + broken.error.message};
  }
  store::Group* group = node.group();
  if (group == nullptr) co_return ok();
  auto promoted = co_await group->start_timeline();
  if (!promoted) co_return Error(std::move(promoted.error()));
  group->serve(true);
  co_return ok();
}

Recovery open_and_read(const SimImage& image, const StoreShape& shape, std::uint64_t seed,
                       const std::function<void(StoreNode&)>& before_open, bool promote) {
  SimRuntime world(seed);
  StoreNode node(world, image, shape, seed);
  if (before_open) before_open(node);
  Recovery recovery{.image = SimImage(image.size_bytes())};
  recovery.status = world.run(promote ? open_copy(node) : node.start());
  if (recovery.status) {
    if (node.group() != nullptr) {
      recovery.head = node.group()->head();
      recovery.history = node.group()->history();
      if (promote) recovery.history.pop_back();
    }
    auto found = world.run(node.read_all());
    if (found) {
      recovery.found = std::move(*found);
    } else {
      recovery.status = Error(std::move(found.error()));
    }
  }
  world.run(node.stop());
  world.run_until([&] { return node.disk().in_flight() == 0; });
  recovery.image = node.disk().remains();
  return recovery;
}

}  // namespace

Recovery recover(const SimImage& image, const StoreShape& shape, std::uint64_t seed,
                 const std::function<void(StoreNode&)>& before_open) {
  return open_and_read(image, shape, seed, before_open, /*promote=*/false);
}

Recovery promote_copy(const SimImage& image, const StoreShape& shape, std::uint64_t seed) {
  return open_and_read(image, shape, seed, nullptr, /*promote=*/true);
}

Status make_mirrored_group(SimRuntime& world, StoreNode& source, StoreNode& target) {
  const auto mode = ReplicationMode::kAsync;
  auto made = world.run(source.pool().create_group("g", Uuid{}, Role::kPrimary, mode));
  if (!made) return made.error();
  source.group()->serve(true);
  const Uuid id = source.group()->identity().group;
  auto mirror = world.run(target.pool().create_group("g", id, Role::kMirror, mode));
  if (!mirror) return mirror.error();
  return ok();
}

Status follow(SimRuntime& world, store::Group& primary, store::Group& mirror) {
  while (mirror.tail().lsn < primary.head().lsn) {
    auto batch = world.run(primary.read_after(mirror.tail().lsn, 1 << 20));
    if (!batch) return batch.error();
    const Status applied = world.run(mirror.apply(std::move(*batch)));
    if (!applied) return applied;
  }
  return ok();
}

std::string imbalance(const store::Pool& pool) {
  std::uint64_t zones = 0;
  for (const store::Group* group : pool.groups()) {
    const auto use = group->use();
    zones += use.zones;
    const std::string name = "group " + group->identity().name + " ";
    if (use.sum() != use.zones * pool.superblock().zone_blocks)
      return name + "has parts of " + std::to_string(use.sum()) + " blocks in " +
             std::to_string(use.zones) + " zones";
    if (use.moving_blocks != 0)
      return name + "has " + std::to_string(use.moving_blocks) +
             " blocks in use that nothing needs";
    if (use.freed_blocks != 0)
      return name + "has " + std::to_string(use.freed_blocks) + " blocks that never become free";
  }
  const auto use = pool.use();
  if (zones + use.zones_free == use.zones_total) return "";
  return std::to_string(zones) + " zones of groups and " + std::to_string(use.zones_free) +
         " free ones are not " + std::to_string(use.zones_total);
}

std::string still_unbalanced(SimRuntime& world, const store::Pool& pool) {
  std::string what;
  for (int i = 0; i < 400; ++i) {
    what = imbalance(pool);
    if (what.empty()) break;
    world.run_for(std::chrono::milliseconds(10));
  }
  return what;
}

}  // namespace tandem::sim
