// 'tandem latency'.
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

constexpr std::uint64_t kSecond = 1'000'000'000;

class LatencyCommand : public CommandTest {
 protected:
  LatencyCommand() {
    nodes["a:1"].latencies = {reading("alpha", Role::kPrimary, primary_, 60)};
    nodes["b:1"].latencies = {reading("beta", Role::kMirror, mirror_, 60)};
  }
  static NodeLatency reading(const std::string& node, Role role, const StageTimes& times,
                             std::uint64_t second) {
    NodeLatency latency{node, UtcNs(second * kSecond), {times.reading()}};
    latency.groups[0].group = "vms";
    latency.groups[0].role = role;
    latency.groups[0].since = UtcNs(0 * kSecond + 1);
    return latency;
  }
  static StageTimes busy_primary() {
    StageTimes times;
    times.add(Stage::kWriteQueue, std::chrono::microseconds(5), 10);
    times.add(Stage::kWriteDevice, std::chrono::microseconds(25), 10);
    times.add(Stage::kWriteOrder, std::chrono::microseconds(0), 10);
    times.add(Stage::kWriteMirror, std::chrono::microseconds(40), 5);
    times.add(Stage::kWrite, std::chrono::microseconds(50), 10);
    times.add(Stage::kRoundTrip, std::chrono::microseconds(90), 2);
    times.add(Batch::kPage, 4);
    times.add(Batch::kPage, 3);
    return times;
  }
  static StageTimes busy_mirror() {
    StageTimes times;
    times.add(Stage::kApply, std::chrono::microseconds(30), 2);
    times.add(Batch::kApplied, 7);
    return times;
  }
  StageTimes primary_ = busy_primary(), mirror_ = busy_mirror();
};

TEST_F(LatencyCommand, IsATableForEachGroupAndNode) {
  EXPECT_EQ(at_a("latency vms"), 0) << err.str();
  EXPECT_EQ(nodes["a:1"].calls, Calls{"latency vms"});
  EXPECT_EQ(nodes["b:1"].calls, Calls{"latency vms"}) << "the mirror is asked, too";
  EXPECT_TRUE(says("Group vms on node alpha, primary, in 59 s\n")) << out.str();
  EXPECT_TRUE(says("  OPERATION  STAGE       COUNT  MEAN  P50   P99   MAX   SHARE\n")) << out.str();
  EXPECT_TRUE(says("  write      queue       10     5.0 ")) << out.str();
  EXPECT_TRUE(says(" 10 %\n"));
  EXPECT_TRUE(says("  write      mirror      5      40.0 ")) << "40 % of the whole, by its sum";
  EXPECT_TRUE(says(" 40 %\n"));
  EXPECT_TRUE(says(" 100 %\n"));
  EXPECT_TRUE(says("  link       round trip  2      90.0 "));
  EXPECT_TRUE(says("Times are in microseconds. Records: 3.5 a page.\n")) << out.str();
  EXPECT_TRUE(says("Group vms on node beta, mirror, in 59 s\n"));
  EXPECT_TRUE(says("Records: 7.0 a batch applied.\n"));
}

TEST_F(LatencyCommand, ShowsAnIntervalAsADifference) {
  StageTimes later = primary_;
  later.add(Stage::kWrite, std::chrono::microseconds(9), 3);
  nodes["a:1"].latencies.push_back(reading("alpha", Role::kPrimary, later, 70));
  EXPECT_EQ(at_a("latency --interval 1ms --json"), 0) << err.str();
  EXPECT_EQ(nodes["a:1"].calls, (Calls{"latency -", "latency -"}));
  const auto alpha = json()["latencies"][0];
  EXPECT_EQ(alpha["node"], "alpha");
  EXPECT_EQ(alpha["group"], "vms");
  EXPECT_EQ(alpha["role"], "primary");
  EXPECT_EQ(alpha["since_utc_ns"], 60 * kSecond);
  EXPECT_EQ(alpha["now_utc_ns"], 70 * kSecond);
  const auto whole = alpha["stages"][4];
  EXPECT_EQ(whole["operation"], "write");
  EXPECT_EQ(whole["stage"], "whole");
  EXPECT_EQ(whole["count"], 3);
  EXPECT_EQ(whole["sum_ns"], 27'000);
  EXPECT_EQ(whole["mean_ns"], 9000.0);
  ASSERT_EQ(whole["buckets"].size(), 1u);
  EXPECT_EQ(whole["buckets"][0]["count"], 3);
  EXPECT_LE(whole["buckets"][0]["from_ns"], 9000);
  EXPECT_GT(whole["buckets"][0]["below_ns"], 9000);
  EXPECT_EQ(alpha["batches"][0]["batch"], "page");
  nodes["a:1"].latencies = {reading("alpha", Role::kPrimary, primary_, 60)};
  EXPECT_EQ(at_a("latency --interval 1ms"), 0);
  EXPECT_TRUE(says("nothing was asked of it")) << out.str();
}

TEST_F(LatencyCommand, SaysWhatIsMissing) {
  EXPECT_EQ(at_a("latency other"), 5);
  EXPECT_TRUE(complains("no group other"));
  EXPECT_EQ(at_a("latency --interval soon"), 2);
  nodes["b:1"].result = Error{ErrorCode::kUnsupported, "node b:1 does not know this call"};
  EXPECT_EQ(at_a("latency"), 0) << "the other node is shown";
  EXPECT_TRUE(says("alpha"));
  EXPECT_TRUE(complains("not shown: node b:1 does not know this call")) << err.str();
  nodes["a:1"].result = nodes["b:1"].result;
  EXPECT_EQ(at_a("latency"), 1);
  nodes["a:1"].up = false;
  EXPECT_EQ(at_a("latency"), 3);
}

}  // namespace
}  // namespace tandem::ctl
