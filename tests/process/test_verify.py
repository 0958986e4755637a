"""tandem verify on real daemons: the copies of a group are compared without moving their data; equal ones are
said to be equal under load too, damage is named by node, volume and byte, and nothing is left behind.
"""

import harness
from damage_support import BLOCK, COUNT, DamageTest, content, rot


@harness.needs_nbd
class Verify(DamageTest):
    def verify(self, *options, expect=0, node=None):
        done = (node or self.a).tandem("verify", "g", *options, check=False)
        self.assertEqual(done.returncode, expect, done.stdout + done.stderr)
        return done.stdout

    def assert_nothing_left(self):
        for node in (self.a, self.b):
            self.assertEqual(node.group("g")["snapshots"], [])

    def test_equal_copies(self):
        said = self.verify()
        self.assertIn(f"node-a: {COUNT} blocks, none damaged", said)
        self.assertIn(f"node-b: {COUNT} blocks, none damaged", said)
        self.assertIn("identical", said)
        self.assert_nothing_left()
        self.assertIn("without reading the data", self.verify("--quick"))
        result = self.a.tandem("verify", "g", json_output=True)
        self.assertEqual((result["good"], result["differing_blocks"]), (True, 0))

    def test_under_load_at_a_snapshot(self):
        self.a.tandem("snapshot", "create", "g", "s")
        harness.wait_until(lambda: self.b.group("g")["snapshots"], "the snapshot on node-b")
        # Two MiB on each node at this rate take two seconds.
        with self.a.nbd("v") as disk:
            for block in range(0, COUNT, 2):
                disk.pwrite(content(block, 1), block * BLOCK)
            self.assertIn("identical", self.verify("--snapshot", "s", "--rate", "1MiB"))
            self.assertIn("identical", self.verify())
        self.assertEqual([s["name"] for s in self.b.group("g")["snapshots"]], ["s"])
        # From the mirror alone: no other node is named there.
        self.assertIn("no other copy", self.verify("--snapshot", "s", node=self.b))

    def test_damage_is_named_by_its_node_and_given_back(self):
        rot(self.b, (7, 300))
        said = self.verify(expect=6)
        self.assertIn(f"node-a: {COUNT} blocks, none damaged", said)
        self.assertIn(f"node-b: {COUNT} blocks, 2 DAMAGED (2 given back by a peer)", said)
        self.assertIn(f"v at byte {7 * BLOCK}: given back by a peer", said)
        harness.wait_until(lambda: self.b.group("g")["damage"]["repaired_blocks"] == 2,
                           "both blocks to be repaired")
        self.assertIn("none damaged", self.verify())
        # The primary has what it wrote of late in memory, and would give the mirror that.
        self.a.restart()
        self.wait_in_sync(self.a, "g")
        rot(self.a, (9,))
        rot(self.b, (9,))
        result = self.a.tandem("verify", "g", "--json", check=False)
        self.assertEqual(result.returncode, 6)
        for node in ("node-a", "node-b"):
            self.assertIn(f'"node":"{node}","blocks":{COUNT},"bad_blocks":1,"repaired_blocks":0',
                          result.stdout)
        self.assert_nothing_left()

    def test_without_the_mirror_only_one_copy_is_read(self):
        self.b.kill()
        harness.wait_until(lambda: self.a.slot("g")["state"] != "following", "the loss to be noticed")
        done = self.a.tandem("verify", "g", check=False)
        self.assertEqual(done.returncode, 0)
        self.assertIn("no other copy", done.stdout)
        self.assertIn("not answering", done.stderr)


if __name__ == "__main__":
    harness.main()
