// The streaming part of Applier: records in order, the image, acknowledgements.
#include <algorithm>
#include <utility>

#include "replication/applier.h"
#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::replication {

Task<void> Applier::receive_loop(Session& session) {
  while (!session.ended) {
    auto received = co_await session.link->receive();
    if (!received) {
      end_session(session, received.error().message);
      co_return;
    }
    if (session.ended) co_return;
    session.last_contact = clock_.monotonic();
    last_contact_utc_ = clock_.utc();
    // While a promotion is under way, and when leaving, nothing is applied or acknowledged.
    const bool leaving = session.phase == Phase::kLeaving;
    const bool begun = session.phase != Phase::kHandshake && !leaving;
    if (begun && session.inquiries->take(*received)) continue;
    if (held_ || leaving) continue;
    session.busy = true;
    auto handling = handle(session, std::move(*received));
    auto handled = co_await std::move(handling);
    session.busy = false;
    session.last_contact = clock_.monotonic();
    if (held_) idle_.notify_all();
    if (!handled) fail(session, handled.error());
  }
}

// An error of ours or of the stream: say it, then close. The primary dials again.
void Applier::fail(Session& session, Error error) {
  if (session.ended || session.phase == Phase::kLeaving) return;
  log_event(Level::kWarn, "upstream.failed", "group={} primary={} code={} reason=\"{}\"",
            log_.identity().name, session.hello.identity.node, to_string(error.code),
            error.message);
  session.link->send(Message(
      message::Refuse{error.code, fmt::format("mirror {}: {}", log_.identity().node, error.message),
                      log_.history()}));
  session.phase = Phase::kLeaving;
  session.end_reason = std::move(error.message);
  session.deadline = clock_.monotonic() + options_.parting_time;
}

Task<Status> Applier::handle(Session& session, Message message) {
  if (const auto* heartbeat = std::get_if<message::Heartbeat>(&message)) {
    on_heartbeat(session, *heartbeat);
    co_return ok();
  }
  if (const auto* start = std::get_if<message::Start>(&message)) {
    const message::Start copy = *start;
    co_return co_await begin(session, copy);
  }
  if (auto* records = std::get_if<message::Records>(&message)) {
    auto taking = take_records(session, std::move(*records));
    co_return co_await std::move(taking);
  }
  if (session.phase == Phase::kImage) {
    auto taking = take_image(session, std::move(message));
    co_return co_await std::move(taking);
  }
  if (std::holds_alternative<message::Ack>(message) && session.phase == Phase::kGiving)
    co_return ok();  // the primary got on with what we give it
  if (const auto* refusal = std::get_if<message::Refuse>(&message)) {
    set_upstream("lost", refusal->reason);
    end_session(session, refusal->reason);
    co_return ok();
  }
  co_return Error{ErrorCode::kInvalid,
                  "a message that does not fit here; check that both nodes "
                  "run the same release of tandemd"};
}

Task<Status> Applier::take_records(Session& session, message::Records records) {
  const RecordBatch& batch = records.batch;
  if (session.phase != Phase::kFollowing)
    co_return Error{ErrorCode::kInvalid, "records before Start or within an image"};
  if (batch.empty() || batch.last < batch.first || batch.first != session.received.next() ||
      batch.before != session.chain) {
    co_return Error{ErrorCode::kInvalid,
                    fmt::format("records {} to {} do not follow LSN {} of this copy",
                                batch.first.value, batch.last.value, session.received.value)};
  }
  // Back-pressure: while this waits, nothing is read from the stream.
  while (!session.ended && (session.batches >= options_.apply_batches_max ||
                            session.bytes >= options_.apply_bytes_max)) {
    co_await session.room.wait();
  }
  if (session.ended || held_ || session.phase != Phase::kFollowing) co_return ok();
  session.received = batch.last;
  session.chain = batch.after;
  spawn(apply_batch(session, std::move(records.batch), records.flush));
  co_return ok();
}

Task<void> Applier::apply_batch(Session& session, RecordBatch batch, bool flush) {
  auto holder = session.work.hold();
  const Nanoseconds received = session.last_contact;  // the batch is what was heard last
  const Lsn last = batch.last;
  log_.times().add(Batch::kApplied, last.next().value - batch.first.value);
  const std::size_t bytes = batch.payload_bytes() + batch.records.size();
  ++session.batches;
  session.bytes += bytes;
  auto applying = log_.apply(std::move(batch));
  auto applied = co_await std::move(applying);
  --session.batches;
  session.bytes -= bytes;
  if (applied) {
    log_.times().add(Stage::kApply, clock_.monotonic() - received);
    session.written = std::max(session.written, last);
    compare_when_written(session);
    want_flush(session, flush ? last : session.flush_wanted);
    ack(session);
  } else {
    fail(session, applied.error());
  }
  session.room.notify_all();
  if (held_) idle_.notify_all();
}

// One flush at a time; it serves every request that came before it began. It waits until what was
// asked for is written, which ends because the primary has at most one request on its way.
void Applier::want_flush(Session& session, Lsn upto) {
  session.flush_wanted = std::max(session.flush_wanted, upto);
  if (session.flushing || session.ended || held_) return;
  if (session.flush_wanted <= session.durable || session.written < session.flush_wanted) return;
  session.flushing = true;
  spawn(flush_once(session));
}

Task<void> Applier::flush_once(Session& session) {
  auto holder = session.work.hold();
  const Lsn covers = session.written;
  const Nanoseconds begun = clock_.monotonic();
  auto flushed = co_await log_.flush_local();
  session.flushing = false;
  if (!flushed) {
    fail(session, flushed.error());
  } else {
    log_.times().add(Stage::kApplyFlush, clock_.monotonic() - begun);
    session.durable = std::max(session.durable, covers);
    ack(session);
    want_flush(session, session.flush_wanted);
  }
  if (held_) idle_.notify_all();
}

void Applier::ack(Session& session) {
  session.ack_due = true;
  session.ack_wake.notify_all();
}

// Coalesces: everything that completes in one turn of the reactor is one message.
Task<void> Applier::ack_pump(Session& session) {
  auto holder = session.work.hold();
  while (!session.ended) {
    if (!session.ack_due) {
      co_await session.ack_wake.wait();
      continue;
    }
    co_await next_turn(executor_);
    session.ack_due = false;
    if (session.ended || held_ || session.phase == Phase::kLeaving) continue;
    session.link->send(
        Message(message::Ack{session.received, session.written, session.durable, session.agreed}));
  }
}

void Applier::on_heartbeat(Session& session, const message::Heartbeat& heartbeat) {
  if (!head_known_ || heartbeat.head.lsn >= primary_head_.lsn ||
      heartbeat.head.timeline > primary_head_.timeline) {
    primary_head_ = heartbeat.head;
    head_known_ = true;
  }
  if (session.phase == Phase::kFollowing) {
    // A return of the primary may need what lies behind the one, a difference the other. A primary
    // of an older release does not know of other mirrors; a relay may not have been told yet.
    auto everywhere = heartbeat.everywhere;
    if (!everywhere && session.hello.role == Role::kPrimary) everywhere = heartbeat.durable;
    if (everywhere) owner_.upstream_holds(std::min(heartbeat.durable, session.common), *everywhere);
    session.common = std::max(session.common, session.agreed);
    // Also without a request, so that the primary may let go of its log.
    want_flush(session, heartbeat.flush ? session.received : session.written);
  }
  if (session.phase == Phase::kFollowing) {
    auto& heads = session.to_compare;
    if (heads.size() < kHeadsMax && (heads.empty() || heads.back() != heartbeat.head))
      heads.push_back(heartbeat.head);
    compare_when_written(session);
  }
  ack(session);  // the answer that shows that we live
}

// The newest position of a heartbeat that is written here: the primary's digest there against this
// copy's own. One at a time.
void Applier::compare_when_written(Session& session) {
  if (session.comparing || session.ended) return;
  std::optional<LogPoint> newest;
  auto& heads = session.to_compare;
  for (; !heads.empty() && heads.front().lsn <= session.written; heads.pop_front())
    newest = heads.front();
  if (!newest) return;
  session.comparing = true;
  spawn(compare(session, *newest));
}

Task<void> Applier::compare(Session& session, LogPoint point) {
  auto holder = session.work.hold();
  auto ours = co_await log_.digest_at(point.lsn);
  session.comparing = false;
  if (!ours || session.ended) co_return;  // the log does not reach back: the next one will do
  if (*ours == point.digest) {
    agreement_ = {point.lsn, clock_.utc(), ""};
    session.agreed = std::max(session.agreed, point.lsn);
    ack(session);
    co_return;
  }
  agreement_.difference = fmt::format(
      "at record {} of timeline {} this copy has another history than its primary {}; "
      "nothing more is followed. Keep both, and compare them with tandem-inspect",
      point.lsn.value, point.timeline.value, session.hello.identity.node);
  log_event(Level::kError, "upstream.diverged", "group={} primary={} lsn={} reason=\"{}\"",
            log_.identity().name, session.hello.identity.node, point.lsn.value,
            agreement_.difference);
  fail(session, Error{ErrorCode::kCorrupt, agreement_.difference});
}

Task<Status> Applier::take_image(Session& session, Message message) {
  if (auto* begin = std::get_if<message::ImageBegin>(&message)) {
    session.installing = true;
    auto beginning = log_.begin_install(std::move(*begin));
    co_return co_await std::move(beginning);
  }
  if (auto* blocks = std::get_if<message::ImageBlocks>(&message)) {
    auto installing = log_.install_blocks(std::move(*blocks));
    co_return co_await std::move(installing);
  }
  const auto* end = std::get_if<message::ImageEnd>(&message);
  if (end == nullptr) co_return Error{ErrorCode::kInvalid, "a message that is not of an image"};
  const message::ImageEnd copy = *end;
  co_await owner_.before_replacing();
  auto installed = co_await log_.finish_install(copy);
  owner_.after_replacing();
  if (!installed) co_return installed;
  session.installing = false;
  auto flushed = co_await log_.flush_local();
  if (!flushed) co_return flushed;
  if (log_.head().lsn != copy.point.lsn || log_.head().digest != copy.point.digest)
    co_return Error{ErrorCode::kCorrupt, "the installed image is not at the point it was taken"};
  session.received = session.written = session.durable = copy.point.lsn;
  session.chain = copy.point.digest;
  session.phase = Phase::kFollowing;
  session.common = copy.point.lsn;
  set_upstream("following", "");
  ack(session);
  co_return ok();
}

// The primary lost its newest records in a crash and has not served since: send it ours.
Task<void> Applier::give(Session& session, Lsn after) {
  auto holder = session.work.hold();
  while (!session.ended && !held_ && after < session.written) {
    co_await session.link->drained_below(options_.link_backlog_bytes);
    if (session.ended || held_) break;
    auto read = co_await log_.read_after(after, options_.bulk_bytes);
    if (session.ended) break;
    if (!read || read->empty()) {
      fail(session,
           read ? Error{ErrorCode::kCorrupt, "the log ends before its own end"} : read.error());
      break;
    }
    after = read->last;
    session.last_contact = clock_.monotonic();
    session.link->send(Message(message::Records{std::move(*read), false}));
  }
}

}  // namespace tandem::replication
