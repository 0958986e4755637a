#include "replication/applier.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::replication {
namespace {

constexpr std::size_t kWaitingMax = 4;
constexpr std::size_t kPartingMax = 16;

}  // namespace

Applier::Applier(Runtime runtime, ReplicatedLog& log, const ReplicationOptions& options,
                 ApplierOwner& owner)
    : executor_(runtime.executor),
      clock_(runtime.clock),
      log_(log),
      options_(options),
      owner_(owner),
      ticker_(runtime, tick_period(options), [this] { tick(); }) {
  upstream_since_ = clock_.utc();
}

Applier::~Applier() { CHECK(running_.held() == 0); }

void Applier::accept(std::unique_ptr<Link> link, message::Hello hello) {
  if (stopping_) return;  // destroying the link closes it
  ticker_.start();
  spawn(run(std::move(link), std::move(hello)));
}

CopyState Applier::our_state() const {
  return {log_.identity(), owner_.role(), log_.tail(), log_.history(), options_.versions};
}

void Applier::set_upstream(std::string state, std::string reason) {
  upstream_reason_ = std::move(reason);
  if (state == upstream_state_) return;
  upstream_state_ = std::move(state);
  upstream_since_ = clock_.utc();
  log_event(Level::kInfo, "upstream.state", "group={} primary={} state={} reason=\"{}\"",
            log_.identity().name, upstream_node_, upstream_state_, upstream_reason_);
}

bool Applier::is_silent(const Session& session) const {
  return !session.busy && session.batches == 0 &&
         clock_.monotonic() - session.last_contact >= options_.timeout;
}

bool Applier::connected() const {
  // A relay that nobody fed when it dialled has no primary to speak of.
  const auto leads_to_primary = [](const message::Hello& hello) {
    return hello.role == Role::kPrimary || !hello.sources.empty();
  };
  return current_ != nullptr && !current_->ended && current_->phase != Phase::kHandshake &&
         current_->phase != Phase::kLeaving && leads_to_primary(current_->hello) &&
         !is_silent(*current_);
}

UpstreamStatus Applier::status() const {
  UpstreamStatus status;
  const LogPoint ours = log_.tail();
  status.node = upstream_node_;
  status.primary = primary_node_;
  status.state = upstream_state_;
  status.reason = upstream_reason_;
  status.since = upstream_since_;
  status.last_contact = last_contact_utc_;
  status.primary_head = primary_head_;
  status.agreement = agreement_;
  if (head_known_ && primary_head_.lsn > log_.head().lsn) {
    status.missing_records = primary_head_.lsn.value - log_.head().lsn.value;
    const auto bytes = log_.head().payload_bytes;
    if (primary_head_.payload_bytes > bytes)
      status.missing_bytes = primary_head_.payload_bytes - bytes;
  }
  if (status.state == "following" && status.missing_records > options_.following_lag_records)
    status.state = "catch-up";
  if (head_known_ && ours.lsn > primary_head_.lsn) status.primary_head = ours;
  return status;
}

std::vector<message::Source> Applier::sources() const {
  if (current_ == nullptr || current_->ended) return {};
  if (current_->phase != Phase::kFollowing && current_->phase != Phase::kImage) return {};
  std::vector<message::Source> sources = current_->hello.sources;
  sources.push_back({current_->hello.identity.pool, current_->hello.identity.node});
  return sources;
}

// A primary that we may follow needs no relay between, and goes before one.
bool Applier::outranks(const message::Hello& hello) const {
  const TimelineHistory ours = log_.history();
  return hello.role == Role::kPrimary && current_->hello.role == Role::kMirror &&
         !is_newer(ours, hello.history) && !is_split(ours, hello.history);
}

// Who may even wait for an answer, while another stream is open or a promotion is under way.
std::optional<message::Refuse> Applier::admission(const message::Hello& hello) const {
  const auto busy = [&](std::string reason) {
    return message::Refuse{ErrorCode::kBusy, std::move(reason), log_.history()};
  };
  const std::string& name = log_.identity().name;
  if (held_) return busy(fmt::format("group {} is being promoted on this node", name));
  if (waiting_ >= kWaitingMax)
    return busy(fmt::format("too many streams of group {} wait for an answer", name));
  if (current_ == nullptr || current_->ended) return std::nullopt;
  const bool same_node = current_->hello.identity.pool == hello.identity.pool;
  // A relay never ends a primary's stream, whatever it knows.
  const bool may_replace = hello.role == Role::kPrimary || current_->hello.role == Role::kMirror;
  const bool newer = may_replace && is_newer(hello.history, current_->hello.history);
  if (same_node || newer || outranks(hello) || is_silent(*current_)) return std::nullopt;
  return busy(
      fmt::format("node {} streams group {} to this node already; stop it or wait until it "
                  "has been silent for {:.0f} s",
                  current_->hello.identity.node, name,
                  std::chrono::duration<double>(options_.timeout).count()));
}

// The newer stream replaces the older: from the same node (it reconnected before we noticed the
// loss), from a newer timeline, or because the old one is silent.
void Applier::supersede(Session& old, const message::Hello& hello) {
  const bool may_fence = hello.role == Role::kPrimary;
  if (may_fence && is_newer(hello.history, old.hello.history) && !old.ended) {
    old.link->send(Message(message::Refuse{
        ErrorCode::kFenced,
        fmt::format("node {} is primary of group {} on the newer timeline {}", hello.identity.node,
                    log_.identity().name, current_timeline(hello.history).value),
        hello.history}));
  }
  end_session(old, fmt::format("a newer stream from node {} replaced it", hello.identity.node));
}

Task<void> Applier::run(std::unique_ptr<Link> link, message::Hello hello) {
  auto holder = running_.hold();
  if (auto refusal = admission(hello)) {
    auto leaving = turn_away(std::move(link), std::move(*refusal));
    co_await std::move(leaving);
    co_return;
  }
  const std::uint64_t arrival = ++arrivals_;
  if (current_ != nullptr) supersede(*current_, hello);
  std::optional<message::Refuse> refusal;
  Session session;
  session.link = std::move(link);
  session.hello = std::move(hello);
  {
    ++waiting_;
    auto lock = co_await one_session_.lock();
    --waiting_;
    if (stopping_) co_return;
    if (held_ || arrival != arrivals_) {
      refusal =
          message::Refuse{ErrorCode::kBusy, "a newer stream took this one's place", log_.history()};
    } else {
      current_ = &session;
      refusal = co_await examine(session);
      session.busy = false;
      idle_.notify_all();
      if (!refusal && !session.ended) co_await serve(session);
      current_ = nullptr;
      idle_.notify_all();
    }
  }
  if (refusal && !session.ended) {
    auto leaving = turn_away(std::move(session.link), std::move(*refusal));
    co_await std::move(leaving);
  }
}

// Sends the refusal and lets the dialer close, so that it is not lost with the link.
Task<void> Applier::turn_away(std::unique_ptr<Link> link, message::Refuse refusal) {
  if (stopping_ || parting_.size() >= kPartingMax) co_return;
  log_event(Level::kWarn, "upstream.refused", "group={} peer=\"{}\" code={} reason=\"{}\"",
            log_.identity().name, link->peer(), to_string(refusal.code), refusal.reason);
  link->send(Message(std::move(refusal)));
  parting_.push_back({link.get(), clock_.monotonic() + options_.parting_time});
  while (true) {
    auto received = co_await link->receive();
    if (!received) break;
  }
  std::erase_if(parting_, [&](const Parting& p) { return p.link == link.get(); });
}

Task<Status> Applier::go_back(Lsn to) {
  co_await owner_.before_replacing();
  auto rewinding = log_.rewind(to);
  const Status rewound = co_await std::move(rewinding);
  owner_.after_replacing();
  co_return rewound;
}

// Decides about the Hello and answers it with Welcome; a value is the refusal to send instead.
Task<std::optional<message::Refuse>> Applier::examine(Session& session) {
  using Kind = HelloVerdict::Kind;
  session.busy = true;
  session.last_contact = clock_.monotonic();
  const message::Hello& hello = session.hello;
  const CopyState ours = our_state();
  const HelloVerdict verdict = judge_hello(ours, hello);
  owner_.note_split(hello.identity.node, hello.history,
                    verdict.split ? verdict.refusal.reason : "");
  switch (verdict.kind) {
    case Kind::kRefuse:
      co_return verdict.refusal;
    case Kind::kFenceOurselves:
      owner_.newer_timeline(hello.history, hello.identity.node);
      co_return verdict.refusal;
    case Kind::kVerifyDialer: {
      auto digest = co_await log_.digest_at(hello.head.lsn);
      // Only that the log does not reach back is an answer: the peer must not go on without the
      // records that it lost because they could not be read just now.
      if (!digest && digest.error().code != ErrorCode::kNotFound) {
        co_return message::Refuse{
            ErrorCode::kUnavailable,
            fmt::format("this copy has more than node {}, which ends at LSN {}, and cannot compare "
                        "them: {}; it is tried again, look at the disk here if this stays",
                        hello.identity.node, hello.head.lsn.value, digest.error().message),
            ours.history};
      }
      if (!digest) {
        co_return message::Refuse{
            ErrorCode::kRefused,
            fmt::format("node {} ends at LSN {}, before this copy's log: {}", hello.identity.node,
                        hello.head.lsn.value, digest.error().message),
            ours.history};
      }
      if (*digest != hello.head.digest)
        co_return digest_refusal(ours, hello.identity.node, hello.head.lsn);
      break;
    }
    case Kind::kRewind: {
      // A former primary: what it alone holds becomes a branch, and it follows from where they
      // part.
      auto rewinding = go_back(verdict.common);
      auto rewound = co_await std::move(rewinding);
      if (!rewound) {
        auto refusal = verdict.refusal;
        refusal.reason += fmt::format(" (going back to LSN {} is not possible: {})",
                                      verdict.common.value, rewound.error().message);
        co_return refusal;
      }
      break;
    }
    case Kind::kWelcome:
      break;
  }
  if (held_) {
    co_return message::Refuse{
        ErrorCode::kBusy,
        fmt::format("group {} is being promoted on this node", log_.identity().name), ours.history};
  }
  if (log_.head().lsn != log_.tail().lsn) {
    co_return message::Refuse{
        ErrorCode::kBusy,
        fmt::format("group {} still writes its last records; dial again", log_.identity().name),
        ours.history};
  }
  session.received = session.written = log_.head().lsn;
  session.durable = log_.durable();
  session.chain = log_.head().digest;
  session.deadline = clock_.monotonic() + options_.handshake_timeout;
  if (session.ended) co_return std::nullopt;
  message::Welcome welcome;
  welcome.versions = options_.versions;
  welcome.identity = log_.identity();
  welcome.role = owner_.role();
  welcome.head = log_.head();
  welcome.durable = session.durable;
  welcome.history = log_.history();
  session.link->send(Message(std::move(welcome)));
  co_return std::nullopt;
}

Task<void> Applier::serve(Session& session) {
  session.inquiries.emplace(executor_, clock_, log_, options_, *session.link);
  spawn(ack_pump(session));
  co_await receive_loop(session);
  const bool was_upstream = session.phase != Phase::kHandshake;
  end_session(session, "the stream ended");
  session.ack_wake.notify_all();
  session.room.notify_all();
  co_await session.inquiries->close(session.end_reason);
  co_await session.work.close();
  if (session.installing) log_.abandon_install();
  if (was_upstream && !stopping_) set_upstream("lost", session.end_reason);
}

// The dialer's choice of a starting point.
Task<Status> Applier::begin(Session& session, message::Start start) {
  if (session.phase != Phase::kHandshake && session.phase != Phase::kGiving)
    co_return Error{ErrorCode::kInvalid, "a second Start on a stream that has begun"};
  if (start.after > session.written || (start.from_image && session.phase == Phase::kGiving)) {
    co_return Error{ErrorCode::kInvalid,
                    fmt::format("Start behind LSN {}, but this copy ends at LSN {}",
                                start.after.value, session.written.value)};
  }
  const bool is_relay = session.hello.role == Role::kMirror;
  if (is_relay && start.after < session.written && !start.from_image)
    co_return Error{ErrorCode::kInvalid, "a mirror asks for records; only a primary may"};
  if (owner_.role() == Role::kFenced) {
    // The dialer has verified that nothing here is our own: we may follow.
    auto changed = co_await owner_.become_mirror();
    if (!changed) co_return changed;
    if (session.ended) co_return ok();
  }
  if (owner_.role() != Role::kMirror)
    co_return Error{ErrorCode::kBusy, "this copy is not a mirror any more"};
  upstream_node_ = primary_node_ = session.hello.identity.node;
  if (is_relay) {
    const auto& sources = session.hello.sources;
    primary_node_ = sources.empty() ? "" : sources.front().node;
  }
  if (start.from_image) {
    session.phase = Phase::kImage;
    set_upstream("image", "receiving what the log does not reach any more");
  } else if (start.after < session.written) {
    if (session.phase == Phase::kGiving)
      co_return Error{ErrorCode::kInvalid, "a second Start before the end of our log"};
    session.phase = Phase::kGiving;
    set_upstream("catch-up", "giving the primary the records that it lost in a crash");
    spawn(give(session, start.after));
  } else {
    session.phase = Phase::kFollowing;
    session.common = start.after;
    set_upstream("following", "");
  }
  owner_.upstream_began();
  co_return ok();
}

void Applier::end_session(Session& session, std::string reason) {
  if (session.ended) return;
  session.ended = true;
  if (session.end_reason.empty()) session.end_reason = std::move(reason);
  session.link->close();
  if (session.inquiries) session.inquiries->end(session.end_reason);
  session.ack_wake.notify_all();
  session.room.notify_all();
}

Task<Result<IoBuffer>> Applier::fetch_block(BlockVersion version) {
  auto holder = running_.hold();
  // Not before the primary streams: until then it would take a question for nonsense.
  const bool streams = current_ != nullptr && !current_->ended && !held_ &&
                       (current_->phase == Phase::kFollowing || current_->phase == Phase::kImage);
  if (!streams) co_return Error{ErrorCode::kUnavailable, "no primary is connected"};
  const bool follows = current_->phase == Phase::kFollowing;
  version.through = follows ? std::min(version.through, current_->common) : Lsn{};
  co_return co_await current_->inquiries->ask_block(version);
}

void Applier::tick() {
  const auto now = clock_.monotonic();
  // Closing may resume nothing inline (port/link.h), so the list does not change here.
  for (const Parting& parting : parting_)
    if (now >= parting.deadline) parting.link->close();
  if (current_ == nullptr || current_->ended) return;
  Session& session = *current_;
  const bool has_deadline = session.phase == Phase::kHandshake || session.phase == Phase::kLeaving;
  if (has_deadline) {
    if (!session.busy && now >= session.deadline)
      end_session(session, "the primary did not go on after the handshake");
  } else if (is_silent(session)) {
    end_session(session, fmt::format("node {} has been silent for {:.0f} s", upstream_node_,
                                     std::chrono::duration<double>(options_.timeout).count()));
  }
}

Task<void> Applier::hold() {
  auto holder = running_.hold();
  held_ = true;
  while (current_ != nullptr && (current_->busy || current_->batches != 0 || current_->flushing)) {
    co_await idle_.wait();
  }
  if (current_ != nullptr && current_->phase == Phase::kImage) {
    if (current_->installing) log_.abandon_install();
    current_->installing = false;
    end_session(*current_, "the copy was given up for a promotion");
  }
}

void Applier::release(std::optional<message::Refuse> farewell) {
  held_ = false;
  if (current_ == nullptr || current_->ended) return;
  if (!farewell) {
    end_session(*current_, "a promotion was given up");
    return;
  }
  current_->link->send(Message(std::move(*farewell)));
  current_->phase = Phase::kLeaving;
  current_->deadline = clock_.monotonic() + options_.parting_time;
}

void Applier::drop(std::string reason) {
  if (current_ != nullptr) end_session(*current_, std::move(reason));
}

Task<void> Applier::stop() {
  if (!stopping_) {
    stopping_ = true;
    ticker_.stop();
    drop("this node stops");
    for (const Parting& parting : parting_) parting.link->close();
  }
  co_await running_.close();
}

}  // namespace tandem::replication
