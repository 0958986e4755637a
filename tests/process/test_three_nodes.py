"""One primary, two mirrors, beside each other or in a chain: whichever is promoted, the others follow.

What a copy holds beyond the promoted one stays on it as a branch, what it lacks is shipped, and
nothing of that is a full copy: the two mirrors keep what the other one may need.
"""

import os

import harness
from harness import MIB

SIZE = 16 * MIB
TAIL = "tail-of-timeline-1"
REFUSED = 4


class Nodes(harness.ClusterTest):
    def start_three(self, *modes):
        self.a, self.b, self.c = (self.node(f"node-{n}").start() for n in "abc")
        self.a.tandem("volume", "create", "v", "--size", f"{SIZE}")
        for mirror, mode in zip((self.b, self.c), modes):
            self.a.tandem("mirror", "add", "v", mirror.service, "--mode", mode)
            self.wait_level(self.a, mirror)
        for mirror in (self.b, self.c):
            harness.wait_until(lambda: mirror.group("v")["checkpoint"] > 0,
                               "a state to go back to, which a new mirror makes in a second")

    def wait_level(self, primary, mirror):
        def level():
            slot = primary.slot("v", mirror.service)
            return slot["state"] == "following" and slot["missing_records"] == 0
        harness.wait_until(level, f"{mirror.name} to have all that {primary.name} has")

    def wait_for_sync(self, mirror):
        harness.wait_until(lambda: self.a.slot("v", mirror.service)["in_sync"],
                           f"{mirror.name} to be in sync")

    def write(self, node, rounds):
        """So often the whole volume, so that the log moves on; returns what it then holds."""
        with node.nbd("v") as disk:
            for _ in range(rounds):
                content = os.urandom(SIZE)
                for at in range(0, SIZE, MIB):
                    disk.pwrite(content[at:at + MIB], at)
                disk.flush()
        return content

    def gather(self, primary, mode):
        """All follow `primary`, as the runbook says; returns what it then holds."""
        others = [node for node in self.nodes if node is not primary]
        for other in others:
            primary.tandem("mirror", "add", "v", other.service, "--mode", mode)
        content = self.write(primary, 2)
        for other in others:
            if not other.is_running():
                other.start()
            self.wait_level(primary, other)
        self.assertNotIn("state=image", primary.log(lines=10**6), "a full copy")
        return content

    def take_tail(self, node, content):
        self.assertEqual(node.read_all(f"v@{TAIL}"), content)
        node.tandem("snapshot", "delete", "v", TAIL, "--yes")

    def assert_equal_everywhere(self, primary, content):
        primary.tandem("snapshot", "create", "v", "after")
        for node in self.nodes:
            if node is not primary:
                self.wait_level(primary, node)
            self.assertEqual([s["name"] for s in node.group("v")["snapshots"]], ["after"])
            self.assertEqual(node.read_all("v@after"), content, node.name)
        for node in self.nodes:
            self.assertEqual(node.stop(), 0)
        self.assert_sound(*self.nodes)


@harness.needs_nbd
class ThreeNodes(Nodes):
    def test_the_other_mirror_has_more(self):
        self.start_three("async", "async")
        common = self.write(self.a, 1)
        self.wait_level(self.a, self.b)
        self.b.kill()
        newest = self.write(self.a, 4)
        self.wait_level(self.a, self.c)
        self.a.kill()
        self.b.start()
        self.promote(self.b, "v")
        self.assertEqual(self.b.read_all("v"), common)
        content = self.gather(self.b, "async")
        for node in (self.a, self.c):
            self.take_tail(node, newest)
        self.assert_equal_everywhere(self.b, content)

    def test_the_other_mirror_has_less(self):
        self.start_three("async", "async")
        self.write(self.a, 1)
        self.wait_level(self.a, self.c)
        self.c.kill()
        newest = self.write(self.a, 4)
        self.wait_level(self.a, self.b)
        self.a.kill()
        self.promote(self.b, "v")
        self.b.restart()  # what it keeps for the other, it keeps
        self.assertEqual(self.b.read_all("v"), newest)
        self.assert_equal_everywhere(self.b, self.gather(self.b, "async"))

    def test_the_distant_one_is_promoted(self):
        """It may lag without costing what the near one promises."""
        self.start_three("sync", "async")
        common = self.write(self.a, 1)
        self.wait_level(self.a, self.c)
        self.wait_for_sync(self.b)
        refused = self.b.tandem("mirror", "add", "v", self.c.service, "--mode", "sync",
                                check=False)
        self.assertEqual(refused.returncode, REFUSED)
        self.assertIn("a mirror of a mirror has mode async", refused.stderr)
        self.c.kill()
        newest = self.write(self.a, 4)
        group = self.a.group("v")
        self.assertEqual((group["mode"], group["policy"]["state"]), ("sync", "normal"))
        self.assertTrue(self.a.slot("v", self.b.service)["in_sync"])
        self.a.kill()
        self.c.start()
        self.promote(self.c, "v")
        self.assertEqual(self.c.read_all("v"), common)
        content = self.gather(self.c, "sync")
        for node in (self.a, self.b):
            self.take_tail(node, newest)
        self.assert_equal_everywhere(self.c, content)

    def test_both_follow_when_the_primary_dies_under_load(self):
        self.start_three("sync", "sync")
        for mirror in (self.b, self.c):
            self.wait_for_sync(mirror)
        ledger = harness.Ledger(self.directory)
        ledger.begin(self.a, "v")
        ledger.wait_for(1000)
        self.a.kill()
        ledger.end()
        self.promote(self.b, "v")
        self.assertIn(" 0 wrong", ledger.check(self.b, "v"))
        content = self.gather(self.b, "sync")
        # A planned change takes the other mirror along.
        self.b.tandem("switchover", "v", "--to", self.c.service)
        harness.wait_until(lambda: self.c.serves("v"), "node-c to serve")
        self.assertEqual(self.c.read_all("v"), content)
        for mirror in (self.a, self.b):
            self.wait_level(self.c, mirror)


@harness.needs_nbd
class Chain(Nodes):
    """A feeds B, and B feeds C: what is far away costs the primary's link nothing."""

    def start_chain(self, mode="sync"):
        self.a, self.b, self.c = (self.node(f"node-{n}").start() for n in "abc")
        self.a.tandem("volume", "create", "v", "--size", f"{SIZE}")
        self.a.tandem("mirror", "add", "v", self.b.service, "--mode", mode)
        self.wait_level(self.a, self.b)
        self.b.tandem("mirror", "add", "v", self.c.service)
        self.wait_chain()
        for mirror in (self.b, self.c):
            harness.wait_until(lambda: mirror.group("v")["checkpoint"] > 0,
                               "a state to go back to, which a new mirror makes in a second")

    def wait_chain(self, *nodes):
        """Each has all that the one in front of it has."""
        chain = nodes or (self.a, self.b, self.c)
        def level():
            ends = [node.group("v")["head"]["lsn"] for node in chain]
            return len(set(ends)) == 1
        for above, below in zip(chain, chain[1:]):
            harness.wait_until(lambda: above.slot("v", below.service)["state"] == "following",
                               f"{below.name} to follow {above.name}")
        harness.wait_until(level, "all of the chain to hold the same")

    def check_everywhere(self, content, *chain):
        chain[0].tandem("snapshot", "create", "v", "after")
        self.wait_chain(*chain)
        for node in chain:
            self.assertEqual(node.read_all("v@after"), content, node.name)
        for node in chain:
            self.assertEqual(node.stop(), 0)
        self.assert_sound(*chain)

    def test_follows_through_crashes(self):
        self.start_chain()
        content = self.write(self.a, 1)
        self.wait_chain()
        self.assertEqual([s["address"] for s in self.a.group("v")["slots"]], [self.b.service])
        group = self.b.group("v")
        self.assertEqual((group["role"], group["upstream"]["node"]), ("mirror", "node-a"))
        slot = self.b.slot("v", self.c.service)
        self.assertEqual((slot["node"], slot["missing_records"]), ("node-c", 0))
        self.assertEqual(slot["settings"]["relay"], "on")
        upstream = self.c.group("v")["upstream"]
        self.assertEqual((upstream["node"], upstream["primary"]), ("node-b", "node-a"))
        shown = self.c.tandem("group", "show", "v").stdout
        self.assertIn("node-b, a mirror of node-a", shown)
        # A circle is refused, and so is a stream to the primary.
        for end, to in ((self.c, self.b), (self.b, self.a)):
            end.tandem("mirror", "add", "v", to.service)
            end.wait_refused("v", to.service)
            end.tandem("mirror", "remove", "v", to.service)
        # The one between dies and comes back, with its slot.
        before = {node: node.log_size() for node in (self.a, self.b)}
        for _ in range(2):
            self.b.kill()
            content = self.write(self.a, 2)
            self.b.start()
            self.wait_chain()
        self.c.kill()
        content = self.write(self.a, 2)
        self.c.start()
        self.wait_chain()
        for node, size in before.items():
            self.assertNotIn("state=image", node.log_since(size), "a full copy")
        self.b.tandem("mirror", "remove", "v", self.c.service)
        self.assertEqual(self.b.group("v")["slots"], [])
        self.b.tandem("mirror", "add", "v", self.c.service)
        self.check_everywhere(content, self.a, self.b, self.c)

    def test_the_one_between_is_promoted(self):
        self.start_chain()
        self.wait_for_sync(self.b)
        ledger = harness.Ledger(self.directory)
        ledger.begin(self.a, "v")
        ledger.wait_for(1000)
        self.a.kill()
        ledger.end()
        self.promote(self.b, "v")
        self.assertIn(" 0 wrong", ledger.check(self.b, "v"))
        self.wait_chain(self.b, self.c)
        content = self.write(self.b, 2)
        self.wait_chain(self.b, self.c)
        self.assertEqual(self.c.group("v")["upstream"]["primary"], "node-b")
        self.b.tandem("mirror", "add", "v", self.a.service, "--mode", "sync")
        self.a.start()
        self.wait_chain(self.b, self.a)
        self.assertNotIn("state=image", self.b.log(lines=10**6).split("group.promoted")[-1])
        # Back again: C stays where it is.
        harness.wait_until(lambda: self.b.slot("v", self.a.service)["in_sync"], "a to be in sync")
        self.b.tandem("switchover", "v", "--to", self.a.service)
        harness.wait_until(lambda: self.a.serves("v"), "node-a to serve")
        self.wait_chain()
        self.assertEqual(self.a.read_all("v"), content)
        self.assertEqual([s["address"] for s in self.a.group("v")["slots"]], [self.b.service])
        self.check_everywhere(content, self.a, self.b, self.c)

    def test_the_far_one_is_promoted(self):
        self.start_chain("async")
        common = self.write(self.a, 1)
        self.wait_chain()
        self.c.kill()
        newest = self.write(self.a, 1)
        self.wait_level(self.a, self.b)
        self.b.kill()
        self.c.start()
        self.promote(self.c, "v")
        self.assertEqual(self.c.read_all("v"), common)
        self.b.start()
        told = self.b.wait_refused("v", self.c.service)["reason"]
        self.assertIn("is primary of group v itself", told)
        self.assertTrue(self.a.serves("v"), "nobody is fenced by a mirror's mirror")
        self.wait_level(self.a, self.b)
        # Named, B follows the newer timeline, and what A alone has becomes a branch like B's tail.
        self.c.tandem("mirror", "add", "v", self.b.service, "--mode", "async")
        self.wait_chain(self.c, self.b)
        harness.wait_until(lambda: self.a.group("v")["role"] == "fenced", "node-a to be fenced")
        self.b.tandem("mirror", "remove", "v", self.c.service)
        self.b.tandem("mirror", "add", "v", self.a.service)
        self.wait_chain(self.c, self.b, self.a)
        for node in (self.a, self.b):
            self.take_tail(node, newest)
        content = self.write(self.c, 1)
        self.check_everywhere(content, self.c, self.b, self.a)

if __name__ == "__main__":
    harness.main()
