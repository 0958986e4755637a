#include "frontend/nbd/server.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <list>
#include <utility>

#include "frontend/nbd/acceptor.h"
#include "frontend/nbd/endpoint.h"
#include "frontend/nbd/session.h"
#include "tandem/base/check.h"
#include "tandem/base/log.h"
#include "tandem/base/sync.h"

namespace tandem::nbd {

class Server::Impl {
 public:
  Impl(const Loops& loops, BufferPool& pool, VolumeDirectory& directory, Options options)
      : context_{loops.executor, loops.readiness, pool, directory, std::move(options), nullptr, {}},
        accepting_(loops.accepting) {
    Options& bounds = context_.options;
    CHECK(bounds.connections_max > 0 && bounds.requests_max > 0);
    CHECK(bounds.payload_bytes_max >= 64 << 10);  // the specification demands reads of that size
    // One request of the largest size must fit, and so must the longest option of a handshake.
    bounds.bytes_max = std::max<std::size_t>(bounds.bytes_max, bounds.payload_bytes_max);
    bounds.input_bytes = std::max<std::size_t>(bounds.input_bytes, 128 << 10);
  }
  ~Impl() { CHECK(acceptors_.empty() && sessions_.empty()); }

  Status listen(const std::string& endpoint);
  Status reload_tls();
  std::vector<std::string> endpoints() const;
  Task<void> stop();
  void end_unserved();
  const Stats& stats() const { return context_.stats; }

 private:
  void admit(int fd, bool local);
  void cannot_accept(const std::string& endpoint, int error);
  bool make_room();
  Task<void> run_session(std::shared_ptr<Session> session);

  SessionContext context_;
  boost::asio::io_context& accepting_;
  std::vector<std::unique_ptr<Acceptor>> acceptors_;
  std::list<std::shared_ptr<Session>> sessions_;  // oldest first
  Gate work_;
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
  const bool local = !bound->path.empty();
  Acceptor::Calls calls{
      .accepted = [this, local](int fd) { admit(fd, local); },
      .failed = [this, name = bound->endpoint](int error) { cannot_accept(name, error); }};
  acceptors_.push_back(std::make_unique<Acceptor>(accepting_, context_.executor, std::move(*bound),
                                                  std::move(calls)));
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
  for (const auto& acceptor : acceptors_) names.push_back(acceptor->listener().endpoint);
  return names;
}

void Server::Impl::cannot_accept(const std::string& endpoint, int error) {
  ++context_.stats.connections_refused_total;
  if (!std::exchange(refusing_, true))
    log_event(Level::kWarn, "nbd.accept_failed",
              "endpoint={} reason=\"{}; raise the limit of open files or memory\"", endpoint,
              std::strerror(error));
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
  if (stopping_) {
    ::close(fd);
    return;
  }
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
}

Task<void> Server::Impl::stop() {
  stopping_ = true;
  for (const auto& acceptor : acceptors_) remove_socket_file(acceptor->listener());
  for (const auto& session : sessions_) session->stop();  // which never ends it from within
  for (const auto& acceptor : acceptors_) co_await acceptor->stop();
  co_await work_.close();
  // The last task may still be unwinding below us; let it, so that we may be destroyed after this.
  co_await next_turn(context_.executor);
  acceptors_.clear();
}

void Server::Impl::end_unserved() {
  for (const auto& session : sessions_)  // stop() never ends one from within
    if (session->writable() && !context_.directory.exports(session->export_name())) session->stop();
}

Server::Server(const Loops& loops, BufferPool& pool, VolumeDirectory& directory, Options options)
    : impl_(std::make_unique<Impl>(loops, pool, directory, std::move(options))) {}
Server::~Server() = default;
Status Server::listen(std::string endpoint) { return impl_->listen(endpoint); }
Status Server::reload_tls() { return impl_->reload_tls(); }
std::vector<std::string> Server::endpoints() const { return impl_->endpoints(); }
Task<void> Server::stop() { return impl_->stop(); }
void Server::end_unserved() { impl_->end_unserved(); }
Stats Server::stats() const { return impl_->stats(); }

}  // namespace tandem::nbd
