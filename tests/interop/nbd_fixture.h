// NbdServerTest: an NBD server on a thread of its own, serving volumes in memory on a Unix socket.
#pragma once

#include <gtest/gtest.h>

#include <coroutine>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "device/asio_thread.h"
#include "device/reactor.h"
#include "frontend/nbd/server.h"
#include "tandem/base/log.h"
#include "tests/interop/memory_volume.h"
#include "tests/interop/nbd_raw_client.h"

namespace tandem::test {

class NbdServerTest : public testing::Test {
 protected:
  static constexpr std::uint64_t kVolumeBytes = std::uint64_t{8} << 20;

  /// Runs `work` on the server's thread and waits for it.
  template <class Work>
  auto on_reactor(Work work) {
    using T = decltype(work());
    if (!thread_.joinable()) return work();
    std::promise<T> promise;
    auto future = promise.get_future();
    reactor_->post([&] {
      if constexpr (std::is_void_v<T>) {
        work();
        promise.set_value();
      } else {
        promise.set_value(work());
      }
    });
    return future.get();
  }

  NbdServerTest() {
    auto reactor = device::Reactor::create();
    if (!reactor) throw std::runtime_error(reactor.error().message);
    reactor_ = std::move(*reactor);
    set_log_sink([](Level, std::string_view) {});
    std::string name = std::filesystem::temp_directory_path() / "tandem-nbd-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    folder_ = name;
    volume_ = add("disk", {.size_bytes = kVolumeBytes});
    add("readonly", {.size_bytes = kVolumeBytes, .read_only = true});
  }

  ~NbdServerTest() override {
    if (server_) stop();
    on_reactor([this] { server_.reset(); });
    reactor_->stop();
    if (thread_.joinable()) thread_.join();
    // A coroutine that still waits would hold a buffer: the pool's destructor checks that none is.
    volume_.reset();
    directory_ = MemoryDirectory();
    std::filesystem::remove_all(folder_);
    set_log_sink(nullptr);
  }

  std::shared_ptr<MemoryVolume> add(const std::string& name, MemoryVolume::Options options) {
    auto volume = std::make_shared<MemoryVolume>(pool_, name, options);
    directory_.add(volume);
    return volume;
  }

  void start(nbd::Options options = {}) {
    make_server(std::move(options));
    const Status bound = server_->listen("unix:" + socket_path());
    ASSERT_TRUE(bound) << bound.error().message;
    run();
  }
  void make_server(nbd::Options options = {}) {
    server_ =
        std::make_unique<nbd::Server>(nbd::Loops{*reactor_, reactor_->readiness(), asio_.io()},
                                      pool_, directory_, std::move(options));
  }
  void run() {
    std::promise<void> running;
    thread_ = std::thread([this, &running] {
      reactor_->wait_for(announce(running));  // from here on it is this thread's
      reactor_->run();
    });
    running.get_future().get();
  }
  std::string socket_path() const { return folder_ / "socket"; }
  RawClient connect() const { return RawClient(socket_path()); }

  nbd::Stats stats() {
    return on_reactor([this] { return server_->stats(); });
  }
  VolumeCounters counters() {
    return on_reactor([this] { return volume_->counters(); });
  }
  /// Polls, because what it waits for happens on another thread; fails after 20 s.
  template <class Predicate>
  void eventually(Predicate predicate) {
    const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!on_reactor(predicate)) {
      ASSERT_LT(std::chrono::steady_clock::now(), give_up) << "it never happened";
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  std::future<void> begin_stop() {
    auto done = std::make_shared<std::promise<void>>();
    auto future = done->get_future();
    reactor_->post([this, done] { spawn(stop_server(done)); });
    return future;
  }
  void stop() { begin_stop().get(); }

  /// From now on every call on the volume waits for release().
  void hold() {
    on_reactor([this] {
      volume_->set_later([this](std::coroutine_handle<> call) { held_.push_back(call); });
    });
  }
  void release() {
    on_reactor([this] {
      volume_->set_later({});
      for (const auto call : std::exchange(held_, {})) call.resume();
    });
  }
  std::size_t held() {
    return on_reactor([this] { return held_.size(); });
  }

  device::AsioThread asio_;
  std::unique_ptr<device::Reactor> reactor_;
  BufferPool pool_{std::size_t{16} << 20};
  MemoryDirectory directory_;
  std::shared_ptr<MemoryVolume> volume_;
  std::unique_ptr<nbd::Server> server_;
  std::filesystem::path folder_;

 private:
  static Task<void> announce(std::promise<void>& running) {
    running.set_value();
    co_return;
  }
  Task<void> stop_server(std::shared_ptr<std::promise<void>> done) {
    co_await server_->stop();
    done->set_value();
  }

  std::thread thread_;
  std::vector<std::coroutine_handle<>> held_;
};

}  // namespace tandem::test
