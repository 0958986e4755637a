// Demotion and switchover: a primary steps down in order, and another node goes on.
//
// Clients notice a pause, never an error. Writes and flushes are held from kDraining on, reads from
// the moment at which another node may be written, both before they have any effect; a front end
// stops reading from a client whose held requests are as many as it may have, so the queue is
// bounded. Once the role is decided they go on here, or are told that this is a mirror now.
#include <algorithm>
#include <utility>

#include "control/group_runner.h"
#include "tandem/base/log.h"

namespace tandem::control {

namespace in = replication::role_state;
namespace ev = replication::role_event;
using replication::RoleStep;

namespace {

constexpr Nanoseconds kPoll = std::chrono::milliseconds(1);
/// What a plain demotion gives a following mirror to take the last records.
constexpr Nanoseconds kLastRecords = std::chrono::seconds(2);

double seconds(Nanoseconds d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

bool GroupRunner::exports() const {
  return serves() || std::holds_alternative<in::Draining>(machine_.state()) || paused_since_;
}

Task<Status> GroupRunner::demote() {
  auto holder = work_.hold();
  auto lock = co_await changing_.lock();
  const Status down = co_await step_down(std::nullopt);
  if (down) end_pause();
  co_return down;
}

/// The role is decided: what was held goes on, or learns that the volume has moved. For how long it
/// was held, in ms.
std::uint64_t GroupRunner::end_pause() {
  if (!paused_since_) return 0;
  const auto held = runtime_.clock.monotonic() - *paused_since_;
  paused_since_.reset();
  group_.admit(store::Group::Admits::kAll);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(held).count();
  log_event(Level::kInfo, "group.writes-held", "group={} held_ms={} state={}", name_, ms,
            replication::name_of(machine_.state()));
  return static_cast<std::uint64_t>(ms);
}

// changing_ is held. On success this copy is a mirror, and reads are held, too, until end_pause();
// else everything goes on.
Task<Status> GroupRunner::step_down(std::optional<std::string> successor) {
  const RoleStep step =
      successor ? move(ev::Switchover{*successor}, fmt::format("handing over to {}", *successor))
                : move(ev::Demote{}, "an operator asked for it");
  if (step.refused) co_return *step.refused;
  paused_since_ = runtime_.clock.monotonic();
  group_.admit(store::Group::Admits::kReads);
  const Status drained = co_await drain(successor);
  if (!std::holds_alternative<in::Draining>(machine_.state())) {
    end_pause();  // fenced, or the storage failed: that is what they are told
    co_return unavailable();
  }
  if (!drained) {
    move(ev::DrainFailed{}, "");
    serve();
    const auto held_ms = end_pause();
    co_return Error{drained.error().code,
                    fmt::format("{}; writes were held for {} ms and go on here",
                                drained.error().message, held_ms)};
  }
  // Whoever is promoted next may be written at once: nothing old is read here from now on.
  group_.admit(store::Group::Admits::kNothing);
  move(ev::Drained{}, "waiting for a primary");
  co_await replication_->stop_shipping(Role::kMirror);
  const Status kept = co_await group_.set_role(Role::kMirror);
  if (!kept) end_pause();
  co_return kept;
}

/// Everything that began is answered, in the log, and durable; without `every_one` but for what a
/// policy makes wait, which no time ends: it is not answered, as what is held is not.
Task<Status> GroupRunner::local_drain(Nanoseconds end, bool every_one) {
  // Twice: in between, what was queued behind full pages went on its way.
  for (int quiet = 0; quiet < 2;) {
    if (group_.stopped() || !std::holds_alternative<in::Draining>(machine_.state()))
      co_return unavailable();
    if (runtime_.clock.monotonic() >= end) {
      co_return Error{ErrorCode::kBusy,
                      fmt::format("group {} did not finish its writes within {:.0f} s", name_,
                                  seconds(options_.pause_limit))};
    }
    co_await sleep_for(runtime_.executor, kPoll);
    const bool answered =
        group_.changes_under_way() == 0 || (!every_one && replication_->holds_writers());
    quiet = answered && group_.head().lsn == group_.tail().lsn ? quiet + 1 : 0;
  }
  co_return co_await group_.flush_local();
}

Task<Status> GroupRunner::drain(std::optional<std::string> successor) {
  const auto end = runtime_.clock.monotonic() + options_.pause_limit;
  const Status local = co_await local_drain(end, successor.has_value());
  if (!local) co_return local;
  const Lsn tail = group_.tail().lsn;
  for (const auto& slot : replication_->slots()) {
    const bool needed = successor == slot.address;
    if (!needed && slot.state != "following") continue;
    const auto now = runtime_.clock.monotonic();
    const auto limit = needed ? end - now : std::min(kLastRecords, end - now);
    auto waiting = replication_->wait_durable(slot.address, tail, limit);
    const Status arrived = co_await std::move(waiting);
    if (!arrived && needed) co_return arrived;
  }
  co_return ok();
}

Result<std::string> GroupRunner::successor_of(std::string address) const {
  const auto slots = replication_->slots();
  if (address.empty()) {
    if (slots.size() == 1) return slots[0].address;
    return Error{
        ErrorCode::kInvalid,
        fmt::format("group {} has {} mirrors; name the one to switch to", name_, slots.size())};
  }
  for (const auto& slot : slots)
    if (slot.address == address) return address;
  return Error{ErrorCode::kNotFound, fmt::format("group {} has no mirror at {}", name_, address)};
}

Task<Result<SwitchedOver>> GroupRunner::switchover(std::string address) {
  auto holder = work_.hold();
  auto lock = co_await changing_.lock();
  auto successor = successor_of(std::move(address));
  if (!successor) co_return successor.error();
  const std::string to = *successor;
  // Do not interrupt the clients for a mirror that cannot take over now.
  for (const auto& slot : replication_->slots()) {
    if (slot.address == to && serves() && slot.state != "following") {
      co_return Error{ErrorCode::kRefused,
                      fmt::format("mirror {} is not following ({}: {}); bring it up first", to,
                                  slot.state, slot.reason)};
    }
  }
  // What it lacks now it gets while the clients go on: they wait for the rest only.
  if (serves()) {
    auto catching_up = replication_->wait_durable(to, group_.head().lsn, options_.catch_up_limit);
    const Status level = co_await std::move(catching_up);
    if (!level)
      co_return Error{
          level.error().code,
          fmt::format("{}; nothing was changed, clients go on here: bring the mirror up "
                      "and try again",
                      level.error().message)};
  }
  const Status down = co_await step_down(to);
  if (!down) co_return down.error();
  const Status handed = co_await hand_over(to);
  const SwitchedOver done{.held_ms = end_pause()};
  if (!handed) co_return handed.error();
  const Status followed = co_await add_followers(to);
  if (!followed) co_return followed.error();
  co_return done;
}

// We are a mirror that holds nothing the successor lacks; now it may be promoted.
Task<Status> GroupRunner::hand_over(std::string address) {
  const TimelineHistory before = group_.history();
  auto asking = peers_.take_over(address, name_, options_.peer_call_limit);
  auto promoted = co_await std::move(asking);
  if (promoted) co_return ok();
  const Error why = promoted.error();
  if (why.code == ErrorCode::kUnavailable) {
    co_return Error{ErrorCode::kUnavailable,
                    fmt::format("this node is a mirror now, but {} did not say whether it was "
                                "promoted ({}); run 'tandem status', and if no node serves group "
                                "{}, promote one of them",
                                address, why.message, name_)};
  }
  // This copy was told of a newer timeline meanwhile: somebody else is primary, and clients are
  // there. What was held here must not follow what they wrote.
  if (group_.history() != before) {
    co_return Error{
        why.code, fmt::format("{} refused to be promoted: {}; this node follows timeline "
                              "{} already, which another order opened; 'tandem status' says who "
                              "serves group {} now",
                              address, why.message, group_.history().back().timeline.value, name_)};
  }
  // It certainly did not: take the group back.
  auto back = co_await open_timeline(true);
  co_return Error{why.code, fmt::format("{} refused to be promoted: {}; {}", address, why.message,
                                        back ? "this node is primary again, and what was held "
                                               "goes on"
                                             : "this node could not become primary again: " +
                                                   back.error().message)};
}

// The clients are with the new primary already.
Task<Status> GroupRunner::add_followers(std::string address) {
  std::vector<AddMirror> followers;
  if (!options_.service_address.empty())
    followers.push_back({name_, options_.service_address, group_.mode()});
  for (const auto& slot : group_.slots()) {
    const auto own = replication::slot_policy(group_.settings(), slot.address);
    if (slot.address != address && !own.relay)  // those go on to be fed from here
      followers.push_back({name_, slot.address, own.mode.value_or(group_.mode())});
  }
  for (const AddMirror& follower : followers) {
    auto adding = peers_.add_mirror(address, follower, options_.peer_call_limit);
    const Status added = co_await std::move(adding);
    if (added || added.error().code == ErrorCode::kExists) continue;
    co_return Error{added.error().code,
                    fmt::format("{} is primary of group {}, but does not replicate to {}: {}; run "
                                "'tandem mirror add {} {}' against it",
                                address, name_, follower.address, added.error().message, name_,
                                follower.address)};
  }
  co_return ok();
}

}  // namespace tandem::control
