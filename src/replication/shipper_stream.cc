// The streaming part of Shipper: the order of records, the window, acknowledgements, the gate.
#include <algorithm>
#include <utility>

#include "format/checksum.h"
#include "replication/shipper.h"
#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::replication {

namespace {

/// A mirror that took nothing for so long may wait to hear what it can let go.
constexpr Nanoseconds kStuck = std::chrono::milliseconds(50);

constexpr const char* kSendsDifference =
    "the mirror's position is not in the log: sending what changed";
constexpr const char* kCopiesAll =
    "the mirror's position is not in the log: copying the whole group";

/// Disks that were copied or wiped are full of zeroes, whose blocks an image carries like others.
bool is_mostly_zero(const message::ImageBlocks& blocks) {
  const auto zero = std::count_if(blocks.entries.begin(), blocks.entries.end(), [](const auto& e) {
    return e.crc32c == format::crc32c_of_zero_block();
  });
  return 2 * static_cast<std::size_t>(zero) > blocks.entries.size();
}

}  // namespace

Task<void> Shipper::stream(Plan plan) {
  if (link_failed_) co_return;
  link_->send(Message(message::Start{.after = plan.after, .from_image = plan.image}));
  sent_ = plan.after;
  sent_payload_ = acked_payload_;
  gathering_since_.reset();
  in_flight_.clear();
  in_flight_bytes_ = 0;
  pace_.reset(clock_.monotonic());
  stalled_until_ = unreadable_;
  flush_wanted_.reset();
  flush_asked_.reset();
  const auto now = clock_.monotonic();
  last_contact_ = last_heartbeat_ = last_progress_ = now;
  streaming_ = true;
  inquiries_.emplace(executor_, clock_, log_, options_, *link_);
  settled_ = true;
  ask_until_.reset();
  heads_sent_.clear();
  if (plan.image) open_gate("the mirror's position is not in the log");
  if (plan.image) {
    set_state(State::kImage, plan.since ? kSendsDifference : kCopiesAll);
  } else {
    set_state(State::kCatchUp, "shipping the log from the mirror's position");
  }
  update_gate();
  send_heartbeat(false);
  owner_.slot_changed();

  sender_running_ = true;
  spawn(send_loop(plan));
  co_await receive_loop();
  if (!link_failed_) fail_link("the stream ended");
  while (sender_running_) co_await sender_done_.wait();
  co_await inquiries_->close(link_reason_);
  inquiries_.reset();

  streaming_ = false;
  in_flight_.clear();
  in_flight_bytes_ = 0;
  image_done_ = image_total_ = 0;
  image_point_.reset();
  if (!stopping_ && state_ != State::kRefused) set_state(State::kConnecting, link_reason_);
  if (gating_ && !stopping_ && state_ != State::kRefused) {
    // A node that stalled may have lost its place to the mirror meanwhile: ask before going on
    // alone.
    ask_until_ = clock_.monotonic() + options_.timeout / 2;
  } else {
    open_gate(link_reason_);
  }
}

Task<void> Shipper::receive_loop() {
  while (!link_failed_) {
    auto received = co_await link_->receive();
    if (!received) {
      fail_link(received.error().message);
      co_return;
    }
    if (link_failed_) co_return;
    last_contact_ = clock_.monotonic();
    last_contact_utc_ = clock_.utc();
    if (inquiries_->take(*received)) continue;
    if (const auto* ack = std::get_if<message::Ack>(&*received)) {
      on_ack(*ack);
    } else if (const auto* refusal = std::get_if<message::Refuse>(&*received)) {
      // It cannot follow a rollback to what it does not keep, nor take a difference from that.
      if (refusal->code == ErrorCode::kNotFound)
        (image_point_ ? difference_refused_ : image_wanted_) = true;
      // Before anything is released: the owner may have to fence first.
      heed_refusal(*refusal, node_);
      fail_link(refusal->reason);
    } else {
      fail_link(
          "the mirror sent a message that only a primary sends; check that both nodes run "
          "the same release of tandemd");
    }
  }
}

Task<void> Shipper::send_loop(Plan plan) {
  Status status = ok();
  if (plan.image) {
    auto sent = co_await send_image(std::move(plan.since));
    if (!sent) status = sent;
  }
  while (status && !link_failed_) {
    if (link_->backlog_bytes() >= options_.link_backlog_bytes) {
      co_await link_->drained_below(options_.link_backlog_bytes);
      continue;
    }
    if (sent_ < shippable() && !window_full()) {
      if (paced() && !pace_.is_free(clock_.monotonic())) {
        co_await keep_pace();
        continue;
      }
      if (const auto pause = time_to_gather(); pause > Nanoseconds(0)) {
        co_await wait_at_most(executor_, wake_, pause);
        continue;
      }
      gathering_since_.reset();
      auto shipped = co_await ship_next();
      if (!shipped) status = shipped;
      if (heartbeat_is_early()) send_heartbeat(false);
      continue;
    }
    if (flush_due()) {
      send_heartbeat(true);
      continue;
    }
    co_await wake_.wait();
  }
  if (!status && !link_failed_) {
    log_event(Level::kWarn, "slot.ship-failed", "group={} mirror={} after_lsn={} reason=\"{}\"",
              log_.identity().name, slot_.address, sent_.value, status.error().message);
    // No writer may wait for what cannot be sent, however often it is tried.
    if (status.error().code != ErrorCode::kNotFound) unreadable_ = sent_.next();
    if (unreadable_) open_gate(status.error().message);
    fail_link(status.error().message);
  }
  sender_running_ = false;
  sender_done_.notify_all();
}

Task<Status> Shipper::ship_next() {
  const std::size_t bytes = gating_ ? options_.batch_bytes : paced_bytes(options_.catch_up_bytes);
  const Lsn after = sent_;
  auto read = co_await log_.read_after(after, bytes);
  while (read && !link_failed_ && is_relay() && read->last > shippable()) co_await wake_.wait();
  if (link_failed_) co_return ok();
  if (!read) {
    // kNotFound: the log was let go while the mirror lagged. The next handshake copies an image.
    co_return read.error();
  }
  if (read->empty()) {
    // The records are on their way to the local device and not readable yet: a moment later.
    co_await next_turn(executor_);
    co_return ok();
  }
  CHECK(read->first == after.next());
  if (in_flight_.empty()) last_progress_ = clock_.monotonic();
  const std::size_t payload = read->payload_bytes();
  sent_ = read->last;
  sent_payload_ += payload;
  const auto now = clock_.monotonic();
  if (read->appended) log_.times().add(Stage::kShip, now - *read->appended);
  log_.times().add(Batch::kShipped, read->last.value - after.value);
  // Only where its writers wait for it: in other modes a flush may follow on its heels.
  const bool awaited = gating_ && slot_.mode == ReplicationMode::kSync;
  const bool lone = awaited && in_flight_.empty() && sent_ == shippable();
  in_flight_.push_back({sent_, sent_payload_, payload + read->records.size(), now});
  in_flight_bytes_ += in_flight_.back().bytes;
  const bool flush = flush_due();
  if (flush) {
    flush_asked_ = sent_;
    flush_asked_at_ = clock_.monotonic();
  }
  if (const auto rate = rate_limit(); rate && paced())
    pace_.spend(clock_.monotonic(), payload, *rate);
  link_->send(Message(message::Records{std::move(*read), flush, compresses(), lone}));
  co_return ok();
}

// How long to let more records join those that are not sent yet; 0: send them.
Nanoseconds Shipper::time_to_gather() {
  const auto now = clock_.monotonic();
  if (!gathering_since_) gathering_since_ = now;
  const bool awaited = (gating_ && slot_.mode == ReplicationMode::kSync) ||
                       owner_.holds_writers() || flush_due() || flush_wanted_.has_value();
  const std::uint64_t bytes = log_.tail().payload_bytes - sent_payload_;
  if (awaited || state_ != State::kFollowing || bytes >= options_.batch_bytes)
    return Nanoseconds(0);
  return std::max(Nanoseconds(0), *gathering_since_ + options_.gather_time - now);
}

void Shipper::wake() {
  // Most records only join those that are gathered: that wakes nobody.
  if (gathering_since_ && time_to_gather() > Nanoseconds(0)) return;
  if (is_relay() && streaming_ && sent_ >= shippable()) return;
  wake_.notify_all();
}

// The limit is for bulk work. What a mirror that follows is sent is new, and writers may wait.
bool Shipper::paced() const {
  return !gating_ && (state_ == State::kImage || state_ == State::kCatchUp);
}

std::optional<std::uint64_t> Shipper::rate_limit() const {
  if (!policy_.catch_up_rate && policy_.catch_up_times.empty()) return std::nullopt;
  return policy_.rate_at(minute_of_day(clock_.utc()));
}

// Under a limit in steps of about a tenth of a second, so that the link is not filled in bursts.
std::size_t Shipper::paced_bytes(std::size_t most) const {
  const auto rate = rate_limit();
  if (!rate || !paced()) return most;
  return std::clamp<std::size_t>(*rate / 10, kBlockBytes, most);
}

// Until the next message may go, or anything happens: a flush to ask for, the end, another limit.
Task<void> Shipper::keep_pace() {
  const auto now = clock_.monotonic();
  if (flush_due()) send_heartbeat(true);
  // Not for long: the limit may change with the time of day.
  const auto pause = std::min<Nanoseconds>(pace_.free_at() - now, std::chrono::minutes(1));
  co_await wait_at_most(executor_, wake_, pause);
  if (!rate_limit()) pace_.reset(clock_.monotonic());
}

// "auto": a backlog here means that the link, not this node, is what limits.
bool Shipper::compresses() const {
  if ((peer_codecs_ & message::kCodecLz4) == 0) return false;
  if (policy_.compression == Compression::kAuto)
    return link_->backlog_bytes() >= options_.batch_bytes;
  return policy_.compression == Compression::kOn;
}

bool Shipper::window_full() const {
  return in_flight_bytes_ >= options_.window_bytes || in_flight_.size() >= options_.window_batches;
}

// True when the next message should ask for durability. At most one request is on its way, so that
// one flush of the mirror serves every flush that waits here; the answer asks again if need be.
bool Shipper::flush_due() {
  if (flush_asked_ || image_point_) return false;
  if (!flush_wanted_) {
    if (gating_ && log_.flush_waits_for_remote()) flush_wanted_ = log_.tail().lsn;
    if (durable_wanted_) flush_wanted_ = std::max(flush_wanted_.value_or(Lsn{0}), *durable_wanted_);
  }
  if (!flush_wanted_) return false;
  if (*flush_wanted_ <= acked_.durable) {
    flush_wanted_.reset();  // was covered meanwhile
    return false;
  }
  return sent_ >= *flush_wanted_;
}

void Shipper::send_heartbeat(bool flush) {
  last_heartbeat_ = clock_.monotonic();
  if (flush) {
    flush_asked_ = sent_;
    flush_asked_at_ = last_heartbeat_;
  }
  const LogPoint head = log_.head();
  if (heads_sent_.empty() || heads_sent_.back() != head) heads_sent_.push_back(head);
  if (heads_sent_.size() > kHeadsMax) heads_sent_.pop_front();
  said_payload_ = sent_payload_;
  said_agreed_ = agreed_.lsn;
  said_ = {head, log_.durable(), clock_.utc(), flush, owner_.durable_everywhere()};
  link_->send(Message(said_));
}

/// The next heartbeat would say something else than the last, or that was not found true yet.
bool Shipper::has_news() const {
  return !heads_sent_.empty() || said_.head != log_.head() || said_.durable != log_.durable() ||
         said_.everywhere != owner_.durable_everywhere();
}

/// What the mirror can let go depends on what it hears: after so much that was shipped, and when it
/// is stuck and there is something to tell.
bool Shipper::heartbeat_is_early() const {
  if (link_failed_ || !streaming_) return false;
  if (sent_payload_ - said_payload_ >= log_.unflushed_bytes_max()) return true;
  const bool is_stuck = !in_flight_.empty() && clock_.monotonic() - last_progress_ >= kStuck;
  return is_stuck && (said_.durable != log_.durable() || said_agreed_ != agreed_.lsn ||
                      said_.everywhere != owner_.durable_everywhere());
}

/// Nothing new is said half as often, as far as the mirror's patience allows.
Nanoseconds Shipper::heartbeat_interval() const {
  const Nanoseconds usual = options_.heartbeat_interval;
  if (has_news()) return usual;
  return std::max(usual, std::min(2 * usual, options_.timeout / 2));
}

Task<Status> Shipper::send_image(std::optional<LogPoint> since) {
  auto lock = co_await owner_.image_lock().lock();
  if (link_failed_) co_return ok();
  image_point_ = std::max(log_.log_start(), log_.head().lsn);
  owner_.slot_changed();
  Status status = ok();
  auto begun = co_await log_.begin_image(std::move(since));
  if (!begun) {
    image_point_.reset();
    co_return begun.error();
  }
  if (!begun->base) set_state(State::kImage, kCopiesAll);
  const LogPoint point = begun->point;
  while (is_relay() && status && point.lsn > shippable()) status = co_await log_.flush_local();
  image_point_ = point.lsn;
  image_total_ = begun->blocks_total;
  image_done_ = 0;
  owner_.slot_changed();
  if (status && !link_failed_) link_->send(Message(std::move(*begun)));
  while (status && !link_failed_) {
    co_await link_->drained_below(options_.link_backlog_bytes);
    while (!link_failed_ && !pace_.is_free(clock_.monotonic())) co_await keep_pace();
    if (link_failed_) break;
    auto blocks = co_await log_.read_image(paced_bytes(options_.bulk_bytes));
    if (!blocks) {
      status = blocks.error();
      break;
    }
    if (link_failed_ || blocks->entries.empty()) break;
    image_done_ += blocks->entries.size();
    if (const auto rate = rate_limit())
      pace_.spend(clock_.monotonic(), blocks->entries.size() * kBlockBytes, *rate);
    // Zeroes shrink to nearly nothing, so these never cost more than they save.
    const bool can_be = (peer_codecs_ & message::kCodecLz4) != 0;
    blocks->compress = compresses() || (can_be && is_mostly_zero(*blocks));
    link_->send(Message(std::move(*blocks)));
  }
  log_.end_image();
  if (status && !link_failed_) {
    image_at_ = point;
    link_->send(Message(message::ImageEnd{point}));
    sent_ = point.lsn;
    sent_payload_ = point.payload_bytes;
    in_flight_.push_back({sent_, sent_payload_, 0});
    last_progress_ = clock_.monotonic();
    set_state(State::kCatchUp, "the image was sent; shipping the log behind it");
  } else {
    image_point_.reset();
  }
  co_return status;
}

void Shipper::on_ack(const message::Ack& ack) {
  if (ack.written > sent_ || ack.received > sent_ || ack.durable > ack.written ||
      ack.agreed > ack.written) {
    fail_link(
        "the mirror acknowledged what it was never sent; check that both nodes run the same "
        "release of tandemd");
    return;
  }
  // Also what was found before still holds now, when nothing came since.
  const bool is_news = ack.agreed != agreement_.through || ack.agreed == log_.head().lsn;
  if (ack.agreed > Lsn{0} && is_news) agreement_ = {ack.agreed, clock_.utc(), ""};
  while (!heads_sent_.empty() && heads_sent_.front().lsn <= ack.agreed) {
    if (heads_sent_.front().lsn == ack.agreed) agreed_ = heads_sent_.front();
    heads_sent_.pop_front();
  }
  const bool had_full_window = window_full();
  const bool got_on = ack.written > acked_.written;
  if (got_on) last_progress_ = last_contact_;
  // Not before it has taken something, or has all: one that refuses each image, or the next record,
  // must not be sent it in a loop.
  if (state_ != State::kImage && !image_point_ && (got_on || ack.written == log_.tail().lsn))
    backoff_.reset();
  acked_.received = std::max(acked_.received, ack.received);
  acked_.written = std::max(acked_.written, ack.written);
  acked_.durable = std::max(acked_.durable, ack.durable);
  while (!in_flight_.empty() && in_flight_.front().last <= acked_.written) {
    acked_payload_ = in_flight_.front().payload_end;
    if (in_flight_.front().bytes != 0)  // not an image
      log_.times().add(Stage::kRoundTrip, last_contact_ - in_flight_.front().sent_at);
    in_flight_bytes_ -= in_flight_.front().bytes;
    in_flight_.pop_front();
  }
  if (image_point_ && acked_.durable >= *image_point_) {
    agreed_ = image_at_;
    image_point_.reset();
    image_wanted_ = difference_refused_ = false;
  }
  bool ask_again = false;
  if (flush_asked_ && acked_.durable >= *flush_asked_) {
    flush_asked_.reset();
    flush_wanted_.reset();
    ask_again = true;
  }
  if (durable_wanted_ && acked_.durable >= *durable_wanted_) durable_wanted_.reset();
  update_gate();
  owner_.slot_changed();
  settled_or_acked_.notify_all();
  if (heartbeat_is_early()) send_heartbeat(false);
  if (ask_again || (had_full_window && !window_full())) wake_.notify_all();
}

std::uint64_t Shipper::lag_records() const {
  const auto tail = log_.tail().lsn.value;
  return tail > acked_.written.value ? tail - acked_.written.value : 0;
}

std::uint64_t Shipper::lag_bytes() const {
  const auto tail = log_.tail().payload_bytes;
  return tail > acked_payload_ ? tail - acked_payload_ : 0;
}

// Decides whether the mirror follows, and whether writers wait for it.
void Shipper::update_gate() {
  if (!streaming_ || state_ == State::kImage || image_point_) return;
  if (stalled_until_) {
    if (acked_.written < *stalled_until_ || flush_asked_) return;
    stalled_until_.reset();
    unreadable_.reset();
  }
  const std::uint64_t records = lag_records();
  const std::uint64_t bytes = lag_bytes();
  const bool near =
      records <= options_.following_lag_records && bytes <= options_.following_lag_bytes;
  // A wide band between the two, so that a busy group does not change state all the time.
  const bool far =
      records > 16 * options_.following_lag_records || bytes > 16 * options_.following_lag_bytes;
  if (slot_.mode == ReplicationMode::kAsync) {
    gating_ = false;
  } else if (!gating_ && near) {
    gating_ = true;
    barrier_ = log_.tail().lsn;
    last_progress_ = clock_.monotonic();
    log_event(Level::kInfo, "slot.gated", "group={} mirror={} mode={} lsn={}", log_.identity().name,
              slot_.address, to_string(slot_.mode), barrier_.value);
  }
  caught_up_once_ = caught_up_once_ || near;
  if (near && state_ != State::kFollowing) {
    set_state(State::kFollowing, "");
  } else if (far && !gating_ && state_ == State::kFollowing) {
    set_state(State::kCatchUp, "the mirror or the network is slower than the writers");
  }
}

// Policy "degrade": writers that wait for this mirror are released, and it is said why.
void Shipper::open_gate(std::string reason) {
  ask_until_.reset();
  if (gating_) {
    gating_ = false;
    log_event(Level::kWarn, "slot.degraded",
              "group={} mirror={} mode={} written_lsn={} reason=\"{}\"", log_.identity().name,
              slot_.address, to_string(slot_.mode), acked_.written.value, reason);
    if (streaming_) set_state(State::kCatchUp, std::move(reason));
  }
  owner_.slot_changed();
}

}  // namespace tandem::replication
