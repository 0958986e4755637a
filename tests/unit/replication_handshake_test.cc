// Every row of the handshake's decision tables (PROTOCOL.md), and the acknowledgement policy.
#include "replication/handshake.h"

#include <gtest/gtest.h>

#include "replication/ack_policy.h"

namespace tandem::replication {
namespace {

using Hello = HelloVerdict::Kind;
using Welcome = WelcomeVerdict::Kind;

const Uuid kGroup = Uuid::from_random(1, 1);
const TimelineHistory kFirst{{Timeline{1}, Lsn{0}, UtcNs{0}}};
const TimelineHistory kSecond{{Timeline{1}, Lsn{0}, UtcNs{0}}, {Timeline{2}, Lsn{100}, UtcNs{5}}};
const TimelineHistory kOtherSecond{{Timeline{1}, Lsn{0}, UtcNs{0}},
                                   {Timeline{2}, Lsn{90}, UtcNs{7}}};
const TimelineHistory kThird{{Timeline{1}, Lsn{0}, UtcNs{0}},
                             {Timeline{2}, Lsn{100}, UtcNs{5}},
                             {Timeline{3}, Lsn{150}, UtcNs{9}}};

const TimelineHistory kRaised{{Timeline{1}, Lsn{0}, UtcNs{0}},
                              {Timeline{2}, Lsn{90}, UtcNs{7}},
                              {Timeline{3}, Lsn{130}, UtcNs{9}}};

GroupIdentity identity(std::uint64_t pool, const char* node) {
  return {kGroup, "g", Uuid::from_random(2, pool), node};
}

CopyState copy(Role role, std::uint64_t lsn, TimelineHistory history) {
  LogPoint head;
  head.lsn = Lsn{lsn};
  head.timeline = current_timeline(history);
  return {identity(1, "ours"), role, head, std::move(history)};
}

message::Hello hello(std::uint64_t lsn, TimelineHistory history) {
  message::Hello hello;
  hello.identity = identity(2, "theirs");
  hello.head.lsn = Lsn{lsn};
  hello.history = std::move(history);
  return hello;
}

message::Welcome welcome(std::uint64_t lsn, TimelineHistory history, Role role = Role::kMirror) {
  message::Welcome welcome;
  welcome.identity = identity(2, "theirs");
  welcome.role = role;
  welcome.head.lsn = Lsn{lsn};
  welcome.history = std::move(history);
  return welcome;
}

void expect_refused(const HelloVerdict& verdict, ErrorCode code, const char* words) {
  EXPECT_EQ(verdict.kind, Hello::kRefuse);
  EXPECT_EQ(verdict.refusal.code, code) << verdict.refusal.reason;
  EXPECT_NE(verdict.refusal.reason.find(words), std::string::npos) << verdict.refusal.reason;
  EXPECT_FALSE(verdict.refusal.history.empty()) << "a refusal shows our history";
}

void expect_refused(const WelcomeVerdict& verdict, ErrorCode code, const char* words) {
  EXPECT_EQ(verdict.kind, Welcome::kRefuse);
  EXPECT_EQ(verdict.refusal.code, code) << verdict.refusal.reason;
  EXPECT_NE(verdict.refusal.reason.find(words), std::string::npos) << verdict.refusal.reason;
}

void expect_rewind(const HelloVerdict& verdict, std::uint64_t to) {
  EXPECT_EQ(verdict.kind, Hello::kRewind);
  EXPECT_EQ(verdict.common, Lsn{to});
  EXPECT_NE(verdict.refusal.reason.find("diverge behind LSN " + std::to_string(to)),
            std::string::npos)
      << "what is said when it is not possible";
}

TEST(Versions, TheNewestThatBothSpeak) {
  using Range = message::VersionRange;
  EXPECT_EQ(common_version(Range{1, 1}, Range{1, 1}), 1u);
  EXPECT_EQ(common_version(Range{1, 3}, Range{2, 5}), 3u);
  EXPECT_EQ(common_version(Range{2, 5}, Range{1, 3}), 3u) << "both sides come to the same";
  EXPECT_EQ(common_version(Range{1, 9}, Range{4, 4}), 4u);
  EXPECT_EQ(common_version(Range{1, 2}, Range{2, 3}), 2u) << "they touch in one";
  EXPECT_FALSE(common_version(Range{1, 2}, Range{3, 4}));
  EXPECT_FALSE(common_version(Range{3, 4}, Range{1, 2}));
}

TEST(Versions, ARefusalNamesBothRangesAndTheNodeToUpgrade) {
  for (const bool we_are_older : {true, false}) {
    auto ours = copy(Role::kMirror, 10, kFirst);
    ours.versions = we_are_older ? message::VersionRange{1, 2} : message::VersionRange{4, 5};
    auto theirs = hello(20, kFirst);
    theirs.versions = we_are_older ? message::VersionRange{4, 5} : message::VersionRange{1, 2};
    const auto verdict = judge_hello(ours, theirs);
    expect_refused(verdict, ErrorCode::kUnsupported, "versions 1 to 2");
    expect_refused(verdict, ErrorCode::kUnsupported, "versions 4 to 5");
    expect_refused(verdict, ErrorCode::kUnsupported,
                   we_are_older ? "upgrade tandemd on node ours to a release that speaks version 4"
                                : "upgrade tandemd on node theirs to a release that speaks version "
                                  "4");
  }
}

TEST(Versions, OldAndNewAgree) {
  auto ours = copy(Role::kMirror, 10, kFirst);
  ours.versions = {1, 3};
  auto theirs = hello(20, kFirst);
  theirs.versions = {3, 7};
  EXPECT_EQ(judge_hello(ours, theirs).kind, Hello::kWelcome);
  auto answer = welcome(10, kFirst);
  answer.versions = {1, 2};
  auto primary = copy(Role::kPrimary, 20, kFirst);
  primary.versions = {2, 7};
  EXPECT_EQ(judge_welcome(primary, Lsn{0}, false, answer).kind, Welcome::kShip);
}

TEST(Timelines, OneLiesOnAnother) {
  EXPECT_TRUE(lies_on(kFirst, Lsn{50}, kFirst));
  EXPECT_TRUE(lies_on(kFirst, Lsn{100}, kSecond)) << "up to the fork";
  EXPECT_FALSE(lies_on(kFirst, Lsn{101}, kSecond)) << "not beyond it";
  EXPECT_TRUE(lies_on(kSecond, Lsn{130}, kThird));
  EXPECT_FALSE(lies_on(kSecond, Lsn{160}, kThird));
  EXPECT_FALSE(lies_on(kSecond, Lsn{120}, kFirst)) << "a younger history never lies on an older";
  EXPECT_FALSE(lies_on(kOtherSecond, Lsn{120}, kSecond)) << "the same number, another fork";
  EXPECT_TRUE(lies_on(kOtherSecond, Lsn{0}, kSecond)) << "nothing lies on everything";
  EXPECT_EQ(common_end(kFirst, Lsn{120}, kSecond, Lsn{140}), Lsn{100});
  EXPECT_EQ(common_end(kOtherSecond, Lsn{120}, kSecond, Lsn{140}), Lsn{90});
  EXPECT_EQ(common_end(kSecond, Lsn{120}, kSecond, Lsn{140}), Lsn{120});
}

TEST(JudgeHello, IdentityComesFirst) {
  const auto mirror = copy(Role::kMirror, 10, kFirst);
  auto wrong_version = hello(10, kFirst);
  wrong_version.versions = {98, 99};
  expect_refused(judge_hello(mirror, wrong_version), ErrorCode::kUnsupported, "versions 98 to 99");
  auto wrong_group = hello(10, kFirst);
  wrong_group.identity.group = Uuid::from_random(9, 9);
  expect_refused(judge_hello(mirror, wrong_group), ErrorCode::kInvalid, "different groups");
  auto itself = hello(10, kFirst);
  itself.identity.pool = mirror.identity.pool;
  expect_refused(judge_hello(mirror, itself), ErrorCode::kInvalid, "its own pool");
  auto fenced = hello(10, kFirst);
  fenced.role = Role::kFenced;
  expect_refused(judge_hello(mirror, fenced), ErrorCode::kInvalid, "only a primary or a mirror");
}

message::Hello relay(std::uint64_t lsn, TimelineHistory history) {
  auto said = hello(lsn, std::move(history));
  said.role = Role::kMirror;
  said.versions = {message::kRelayVersion, message::kProtocolVersions.newest};
  said.sources = {{Uuid::from_random(2, 7), "primary"}};
  return said;
}

/// A mirror that dials is followed by the rules for a primary, but fences nobody.
TEST(JudgeHello, FromARelay) {
  const auto judge = [](Role role, std::uint64_t lsn, const TimelineHistory& ours,
                        const message::Hello& said) {
    return judge_hello(copy(role, lsn, ours), said);
  };
  EXPECT_EQ(judge(Role::kMirror, 0, kFirst, relay(500, kThird)).kind, Hello::kWelcome);
  EXPECT_EQ(judge(Role::kMirror, 80, kFirst, relay(80, kFirst)).kind, Hello::kWelcome);
  EXPECT_EQ(judge(Role::kMirror, 100, kFirst, relay(180, kThird)).kind, Hello::kWelcome);
  EXPECT_EQ(judge(Role::kFenced, 100, kFirst, relay(180, kThird)).kind, Hello::kWelcome);
  EXPECT_EQ(judge(Role::kMirror, 90, kFirst, relay(80, kFirst)).kind, Hello::kVerifyDialer)
      << "it went back, and does not know the newer timeline yet";
  expect_rewind(judge(Role::kMirror, 120, kFirst, relay(180, kSecond)), 100);
  for (const auto& theirs : {kFirst, kSecond, kThird}) {
    const auto verdict = judge(Role::kPrimary, 120, kSecond, relay(180, theirs));
    expect_refused(verdict, ErrorCode::kFenced, "is primary of group g itself");
    EXPECT_FALSE(verdict.split);
  }
  expect_refused(judge(Role::kMirror, 120, kSecond, relay(180, kFirst)), ErrorCode::kRefused,
                 "is still on timeline 1");
  const auto apart = judge(Role::kMirror, 120, kSecond, relay(125, kOtherSecond));
  expect_refused(apart, ErrorCode::kRefused, "diverge behind LSN 90");
  EXPECT_FALSE(apart.split);
  auto circular = relay(80, kFirst);
  circular.sources.push_back({identity(1, "ours").pool, "ours"});
  for (const Role role : {Role::kPrimary, Role::kMirror, Role::kFenced})
    expect_refused(judge(role, 50, kFirst, circular), ErrorCode::kRefused, "back into itself");
}

TEST(JudgeHello, ARelayIsRefusedByWhoKnowsNone) {
  auto older = copy(Role::kMirror, 10, kFirst);
  older.versions = {1, 2};
  expect_refused(judge_hello(older, relay(20, kFirst)), ErrorCode::kUnsupported,
                 "upgrade tandemd on node ours to a release that speaks version 3");
}

TEST(JudgeWelcome, AsRelay) {
  const auto judge = [](std::uint64_t lsn, const TimelineHistory& ours,
                        const message::Welcome& theirs, std::uint64_t log_start = 0) {
    return judge_welcome(copy(Role::kMirror, lsn, ours), Lsn{log_start}, false, theirs);
  };
  EXPECT_EQ(judge(50, kFirst, welcome(20, kFirst)).kind, Welcome::kShip);
  EXPECT_EQ(judge(50, kFirst, welcome(20, kFirst), 21).kind, Welcome::kImage);
  EXPECT_EQ(judge(0, kFirst, welcome(0, kFirst)).kind, Welcome::kShipAll);
  expect_refused(judge(50, kFirst, welcome(60, kFirst)), ErrorCode::kBusy, "has as much");
  expect_refused(judge(50, kFirst, welcome(60, kSecond)), ErrorCode::kRefused, "timeline 2");
  expect_refused(judge(120, kSecond, welcome(125, kOtherSecond)), ErrorCode::kRefused, "diverge");
  expect_refused(judge(50, kFirst, welcome(50, kFirst, Role::kPrimary)), ErrorCode::kRefused,
                 "primary");
}

TEST(JudgeHello, AsPrimary) {
  const auto verdict = judge_hello(copy(Role::kPrimary, 120, kFirst), hello(110, kSecond));
  EXPECT_EQ(verdict.kind, Hello::kFenceOurselves);
  EXPECT_EQ(verdict.refusal.code, ErrorCode::kBusy);
  const auto newer = judge_hello(copy(Role::kPrimary, 120, kSecond), hello(150, kFirst));
  expect_refused(newer, ErrorCode::kFenced, "newer timeline 2");
  EXPECT_EQ(newer.refusal.history, kSecond) << "so that the dialer sees it";
  expect_refused(judge_hello(copy(Role::kPrimary, 120, kFirst), hello(120, kFirst)),
                 ErrorCode::kRefused, "both primary");
}

void expect_split(const message::Refuse& refusal, bool split) {
  EXPECT_TRUE(split);
  EXPECT_EQ(refusal.code, ErrorCode::kRefused);
  for (const char* words :
       {"the same up to LSN 90", "node ours goes on to LSN 120", "node theirs to LSN 125",
        "promote g --force", "mirror add g", "tail-of-timeline-2"}) {
    EXPECT_NE(refusal.reason.find(words), std::string::npos) << words << ": " << refusal.reason;
  }
}

/// Two copies were promoted to one number: whatever their roles are by now, nothing is given up.
TEST(Split, NeitherFollowsTheOther) {
  EXPECT_TRUE(is_split(kSecond, kOtherSecond));
  EXPECT_FALSE(is_split(kSecond, kSecond));
  EXPECT_FALSE(is_split(kFirst, kFirst));
  EXPECT_FALSE(is_split(kSecond, kFirst)) << "one is newer";
  EXPECT_TRUE(is_split({kSecond[0], {Timeline{3}, Lsn{99}, UtcNs{8}}}, kThird))
      << "one number, though not by as many promotions";
  for (const Role role : {Role::kPrimary, Role::kMirror, Role::kFenced}) {
    const auto verdict = judge_hello(copy(role, 120, kSecond), hello(125, kOtherSecond));
    EXPECT_EQ(verdict.kind, Hello::kRefuse);
    expect_split(verdict.refusal, verdict.split);
  }
  const auto verdict =
      judge_welcome(copy(Role::kPrimary, 120, kSecond), Lsn{0}, true, welcome(125, kOtherSecond));
  EXPECT_EQ(verdict.kind, Welcome::kRefuse);
  expect_split(verdict.refusal, verdict.split);
  EXPECT_FALSE(judge_hello(copy(Role::kMirror, 120, kSecond), hello(125, kSecond)).split);
}

/// The operator chose: the other one's next timeline is newer, and that is all there is to it.
TEST(Split, EndsWithTheNextTimeline) {
  const auto fenced = judge_hello(copy(Role::kPrimary, 120, kSecond), hello(140, kRaised));
  EXPECT_EQ(fenced.kind, Hello::kFenceOurselves);
  expect_rewind(judge_hello(copy(Role::kFenced, 120, kSecond), hello(140, kRaised)), 90);
  expect_rewind(judge_hello(copy(Role::kMirror, 120, kSecond), hello(140, kRaised)), 90);
}

TEST(JudgeHello, AsMirror) {
  const auto judge = [](std::uint64_t lsn, const TimelineHistory& ours, std::uint64_t their_lsn,
                        const TimelineHistory& theirs) {
    return judge_hello(copy(Role::kMirror, lsn, ours), hello(their_lsn, theirs));
  };
  EXPECT_EQ(judge(0, kFirst, 0, kFirst).kind, Hello::kWelcome) << "both empty";
  EXPECT_EQ(judge(0, kFirst, 500, kThird).kind, Hello::kWelcome) << "a new copy";
  EXPECT_EQ(judge(50, kFirst, 80, kFirst).kind, Hello::kWelcome) << "behind";
  EXPECT_EQ(judge(80, kFirst, 80, kFirst).kind, Hello::kWelcome) << "equal";
  EXPECT_EQ(judge(100, kFirst, 180, kThird).kind, Hello::kWelcome) << "behind two promotions";
  EXPECT_EQ(judge(90, kFirst, 80, kFirst).kind, Hello::kVerifyDialer) << "the primary lost records";
  expect_rewind(judge(101, kFirst, 180, kSecond), 100);
  expect_rewind(judge(190, kFirst, 180, kSecond), 100);
  const auto newer = judge(120, kSecond, 180, kFirst);
  expect_refused(newer, ErrorCode::kFenced, "follows the newer timeline 2");
  EXPECT_EQ(newer.refusal.history, kSecond);
}

TEST(JudgeHello, AsFenced) {
  const auto judge = [](std::uint64_t lsn, const TimelineHistory& theirs, std::uint64_t their_lsn) {
    return judge_hello(copy(Role::kFenced, lsn, kFirst), hello(their_lsn, theirs));
  };
  EXPECT_EQ(judge(100, kSecond, 130).kind, Hello::kWelcome) << "nothing of its own: may follow";
  const auto tail = judge(105, kSecond, 130);
  expect_rewind(tail, 100);
  EXPECT_NE(tail.refusal.reason.find("keep their data"), std::string::npos);
  EXPECT_NE(tail.refusal.reason.find("tandem group delete g"), std::string::npos);
  expect_refused(judge(50, kFirst, 80), ErrorCode::kRefused, "follows only a newer one");
  expect_refused(judge(90, kFirst, 80), ErrorCode::kRefused, "follows only a newer one");
}

TEST(JudgeWelcome, EveryRow) {
  const auto judge = [](std::uint64_t lsn, const TimelineHistory& ours,
                        const message::Welcome& theirs, std::uint64_t log_start = 0,
                        bool may_fetch = false) {
    return judge_welcome(copy(Role::kPrimary, lsn, ours), Lsn{log_start}, may_fetch, theirs);
  };
  EXPECT_EQ(judge(50, kFirst, welcome(50, kFirst)).kind, Welcome::kShip);
  EXPECT_EQ(judge(50, kFirst, welcome(20, kFirst)).kind, Welcome::kShip);
  EXPECT_EQ(judge(50, kFirst, welcome(20, kFirst), 20).kind, Welcome::kShip);
  EXPECT_EQ(judge(50, kFirst, welcome(20, kFirst), 21).kind, Welcome::kImage) << "log gone";
  EXPECT_EQ(judge(50, kFirst, welcome(0, kFirst)).kind, Welcome::kShipAll);
  EXPECT_EQ(judge(50, kFirst, welcome(0, kFirst), 1).kind, Welcome::kImage);
  EXPECT_EQ(judge(180, kThird, welcome(100, kFirst)).kind, Welcome::kShip);
  EXPECT_EQ(judge(130, kSecond, welcome(100, kFirst, Role::kFenced)).kind, Welcome::kShip);
  EXPECT_EQ(judge(50, kFirst, welcome(60, kSecond)).kind, Welcome::kFenceOurselves);
  EXPECT_EQ(judge(50, kFirst, welcome(60, kFirst), 0, true).kind, Welcome::kFetch);
  expect_refused(judge(50, kFirst, welcome(60, kFirst)), ErrorCode::kRefused, "restart tandemd");
  expect_refused(judge(130, kSecond, welcome(101, kFirst)), ErrorCode::kRefused, "diverge");
  expect_refused(judge(130, kSecond, welcome(140, kFirst), 0, true), ErrorCode::kRefused,
                 "diverge behind LSN 100");
  expect_refused(judge(50, kFirst, welcome(50, kFirst, Role::kPrimary)), ErrorCode::kRefused,
                 "primary");
  auto version = welcome(50, kFirst);
  version.versions = {98, 99};
  expect_refused(judge(50, kFirst, version), ErrorCode::kUnsupported, "versions 98 to 99");
  auto foreign = welcome(50, kFirst);
  foreign.identity.group = Uuid::from_random(9, 9);
  expect_refused(judge(50, kFirst, foreign), ErrorCode::kInvalid, "different groups");
  auto itself = welcome(50, kFirst);
  itself.identity.pool = identity(1, "ours").pool;
  expect_refused(judge(50, kFirst, itself), ErrorCode::kInvalid, "its own pool");
}

TEST(AckPolicy, TheStrictestGatingSlotCounts) {
  using Mode = ReplicationMode;
  const auto slot = [](Mode mode, bool gating, std::uint64_t written, std::uint64_t durable) {
    return SlotGate{mode, gating, Lsn{written}, Lsn{durable}};
  };
  EXPECT_FALSE(remote_ack({}).written || remote_ack({}).durable);
  const std::vector<SlotGate> async{slot(Mode::kAsync, true, 5, 5)};
  EXPECT_FALSE(remote_ack(async).written || remote_ack(async).durable);
  const std::vector<SlotGate> degraded{slot(Mode::kSync, false, 5, 5)};
  EXPECT_FALSE(remote_ack(degraded).written || remote_ack(degraded).durable);
  const std::vector<SlotGate> flush{slot(Mode::kFlush, true, 9, 4)};
  EXPECT_FALSE(remote_ack(flush).written.has_value());
  EXPECT_EQ(remote_ack(flush).durable, Lsn{4});
  const std::vector<SlotGate> mixed{slot(Mode::kSync, true, 9, 7), slot(Mode::kSync, true, 8, 2),
                                    slot(Mode::kFlush, true, 3, 1), slot(Mode::kAsync, true, 0, 0),
                                    slot(Mode::kSync, false, 0, 0)};
  EXPECT_EQ(remote_ack(mixed).written, Lsn{8});
  EXPECT_EQ(remote_ack(mixed).durable, Lsn{1});
}

}  // namespace
}  // namespace tandem::replication
