#include "frontend/nbd/session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "tandem/base/check.h"
#include "tandem/base/log.h"

namespace tandem::nbd {

namespace {

// Writes from this size on are received straight into their buffer.
constexpr std::size_t kLargeWriteBytes = 64 << 10;
// What may be received together with the tail of a large payload, to be copied afterwards.
constexpr std::size_t kBehindLargeBytes = 4 << 10;
// Receives in a row before other connections get their turn.
constexpr int kReceivesInARow = 4;
constexpr std::size_t kGatherMax = 256;

}  // namespace

Session::Session(SessionContext& context, int fd, std::string peer, bool local)
    : context_(context),
      options_(context.options),
      transport_(context.readiness, fd, std::move(peer), local),
      input_(context.options.input_bytes) {}

Session::~Session() { CHECK(requests_ == 0 && !writer_waits_); }

Task<void> Session::run() {
  co_await negotiate();
  if (agreement_.volume) co_await serve();
  co_await finish();
}

void Session::stop() {
  intake_closed_ = true;
  if (negotiating_) {
    transport_.shutdown();
  } else {
    transport_.interrupt();
    post_wake();
  }
}

Task<void> Session::negotiate() {
  const TimerId deadline =
      context_.executor.schedule_after(options_.handshake_max, [this] { transport_.shutdown(); });
  Negotiation negotiation(transport_, input_, context_.directory, options_, context_.tls);
  std::optional<Agreement> agreed = co_await negotiation.run();
  context_.executor.cancel(deadline);
  negotiating_ = false;
  if (agreed) {
    agreement_ = std::move(*agreed);
    log_event(Level::kInfo, "nbd.opened", "export={} client={} tls={} structured={} read_only={}",
              agreement_.info.name, transport_.peer(), transport_.encrypted(),
              agreement_.structured, agreement_.info.read_only);
    co_return;
  }
  ++context_.stats.handshakes_failed_total;
  if (negotiation.violation()) ++context_.stats.violations_total;
  log_event(negotiation.violation() ? Level::kWarn : Level::kDebug, "nbd.handshake_ended",
            "client={} reason=\"{}\"", transport_.peer(), printable(negotiation.ended()));
}

Task<void> Session::serve() {
  while (!intake_closed_ && !broken_) {
    in_burst_ = true;
    parse_burst();
    in_burst_ = false;
    flush_replies();
    if (intake_closed_ || broken_) break;
    if (input_.size() < kRequestBytes || payload_ || drain_) {
      co_await receive_more();
    } else if (is_full()) {
      // Replies that leave make room; until then nothing is read from this client.
      co_await progress_.wait();
    }
  }
}

/// Receives once at least, or ends the intake.
Task<void> Session::receive_more() {
  while (!intake_closed_ && !broken_) {
    if (socket_drained_ || receives_in_a_row_++ == kReceivesInARow) {
      socket_drained_ = false;
      receives_in_a_row_ = 0;
      co_await transport_.readable();
      continue;
    }
    iovec into[2];
    std::size_t pieces = 0;
    std::size_t wanted_by_payload = 0;
    if (payload_) {
      // Everything received was copied into the payload before, so its tail comes next.
      wanted_by_payload = payload_->data.size() - payload_->filled;
      into[pieces++] = {payload_->data.data() + payload_->filled, wanted_by_payload};
    }
    auto space = input_.space();
    if (large_writes_) space = space.first(std::min(space.size(), kBehindLargeBytes));
    into[pieces++] = {space.data(), space.size()};

    const IoResult got = transport_.receive({into, pieces});
    if (got.kind == IoResult::Kind::kAgain) {
      socket_drained_ = true;
      continue;
    }
    if (got.kind == IoResult::Kind::kEnd) {
      intake_closed_ = true;
      co_return;
    }
    const std::size_t to_payload = std::min(got.bytes, wanted_by_payload);
    if (payload_) payload_->filled += to_payload;
    input_.commit(got.bytes - to_payload);
    socket_drained_ = got.bytes < wanted_by_payload + space.size();
    co_return;
  }
}

void Session::parse_burst() {
  while (!intake_closed_) {
    const bool advanced = payload_ ? parse_payload() : drain_ ? parse_drain() : parse_header();
    if (!advanced) return;
  }
}

/// False: the input holds no further header, or there is no room for its request now.
bool Session::parse_header() {
  const auto bytes = input_.available();
  if (bytes.size() < kRequestBytes) return false;
  const auto request = decode_request(bytes.first<kRequestBytes>());
  if (!request) {
    violation("the client sent something that is not an NBD request");
    return false;
  }
  if (request->type == command::kDisc) {
    intake_closed_ = true;
    return false;
  }
  if (!admits(*request)) return false;
  input_.consume(kRequestBytes);
  begin(*request);
  return true;
}

bool Session::parse_payload() {
  const auto bytes = input_.available();
  const std::size_t take = std::min(bytes.size(), payload_->data.size() - payload_->filled);
  if (take > 0) {
    std::memcpy(payload_->data.data() + payload_->filled, bytes.data(), take);
    payload_->filled += take;
    input_.consume(take);
  }
  if (payload_->filled < payload_->data.size()) return false;
  const Request request = payload_->request;
  IoBuffer data = std::move(payload_->data);
  payload_.reset();
  execute(request, std::move(data));
  return true;
}

bool Session::parse_drain() {
  const std::size_t take = std::min(input_.size(), drain_->left);
  input_.consume(take);
  drain_->left -= take;
  if (drain_->left > 0) return false;
  const Drain done = *drain_;
  drain_.reset();
  reply_error(done.request, done.refusal.error, done.refusal.message);
  return true;
}

std::size_t Session::charge_of(const Request& request) const {
  const bool carries_data = request.type == command::kRead || request.type == command::kWrite;
  // What is longer is refused and holds no memory.
  return carries_data && request.length <= options_.payload_bytes_max ? request.length : 0;
}

bool Session::admits(const Request& request) const {
  // One is always admitted: its end is what makes a session look again.
  const std::size_t charge = charge_of(request);
  return requests_ == 0 ||
         (requests_ < options_.requests_max && bytes_ + charge <= options_.bytes_max &&
          context_.bytes + charge <= options_.all_bytes_max);
}

/// A whole header is in the input, but its request has to wait.
bool Session::is_full() const {
  const auto next = decode_request(input_.available().first<kRequestBytes>());
  return next && !admits(*next);
}

/// The header of `request` was taken from the input; its payload, if any, follows there.
void Session::begin(const Request& request) {
  ++requests_;
  ++requests_total_;
  ++at_volume_;
  bytes_ += charge_of(request);
  context_.bytes += charge_of(request);
  const auto refusal = judge(request, agreement_, options_.payload_bytes_max);
  if (request.type == command::kWrite) {
    large_writes_ = request.length >= kLargeWriteBytes;
    if (refusal) {
      drain_ = Drain{request, *refusal, request.length};
    } else {
      payload_ = Payload{request, context_.pool.allocate(request.length), 0};
    }
    return;
  }
  if (refusal) {
    reply_error(request, refusal->error, refusal->message);
  } else {
    execute(request, IoBuffer());
  }
}

void Session::violation(const char* what) {
  ++context_.stats.violations_total;
  intake_closed_ = true;
  log_event(Level::kWarn, "nbd.violation", "export={} client={} reason=\"{}\"",
            agreement_.info.name, transport_.peer(), what);
}

/// A reply was added to the queue: sends it now if no other can come in this turn, else with them.
void Session::replied() {
  --at_volume_;
  if (in_burst_ || writer_waits_) return;
  if (at_volume_ == 0 || broken_) {
    flush_replies();
  } else {
    post_flush();
  }
}

void Session::post_flush() {
  if (std::exchange(flush_posted_, true)) return;
  context_.executor.post([self = shared_from_this()] {
    self->flush_posted_ = false;
    if (!self->in_burst_) self->flush_replies();
  });
}

/// Resumes the waiters of progress_ in a turn of their own: this may be deep inside the volume.
void Session::post_wake() {
  if (std::exchange(wake_posted_, true)) return;
  context_.executor.post([self = shared_from_this()] {
    self->wake_posted_ = false;
    self->progress_.notify_all();
  });
}

void Session::flush_replies() {
  if (writer_waits_) return;
  if (broken_) {
    release(replies_.clear());
    return;
  }
  ReplyQueue::Released released;
  while (!replies_.empty()) {
    iovec pieces[kGatherMax];
    const std::size_t count = replies_.gather(pieces);
    const IoResult sent = transport_.send({pieces, count});
    if (sent.kind == IoResult::Kind::kBytes) {
      const auto left = replies_.advance(sent.bytes);
      released.requests += left.requests;
      released.bytes += left.bytes;
    } else if (sent.kind == IoResult::Kind::kAgain) {
      writer_waits_ = true;
      spawn(write_when_possible(shared_from_this()));
      break;
    } else {
      give_up();
      break;
    }
  }
  release(released);
}

Task<void> Session::write_when_possible(std::shared_ptr<Session> self) {
  // An interrupted wait is no reason to stop: the replies still have to go.
  co_await self->transport_.writable();
  self->writer_waits_ = false;
  self->flush_replies();
  if (!self->writer_waits_) self->post_wake();
}

void Session::release(ReplyQueue::Released released) {
  CHECK(released.requests <= requests_ && released.bytes <= bytes_);
  requests_ -= released.requests;
  bytes_ -= released.bytes;
  context_.bytes -= released.bytes;
  if (released.requests > 0 && progress_.has_waiters()) post_wake();
}

/// The client cannot be reached any more.
void Session::give_up() {
  broken_ = true;
  intake_closed_ = true;
  transport_.shutdown();
  release(replies_.clear());
  post_wake();
}

Task<void> Session::finish() {
  if (payload_ || drain_) {
    // The rest of this request will not come: it never started, so nobody waits for its reply.
    const Request request = payload_ ? payload_->request : drain_->request;
    payload_.reset();
    drain_.reset();
    --at_volume_;
    release({.requests = 1, .bytes = charge_of(request)});
  }
  co_await volume_tasks_.close();
  // The last task may still be unwinding below us; let it.
  co_await next_turn(context_.executor);
  const TimerId deadline =
      context_.executor.schedule_after(options_.drain_max, [this] { transport_.shutdown(); });
  flush_replies();
  while (!replies_.empty() || writer_waits_) {
    co_await progress_.wait();
    flush_replies();
  }
  context_.executor.cancel(deadline);
  transport_.close();
  if (!agreement_.volume) co_return;
  agreement_.volume.reset();
  log_event(Level::kInfo, "nbd.closed", "export={} client={} requests={}", agreement_.info.name,
            transport_.peer(), requests_total_);
}

}  // namespace tandem::nbd
