#include "tests/sim/simulate/chronicle.h"

#include <algorithm>
#include <array>
#include <cstdio>

#include "tandem/base/check.h"

namespace tandem::sim {
namespace {

constexpr std::array kMarks{
    // What the operator did, and when.
    Mark{"promoted", "a mirror was promoted"},
    Mark{"promoted-by-force", "though its primary was reachable"},
    Mark{"promoted-from-fenced", "a former primary was, by force"},
    Mark{"promoted-while-catching-up", "while the log was still being shipped to it", false},
    Mark{"promoted-with-known-loss", "and the receipt said how many records are missing"},
    Mark{"promotion-refused", "the primary was reachable, or there was nothing to promote"},
    Mark{"crash-in-promotion", "the node went down while it was being promoted"},
    Mark{"switched-over", "planned, and nothing was lost"},
    Mark{"switchover-failed", "and one of the two went on, or the operator decided"},
    Mark{"demoted", "a primary was made a mirror"},
    Mark{"mode-changed", "while writers went on"},
    Mark{"split-brain", "both nodes served, each on its own timeline"},
    Mark{"fenced", "a primary saw a newer timeline and stopped"},
    Mark{"rejoin-with-branch", "what only a former primary held became a branch"},
    Mark{"branch-verified", "which read as that node had served it"},
    Mark{"copy-given-up", "the operator deleted a copy that could follow no more"},
    Mark{"room-made", "in a pool too full to follow, by deleting what was kept", false},
    Mark{"diverged-on-one-timeline", "a primary lost records in a crash and went on without them"},
    // What the pair did.
    Mark{"followed", "a mirror had caught up"},
    Mark{"gated", "writers began to wait for the mirror"},
    Mark{"degraded", "writers were released from a mirror that was lost or slow"},
    Mark{"mirror-stalled", "it answered but wrote nothing"},
    Mark{"peer-silent", "a stream went silent, and was ended for it"},
    Mark{"stream-replaced", "a reconnect overlapped the stream before it"},
    Mark{"served-alone", "a primary started without hearing its mirror"},
    Mark{"fetched-from-mirror", "records lost in a power cut came back before it served"},
    Mark{"full-copy", "a copy of the whole group was installed"},
    Mark{"difference-image", "only what had changed was"},
    Mark{"copy-interrupted", "and ended in its middle", false},
    Mark{"log-given-up", "the pool was full, and the mirror's log was let go"},
    // What the nodes went through.
    Mark{"killed", "a process ended"},
    Mark{"power-cut", "a machine lost its power"},
    Mark{"power-cut-at-a-moment", "between two events of its disk"},
    Mark{"crash-in-recovery", "in the middle of a start"},
    Mark{"log-cut", "a recovery found pages behind the first that was not whole"},
    Mark{"disk-failed", "a group stopped because of its disk"},
    Mark{"paused", "a machine stood still"},
    Mark{"paused-past-time-out", "for longer than its peer waits"},
    Mark{"one-way-partition", "one direction of the network was silent"},
    Mark{"pool-full", "a write was refused for lack of space", false},
    Mark{"snapshot-verified", "a snapshot read as the state it was asked for in"},
    Mark{"compacted", "what lay scattered was moved while the pair lived"},
    Mark{"rolled-back", "an older state became the newest again"},
    Mark{"blocks-rotted", "blocks at rest went bad on one node"},
    Mark{"damage-repaired", "a bad block was given back by the peer, and written again"},
    Mark{"damage-found-by-scrub", "before anybody read it"},
    Mark{"damage-refused", "a copy without its peer answered an error, and no wrong bytes"},
    Mark{"damage-outlived-a-start", "a node recovered, and wrote checkpoints, with bad blocks"},
    Mark{"damage-in-a-kept-state", "which the peer did not have any more", false},
    Mark{"damage-out-of-reach", "in data that was overwritten or deleted since"},
    Mark{"damage-stopped-a-copy", "the bytes to send were nowhere any more", false},
    Mark{"mirror-looked-at", "a copy of the mirror's disk was promoted and judged"},
};

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

std::span<const Mark> all_marks() { return kMarks; }

std::string_view LogEvent::field(std::string_view key) const {
  const std::string wanted = std::string(key) + "=";
  for (std::size_t at = 0; (at = fields.find(wanted, at)) != std::string_view::npos; ++at) {
    if (at != 0 && fields[at - 1] != ' ') continue;
    std::string_view value = fields.substr(at + wanted.size());
    if (value.starts_with('"')) {
      value.remove_prefix(1);
      return value.substr(0, value.find('"'));
    }
    return value.substr(0, value.find(' '));
  }
  return {};
}

std::uint64_t LogEvent::number(std::string_view key) const {
  std::uint64_t value = 0;
  for (const char c : field(key)) value = value * 10 + static_cast<std::uint64_t>(c - '0');
  return value;
}

Chronicle::Chronicle(Detail detail) : detail_(detail) {
  set_log_sink([this](Level level, std::string_view line) { take(level, line); });
}

Chronicle::~Chronicle() { set_log_sink(nullptr); }

void Chronicle::follow(std::function<Nanoseconds()> now,
                       std::function<void(const LogEvent&)> listener) {
  now_ = std::move(now);
  listener_ = std::move(listener);
  copying_ = false;
}

void Chronicle::say(const std::string& line) {
  if (detail_ != Detail::kNone) print("sim", line);
}

void Chronicle::print(const char* who, std::string_view line) const {
  const double seconds = now_ ? std::chrono::duration<double>(now_()).count() : 0;
  std::printf("%12.6f  %-4s %.*s\n", seconds, who, static_cast<int>(line.size()), line.data());
}

void Chronicle::mark(std::string_view name) {
  CHECK(std::any_of(kMarks.begin(), kMarks.end(), [&](const Mark& m) { return m.name == name; }));
  ++marks_[std::string(name)];
}

void Chronicle::take(Level level, std::string_view line) {
  LogEvent event{level, line, {}};
  event.name.remove_prefix(std::string_view("event=").size());
  const auto end = event.name.find(' ');
  if (end != std::string_view::npos) {
    event.fields = event.name.substr(end + 1);
    event.name = event.name.substr(0, end);
  }
  if (muted_) return;
  if (detail_ == Detail::kFull) print("log", line);
  if (!listener_) return;
  mark_event(event);
  listener_(event);
}

void Chronicle::mark_event(const LogEvent& event) {
  const auto reason = event.field("reason");
  if (event.name == "group.rewound" && !has(event.fields, "branch=none:"))
    mark("rejoin-with-branch");
  if (event.name == "group.newer-timeline") mark("fenced");
  if (event.name == "group.rolled-back") mark("rolled-back");
  if (event.name == "group.stopped") mark("disk-failed");
  if (event.name == "group.state" && has(reason, "serving alone")) mark("served-alone");
  if (event.name == "log.cut") mark("log-cut");
  if (event.name == "log.given-up") mark("log-given-up");
  if (event.name == "block.repaired") mark("damage-repaired");
  if (event.name == "scrub.bad-block") mark("damage-found-by-scrub");
  if (event.name == "compaction.finished" && event.number("blocks_moved") != 0) mark("compacted");
  if (event.name == "image.installed")
    mark(event.number("from_lsn") == 0 ? "full-copy" : "difference-image");
  mark_replication(event);
}

void Chronicle::mark_replication(const LogEvent& event) {
  const auto reason = event.field("reason");
  if (event.name == "slot.gated") mark("gated");
  if (event.name == "slot.degraded") mark("degraded");
  if (event.name == "slot.fetched") mark("fetched-from-mirror");
  if (event.name == "slot.state" && event.field("state") == "following") mark("followed");
  if (event.name == "upstream.state") {
    if (copying_ && event.field("state") == "lost") mark("copy-interrupted");
    copying_ = event.field("state") == "image";
  }
  if (has(reason, "look at its disk")) mark("mirror-stalled");
  if (has(reason, "has been silent for")) mark("peer-silent");
  if (has(reason, "a newer stream from node")) mark("stream-replaced");
  if (has(reason, "hold different records up to")) mark("diverged-on-one-timeline");
}

}  // namespace tandem::sim
