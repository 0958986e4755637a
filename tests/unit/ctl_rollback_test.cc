// Rolling back: what is shown before, what is asked, what is said after.
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

constexpr std::uint64_t kThen = 1'777'777'777'000'000'000;
constexpr std::uint64_t kMinute = 60'000'000'000;

class RollbackCommand : public CommandTest {
 protected:
  RollbackCommand() {
    SnapshotStatus s;
    s.name = "s1";
    s.lsn = Lsn(250);
    s.utc = UtcNs(kThen);
    s.payload_bytes = 4 << 20;
    s.consistency = "crash-consistent";
    s.volumes = {{"disk", 1ull << 29}, {"log", 1ull << 20}};
    SnapshotStatus branch = s;
    branch.name = "wrong-turn";
    branch.kind = "branch";
    branch.parent = "s1";
    branch.lsn = Lsn(300);
    for (auto& [address, node] : nodes) {
      auto& g = node.status.groups[0];
      g.snapshots = {s, branch};
      g.parent = "s1";
      g.head.utc = UtcNs(kThen + 3 * kMinute);
      g.head.payload_bytes = 16 << 20;
      g.volumes = {{"disk", 1, 1ull << 30, 512, 4096}, {"new", 2, 1ull << 30, 512, 4096}};
      node.status.now = UtcNs(kThen + 4 * kMinute);
    }
    nodes["b:1"].status.groups[0].upstream->node = "alpha";
    nodes["b:1"].status.groups[0].upstream->primary = "alpha";
    nodes["a:1"].rolled_back = {s, branch};
  }
  const Calls& calls_a() { return nodes["a:1"].calls; }
};

TEST_F(RollbackCommand, ShowsWhatItUndoesAndAsksFirst) {
  EXPECT_EQ(both("snapshot rollback vms s1"), 4);
  EXPECT_TRUE(complains("this needs --yes"));
  EXPECT_EQ(calls_a(), Calls{});
  EXPECT_TRUE(says("Rolling group vms back to snapshot s1:")) << out.str();
  EXPECT_TRUE(says("record 250 of 2026-05-03 03:09:37.000 UTC, 4 min 0 s ago"));
  EXPECT_TRUE(says("50 records with 12 MiB of data, up to record 300 of 2026-05-03 03:12:37.000"));
  EXPECT_TRUE(says("new disappears; log comes back; disk shrinks from 1 GiB to 512 MiB"));
  EXPECT_TRUE(says("as a branch"));
  terminal = true;
  in.str("vms\n");
  EXPECT_EQ(both("snapshot rollback vms s1"), 4) << "it is the snapshot's name that is asked for";
  EXPECT_EQ(calls_a(), Calls{});
  in.clear();
  in.str("s1\n");
  EXPECT_EQ(both("snapshot rollback vms s1"), 0);
  EXPECT_EQ(calls_a(), Calls{"roll back vms to s1 as -"});
  EXPECT_TRUE(says("Group vms is as it was at snapshot s1 (2026-05-03 03:09:37.000 UTC)"));
  EXPECT_TRUE(says("branch wrong-turn (record 300 "));
  EXPECT_TRUE(says("exports, read-only: disk@wrong-turn, log@wrong-turn"));
  EXPECT_TRUE(says("'tandem snapshot rollback vms wrong-turn' brings it back"));
}

TEST_F(RollbackCommand, GoesWithoutAsking) {
  EXPECT_EQ(both("snapshot rollback vms s1 --branch mine --yes"), 0);
  EXPECT_EQ(calls_a(), Calls{"roll back vms to s1 as mine"});
  EXPECT_EQ(both("snapshot rollback vms s1 --yes --json"), 0);
  EXPECT_EQ(json()["to"]["name"], "s1");
  EXPECT_EQ(json()["branch"]["name"], "wrong-turn");
  EXPECT_EQ(json()["branch"]["kind"], "branch");
  EXPECT_EQ(json()["undone"]["records"], 50);
  EXPECT_EQ(json()["undone"]["bytes"], 12 << 20);
  EXPECT_EQ(json()["undone"]["seconds"], 180);
  EXPECT_EQ(json()["undone"]["volumes_disappear"], nlohmann::json({"new"}));
  EXPECT_EQ(json()["undone"]["volumes_resized"][0]["to_bytes"], 1 << 29);
  nodes["a:1"].rolled_back.branch = {};
  EXPECT_EQ(both("snapshot rollback vms s1 --yes --json"), 0);
  EXPECT_TRUE(json()["branch"].is_null());
  EXPECT_EQ(both("snapshot rollback vms s1 --yes"), 0);
  EXPECT_TRUE(says("Nothing had happened since, so there is no branch")) << out.str();
  nodes["a:1"].status.groups[0].volumes = {{"disk", 1, 1ull << 29, 512, 0},
                                           {"log", 2, 1ull << 20, 512, 0}};
  EXPECT_EQ(both("snapshot rollback vms s1 --yes"), 0);
  EXPECT_TRUE(says("the same, with the same sizes")) << out.str();
}

TEST_F(RollbackCommand, SaysWhichMirrorNeedsAFullCopy) {
  auto& mirror = nodes["b:1"];
  mirror.status.groups[0].snapshots.clear();
  mirror.snapshot.name = "s1";
  EXPECT_EQ(both("snapshot rollback vms s1"), 4);
  EXPECT_EQ(mirror.calls, Calls{}) << "not before it can be done";
  EXPECT_EQ(both("snapshot rollback vms s1 --yes"), 0);
  EXPECT_EQ(mirror.calls, Calls{"keep vms at 250 - as s1"});
  EXPECT_FALSE(says("full copy"));
  mirror.calls.clear();
  mirror.result = Error{ErrorCode::kNotFound, "the history begins at 280"};
  EXPECT_EQ(both("snapshot rollback vms s1 --yes"), 0);
  EXPECT_TRUE(says("full copy     of mirror beta, since it has that state no more: the history "))
      << out.str();
  EXPECT_EQ(both("snapshot rollback vms s1 --yes --json"), 0);
  EXPECT_EQ(json()["full_copies"].size(), 1u);
  mirror.result = ok();
  mirror.calls.clear();
  nodes["a:1"].result = Error{ErrorCode::kNoSpace, "full"};
  EXPECT_EQ(both("snapshot rollback vms s1 --yes"), 1);
  EXPECT_EQ(mirror.calls, (Calls{"keep vms at 250 - as s1", "delete snapshot vms s1"}));
  mirror.up = false;
  nodes["a:1"].result = ok();
  EXPECT_EQ(at_a("snapshot rollback vms s1 --yes"), 0);
  EXPECT_TRUE(says("unless it keeps that state, since it does not answer")) << out.str();
}

TEST_F(RollbackCommand, SaysWhyNot) {
  EXPECT_EQ(at_b("snapshot rollback vms s1 --yes"), 4);
  EXPECT_TRUE(complains("mirror on node beta: its primary, node alpha, rolls it back"))
      << err.str();
  EXPECT_EQ(nodes["b:1"].calls, Calls{});
  EXPECT_EQ(both("snapshot rollback vms s2 --yes"), 5);
  EXPECT_TRUE(complains("there is no snapshot s2 of group vms on node alpha"));
  EXPECT_EQ(at_a("snapshot rollback none s1 --yes"), 5);
  EXPECT_EQ(at_a("snapshot rollback vms"), 2);
  nodes["a:1"].result = Error{ErrorCode::kExists, "a state has that name"};
  EXPECT_EQ(at_a("snapshot rollback vms s1 --branch s1 --yes"), 1);
  EXPECT_TRUE(complains("a state has that name"));
  nodes["a:1"].up = false;
  EXPECT_EQ(both("snapshot rollback vms s1 --yes"), 3);
}

TEST_F(RollbackCommand, ListsAndShowsTheTree) {
  EXPECT_EQ(at_a("snapshot list vms"), 0);
  EXPECT_TRUE(says("KIND")) << out.str();
  EXPECT_TRUE(says("wrong-turn  branch    s1"));
  EXPECT_EQ(at_a("snapshot list vms --json"), 0);
  EXPECT_EQ(json()["snapshots"][1]["kind"], "branch");
  EXPECT_EQ(json()["snapshots"][1]["parent"], "s1");
  EXPECT_EQ(json()["snapshots"][1]["payload_bytes"], 4 << 20);
  nodes["a:1"].snapshot = nodes["a:1"].status.groups[0].snapshots[1];
  EXPECT_EQ(at_a("snapshot show vms wrong-turn"), 0);
  EXPECT_TRUE(says("Branch wrong-turn of group vms on node alpha")) << out.str();
  EXPECT_TRUE(says("out of        s1"));
  EXPECT_EQ(at_a("status --json"), 0);
  EXPECT_EQ(json()["nodes"][0]["groups"][0]["parent"], "s1");
}

}  // namespace
}  // namespace tandem::ctl
