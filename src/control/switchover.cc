// Demotion and switchover: a primary steps down in order, and another node goes on.
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

Task<Status> GroupRunner::demote() {
  auto holder = work_.hold();
  auto lock = co_await changing_.lock();
  co_return co_await step_down(std::nullopt);
}

// changing_ is held.
Task<Status> GroupRunner::step_down(std::optional<std::string> successor) {
  const RoleStep step =
      successor ? move(ev::Switchover{*successor}, fmt::format("handing over to {}", *successor))
                : move(ev::Demote{}, "an operator asked for it");
  if (step.refused) co_return *step.refused;
  group_.serve(false);
  const Status drained = co_await drain(successor);
  if (!std::holds_alternative<in::Draining>(machine_.state())) co_return unavailable();
  if (!drained) {
    move(ev::DrainFailed{}, "");
    serve();
    co_return drained;
  }
  move(ev::Drained{}, "waiting for a primary");
  co_await replication_->stop_shipping(Role::kMirror);
  co_return co_await group_.set_role(Role::kMirror);
}

Task<Status> GroupRunner::local_drain(Nanoseconds end) {
  // Equal in two turns: in between, what was queued behind full pages went on its way.
  for (int quiet = 0; quiet < 2;) {
    if (group_.stopped()) co_return unavailable();
    if (runtime_.clock.monotonic() >= end) {
      co_return Error{ErrorCode::kBusy,
                      fmt::format("group {} did not finish its writes within {:.0f} s", name_,
                                  seconds(options_.drain_limit))};
    }
    co_await sleep_for(runtime_.executor, kPoll);
    quiet = group_.head().lsn == group_.tail().lsn ? quiet + 1 : 0;
  }
  co_return co_await group_.flush_local();
}

Task<Status> GroupRunner::drain(std::optional<std::string> successor) {
  const auto end = runtime_.clock.monotonic() + options_.drain_limit;
  const Status local = co_await local_drain(end);
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

Task<Status> GroupRunner::switchover(std::string address) {
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
  const Status down = co_await step_down(to);
  if (!down) co_return down;
  co_return co_await hand_over(to);
}

// We are a mirror that holds nothing the successor lacks; now it may be promoted.
Task<Status> GroupRunner::hand_over(std::string address) {
  auto asking = peers_.take_over(address, name_, options_.peer_call_limit);
  auto promoted = co_await std::move(asking);
  if (!promoted && promoted.error().code == ErrorCode::kUnavailable) {
    co_return Error{ErrorCode::kUnavailable,
                    fmt::format("this node is a mirror now, but {} did not say whether it was "
                                "promoted ({}); run 'tandem status', and if no node serves group "
                                "{}, promote one of them",
                                address, promoted.error().message, name_)};
  }
  if (!promoted) {
    // It certainly did not: take the group back.
    const Error why = promoted.error();
    auto back = co_await open_timeline(true);
    co_return Error{why.code, fmt::format("{} refused to be promoted: {}; {}", address, why.message,
                                          back ? "this node is primary again"
                                               : "this node could not become primary again: " +
                                                     back.error().message)};
  }
  std::vector<AddMirror> followers;
  if (!options_.service_address.empty())
    followers.push_back({name_, options_.service_address, group_.mode()});
  for (const auto& slot : group_.slots()) {
    const auto own = replication::slot_policy(group_.settings(), slot.address).mode;
    if (slot.address != address)
      followers.push_back({name_, slot.address, own.value_or(group_.mode())});
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
