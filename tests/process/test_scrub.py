"""Scrubs of real daemons: what rots on a disk and nobody reads is found, on either node, and had back from
the other; what nobody has is named by volume and byte; a killed node goes on; and both nodes say through
which record their histories are identical.
"""

import harness
from damage_support import BLOCK, COUNT, DamageTest, content, rot


@harness.needs_nbd
class Scrub(DamageTest):
    def scrub_of(self, node):
        return node.tandem("scrub", "status", "g", json_output=True)["scrubs"][0]

    def wait_finished(self, node):
        harness.wait_until(lambda: self.scrub_of(node)["state"] == "finished",
                           f"the end of the scrub on {node.name}")
        return self.scrub_of(node)

    def scrub(self, node):
        started = node.tandem("scrub", "start", "g").stdout
        self.assertIn(f"began on node {node.name}", started)
        return self.wait_finished(node)

    def assert_whole(self, node, where, generation=0):
        with open(node.pool, "rb") as pool:
            for block, at in where.items():
                pool.seek(at)
                self.assertEqual(pool.read(BLOCK), content(block, generation), f"block {block}")

    def test_finds_and_repairs_on_either_node(self):
        self.a.tandem("snapshot", "create", "g", "s")
        harness.wait_until(lambda: self.b.group("g")["snapshots"], "the snapshot on node-b")
        self.fill(1)
        live = rot(self.a, (0, 3, 300), generation=1)
        kept = rot(self.a, (77, COUNT - 1), generation=0)
        there = rot(self.b, (5, 6), generation=1)
        self.assertEqual(self.a.group("g")["damage"]["fetched_blocks"], 0)
        done = self.scrub(self.a)
        self.assertEqual((done["bad_blocks"], done["repaired_blocks"], done["bad_map_nodes"]),
                         (5, 5, 0))
        self.assertEqual(done["blocks_read"], 2 * COUNT)
        self.assertEqual(sorted((f["volume"], f["snapshot"], f["byte"]) for f in done["findings"]),
                         sorted([("v", "", block * BLOCK) for block in live] +
                                [("v", "s", block * BLOCK) for block in kept]))
        self.assertEqual(self.scrub_of(self.b)["state"], "never")
        done = self.scrub(self.b)
        self.assertEqual((done["bad_blocks"], done["repaired_blocks"]), (2, 2))
        text = self.b.tandem("scrub", "status", "g").stdout
        self.assertIn("2 bad blocks (2 given back by a peer)", text)
        self.assertIn(f"v at byte {5 * BLOCK}", text)
        self.assertIn("event=scrub.bad-block", self.b.log(200))
        for node in (self.a, self.b):
            self.assertEqual(self.scrub(node)["bad_blocks"], 0)
        self.assertEqual((self.a.stop(), self.b.stop()), (0, 0))
        self.assert_whole(self.a, live, generation=1)
        self.assert_whole(self.a, kept, generation=0)
        self.assert_whole(self.b, there, generation=1)
        self.assert_sound(self.a, self.b)

    def test_goes_on_after_a_kill(self):
        self.b.tandem("group", "set", "g", "scrub.rate=256KiB")
        rot(self.b, (COUNT - 1,))
        self.b.tandem("scrub", "start", "g")
        harness.wait_until(lambda: self.scrub_of(self.b)["blocks_read"] > 256,
                           "more than half of the scrub")
        self.b.tandem("group", "set", "g", "scrub.rate=512KiB")  # durable, and what was reached too
        self.b.kill()
        self.b.start()
        again = self.scrub_of(self.b)
        self.assertEqual(again["state"], "running")
        self.assertGreaterEqual(again["blocks_read"], 256)
        busy = self.b.tandem("scrub", "start", "g", check=False)
        self.assertEqual(busy.returncode, 1)
        self.assertIn("being scrubbed already", busy.stderr)
        done = self.wait_finished(self.b)
        self.assertEqual((done["bad_blocks"], done["repaired_blocks"]), (1, 1))
        self.assertLess(done["blocks_read"], 2 * COUNT)
        self.assertEqual(self.b.tandem("scrub", "stop", "g", check=False).returncode, 5)

    def test_what_nobody_has(self):
        for node in (self.a, self.b):
            rot(node, (40,))
        done = self.scrub(self.a)
        self.assertEqual((done["bad_blocks"], done["repaired_blocks"]), (1, 0))
        self.assertEqual(done["findings"][0]["byte"], 40 * BLOCK)
        checked = self.a.tandem("status", "--check", check=False)
        self.assertEqual(checked.returncode, 6)
        self.assertIn("DAMAGED: the copy on node-a has 1 block", checked.stdout)
        with self.a.nbd("v") as disk:
            disk.pwrite(content(40, 1), 40 * BLOCK)
            disk.flush()
        self.assertEqual(self.scrub(self.a)["bad_blocks"], 0)
        self.assertEqual(self.a.tandem("status", "--check", check=False).returncode, 0)

    def test_identical_histories_are_said_on_both(self):
        head = self.a.group("g")["head"]["lsn"]
        harness.wait_until(
            lambda: self.a.slot("g")["agreement"]["through"] == head and
            self.b.group("g")["upstream"]["agreement"]["through"] == head,
            f"both to say that they are identical through record {head}")
        self.assertIn(f"with node-b: identical through record {head}",
                      self.a.tandem("group", "show", "g").stdout)
        self.assertIn(f"with node-a: identical through record {head}",
                      self.b.tandem("group", "show", "g").stdout)


if __name__ == "__main__":
    harness.main()
