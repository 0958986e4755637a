#include "rpc/stream_client.h"

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <deque>
#include <mutex>
#include <utility>

#include "rpc/channel.h"
#include "rpc/errors.h"
#include "rpc/link_codec.h"

namespace tandem::rpc {
namespace {

using Time = std::chrono::system_clock::time_point;

/// Messages that wait here for receive(); while there are as many, nothing is read.
constexpr std::size_t kInboxMax = 64;
/// What a mirror sends is small.
constexpr std::size_t kPoolBytes = 1 << 20;

/// The completion queue is turned by whoever waits for something, under the mutex. At most one
/// Write and one Read are with gRPC.
class GrpcStreamClient final : public StreamClient {
 public:
  GrpcStreamClient(ClientOptions options, std::shared_ptr<grpc::Channel> channel)
      : options_(std::move(options)), channel_(std::move(channel)) {
    grpc::GenericStub stub(channel_);
    call_ = stub.PrepareCall(&context_, "/tandem.v1.Replication/Stream", &queue_);
    call_->StartCall(tag(Event::kStarted));
  }
  ~GrpcStreamClient() override {
    context_.TryCancel();
    ended_ = true;
    finish_if_due();
    while (!finished_ && turn(Time::max())) continue;
    queue_.Shutdown();
    while (turn(Time::max())) continue;
  }

  const std::string& address() const override { return options_.address; }
  Status send(Message message) override;
  Result<std::optional<Message>> receive(std::chrono::milliseconds wait) override;

 private:
  enum class Event : std::intptr_t { kStarted = 1, kWritten, kRead, kFinished };
  static void* tag(Event event) { return reinterpret_cast<void*>(event); }

  /// False: nothing happened until then.
  bool turn(Time end);
  void handle(Event event, bool ok);
  void read_if_due();
  void finish_if_due();
  Error late() const;
  void give_up(Error why) {
    if (!why_) why_ = std::move(why);
    context_.TryCancel();
  }

  const ClientOptions options_;
  BufferPool pool_{kPoolBytes};
  std::mutex mutex_;  // guards all below
  const std::shared_ptr<grpc::Channel> channel_;
  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool started_ = false, writing_ = false, reading_ = false;
  bool ended_ = false;  // nothing more comes, or can be sent
  bool finishing_ = false, finished_ = false;
  grpc::ByteBuffer read_bytes_;
  grpc::Status status_;
  std::deque<Message> inbox_;
  std::optional<Error> why_;  // it has ended
};

bool GrpcStreamClient::turn(Time end) {
  void* which = nullptr;
  bool ok = false;
  if (queue_.AsyncNext(&which, &ok, end) != grpc::CompletionQueue::GOT_EVENT) return false;
  handle(static_cast<Event>(reinterpret_cast<std::intptr_t>(which)), ok);
  read_if_due();
  finish_if_due();
  return true;
}

void GrpcStreamClient::handle(Event event, bool ok) {
  switch (event) {
    case Event::kStarted:
      started_ = true;
      ended_ = ended_ || !ok;
      return;
    case Event::kWritten:
      writing_ = false;
      ended_ = ended_ || !ok;
      return;
    case Event::kRead: {
      reading_ = false;
      ended_ = ended_ || !ok;
      if (!ok) return;
      auto message = decode(read_bytes_, pool_);
      read_bytes_.Clear();
      if (!message) return give_up(std::move(message.error()));
      inbox_.push_back(std::move(*message));
      return;
    }
    case Event::kFinished:
      finished_ = true;
      if (!why_ && status_.ok())
        why_ = Error{ErrorCode::kUnavailable, options_.address + " closed the stream"};
      if (!why_)
        why_ = explain_failure(status_, context_, options_.address, options_.tls, options_.files);
      return;
  }
}

void GrpcStreamClient::read_if_due() {
  if (!started_ || reading_ || ended_ || inbox_.size() >= kInboxMax) return;
  reading_ = true;
  call_->Read(&read_bytes_, tag(Event::kRead));
}

void GrpcStreamClient::finish_if_due() {
  if (!started_ || !ended_ || writing_ || reading_ || finishing_) return;
  finishing_ = true;
  call_->Finish(&status_, tag(Event::kFinished));
}

Error GrpcStreamClient::late() const {
  const auto limit = std::to_string(options_.timeout.count()) + " ms";
  if (!started_)
    return {ErrorCode::kUnavailable, "no connection to " + address() + " within " + limit};
  return {ErrorCode::kUnavailable, address() + " took nothing for " + limit};
}

Status GrpcStreamClient::send(Message message) {
  auto bytes = encode(std::move(message));
  if (!bytes) return Error(std::move(bytes.error()));
  std::lock_guard lock(mutex_);
  const auto end = std::chrono::system_clock::now() + options_.timeout;
  while (!started_ && !why_ && turn(end)) continue;
  if (!started_ && !why_) give_up(late());
  if (started_ && !ended_ && !why_) {
    writing_ = true;
    call_->Write(*bytes, tag(Event::kWritten));
    while (writing_ && !finished_ && turn(end)) continue;
    if (writing_) give_up(late());
  }
  // Why it ended is worth a moment.
  while (ended_ && !why_ && turn(end)) continue;
  if (why_) return Error(*why_);
  return ok();
}

Result<std::optional<Message>> GrpcStreamClient::receive(std::chrono::milliseconds wait) {
  std::lock_guard lock(mutex_);
  const auto end = std::chrono::system_clock::now() + wait;
  while (inbox_.empty() && !why_ && turn(end)) continue;
  if (!inbox_.empty()) {
    std::optional<Message> first(std::move(inbox_.front()));
    inbox_.pop_front();
    read_if_due();
    return first;
  }
  if (why_) return Error(*why_);
  return std::optional<Message>{};
}

}  // namespace

Result<std::unique_ptr<StreamClient>> StreamClient::open(ClientOptions options) {
  auto channel = open_channel(options);
  if (!channel) return Error(std::move(channel.error()));
  return std::unique_ptr<StreamClient>(
      std::make_unique<GrpcStreamClient>(std::move(options), std::move(*channel)));
}

}  // namespace tandem::rpc
