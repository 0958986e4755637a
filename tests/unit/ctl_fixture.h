// Two nodes as the commands see them, without a network: alpha at a:1 serves group "vms", beta at
// b:1 mirrors it.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "ctl/arguments.h"
#include "rpc/control_client.h"

namespace tandem::ctl {

/// A node as a command sees it, without a network.
struct FakeNode {
  bool up = true;
  NodeStatus status;
  Status result = ok();
  Receipt receipt;
  SnapshotStatus snapshot;
  RolledBack rolled_back;
  HistoryStatus history;
  std::deque<NodeLatency> latencies;  // one a call; the last one stays
  Status cloned = ok();
  std::function<Result<ContentReport>(const ContentRequest&)> content;
  std::vector<std::string> calls;
  std::chrono::milliseconds timeout{};
};

class FakeClient final : public rpc::ControlClient {
 public:
  FakeClient(FakeNode& node, std::string address) : node_(node), address_(std::move(address)) {}
  const std::string& address() const override { return address_; }
  bool reached() const override { return node_.up; }
  Result<NodeStatus> status() override {
    if (!node_.up) return gone();
    return node_.status;
  }
  Result<NodeLatency> latency(const std::string& group) override {
    TANDEM_TRY(note("latency " + (group.empty() ? "-" : group)));
    if (node_.latencies.empty()) return NodeLatency{};
    auto reading = node_.latencies.front();
    if (node_.latencies.size() > 1) node_.latencies.pop_front();
    return reading;
  }
  Status create_volume(const CreateVolume& r) override {
    return note("create " + r.name + " in " + (r.group.empty() ? "-" : r.group) + " of " +
                std::to_string(r.size_bytes) + " by " + std::to_string(r.logical_block_bytes));
  }
  Status resize_volume(const std::string& name, std::uint64_t size) override {
    return note("resize " + name + " to " + std::to_string(size));
  }
  Status delete_volume(const std::string& name) override { return note("delete volume " + name); }
  Status clone_group(const CloneGroup& r) override {
    TANDEM_TRY(note("clone " + r.origin + "@" + r.snapshot + " as " + r.name));
    return node_.cloned;
  }
  Status delete_group(const std::string& name) override { return note("delete group " + name); }
  Status set_mode(const std::string& group, ReplicationMode mode) override {
    return note("mode " + group + " " + to_string(mode));
  }
  Status add_mirror(const AddMirror& r) override {
    return note("add " + r.group + " " + r.address + " " + to_string(r.mode));
  }
  Status remove_mirror(const std::string& group, const std::string& address) override {
    return note("remove " + group + " " + address);
  }
  Status change_settings(const ChangeSettings& r) override {
    std::string call = "set " + r.group + " " + (r.mirror.empty() ? "-" : r.mirror) + ":";
    for (const auto& [key, value] : r.changes) call += " " + key + "=" + value;
    return note(std::move(call));
  }
  Result<SnapshotStatus> create_snapshot(const CreateSnapshot& r) override {
    TANDEM_TRY(note("snapshot " + r.group + " " + (r.name.empty() ? "-" : r.name) + " \"" +
                    r.label + "\"" + std::string(static_cast<std::size_t>(r.hook), '!')));
    return node_.snapshot;
  }
  Status start_scrub(const std::string& group) override { return note("start scrub " + group); }
  Status stop_scrub(const std::string& group) override { return note("stop scrub " + group); }
  Status start_compaction(const std::string& group) override {
    return note("start compaction " + group);
  }
  Status stop_compaction(const std::string& group) override {
    return note("stop compaction " + group);
  }
  Status delete_snapshot(const std::string& group, const std::string& name) override {
    return note("delete snapshot " + group + " " + name);
  }
  Status rename_snapshot(const RenameSnapshot& r) override {
    return note("rename snapshot " + r.group + " " + r.name + " " + r.new_name + " " +
                (r.label ? "\"" + *r.label + "\"" : "-"));
  }
  Result<SnapshotStatus> show_snapshot(const std::string& group, const std::string& name) override {
    TANDEM_TRY(note("show snapshot " + group + " " + name));
    return node_.snapshot;
  }
  Result<RolledBack> rollback(const Rollback& r) override {
    TANDEM_TRY(note("roll back " + r.group + " to " + r.snapshot + " as " +
                    (r.branch.empty() ? "-" : r.branch)));
    return node_.rolled_back;
  }
  Result<HistoryStatus> history(const std::string& group) override {
    TANDEM_TRY(note("history " + group));
    return node_.history;
  }
  Result<SnapshotStatus> keep_point(const KeepPoint& r) override {
    TANDEM_TRY(note("keep " + r.group + " at " + (r.lsn ? std::to_string(r.lsn->value) : "-") +
                    " " + (r.time ? std::to_string(r.time->value) : "-") + " as " +
                    (r.name.empty() ? "-" : r.name)));
    return node_.snapshot;
  }
  Result<ContentReport> check_content(const ContentRequest& r) override {
    TANDEM_TRY(note("check " + r.volume + "@" + r.snapshot + " of " + r.group + " from " +
                    std::to_string(r.first) + (r.read ? " reading" : "") +
                    (r.detail ? " in detail" : "")));
    if (!node_.content) return ContentReport{.next = r.first, .end = true};
    return node_.content(r);
  }
  Result<Receipt> receipt(const std::string& group) override {
    TANDEM_TRY(note("receipt " + group));
    return node_.receipt;
  }
  Result<Receipt> promote(const std::string& group, bool force) override {
    TANDEM_TRY(note("promote " + group + (force ? " by force" : "")));
    return node_.receipt;
  }
  Status demote(const std::string& group) override { return note("demote " + group); }
  Result<SwitchedOver> switchover(const std::string& group, const std::string& address) override {
    TANDEM_TRY(note("switchover " + group + " to " + (address.empty() ? "-" : address)));
    return SwitchedOver{.held_ms = 120};
  }

 private:
  Error gone() const { return {ErrorCode::kUnavailable, "cannot talk to " + address_}; }
  Status note(std::string call) {
    if (!node_.up) return gone();
    node_.calls.push_back(std::move(call));
    return node_.result;
  }
  FakeNode& node_;
  std::string address_;
};

class CommandTest : public testing::Test {
 protected:
  CommandTest() {
    auto& a = nodes["a:1"];
    a.status.node = "alpha";
    a.status.control_address = "a:1";
    a.status.version = "0.1.0";
    a.status.pool.path = "/srv/pool";
    a.status.pool.zone_bytes = 16 << 20;
    a.status.pool.zones_total = 64;
    a.status.pool.zones_free = 32;
    a.status.pool.size_bytes = 1ull << 30;
    GroupStatus g;
    g.name = "vms";
    g.state = "serving";
    g.mode = ReplicationMode::kSync;
    g.head.timeline = Timeline(1);
    g.head.lsn = Lsn(300);
    g.volumes = {{"disk", 1, 1ull << 30, 512, 4096}};
    SlotStatus slot;
    slot.node = "beta";
    slot.address = "b:1";
    slot.state = "following";
    slot.in_sync = true;
    g.slots = {slot};
    a.status.groups = {g};
    auto& b = nodes["b:1"];
    b.status = a.status;
    b.status.node = "beta";
    b.status.control_address = "b:1";
    b.status.groups[0].role = Role::kMirror;
    b.status.groups[0].state = "mirroring";
    b.status.groups[0].slots.clear();
    b.status.groups[0].upstream = UpstreamStatus{};
    b.status.groups[0].upstream->state = "lost";
    b.receipt.group = "vms";
    b.receipt.head_known = true;
  }

  int tandem(const std::string& line) {
    out.str("");
    err.str("");
    Context context{.settings = {},
                    .out = out,
                    .err = err,
                    .in = in,
                    .terminal = terminal,
                    .connect = {},
                    .open_stream = open_stream};
    context.connect = [this](const std::string& address,
                             std::chrono::milliseconds timeout) -> Result<Client> {
      const auto at = nodes.find(address);
      if (at == nodes.end()) return Error{ErrorCode::kInvalid, address + " is not an address"};
      at->second.timeout = timeout;
      return Client(std::make_unique<FakeClient>(at->second, address));
    };
    std::istringstream split(line);
    std::vector<std::string> words;
    for (std::string word; split >> word;) words.push_back(word);
    return run(words, context, [](const char*) -> const char* { return nullptr; }, {});
  }
  /// With both nodes named, without TLS.
  int both(const std::string& line) { return tandem("--insecure --node a:1 --node b:1 " + line); }
  int at_a(const std::string& line) { return tandem("--insecure --node a:1 " + line); }
  int at_b(const std::string& line) { return tandem("--insecure --node b:1 " + line); }
  nlohmann::json json() { return nlohmann::json::parse(out.str()); }
  nlohmann::json error_json() { return nlohmann::json::parse(err.str()).at("error"); }
  bool says(const std::string& text) { return out.str().find(text) != std::string::npos; }
  bool complains(const std::string& text) { return err.str().find(text) != std::string::npos; }

  std::map<std::string, FakeNode> nodes;
  std::function<Result<Stream>(const std::string&, std::chrono::milliseconds)> open_stream;
  std::ostringstream out, err;
  std::istringstream in;
  bool terminal = false;
};

using Calls = std::vector<std::string>;

}  // namespace tandem::ctl
