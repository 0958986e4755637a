#include "replication/shipper.h"

#include <algorithm>
#include <utility>

#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::replication {
namespace {

double seconds(Nanoseconds d) { return std::chrono::duration<double>(d).count(); }

}  // namespace

Shipper::Shipper(Runtime runtime, ReplicatedLog& log, LinkDialer& dialer,
                 const ReplicationOptions& options, SlotOptions slot, ShipperOwner& owner)
    : executor_(runtime.executor),
      clock_(runtime.clock),
      log_(log),
      dialer_(dialer),
      options_(options),
      owner_(owner),
      role_(owner.role()),
      slot_(std::move(slot)),
      backoff_(runtime.random, options.backoff_first, options.backoff_max),
      ticker_(runtime, tick_period(options), [this] { tick(); }) {
  since_ = clock_.utc();
  agreed_ = slot_.agreed;
  if (slot_.last_known) {
    position_known_ = true;
    acked_ = {slot_.last_known->lsn, slot_.last_known->lsn, slot_.last_durable};
    acked_payload_ = slot_.last_known->payload_bytes;
    caught_up_once_ = acked_.written > Lsn{0};
  }
}

Shipper::~Shipper() { CHECK(!link_ && running_.held() == 0); }

void Shipper::start() {
  ticker_.start();
  spawn(run());
}

void Shipper::request_stop() {
  if (stopping_) return;
  stopping_ = true;
  ticker_.stop();
  fail_link("replication stops on this node");
  retry_.notify_all();
  settled_or_acked_.notify_all();
}

Task<void> Shipper::stop() {
  request_stop();
  co_await running_.close();
  set_state(State::kStopped, "this node does not ship this group");
}

SlotGate Shipper::gate() const {
  return {.mode = slot_.mode,
          .gating = gating_,
          .written = acked_.written,
          .durable = acked_.durable,
          .written_payload = acked_payload_,
          .confirmed = confirmed_,
          .caught_up_once = caught_up_once_,
          .name = node_.empty() ? slot_.address : node_,
          .reason = reason_};
}

std::optional<Lsn> Shipper::hold() const {
  if (leads_us_) return std::nullopt;
  if (image_point_) return *image_point_;
  return confirmed_ ? acked_.durable : log_.log_start();
}

SlotOptions Shipper::slot() const {
  SlotOptions slot = slot_;
  if (position_known_) {
    LogPoint point;
    point.lsn = acked_.written;
    point.payload_bytes = acked_payload_;
    slot.last_known = point;
    slot.last_durable = acked_.durable;
  }
  slot.agreed = agreed_;
  return slot;
}

const char* Shipper::text(State state) {
  switch (state) {
    case State::kConnecting:
      return "connecting";
    case State::kHandshake:
      return "handshake";
    case State::kFetching:
      return "fetching";
    case State::kImage:
      return "image";
    case State::kCatchUp:
      return "catch-up";
    case State::kFollowing:
      return "following";
    case State::kRefused:
      return "refused";
    case State::kStopped:
      return "stopped";
  }
  return "unknown";
}

SlotStatus Shipper::status() const {
  SlotStatus status;
  status.node = node_;
  status.address = slot_.address;
  status.state = text(state_);
  status.reason = reason_;
  if (const auto rate = rate_limit(); rate && paced())
    status.reason += fmt::format("; limited to {} KiB a second", *rate / 1024);
  status.since = since_;
  status.received = acked_.received;
  status.written = acked_.written;
  status.durable = acked_.durable;
  status.missing_records = lag_records();
  status.missing_bytes = lag_bytes();
  status.in_sync = gating_ && slot_.mode == ReplicationMode::kSync && acked_.written >= barrier_;
  status.last_contact = last_contact_utc_;
  status.agreement = agreement_;
  status.protocol = protocol_;
  status.progress_done = image_done_;
  status.progress_total = image_total_;
  return status;
}

void Shipper::set_state(State state, std::string reason) {
  // While it cannot connect, another reason is news too: first it was down, now it is not trusted.
  // And an image that turns out to be a full copy.
  const bool by_reason = state == State::kConnecting || state == State::kImage;
  const bool is_news = state != state_ || (by_reason && reason != reason_);
  if (state != state_) since_ = clock_.utc();
  reason_ = std::move(reason);
  state_ = state;
  if (!is_news) return;
  log_event(state == State::kRefused ? Level::kWarn : Level::kInfo, "slot.state",
            "group={} mirror={} node={} state={} reason=\"{}\"", log_.identity().name,
            slot_.address, node_, text(state), reason_);
}

// The same timeline with other records: never passed over, and shown until they agree again.
void Shipper::note_difference(const std::string& how) {
  if (agreement_.difference == how) return;
  agreement_.difference = how;
  log_event(Level::kError, "slot.diverged", "group={} mirror={} reason=\"{}\"",
            log_.identity().name, slot_.address, how);
}

CopyState Shipper::our_state(const message::Hello& hello) const {
  if (is_relay()) return {hello.identity, hello.role, hello.head, hello.history, hello.versions};
  // The tail counts, not the head: a mirror may have received what is still in flight here.
  return {log_.identity(), Role::kPrimary, log_.tail(), log_.history(), options_.versions};
}

message::VersionRange Shipper::versions() const {
  if (!is_relay()) return options_.versions;
  return {std::max(options_.versions.oldest, message::kRelayVersion), options_.versions.newest};
}

void Shipper::sources_changed() {
  if (is_relay() && link_ && sources_told_ != owner_.sources())
    fail_link("this mirror is fed by another node now");
}

void Shipper::fail_link(std::string reason) {
  if (!link_ || link_failed_) return;
  link_failed_ = true;
  link_reason_ = std::move(reason);
  link_->close();
  if (inquiries_) inquiries_->end(link_reason_);
  wake_.notify_all();
}

Task<void> Shipper::run() {
  auto holder = running_.hold();
  while (!stopping_) {
    co_await session();
    if (stopping_) break;
    co_await wait_at_most(executor_, retry_, backoff_.next());
  }
  open_gate("replication stops on this node");
}

/// Who we are, and what there is to ship: of a relay what is durable when this returns.
Task<Result<message::Hello>> Shipper::introduce() {
  message::Hello hello;
  hello.versions = versions();
  if (hello.versions.oldest > hello.versions.newest) {
    co_return Error{ErrorCode::kUnsupported,
                    fmt::format("to feed another mirror this one must speak version {} of the "
                                "replication protocol; see replication.protocol_max",
                                message::kRelayVersion)};
  }
  hello.identity = log_.identity();
  hello.role = role_;
  hello.mode = slot_.mode;
  hello.head = is_relay() ? log_.head() : log_.tail();
  hello.history = log_.history();
  if (is_relay()) {
    Status flushed = co_await log_.flush_local();
    if (!flushed) co_return flushed.error();
    hello.sources = sources_told_ = owner_.sources();
  }
  co_return hello;
}

Task<void> Shipper::session() {
  link_failed_ = false;
  link_reason_.clear();
  auto introduced = co_await introduce();
  if (stopping_) co_return;
  if (!introduced) co_return set_state(State::kRefused, introduced.error().message);
  const message::Hello& hello = *introduced;
  link_ = dialer_.dial(slot_.address);
  deadline_ = clock_.monotonic() + options_.handshake_timeout;
  auto welcome = co_await exchange_hello(hello);
  if (!welcome) {
    // A refusal has set state and reason already; a link that never came up keeps its old reason.
    if (state_ != State::kRefused || welcome.error().code != ErrorCode::kRefused)
      set_state(State::kConnecting, welcome.error().message);
    open_gate(reason_);
  } else {
    auto plan = co_await judge(hello, *welcome);
    if (plan) {
      co_await stream(*plan);
    } else {
      open_gate(reason_);
    }
  }
  link_.reset();
}

// Returns the Welcome; a Refuse is heeded here and reported as kRefused.
Task<Result<message::Welcome>> Shipper::exchange_hello(const message::Hello& hello) {
  link_->send(Message(hello));
  auto answer = co_await link_->receive();
  if (!answer) {
    co_return Error{ErrorCode::kUnavailable, link_failed_ ? link_reason_ : answer.error().message};
  }
  if (link_failed_) co_return Error{ErrorCode::kUnavailable, link_reason_};
  last_contact_ = clock_.monotonic();
  last_contact_utc_ = clock_.utc();
  if (auto* refusal = std::get_if<message::Refuse>(&*answer)) {
    heed_refusal(*refusal, link_->peer().empty() ? slot_.address : link_->peer());
    co_return Error{ErrorCode::kRefused, refusal->reason};
  }
  auto* welcome = std::get_if<message::Welcome>(&*answer);
  if (welcome == nullptr) {
    co_return Error{ErrorCode::kUnavailable,
                    "the peer answered the Hello with something else than Welcome or Refuse; check "
                    "that both nodes run the same release of tandemd"};
  }
  node_ = welcome->identity.node;
  peer_codecs_ = welcome->codecs;
  protocol_ = common_version(versions(), welcome->versions).value_or(0);
  co_return std::move(*welcome);
}

void Shipper::heed_refusal(const message::Refuse& refusal, const std::string& node) {
  if (stopping_) return;
  if (is_relay()) {
    // A newer timeline's primary may still have us go back to where it is.
    leads_us_ = refusal.code == ErrorCode::kFenced &&
                current_timeline(refusal.history) == current_timeline(log_.history()) &&
                !is_split(refusal.history, log_.history());
  } else if (is_newer(refusal.history, log_.history())) {
    owner_.newer_timeline(refusal.history, node);
    return;
  }
  if (!is_relay() && refusal.code == ErrorCode::kRefused) {
    const bool split = is_split(refusal.history, log_.history());
    owner_.note_split(node, refusal.history, split ? refusal.reason : "");
  }
  // kBusy and kUnavailable pass by themselves, so they are no answer to "does the peer know more".
  const bool transient =
      refusal.code == ErrorCode::kBusy || refusal.code == ErrorCode::kUnavailable;
  set_state(State::kRefused, refusal.reason);
  if (!transient) settled_ = true;
  owner_.slot_changed();
}

// Sends a refusal and waits until the peer closes, so that it is not lost with the link.
Task<void> Shipper::refuse(message::Refuse refusal) {
  set_state(State::kRefused, refusal.reason);
  settled_ = true;
  owner_.slot_changed();
  if (link_failed_) co_return;
  link_->send(Message(std::move(refusal)));
  deadline_ = clock_.monotonic() + options_.parting_time;
  while (true) {
    auto answer = co_await link_->receive();
    if (!answer) co_return;
  }
}

Task<Result<Shipper::Plan>> Shipper::judge(const message::Hello& hello,
                                           const message::Welcome& welcome) {
  using Kind = WelcomeVerdict::Kind;
  if (state_ != State::kRefused) set_state(State::kHandshake, "comparing histories");
  WelcomeVerdict verdict =
      judge_welcome(our_state(hello), log_.log_start(), owner_.may_fetch(), welcome);
  if (is_relay() && comes_from(owner_.sources(), welcome.identity.pool)) {
    const std::string reason = circle(hello.identity.name, node_, hello.identity.node);
    verdict = {Kind::kRefuse, {ErrorCode::kRefused, reason, hello.history}};
  }
  leads_us_ = false;
  if (!is_relay())
    owner_.note_split(node_, welcome.history, verdict.split ? verdict.refusal.reason : "");
  const Error given_up{ErrorCode::kRefused, "no plan"};
  Plan plan{.image = false, .after = welcome.head.lsn};
  switch (verdict.kind) {
    case Kind::kFenceOurselves:
      owner_.newer_timeline(welcome.history, welcome.identity.node);
      co_return given_up;
    case Kind::kRefuse:
      co_await refuse(verdict.refusal);
      co_return given_up;
    case Kind::kFetch: {
      auto fetched = co_await fetch(hello, welcome);
      if (!fetched) set_state(State::kConnecting, fetched.error().message);
      co_return fetched;
    }
    case Kind::kShipAll:
      acked_payload_ = 0;
      break;
    case Kind::kImage:
    case Kind::kShip: {
      // Also before an image: what an image would replace must be ours, if that can still be told.
      plan.image = verdict.kind == Kind::kImage || image_wanted_;
      if (welcome.head.lsn == Lsn{0}) break;
      auto digest = co_await log_.digest_at(welcome.head.lsn);
      if (link_failed_) co_return Error{ErrorCode::kUnavailable, link_reason_};
      if (!digest && digest.error().code == ErrorCode::kNotFound) {
        plan.image = true;
      } else if (!digest) {
        set_state(State::kConnecting, digest.error().message);
        co_return digest.error();
      } else if (*digest != welcome.head.digest) {
        auto refusal = digest_refusal(our_state(hello), welcome.identity.node, welcome.head.lsn);
        note_difference(refusal.reason);
        co_await refuse(std::move(refusal));
        co_return given_up;
      }
      if (digest) {
        agreement_ = {welcome.head.lsn, clock_.utc(), ""};
        agreed_ = welcome.head;
      }
      if (plan.image && may_differ_from(welcome.head.lsn)) plan.since = agreed_;
      break;
    }
  }
  position_known_ = confirmed_ = true;
  acked_ = {welcome.head.lsn, welcome.head.lsn, welcome.durable};
  acked_payload_ = welcome.head.payload_bytes;
  co_return plan;
}

// A difference from what both are known to hold, instead of a full copy.
bool Shipper::may_differ_from(Lsn their_end) const {
  return protocol_ >= 2 && !difference_refused_ && agreed_.lsn != Lsn{0} &&
         agreed_.lsn <= their_end;
}

// The mirror holds records of our own timeline that we lost in a crash: take them before serving.
Task<Result<Shipper::Plan>> Shipper::fetch(const message::Hello& hello,
                                           const message::Welcome& welcome) {
  set_state(State::kFetching, "taking the records that this node lost in its crash");
  auto lock = co_await owner_.fetch_lock().lock();
  if (link_failed_) co_return Error{ErrorCode::kUnavailable, link_reason_};
  if (log_.tail() != hello.head || !owner_.may_fetch()) {
    co_return Error{ErrorCode::kUnavailable, "the log grew during the handshake; dialling again"};
  }
  link_->send(Message(message::Start{.after = hello.head.lsn, .from_image = false}));
  last_contact_ = clock_.monotonic();
  deadline_ = last_contact_ + options_.handshake_timeout;
  while (log_.head().lsn < welcome.head.lsn) {
    auto answer = co_await link_->receive();
    if (!answer || link_failed_) {
      co_return Error{ErrorCode::kUnavailable,
                      link_failed_ ? link_reason_ : answer.error().message};
    }
    deadline_ = clock_.monotonic() + options_.handshake_timeout;
    auto* records = std::get_if<message::Records>(&*answer);
    if (records == nullptr) {
      co_return Error{ErrorCode::kUnavailable,
                      "the peer sent something else than the records "
                      "that this node lacks; dialling again"};
    }
    auto taking = take_record_batch(std::move(*records));
    auto taken = co_await std::move(taking);
    if (!taken) co_return taken.error();
  }
  auto flushed = co_await log_.flush_local();
  if (!flushed) co_return flushed.error();
  if (link_failed_) co_return Error{ErrorCode::kUnavailable, link_reason_};
  if (log_.head().digest != welcome.head.digest) {
    co_await refuse(digest_refusal(our_state(hello), welcome.identity.node, welcome.head.lsn));
    co_return Error{ErrorCode::kRefused, "no plan"};
  }
  log_event(Level::kInfo, "slot.fetched", "group={} mirror={} from_lsn={} to_lsn={}",
            log_.identity().name, slot_.address, hello.head.lsn.value, welcome.head.lsn.value);
  position_known_ = confirmed_ = true;
  acked_ = {welcome.head.lsn, welcome.head.lsn, welcome.durable};
  acked_payload_ = welcome.head.payload_bytes;
  co_return Plan{.image = false, .after = welcome.head.lsn};
}

Task<Status> Shipper::take_record_batch(message::Records records) {
  const Lsn last = records.batch.last;
  auto applying = log_.apply(std::move(records.batch));
  auto applied = co_await std::move(applying);
  if (applied) link_->send(Message(message::Ack{last, last, log_.durable()}));
  co_return applied;
}

void Shipper::tick() {
  const auto now = clock_.monotonic();
  if (ask_until_ && now >= *ask_until_) open_gate(reason_);
  if (!link_ || link_failed_) return;
  if (!streaming_) {
    if (now >= deadline_) {
      fail_link(fmt::format("{} did not answer within {:.0f} s", slot_.address,
                            seconds(options_.handshake_timeout)));
    }
    return;
  }
  if (now - last_contact_ >= options_.timeout) {
    fail_link(fmt::format("{} has been silent for {:.0f} s", slot_.address,
                          seconds(now - last_contact_)));
    return;
  }
  check_stall(now);
  // All slots of a node in the same turn: one write to the network instead of many.
  const Nanoseconds interval = heartbeat_interval();
  if (now / interval != last_heartbeat_ / interval &&
      link_->backlog_bytes() < options_.link_backlog_bytes) {
    send_heartbeat(false);
  }
}

// A mirror that answers but does not get on (a dying disk, say) must not hold the writers for ever.
void Shipper::check_stall(Nanoseconds now) {
  if (!gating_) return;
  const bool writes_stall = acked_.written < sent_ && now - last_progress_ >= options_.timeout;
  const bool flush_stalls = flush_asked_ && now - flush_asked_at_ >= options_.timeout;
  if (!writes_stall && !flush_stalls) return;
  stalled_until_ = sent_;
  open_gate(fmt::format("the mirror answers but has not {} anything for {:.0f} s; look at its disk",
                        writes_stall ? "written" : "flushed", seconds(options_.timeout)));
}

void Shipper::set_mode(ReplicationMode mode) {
  slot_.mode = mode;
  update_gate();
  owner_.slot_changed();
}

void Shipper::set_policy(SlotPolicy policy) {
  policy_ = std::move(policy);
  pace_.reset(clock_.monotonic());
  wake_.notify_all();
}

Task<Result<IoBuffer>> Shipper::fetch_block(BlockVersion version) {
  auto holder = running_.hold();
  if (!inquiries_) co_return Error{ErrorCode::kUnavailable, "it is not connected"};
  version.through = std::min(version.through, agreed_.lsn);
  co_return co_await inquiries_->ask_block(version);
}

Task<Status> Shipper::wait_durable(Lsn upto, Nanoseconds limit) {
  auto holder = running_.hold();
  const auto end = clock_.monotonic() + limit;
  while (!stopping_) {
    if (acked_.durable >= upto && streaming_) co_return ok();
    const auto now = clock_.monotonic();
    if (now >= end) {
      co_return Error{ErrorCode::kUnavailable,
                      fmt::format("mirror {} holds durably only up to LSN {} of {}: {}",
                                  slot_.address, acked_.durable.value, upto.value, reason_)};
    }
    durable_wanted_ = std::max(durable_wanted_.value_or(Lsn{0}), upto);
    wake_.notify_all();
    co_await wait_at_most(executor_, settled_or_acked_, end - now);
  }
  co_return Error{ErrorCode::kCancelled, "replication of this group stops"};
}

}  // namespace tandem::replication
