// The handshake's decisions as pure functions: who may follow whom, and why not.
//
// PROTOCOL.md holds the table; tests/unit/replication_handshake_test.cc walks every row.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tandem/log_point.h"
#include "tandem/port/link.h"

namespace tandem::replication {

/// What one side knows of one copy of a group.
struct CopyState {
  GroupIdentity identity;
  Role role = Role::kMirror;
  LogPoint head;
  TimelineHistory history;
  message::VersionRange versions = message::kProtocolVersions;
};

/// The newest version that both speak, or nothing.
std::optional<std::uint32_t> common_version(const message::VersionRange& a,
                                            const message::VersionRange& b);
/// Why two releases cannot talk, naming what each speaks and which node to upgrade.
std::string version_mismatch(const std::string& our_node, const message::VersionRange& ours,
                             const std::string& their_node, const message::VersionRange& theirs);

Timeline current_timeline(const TimelineHistory& history);

/// True when `a`'s newest timeline is younger than `b`'s: a primary on `b` must stop serving.
bool is_newer(const TimelineHistory& a, const TimelineHistory& b);

/// True when both go on under one timeline number but parted before: two copies were promoted apart
/// from each other. Neither is newer, so neither gives way before an operator has chosen.
bool is_split(const TimelineHistory& a, const TimelineHistory& b);

/// True when every record of a copy that ends at `end` with history `part` belongs to `whole`, as
/// far as timelines tell: the digest at `end` still has to be compared.
bool lies_on(const TimelineHistory& part, Lsn end, const TimelineHistory& whole);

/// The last LSN that two histories can have in common, given where each copy ends.
Lsn common_end(const TimelineHistory& a, Lsn a_end, const TimelineHistory& b, Lsn b_end);

/// One of `sources` is that pool.
bool comes_from(const std::vector<message::Source>& sources, const Uuid& pool);
/// Why `one` cannot be fed by `other`: that has its copy from `one`.
std::string circle(const std::string& group, const std::string& one, const std::string& other);

/// What the acceptor does about a Hello.
struct HelloVerdict {
  enum class Kind {
    kWelcome,         // answer Welcome; the dialer decides from where to ship
    kVerifyDialer,    // the dialer is behind us: Welcome if its digest at its head is in our log
    kFenceOurselves,  // we are primary of an older timeline: fence, then refuse with `refusal`
    kRewind,          // our tail lies on an older timeline: go back to `common`, then look again
    kRefuse,
  } kind = Kind::kRefuse;
  message::Refuse refusal;  // when not welcome; of kRewind: if that is not possible
  Lsn common{};
  bool split = false;  // refused because of is_split()
};
HelloVerdict judge_hello(const CopyState& ours, const message::Hello& hello);

/// What the dialer does about a Welcome. A mirror that dials is never fenced by one.
struct WelcomeVerdict {
  enum class Kind {
    kShip,            // the mirror's head lies on our history: verify the digest there, then ship
    kShipAll,         // the mirror is empty and our log reaches back to its beginning
    kImage,           // the mirror's head is not in our log any more: full copy first
    kFetch,           // the mirror holds more of our timeline and we have not served yet
    kFenceOurselves,  // the mirror saw a newer timeline
    kRefuse,
  } kind = Kind::kRefuse;
  message::Refuse refusal;  // for kRefuse
  bool split = false;       // refused because of is_split()
};
/// `log_start`: our oldest readable position; `may_fetch`: we have not served since we started.
WelcomeVerdict judge_welcome(const CopyState& ours, Lsn log_start, bool may_fetch,
                             const message::Welcome& welcome);

/// The refusal for two copies whose digests differ at `at`, although their timelines agree.
message::Refuse digest_refusal(const CopyState& ours, const std::string& their_node, Lsn at);

}  // namespace tandem::replication
