#include "replication/handshake.h"

#include <spdlog/fmt/fmt.h>

#include <algorithm>

namespace tandem::replication {
namespace {

message::Refuse refuse(const CopyState& ours, ErrorCode code, std::string reason) {
  return {.code = code, .reason = std::move(reason), .history = ours.history};
}

// The first entry's time is when a copy was created, which differs between nodes.
bool same_fork(const TimelineFork& a, const TimelineFork& b, std::size_t index) {
  return a.timeline == b.timeline && a.fork == b.fork && (index == 0 || a.utc == b.utc);
}

std::string hints_for_divergence(const std::string& group) {
  return fmt::format(
      "nothing was changed and both copies keep their data; to give up the copy on the mirror's "
      "node run 'tandem group delete {}' there, and the primary copies the group anew",
      group);
}

std::string text(const message::VersionRange& range) {
  return range.oldest == range.newest
             ? fmt::format("version {}", range.newest)
             : fmt::format("versions {} to {}", range.oldest, range.newest);
}

// Rows that do not depend on logs: version, group, a node that talks to itself.
std::optional<message::Refuse> judge_identity(const CopyState& ours,
                                              const message::VersionRange& versions,
                                              const GroupIdentity& theirs) {
  if (!common_version(ours.versions, versions)) {
    return refuse(ours, ErrorCode::kUnsupported,
                  version_mismatch(ours.identity.node, ours.versions, theirs.node, versions));
  }
  if (theirs.group != ours.identity.group) {
    return refuse(ours, ErrorCode::kInvalid,
                  fmt::format("group {} on node {} has the identity {}, on node {} it is {}: they "
                              "are different groups; check the mirror's address",
                              ours.identity.name, ours.identity.node, ours.identity.group.text(),
                              theirs.node, theirs.group.text()));
  }
  if (theirs.pool == ours.identity.pool) {
    return refuse(ours, ErrorCode::kInvalid,
                  fmt::format("node {} reached its own pool {}; set the mirror's address to the "
                              "other node",
                              theirs.node, theirs.pool.text()));
  }
  return std::nullopt;
}

message::Refuse divergence(const CopyState& ours, const std::string& their_node, Lsn their_end,
                           const TimelineHistory& theirs) {
  const Lsn common = common_end(ours.history, ours.head.lsn, theirs, their_end);
  return refuse(
      ours, ErrorCode::kRefused,
      fmt::format("the copies of group {} diverge behind LSN {}: node {} goes on to LSN {} on "
                  "timeline {}, node {} to LSN {} on timeline {}; {}",
                  ours.identity.name, common.value, ours.identity.node, ours.head.lsn.value,
                  current_timeline(ours.history).value, their_node, their_end.value,
                  current_timeline(theirs).value, hints_for_divergence(ours.identity.name)));
}

/// The same text on both sides: it names both nodes, and what ends it.
message::Refuse split_refusal(const CopyState& ours, const std::string& their_node, Lsn their_end,
                              const TimelineHistory& theirs) {
  const Lsn common = common_end(ours.history, ours.head.lsn, theirs, their_end);
  const auto timeline = current_timeline(ours.history).value;
  const std::string& group = ours.identity.name;
  return refuse(
      ours, ErrorCode::kRefused,
      fmt::format("two copies of group {0} were promoted apart from each other, both to timeline "
                  "{1}: they are the same up to LSN {2}, then node {3} goes on to LSN {4} and node "
                  "{5} to LSN {6}, each with records of its own. Both keep all of it until you "
                  "choose. Compare them, then run 'tandem --node HOST:PORT promote {0} --force' "
                  "with the address of the one to keep, and 'tandem --node HOST:PORT mirror add "
                  "{0} OTHER:PORT' if it does not ship to the other yet: that one stops serving, "
                  "keeps what it alone has as the branch tail-of-timeline-{1}, and follows",
                  group, timeline, common.value, ours.identity.node, ours.head.lsn.value,
                  their_node, their_end.value));
}

HelloVerdict judge_hello_as_primary(const CopyState& ours, const message::Hello& hello) {
  using Kind = HelloVerdict::Kind;
  const auto mine = current_timeline(ours.history).value;
  const auto their = current_timeline(hello.history).value;
  if (is_newer(hello.history, ours.history)) {
    return {Kind::kFenceOurselves,
            refuse(ours, ErrorCode::kBusy,
                   fmt::format("node {} was primary of group {} on timeline {} and stops serving "
                               "because of timeline {}; dial again to make it a mirror",
                               ours.identity.node, ours.identity.name, mine, their))};
  }
  if (is_newer(ours.history, hello.history)) {
    return {Kind::kRefuse,
            refuse(ours, ErrorCode::kFenced,
                   fmt::format("node {} is primary of group {} on the newer timeline {}; node {} "
                               "must not serve timeline {} any more",
                               ours.identity.node, ours.identity.name, mine, hello.identity.node,
                               their))};
  }
  if (is_split(ours.history, hello.history)) {
    return {.refusal = split_refusal(ours, hello.identity.node, hello.head.lsn, hello.history),
            .split = true};
  }
  return {Kind::kRefuse,
          refuse(ours, ErrorCode::kRefused,
                 fmt::format(
                     "nodes {} and {} are both primary of group {} on the same timeline {} (the "
                     "pool of one was copied or restored); compare their data, then run "
                     "'tandem demote {}' on the one to give up",
                     ours.identity.node, hello.identity.node, ours.identity.name, mine,
                     ours.identity.name))};
}

// Rows of their own for a mirror that dials: it speaks for nobody's right to serve, so nothing that
// it says fences anybody, and whoever it cannot feed tells it why.
std::optional<message::Refuse> judge_relay(const CopyState& ours, const message::Hello& hello) {
  const std::string& group = ours.identity.name;
  const std::string& node = ours.identity.node;
  const std::string& relay = hello.identity.node;
  const auto mine = current_timeline(ours.history).value;
  const auto their = current_timeline(hello.history).value;
  if (comes_from(hello.sources, ours.identity.pool)) {
    return refuse(ours, ErrorCode::kRefused, circle(group, node, relay));
  }
  if (ours.role == Role::kPrimary) {
    return refuse(ours, ErrorCode::kFenced,
                  fmt::format("node {} is primary of group {} itself, on timeline {}; it takes no "
                              "records from node {}, which is a mirror on timeline {}. Let node {} "
                              "be a mirror of it, or remove this mirror",
                              node, group, mine, relay, their, relay));
  }
  if (is_newer(ours.history, hello.history)) {
    return refuse(ours, ErrorCode::kRefused,
                  fmt::format("node {} has followed group {} on to timeline {}, but node {} is "
                              "still on timeline {}; it is fed again when that one has followed",
                              node, group, mine, relay, their));
  }
  if (ours.head.lsn > Lsn{0} && is_split(ours.history, hello.history))
    return divergence(ours, relay, hello.head.lsn, hello.history);
  return std::nullopt;
}

}  // namespace

bool comes_from(const std::vector<message::Source>& sources, const Uuid& pool) {
  return std::any_of(sources.begin(), sources.end(),
                     [&](const message::Source& source) { return source.pool == pool; });
}

std::string circle(const std::string& group, const std::string& one, const std::string& other) {
  return fmt::format(
      "node {} has its copy of group {} from node {}, directly or through others: a chain of "
      "mirrors must not lead back into itself; remove one of its mirrors",
      other, group, one);
}

std::optional<std::uint32_t> common_version(const message::VersionRange& a,
                                            const message::VersionRange& b) {
  const std::uint32_t newest = std::min(a.newest, b.newest);
  if (newest < std::max(a.oldest, b.oldest)) return std::nullopt;
  return newest;
}

std::string version_mismatch(const std::string& our_node, const message::VersionRange& ours,
                             const std::string& their_node, const message::VersionRange& theirs) {
  const bool we_are_older = ours.newest < theirs.newest;
  return fmt::format(
      "node {} speaks replication protocol {}, node {} {}: none in common; upgrade tandemd on node "
      "{} to a release that speaks version {} too",
      our_node, text(ours), their_node, text(theirs), we_are_older ? our_node : their_node,
      we_are_older ? theirs.oldest : ours.oldest);
}

Timeline current_timeline(const TimelineHistory& history) {
  return history.empty() ? Timeline{1} : history.back().timeline;
}

bool is_newer(const TimelineHistory& a, const TimelineHistory& b) {
  return current_timeline(a) > current_timeline(b);
}

bool is_split(const TimelineHistory& a, const TimelineHistory& b) {
  if (a.empty() || b.empty() || current_timeline(a) != current_timeline(b)) return false;
  if (a.size() != b.size()) return true;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (!same_fork(a[i], b[i], i)) return true;
  return false;
}

bool lies_on(const TimelineHistory& part, Lsn end, const TimelineHistory& whole) {
  if (end == Lsn{0}) return true;  // nothing lies on everything
  if (part.size() > whole.size()) return false;
  for (std::size_t i = 0; i < part.size(); ++i)
    if (!same_fork(part[i], whole[i], i)) return false;
  return part.size() == whole.size() || end <= whole[part.size()].fork;
}

Lsn common_end(const TimelineHistory& a, Lsn a_end, const TimelineHistory& b, Lsn b_end) {
  Lsn end = std::min(a_end, b_end);
  std::size_t shared = 0;
  while (shared < a.size() && shared < b.size() && same_fork(a[shared], b[shared], shared))
    ++shared;
  if (shared < a.size()) end = std::min(end, a[shared].fork);
  if (shared < b.size()) end = std::min(end, b[shared].fork);
  return end;
}

HelloVerdict judge_hello(const CopyState& ours, const message::Hello& hello) {
  using Kind = HelloVerdict::Kind;
  if (auto refusal = judge_identity(ours, hello.versions, hello.identity))
    return {Kind::kRefuse, *refusal};
  if (hello.role == Role::kMirror) {
    if (auto refusal = judge_relay(ours, hello)) return {Kind::kRefuse, *refusal};
  } else if (hello.role != Role::kPrimary) {
    return {Kind::kRefuse,
            refuse(ours, ErrorCode::kInvalid,
                   fmt::format("node {} dialled group {} as {}; only a primary or a mirror dials",
                               hello.identity.node, ours.identity.name, to_string(hello.role)))};
  }
  if (ours.role == Role::kPrimary) return judge_hello_as_primary(ours, hello);

  const auto mine = current_timeline(ours.history).value;
  const auto their = current_timeline(hello.history).value;
  if (is_newer(ours.history, hello.history)) {
    return {Kind::kRefuse,
            refuse(ours, ErrorCode::kFenced,
                   fmt::format(
                       "node {} follows the newer timeline {} of group {}; node {} must not "
                       "serve timeline {} any more",
                       ours.identity.node, mine, ours.identity.name, hello.identity.node, their))};
  }
  if (ours.head.lsn > Lsn{0} && is_split(ours.history, hello.history)) {
    return {.refusal = split_refusal(ours, hello.identity.node, hello.head.lsn, hello.history),
            .split = true};
  }
  if (ours.role == Role::kFenced && !is_newer(hello.history, ours.history)) {
    return {Kind::kRefuse,
            refuse(ours, ErrorCode::kRefused,
                   fmt::format("node {} was fenced on timeline {} of group {} and follows only a "
                               "newer one, not timeline {} of node {}",
                               ours.identity.node, mine, ours.identity.name, their,
                               hello.identity.node))};
  }
  const bool we_are_behind = ours.head.lsn <= hello.head.lsn;
  if (we_are_behind && lies_on(ours.history, ours.head.lsn, hello.history))
    return {Kind::kWelcome, {}};
  if (!we_are_behind && ours.role == Role::kMirror && !is_newer(hello.history, ours.history) &&
      lies_on(hello.history, hello.head.lsn, ours.history)) {
    return {Kind::kVerifyDialer, {}};
  }
  const auto refusal = divergence(ours, hello.identity.node, hello.head.lsn, hello.history);
  const Lsn common = common_end(ours.history, ours.head.lsn, hello.history, hello.head.lsn);
  if (is_newer(hello.history, ours.history) && common > Lsn{0} && common < ours.head.lsn)
    return {Kind::kRewind, refusal, common};
  return {Kind::kRefuse, refusal};
}

WelcomeVerdict judge_welcome(const CopyState& ours, Lsn log_start, bool may_fetch,
                             const message::Welcome& welcome) {
  using Kind = WelcomeVerdict::Kind;
  if (auto refusal = judge_identity(ours, welcome.versions, welcome.identity))
    return {Kind::kRefuse, *refusal};
  const bool we_relay = ours.role == Role::kMirror;
  if (is_newer(welcome.history, ours.history)) {
    if (!we_relay) return {Kind::kFenceOurselves, {}};
    return {
        Kind::kRefuse,
        refuse(ours, ErrorCode::kRefused,
               fmt::format("node {} has gone on to timeline {} of group {}; node {} is still on "
                           "timeline {}",
                           welcome.identity.node, current_timeline(welcome.history).value,
                           ours.identity.name, ours.identity.node,
                           current_timeline(ours.history).value))};
  }
  if (welcome.role == Role::kPrimary) {
    return {Kind::kRefuse, refuse(ours, ErrorCode::kRefused,
                                  fmt::format("node {} is primary of group {} too",
                                              welcome.identity.node, ours.identity.name))};
  }
  const Lsn their_end = welcome.head.lsn;
  if (their_end == Lsn{0}) return {log_start == Lsn{0} ? Kind::kShipAll : Kind::kImage, {}};
  if (is_split(welcome.history, ours.history)) {
    if (we_relay)
      return {Kind::kRefuse, divergence(ours, welcome.identity.node, their_end, welcome.history)};
    return {.refusal = split_refusal(ours, welcome.identity.node, their_end, welcome.history),
            .split = true};
  }
  if (their_end <= ours.head.lsn) {
    if (!lies_on(welcome.history, their_end, ours.history))
      return {Kind::kRefuse, divergence(ours, welcome.identity.node, their_end, welcome.history)};
    return {their_end < log_start ? Kind::kImage : Kind::kShip, {}};
  }
  const bool continues_ours = current_timeline(welcome.history) == current_timeline(ours.history) &&
                              lies_on(ours.history, ours.head.lsn, welcome.history);
  if (!continues_ours)
    return {Kind::kRefuse, divergence(ours, welcome.identity.node, their_end, welcome.history)};
  if (we_relay) {
    // It lost them, or went back to where a new primary's history begins: it gets them, or others.
    return {Kind::kRefuse,
            refuse(ours, ErrorCode::kBusy,
                   fmt::format("node {} holds group {} up to LSN {}, node {}, which is to feed it, "
                               "only up to LSN {}; it goes on when that one has as much",
                               welcome.identity.node, ours.identity.name, their_end.value,
                               ours.identity.node, ours.head.lsn.value))};
  }
  if (may_fetch) return {Kind::kFetch, {}};
  return {
      Kind::kRefuse,
      refuse(ours, ErrorCode::kRefused,
             fmt::format("node {} holds group {} up to LSN {}, but this primary serves since it "
                         "lost everything behind LSN {}; restart tandemd on node {} while the "
                         "mirror is reachable and it fetches them, if nothing was written since",
                         welcome.identity.node, ours.identity.name, their_end.value,
                         ours.head.lsn.value, ours.identity.node))};
}

message::Refuse digest_refusal(const CopyState& ours, const std::string& their_node, Lsn at) {
  return refuse(
      ours, ErrorCode::kRefused,
      fmt::format("the copies of group {} on nodes {} and {} hold different records up to "
                  "LSN {} of the same timeline (the primary lost its last records in a "
                  "crash and served without this mirror); {}",
                  ours.identity.name, ours.identity.node, their_node, at.value,
                  hints_for_divergence(ours.identity.name)));
}

}  // namespace tandem::replication
