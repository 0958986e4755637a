// The snapshot commands: which nodes they go to, what they say, and how they end.
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

class SnapshotCommand : public CommandTest {
 protected:
  SnapshotCommand() {
    SnapshotStatus s;
    s.name = "s1";
    s.label = "before the upgrade";
    s.lsn = Lsn(250);
    s.utc = UtcNs(1'777'777'777'000'000'000);
    s.consistency = "crash-consistent";
    s.volumes = {{"disk", 1ull << 30}, {"log", 1ull << 20}};
    s.held_bytes = 12 << 20;
    a().snapshots = {s};
    a().snapshot_bytes = 12 << 20;
    b().snapshots = {s};
    b().snapshot_bytes = 3 << 20;
    s.unique_bytes = 8 << 20;
    nodes["a:1"].snapshot = s;
    s.unique_bytes = 4 << 20;
    nodes["b:1"].snapshot = s;
  }
  GroupStatus& a() { return nodes["a:1"].status.groups[0]; }
  GroupStatus& b() { return nodes["b:1"].status.groups[0]; }
  const Calls& calls_a() { return nodes["a:1"].calls; }
  const Calls& calls_b() { return nodes["b:1"].calls; }
};

TEST_F(SnapshotCommand, CreateGoesToThePrimaryAndNamesTheExports) {
  EXPECT_EQ(both("snapshot create vms"), 0);
  EXPECT_EQ(calls_a(), Calls{"snapshot vms - \"\""});
  EXPECT_EQ(calls_b(), Calls{});
  EXPECT_TRUE(says("Snapshot s1 of group vms was made at record 250 (2026-05-03 03:09:37.000 UTC)"))
      << out.str();
  EXPECT_TRUE(says("disk@s1, log@s1"));
  EXPECT_EQ(both("snapshot create vms s1 --label upgrade --json"), 0);
  EXPECT_EQ(calls_a().back(), "snapshot vms s1 \"upgrade\"");
  EXPECT_EQ(json()["group"], "vms");
  EXPECT_EQ(json()["lsn"], 250);
  EXPECT_EQ(both("snapshot create vms s1 --crash-consistent"), 0);
  EXPECT_EQ(calls_a().back(), "snapshot vms s1 \"\"!");
  nodes["a:1"].snapshot.warning = "the command after it failed";
  EXPECT_EQ(both("snapshot create vms s1 --require-consistent"), 0);
  EXPECT_EQ(calls_a().back(), "snapshot vms s1 \"\"!!");
  EXPECT_TRUE(complains("warning: the command after it failed"));
  EXPECT_EQ(both("snapshot create vms s1 --crash-consistent --require-consistent"), 2);
  EXPECT_EQ(both("snapshot create"), 2);
  EXPECT_EQ(both("snapshot create none"), 5);
  nodes["a:1"].result = Error{ErrorCode::kReadOnly, "a mirror here"};
  EXPECT_EQ(at_a("snapshot create vms"), 4);
  EXPECT_TRUE(complains("a mirror here"));
  nodes["a:1"].up = false;
  EXPECT_EQ(at_a("snapshot create vms"), 3);
}

TEST_F(SnapshotCommand, ListShowsWhatEachNodeKeeps) {
  EXPECT_EQ(at_a("snapshot list"), 0);  // the mirror is asked, too
  EXPECT_TRUE(says("alpha")) << out.str();
  EXPECT_TRUE(says("beta"));
  EXPECT_TRUE(says("12 MiB"));
  EXPECT_TRUE(says("before the upgrade"));
  EXPECT_EQ(both("snapshot list vms --json"), 0);
  const auto list = json()["snapshots"];
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[0]["node"], "alpha");
  EXPECT_EQ(list[0]["group"], "vms");
  EXPECT_EQ(list[0]["name"], "s1");
  EXPECT_EQ(list[0]["utc_ns"], 1'777'777'777'000'000'000);
  EXPECT_EQ(list[0]["volumes"][1]["name"], "log");
  EXPECT_EQ(list[0]["held_bytes"], 12 << 20);
  EXPECT_EQ(both("snapshot list none"), 5);
  a().snapshots.clear();
  b().snapshots.clear();
  EXPECT_EQ(both("snapshot list"), 0);
  EXPECT_TRUE(says("No snapshots yet"));
  nodes["b:1"].up = false;
  EXPECT_EQ(both("snapshot list"), 0);
  EXPECT_TRUE(complains("not answering"));
  nodes["a:1"].up = false;
  EXPECT_EQ(both("snapshot list"), 3);
}

TEST_F(SnapshotCommand, ListSaysWhenEachAutomaticOneGoes) {
  EXPECT_EQ(both("snapshot list"), 0);
  EXPECT_TRUE(says("by hand"));
  auto automatic = a().snapshots[0];
  automatic.name = "auto-1";
  automatic.automatic = true;
  automatic.kept_by = {"keep", "daily"};
  automatic.goes = UtcNs(1'777'852'800'000'000'000);
  auto newest = automatic;
  newest.name = "auto-2";
  newest.kept_by = {"newest"};
  newest.goes = UtcNs{};
  a().snapshots = {automatic, newest};
  EXPECT_EQ(at_a("snapshot list"), 0);
  EXPECT_TRUE(says("2026-05-04 00:00 UTC (keep, daily)")) << out.str();
  EXPECT_TRUE(says("at no set time (newest)"));
  EXPECT_EQ(at_a("snapshot list --json"), 0);
  EXPECT_EQ(json()["snapshots"][0]["automatic"], true);
  EXPECT_EQ(json()["snapshots"][0]["kept_by"], (std::vector<std::string>{"keep", "daily"}));
  EXPECT_EQ(json()["snapshots"][0]["goes_utc_ns"], 1'777'852'800'000'000'000);
  EXPECT_EQ(json()["snapshots"][1]["goes_utc_ns"], 0);
  EXPECT_EQ(at_a("group show vms"), 0);
  EXPECT_TRUE(says("2, the next to go is auto-1: 2026-05-04 00:00 UTC (keep, daily)")) << out.str();
}

TEST_F(SnapshotCommand, AHookThatFailedIsInTheStatus) {
  EXPECT_EQ(at_a("status"), 0);
  EXPECT_FALSE(says("HOOK"));
  a().hook = {"failed", "exit code 3", UtcNs(1)};
  EXPECT_EQ(at_a("status"), 0);
  EXPECT_TRUE(says("HOOK FAILED around the last snapshot on alpha: exit code 3")) << out.str();
  EXPECT_EQ(at_a("status --check"), 6);
  a().slots.clear();
  EXPECT_EQ(at_a("status"), 0);
  EXPECT_TRUE(says("NOT PROTECTED")) << out.str();
  EXPECT_TRUE(says("HOOK FAILED around the last snapshot on alpha: exit code 3"));
  EXPECT_EQ(at_a("group show vms"), 0);
  EXPECT_TRUE(says("exit code 3"));
}

TEST_F(SnapshotCommand, ShowSaysWhatDeletingGivesBackOnEachNode) {
  EXPECT_EQ(both("snapshot show vms s1"), 0);
  EXPECT_TRUE(says("Snapshot s1 of group vms on node alpha")) << out.str();
  EXPECT_TRUE(says("on node beta"));
  EXPECT_TRUE(says("12 MiB; deleting it gives back 8 MiB"));
  EXPECT_TRUE(says("12 MiB; deleting it gives back 4 MiB"));
  EXPECT_TRUE(says("disk@s1, 1 GiB, read-only"));
  EXPECT_EQ(both("snapshot show vms s1 --json"), 0);
  EXPECT_EQ(json()["snapshots"][1]["unique_bytes"], 4 << 20);
  EXPECT_EQ(both("snapshot show vms s2"), 5);
  EXPECT_EQ(both("snapshot show vms"), 2);
}

TEST_F(SnapshotCommand, DeleteNamesTheNode) {
  EXPECT_EQ(both("snapshot delete vms s1 --yes"), 4);  // which one?
  EXPECT_TRUE(complains("a:1 b:1; say which one with a single --node, or --everywhere"));
  EXPECT_EQ(calls_a(), Calls{});
  EXPECT_EQ(at_b("snapshot delete vms s1"), 4);  // nobody can be asked
  EXPECT_EQ(calls_b(), Calls{});
  EXPECT_EQ(at_b("snapshot delete vms s1 --yes"), 0);
  EXPECT_EQ(calls_b(), Calls{"delete snapshot vms s1"});
  EXPECT_TRUE(says("was deleted at b:1")) << out.str();
  b().snapshots.clear();
  EXPECT_EQ(both("snapshot delete vms s1 --yes"), 0);  // only one has it now
  EXPECT_EQ(calls_a(), Calls{"delete snapshot vms s1"});
  EXPECT_EQ(calls_b().size(), 1u);
  EXPECT_EQ(both("snapshot delete vms s2 --yes"), 5);
  nodes["b:1"].result = Error{ErrorCode::kNotFound, "no such snapshot"};
  EXPECT_EQ(at_b("snapshot delete vms s1 --yes"), 5);
}

TEST_F(SnapshotCommand, DeleteEverywhereAsksOnceAndEveryNode) {
  terminal = true;
  in.str("s2\n");
  EXPECT_EQ(at_a("snapshot delete vms s1 --everywhere"), 4);
  EXPECT_EQ(calls_a(), Calls{});
  in.clear();
  in.str("s1\n");
  EXPECT_EQ(at_a("snapshot delete vms s1 --everywhere"), 0);
  EXPECT_TRUE(says("deletes snapshot s1 of group vms at a:1 and b:1")) << out.str();
  EXPECT_EQ(calls_a(), Calls{"delete snapshot vms s1"});
  EXPECT_EQ(calls_b(), Calls{"delete snapshot vms s1"});
  EXPECT_EQ(both("snapshot delete vms s1 --everywhere --yes --json"), 0);
  EXPECT_EQ(json()["nodes"], nlohmann::json({"a:1", "b:1"}));
  nodes["b:1"].up = false;
  EXPECT_EQ(both("snapshot delete vms s1 --everywhere --yes"), 3);
  EXPECT_TRUE(complains("nothing was done"));
  EXPECT_EQ(calls_a().size(), 2u);
}

TEST_F(SnapshotCommand, RenameKeepsTheLabelUnlessOneIsGiven) {
  EXPECT_EQ(at_a("snapshot rename vms s1 golden"), 0);
  EXPECT_EQ(at_a("snapshot rename vms s1 golden --label kept"), 0);
  const Calls want = {"rename snapshot vms s1 golden -", "rename snapshot vms s1 golden \"kept\""};
  EXPECT_EQ(calls_a(), want);
  EXPECT_TRUE(says("is golden now at a:1"));
  EXPECT_EQ(both("snapshot rename vms s1 golden"), 4);
  EXPECT_EQ(both("snapshot rename vms s1 golden --everywhere"), 0);
  EXPECT_EQ(calls_b(), Calls{"rename snapshot vms s1 golden -"});
  EXPECT_EQ(both("snapshot rename vms s1"), 2);
}

TEST_F(SnapshotCommand, StatusCountsThem) {
  EXPECT_EQ(both("status"), 0);
  EXPECT_TRUE(says("1, 12 MiB")) << out.str();
  EXPECT_TRUE(says("1, 3 MiB"));
  EXPECT_EQ(both("group show vms"), 0);
  EXPECT_TRUE(says("1, 12 MiB held; 'tandem snapshot list vms' shows them")) << out.str();
  EXPECT_EQ(both("status --json"), 0);
  const auto group = json()["nodes"][1]["groups"][0];
  EXPECT_EQ(group["snapshot_bytes"], 3 << 20);
  EXPECT_EQ(group["snapshots"][0]["name"], "s1");
  a().snapshots.clear();
  a().snapshot_bytes = 0;
  EXPECT_EQ(at_a("group show vms"), 0);
  EXPECT_TRUE(says("snapshots     none")) << out.str();
}

}  // namespace
}  // namespace tandem::ctl
