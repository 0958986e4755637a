#include "rpc/sockets.h"

#include <grpc/grpc.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>

namespace tandem::rpc {
namespace {

/// The release whose way to wait for sockets is known.
constexpr const char* kKnownRelease = "1.51.";

/// proc(5): one line "tfd: N events: ..." for each descriptor in an epoll set.
bool contains(const std::string& epoll_set, int fd) {
  std::ifstream info("/proc/self/fdinfo/" + epoll_set);
  for (std::string word; info >> word;) {
    int member = -1;
    if (word == "tfd:" && info >> member && member == fd) return true;
  }
  return false;
}

int epoll_set_with(int fd) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    const auto target = std::filesystem::read_symlink(entry.path(), error);
    if (error || target != "anon_inode:[eventpoll]") continue;
    const auto name = entry.path().filename().string();
    if (contains(name, fd)) return std::stoi(name);
  }
  return -1;
}

/// gRPC is given a socket, and whichever set it is in then is gRPC's.
int find_epoll_set() {
  if (grpc::Version().rfind(kKnownRelease, 0) != 0) return -1;
  grpc_init();  // never undone: the set stays
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) return -1;
  int found = -1;
  {
    const auto channel = grpc::CreateInsecureChannelFromFd("epoll-set", ends[0]);  // takes it
    found = epoll_set_with(ends[0]);
  }
  ::close(ends[1]);
  return found;
}

}  // namespace

/// Keeps itself while it waits: that may end after the Sockets have gone.
struct Sockets::Watch : std::enable_shared_from_this<Watch> {
  Watch(Readiness& port, std::function<void()> call) : readiness(port), ready(std::move(call)) {
    wait.fd = epoll_set();
    wait.owner = this;
    wait.done = [](ReadinessWait& ended, bool) { static_cast<Watch*>(ended.owner)->on_ready(); };
  }
  void begin() {
    if (self) return;
    self = shared_from_this();
    readiness.wait(wait);
  }
  void on_ready() {
    const auto hold = std::move(self);
    if (wanted) ready();
    if (wanted) begin();
  }

  Readiness& readiness;
  const std::function<void()> ready;
  ReadinessWait wait;
  bool wanted = false;
  std::shared_ptr<Watch> self;
};

int Sockets::epoll_set() {
  static const int found = find_epoll_set();
  return found;
}

Sockets::Sockets(Readiness& readiness, std::function<void()> ready)
    : watch_(std::make_shared<Watch>(readiness, std::move(ready))) {}

Sockets::~Sockets() { ignore(); }

void Sockets::watch() {
  watch_->wanted = true;
  watch_->begin();
}

void Sockets::ignore() {
  watch_->wanted = false;
  if (watch_->self) watch_->readiness.cancel(watch_->wait);
}

}  // namespace tandem::rpc
