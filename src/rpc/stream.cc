#include "rpc/stream.h"

#include <algorithm>
#include <utility>

#include "rpc/credentials.h"
#include "rpc/errors.h"
#include "tandem/base/log.h"

namespace tandem::rpc {
namespace {

/// With several batches on their way, a Read that waits for bytes could leave one of them lie.
constexpr unsigned kLoneInARow = 8;
/// Of one message: long writes, or a mirror that catches up. Dozens of small writes are less.
constexpr std::size_t kMuchBytes = 192 << 10;

}  // namespace

Stream::Stream(std::shared_ptr<Loop> loop, BufferPool& pool)
    : loop_(std::move(loop)), pool_(pool) {}

// ---- the reactor's side ---------------------------------------------------------------------

void Stream::send(Message message) {
  {
    std::lock_guard lock(mutex_);
    note_pattern(message);
  }
  auto bytes = encode(std::move(message));
  if (!bytes) {
    log_event(Level::kError, "link.unsendable", "reason=\"{}\"", bytes.error().message);
    cancel(bytes.error());
    return;
  }
  loop_->begin(write_tag_, [this, &bytes] {
    std::lock_guard lock(mutex_);
    if (ending() || broken_ || phase_ > Phase::kOpen) return;
    backlog_ += bytes->Length();
    outbox_.push_back(std::move(*bytes));
    advance();
  });
}

std::size_t Stream::backlog_bytes() const {
  std::lock_guard lock(mutex_);
  return backlog_;
}

Task<void> Stream::drained_below(std::size_t bytes) {
  auto self = shared_from_this();
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      if (backlog_ < bytes || ending() || broken_ || phase_ > Phase::kOpen) co_return;
      drain_mark_ = std::max(drain_mark_, bytes);
    }
    co_await drained_.wait();
  }
}

Task<Result<Message>> Stream::receive() {
  auto self = shared_from_this();
  for (;;) {
    {
      std::lock_guard lock(mutex_);
      receiver_waits_ = false;
      if (!inbox_.empty()) {
        auto next = std::move(inbox_.front());
        inbox_.pop_front();
        inbox_bytes_ -= next.bytes;
        // With more waiting, reading has fallen behind: no answer is going to overtake this Read.
        if (!inbox_.empty()) {
          arm_read();
          loop_->look_soon();
        }
        co_return std::move(next.message);
      }
      if (end_) co_return Error(*end_);
      receiver_waits_ = true;
    }
    read_on();
    co_await readable_.wait();
  }
}

void Stream::close(std::chrono::milliseconds linger) {
  bool here = false;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(closing_, true)) return;
    inbox_.clear();
    inbox_bytes_ = 0;
    if (phase_ == Phase::kFinished) return;
    set_end({ErrorCode::kCancelled, "the link was closed here"});
    here = loop_->executor().is_here();
    if (phase_ == Phase::kIdle || !here) {
      try_cancel();
      give_up_writing();
    }
    advance();
    arm_read();
  }
  loop_->look_soon();
  // Never from within: the caller does not expect its receive() to return before close() does.
  loop_->executor().post([self = shared_from_this()] { self->on_reactor(); });
  if (!here) return;
  std::weak_ptr<Operation> weak = shared_from_this();
  loop_->executor().schedule_after(linger, [weak] {
    if (auto self = weak.lock()) self->cancel({ErrorCode::kCancelled, "the link was closed here"});
  });
}

std::string Stream::peer() const {
  std::lock_guard lock(mutex_);
  return peer_;
}

void Stream::on_reactor() {
  readable_.notify_all();
  drained_.notify_all();
  read_on();
}

void Stream::read_on() {
  {
    std::lock_guard lock(mutex_);
    if (awaits_bytes_ || reading_ || phase_ != Phase::kOpen) return;
    if (lone_in_a_row_ >= kLoneInARow && !ending()) {
      awaits_bytes_ = loop_->wait_for_bytes(shared_from_this());
      if (awaits_bytes_) return;
    }
  }
  loop_->begin(read_tag_, [this] {
    std::lock_guard lock(mutex_);
    arm_read();
  });
}

void Stream::on_bytes() {
  std::lock_guard lock(mutex_);
  awaits_bytes_ = false;
  arm_read();
}

/// A batch with another one on its way, and anything but batches and what answers them, ends it.
void Stream::note_pattern(const Message& message) {
  if (const auto* records = std::get_if<message::Records>(&message)) {
    lone_in_a_row_ = records->lone ? lone_in_a_row_ + 1 : 0;
  } else if (!std::holds_alternative<message::Ack>(message) &&
             !std::holds_alternative<message::Heartbeat>(message)) {
    lone_in_a_row_ = 0;
  }
}

void Stream::cancel(const Error& why) {
  std::lock_guard lock(mutex_);
  set_end(why);
  if (phase_ == Phase::kFinished) return;
  try_cancel();
  give_up_writing();
  advance();
  arm_read();
  loop_->look_soon();
}

void Stream::refuse(const Error& why) {
  std::lock_guard lock(mutex_);
  set_end(why);
  give_up_writing();
  advance();
}

// ---- both sides -----------------------------------------------------------------------------

void Stream::set_end(Error why) {
  if (end_) return;
  end_ = std::move(why);
  loop_->wake(shared_from_this());
}

void Stream::give_up_writing() {
  broken_ = true;
  if (writing_ && !outbox_.empty()) {
    outbox_.erase(outbox_.begin() + 1, outbox_.end());
    backlog_ = outbox_.front().Length();
  } else {
    outbox_.clear();
    backlog_ = 0;
  }
  if (std::exchange(drain_mark_, 0) != 0) loop_->wake(shared_from_this());
}

void Stream::advance() {
  if (phase_ != Phase::kOpen || writing_) return;
  if (!broken_ && !outbox_.empty()) {
    writing_ = true;
    loop_->write_began();
    start_write(outbox_.front(), write_tag_.arm());
    return;
  }
  finish_if_due();
}

void Stream::arm_read() {
  if (phase_ != Phase::kOpen || reading_ || read_ended_) return;
  // An ended stream is still read, to its end, because gRPC keeps the status behind the messages.
  const bool full = inbox_.size() >= kInboxMessagesMax || inbox_bytes_ >= kInboxBytesMax;
  if (full && !ending()) return;
  reading_ = true;
  start_read(&read_bytes_, read_tag_.arm());
}

void Stream::finish_completed() {
  if (phase_ != Phase::kFinishing || !finish_done_ || reading_ || writing_ || !others_done_) return;
  phase_ = Phase::kFinished;
  outbox_.clear();
  backlog_ = 0;
  read_bytes_.Clear();
  release();
  loop_->remove(this);
}

// ---- the loop's side ------------------------------------------------------------------------

void Stream::on_write(bool ok) {
  loop_->write_ended();
  std::lock_guard lock(mutex_);
  writing_ = false;
  backlog_ -= outbox_.front().Length();
  outbox_.pop_front();
  if (!ok) give_up_writing();
  if (drain_mark_ != 0 && backlog_ < drain_mark_) {
    drain_mark_ = 0;
    loop_->wake(shared_from_this());
  }
  advance();
  finish_completed();
}

void Stream::on_read(bool ok) {
  std::optional<Result<Message>> message;
  std::size_t bytes = 0;
  if (ok) {
    // Decoding copies the payload: outside the lock, so that send() does not wait for it. No other
    // Read starts meanwhile, because reading_ stays set.
    bytes = read_bytes_.Length();
    message = decode(read_bytes_, pool_);
    read_bytes_.Clear();
    if (bytes >= kMuchBytes) loop_->expect_much();
  }
  std::lock_guard lock(mutex_);
  reading_ = false;
  if (!ok) {
    read_ended_ = true;
    give_up_writing();
  } else if (!ending()) {
    if (peer_.empty()) peer_ = find_peer();
    if (*message) {
      note_pattern(**message);
      inbox_.push_back({std::move(**message), bytes});
      inbox_bytes_ += bytes;
      if (receiver_waits_) {
        loop_->wake(shared_from_this());
      } else {
        arm_read();
      }
    } else {
      log_event(Level::kWarn, "link.garbage", "peer={} reason=\"{}\"", peer_,
                message->error().message);
      set_end(message->error());
      give_up_writing();
      reject();
    }
  }
  if (ending()) arm_read();
  advance();
  finish_completed();
}

// ---- the calling end ------------------------------------------------------------------------

ClientStream::ClientStream(std::shared_ptr<Loop> loop, BufferPool& pool, std::string address,
                           std::shared_ptr<grpc::Channel> channel, const ServiceOptions& options)
    : Stream(std::move(loop), pool),
      address_(std::move(address)),
      options_(options),
      channel_(std::move(channel)),
      context_(std::make_unique<grpc::ClientContext>()) {}

void ClientStream::start() {
  auto self = shared_from_this();
  std::lock_guard lock(mutex_);
  if (!loop_->add(self)) {
    phase_ = Phase::kFinished;
    set_end({ErrorCode::kCancelled, "this node is stopping"});
    release();
    return;
  }
  grpc::GenericStub stub(channel_);
  call_ = stub.PrepareCall(context_.get(), "/tandem.v1.Replication/Stream", loop_->queue());
  call_->StartCall(start_tag_.arm());
  loop_->look_soon();
  std::weak_ptr<Operation> weak = self;
  Error late{ErrorCode::kUnavailable, "no connection to " + address_ + " within " +
                                          std::to_string(options_.connect_timeout.count()) + " ms"};
  loop_->executor().schedule_after(options_.connect_timeout, [weak, this, late = std::move(late)] {
    auto held = weak.lock();
    if (!held) return;
    {
      std::lock_guard lock(mutex_);
      if (phase_ != Phase::kIdle) return;
    }
    cancel(late);
  });
}

void ClientStream::on_start(bool ok) {
  std::lock_guard lock(mutex_);
  phase_ = Phase::kOpen;
  if (!ok) {
    read_ended_ = true;
    give_up_writing();
  }
  advance();
  arm_read();
}

void ClientStream::finish_if_due() {
  if (read_ended_) {
    phase_ = Phase::kFinishing;
    call_->Finish(&status_, finish_tag_.arm());
  } else if (closing_ && !broken_ && !writes_done_) {
    writes_done_ = writing_ = true;
    call_->WritesDone(writes_done_tag_.arm());
  }
}

void ClientStream::on_writes_done(bool) {
  std::lock_guard lock(mutex_);
  writing_ = false;
  advance();
  finish_completed();
}

void ClientStream::on_finish(bool) {
  std::lock_guard lock(mutex_);
  finish_done_ = true;
  if (status_.ok()) {
    set_end({ErrorCode::kUnavailable, address_ + " closed the stream"});
  } else {
    set_end(explain_failure(status_, *context_, address_, options_.tls, options_.files));
  }
  finish_completed();
}

void ClientStream::release() {
  call_.reset();
  context_.reset();
  channel_.reset();
}

std::string ClientStream::find_peer() const { return peer_name(context_->auth_context().get()); }

// ---- the answering end ----------------------------------------------------------------------

ServerStream::ServerStream(std::shared_ptr<Loop> loop, BufferPool& pool)
    : Stream(std::move(loop), pool),
      context_(std::make_unique<grpc::ServerContext>()),
      call_(std::make_unique<Call>(context_.get())) {}

void ServerStream::listen() {
  context_->AsyncNotifyWhenDone(done_tag_.arm());
  request(request_tag_.arm());
}

void ServerStream::on_request(bool ok) {
  if (!ok) {  // the server is shutting down, and gRPC does not return the other tag either
    {
      std::lock_guard lock(mutex_);
      phase_ = Phase::kFinished;
      release();
    }
    loop_->remove(this);
    done_tag_.disarm();
    return;
  }
  {
    std::lock_guard lock(mutex_);
    phase_ = Phase::kOpen;
    others_done_ = false;
    peer_ = find_peer();
    if (end_) {  // cancelled before it came
      advance();
      return;
    }
    arm_read();
  }
  accepted();
}

void ServerStream::finish_if_due() {
  if (!ending() && !broken_ && !read_ended_) return;
  phase_ = Phase::kFinishing;
  const bool ours = end_ && end_->code != ErrorCode::kCancelled;
  const auto status = ours ? to_status(*end_, *context_) : grpc::Status::OK;
  if (!end_) set_end({ErrorCode::kUnavailable, name() + " closed the stream or was cut off"});
  call_->Finish(status, finish_tag_.arm());
}

void ServerStream::on_done(bool) {
  std::lock_guard lock(mutex_);
  others_done_ = true;
  if (context_->IsCancelled()) {
    give_up_writing();
    advance();
  }
  finish_completed();
}

void ServerStream::on_finish(bool) {
  std::lock_guard lock(mutex_);
  finish_done_ = true;
  finish_completed();
}

void ServerStream::release() {
  call_.reset();
  context_.reset();
}

std::string ServerStream::find_peer() const { return peer_name(context_->auth_context().get()); }

std::string ServerStream::name() const { return peer_.empty() ? "the peer" : peer_; }

}  // namespace tandem::rpc
