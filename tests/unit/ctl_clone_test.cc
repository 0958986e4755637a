// Recovering and cloning: which node, which calls in which order, what goes again when it fails.
#include "tests/unit/ctl_fixture.h"

namespace tandem::ctl {
namespace {

constexpr std::uint64_t kNow = 1'777'777'777'000'000'000;

class CloneCommand : public CommandTest {
 protected:
  CloneCommand() {
    SnapshotStatus s;
    s.name = "s1";
    s.lsn = Lsn(250);
    s.utc = UtcNs(kNow - 60'000'000'000);
    s.volumes = {{"disk", 1ull << 30}};
    for (auto& [address, node] : nodes) {
      node.status.now = UtcNs(kNow);
      auto& g = node.status.groups[0];
      g.snapshots = {s};
      g.head.utc = UtcNs(kNow);
      s.name = "point-270";
      s.kind = "point";
      s.lsn = Lsn(270);
      node.snapshot = s;
      s.name = "s1";
      s.kind = "snapshot";
      s.lsn = Lsn(250);
    }
    nodes["b:1"].status.groups[0].upstream->node = "alpha";
    nodes["b:1"].status.groups[0].upstream->primary = "alpha";
  }
  const Calls& calls_a() { return nodes["a:1"].calls; }
  const Calls& calls_b() { return nodes["b:1"].calls; }
};

TEST_F(CloneCommand, ClonesWhatIsKept) {
  EXPECT_EQ(both("clone vms@s1 test"), 0);
  EXPECT_EQ(calls_a(), Calls{"clone vms@s1 as test"});
  EXPECT_EQ(calls_b(), Calls{});
  EXPECT_TRUE(says("Group test on node alpha is a clone of group vms as of record 250"))
      << out.str();
  EXPECT_TRUE(says("Exports, writable: test/disk."));
  EXPECT_TRUE(says("'tandem group delete test' discards it"));
  EXPECT_EQ(both("clone vms@s1 test --json"), 0);
  EXPECT_EQ(json()["group"], "test");
  EXPECT_EQ(json()["clone_of"]["group"], "vms");
  EXPECT_EQ(json()["clone_of"]["lsn"], 250);
  EXPECT_EQ(json()["exports"], nlohmann::json({"test/disk"}));
  EXPECT_EQ(both("clone vms@s2 test"), 5);
  EXPECT_EQ(both("clone none test"), 5);
  EXPECT_EQ(both("clone vms"), 2);
}

TEST_F(CloneCommand, ClonesThePresentStateOfAPrimaryByASnapshotThatStays) {
  EXPECT_EQ(at_a("clone vms test"), 0);
  EXPECT_EQ(calls_a(),
            (Calls{"snapshot vms clone-test \"for clone test\"", "clone vms@point-270 as test"}));
}

TEST_F(CloneCommand, TestsAFailoverOnAMirrorByAPointThatGoes) {
  EXPECT_EQ(at_b("clone vms test"), 0);
  EXPECT_EQ(calls_b(), (Calls{"keep vms at - - as -", "clone vms@point-270 as test",
                              "delete snapshot vms point-270"}));
  EXPECT_TRUE(says("on node beta"));
  nodes["b:1"].cloned = Error{ErrorCode::kExists, "there is a group test"};
  EXPECT_EQ(at_b("clone vms test"), 1);
  EXPECT_EQ(calls_b().back(), "delete snapshot vms point-270") << "also when it fails";
  EXPECT_TRUE(complains("there is a group test"));
}

TEST_F(CloneCommand, RecoversIntoAClone) {
  EXPECT_EQ(both("recover disk --at 03:09"), 0);
  EXPECT_EQ(calls_a(), (Calls{"keep vms at - 1777777740000000000 as -",
                              "clone vms@point-270 as vms-2026-05-03T030837Z",
                              "delete snapshot vms point-270"}));
  EXPECT_TRUE(says("vms-2026-05-03T030837Z/disk")) << out.str();
  EXPECT_EQ(both("recover vms --at 270 --name mine"), 0);
  EXPECT_EQ(calls_a()[3], "keep vms at 270 - as -");
  EXPECT_EQ(calls_a()[4], "clone vms@point-270 as mine");
  EXPECT_EQ(at_b("recover vms --at -10m --name mine"), 0) << "each node has its history";
  EXPECT_EQ(calls_b()[0], "keep vms at - " + std::to_string(kNow - 600'000'000'000) + " as -");
  nodes["a:1"].status.groups.push_back(nodes["a:1"].status.groups[0]);
  nodes["a:1"].status.groups[1].name = "vms-2026-05-03T030837Z";
  EXPECT_EQ(at_a("recover vms --at 270"), 0);
  EXPECT_TRUE(says("vms-2026-05-03T030837Z-2/disk")) << out.str();
}

TEST_F(CloneCommand, KeepsAMomentAsAPoint) {
  EXPECT_EQ(both("snapshot create vms noon --at 03:09 --label lunch"), 0);
  EXPECT_EQ(calls_a(), Calls{"keep vms at - 1777777740000000000 as noon"});
  EXPECT_EQ(calls_b(), Calls{});
  EXPECT_TRUE(
      says("Point point-270 of group vms keeps record 270 (2026-05-03 03:08:37.000 UTC) on "
           "node alpha, and there only"))
      << out.str();
  EXPECT_TRUE(says("read-only: disk@point-270."));
  EXPECT_TRUE(says("'tandem snapshot delete vms point-270' lets it go"));
  EXPECT_EQ(at_b("snapshot create vms --at 270 --json"), 0) << "of each node's own history";
  EXPECT_EQ(calls_b(), Calls{"keep vms at 270 - as -"});
  EXPECT_EQ(json()["node"], "beta");
  EXPECT_EQ(json()["kind"], "point");
  EXPECT_EQ(json()["lsn"], 270);
  EXPECT_EQ(both("snapshot create vms --at soon"), 2);
  EXPECT_EQ(both("snapshot create vms --at 270 --crash-consistent"), 2);
  EXPECT_EQ(both("snapshot create vms --at 270 --require-consistent"), 2);
  EXPECT_EQ(both("snapshot create none --at 270"), 5);
  nodes["a:1"].result = Error{ErrorCode::kNotFound, "the history goes from 10 to 20"};
  EXPECT_EQ(at_a("snapshot create vms --at 270"), 5);
  EXPECT_TRUE(complains("the history goes from 10 to 20"));
}

TEST_F(CloneCommand, RecoversInPlaceAfterShowingWhatThatUndoes) {
  EXPECT_EQ(at_a("recover vms --at 270 --in-place"), 4);
  EXPECT_EQ(calls_a(), Calls{}) << "nothing is kept when nobody can be asked";
  EXPECT_TRUE(complains("this needs --yes"));
  terminal = true;
  in.str("no\n");
  EXPECT_EQ(at_a("recover vms --at 270 --in-place"), 4);
  EXPECT_EQ(calls_a(), (Calls{"keep vms at 270 - as -", "delete snapshot vms point-270"}));
  EXPECT_EQ(calls_b(), (Calls{"keep vms at 270 - as point-270", "delete snapshot vms point-270"}))
      << "the mirror could follow";
  EXPECT_TRUE(says("Rolling group vms back to point point-270")) << out.str();
  EXPECT_TRUE(says("30 records"));
  nodes["a:1"].calls.clear();
  in.clear();
  in.str("vms\n");
  nodes["a:1"].rolled_back.to = nodes["a:1"].snapshot;
  EXPECT_EQ(at_a("recover vms --at 270 --in-place --branch mistake"), 0);
  EXPECT_EQ(calls_a(), (Calls{"keep vms at 270 - as -", "roll back vms to point-270 as mistake"}))
      << "the point stays";
  EXPECT_EQ(calls_b().back(), "keep vms at 270 - as point-270");
  EXPECT_TRUE(says("is as it was at point point-270"));
}

TEST_F(CloneCommand, SaysWhyNot) {
  EXPECT_EQ(at_a("recover vms --at soon"), 2);
  EXPECT_EQ(at_a("recover vms"), 2);
  EXPECT_EQ(at_a("recover none --at 270"), 5);
  EXPECT_EQ(at_a("recover vms --at 270 --in-place --name x --yes"), 2);
  EXPECT_EQ(at_a("recover vms --at 270 --branch x"), 2);
  EXPECT_EQ(at_b("recover vms --at 270 --in-place --yes"), 4);
  EXPECT_TRUE(complains("its primary, node alpha, rolls it back"));
  EXPECT_EQ(calls_a(), Calls{});
  EXPECT_EQ(calls_b(), Calls{});
  nodes["a:1"].result = Error{ErrorCode::kNotFound, "the history goes from 10 to 20"};
  EXPECT_EQ(at_a("recover vms --at 270"), 5);
  EXPECT_TRUE(complains("the history goes from 10 to 20"));
}

TEST_F(CloneCommand, IsShownAsWhatItIs) {
  auto& g = nodes["a:1"].status.groups[0];
  g.clone_of = CloneOrigin{"origin", "s0", Lsn(7), UtcNs(kNow)};
  g.slots.clear();
  EXPECT_EQ(at_a("group show vms"), 0);
  EXPECT_TRUE(says("clone of      group origin as of 2026-05-03 03:09:37.000 UTC (record 7, s0)"))
      << out.str();
  EXPECT_TRUE(says("vms/disk: 1 GiB"));
  EXPECT_TRUE(says("'tandem group delete vms' discards it"));
  EXPECT_EQ(at_a("status --check"), 0) << "a clone needs no mirror";
  EXPECT_EQ(at_a("status --json"), 0);
  EXPECT_EQ(json()["nodes"][0]["groups"][0]["clone_of"]["group"], "origin");
  EXPECT_EQ(at_a("volume list"), 0);
  EXPECT_TRUE(says("vms/disk"));
  EXPECT_EQ(at_a("snapshot show vms s1"), 0);
  EXPECT_TRUE(says("vms/disk@")) << out.str();
  EXPECT_EQ(both("volume resize vms/disk --size 2GiB"), 0);
  EXPECT_EQ(calls_a().back(), "resize vms/disk to 2147483648");
  EXPECT_EQ(both("volume resize disk --size 2GiB"), 5) << "that is not the clone's";
}

}  // namespace
}  // namespace tandem::ctl
