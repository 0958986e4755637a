#include "frontend/nbd/server.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <utility>

#include "frontend/nbd/asio_support.h"
#include "frontend/nbd/endpoint.h"
#include "frontend/nbd/session.h"
#include "tandem/base/check.h"
#include "tandem/base/log.h"
#include "tandem/base/sync.h"

namespace tandem::nbd {

namespace {

constexpr int kAcceptsInARow = 16;
// After accept() failed for want of descriptors or memory.
constexpr std::chrono::milliseconds kAcceptPause{100};

}  // namespace

class Server::Impl {
 public:
  Impl(asio::io_context& io, BufferPool& pool, VolumeDirectory& directory, Options options)
      : context_{io, pool, directory, std::move(options), nullptr, {}} {
    Options& bounds = context_.options;
    CHECK(bounds.connections_max > 0 && bounds.requests_max > 0);
    CHECK(bounds.payload_bytes_max >= 64 << 10);  // the specification demands reads of that size
    // One request of the largest size must fit, and so must the longest option of a handshake.
    bounds.bytes_max = std::max<std::size_t>(bounds.bytes_max, bounds.payload_bytes_max);
    bounds.input_bytes = std::max<std::size_t>(bounds.input_bytes, 128 << 10);
  }
  ~Impl() { CHECK(listeners_.empty() && sessions_.empty()); }

  Status listen(const std::string& endpoint);
  Status reload_tls();
  std::vector<std::string> endpoints() const;
  Task<void> stop();
  Task<void> disconnect(std::string export_name);
  const Stats& stats() const { return context_.stats; }

 private:
  struct Port {
    Port(asio::io_context& io, Listener made)
        : listener(std::move(made)),
          socket(io.get_executor(), listener.fd),
          pause(io.get_executor()) {}
    Listener listener;
    AsioDescriptor socket;
    AsioTimer pause;
  };

  Task<void> accept_loop(std::shared_ptr<Port> port);
  bool accept_some(Port& port);
  void admit(int fd, bool local);
  bool make_room();
  Task<void> run_session(std::shared_ptr<Session> session);

  SessionContext context_;
  std::vector<std::shared_ptr<Port>> listeners_;
  std::list<std::shared_ptr<Session>> sessions_;  // oldest first
  Gate work_;
  Condition session_ended_;
  bool stopping_ = false;
  bool refusing_ = false;  // for one log line per change
};

Status Server::Impl::listen(const std::string& endpoint) {
  CHECK(!stopping_);
  if (context_.options.tls && !context_.tls) {
    auto tls = TlsContext::make(*context_.options.tls);
    if (!tls) return Error(std::move(tls.error()));
    context_.tls = std::move(*tls);
  }
  auto bound = bind_endpoint(endpoint, context_.options.unix_socket_mode);
  if (!bound) return Error(std::move(bound.error()));
  log_event(Level::kInfo, "nbd.listening", "endpoint={} tls={}", bound->endpoint,
            context_.tls ? (context_.options.tls->required ? "required" : "offered") : "no");
  auto port = std::make_shared<Port>(context_.io, std::move(*bound));
  listeners_.push_back(port);
  spawn(accept_loop(std::move(port)));
  return ok();
}

Status Server::Impl::reload_tls() {
  if (!context_.tls) return ok();
  auto tls = TlsContext::make(*context_.options.tls);
  if (!tls) return Error(std::move(tls.error()));
  context_.tls = std::move(*tls);
  return ok();
}

std::vector<std::string> Server::Impl::endpoints() const {
  std::vector<std::string> names;
  for (const auto& port : listeners_) names.push_back(port->listener.endpoint);
  return names;
}

Task<void> Server::Impl::accept_loop(std::shared_ptr<Port> port) {
  Gate::Holder hold(work_);
  while (!stopping_) {
    const bool ready = co_await DescriptorWait{port->socket, AsioDescriptor::wait_read};
    if (stopping_ || !ready) continue;
    const bool fine = accept_some(*port);
    if (!fine && !stopping_) co_await TimerWait{port->pause, kAcceptPause};
  }
}

/// False: accept() failed in a way that will not pass at once.
bool Server::Impl::accept_some(Port& port) {
  const bool local = !port.listener.path.empty();
  for (int i = 0; i < kAcceptsInARow; ++i) {
    const int fd = ::accept4(port.listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      admit(fd, local);
      continue;
    }
    if (errno == EAGAIN) return true;
    if (errno == EINTR || errno == ECONNABORTED) continue;
    ++context_.stats.connections_refused_total;
    if (!std::exchange(refusing_, true))
      log_event(Level::kWarn, "nbd.accept_failed",
                "endpoint={} reason=\"{}; raise the limit of open files or memory\"",
                port.listener.endpoint, std::strerror(errno));
    return false;
  }
  return true;
}

/// Takes the place of the oldest client that has not chosen an export yet: one that is honest
/// needs milliseconds for that, so silent ones cannot keep others out.
bool Server::Impl::make_room() {
  if (sessions_.size() < context_.options.connections_max) return true;
  const auto oldest = std::find_if(sessions_.begin(), sessions_.end(),
                                   [](const auto& session) { return session->negotiating(); });
  if (oldest == sessions_.end()) return false;
  (*oldest)->stop();
  return true;
}

void Server::Impl::admit(int fd, bool local) {
  std::string peer = prepare_connection(fd, local);
  if (!make_room()) {
    ++context_.stats.connections_refused_total;
    if (!std::exchange(refusing_, true))
      log_event(Level::kWarn, "nbd.refusing",
                "client={} reason=\"{} connections are open; raise "
                "connections_max\"",
                peer, sessions_.size());
    ::close(fd);
    return;
  }
  refusing_ = false;
  ++context_.stats.connections_total;
  ++context_.stats.connections_open;
  auto session = std::make_shared<Session>(context_, fd, std::move(peer), local);
  sessions_.push_back(session);
  spawn(run_session(std::move(session)));
}

Task<void> Server::Impl::run_session(std::shared_ptr<Session> session) {
  Gate::Holder hold(work_);
  co_await session->run();
  sessions_.remove(session);
  --context_.stats.connections_open;
  session_ended_.notify_all();
}

Task<void> Server::Impl::stop() {
  stopping_ = true;
  for (const auto& port : listeners_) {
    boost::system::error_code ignored;
    port->socket.cancel(ignored);
    port->pause.cancel();
    remove_socket_file(port->listener);
  }
  // Stopping a session never ends it from within this call, so the list stays as it is.
  for (const auto& session : sessions_) session->stop();
  co_await work_.close();
  // The last task may still be unwinding below us; let it, so that we may be destroyed after this.
  co_await TurnWait{context_.io};
  listeners_.clear();
}

Task<void> Server::Impl::disconnect(std::string export_name) {
  Gate::Holder hold(work_);
  const auto uses_it = [&](const auto& session) {
    return !session->negotiating() && session->export_name() == export_name;
  };
  for (const auto& session : sessions_)
    if (uses_it(session)) session->stop();
  while (std::any_of(sessions_.begin(), sessions_.end(), uses_it)) co_await session_ended_.wait();
}

Server::Server(asio::io_context& io, BufferPool& pool, VolumeDirectory& directory, Options options)
    : impl_(std::make_unique<Impl>(io, pool, directory, std::move(options))) {}
Server::~Server() = default;
Status Server::listen(std::string endpoint) { return impl_->listen(endpoint); }
Status Server::reload_tls() { return impl_->reload_tls(); }
std::vector<std::string> Server::endpoints() const { return impl_->endpoints(); }
Task<void> Server::stop() { return impl_->stop(); }
Task<void> Server::disconnect(std::string export_name) {
  return impl_->disconnect(std::move(export_name));
}
Stats Server::stats() const { return impl_->stats(); }

}  // namespace tandem::nbd
