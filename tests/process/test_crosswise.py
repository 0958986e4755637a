"""Both directions at once on one pair: node-a is primary of one group and node-b of another, and each
is the other's mirror. Whoever dies, its group is promoted on the other, whose own goes on.
"""

import harness

WRITES_PER_SECOND = 500


@harness.needs_nbd
class Crosswise(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.start_pair()
        self.replicated_volume(self.a, self.b, "g", size="32MiB")
        self.replicated_volume(self.b, self.a, "h", size="32MiB")
        self.ledgers = {}
        for group in "gh":
            directory = self.directory / f"ledger-{group}"
            directory.mkdir()
            self.ledgers[group] = harness.Ledger(directory)

    def begin(self, group, node):
        self.ledgers[group].begin(node, group, per_second=WRITES_PER_SECOND)
        self.ledgers[group].wait_for(200)

    def check(self, group, node):
        self.assertIn(" 0 wrong", self.ledgers[group].check(node, group))

    def dies(self, dead, alive, its, others):
        """`dead`, primary of group `its`, is killed and comes back as the mirror of both."""
        self.begin(its, dead)
        self.begin(others, alive)
        for group, node in ((its, dead), (others, alive)):
            self.wait_in_sync(node, group)
        dead.kill()
        self.assertIn("server was gone", self.ledgers[its].end())
        self.promote(alive, its)
        self.check(its, alive)
        # The other group lost its mirror, and no write.
        harness.wait_until(lambda: alive.group(others)["policy"]["state"] == "degraded",
                           "the other group to go on alone")
        self.assertIn(dead.name, alive.group(others)["policy"]["reason"])
        self.ledgers[others].wait_for(100)
        self.assertEqual(alive.group(others)["head"]["timeline"], 1)
        self.begin(its, alive)
        dead.start()
        alive.tandem("mirror", "add", its, dead.service, "--mode", "sync")
        for group in (its, others):
            self.wait_in_sync(alive, group)
            self.assertEqual(dead.group(group)["role"], "mirror")
            self.ledgers[group].wait_for(50)
        # Back to where both began, under load.
        alive.tandem("switchover", its)
        self.ledgers[its].end()
        harness.wait_until(lambda: dead.serves(its), "the group to be served where it was")
        self.check(its, dead)
        self.wait_in_sync(dead, its)
        self.assertIsNone(self.ledgers[others].process.poll(), "the other group never stopped")

    def compare(self):
        self.wait_in_sync(self.a, "g")
        self.wait_in_sync(self.b, "h")
        for node, group in ((self.a, "g"), (self.b, "h")):
            compared = node.tandem("verify", group, json_output=True)
            self.assertEqual((compared["good"], compared["differing_blocks"]), (True, 0))

    def finish(self):
        for node in (self.a, self.b):
            self.assertNotIn("state=image", node.log(10**6), "a full copy")
            node.stop()
        self.assert_sound(self.a, self.b)

    def test_one_dies_and_then_the_other(self):
        self.dies(self.a, self.b, "g", "h")
        self.compare()
        self.b.kill()
        self.assertIn("server was gone", self.ledgers["h"].end())
        self.promote(self.a, "h")
        self.check("h", self.a)
        self.check("g", self.a)
        self.assertTrue(self.a.serves("g"))
        self.b.start()
        self.a.tandem("mirror", "add", "h", self.b.service, "--mode", "sync")
        for group in "gh":
            self.wait_in_sync(self.a, group)
        self.finish()

    def test_both_die(self):
        """And hear each other again as primary and as mirror at once."""
        for group, node in (("g", self.a), ("h", self.b)):
            self.begin(group, node)
            self.wait_in_sync(node, group)
        self.a.kill()
        self.b.kill()
        for group in "gh":
            self.assertIn("server was gone", self.ledgers[group].end())
        self.a.spawn()
        self.b.start()
        for group, node in (("g", self.a), ("h", self.b)):
            harness.wait_until(lambda: node.serves(group), f"group {group} to be served")
            self.check(group, node)
            self.assertEqual(node.group(group)["head"]["timeline"], 1)
        self.compare()
        self.finish()


if __name__ == "__main__":
    harness.main()
