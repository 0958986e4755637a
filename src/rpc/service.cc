#include "rpc/service.h"

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "rpc/address.h"
#include "rpc/channel.h"
#include "rpc/control_service.h"
#include "rpc/credentials.h"
#include "rpc/front.h"
#include "rpc/health_service.h"
#include "rpc/peer_client.h"
#include "rpc/reflection_service.h"
#include "rpc/stream.h"
#include "tandem/base/log.h"
#include "tandem/v1/replication.grpc.pb.h"

namespace tandem::rpc {
namespace {

using ReplicationAsyncService = v1::Replication::WithRawMethod_Stream<v1::Replication::Service>;

/// A stream that somebody opened to us; hands itself to the acceptor.
class AcceptedStream final : public ServerStream {
 public:
  /// What all of them share.
  struct Door {
    Door(ReplicationAsyncService& service_in, std::shared_ptr<Loop> loop_in,
         std::shared_ptr<Front> front_in, BufferPool& pool_in, std::chrono::milliseconds linger_in)
        : service(service_in),
          loop(std::move(loop_in)),
          front(std::move(front_in)),
          pool(pool_in),
          linger(linger_in) {}
    ReplicationAsyncService& service;
    std::shared_ptr<Loop> loop;
    std::shared_ptr<Front> front;
    BufferPool& pool;
    std::chrono::milliseconds linger;
    std::atomic<std::size_t> streams{0};
  };

  static void listen(const std::shared_ptr<Door>& door) {
    auto stream = std::make_shared<AcceptedStream>(door);
    if (door->loop->add(stream)) stream->ServerStream::listen();
  }
  explicit AcceptedStream(const std::shared_ptr<Door>& door)
      : ServerStream(door->loop, door->pool), door_(door) {}

  void on_reactor() override {
    if (!turned_away_ && !std::exchange(handed_over_, true)) {
      auto link = std::make_unique<GrpcLink>(std::static_pointer_cast<Stream>(shared_from_this()),
                                             door_->linger);
      if (!door_->front->stopping) door_->front->acceptor.accept(std::move(link));
    }
    ServerStream::on_reactor();
  }

 private:
  void request(void* tag) override {
    door_->service.RequestStream(context_.get(), call_.get(), loop_->queue(), loop_->queue(), tag);
  }
  void accepted() override {
    listen(door_);
    const Standing standing = standing_of(context_->auth_context().get());
    if (standing != Standing::kNode) {
      const bool views = standing == Standing::kViewer;
      turn_away({ErrorCode::kRefused, "the certificate of " + peer() +
                                          (views ? " may only look" : " is an operator's") +
                                          " (its unit is " + (views ? kViewerUnit : kOperatorUnit) +
                                          "); replication needs a node's"});
      return;
    }
    counted_ = true;
    if (door_->streams.fetch_add(1) >= kStreamsMax) {
      turn_away({ErrorCode::kUnavailable, "this node has as many streams as it takes; try later"});
      return;
    }
    loop_->wake(shared_from_this());
  }
  void release() override {
    ServerStream::release();
    if (std::exchange(counted_, false)) door_->streams.fetch_sub(1);
  }

  /// The caller is told; the acceptor never hears of it.
  void turn_away(const Error& why) {
    turned_away_ = true;
    refuse(why);
  }

  const std::shared_ptr<Door> door_;
  std::atomic<bool> turned_away_{false};
  bool counted_ = false;      // loop's thread
  bool handed_over_ = false;  // reactor
};

class Dialer final : public LinkDialer {
 public:
  Dialer(std::shared_ptr<Loop> loop, BufferPool& pool, const ServiceOptions& options,
         FreshCredentials& credentials)
      : loop_(std::move(loop)), pool_(pool), options_(options), credentials_(credentials) {}

  std::unique_ptr<Link> dial(const std::string& address) override;

 private:
  const std::shared_ptr<Loop> loop_;
  BufferPool& pool_;
  const ServiceOptions& options_;
  FreshCredentials& credentials_;
};

/// What dial() gives for an address that is none.
class DeadLink final : public Link {
 public:
  explicit DeadLink(Error why) : why_(std::move(why)) {}
  void send(Message) override {}
  std::size_t backlog_bytes() const override { return 0; }
  Task<void> drained_below(std::size_t) override { co_return; }
  Task<Result<Message>> receive() override { co_return Error(why_); }
  void close() override {}
  std::string peer() const override { return {}; }

 private:
  const Error why_;
};

std::unique_ptr<Link> Dialer::dial(const std::string& address) {
  const auto parsed = parse_address(address);
  if (!parsed) return std::make_unique<DeadLink>(parsed.error());
  auto channel = make_channel(address, credentials_.now(), options_.connect_timeout,
                              options_.keepalive, options_.keepalive_timeout);
  auto stream = std::make_shared<ClientStream>(loop_, pool_, address, std::move(channel), options_);
  stream->start();
  return std::make_unique<GrpcLink>(std::move(stream), options_.linger);
}

class GrpcService final : public Service {
 public:
  GrpcService(Executor& executor, Readiness* readiness, BufferPool& pool, ServiceOptions options,
              const Certificates& certificates)
      : executor_(executor),
        pool_(pool),
        options_(std::move(options)),
        server_credentials_(server_credentials(options_)),
        credentials_(options_.tls, options_.files, certificates),
        builder_(std::make_unique<grpc::ServerBuilder>()),
        loop_(Loop::start(executor, readiness, builder_->AddCompletionQueue(), options_.spin)),
        dialer_(loop_, pool, options_, credentials_),
        peers_(make_peers(loop_, options_, credentials_)) {}
  ~GrpcService() override { stop(); }

  LinkDialer& dialer() override { return dialer_; }
  Peers& peers() override { return *peers_; }
  std::uint16_t port() const override { return static_cast<std::uint16_t>(port_); }

  Status reload_certificates() override { return credentials_.check(); }
  Status start(Control& control, LinkAcceptor& acceptor) override;
  Task<void> drain(Nanoseconds limit) override;
  void stop() override;

 private:
  Executor& executor_;
  BufferPool& pool_;
  const ServiceOptions options_;
  const std::shared_ptr<grpc::ServerCredentials> server_credentials_;
  FreshCredentials credentials_;
  ReplicationAsyncService replication_service_;
  ControlAsyncService control_service_;
  HealthAsyncService health_service_;
  ReflectionAsyncService reflection_service_;
  std::unique_ptr<grpc::ServerBuilder> builder_;
  std::shared_ptr<Loop> loop_;
  Dialer dialer_;
  std::unique_ptr<Peers> peers_;
  std::shared_ptr<Front> front_;
  std::shared_ptr<std::atomic<bool>> serving_ = std::make_shared<std::atomic<bool>>(false);
  std::unique_ptr<grpc::Server> server_;
  int port_ = 0;
  bool stopped_ = false;
};

Status GrpcService::start(Control& control, LinkAcceptor& acceptor) {
  CHECK(!front_);
  const auto address = parse_address(options_.listen);
  if (!address) return address.error();
  front_ = std::make_shared<Front>(control, acceptor);
  configure_server(*builder_, options_);
  builder_->AddListeningPort(options_.listen, server_credentials_, &port_);
  builder_->RegisterService(&replication_service_);
  builder_->RegisterService(&control_service_);
  builder_->RegisterService(&health_service_);
  builder_->RegisterService(&reflection_service_);
  server_ = builder_->BuildAndStart();
  if (!server_ || port_ == 0) {
    port_ = 0;
    auto trouble = listen_trouble(*address);
    if (trouble.empty()) trouble = "gRPC refuses it; see the log";
    return Error{ErrorCode::kBusy, "cannot listen on " + options_.listen + ": " + trouble +
                                       "; choose another address, or end what holds this one"};
  }
  auto door = std::make_shared<AcceptedStream::Door>(replication_service_, loop_, front_, pool_,
                                                     options_.linger);
  serving_->store(true);
  AcceptedStream::listen(door);
  listen_for_control(control_service_, loop_, front_);
  listen_for_health(health_service_, loop_, serving_);
  listen_for_reflection(reflection_service_, loop_);
  log_event(Level::kInfo, "rpc.listening", "address={} port={} tls={}", options_.listen, port_,
            options_.tls);
  return ok();
}

Task<void> GrpcService::drain(Nanoseconds limit) {
  serving_->store(false);
  auto front = front_;
  if (!front) co_return;
  front->stopping = true;
  bool late = false;
  const auto timer = executor_.schedule_after(limit, [front, &late] {
    late = true;
    front->idle.notify_all();
  });
  while (front->running != 0 && !late) co_await front->idle.wait();
  executor_.cancel(timer);
}

void GrpcService::stop() {
  if (std::exchange(stopped_, true)) return;
  serving_->store(false);
  if (front_) front_->stopping = true;
  loop_->refuse();
  if (server_) server_->Shutdown(std::chrono::system_clock::now());
  loop_->stop({ErrorCode::kUnavailable, "this node is stopping"});
  server_.reset();
  builder_.reset();
  // gRPC's transports let go of their last slices on threads of their own, after the calls' ends.
  for (int i = 0; i < 5000 && payload_slices_outstanding() != 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (const auto left = payload_slices_outstanding(); left != 0)
    log_event(Level::kError, "rpc.slices_left", "count={}", left);
  if (port_ != 0) log_event(Level::kInfo, "rpc.stopped", "port={}", port_);
}

}  // namespace

Result<std::unique_ptr<Service>> Service::create(Executor& executor, Readiness* readiness,
                                                 BufferPool& pool, ServiceOptions options) {
  Certificates certificates;
  if (options.tls) {
    auto loaded = load_certificates(options.files);
    if (!loaded) return loaded.error();
    certificates = std::move(*loaded);
    // No reason to refuse: the volumes can be served without the mirror. But say it loudly.
    if (const auto trouble = certificate_trouble(options.files); !trouble.empty())
      log_event(Level::kError, "tls.trouble", "reason=\"{}\"", trouble);
  } else {
    log_event(Level::kWarn, "tls.off", "listen={} risk=\"anybody who reaches this port is obeyed\"",
              options.listen);
  }
  route_grpc_log(true);
  return std::unique_ptr<Service>(
      std::make_unique<GrpcService>(executor, readiness, pool, std::move(options), certificates));
}

Result<std::unique_ptr<Service>> start_service(Executor& executor, BufferPool& pool,
                                               ServiceOptions options, Control& control,
                                               LinkAcceptor& acceptor) {
  auto service = Service::create(executor, nullptr, pool, std::move(options));
  if (!service) return service;
  if (auto started = (*service)->start(control, acceptor); !started) return started.error();
  return service;
}

}  // namespace tandem::rpc
