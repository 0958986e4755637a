// The commands, from the words of the command line to what is printed, sent and returned.
#include "tests/support/grpc_node.h"
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

TEST_F(CommandTest, StatusShowsBothNodesAndTheVerdict) {
  EXPECT_EQ(both("status"), 0);
  EXPECT_TRUE(says("NODE alpha at a:1")) << out.str();
  EXPECT_TRUE(says("NODE beta at b:1"));
  EXPECT_TRUE(says("1 GiB, 512 MiB free (50 %)"));
  EXPECT_TRUE(says("mirror beta following, in sync, lacks nothing"));
  EXPECT_TRUE(says("vms: alpha serves. beta is in sync"));
  EXPECT_EQ(err.str(), "");
}

TEST_F(CommandTest, StatusAsksTheMirrorThatNobodyNamed) {
  EXPECT_EQ(at_a("--json status"), 0);
  auto status = json();
  ASSERT_EQ(status["nodes"].size(), 2u);
  EXPECT_EQ(status["nodes"][0]["named"], true);
  EXPECT_EQ(status["nodes"][1]["node"], "beta");
  EXPECT_EQ(status["nodes"][1]["named"], false);
  // Named under another name, it is still one node.
  nodes["beta.example:1"] = nodes["b:1"];
  EXPECT_EQ(tandem("--insecure --node a:1 --node beta.example:1 --json status"), 0);
  EXPECT_EQ(json()["nodes"].size(), 2u);
  // Not answering, it does not make the command fail, but it shows.
  nodes["b:1"].up = false;
  EXPECT_EQ(at_a("status"), 0);
  EXPECT_TRUE(says("NODE b:1: NOT ANSWERING")) << out.str();
}

TEST_F(CommandTest, StatusInJsonIsExact) {
  EXPECT_EQ(both("status --json"), 0);
  const auto status = json();
  const auto& group = status["nodes"][0]["groups"][0];
  EXPECT_EQ(status["nodes"][0]["reachable"], true);
  EXPECT_EQ(status["nodes"][0]["pool"]["size_bytes"], 1u << 30);
  EXPECT_EQ(group["role"], "primary");
  EXPECT_EQ(group["mode"], "sync");
  EXPECT_EQ(group["head"]["lsn"], 300);
  EXPECT_EQ(group["volumes"][0]["size_bytes"], 1u << 30);
  EXPECT_EQ(group["slots"][0]["in_sync"], true);
  EXPECT_EQ(group["upstream"], nullptr);
  EXPECT_EQ(status["nodes"][1]["groups"][0]["upstream"]["node"], "");
  EXPECT_EQ(status["verdicts"][0]["good"], true);
}

TEST_F(CommandTest, StatusOfDeadNodes) {
  nodes["a:1"].up = false;
  EXPECT_EQ(both("status"), 0);  // one answers
  EXPECT_TRUE(says("NODE a:1: NOT ANSWERING"));
  EXPECT_TRUE(says("vms: NOT SERVED")) << out.str();
  EXPECT_TRUE(says("Not answering: a:1"));
  nodes["b:1"].up = false;
  EXPECT_EQ(both("status"), 3);
  EXPECT_EQ(both("status --json"), 3);
  EXPECT_EQ(json()["nodes"][0]["reachable"], false);
  EXPECT_EQ(error_json()["code"], "unavailable");
  EXPECT_EQ(error_json()["exit"], 3);
}

TEST_F(CommandTest, Lists) {
  EXPECT_EQ(both("volume list"), 0);
  EXPECT_TRUE(says("disk    vms    alpha  primary  1 GiB  4 KiB      512")) << out.str();
  EXPECT_EQ(both("volume list --json"), 0);
  EXPECT_EQ(json()["volumes"].size(), 2u);
  EXPECT_EQ(json()["volumes"][1]["node"], "beta");
  EXPECT_EQ(both("group list"), 0);
  EXPECT_TRUE(says("1:300"));
  EXPECT_EQ(both("group list --json"), 0);
  EXPECT_EQ(json()["groups"][1]["role"], "mirror");
  EXPECT_EQ(both("group show vms"), 0);
  EXPECT_TRUE(says("Group vms on node alpha"));
  EXPECT_TRUE(says("Group vms on node beta"));
  EXPECT_EQ(both("group show vms --json"), 0);
  EXPECT_EQ(json()["groups"].size(), 2u);
  EXPECT_EQ(both("group show other"), 5);
  EXPECT_TRUE(complains("no group other"));
  nodes["a:1"].up = false;
  EXPECT_EQ(both("volume list"), 0);
  EXPECT_TRUE(complains("not answering: cannot talk to a:1"));
  nodes["b:1"].up = false;
  EXPECT_EQ(both("volume list"), 3);
  EXPECT_EQ(both("group show vms"), 3);
}

class PoolCommand : public CommandTest {
 protected:
  PoolCommand() {
    auto& pool = a().pool;
    pool.size_bytes = 1040 << 20;
    pool.fixed_bytes = 16 << 20;
    pool.prepared_bytes = 48 << 20;
    pool.state = "ok";
    auto& g = a().groups[0];
    g.data_bytes = 300 << 20;
    g.snapshot_bytes = 20 << 20;
    g.map_bytes = 2 << 20;
    g.log_bytes = 10 << 20;
    g.space = {.dead_bytes = 1 << 20,
               .book_bytes = 3 << 20,
               .moving_bytes = 4 << 20,
               .freed_bytes = 5 << 20,
               .free_bytes = 145 << 20,
               .log_rest_bytes = 22 << 20,
               .zone_bytes = 512 << 20};
  }
  NodeStatus& a() { return nodes["a:1"].status; }
};

TEST_F(PoolCommand, ShowBalances) {
  EXPECT_EQ(at_a("pool show"), 0);
  EXPECT_TRUE(says("  data of volumes                        300 MiB")) << out.str();
  EXPECT_TRUE(says("  free zones                             512 MiB"));
  EXPECT_TRUE(says("48 MiB have been written once"));
  EXPECT_FALSE(says("DOES NOT BALANCE")) << out.str();
  EXPECT_EQ(at_a("pool show --json"), 0);
  const auto pool = json()["pools"][0];
  EXPECT_EQ(pool["zones_free"], 32);
  EXPECT_EQ(pool["space"]["sum"], pool["size_bytes"]);
  EXPECT_EQ(pool["space"]["snapshots"], 20 << 20);
  EXPECT_EQ(pool["groups"][0]["group"], "vms");
  EXPECT_EQ(pool["groups"][0]["space"]["sum"], pool["groups"][0]["zone_bytes"]);
  EXPECT_EQ(pool["history_bytes"], 0);
  ++a().groups[0].data_bytes;
  EXPECT_EQ(at_a("pool show"), 0);
  EXPECT_TRUE(says("DOES NOT BALANCE")) << out.str();
}

TEST_F(PoolCommand, ShowsWhatTheHistoryNeedsOfTheParts) {
  EXPECT_EQ(at_a("pool show"), 0);
  EXPECT_TRUE(says("replaced, kept for mirrors or history")) << out.str();
  EXPECT_FALSE(says("which the history needs")) << "there is none";
  a().groups[0].space.history_bytes = 13 << 20;
  EXPECT_EQ(at_a("pool show"), 0);
  EXPECT_TRUE(says("  of which the history needs             13 MiB")) << out.str();
  EXPECT_FALSE(says("DOES NOT BALANCE")) << "it is no part of its own";
  EXPECT_EQ(at_a("pool show --json"), 0);
  const auto pool = json()["pools"][0];
  EXPECT_EQ(pool["history_bytes"], 13 << 20);
  EXPECT_EQ(pool["groups"][0]["history_bytes"], 13 << 20);
  EXPECT_EQ(pool["space"]["sum"], pool["size_bytes"]);
}

TEST_F(PoolCommand, CompactionGoesToEachNodeThatIsNamed) {
  EXPECT_EQ(both("pool compact vms"), 0);
  EXPECT_EQ(nodes["a:1"].calls, std::vector<std::string>{"start compaction vms"});
  EXPECT_EQ(nodes["b:1"].calls, std::vector<std::string>{"start compaction vms"});
  EXPECT_TRUE(says("A compaction of group vms began on node alpha")) << out.str();
  EXPECT_EQ(at_a("pool compact vms --stop --json"), 0);
  EXPECT_EQ(nodes["a:1"].calls.back(), "stop compaction vms");
  EXPECT_EQ(nodes["b:1"].calls.size(), 1u);
  EXPECT_EQ(both("pool compact none"), 5);
  EXPECT_EQ(both("pool compact"), 2);
  nodes["a:1"].result = Error{ErrorCode::kRefused, "nothing to gain"};
  EXPECT_EQ(at_a("pool compact vms"), 4);
}

TEST_F(PoolCommand, ShowsHowCompactionGoes) {
  EXPECT_EQ(at_a("pool show"), 0);
  EXPECT_FALSE(says("Compaction")) << out.str();
  auto& compaction = a().groups[0].compaction;
  compaction = {.state = "running", .started = a().now};
  compaction.zones_chosen = 7;
  compaction.zones_emptied = 2;
  compaction.total_bytes = 20 << 20;
  compaction.moved_bytes = 5 << 20;
  EXPECT_EQ(at_a("pool show"), 0);
  EXPECT_TRUE(says("Compaction of group vms: running")) << out.str();
  EXPECT_TRUE(says("5 MiB of about 20 MiB moved, 2 of 7 zones given back")) << out.str();
  compaction.state = "finished";
  compaction.zones_waiting = 3;
  compaction.by_itself = true;
  compaction.outcome = "why";
  EXPECT_EQ(at_a("pool show"), 0);
  EXPECT_TRUE(says("3 when the history or a mirror needs them no more")) << out.str();
  EXPECT_TRUE(says("because free zones were short; why")) << out.str();
  EXPECT_EQ(at_a("pool show --json"), 0);
  const auto shown = json()["pools"][0]["groups"][0]["compaction"];
  EXPECT_EQ(shown["zones_waiting"], 3);
  EXPECT_EQ(shown["moved_bytes"], 5 << 20);
}

TEST_F(PoolCommand, AFullPoolIsSaidInTheStatus) {
  nodes["b:1"].status.pool.state = "ok";
  EXPECT_EQ(both("status --check"), 0) << out.str();
  EXPECT_FALSE(says("POOL"));
  a().pool.state = "critical";
  a().pool.reason = "93 % full, warned of from 90 %";
  a().pool.fill_bytes_per_second = 1 << 20;
  a().pool.full_in_seconds = 7200;
  EXPECT_EQ(both("status"), 0) << "who does not ask is not surprised";
  EXPECT_TRUE(
      says("POOL ALMOST FULL on alpha: 93 % full, warned of from 90 %; at the rate of the "
           "last hour, 1 MiB a second, it is full in 2 h"))
      << out.str();
  EXPECT_EQ(both("status --check"), 6);
  EXPECT_EQ(both("status --check --json"), 6);
  EXPECT_EQ(json()["pools"][0]["good"], false);
  EXPECT_EQ(json()["pools"][1]["good"], true);
  a().pool.state = "warn";
  EXPECT_EQ(both("status --check"), 6);
  EXPECT_TRUE(says("POOL FILLS UP on alpha"));
  a().pool.state = "ok";
  EXPECT_EQ(both("status --check"), 0);
  nodes["b:1"].up = false;
  EXPECT_EQ(both("status --check"), 6) << "a node does not answer";
  nodes["a:1"].up = false;
  EXPECT_EQ(both("status --check"), 3);
}

TEST_F(CommandTest, WritersThatWaitAreSeenInTheStatus) {
  constexpr std::uint64_t kNow = 1'777'777'777'000'000'000;
  auto& a = nodes["a:1"].status;
  auto& group = a.groups[0];
  a.now = UtcNs(kNow);
  EXPECT_EQ(at_a("group show vms"), 0);
  EXPECT_TRUE(says("writers       answered")) << out.str();
  group.writers = {.state = "waiting",
                   .cause = "disk",
                   .reason = "the disk has not completed what it was given",
                   .since = UtcNs(kNow - 12'000'000'000)};
  EXPECT_EQ(both("status --check"), 6);
  EXPECT_TRUE(
      says("alpha serves. WRITERS WAIT since 12 s ago: the disk has not completed what it "
           "was given. beta is in sync"))
      << out.str();
  EXPECT_EQ(both("status --json"), 0);
  const auto writers = json()["nodes"][0]["groups"][0]["writers"];
  EXPECT_EQ(writers["state"], "waiting");
  EXPECT_EQ(writers["cause"], "disk");
  EXPECT_EQ(writers["since_utc_ns"], kNow - 12'000'000'000);
  EXPECT_EQ(json()["verdicts"][0]["good"], false);
  EXPECT_EQ(at_a("group show vms"), 0);
  EXPECT_TRUE(says("writers       waiting since 12 s ago (disk): the disk has not")) << out.str();
  // What a policy does is said once, with the policy.
  group.policy = {.state = "blocked", .reason = "not in sync: beta", .since = UtcNs(kNow)};
  group.writers.cause = "policy";
  EXPECT_EQ(both("status"), 0);
  EXPECT_TRUE(says("WRITERS ARE HELD (blocked")) << out.str();
  EXPECT_FALSE(says("WRITERS WAIT"));
  // A pool that is full refuses rather than holds; a group that is not mirrored says so, too.
  group.policy = {};
  group.slots.clear();
  group.writers = {.state = "refused",
                   .reason = "the pool is full",
                   .since = UtcNs(kNow - 5'000'000'000),
                   .refused = 3};
  EXPECT_EQ(both("status --check"), 6);
  EXPECT_TRUE(says("WRITES ARE REFUSED (3 times so far, the last 5.0 s ago): the pool is full"))
      << out.str();
  EXPECT_EQ(at_a("group show vms"), 0);
  EXPECT_TRUE(says("refused, the last 5.0 s ago: the pool is full; refused for want of space: 3"))
      << out.str();
  group.writers.state = "answered";
  EXPECT_EQ(both("status"), 0);
  EXPECT_FALSE(says("WRITES ARE"));
}

TEST_F(CommandTest, EmptyNodesSayHowToBegin) {
  nodes["a:1"].status.groups.clear();
  EXPECT_EQ(at_a("status"), 0);
  EXPECT_TRUE(says("tandem volume create"));
  EXPECT_EQ(at_a("volume list"), 0);
  EXPECT_TRUE(says("tandem volume create"));
  EXPECT_EQ(at_a("group list"), 0);
  EXPECT_TRUE(says("tandem volume create"));
}

TEST_F(CommandTest, VolumeCommands) {
  EXPECT_EQ(at_a("volume create new --size 1.5GiB"), 0);
  EXPECT_TRUE(says("Volume new of 1.5 GiB was created in group new at a:1"));
  EXPECT_EQ(at_a("volume create new2 --size 4096 --group vms --block-size 4096 --json"), 0);
  EXPECT_EQ(json()["ok"], true);
  EXPECT_EQ(at_a("volume resize disk --size 2GiB"), 0);
  EXPECT_EQ(at_a("volume delete disk --yes"), 0);
  EXPECT_EQ(nodes["a:1"].calls,
            (Calls{"create new in - of 1610612736 by 512", "create new2 in vms of 4096 by 4096",
                   "resize disk to 2147483648", "delete volume disk"}));
}

TEST_F(CommandTest, ACommandFindsTheRightNode) {
  EXPECT_EQ(both("volume create more --size 1MiB --group vms"), 0);
  EXPECT_EQ(both("volume resize disk --size 2GiB"), 0);
  EXPECT_EQ(both("mode vms async"), 0);
  EXPECT_EQ(both("demote vms"), 0);
  EXPECT_EQ(both("receipt vms"), 0);
  EXPECT_EQ(both("promote vms --yes"), 0);
  EXPECT_EQ(both("volume create fresh --size 1MiB"), 0);
  EXPECT_EQ(nodes["a:1"].calls,
            (Calls{"create more in vms of 1048576 by 512", "resize disk to 2147483648",
                   "mode vms async", "demote vms", "create fresh in - of 1048576 by 512"}));
  EXPECT_EQ(nodes["b:1"].calls, (Calls{"receipt vms", "receipt vms", "promote vms"}));
  EXPECT_EQ(both("volume resize other --size 2GiB"), 5);
  EXPECT_TRUE(complains("none of the nodes has volume other"));
  EXPECT_EQ(both("group delete vms --yes"), 4);
  EXPECT_TRUE(complains("more than one node has a copy of group vms: a:1 b:1"));
  nodes["a:1"].up = false;
  EXPECT_EQ(both("mode vms sync"), 3);
  EXPECT_TRUE(complains("cannot talk to a:1")) << err.str();
  EXPECT_EQ(both("promote vms --yes"), 0);  // what matters answers
}

TEST_F(CommandTest, GroupAndMirrorCommands) {
  EXPECT_EQ(at_a("mode vms flush"), 0);
  EXPECT_EQ(at_a("mirror add vms b:1"), 0);
  EXPECT_EQ(at_a("mirror add vms b:1 --mode async"), 0);
  EXPECT_EQ(at_a("mirror remove vms b:1"), 0);
  EXPECT_EQ(at_a("demote vms"), 0);
  EXPECT_EQ(at_a("switchover vms"), 0);
  EXPECT_EQ(at_a("switchover vms --to b:1"), 0);
  EXPECT_EQ(at_a("group delete vms --yes"), 0);
  EXPECT_EQ(nodes["a:1"].calls, (Calls{"mode vms flush", "add vms b:1 sync", "add vms b:1 async",
                                       "remove vms b:1", "demote vms", "switchover vms to -",
                                       "switchover vms to b:1", "delete group vms"}));
}

TEST_F(CommandTest, PromotionIsConfirmedWithTheReceiptInView) {
  EXPECT_EQ(at_b("promote vms"), 4);  // no terminal, no --yes
  EXPECT_TRUE(says("Promoting group vms here"));
  EXPECT_TRUE(complains("--yes"));
  terminal = true;
  in.str("vmss\n");
  EXPECT_EQ(at_b("promote vms"), 4);
  EXPECT_TRUE(complains("not typed"));
  in.clear();
  in.str("");
  EXPECT_EQ(at_b("promote vms"), 4);  // end of file
  EXPECT_EQ(nodes["b:1"].calls, (Calls{"receipt vms", "receipt vms", "receipt vms"}));
  in.clear();
  in.str("vms\n");
  EXPECT_EQ(at_b("promote vms"), 0);
  EXPECT_LT(out.str().find("Promoting group vms here"), out.str().find("Type \"vms\""));
  EXPECT_TRUE(says("Group vms was promoted here"));
  EXPECT_EQ(nodes["b:1"].calls.back(), "promote vms");
}

TEST_F(CommandTest, PromotionIsRefusedWhileThePrimaryLives) {
  nodes["b:1"].receipt.primary_reachable = true;
  EXPECT_EQ(at_b("promote vms --yes"), 4);
  EXPECT_TRUE(complains("switchover"));
  EXPECT_EQ(nodes["b:1"].calls, (Calls{"receipt vms"}));
  EXPECT_EQ(at_b("promote vms --force"), 4);  // force is not a confirmation
  EXPECT_EQ(at_b("promote vms --force --yes"), 0);
  EXPECT_EQ(nodes["b:1"].calls.back(), "promote vms by force");
  nodes["b:1"].receipt.complete_image = false;
  EXPECT_EQ(at_b("promote vms --force --yes"), 4);
  EXPECT_TRUE(complains("never finished"));
}

TEST_F(CommandTest, OfTwoThatWerePromotedApartOneIsChosen) {
  auto& group = nodes["a:1"].status.groups[0];
  ASSERT_EQ(group.role, Role::kPrimary);
  group.split = SplitStatus{"beta", "two copies were promoted apart", UtcNs(1)};
  EXPECT_EQ(at_a("promote vms --force"), 4);  // force is not a confirmation
  EXPECT_TRUE(says("two copies were promoted apart"));
  EXPECT_TRUE(nodes["a:1"].calls.empty());
  EXPECT_EQ(at_a("promote vms --force --yes"), 0);
  EXPECT_EQ(nodes["a:1"].calls, (Calls{"promote vms by force"}));
  EXPECT_TRUE(says("goes on here on timeline"));
}

TEST_F(CommandTest, PromotionInJson) {
  nodes["b:1"].receipt.missing_records = 7;
  EXPECT_EQ(at_b("receipt vms --json"), 0);
  EXPECT_EQ(json()["missing_records"], 7);
  EXPECT_EQ(json()["primary_reachable"], false);
  EXPECT_TRUE(json()["consistent"].is_null());
  nodes["b:1"].receipt.consistent = ConsistentPoint{"nightly", Lsn(7), UtcNs(8)};
  EXPECT_EQ(at_b("receipt vms --json"), 0);
  EXPECT_EQ(json()["consistent"].dump(), R"({"lsn":7,"snapshot":"nightly","utc_ns":8})");
  EXPECT_EQ(at_b("promote vms --json"), 4);
  EXPECT_EQ(out.str(), "");
  EXPECT_EQ(error_json()["code"], "refused");
  EXPECT_EQ(at_b("promote vms --json --yes"), 0);
  EXPECT_EQ(json()["group"], "vms");
}

TEST_F(CommandTest, DeletingIsConfirmed) {
  EXPECT_EQ(at_a("volume delete disk"), 4);
  EXPECT_EQ(at_a("group delete vms"), 4);
  EXPECT_TRUE(nodes["a:1"].calls.empty());
  terminal = true;
  in.str("disk\nvms\n");
  EXPECT_EQ(at_a("volume delete disk"), 0);
  EXPECT_EQ(at_a("group delete vms"), 0);
  EXPECT_EQ(nodes["a:1"].calls, (Calls{"delete volume disk", "delete group vms"}));
}

TEST_F(CommandTest, EveryErrorHasItsExitCode) {
  const std::map<ErrorCode, int> exits = {
      {ErrorCode::kIo, 1},       {ErrorCode::kCorrupt, 1},  {ErrorCode::kNoSpace, 1},
      {ErrorCode::kInvalid, 1},  {ErrorCode::kNotFound, 5}, {ErrorCode::kExists, 1},
      {ErrorCode::kReadOnly, 4}, {ErrorCode::kFenced, 4},   {ErrorCode::kUnavailable, 1},
      {ErrorCode::kRefused, 4},  {ErrorCode::kBusy, 1},     {ErrorCode::kUnsupported, 1},
      {ErrorCode::kCancelled, 1}};
  for (const auto& [code, exit] : exits) {
    nodes["a:1"].result = Error{code, "because \"of\" this"};
    EXPECT_EQ(at_a("mode vms sync"), exit) << to_string(code);
    EXPECT_EQ(err.str(), "tandem: because \"of\" this\n");
    EXPECT_EQ(at_a("mode vms sync --json"), exit);
    EXPECT_EQ(out.str(), "");
    EXPECT_EQ(error_json()["code"], to_string(code));
    EXPECT_EQ(error_json()["message"], "because \"of\" this");
  }
  nodes["a:1"].up = false;
  EXPECT_EQ(at_a("mode vms sync"), 3);
  EXPECT_EQ(at_a("promote vms --yes"), 3);
}

TEST_F(CommandTest, UsageErrors) {
  for (const char* line :
       {"", "nonsense", "volume", "volume create", "volume create v", "volume create v --size",
        "volume create v --size much", "volume create v --size 1GiB --block-size 1024", "mode vms",
        "mode vms quick", "mirror add vms", "mirror add vms b:1 --mode quick",
        "--timeout never status", "status --watch often", "status --nonsense", "promote"}) {
    EXPECT_EQ(at_a(line), 2) << line;
    EXPECT_TRUE(complains("tandem: ")) << line;
  }
  EXPECT_EQ(at_a("--json volume create"), 2);
  EXPECT_EQ(error_json()["code"], "invalid");
  EXPECT_EQ(tandem("--insecure --node nowhere status"), 2);
  EXPECT_EQ(tandem("--insecure --node nowhere mode vms sync"), 2);
  EXPECT_EQ(tandem("--node a:1 status"), 2);
  EXPECT_TRUE(complains("--insecure")) << err.str();
  EXPECT_EQ(tandem("--node a:1 --ca x --certificate y --key z status"), 0);
  EXPECT_TRUE(nodes["a:1"].calls.empty());
}

TEST_F(CommandTest, HelpAndVersion) {
  EXPECT_EQ(tandem("--help"), 0);
  EXPECT_TRUE(says("Exit codes: 0 done; 1 failed; 2 usage"));
  EXPECT_TRUE(says("switchover"));
  EXPECT_EQ(tandem("volume create --help"), 0);
  EXPECT_TRUE(says("--block-size"));
  EXPECT_EQ(tandem("--version"), 0);
  EXPECT_FALSE(out.str().empty());
}

TEST_F(CommandTest, TimeOuts) {
  using namespace std::chrono_literals;
  EXPECT_EQ(at_a("mode vms sync"), 0);
  EXPECT_EQ(nodes["a:1"].timeout, 10s);
  EXPECT_EQ(at_a("switchover vms"), 0);  // drains first
  EXPECT_EQ(nodes["a:1"].timeout, 60s);
  EXPECT_EQ(at_a("switchover vms --timeout 5s"), 0);
  EXPECT_EQ(nodes["a:1"].timeout, 5s);
  EXPECT_EQ(at_a("--timeout 500ms status"), 0);
  EXPECT_EQ(nodes["a:1"].timeout, 500ms);
}

/// Once over a real connection: the command's client is the module's.
TEST(CommandOverGrpcTest, StatusOfARealService) {
  test::ThreadExecutor executor;
  rpc::TestNode node(executor);
  executor.run([&] { node.control.node.node = "gamma"; });
  std::ostringstream out, err;
  std::istringstream in;
  Context context{
      .settings = {}, .out = out, .err = err, .in = in, .terminal = false, .connect = {}};
  context.connect = [](const std::string& address, std::chrono::milliseconds timeout) {
    rpc::ClientOptions options;
    options.address = address;
    options.tls = false;
    options.timeout = timeout;
    return rpc::ControlClient::create(options);
  };
  const auto none = [](const char*) -> const char* { return nullptr; };
  EXPECT_EQ(run({"--insecure", "--node", node.address(), "status"}, context, none, {}), 0);
  EXPECT_NE(out.str().find("NODE gamma"), std::string::npos) << out.str() << err.str();
  node.stop();
  EXPECT_EQ(run({"--insecure", "--node", node.address(), "demote", "g"}, context, none, {}), 3);
}

}  // namespace
}  // namespace tandem::ctl
