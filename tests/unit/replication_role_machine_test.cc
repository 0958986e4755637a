// Every (state, event) pair of the role machine, as one table.
#include "replication/role_machine.h"

#include <gtest/gtest.h>

#include <functional>

namespace tandem::replication {
namespace {

namespace in = role_state;
namespace ev = role_event;
using A = RoleAction;

struct Expected {
  RoleState next;
  std::vector<RoleAction> actions;
  bool refused = false;
};

const std::vector<RoleState> kStates{in::Starting{},
                                     in::Serving{},
                                     in::Draining{},
                                     in::Mirror{},
                                     in::Promoting{},
                                     in::Fenced{Timeline{2}, "b"},
                                     in::Stopped{"flush failed"}};
const std::vector<RoleEvent> kEvents{ev::PeersHeard{},        ev::NewerTimeline{Timeline{3}, "c"},
                                     ev::Promote{},           ev::TimelineOpened{},
                                     ev::PromotionFailed{},   ev::Demote{},
                                     ev::Switchover{"b:1"},   ev::Drained{},
                                     ev::DrainFailed{},       ev::AcceptedAsMirror{},
                                     ev::StorageFailed{"eio"}};
constexpr std::size_t kPromote = 2, kDemote = 5, kSwitchover = 6;

// What differs from "requests are refused, everything else changes nothing".
std::optional<Expected> exception_to_the_rule(const RoleState& state, std::size_t event) {
  const Expected fenced{in::Fenced{Timeline{3}, "c"},
                        {A::kFenceNow, A::kStopShipping, A::kPersistFenced}};
  const bool primary = state.index() <= 2;
  if (event == 10 && !std::holds_alternative<in::Stopped>(state))
    return Expected{in::Stopped{"eio"}, {A::kFenceNow, A::kStopShipping}};
  if (event == 1 && primary) return fenced;
  switch (state.index()) {
    case 0:
      if (event == 0) return Expected{in::Serving{}, {A::kServe}};
      break;
    case 1:
      if (event == kDemote) return Expected{in::Draining{}, {A::kHoldWrites}};
      if (event == kSwitchover) return Expected{in::Draining{"b:1"}, {A::kHoldWrites}};
      break;
    case 2:
      if (event == 7)
        return Expected{in::Mirror{}, {A::kStopShipping, A::kPersistMirror, A::kSendClientsAway}};
      if (event == 8) return Expected{in::Serving{}, {A::kServe}};
      break;
    case 3:
      if (event == kPromote) return Expected{in::Promoting{}, {A::kHoldUpstream, A::kOpenTimeline}};
      break;
    case 4:
      if (event == 3) {
        return Expected{in::Serving{},
                        {A::kPersistPrimary, A::kAnnounceTimeline, A::kServe, A::kStartShipping}};
      }
      if (event == 4) return Expected{in::Mirror{}, {A::kReleaseUpstream}};
      break;
    case 5:
      if (event == 1) return Expected{in::Fenced{Timeline{3}, "c"}, {}};
      if (event == 9) return Expected{in::Mirror{}, {A::kPersistMirror}};
      break;
    default:
      break;
  }
  return std::nullopt;
}

TEST(RoleMachine, EveryPairOfStateAndEvent) {
  for (const RoleState& state : kStates) {
    for (std::size_t e = 0; e < kEvents.size(); ++e) {
      const bool request = e == kPromote || e == kDemote || e == kSwitchover;
      const Expected expected =
          exception_to_the_rule(state, e).value_or(Expected{state, {}, request});
      const RoleStep step = transition(state, kEvents[e]);
      EXPECT_EQ(step.next, expected.next) << name_of(state) << " event " << e;
      EXPECT_EQ(step.actions, expected.actions) << name_of(state) << " event " << e;
      EXPECT_EQ(step.refused.has_value(), expected.refused) << name_of(state) << " event " << e;
      if (step.refused) {
        EXPECT_FALSE(step.refused->message.empty());
      }
    }
  }
}

TEST(RoleMachine, APromotionNeedsAnImageAndAnAbsentPrimaryOrForce) {
  const auto promote = [](bool force, bool reachable, bool complete) {
    return transition(RoleState{in::Mirror{}}, ev::Promote{force, reachable, complete});
  };
  EXPECT_FALSE(promote(false, false, true).refused);
  EXPECT_TRUE(promote(false, true, true).refused);
  EXPECT_FALSE(promote(true, true, true).refused);
  EXPECT_TRUE(promote(true, false, false).refused) << "not even by force: there is nothing there";
}

TEST(RoleMachine, ASwitchoverPromotesTheSuccessorLast) {
  const auto step = transition(RoleState{in::Draining{"b:1"}}, ev::Drained{});
  EXPECT_EQ(step.next, RoleState{in::Mirror{}});
  EXPECT_EQ(step.actions, (std::vector{A::kStopShipping, A::kPersistMirror, A::kPromoteSuccessor,
                                       A::kSendClientsAway}));
}

TEST(RoleMachine, AFencedCopyRemembersTheNewestTimeline) {
  const RoleState fenced = in::Fenced{Timeline{5}, "b"};
  EXPECT_EQ(transition(fenced, ev::NewerTimeline{Timeline{4}, "c"}).next, fenced);
}

TEST(RoleMachine, AFencedCopyIsPromotedByForceOnly) {
  const in::Fenced fenced{Timeline{5}, "b"};
  EXPECT_TRUE(transition(fenced, ev::Promote{}).refused.has_value());
  EXPECT_TRUE(transition(fenced, ev::Promote{.force = true, .complete_image = false}).refused);
  const auto step = transition(fenced, ev::Promote{.force = true});
  EXPECT_EQ(step.next, RoleState{in::Promoting{fenced}});
  EXPECT_EQ(transition(step.next, ev::PromotionFailed{}).next, RoleState{fenced});
  EXPECT_EQ(transition(step.next, ev::TimelineOpened{}).next, RoleState{in::Serving{}});
}

TEST(RoleMachine, APrimaryIsPromotedByForceOnceAnotherWasPromotedBesideIt) {
  const RoleState serving = in::Serving{};
  const auto promote = [&](bool force, bool split) {
    return transition(serving, ev::Promote{.force = force, .split = split});
  };
  EXPECT_TRUE(promote(true, false).refused) << "there is nothing to choose between";
  EXPECT_TRUE(promote(false, true).refused);
  const auto step = promote(true, true);
  EXPECT_FALSE(step.refused);
  EXPECT_EQ(step.next, serving) << "its clients notice nothing";
  EXPECT_EQ(step.actions, (std::vector{A::kOpenTimeline}));
  EXPECT_EQ(transition(step.next, ev::TimelineOpened{}).next, serving);
}

TEST(RoleMachine, RemembersItsState) {
  RoleMachine machine(boot_state(Role::kPrimary, Timeline{1}));
  machine.apply(ev::PeersHeard{});
  EXPECT_TRUE(serves(machine.state()));
  EXPECT_TRUE(machine.apply(ev::Promote{}).refused.has_value());
  EXPECT_TRUE(serves(machine.state()));
}

TEST(RoleMachine, BootAndNames) {
  EXPECT_EQ(boot_state(Role::kPrimary, Timeline{1}), RoleState{in::Starting{}});
  EXPECT_EQ(boot_state(Role::kMirror, Timeline{1}), RoleState{in::Mirror{}});
  EXPECT_EQ(boot_state(Role::kFenced, Timeline{4}), (RoleState{in::Fenced{Timeline{4}, ""}}));
  for (const RoleState& state : kStates) {
    EXPECT_EQ(serves(state), std::holds_alternative<in::Serving>(state));
    if (serves(state)) {
      EXPECT_EQ(role_of(state), Role::kPrimary);
    }
  }
  EXPECT_EQ(role_of(in::Stopped{"x"}), Role::kFenced) << "never primary again without a restart";
  EXPECT_STREQ(name_of(in::Mirror{}), "mirroring");
  EXPECT_STREQ(name_of(in::Stopped{""}), "stopped");
}

}  // namespace
}  // namespace tandem::replication
