#include "replication/group_replication.h"

#include <algorithm>
#include <utility>

#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::replication {

GroupReplication::GroupReplication(Runtime runtime, ReplicatedLog& log, LinkDialer& dialer,
                                   ReplicationOptions options, Callbacks callbacks, Role role)
    : runtime_(runtime),
      log_(log),
      dialer_(dialer),
      options_(options),
      callbacks_(std::move(callbacks)),
      role_(role),
      hearing_(role == Role::kPrimary),
      applier_(runtime, log, options_, *this) {
  log_.set_block_source([this](BlockVersion version) { return fetch_block(version); });
}

GroupReplication::~GroupReplication() {
  CHECK(stopping_);
  CHECK(work_.held() == 0);
}

// --- role ---------------------------------------------------------------------------------------

Task<PeersHeard> GroupReplication::hear_peers(Nanoseconds peer_wait) {
  auto holder = work_.hold();
  CHECK(role_ == Role::kPrimary && hearing_);
  for (Slot& slot : slots_) start_slot(slot);
  const auto end = runtime_.clock.monotonic() + peer_wait;
  PeersHeard outcome = PeersHeard::kAll;
  while (true) {
    const auto now = runtime_.clock.monotonic();
    if (stopping_) {
      outcome = PeersHeard::kStopped;
    } else if (role_ != Role::kPrimary) {
      outcome = PeersHeard::kFenced;
    } else if (all_settled()) {
      outcome = PeersHeard::kAll;
    } else if (now >= end && !any_fetching()) {
      outcome = PeersHeard::kTimedOut;
    } else {
      // Beyond the limit only a fetch is waited for, which has time-outs of its own.
      const auto pause = now < end ? end - now : tick_period(options_);
      co_await wait_at_most(runtime_.executor, heard_, pause);
      continue;
    }
    break;
  }
  hearing_ = false;
  co_return outcome;
}

void GroupReplication::become_primary() {
  CHECK(!stopping_);
  role_ = Role::kPrimary;
  hearing_ = promoting_ = false;
  upstream_bounds_.reset();
  const auto history = log_.history();
  applier_.release(message::Refuse{
      ErrorCode::kFenced,
      fmt::format("node {} was promoted and is primary of group {} on timeline {}",
                  log_.identity().node, log_.identity().name, current_timeline(history).value),
      history});
  for (const Slot& slot : slots_) CHECK(!slot.shipper || !slot.shipper->is_relay());
  start_slots();
  slot_changed();  // before the caller serves: no write may slip through a policy that blocks
}

Task<void> GroupReplication::stop_shipping(Role role) {
  auto holder = work_.hold();
  role_ = role;
  upstream_bounds_.reset();
  listen();
  look_again_at(std::nullopt);
  for (Slot& slot : slots_)
    if (slot.shipper) slot.shipper->request_stop();
  co_await end_slots();
  start_slots();
}

// What relays ship ends where the promotion begins: behind it other rules hold.
Task<void> GroupReplication::hold_upstream() {
  auto holder = work_.hold();
  promoting_ = true;
  co_await applier_.hold();
  co_await end_slots();
}

void GroupReplication::release_upstream() {
  promoting_ = false;
  applier_.release(std::nullopt);
  start_slots();
}

Task<void> GroupReplication::before_replacing() {
  ++replacing_;
  co_await end_slots();
  for (Slot& slot : slots_) slot.options.agreed = LogPoint{};
}

void GroupReplication::after_replacing() {
  --replacing_;
  upstream_bounds_.reset();
  start_slots();
}

void GroupReplication::upstream_began() {
  for (Slot& slot : slots_)
    if (slot.shipper) slot.shipper->sources_changed();
}

void GroupReplication::upstream_holds(Lsn durable, Lsn everywhere) {
  upstream_bounds_ = Bounds{durable, everywhere};
  update_hold();
}

std::optional<Lsn> GroupReplication::durable_everywhere() const {
  Lsn all = std::min(log_.durable(), log_.checkpoint_lsn());
  if (slots_hold_) all = std::min(all, *slots_hold_);
  if (role_ == Role::kPrimary) return all;
  if (!upstream_bounds_) return std::nullopt;
  return std::min(all, upstream_bounds_->everywhere);
}

void GroupReplication::newer_timeline(const TimelineHistory& history, const std::string& node) {
  if (role_ != Role::kPrimary || stopping_) return;
  role_ = Role::kFenced;  // first: from here on slot_changed() releases no writer
  log_event(Level::kWarn, "group.newer-timeline", "group={} own_timeline={} timeline={} node={}",
            log_.identity().name, current_timeline(log_.history()).value,
            current_timeline(history).value, node);
  callbacks_.on_newer_timeline(history, node);
  for (Slot& slot : slots_)
    if (slot.shipper) slot.shipper->request_stop();
  spawn(stop_shipping(Role::kFenced));
  heard_.notify_all();
}

// One line when it is seen first; what both hold changes with every attempt to connect.
void GroupReplication::note_split(const std::string& node, const TimelineHistory& history,
                                  const std::string& why) {
  if (stopping_) return;
  if (why.empty()) {
    if (split_ && split_->status.with == node) split_.reset();
    return;
  }
  if (split_ && split_->history == history) {
    split_->status.reason = why;
    return;
  }
  split_ = Split{{node, why, runtime_.clock.utc()}, history};
  log_event(Level::kError, "group.split", "group={} node={} reason=\"{}\"", log_.identity().name,
            node, why);
}

std::optional<SplitStatus> GroupReplication::split() const {
  if (!split_ || !is_split(log_.history(), split_->history)) return std::nullopt;
  return split_->status;
}

void GroupReplication::timeline_raised() {
  for (Slot& slot : slots_)
    if (slot.shipper) slot.shipper->dial_soon();
}

Task<Status> GroupReplication::become_mirror() {
  if (role_ == Role::kMirror) co_return ok();
  // What the fence left running must have ended before records are applied.
  co_await end_slots();
  for (Slot& slot : slots_) slot.options.agreed = LogPoint{};  // the log may go another way now
  auto changed = co_await callbacks_.become_mirror();
  if (changed && role_ == Role::kFenced) role_ = Role::kMirror;
  start_slots();
  co_return changed;
}

// --- slots --------------------------------------------------------------------------------------

// Only while there is somebody to ship to: the log keeps recent records in memory for a listener.
void GroupReplication::listen() {
  const bool wanted =
      !stopping_ && std::any_of(slots_.begin(), slots_.end(), [this](const Slot& slot) {
        return slot.shipper != nullptr && ships(slot);
      });
  if (wanted == listening_) return;
  listening_ = wanted;
  if (!wanted) {
    log_.set_append_listener(nullptr);
    return;
  }
  log_.set_append_listener([this] {
    if (ack_policy_.watches_tail()) acknowledge();
    for (auto& slot : slots_)
      if (slot.shipper) slot.shipper->wake();
  });
}

bool GroupReplication::ships(const Slot& slot) const {
  if (stopping_) return false;
  if (role_ == Role::kPrimary) return true;
  return role_ == Role::kMirror && !promoting_ && replacing_ == 0 && slot.relay;
}

// Nobody waits on a mirror for those that it feeds.
ReplicationMode GroupReplication::mode_of(const Slot& slot) const {
  if (role_ != Role::kPrimary && slot.relay) return ReplicationMode::kAsync;
  return slot_policy(settings_, slot.options.address).mode.value_or(mode_);
}

void GroupReplication::start_slots() {
  for (Slot& slot : slots_) start_slot(slot);
}

void GroupReplication::start_slot(Slot& slot) {
  if (slot.shipper || !ships(slot)) return;
  if (slot.relay) slot.options.mode = mode_of(slot);
  slot.shipper = std::make_unique<Shipper>(runtime_, log_, dialer_, options_, slot.options,
                                           static_cast<ShipperOwner&>(*this));
  slot.shipper->set_policy(slot_policy(settings_, slot.options.address));
  listen();
  slot.shipper->start();
  update_hold();
}

Task<void> GroupReplication::end_slots() {
  // The lock makes a second caller wait for the shippers that the first one took out.
  auto lock = co_await slots_lock_.lock();
  std::vector<std::unique_ptr<Shipper>> ending;
  for (Slot& slot : slots_) {
    if (!slot.shipper) continue;
    slot.options = slot.shipper->slot();
    ending.push_back(std::move(slot.shipper));
  }
  for (auto& shipper : ending) shipper->request_stop();
  for (auto& shipper : ending) co_await shipper->stop();
  listen();
}

// Ends the streams that are not wanted any more, by a change of settings; starts those that are.
Task<void> GroupReplication::restart_slots() {
  auto holder = work_.hold();
  co_await end_slots();
  start_slots();
}

Status GroupReplication::add_slot(SlotOptions slot) {
  const std::string address = slot.address;
  for (const Slot& other : slots_) {
    if (other.options.address == address) {
      return Error{ErrorCode::kExists, fmt::format("group {} has a mirror at {} already",
                                                   log_.identity().name, address)};
    }
  }
  if (slots_.empty() && role_ == Role::kPrimary) mode_ = slot.mode;
  const SlotPolicy policy = slot_policy(settings_, address);
  slot.mode = policy.mode.value_or(slot.mode);
  slots_.push_back({std::move(slot), nullptr, policy.relay});
  start_slot(slots_.back());
  slot_changed();
  return ok();
}

Task<Status> GroupReplication::remove_slot(std::string address) {
  auto holder = work_.hold();
  const auto found = std::find_if(slots_.begin(), slots_.end(), [&](const Slot& slot) {
    return slot.options.address == address;
  });
  if (found == slots_.end()) {
    co_return Error{ErrorCode::kNotFound,
                    fmt::format("group {} has no mirror at {}", log_.identity().name, address)};
  }
  std::unique_ptr<Shipper> shipper = std::move(found->shipper);
  slots_.erase(found);
  listen();
  if (shipper) co_await shipper->stop();
  if (slots_.empty()) log_.set_log_hold(std::nullopt);  // nobody is expected any more
  slot_changed();
  co_return ok();
}

void GroupReplication::set_mode(ReplicationMode mode) {
  mode_ = mode;
  set_settings(settings_);
}

void GroupReplication::set_settings(Settings settings) {
  settings_ = std::move(settings);
  ack_policy_.set_policy(group_policy(settings_));
  bool unwanted = false;
  for (Slot& slot : slots_) {
    SlotPolicy policy = slot_policy(settings_, slot.options.address);
    slot.relay = policy.relay;
    slot.options.mode = mode_of(slot);
    if (role_ == Role::kMirror) start_slot(slot);
    if (!slot.shipper) continue;
    if (!ships(slot) && !stopping_) unwanted = true;
    slot.shipper->set_mode(slot.options.mode);
    slot.shipper->set_policy(std::move(policy));
  }
  if (unwanted && role_ == Role::kMirror) spawn(restart_slots());
  slot_changed();
}

Task<Status> GroupReplication::wait_durable(std::string address, Lsn upto, Nanoseconds limit) {
  auto holder = work_.hold();
  for (Slot& slot : slots_) {
    if (slot.options.address == address && slot.shipper)
      co_return co_await slot.shipper->wait_durable(upto, limit);
  }
  co_return Error{ErrorCode::kNotFound, fmt::format("group {} does not ship to a mirror at {}",
                                                    log_.identity().name, address)};
}

// Runs on the way of every acknowledgement: short, no I/O.
void GroupReplication::slot_changed() {
  heard_.notify_all();
  // A fenced group's writers are failed by the store, never released.
  if (role_ == Role::kFenced) return;
  acknowledge();
  update_hold();
}

// Lets writers go as far as every mirror and the policy allow.
void GroupReplication::acknowledge() {
  if (role_ != Role::kPrimary || stopping_) return;
  gates_.clear();
  for (const Slot& slot : slots_)
    if (slot.shipper) gates_.push_back(slot.shipper->gate());
  const std::string before = ack_policy_.status().state;
  const AckPolicy::Moment moment{runtime_.clock.monotonic(), runtime_.clock.utc(), log_.tail()};
  const auto decision = ack_policy_.decide(mode_, gates_, moment);
  if (const PolicyStatus& now = ack_policy_.status(); now.state != before) {
    log_event(now.state == "normal" ? Level::kInfo : Level::kWarn, "group.policy",
              "group={} mode={} state={} reason=\"{}\"", log_.identity().name, to_string(mode_),
              now.state, now.reason);
  }
  look_again_at(decision.look_again);
  log_.set_remote_ack(decision.ack);  // last: it resumes writers
}

void GroupReplication::look_again_at(std::optional<Nanoseconds> at) {
  // A timer that comes too early costs nothing but a look; one for each acknowledgement would.
  if (at && look_again_ && *look_again_ <= *at) return;
  if (look_again_) runtime_.executor.cancel(look_again_timer_);
  look_again_ = at;
  if (!at) return;
  const auto in = std::max(*at - runtime_.clock.monotonic(), Nanoseconds(0));
  look_again_timer_ = runtime_.executor.schedule_after(in, [this] {
    look_again_.reset();
    acknowledge();
  });
}

void GroupReplication::update_hold() {
  std::optional<Lsn>& hold = slots_hold_;
  hold.reset();
  bool all_relayed = true;
  for (const Slot& slot : slots_) {
    all_relayed = all_relayed && slot.relay;
    std::optional<Lsn> needed;
    if (slot.shipper) {
      needed = slot.shipper->hold();
    } else if (slot.relay || role_ == Role::kPrimary) {
      // Its stream ended, for this copy to go back or to stop perhaps: what the mirror needs then
      // must not go meanwhile.
      needed = slot.options.last_known ? slot.options.last_durable : log_.log_start();
    }
    // A slot that the log no longer reaches gets an image: it has no use for what is left.
    if (!needed || *needed < log_.log_start()) continue;
    hold = hold ? std::min(*hold, *needed) : *needed;
  }
  if (role_ == Role::kMirror) {
    if (!upstream_bounds_) return;
    const auto& [durable, everywhere] = *upstream_bounds_;
    return log_.set_primary_durable(durable, std::min(everywhere, hold.value_or(everywhere)));
  }
  if (slots_.empty()) return;
  log_.set_log_hold(hold);
  // Who fed this copy, and those that it fed as well, may come back. Until one of them follows,
  // what the promotion found in the log stays.
  if (!all_relayed) log_.expect_nobody_else();
}

bool GroupReplication::all_settled() const {
  return std::all_of(slots_.begin(), slots_.end(), [](const Slot& slot) {
    return slot.shipper && slot.shipper->settled() && !slot.shipper->fetching();
  });
}

bool GroupReplication::any_fetching() const {
  return std::any_of(slots_.begin(), slots_.end(),
                     [](const Slot& slot) { return slot.shipper && slot.shipper->fetching(); });
}

// --- repair
// ---------------------------------------------------------------------------------------

Task<Result<IoBuffer>> GroupReplication::fetch_block(BlockVersion version) {
  auto holder = work_.hold();
  std::string refusals;
  if (role_ != Role::kPrimary) {
    auto asking = applier_.fetch_block(version);
    auto found = co_await std::move(asking);
    const bool feeds = std::any_of(slots_.begin(), slots_.end(),
                                   [](const Slot& slot) { return slot.shipper != nullptr; });
    if (found || !feeds) co_return found;
    refusals = found.error().message;
  }
  std::vector<std::string> mirrors;  // slots may come and go while one is asked
  for (const Slot& slot : slots_) mirrors.push_back(slot.options.address);
  for (const std::string& mirror : mirrors) {
    const auto slot = std::find_if(slots_.begin(), slots_.end(), [&](const Slot& candidate) {
      return candidate.options.address == mirror && candidate.shipper;
    });
    if (slot == slots_.end() || stopping_) continue;
    auto asking = slot->shipper->fetch_block(version);
    auto found = co_await std::move(asking);
    if (found) co_return found;
    refusals +=
        fmt::format("{}{}: {}", refusals.empty() ? "" : "; ", mirror, found.error().message);
  }
  co_return Error{ErrorCode::kUnavailable,
                  refusals.empty() ? std::string("there is no mirror to ask") : refusals};
}

// --- streams, status, end ------------------------------------------------------------------------

void GroupReplication::accept(std::unique_ptr<Link> link, message::Hello hello) {
  if (stopping_) return;  // destroying the link closes it
  applier_.accept(std::move(link), std::move(hello));
}

std::vector<SlotOptions> GroupReplication::slot_options() const {
  std::vector<SlotOptions> all;
  for (const Slot& slot : slots_) all.push_back(slot.shipper ? slot.shipper->slot() : slot.options);
  return all;
}

std::vector<SlotStatus> GroupReplication::slots() const {
  std::vector<SlotStatus> all;
  for (const Slot& slot : slots_) {
    if (slot.shipper) {
      all.push_back(slot.shipper->status());
      continue;
    }
    SlotStatus idle;
    idle.address = slot.options.address;
    idle.state = "stopped";
    idle.reason = fmt::format("this node is {} of the group", to_string(role_));
    all.push_back(std::move(idle));
  }
  return all;
}

Task<void> GroupReplication::stop() {
  if (!stopping_) {
    stopping_ = true;
    log_.set_block_source(nullptr);
    heard_.notify_all();
    listen();
    look_again_at(std::nullopt);
    for (Slot& slot : slots_)
      if (slot.shipper) slot.shipper->request_stop();
  }
  co_await applier_.stop();
  co_await end_slots();
  co_await work_.close();
  // Writers that a policy holds are failed by the store when it closes, never released here.
  if (role_ == Role::kPrimary && !ack_policy_.holds()) log_.set_remote_ack({});
}

}  // namespace tandem::replication
