// One replication stream over gRPC, seen from either end, behind Link.
//
//   kIdle ──open──▶ kOpen ──nothing left to do──▶ kFinishing ──every completion is in──▶ kFinished
//     └──not connected──────────────────────────────▲
//
// Two threads meet here: the reactor (send, receive, close) and the completion loop (on_*), under
// one mutex that is never held while a coroutine runs. At most one Write and one Read are with
// gRPC; what waits behind them is ours, counted, and bounded on the receiving side. Whoever sees
// the previous Write done starts the next one, so that no write waits for a thread to wake up.
// A Read is posted after the reactor has handled the message before it, unless messages pile up.
// gRPC 1.51 answers each Read for which nothing is there yet with a WINDOW_UPDATE of its own, a
// message more for both nodes (StreamFlowControl::UpdateAction). So where one batch at a time goes
// to and fro, the Read is posted when bytes have come; the window then is updated by the answer.
#pragma once

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "rpc/link_codec.h"
#include "rpc/loop.h"
#include "rpc/options.h"
#include "tandem/base/sync.h"
#include "tandem/port/link.h"

namespace tandem::rpc {

/// Reading stops while this much waits for receive().
inline constexpr std::size_t kInboxMessagesMax = 64;
inline constexpr std::size_t kInboxBytesMax = 16u << 20;

class Stream : public Operation {
 public:
  /// Reactor. Nothing happens after close(), after an error and for a message that cannot be
  /// encoded (that ends the stream).
  void send(Message message);
  std::size_t backlog_bytes() const;
  Task<void> drained_below(std::size_t bytes);
  Task<Result<Message>> receive();
  void close(std::chrono::milliseconds linger);
  std::string peer() const;

  void on_reactor() override;
  void on_bytes() override;
  void cancel(const Error& why) override;

 protected:
  enum class Phase { kIdle, kOpen, kFinishing, kFinished };

  Stream(std::shared_ptr<Loop> loop, BufferPool& pool);
  // What the two ends do differently. Called with mutex_ held and the call alive.
  virtual void start_read(grpc::ByteBuffer* into, void* tag) = 0;
  virtual void start_write(const grpc::ByteBuffer& bytes, void* tag) = 0;
  virtual void try_cancel() = 0;
  /// What came is no message of ours: tell the other end.
  virtual void reject() = 0;
  /// Nothing is being written and nothing waits to be: end the call when it is time.
  virtual void finish_if_due() = 0;
  /// gRPC's objects go, on the loop's thread.
  virtual void release() = 0;
  /// Who is there, once a message has come.
  virtual std::string find_peer() const = 0;

  /// Ends the call with `why` as its status, which cancel() would leave out. Loop's thread.
  void refuse(const Error& why);
  void advance();   // mutex_ held: starts the next write, or the end
  void arm_read();  // mutex_ held: starts a read if one is due
  void read_on();   // the same on the reactor, mutex_ not held, or when something came
  void note_pattern(const Message& message);  // mutex_ held
  void give_up_writing();                     // mutex_ held
  void set_end(Error why);                    // mutex_ held: the first reason stays
  void finish_completed();                    // mutex_ held: kFinished when every completion is in
  void on_write(bool ok);
  void on_read(bool ok);
  bool ending() const { return closing_ || end_.has_value(); }

  const std::shared_ptr<Loop> loop_;
  BufferPool& pool_;
  mutable std::mutex mutex_;  // guards all below, except the conditions
  Phase phase_ = Phase::kIdle;
  bool closing_ = false;     // close() was called
  bool writing_ = false;     // a Write (or the end of writing) is with gRPC
  bool reading_ = false;     // a Read is with gRPC, or its bytes are being decoded
  bool read_ended_ = false;  // gRPC will deliver nothing more
  bool broken_ = false;      // nothing can be written any more
  bool others_done_ = true;  // completions of the subclass, except its Finish
  bool finish_done_ = false;
  std::optional<Error> end_;             // why receive() gets nothing once the inbox is empty
  std::deque<grpc::ByteBuffer> outbox_;  // the first is being written while writing_
  std::size_t backlog_ = 0;
  std::size_t drain_mark_ = 0;  // somebody waits for backlog_ to be below; 0: nobody
  struct Received {
    Message message;
    std::size_t bytes;
  };
  std::deque<Received> inbox_;
  std::size_t inbox_bytes_ = 0;
  bool receiver_waits_ = false;
  bool awaits_bytes_ = false;   // the next Read is begun by on_bytes()
  unsigned lone_in_a_row_ = 0;  // batches, in either direction
  std::string peer_;
  grpc::ByteBuffer read_bytes_;
  Tag<Stream> write_tag_{this, &Stream::on_write};
  Tag<Stream> read_tag_{this, &Stream::on_read};
  Condition readable_;  // the reactor's
  Condition drained_;   // the reactor's
};

/// The calling end.
class ClientStream final : public Stream {
 public:
  ClientStream(std::shared_ptr<Loop> loop, BufferPool& pool, std::string address,
               std::shared_ptr<grpc::Channel> channel, const ServiceOptions& options);
  /// Reactor: begins to connect.
  void start();

 private:
  void start_read(grpc::ByteBuffer* into, void* tag) override { call_->Read(into, tag); }
  void start_write(const grpc::ByteBuffer& bytes, void* tag) override { call_->Write(bytes, tag); }
  void try_cancel() override { context_->TryCancel(); }
  void reject() override { try_cancel(); }
  void finish_if_due() override;
  void release() override;
  std::string find_peer() const override;
  void on_start(bool ok);
  void on_writes_done(bool ok);
  void on_finish(bool ok);

  const std::string address_;
  const ServiceOptions& options_;  // the dialer's, which outlives the loop's operations
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool writes_done_ = false;
  grpc::Status status_;
  Tag<ClientStream> start_tag_{this, &ClientStream::on_start};
  Tag<ClientStream> writes_done_tag_{this, &ClientStream::on_writes_done};
  Tag<ClientStream> finish_tag_{this, &ClientStream::on_finish};
};

/// The answering end, from the moment at which it waits for a call.
class ServerStream : public Stream {
 public:
  ServerStream(std::shared_ptr<Loop> loop, BufferPool& pool);

 protected:
  /// The call has come; loop's thread.
  virtual void accepted() = 0;
  virtual void request(void* tag) = 0;
  /// Waits for a call; the operation must be listed with the loop.
  void listen();
  void start_read(grpc::ByteBuffer* into, void* tag) override { call_->Read(into, tag); }
  void start_write(const grpc::ByteBuffer& bytes, void* tag) override { call_->Write(bytes, tag); }
  void try_cancel() override {
    if (phase_ != Phase::kIdle) context_->TryCancel();
  }
  void reject() override {}  // the status of the call says it
  void finish_if_due() override;
  void release() override;
  std::string find_peer() const override;

  using Call = grpc::ServerAsyncReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>;
  std::unique_ptr<grpc::ServerContext> context_;
  std::unique_ptr<Call> call_;

 private:
  void on_request(bool ok);
  void on_done(bool ok);
  void on_finish(bool ok);
  std::string name() const;

  Tag<ServerStream> request_tag_{this, &ServerStream::on_request};
  Tag<ServerStream> done_tag_{this, &ServerStream::on_done};
  Tag<ServerStream> finish_tag_{this, &ServerStream::on_finish};
};

/// What the replication layer holds: destroying it closes the stream, which then ends on its own.
class GrpcLink final : public Link {
 public:
  GrpcLink(std::shared_ptr<Stream> stream, std::chrono::milliseconds linger)
      : stream_(std::move(stream)), linger_(linger) {}
  ~GrpcLink() override { close(); }
  void send(Message message) override { stream_->send(std::move(message)); }
  std::size_t backlog_bytes() const override { return stream_->backlog_bytes(); }
  Task<void> drained_below(std::size_t bytes) override { return stream_->drained_below(bytes); }
  Task<Result<Message>> receive() override { return stream_->receive(); }
  void close() override { stream_->close(linger_); }
  std::string peer() const override { return stream_->peer(); }

 private:
  std::shared_ptr<Stream> stream_;
  std::chrono::milliseconds linger_;
};

}  // namespace tandem::rpc
