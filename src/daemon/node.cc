#include "daemon/node.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "control/node_control.h"
#include "daemon/fence_command.h"
#include "daemon/hook_commands.h"
#include "daemon/notify.h"
#include "daemon/peer_control.h"
#include "daemon/signals.h"
#include "daemon/storage.h"
#include "device/asio_thread.h"
#include "frontend/nbd/server.h"
#include "rpc/credentials.h"
#include "rpc/service.h"
#include "tandem/base/log.h"

namespace tandem::daemon {
namespace {

constexpr Nanoseconds kDrainMax = std::chrono::seconds(10);
// A stop that takes longer than this is given up: a crash is safe, only the next start is slower.
constexpr Nanoseconds kStopMax = std::chrono::seconds(60);
// How soon clients of a volume that is served no more are sent away. Until then their requests are
// answered with an error, so this is about how fast they look elsewhere, not about safety.
constexpr Nanoseconds kExportsCheck = std::chrono::milliseconds(500);
constexpr Nanoseconds kCertificatesCheck = std::chrono::seconds(10);

rpc::ServiceOptions service_options(const Config& config) {
  rpc::ServiceOptions options;
  options.listen = config.service.listen.text();
  options.tls = config.service.tls;
  options.spin = config.reactor.spin;
  options.files = {.ca = config.service.files.ca,
                   .certificate = config.service.files.certificate,
                   .key = config.service.files.key};
  return options;
}

control::ControlOptions control_options(const Config& config, const std::string& version) {
  control::ControlOptions options;
  options.node = config.node.name;
  options.version = version;
  options.service_address = config.service.advertise;
  for (const auto& address : config.nbd.listen) options.nbd.push_back(address.text());
  options.nbd_tls = config.nbd.tls.has_value();
  options.peer_wait = config.replication.peer_wait;
  options.pool_warn_percent = config.pool.warn_percent;
  options.pool_critical_percent = config.pool.critical_percent;
  options.replication.heartbeat_interval = config.replication.heartbeat;
  options.replication.timeout = config.replication.timeout;
  options.replication.versions.newest = config.replication.protocol_max;
  return options;
}

nbd::Options nbd_options(const Config& config) {
  nbd::Options options;
  options.connections_max = config.nbd.connections_max;
  options.payload_bytes_max = config.nbd.request_bytes_max;
  options.all_bytes_max = config.memory.buffer_bytes;
  options.unix_socket_mode = config.nbd.unix_socket_mode;
  if (config.nbd.tls) {
    options.tls = nbd::TlsOptions{.certificate = config.nbd.tls->certificate,
                                  .key = config.nbd.tls->key,
                                  .client_ca = config.nbd.tls->ca,
                                  .required = config.nbd.tls_required};
  }
  return options;
}

/// Changes whenever one of the files is replaced or written.
std::string stamp_of(const std::optional<TlsFiles>& files) {
  std::string stamp;
  if (!files) return stamp;
  for (const auto& path : {files->certificate, files->key, files->ca}) {
    struct stat at {};
    if (::stat(path.c_str(), &at) != 0) continue;
    stamp +=
        fmt::format("{}.{}.{}.{} ", at.st_ino, at.st_size, at.st_mtim.tv_sec, at.st_mtim.tv_nsec);
  }
  return stamp;
}

Status check_readable(const char* key, const std::string& path) {
  if (path.empty() || ::access(path.c_str(), R_OK) == 0) return ok();
  return Error{ErrorCode::kInvalid, std::string(key) + ": " + path +
                                        " cannot be read: " + std::strerror(errno) +
                                        "; correct the path or the file's permissions"};
}

}  // namespace

struct Node::Impl {
  explicit Impl(NodeOptions o) : options(std::move(o)) {}

  Status start();
  Status start_front_ends();
  Task<void> stop();
  void on_signal(int number);
  void watch_exports();
  void watch_certificates();
  void reload_certificates();

  device::Reactor& reactor() { return storage->reactor(); }

  NodeOptions options;
  // Destroyed from the last to the first.
  device::AsioThread asio;
  std::unique_ptr<Storage> storage;
  std::unique_ptr<rpc::Service> service;
  std::unique_ptr<PeerControl> peers;
  std::unique_ptr<FenceCommand> fencer;
  std::unique_ptr<HookCommands> hooks;
  std::unique_ptr<control::NodeControl> control;
  std::unique_ptr<nbd::Server> nbd;
  std::unique_ptr<Signals> signals;
  bool told_to_stop = false;
  std::string certificates;  // NBD's, as of the last look
  TimerId certificates_check = 0;
  TimerId exports_check = 0;
};

void Node::Impl::watch_exports() {
  nbd->end_unserved();
  exports_check = reactor().schedule_after(kExportsCheck, [this] { watch_exports(); });
}

Status Node::Impl::start() {
  const Config& config = options.config;
  log_event(Level::kInfo, "node.start", "node={} version={} pool={} pid={}", config.node.name,
            options.version, config.pool.path, ::getpid());
  auto opened = Storage::open(config, options.create_pool);
  if (!opened) return Error(std::move(opened.error()));
  storage = std::move(*opened);
  auto created = rpc::Service::create(reactor(), &reactor().readiness(), storage->buffers(),
                                      service_options(config));
  if (!created) return Error(std::move(created.error()));
  service = std::move(*created);
  peers = std::make_unique<PeerControl>(service->peers());
  auto settings = control_options(config, options.version);
  if (!config.promotion.fence_command.empty()) {
    fencer = std::make_unique<FenceCommand>(reactor(), config.promotion.fence_command,
                                            config.node.name, config.promotion.fence_timeout);
    settings.fencer = fencer.get();
  }
  if (!config.hooks.empty()) {
    hooks = std::make_unique<HookCommands>(reactor(), config.node.name, config.hooks);
    settings.hooks = hooks.get();
  }
  control = std::make_unique<control::NodeControl>(reactor().runtime(), storage->pool(),
                                                   service->dialer(), *peers, std::move(settings));
  TANDEM_TRY(start_front_ends());
  control->start();
  watch_exports();
  const auto caught = {SIGTERM, SIGINT, SIGHUP};
  signals = std::make_unique<Signals>(asio.io(), reactor(), caught,
                                      [this](int number) { on_signal(number); });
  certificates = stamp_of(config.nbd.tls);
  watch_certificates();
  std::string endpoints;
  for (const auto& endpoint : nbd->endpoints()) {
    endpoints += (endpoints.empty() ? "" : ",") + endpoint;
  }
  log_event(Level::kInfo, "node.ready", "node={} service={} nbd={}", config.node.name,
            config.service.listen.text(), endpoints.empty() ? "none" : endpoints);
  notify_ready("Node " + config.node.name + " answers at " + config.service.listen.text());
  return ok();
}

Status Node::Impl::start_front_ends() {
  nbd = std::make_unique<nbd::Server>(nbd::Loops{reactor(), reactor().readiness(), asio.io()},
                                      storage->buffers(), *control, nbd_options(options.config));
  for (const auto& address : options.config.nbd.listen) TANDEM_TRY(nbd->listen(address.text()));
  return service->start(*control, control->acceptor());
}

void Node::Impl::on_signal(int number) {
  if (number == SIGHUP) return reload_certificates();
  if (std::exchange(told_to_stop, true)) {
    log_event(Level::kWarn, "node.killed", "reason=\"a second signal came while stopping\"");
    ::_exit(1);
  }
  log_event(Level::kInfo, "node.signal", "signal={}", ::strsignal(number));
  reactor().stop();
}

void Node::Impl::reload_certificates() {
  const Status replication = service->reload_certificates();
  const Status front_end = nbd->reload_tls();
  for (const Status& status : {replication, front_end}) {
    if (status) continue;
    log_event(Level::kError, "tls.reload_failed", "reason=\"{}\" effect=\"the old stay in use\"",
              status.error().message);
  }
  if (replication && front_end) log_event(Level::kInfo, "tls.read_again", "files=all");
}

/// The service looks at its files by itself; these are NBD's.
void Node::Impl::watch_certificates() {
  certificates_check = reactor().schedule_after(kCertificatesCheck, [this] {
    auto now = stamp_of(options.config.nbd.tls);
    if (now != certificates) {
      const Status read = nbd->reload_tls();
      if (read) certificates = std::move(now);  // else again at the next look: a pair comes in two
      log_event(read ? Level::kInfo : Level::kError, "nbd.tls_reloaded", "trouble=\"{}\"",
                read ? "" : read.error().message);
    }
    watch_certificates();
  });
}

Task<void> Node::Impl::stop() {
  const TimerId limit = reactor().schedule_after(kStopMax, [] {
    log_event(Level::kError, "node.stop.late",
              "reason=\"stopping took too long\" effect=\"ended without a checkpoint; the next "
              "start replays the log\"");
    ::_exit(1);
  });
  reactor().cancel(exports_check);
  reactor().cancel(certificates_check);
  if (control) control->abandon_held_writers();
  if (nbd) co_await nbd->stop();
  if (service) co_await service->drain(kDrainMax);
  if (control) co_await control->stop();
  nbd.reset();
  if (service) service->stop();
  control.reset();
  if (storage) co_await storage->close();
  asio.stop();
  signals.reset();
  reactor().cancel(limit);
}

Node::Node(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Node::~Node() = default;

Result<std::unique_ptr<Node>> Node::start(NodeOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  const Status started = impl->start();
  if (!started) {
    if (impl->storage) impl->reactor().wait_for(impl->stop());
    return Error(started.error());
  }
  return std::unique_ptr<Node>(new Node(std::move(impl)));
}

void Node::run() {
  impl_->reactor().run();
  log_event(Level::kInfo, "node.stop", "node={}", impl_->options.config.node.name);
  notify_stopping();
  impl_->reactor().wait_for(impl_->stop());
  log_event(Level::kInfo, "node.stopped", "node={}", impl_->options.config.node.name);
}

void Node::request_stop() { impl_->reactor().stop(); }

Status check_node(const Config& config) {
  if (config.service.tls) {
    auto certificates = rpc::load_certificates(service_options(config).files);
    if (!certificates) return Error(std::move(certificates.error()));
  }
  if (config.nbd.tls) {
    TANDEM_TRY(check_readable("nbd.certificate", config.nbd.tls->certificate));
    TANDEM_TRY(check_readable("nbd.key", config.nbd.tls->key));
    TANDEM_TRY(check_readable("nbd.client_ca", config.nbd.tls->ca));
  }
  const auto directory = std::filesystem::path(config.pool.path).parent_path();
  std::error_code error;
  if (!std::filesystem::is_directory(directory, error)) {
    return Error{ErrorCode::kInvalid, "pool.path: the directory " + directory.string() +
                                          " does not exist; make it, or correct the path"};
  }
  return ok();
}

}  // namespace tandem::daemon
