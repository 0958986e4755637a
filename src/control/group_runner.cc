#include "control/group_runner.h"

#include <algorithm>
#include <utility>

#include "store/scrub.h"
#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::control {

namespace in = replication::role_state;
namespace ev = replication::role_event;
using replication::PeersHeard;
using replication::RoleStep;

namespace {

constexpr Nanoseconds kPoll = std::chrono::milliseconds(1);
/// What a clean stop gives a following mirror to take the last records.
constexpr Nanoseconds kLastRecords = std::chrono::seconds(2);

double seconds(Nanoseconds d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

GroupRunner::GroupRunner(Runtime runtime, store::Group& group, LinkDialer& dialer,
                         PeerControl& peers, const ControlOptions& options)
    : runtime_(runtime),
      group_(group),
      peers_(peers),
      options_(options),
      name_(group.identity().name),
      machine_(replication::boot_state(group.role(), group.fenced_by())) {
  since_ = runtime_.clock.utc();
  replication::Callbacks callbacks;
  callbacks.on_newer_timeline = [this](const TimelineHistory& history, const std::string& node) {
    on_newer_timeline(history, node);
  };
  callbacks.become_mirror = [this] { return become_mirror(); };
  replication_ = std::make_unique<replication::GroupReplication>(
      runtime, group, dialer, options.replication, std::move(callbacks), group.role());
}

GroupRunner::~GroupRunner() { CHECK(stopping_ && work_.held() == 0); }

// --- life
// -----------------------------------------------------------------------------------------

RoleStep GroupRunner::move(const replication::RoleEvent& event, std::string reason) {
  const bool same_before = machine_.state().index() == 0;
  const std::size_t before = machine_.state().index();
  RoleStep step = machine_.apply(event);
  if (step.refused) return step;
  reason_ = std::move(reason);
  if (machine_.state().index() != before || same_before) {
    since_ = runtime_.clock.utc();
    log_event(Level::kInfo, "group.state", "group={} state={} reason=\"{}\"", name_,
              replication::name_of(machine_.state()), reason_);
  }
  return step;
}

void GroupRunner::start() {
  group_.scrub().set_rate(replication::scrub_policy(group_.settings()).bytes_per_second);
  group_.scrub().resume();
  apply_history(group_.settings());
  replication_->set_mode(group_.mode());
  replication_->set_settings(group_.settings());
  for (const auto& slot : group_.slots()) {
    replication::SlotOptions options{
        .address = slot.address, .mode = group_.mode(), .agreed = slot.agreed};
    if (slot.written > Lsn{0}) {
      LogPoint known;
      known.lsn = slot.written;
      known.payload_bytes = slot.payload_bytes;
      options.last_known = known;
      options.last_durable = slot.durable;
    }
    const Status added = replication_->add_slot(std::move(options));
    CHECK(added.has_value());
  }
  if (std::holds_alternative<in::Starting>(machine_.state())) {
    reason_ = fmt::format("waiting for the mirrors to answer, at most {:.0f} s",
                          seconds(options_.peer_wait));
    spawn(boot());
  } else if (const auto* fenced = std::get_if<in::Fenced>(&machine_.state())) {
    reason_ = fmt::format("timeline {} was opened on another node; this copy's data is kept",
                          fenced->by.value);
  }
}

Task<void> GroupRunner::boot() {
  auto holder = work_.hold();
  const PeersHeard heard = co_await replication_->hear_peers(options_.peer_wait);
  if (stopping_ || !std::holds_alternative<in::Starting>(machine_.state())) co_return;
  if (group_.stopped()) {
    tick();
    co_return;
  }
  move(ev::PeersHeard{}, heard == PeersHeard::kTimedOut
                             ? fmt::format("serving alone: a mirror did not answer within {:.0f} s",
                                           seconds(options_.peer_wait))
                             : "");
  serve();
  const bool is_new = group_.head().lsn == Lsn{0};
  if (!is_new && options_.hooks != nullptr && options_.hooks->limit(name_)) spawn(thaw_at_start());
}

void GroupRunner::serve() {
  if (stopping_) return;  // a drain that failed, or a promotion, may end only then
  replication_->become_primary();
  group_.serve(true);
}

void GroupRunner::tick() {
  if (stopping_) return;
  if (group_.stopped() && !std::holds_alternative<in::Stopped>(machine_.state())) {
    const bool ships = replication::role_of(machine_.state()) == Role::kPrimary;
    move(ev::StorageFailed{group_.stopped()->message}, group_.stopped()->message);
    // A mirror stays one: what it is sent fails with the reason, which its primary then shows.
    if (ships) spawn(replication_->stop_shipping(Role::kFenced));
    return;
  }
  if (!group_.stopped()) {
    tick_snapshots();
    tick_scrub();
  }
  remember_slots();
}

void GroupRunner::remember_slots() {
  if (!serves() && !std::holds_alternative<in::Mirror>(machine_.state())) return;
  for (const auto& slot : replication_->slot_options()) group_.note_slot(state_of(slot));
  for (const auto& slot : replication_->slots()) {
    // While a mirror is away its place does not move; kept on disk, what it lacks stays exact even
    // when this node is killed.
    const bool away = slot.state == "connecting" && slot.last_contact != UtcNs{};
    if (away && !keeping_slots_ && !group_.slot_is_kept(slot.address)) spawn(keep_slots());
  }
}

Task<void> GroupRunner::keep_slots() {
  auto holder = work_.hold();
  keeping_slots_ = true;
  (void)co_await group_.checkpoint();
  keeping_slots_ = false;
}

// The group must not acknowledge another write when this returns: set_role() answers everything
// that waits before it first suspends.
void GroupRunner::on_newer_timeline(const TimelineHistory& history, const std::string& node) {
  const Timeline by = replication::current_timeline(history);
  const RoleStep step =
      move(ev::NewerTimeline{by, node},
           fmt::format("node {} opened timeline {}; this copy's data is kept", node, by.value));
  const bool fence = std::find(step.actions.begin(), step.actions.end(),
                               replication::RoleAction::kFenceNow) != step.actions.end();
  if (fence) spawn(persist_fence(by));
}

Task<void> GroupRunner::persist_fence(Timeline by) {
  auto holder = work_.hold();
  const Status kept = co_await group_.set_role(Role::kFenced, by);
  if (!kept) {
    // Fenced in memory all the same; a restart hears the newer timeline again before it serves.
    log_event(Level::kError, "group.fence-not-persisted", "group={} error=\"{}\"", name_,
              kept.error().message);
  }
}

Task<Status> GroupRunner::become_mirror() {
  auto holder = work_.hold();
  // Never wait for the lock here: a promotion that holds it waits for this very stream.
  if (changing_.locked() || !std::holds_alternative<in::Fenced>(machine_.state()))
    co_return Error{ErrorCode::kBusy, "the role of this copy is changing; dial again"};
  auto lock = co_await changing_.lock();
  while (group_.head().lsn < group_.tail().lsn && !group_.stopped())
    co_await sleep_for(runtime_.executor, kPoll);
  const Status kept = co_await group_.set_role(Role::kMirror);
  if (!kept) co_return kept;
  move(ev::AcceptedAsMirror{}, "");
  co_return ok();
}

void GroupRunner::abandon_held_writers() {
  if (stopping_ || !replication_->holds_writers() || group_.stopped()) return;
  group_.stop({ErrorCode::kUnavailable, fmt::format("this node stops while writers wait: {}",
                                                    replication_->policy_status().reason)});
}

Task<void> GroupRunner::stop() {
  if (!stopping_ && serves() && !group_.stopped()) {
    for (const auto& slot : replication_->slots()) {
      if (slot.state != "following") continue;
      const Lsn tail = group_.tail().lsn;
      (void)co_await replication_->wait_durable(slot.address, tail, kLastRecords);
    }
  }
  remember_slots();  // the pool's last checkpoint keeps them
  abandon_held_writers();
  stopping_ = true;
  group_.serve(false);
  co_await replication_->stop();
  co_await work_.close();
}

// --- volumes
// --------------------------------------------------------------------------------------

Error GroupRunner::unavailable() const {
  const auto& state = machine_.state();
  const auto message = [&](const char* what) {
    return fmt::format("group {} {}{}{}", name_, what, reason_.empty() ? "" : ": ", reason_);
  };
  if (group_.stopped() || std::holds_alternative<in::Stopped>(state))
    return {ErrorCode::kFenced, message("stopped on this node")};
  if (std::holds_alternative<in::Fenced>(state))
    return {ErrorCode::kFenced, message("is fenced on this node")};
  if (std::holds_alternative<in::Starting>(state))
    return {ErrorCode::kUnavailable, message("is starting")};
  if (std::holds_alternative<in::Mirror>(state)) {
    const auto node = replication_->upstream().primary;
    return {ErrorCode::kReadOnly, fmt::format("group {} is a mirror on this node{}{}", name_,
                                              node.empty() ? "" : "; its primary is node ", node)};
  }
  return {ErrorCode::kUnavailable,
          fmt::format("group {} is {}", name_, replication::name_of(state))};
}

Result<std::shared_ptr<Volume>> GroupRunner::open_volume(std::string_view volume) {
  // A client that comes while it drains waits with its writes like the others.
  if (!serves() && !std::holds_alternative<in::Draining>(machine_.state())) return unavailable();
  return handed_out(group_.open_volume(volume));
}

Result<std::shared_ptr<Volume>> GroupRunner::handed_out(Result<std::shared_ptr<Volume>> opened) {
  if (opened) {
    std::erase_if(handed_out_, [](const auto& weak) { return weak.expired(); });
    handed_out_.push_back(*opened);
  }
  return opened;
}

bool GroupRunner::in_use() {
  std::erase_if(handed_out_, [](const auto& weak) { return weak.expired(); });
  return !handed_out_.empty();
}

Status GroupRunner::may_change_volumes() const {
  if (!serves()) return unavailable();
  if (!replication_->holds_writers()) return ok();
  return Error{ErrorCode::kUnavailable, fmt::format("group {} takes no changes now: {}", name_,
                                                    replication_->policy_status().reason)};
}

Task<Status> GroupRunner::create_volume(const CreateVolume& request) {
  auto holder = work_.hold();
  auto lock = co_await changing_volumes_.lock();
  const Status may = may_change_volumes();
  if (!may) co_return may;
  std::string name = request.name;
  auto creating =
      group_.create_volume(std::move(name), request.size_bytes, request.logical_block_bytes);
  co_return co_await std::move(creating);
}

Task<Status> GroupRunner::resize_volume(std::string volume, std::uint64_t size_bytes) {
  auto holder = work_.hold();
  auto lock = co_await changing_volumes_.lock();
  const Status may = may_change_volumes();
  if (!may) co_return may;
  auto resizing = group_.resize_volume(std::move(volume), size_bytes);
  co_return co_await std::move(resizing);
}

Task<Status> GroupRunner::delete_volume(std::string volume) {
  auto holder = work_.hold();
  auto lock = co_await changing_volumes_.lock();
  const Status may = may_change_volumes();
  if (!may) co_return may;
  auto deleting = group_.delete_volume(std::move(volume));
  co_return co_await std::move(deleting);
}

// --- mirrors
// --------------------------------------------------------------------------------------

Task<Status> GroupRunner::set_mode(ReplicationMode mode) {
  auto holder = work_.hold();
  auto lock = co_await changing_.lock();
  const Status kept = co_await group_.set_mode(mode);
  if (!kept) co_return kept;
  replication_->set_mode(mode);
  co_return ok();
}

Task<Status> GroupRunner::change_settings(std::string mirror, Settings changes) {
  auto holder = work_.hold();
  auto lock = co_await changing_settings_.lock();
  std::string prefix;
  if (!mirror.empty()) {
    const auto slots = replication_->slots();
    const bool known = std::any_of(slots.begin(), slots.end(),
                                   [&](const SlotStatus& slot) { return slot.address == mirror; });
    if (!known) {
      co_return Error{ErrorCode::kNotFound,
                      fmt::format("group {} has no mirror at {}", name_, mirror)};
    }
    const Status may = may_set_mode(mirror, changes);
    if (!may) co_return may;
    prefix = replication::mirror_prefix(mirror);
  }
  Settings settings = group_.settings();
  for (const auto& [key, value] : changes) {
    // The default goes as nothing, so that a later release may improve it; but the key must exist.
    Status good = mirror.empty() ? replication::check_group_setting(key, value)
                                 : replication::check_mirror_setting(key, value);
    if (!good) co_return good;
    if (value.empty()) {
      settings.erase(prefix + key);
    } else {
      settings[prefix + key] = value;
    }
  }
  // In force first: who wants to release writers does not wait for the disk.
  replication_->set_settings(settings);
  for (const auto& [key, value] : changes) {
    log_event(Level::kInfo, "group.setting", "group={} mirror={} key={} value=\"{}\"", name_,
              mirror.empty() ? "all" : mirror, key, value);
  }
  group_.scrub().set_rate(replication::scrub_policy(settings).bytes_per_second);
  apply_history(settings);
  auto keeping = group_.set_settings(std::move(settings));
  co_return co_await std::move(keeping);
}

Task<Status> GroupRunner::add_mirror(std::string address, ReplicationMode mode) {
  auto holder = work_.hold();
  auto lock = co_await changing_.lock();
  if (std::holds_alternative<in::Mirror>(machine_.state())) {
    auto adding = add_relayed(std::move(address), mode);
    co_return co_await std::move(adding);
  }
  if (!serves()) co_return unavailable();
  const bool is_first = group_.slots().empty();
  const Status added = replication_->add_slot({.address = address, .mode = mode});
  if (!added) co_return added;
  Status kept = co_await save_slots();
  if (kept && is_first) {
    kept = co_await group_.set_mode(mode);
  } else if (kept && mode != group_.mode()) {
    // What was promised with the other mirrors stays.
    auto setting = change_settings(address, {{"mode", to_string(mode)}});
    kept = co_await std::move(setting);
  }
  if (!kept) {
    auto removing = replication_->remove_slot(std::move(address));
    (void)co_await std::move(removing);
  }
  co_return kept;
}

// changing_ is held. A mirror feeds a further one: decision 0019.
Task<Status> GroupRunner::add_relayed(std::string address, ReplicationMode mode) {
  if (mode != ReplicationMode::kAsync) {
    co_return Error{
        ErrorCode::kRefused,
        fmt::format("group {} is a mirror on this node, and nobody writes here who could "
                    "wait for another one: a mirror of a mirror has mode async, not {}",
                    name_, to_string(mode))};
  }
  if (options_.replication.versions.newest < message::kRelayVersion) {
    co_return Error{ErrorCode::kUnsupported,
                    fmt::format("a mirror feeds another one from version {} of the replication "
                                "protocol on; this node is held to version {} "
                                "(replication.protocol_max)",
                                message::kRelayVersion, options_.replication.versions.newest)};
  }
  const Status added = replication_->add_slot({.address = address, .mode = mode});
  const bool is_known = !added && added.error().code == ErrorCode::kExists;
  const auto policy = replication::slot_policy(group_.settings(), address);
  // One that this node fed as primary becomes one that it feeds as mirror.
  if (!added && (!is_known || policy.relay)) co_return added;
  Status kept = co_await save_slots();
  if (kept) {
    Settings changes{{"relay", "on"}};
    if (mode != group_.mode()) changes["mode"] = to_string(mode);  // also once this is primary
    auto setting = change_settings(address, std::move(changes));
    kept = co_await std::move(setting);
  }
  if (!kept && !is_known) {
    auto removing = replication_->remove_slot(std::move(address));
    (void)co_await std::move(removing);
  }
  co_return kept;
}

Status GroupRunner::may_set_mode(const std::string& mirror, const Settings& changes) const {
  const auto change = changes.find("mode");
  if (serves() || change == changes.end() || change->second == to_string(ReplicationMode::kAsync))
    return ok();
  if (!replication::slot_policy(group_.settings(), mirror).relay) return ok();
  return Error{
      ErrorCode::kRefused,
      fmt::format("group {} is a mirror on this node: what it feeds has mode async", name_)};
}

Task<Status> GroupRunner::remove_mirror(std::string address) {
  auto holder = work_.hold();
  auto lock = co_await changing_.lock();
  const std::string prefix = replication::mirror_prefix(address);
  auto removing = replication_->remove_slot(std::move(address));
  const Status removed = co_await std::move(removing);
  if (!removed) co_return removed;
  const Status saved = co_await save_slots();
  if (!saved) co_return saved;
  auto settings_lock = co_await changing_settings_.lock();
  Settings settings = group_.settings();
  const auto is_its_own = [&](const auto& entry) { return entry.first.starts_with(prefix); };
  if (std::erase_if(settings, is_its_own) == 0) co_return ok();
  auto keeping = group_.set_settings(std::move(settings));
  co_return co_await std::move(keeping);
}

format::SlotState GroupRunner::state_of(const replication::SlotOptions& slot) const {
  const LogPoint known = slot.last_known.value_or(LogPoint{});
  return {.address = slot.address,
          .written = known.lsn,
          .durable = slot.last_durable,
          .payload_bytes = known.payload_bytes,
          .agreed = slot.agreed};
}

Task<Status> GroupRunner::save_slots() {
  std::vector<format::SlotState> slots;
  for (const auto& slot : replication_->slot_options()) slots.push_back(state_of(slot));
  auto saving = group_.set_slots(std::move(slots));
  co_return co_await std::move(saving);
}

// --- promotion
// ------------------------------------------------------------------------------------

Receipt GroupRunner::receipt() const {
  Receipt receipt;
  const UpstreamStatus upstream = replication_->upstream();
  receipt.group = name_;
  receipt.recovers_to = group_.head();
  receipt.consistent = consistent_point();
  Timeline newest = std::max(group_.tail().timeline, group_.fenced_by());
  for (const auto& fork : group_.history()) newest = std::max(newest, fork.timeline);
  receipt.new_timeline = newest.next();
  receipt.complete_image = !group_.awaiting_image() && group_.head().lsn > Lsn{0};
  receipt.primary_reachable = replication_->upstream_connected();
  receipt.head_known = upstream.primary_head.lsn > Lsn{0};
  receipt.primary_head = upstream.primary_head;
  receipt.missing_records = upstream.missing_records;
  receipt.missing_bytes = upstream.missing_bytes;
  receipt.last_contact = upstream.last_contact;
  const UtcNs now = runtime_.clock.utc();
  if (upstream.last_contact.value != 0 && now > upstream.last_contact)
    receipt.contact_age_ms = (now.value - upstream.last_contact.value) / 1'000'000;
  return receipt;
}

Task<Result<Receipt>> GroupRunner::promote(bool force) {
  auto holder = work_.hold();
  auto lock = co_await changing_.lock();
  if (serves()) {
    auto raising = raise_timeline(force);
    co_return co_await std::move(raising);
  }
  if (options_.fencer != nullptr) {
    // Not before it is clear that a promotion is possible: fencing may cut a machine's power.
    const Receipt now = receipt();
    const ev::Promote event{force, now.primary_reachable, now.complete_image};
    const RoleStep step = replication::transition(machine_.state(), event);
    if (step.refused) co_return *step.refused;
    auto fencing = options_.fencer->fence(name_, replication_->upstream().primary);
    const Status fenced = co_await std::move(fencing);
    if (!fenced) co_return fenced.error();
    log_event(Level::kWarn, "group.primary-fenced", "group={} primary={}", name_,
              replication_->upstream().primary);
  }
  co_return co_await open_timeline(force);
}

Task<Result<Receipt>> GroupRunner::take_over() {
  auto holder = work_.hold();
  auto lock = co_await changing_.lock();
  if (serves()) {
    // An operator was faster, or the call came twice. Whoever asks was followed from here until it
    // was drained, so this copy has all of it: there is nothing to take over, and to refuse either.
    Receipt done = receipt();
    done.new_timeline = group_.tail().timeline;
    co_return done;
  }
  co_return co_await open_timeline(/*force=*/true);
}

// changing_ is held.
Task<Result<Receipt>> GroupRunner::open_timeline(bool force) {
  const Receipt before = receipt();
  const RoleStep step = move(ev::Promote{force, before.primary_reachable, before.complete_image},
                             "opening a new timeline");
  if (step.refused) co_return *step.refused;
  // Who kept a volume from an earlier life as primary waits, and goes on afterwards.
  group_.admit(store::Group::Admits::kNothing);
  co_await replication_->hold_upstream();
  // Only now does nothing arrive any more: this is what is recovered.
  Receipt final_receipt = receipt();
  auto opened = co_await group_.start_timeline(group_.fenced_by());
  if (!opened) {
    const RoleStep back = move(ev::PromotionFailed{}, opened.error().message);
    (void)co_await group_.set_role(replication::role_of(back.next), group_.fenced_by());
    replication_->release_upstream();
    if (!paused_since_) group_.admit(store::Group::Admits::kAll);
    co_return opened.error();
  }
  final_receipt.new_timeline = opened->timeline;
  move(ev::TimelineOpened{}, "");
  serve();  // tells the old primary first
  if (!paused_since_) group_.admit(store::Group::Admits::kAll);
  log_event(Level::kWarn, "group.promoted", "group={} timeline={} lsn={} missing_records={}", name_,
            opened->timeline.value, final_receipt.recovers_to.lsn.value,
            final_receipt.missing_records);
  co_return final_receipt;
}

// changing_ is held. Another copy was promoted apart from this primary, to the same number, and the
// operator chose this one. Nobody is fenced by a command: the other stops by itself when it sees
// the newer timeline, and until then it does what it did.
Task<Result<Receipt>> GroupRunner::raise_timeline(bool force) {
  const auto split = replication_->split();
  const RoleStep step = move(ev::Promote{.force = force, .split = split.has_value()}, reason_);
  if (step.refused) co_return *step.refused;
  Receipt receipt = this->receipt();
  receipt.head_known = true;  // of this primary itself: nothing is lost here
  receipt.primary_head = receipt.recovers_to;
  receipt.missing_records = receipt.missing_bytes = 0;
  auto raised = co_await group_.raise_timeline();
  if (!raised) co_return raised.error();
  receipt.new_timeline = replication::current_timeline(group_.history());
  move(ev::TimelineOpened{}, fmt::format("chosen over node {}", split->with));
  replication_->timeline_raised();
  co_return receipt;
}

}  // namespace tandem::control
