// What the commands say of damage, scrubs and compared histories, and where scrubs are asked for.
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

class IntegrityCommand : public CommandTest {
 protected:
  GroupStatus& a() { return nodes["a:1"].status.groups[0]; }
  GroupStatus& b() { return nodes["b:1"].status.groups[0]; }
};

TEST_F(IntegrityCommand, ASoundPairSaysSoBriefly) {
  a().slots[0].agreement = {Lsn(300), UtcNs(1), ""};
  EXPECT_EQ(at_a("group show vms"), 0);
  EXPECT_TRUE(says("damage        none met since the node started")) << out.str();
  EXPECT_TRUE(says("scrub         never"));
  EXPECT_TRUE(says("compared      with beta: identical through record 300"));
  EXPECT_EQ(at_a("status"), 0);
  EXPECT_FALSE(says("DAMAGED"));
}

TEST_F(IntegrityCommand, RepairedDamageIsCountedAndNoAlarm) {
  a().damage = {.fetched_blocks = 3,
                .repaired_blocks = 2,
                .last_at = UtcNs(1),
                .last_volume = "disk",
                .last_byte = 8192,
                .last_outcome = "repaired from a peer"};
  EXPECT_EQ(at_a("group show vms"), 0);
  EXPECT_TRUE(says("3 blocks from a peer, 2 of them repaired; 0 blocks unrepairable")) << out.str();
  EXPECT_TRUE(says("disk at byte 8192, repaired from a peer"));
  EXPECT_EQ(at_a("status"), 0);
  EXPECT_FALSE(says("DAMAGED"));
  EXPECT_EQ(at_a("group show vms --json"), 0);
  const auto damage = json()["groups"][0]["damage"];
  EXPECT_EQ(damage["fetched_blocks"], 3);
  EXPECT_EQ(damage["repaired_blocks"], 2);
  EXPECT_EQ(damage["last_byte"], 8192);
}

TEST_F(IntegrityCommand, WhatCannotBeReadIsAnAlarmOnEitherNode) {
  b().damage.unrepairable_blocks = 1;
  b().damage.damaged_map_nodes = 2;
  EXPECT_EQ(both("status"), 0);
  EXPECT_TRUE(
      says("DAMAGED: the copy on beta has 1 block that no peer could give back and 2 "
           "damaged map nodes"))
      << out.str();
  EXPECT_EQ(both("status --json"), 0);
  EXPECT_EQ(json()["verdicts"][0]["good"], false);
}

TEST_F(IntegrityCommand, AnotherHistoryIsAnAlarm) {
  a().slots[0].agreement.difference = "beta has other records";
  EXPECT_EQ(at_a("status"), 0);
  EXPECT_TRUE(says("NOT THE SAME HISTORY: beta has other records")) << out.str();
  EXPECT_EQ(at_a("group show vms --json"), 0);
  EXPECT_EQ(json()["groups"][0]["slots"][0]["agreement"]["difference"], "beta has other records");
}

TEST_F(IntegrityCommand, ScrubGoesToEachNodeThatIsNamed) {
  EXPECT_EQ(both("scrub start vms"), 0);
  EXPECT_EQ(nodes["a:1"].calls, std::vector<std::string>{"start scrub vms"});
  EXPECT_EQ(nodes["b:1"].calls, std::vector<std::string>{"start scrub vms"});
  EXPECT_TRUE(says("began on node alpha"));
  EXPECT_TRUE(says("began on node beta"));
  EXPECT_EQ(at_b("scrub stop vms --json"), 0);
  EXPECT_EQ(nodes["a:1"].calls.size(), 1u);
  EXPECT_EQ(nodes["b:1"].calls.back(), "stop scrub vms");
  EXPECT_EQ(json()["nodes"][0], "b:1");
  EXPECT_EQ(both("scrub start none"), 5);
  EXPECT_EQ(both("scrub start"), 2);
  EXPECT_EQ(both("scrub"), 2);
}

TEST_F(IntegrityCommand, OneNodesRefusalDoesNotKeepTheOtherFromIt) {
  nodes["a:1"].result = Error{ErrorCode::kBusy, "it is being scrubbed already"};
  EXPECT_EQ(both("scrub start vms"), 1);
  EXPECT_TRUE(complains("being scrubbed already"));
  EXPECT_EQ(nodes["b:1"].calls, std::vector<std::string>{"start scrub vms"});
  nodes["a:1"].up = nodes["b:1"].up = false;
  EXPECT_EQ(both("scrub start vms"), 3);
}

TEST_F(IntegrityCommand, ScrubStatusShowsProgressAndFindings) {
  a().scrub = {.state = "running",
               .started = UtcNs(1),
               .ended = UtcNs(0),
               .blocks_total = 1000,
               .blocks_read = 250,
               .nodes_read = 2,
               .bad_blocks = 2,
               .repaired_blocks = 1,
               .bad_map_nodes = 0,
               .repaired_map_nodes = 0,
               .findings = {{"disk", "", 4096, "given back by a peer"},
                            {"disk", "s1", 8192, "fails its checksum"}}};
  EXPECT_EQ(both("scrub status vms"), 0);
  EXPECT_TRUE(says("Scrub of group vms on node alpha: running, about 25 %")) << out.str();
  EXPECT_TRUE(says("2 bad blocks (1 given back by a peer)"));
  EXPECT_TRUE(says("  disk at byte 4096: given back by a peer"));
  EXPECT_TRUE(says("  disk@s1 at byte 8192: fails its checksum"));
  EXPECT_TRUE(says("on node beta: never"));
  EXPECT_EQ(at_a("scrub status vms --json"), 0);
  const auto scrub = json()["scrubs"][0];
  EXPECT_EQ(scrub["node"], "alpha");
  EXPECT_EQ(scrub["blocks_read"], 250);
  EXPECT_EQ(scrub["findings"][1]["snapshot"], "s1");
}

}  // namespace
}  // namespace tandem::ctl
