#include "daemon/peer_control.h"

#include <coroutine>
#include <thread>
#include <utility>

#include "rpc/control_client.h"

namespace tandem::daemon {
namespace {

Status call_add_mirror(const rpc::ClientOptions& options, const AddMirror& request) {
  auto client = rpc::ControlClient::create(options);
  if (!client) return Error(std::move(client.error()));
  return (*client)->add_mirror(request);
}

/// Runs the call on a thread of its own and resumes on the reactor.
struct AddMirrorCall {
  Executor& executor;
  rpc::ClientOptions options;
  AddMirror request;
  Status result;
  std::thread thread;

  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    thread = std::thread([this, waiter] {
      result = call_add_mirror(options, request);
      executor.post([waiter] { waiter.resume(); });
    });
  }
  void await_resume() { thread.join(); }
};

}  // namespace

PeerControl::PeerControl(Executor& executor, rpc::Peers& peers, rpc::ClientOptions options)
    : executor_(executor), peers_(peers), options_(std::move(options)) {}

Task<Result<Receipt>> PeerControl::promote(std::string address, std::string group, bool force,
                                           Nanoseconds limit) {
  return peers_.promote(std::move(address), std::move(group), force, limit);
}

Task<Status> PeerControl::add_mirror(std::string address, AddMirror request, Nanoseconds limit) {
  AddMirrorCall call{executor_, options_, std::move(request), {}, {}};
  call.options.address = std::move(address);
  call.options.timeout = std::chrono::duration_cast<std::chrono::milliseconds>(limit);
  co_await call;
  co_return std::move(call.result);
}

}  // namespace tandem::daemon
