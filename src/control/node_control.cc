#include "control/node_control.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::control {
namespace {

constexpr std::size_t kNameBytesMax = 100;

// Names travel in URIs, file names and shell lines.
Status check_name(const char* what, const std::string& name) {
  const auto good = [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-';
  };
  if (!name.empty() && name.size() <= kNameBytesMax &&
      std::all_of(name.begin(), name.end(), good) &&
      std::isalnum(static_cast<unsigned char>(name[0])) != 0) {
    return ok();
  }
  return Error{ErrorCode::kInvalid,
               fmt::format("'{}' cannot be a {}'s name: use 1 to {} letters, digits, '.', '_' and "
                           "'-', beginning with a letter or digit",
                           name, what, kNameBytesMax)};
}

Status check_address(const std::string& address) {
  const auto colon = address.rfind(':');
  const bool good =
      colon != std::string::npos && colon > 0 && colon + 1 < address.size() &&
      std::all_of(address.begin() + static_cast<std::ptrdiff_t>(colon) + 1, address.end(),
                  [](unsigned char c) { return std::isdigit(c) != 0; });
  if (good) return ok();
  return Error{ErrorCode::kInvalid,
               fmt::format("'{}' is not an address: write host:port, the other node's [service] "
                           "listen address",
                           address)};
}

/// The volume's own name of "volume" or "group/volume".
std::string_view without_group(std::string_view name) { return name.substr(name.find('/') + 1); }

Error stopping_error() { return {ErrorCode::kUnavailable, "tandemd is stopping"}; }

}  // namespace

Status check_group_name(const std::string& name) { return check_name("group", name); }

NodeControl::NodeControl(Runtime runtime, store::Pool& pool, LinkDialer& dialer, PeerControl& peers,
                         ControlOptions options)
    : runtime_(runtime),
      pool_(pool),
      dialer_(dialer),
      peers_(peers),
      options_(std::move(options)),
      started_(runtime.clock.monotonic()),
      router_(runtime, options_.replication, routes()),
      ticker_(runtime, std::chrono::seconds(1),
              [this] {
                for (auto& [name, runner] : runners_) runner->tick();
                if (abandoning_) abandon_held_writers();
                watch_pool();
                compact_when_short();
                spawn(keep_free_zones());
              }),
      watch_({options_.pool_warn_percent, options_.pool_critical_percent}) {}

NodeControl::~NodeControl() { CHECK(runners_.empty() && work_.held() == 0); }

replication::RouterCallbacks NodeControl::routes() {
  replication::RouterCallbacks routes;
  routes.find = [this](const Uuid& id) -> replication::GroupReplication* {
    for (auto& [name, runner] : runners_)
      if (runner->group().identity().group == id) return &runner->replication();
    return nullptr;
  };
  routes.create = [this](const message::Hello& hello) { return create_mirror(hello); };
  return routes;
}

NodeControl::RunnerPtr NodeControl::run(store::Group& group) {
  group.set_node_name(options_.node);
  auto runner = std::make_shared<GroupRunner>(runtime_, group, dialer_, peers_, options_);
  runners_[runner->name()] = runner;
  runner->start();
  return runner;
}

void NodeControl::start() {
  for (store::Group* group : pool_.groups()) run(*group);
  watch_pool();
  ticker_.start();
}

Task<void> NodeControl::end(RunnerPtr runner) {
  auto holder = work_.hold();
  co_await runner->stop();
}

void NodeControl::abandon_held_writers() {
  abandoning_ = true;
  if (options_.hooks != nullptr) options_.hooks->hurry();
  for (auto& [name, runner] : runners_) runner->abandon_held_writers();
}

Task<void> NodeControl::stop() {
  stopping_ = true;
  if (options_.hooks != nullptr) options_.hooks->hurry();
  ticker_.stop();
  co_await router_.stop();
  // Together, not one after the other: each may give its mirror a moment.
  for (auto& [name, runner] : runners_) spawn(end(runner));
  co_await work_.close();
  runners_.clear();
}

// --- finding
// ---------------------------------------------------------------------------------------

Result<NodeControl::RunnerPtr> NodeControl::find_group(std::string_view name) const {
  if (stopping_) return stopping_error();
  const auto found = runners_.find(name);
  if (found != runners_.end()) return found->second;
  return Error{ErrorCode::kNotFound, fmt::format("no group {} on node {}", name, options_.node)};
}

/// "volume", of a group that is no clone, or "group/volume".
Result<NodeControl::RunnerPtr> NodeControl::find_volume(std::string_view name) const {
  if (stopping_) return stopping_error();
  RunnerPtr elsewhere;
  if (const auto slash = name.find('/'); slash != std::string_view::npos) {
    const auto found = runners_.find(name.substr(0, slash));
    if (found != runners_.end() && found->second->has_volume(name.substr(slash + 1)))
      elsewhere = found->second;
  } else {
    for (const auto& [group, runner] : runners_) {
      if (runner->is_clone() || !runner->has_volume(name)) continue;
      if (runner->serves()) return runner;
      elsewhere = runner;
    }
  }
  if (elsewhere) return elsewhere;
  return Error{ErrorCode::kNotFound, fmt::format("no volume {} on node {}", name, options_.node)};
}

// --- volumes
// ---------------------------------------------------------------------------------------

std::vector<VolumeInfo> NodeControl::list() const {
  std::vector<VolumeInfo> all;
  for (const auto& [group, runner] : runners_) {
    if (!runner->exports()) continue;
    for (const auto& volume : runner->group().volumes())
      all.push_back(
          {runner->export_name(volume.name), volume.size_bytes, volume.logical_block_bytes, false});
  }
  for (const auto& [group, runner] : runners_) {
    for (auto& kept : runner->snapshot_exports()) all.push_back(std::move(kept));
  }
  return all;
}

Result<std::shared_ptr<Volume>> NodeControl::open(std::string_view name) {
  auto runner = find_volume(name);
  if (runner) return (*runner)->open_volume(without_group(name));
  if (runner.error().code == ErrorCode::kNotFound && name.find('@') != std::string_view::npos)
    return open_snapshot(name);
  return runner.error();
}

bool NodeControl::exports(std::string_view name) const {
  const auto runner = find_volume(name);
  return runner && (*runner)->exports();
}

/// The group to put a new volume into, made if there is none.
Task<Result<NodeControl::RunnerPtr>> NodeControl::group_for(const CreateVolume& request,
                                                            bool& created) {
  const std::string name = request.group.empty() ? request.name : request.group;
  const Status named = check_name("group", name);
  if (!named) co_return named.error();
  auto found = find_group(name);
  if (found || found.error().code != ErrorCode::kNotFound) co_return found;
  auto making = pool_.create_group(name, Uuid{}, Role::kPrimary, ReplicationMode::kAsync);
  auto made = co_await std::move(making);
  if (!made) co_return made.error();
  created = true;
  co_return run(**made);
}

Task<Status> NodeControl::create_volume(CreateVolume request) {
  auto holder = work_.hold();
  auto lock = co_await pool_lock_.lock();
  const Status named = check_name("volume", request.name);
  if (!named) co_return named;
  // The volumes of a clone have names of their own.
  const auto into = find_group(request.group);
  const bool into_clone = into && (*into)->is_clone();
  const auto taken = find_volume(into_clone ? request.group + "/" + request.name : request.name);
  if (stopping_) co_return stopping_error();
  if (taken) {
    co_return Error{ErrorCode::kExists,
                    fmt::format("volume {} exists in group {}", request.name, (*taken)->name())};
  }
  bool created = false;
  auto runner = co_await group_for(request, created);
  if (!runner) co_return runner.error();
  if (created) {
    auto waiting = until_it_serves(*runner);
    co_await std::move(waiting);
  }
  const Status made = co_await (*runner)->create_volume(request);
  if (!made && created && !stopping_) {
    std::string name = (*runner)->name();
    runner->reset();
    auto dropping = drop_group(std::move(name));
    (void)co_await std::move(dropping);
  }
  co_return made;
}

Task<Status> NodeControl::resize_volume(std::string name, std::uint64_t size_bytes) {
  auto holder = work_.hold();
  auto runner = find_volume(name);
  if (!runner) co_return runner.error();
  auto resizing = (*runner)->resize_volume(std::string(without_group(name)), size_bytes);
  co_return co_await std::move(resizing);
}

Task<Status> NodeControl::delete_volume(std::string name) {
  auto holder = work_.hold();
  auto runner = find_volume(name);
  if (!runner) co_return runner.error();
  auto deleting = (*runner)->delete_volume(std::string(without_group(name)));
  co_return co_await std::move(deleting);
}

// --- groups
// ----------------------------------------------------------------------------------------

Task<Status> NodeControl::delete_group(std::string name) {
  auto holder = work_.hold();
  auto lock = co_await pool_lock_.lock();
  auto runner = find_group(name);
  if (!runner) co_return runner.error();
  const bool idle = (*runner)->serves() && (*runner)->group().volumes().empty() &&
                    (*runner)->group().snapshots().empty();
  const bool serving = (*runner)->group().role() == Role::kPrimary && !(*runner)->group().stopped();
  if (serving && !idle && !(*runner)->may_be_discarded()) {
    co_return Error{ErrorCode::kRefused,
                    fmt::format("group {} serves on this node; demote it here first, or delete its "
                                "volumes and snapshots",
                                name)};
  }
  const Status alone = nothing_came_out_of(name);
  if (!alone) co_return alone;
  if ((*runner)->in_use()) {
    co_return Error{
        ErrorCode::kBusy,
        fmt::format("clients still hold volumes of group {}; disconnect them first", name)};
  }
  runner->reset();
  auto dropping = drop_group(std::move(name));
  co_return co_await std::move(dropping);
}

// pool_lock_ is held.
Task<Status> NodeControl::drop_group(std::string name) {
  const auto found = runners_.find(name);
  if (found == runners_.end()) co_return Error{ErrorCode::kNotFound, "no group " + name};
  RunnerPtr runner = std::move(found->second);
  runners_.erase(found);  // nobody finds it any more
  co_await runner->stop();
  runner.reset();
  std::string gone = name;
  auto deleting = pool_.delete_group(std::move(gone));
  const Status deleted = co_await std::move(deleting);
  if (deleted) {
    log_event(Level::kInfo, "group.deleted", "group={}", name);
  } else if (store::Group* group = pool_.find(name); group != nullptr && !stopping_) {
    run(*group);  // it is still there, and goes on
  }
  co_return deleted;
}

/// First contact of a primary: an empty copy of the same identity and name.
Task<Result<replication::GroupReplication*>> NodeControl::create_mirror(message::Hello hello) {
  auto holder = work_.hold();
  auto lock = co_await pool_lock_.lock();
  if (stopping_) co_return stopping_error();
  for (auto& [name, runner] : runners_) {
    if (runner->group().identity().group == hello.identity.group) co_return &runner->replication();
  }
  const Status named = check_name("group", hello.identity.name);
  if (!named) co_return named.error();
  for (const auto& broken : pool_.broken_groups()) {
    if (broken.id == hello.identity.group) {
      co_return Error{ErrorCode::kCorrupt, fmt::format("node {}'s copy is damaged: {}",
                                                       options_.node, broken.error.message)};
    }
  }
  if (runners_.count(hello.identity.name) != 0) {
    co_return Error{ErrorCode::kExists,
                    fmt::format("node {} has another group of that name; delete or keep it there, "
                                "but it cannot become a mirror of this one",
                                options_.node)};
  }
  auto making =
      pool_.create_group(hello.identity.name, hello.identity.group, Role::kMirror, hello.mode);
  auto made = co_await std::move(making);
  if (!made) co_return made.error();
  if (stopping_) co_return stopping_error();
  log_event(Level::kInfo, "mirror.created", "group={} primary={}", hello.identity.name,
            hello.identity.node);
  co_return &run(**made)->replication();
}

Task<Status> NodeControl::set_mode(std::string group, ReplicationMode mode) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  co_return co_await (*runner)->set_mode(mode);
}

Task<Status> NodeControl::add_mirror(AddMirror request) {
  auto holder = work_.hold();
  const Status good = check_address(request.address);
  if (!good) co_return good;
  if (request.address == options_.service_address) {
    co_return Error{ErrorCode::kInvalid,
                    fmt::format("{} is this node itself; name the other node", request.address)};
  }
  auto runner = find_group(request.group);
  if (!runner) co_return runner.error();
  auto adding = (*runner)->add_mirror(std::move(request.address), request.mode);
  co_return co_await std::move(adding);
}

Task<Status> NodeControl::remove_mirror(std::string group, std::string address) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  auto removing = (*runner)->remove_mirror(std::move(address));
  co_return co_await std::move(removing);
}

Task<Status> NodeControl::change_settings(ChangeSettings request) {
  auto holder = work_.hold();
  auto runner = find_group(request.group);
  if (!runner) co_return runner.error();
  auto changing = (*runner)->change_settings(std::move(request.mirror), std::move(request.changes));
  co_return co_await std::move(changing);
}

Task<Result<Receipt>> NodeControl::receipt(std::string group) {
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  co_return (*runner)->receipt();
}

Task<Result<Receipt>> NodeControl::promote(std::string group, bool force) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  co_return co_await (*runner)->promote(force);
}

Task<Result<Receipt>> NodeControl::take_over(std::string group) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  co_return co_await (*runner)->take_over();
}

Task<Status> NodeControl::demote(std::string group) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  co_return co_await (*runner)->demote();
}

Task<Result<SwitchedOver>> NodeControl::switchover(std::string group, std::string address) {
  auto holder = work_.hold();
  auto runner = find_group(group);
  if (!runner) co_return runner.error();
  auto switching = (*runner)->switchover(std::move(address));
  co_return co_await std::move(switching);
}

// --- status
// ----------------------------------------------------------------------------------------

void NodeControl::watch_pool() {
  const std::uint64_t zone = std::uint64_t{pool_.superblock().zone_blocks} * kBlockBytes;
  const store::PoolUse use = pool_.use();
  PoolWatch::Reading now{.bytes = use.zones_total * zone, .free = use.zones_free * zone};
  now.refused = use.zones_free != 0 && pool_.zones_free() == 0;
  for (const auto& [name, runner] : runners_)
    now.free += runner->group().free_blocks() * kBlockBytes;
  if (!watch_.look(now, runtime_.clock.utc(), runtime_.clock.monotonic())) return;
  const bool good = watch_.state() == std::string_view("ok");
  log_event(good ? Level::kInfo : Level::kWarn, "pool.space",
            "pool={} state={} full={}% free_bytes={} reason=\"{}\"", pool_.device().name(),
            watch_.state(), watch_.full_percent(), now.free, watch_.reason());
}

Task<void> NodeControl::keep_free_zones() {
  auto holder = work_.hold();
  co_await pool_.return_free_zones();
  co_await pool_.prepare_free_zones();
}

PoolStatus NodeControl::pool_status(const std::vector<GroupStatus>& groups) const {
  PoolStatus status;
  const auto& superblock = pool_.superblock();
  const store::PoolUse use = pool_.use();
  status.id = superblock.pool;
  status.path = pool_.device().name();
  status.size_bytes = superblock.blocks * kBlockBytes;
  status.zone_bytes = std::uint64_t{superblock.zone_blocks} * kBlockBytes;
  status.zones_total = use.zones_total;
  status.zones_free = use.zones_free;
  status.prepared_bytes = use.zones_prepared * status.zone_bytes;
  status.fixed_bytes = status.size_bytes - use.zones_total * status.zone_bytes;
  status.other_bytes = (use.zones_total - use.zones_free) * status.zone_bytes;
  for (const GroupStatus& group : groups) {
    const GroupSpace& space = group.space;
    status.used_bytes += group.data_bytes + group.snapshot_bytes + group.map_bytes +
                         group.log_bytes + space.dead_bytes + space.book_bytes + space.moving_bytes;
    status.other_bytes -= std::min(status.other_bytes, group.space.zone_bytes);
  }
  status.state = watch_.state();
  status.reason = watch_.reason();
  status.since = watch_.since();
  status.full_percent = watch_.full_percent();
  status.warn_percent = watch_.limits().warn_percent;
  status.critical_percent = watch_.limits().critical_percent;
  status.fill_bytes_per_second = watch_.fill_bytes_per_second();
  status.full_in_seconds = watch_.full_in_seconds();
  return status;
}

Task<NodeStatus> NodeControl::status() {
  auto holder = work_.hold();
  NodeStatus status;
  status.node = options_.node;
  status.version = options_.version;
  status.control_address = options_.service_address;
  status.nbd = options_.nbd;
  status.nbd_tls = options_.nbd_tls;
  status.now = runtime_.clock.utc();
  status.uptime_seconds = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(runtime_.clock.monotonic() - started_)
          .count());
  std::vector<RunnerPtr> runners;  // the map may change while one of them counts
  for (const auto& [name, runner] : runners_) runners.push_back(runner);
  for (const RunnerPtr& runner : runners) {
    if (runner->stopped()) continue;
    auto group = co_await runner->status();
    group.clone_of = clone_of(*runner);
    status.groups.push_back(std::move(group));
  }
  for (const auto& broken : pool_.broken_groups()) {
    GroupStatus group;
    group.name = fmt::format("(slot {})", broken.slot);
    group.id = broken.id;
    group.role = Role::kFenced;
    group.state = "stopped";
    group.reason = broken.error.message;
    status.groups.push_back(std::move(group));
  }
  status.pool = pool_status(status.groups);
  co_return status;
}

}  // namespace tandem::control
