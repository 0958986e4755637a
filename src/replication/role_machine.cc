#include "replication/role_machine.h"

#include <spdlog/fmt/fmt.h>

namespace tandem::replication {
namespace {

namespace in = role_state;
namespace ev = role_event;
using A = RoleAction;

RoleStep stay(const RoleState& state) { return {state, {}, std::nullopt}; }

RoleStep refuse(const RoleState& state, ErrorCode code, std::string reason) {
  return {state, {}, Error{code, std::move(reason)}};
}

bool is_request(const RoleEvent& event) {
  return std::holds_alternative<ev::Promote>(event) || std::holds_alternative<ev::Demote>(event) ||
         std::holds_alternative<ev::Switchover>(event);
}

/// What a request gets in a state that has no use for it.
RoleStep otherwise(const RoleState& state, const RoleEvent& event, const char* reason) {
  return is_request(event) ? refuse(state, ErrorCode::kRefused, reason) : stay(state);
}

RoleStep fence(const ev::NewerTimeline& newer) {
  return {in::Fenced{newer.timeline, newer.node},
          {A::kFenceNow, A::kStopShipping, A::kPersistFenced},
          std::nullopt};
}

RoleStep on(const in::Starting& state, const RoleEvent& event) {
  if (std::holds_alternative<ev::PeersHeard>(event))
    return {in::Serving{}, {A::kServe}, std::nullopt};
  if (const auto* newer = std::get_if<ev::NewerTimeline>(&event)) return fence(*newer);
  return otherwise(state, event,
                   "the group is still starting: it waits for its mirror to answer; try again in "
                   "some seconds");
}

RoleStep on(const in::Serving& state, const RoleEvent& event) {
  if (const auto* newer = std::get_if<ev::NewerTimeline>(&event)) return fence(*newer);
  if (std::holds_alternative<ev::Demote>(event))
    return {in::Draining{}, {A::kHoldWrites}, std::nullopt};
  if (const auto* switchover = std::get_if<ev::Switchover>(&event))
    return {in::Draining{switchover->successor}, {A::kHoldWrites}, std::nullopt};
  if (const auto* promote = std::get_if<ev::Promote>(&event); promote && promote->split) {
    if (promote->force) return {in::Serving{}, {A::kOpenTimeline}, std::nullopt};
    return refuse(state, ErrorCode::kRefused,
                  "this node is primary of the group already, and so is another one, on a timeline "
                  "of the same number; to keep what this node has, promote it with --force");
  }
  return otherwise(state, event, "this node is primary of the group already");
}

RoleStep on(const in::Draining& state, const RoleEvent& event) {
  if (const auto* newer = std::get_if<ev::NewerTimeline>(&event)) return fence(*newer);
  if (std::holds_alternative<ev::Drained>(event)) {
    RoleStep step{in::Mirror{}, {A::kStopShipping, A::kPersistMirror}, std::nullopt};
    if (state.successor) step.actions.push_back(A::kPromoteSuccessor);
    step.actions.push_back(A::kSendClientsAway);  // unless the successor refuses: then we go on
    return step;
  }
  if (std::holds_alternative<ev::DrainFailed>(event))
    return {in::Serving{}, {A::kServe}, std::nullopt};
  return otherwise(state, event, "a demotion of this group is under way already");
}

RoleStep on(const in::Mirror& state, const RoleEvent& event) {
  if (const auto* promote = std::get_if<ev::Promote>(&event)) {
    if (!promote->complete_image) {
      return refuse(state, ErrorCode::kRefused,
                    "the first full copy of the group never finished: there is no consistent image "
                    "to promote; bring the primary back, or delete this copy");
    }
    if (promote->primary_reachable && !promote->force) {
      return refuse(state, ErrorCode::kRefused,
                    "the primary, or the mirror that feeds this one, is reachable: use 'tandem "
                    "switchover', which loses nothing, or promote with --force");
    }
    return {in::Promoting{}, {A::kHoldUpstream, A::kOpenTimeline}, std::nullopt};
  }
  return otherwise(state, event, "this node is a mirror of the group; ask the primary's node");
}

RoleStep on(const in::Promoting& state, const RoleEvent& event) {
  if (std::holds_alternative<ev::TimelineOpened>(event)) {
    return {in::Serving{},
            {A::kPersistPrimary, A::kAnnounceTimeline, A::kServe, A::kStartShipping},
            std::nullopt};
  }
  if (std::holds_alternative<ev::PromotionFailed>(event)) {
    const RoleState before = state.from ? RoleState{*state.from} : RoleState{in::Mirror{}};
    return {before, {A::kReleaseUpstream}, std::nullopt};
  }
  return otherwise(state, event, "a promotion of this group is under way already");
}

RoleStep on(const in::Fenced& state, const RoleEvent& event) {
  if (std::holds_alternative<ev::AcceptedAsMirror>(event))
    return {in::Mirror{}, {A::kPersistMirror}, std::nullopt};
  if (const auto* newer = std::get_if<ev::NewerTimeline>(&event)) {
    // Remember the newest; nothing to do, nothing is served.
    if (newer->timeline > state.by) return stay(in::Fenced{newer->timeline, newer->node});
    return stay(state);
  }
  if (const auto* promote = std::get_if<ev::Promote>(&event);
      promote && promote->force && promote->complete_image) {
    return {in::Promoting{state}, {A::kHoldUpstream, A::kOpenTimeline}, std::nullopt};
  }
  return otherwise(
      state, event,
      "this copy is fenced: another node opened a newer timeline of the group, and this "
      "copy's data is kept; if that node is lost for good, promote with --force");
}

RoleStep on(const in::Stopped& state, const RoleEvent& event) {
  if (is_request(event)) {
    return refuse(state, ErrorCode::kFenced,
                  fmt::format("the group stopped on this node: {}; look at the disk, then restart "
                              "tandemd",
                              state.reason));
  }
  return stay(state);
}

}  // namespace

const char* to_string(RoleAction action) {
  switch (action) {
    case A::kServe:
      return "serve";
    case A::kFenceNow:
      return "fence-now";
    case A::kHoldWrites:
      return "hold-writes";
    case A::kPersistPrimary:
      return "persist-primary";
    case A::kPersistMirror:
      return "persist-mirror";
    case A::kPersistFenced:
      return "persist-fenced";
    case A::kStartShipping:
      return "start-shipping";
    case A::kStopShipping:
      return "stop-shipping";
    case A::kHoldUpstream:
      return "hold-upstream";
    case A::kOpenTimeline:
      return "open-timeline";
    case A::kAnnounceTimeline:
      return "announce-timeline";
    case A::kReleaseUpstream:
      return "release-upstream";
    case A::kPromoteSuccessor:
      return "promote-successor";
    case A::kSendClientsAway:
      return "send-clients-away";
  }
  return "unknown";
}

RoleStep transition(const RoleState& state, const RoleEvent& event) {
  const bool stopped = std::holds_alternative<in::Stopped>(state);
  if (const auto* failed = std::get_if<ev::StorageFailed>(&event); failed && !stopped)
    return {in::Stopped{failed->reason}, {A::kFenceNow, A::kStopShipping}, std::nullopt};
  return std::visit([&](const auto& s) { return on(s, event); }, state);
}

RoleState boot_state(Role persisted, Timeline fenced_by) {
  switch (persisted) {
    case Role::kPrimary:
      return in::Starting{};
    case Role::kMirror:
      return in::Mirror{};
    case Role::kFenced:
      return in::Fenced{fenced_by, ""};
  }
  return in::Stopped{"the role on disk is unknown"};
}

Role role_of(const RoleState& state) {
  if (std::holds_alternative<in::Mirror>(state) || std::holds_alternative<in::Promoting>(state))
    return Role::kMirror;
  if (std::holds_alternative<in::Fenced>(state) || std::holds_alternative<in::Stopped>(state))
    return Role::kFenced;
  return Role::kPrimary;
}

bool serves(const RoleState& state) { return std::holds_alternative<in::Serving>(state); }

const char* name_of(const RoleState& state) {
  static constexpr const char* kNames[] = {"starting",  "serving", "draining", "mirroring",
                                           "promoting", "fenced",  "stopped"};
  return kNames[state.index()];
}

}  // namespace tandem::replication
