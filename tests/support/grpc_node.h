// A node for the tests of the rpc module: a real service on a loopback port, with an acceptor that
// keeps the links and a Control that does what the test says.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "rpc/service.h"
#include "tandem/base/sync.h"
#include "tests/support/grpc_support.h"

namespace tandem::rpc {

using namespace std::chrono_literals;

/// Keeps what it is given until the test takes it.
class KeepingAcceptor final : public LinkAcceptor {
 public:
  void accept(std::unique_ptr<Link> link) override { links.push_back(std::move(link)); }
  std::deque<std::unique_ptr<Link>> links;  // the reactor's
};

/// Records each call as text and answers `result`; receipt() and promote() answer `receipt` when
/// `result` is good.
class FakeControl final : public Control {
 public:
  Task<NodeStatus> status() override {
    calls.push_back("status");
    co_return node;
  }
  Task<Result<NodeLatency>> latency(std::string group) override {
    calls.push_back("latency " + group);
    if (!result) co_return Error(result.error());
    co_return latency_answer;
  }
  Task<Status> create_volume(CreateVolume r) override {
    return note("create " + r.name + " in " + r.group + " of " + std::to_string(r.size_bytes) +
                " by " + std::to_string(r.logical_block_bytes));
  }
  Task<Status> resize_volume(std::string name, std::uint64_t size_bytes) override {
    return note("resize " + name + " to " + std::to_string(size_bytes));
  }
  Task<Status> delete_volume(std::string name) override { return note("delete volume " + name); }
  Task<Status> clone_group(CloneGroup r) override {
    return note("clone " + r.origin + "@" + r.snapshot + " as " + r.name);
  }
  Task<Status> delete_group(std::string name) override { return note("delete group " + name); }
  Task<Status> set_mode(std::string group, ReplicationMode mode) override {
    return note("mode " + group + " " + to_string(mode));
  }
  Task<Status> add_mirror(AddMirror r) override {
    return note("add " + r.group + " " + r.address + " " + to_string(r.mode));
  }
  Task<Status> remove_mirror(std::string group, std::string address) override {
    return note("remove " + group + " " + address);
  }
  Task<Status> change_settings(ChangeSettings r) override {
    std::string what = "set " + r.group + " " + r.mirror + ":";
    for (const auto& [key, value] : r.changes) what += " " + key + "=" + value;
    return note(std::move(what));
  }
  Task<Result<SnapshotStatus>> create_snapshot(CreateSnapshot r) override {
    return note_snapshot("snapshot " + r.group + " " + r.name + " \"" + r.label + "\"" +
                         std::string(static_cast<std::size_t>(r.hook), '!'));
  }
  Task<Status> start_scrub(std::string group) override { return note("start scrub " + group); }
  Task<Status> stop_scrub(std::string group) override { return note("stop scrub " + group); }
  Task<Status> start_compaction(std::string group) override {
    return note("start compaction " + group);
  }
  Task<Status> stop_compaction(std::string group) override {
    return note("stop compaction " + group);
  }
  Task<Status> delete_snapshot(std::string group, std::string name) override {
    return note("delete snapshot " + group + " " + name);
  }
  Task<Status> rename_snapshot(RenameSnapshot r) override {
    return note("rename snapshot " + r.group + " " + r.name + " " + r.new_name + " " +
                (r.label ? "\"" + *r.label + "\"" : "-"));
  }
  Task<Result<SnapshotStatus>> show_snapshot(std::string group, std::string name) override {
    return note_snapshot("show snapshot " + group + " " + name);
  }
  Task<Result<RolledBack>> rollback(Rollback r) override {
    calls.push_back("roll back " + r.group + " to " + r.snapshot + " as " + r.branch);
    if (!result) co_return Error(result.error());
    co_return RolledBack{snapshot_answer, r.branch.empty() ? SnapshotStatus{} : snapshot_answer};
  }
  Task<Result<HistoryStatus>> history(std::string group) override {
    calls.push_back("history " + group);
    if (!result) co_return Error(result.error());
    co_return history_answer;
  }
  Task<Result<SnapshotStatus>> keep_point(KeepPoint r) override {
    return note_snapshot("keep " + r.group + " at " + (r.lsn ? std::to_string(r.lsn->value) : "-") +
                         " " + (r.time ? std::to_string(r.time->value) : "-") + " as " + r.name +
                         " \"" + r.label + "\"");
  }
  Task<Result<ContentReport>> check_content(ContentRequest r) override {
    calls.push_back("check " + r.group + " " + r.snapshot + " " + r.volume + " " +
                    std::to_string(r.first) + (r.read ? " read" : "") +
                    (r.detail ? " detail" : ""));
    if (!result) co_return Error(result.error());
    co_return content_answer;
  }
  Task<Result<Receipt>> receipt(std::string group) override {
    return note_receipt("receipt " + group);
  }
  Task<Result<Receipt>> promote(std::string group, bool force) override {
    return note_receipt("promote " + group + (force ? " by force" : ""));
  }
  Task<Result<Receipt>> take_over(std::string group) override {
    return note_receipt("take over " + group);
  }
  Task<Status> demote(std::string group) override { return note("demote " + group); }
  Task<Result<SwitchedOver>> switchover(std::string group, std::string address) override {
    const Status noted = co_await note("switchover " + group + " to " + address);
    if (!noted) co_return noted.error();
    co_return SwitchedOver{.held_ms = 120};
  }

  std::vector<std::string> calls;
  NodeStatus node;
  Status result = ok();
  Receipt receipt_answer;
  SnapshotStatus snapshot_answer;
  HistoryStatus history_answer;
  NodeLatency latency_answer;
  ContentReport content_answer;
  /// With it, a call that is noted waits until it is opened.
  bool hold = false;
  Condition opened;

 private:
  Task<Status> note(std::string what) {
    calls.push_back(std::move(what));
    while (hold) co_await opened.wait();
    co_return result;
  }
  Task<Result<SnapshotStatus>> note_snapshot(std::string what) {
    calls.push_back(std::move(what));
    if (!result) co_return Error(result.error());
    co_return snapshot_answer;
  }
  Task<Result<Receipt>> note_receipt(std::string what) {
    calls.push_back(std::move(what));
    if (!result) co_return Error(result.error());
    co_return receipt_answer;
  }
};

class TestNode {
 public:
  /// `readiness`: the executor's thread serves gRPC's sockets with it; null: gRPC's thread does.
  explicit TestNode(test::ThreadExecutor& executor, ServiceOptions options = plain(),
                    Readiness* readiness = nullptr)
      : executor_(executor), served_here_(readiness != nullptr) {
    auto made = Service::create(executor, readiness, pool, std::move(options));
    EXPECT_TRUE(made.has_value()) << (made ? "" : made.error().message);
    service = std::move(*made);
    const auto started = service->start(control, acceptor);
    EXPECT_TRUE(started.has_value()) << (started ? "" : started.error().message);
  }
  ~TestNode() { stop(); }
  void stop() {
    executor_.run([this] { acceptor.links.clear(); });
    stop_service();
  }
  void stop_service() {
    if (!served_here_) return service->stop();
    executor_.run([this] { service->stop(); });
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(service->port()); }

  static ServiceOptions plain() {
    ServiceOptions options;
    options.listen = "127.0.0.1:0";
    options.tls = false;
    return options;
  }
  static ServiceOptions secured(const test::CertificateFiles& files) {
    auto options = plain();
    options.tls = true;
    options.files = {files.ca, files.certificate, files.key};
    return options;
  }

  BufferPool pool{64 << 20};
  FakeControl control;
  KeepingAcceptor acceptor;
  std::unique_ptr<Service> service;

 private:
  test::ThreadExecutor& executor_;
  const bool served_here_;
};

/// The next link that `node` accepts; none after ten seconds.
inline Task<std::unique_ptr<Link>> next_link(test::ThreadExecutor& executor, TestNode& node) {
  for (int i = 0; i < 10000 && node.acceptor.links.empty(); ++i) co_await sleep_for(executor, 1ms);
  if (node.acceptor.links.empty()) co_return nullptr;
  auto link = std::move(node.acceptor.links.front());
  node.acceptor.links.pop_front();
  co_return link;
}

}  // namespace tandem::rpc
