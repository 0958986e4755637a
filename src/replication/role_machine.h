// RoleMachine: what a node's copy of a group is, and what may become of it. Pure: events in, the
// new state and the actions to take out. control/ performs the actions in order and reports back.
//
// clang-format off
//                     peers heard, or
//         ┌──────────┐  peer_wait over  ┌─────────┐   demote, switchover    ┌──────────┐
//  boot ─►│ Starting │ ───────────────► │ Serving │ ──────────────────────► │ Draining │
//         └────┬─────┘                  └─┬─────▲─┘ ◄────────────────────── └──┬────┬──┘
//              │ newer timeline           │     │         drain failed         │    │
//              ▼         newer timeline   │     │                              │    │ drained
//         ┌──────────┐ ◄──────────────────┘     │                              │    │
//  boot ─►│  Fenced  │ ◄─────────────────────── │ ─────────────────────────────┘    │
//         └─┬──┬───▲─┘     newer timeline       │ timeline opened                   ▼
//           │  │   │ promotion failed     ┌─────┴─────┐        promote         ┌────────┐
//           │  │   └───────────────────── │ Promoting │ ◄───────────────────── │ Mirror │◄─ boot
//           │  │    promote --force       └──▲─────┬──┘                        └──▲──▲──┘
//           └─ │ ────────────────────────────┘     └─────── promotion failed ─────┘  │
//              └───────────── a primary accepted us as its mirror ───────────────────┘
//         ┌─────────┐
//         │ Stopped │ ◄── storage failed, from any state; leaves only by a restart
//         └─────────┘
// clang-format on
//
// An operator may promote a fenced copy by force, when the other one is lost for good: its timeline
// is newer than both. A promotion that fails goes back to where it began. A newer timeline never
// meets Mirror, which simply follows it; it fences Promoting's node only after the promotion, by an
// ordinary handshake. A Serving node that another one was promoted beside, to the same number, may
// be promoted by force, too: it opens the next timeline and stays Serving (decision 0017).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tandem/base/result.h"
#include "tandem/log_point.h"

namespace tandem::replication {

namespace role_state {
/// Primary by its own records, but it must hear its mirrors before it serves.
struct Starting {
  bool operator==(const Starting&) const = default;
};
struct Serving {
  bool operator==(const Serving&) const = default;
};
/// New writes are held, unanswered; `successor` is the mirror to promote afterwards, if any.
struct Draining {
  std::optional<std::string> successor;
  bool operator==(const Draining&) const = default;
};
struct Mirror {
  bool operator==(const Mirror&) const = default;
};
struct Fenced {
  Timeline by;
  std::string node;  // who showed it
  bool operator==(const Fenced&) const = default;
};
/// Nothing is applied any more; the new timeline is being opened.
struct Promoting {
  std::optional<Fenced> from;  // promoted by force from a fenced copy, else from a mirror
  bool operator==(const Promoting&) const = default;
};
/// The storage failed in a way that leaves durability unknown. Sticky.
struct Stopped {
  std::string reason;
  bool operator==(const Stopped&) const = default;
};
}  // namespace role_state
using RoleState = std::variant<role_state::Starting, role_state::Serving, role_state::Draining,
                               role_state::Mirror, role_state::Promoting, role_state::Fenced,
                               role_state::Stopped>;

namespace role_event {
/// Every mirror answered, or peer_wait passed without an answer.
struct PeersHeard {};
struct NewerTimeline {
  Timeline timeline;
  std::string node;
};
struct Promote {
  bool force = false;
  bool primary_reachable = false;
  bool complete_image = true;  // false: the first full copy never finished
  bool split = false;          // another copy was promoted to the same timeline number
};
struct TimelineOpened {};
struct PromotionFailed {};
struct Demote {};
struct Switchover {
  std::string successor;  // the mirror's address
};
struct Drained {};
struct DrainFailed {};
/// A primary on a newer timeline verified that nothing here is our own.
struct AcceptedAsMirror {};
struct StorageFailed {
  std::string reason;
};
}  // namespace role_event
using RoleEvent =
    std::variant<role_event::PeersHeard, role_event::NewerTimeline, role_event::Promote,
                 role_event::TimelineOpened, role_event::PromotionFailed, role_event::Demote,
                 role_event::Switchover, role_event::Drained, role_event::DrainFailed,
                 role_event::AcceptedAsMirror, role_event::StorageFailed>;

enum class RoleAction {
  kServe,           // take reads and writes, first those that were held
  kFenceNow,        // acknowledge nothing any more, before anything else happens
  kHoldWrites,      // begin no new write; finish, flush and report Drained or DrainFailed
  kPersistPrimary,  // make the role durable
  kPersistMirror,
  kPersistFenced,
  kStartShipping,  // dial the mirrors
  kStopShipping,
  kHoldUpstream,      // apply and acknowledge nothing more, keep the stream open
  kOpenTimeline,      // append the record of the new timeline; report TimelineOpened or …Failed
  kAnnounceTimeline,  // tell a held upstream that it is over
  kReleaseUpstream,   // the promotion was given up: let the primary dial again
  kPromoteSuccessor,  // ask the successor's node to promote; reads are held, too, until it answers
  kSendClientsAway,   // end their connections; what was held is not answered
};
const char* to_string(RoleAction action);

struct RoleStep {
  RoleState next;
  std::vector<RoleAction> actions;
  std::optional<Error> refused;  // why nothing changed, for the operator
};

/// The one transition function. Events that cannot matter in a state leave it as it is.
RoleStep transition(const RoleState& state, const RoleEvent& event);

/// The state a copy boots into.
RoleState boot_state(Role persisted, Timeline fenced_by);

/// The role that handshakes see, and whether volumes are served.
Role role_of(const RoleState& state);
bool serves(const RoleState& state);
/// For status: serving | starting | draining | mirroring | promoting | fenced | stopped.
const char* name_of(const RoleState& state);

/// The state of one group on this node.
class RoleMachine {
 public:
  explicit RoleMachine(RoleState state) : state_(std::move(state)) {}
  const RoleState& state() const { return state_; }
  /// Moves on; the caller performs the actions in order.
  RoleStep apply(const RoleEvent& event) {
    RoleStep step = transition(state_, event);
    state_ = step.next;
    return step;
  }

 private:
  RoleState state_;
};

}  // namespace tandem::replication
