"""Split brain: both nodes of a pair were promoted apart from each other, and both were written.

Neither gives way when they meet: both serve what they have, and both say so, with the commands that
end it. The operator chooses one, and what only the other had is a branch on it.
"""

import os

import harness
from harness import MIB

SIZE = 16 * MIB
BRANCH = "tail-of-timeline-2"
REFUSED, ATTENTION = 4, 6


@harness.needs_nbd
class SplitBrain(harness.ClusterTest):
    def write(self, node, places):
        """Random MiB at each of these; returns what the volume then holds."""
        with node.nbd("v") as disk:
            for place in places:
                disk.pwrite(os.urandom(MIB), place * MIB)
            disk.flush()
        return node.read_all("v")

    def part(self):
        """node-a and node-b: both primary on timeline 2, each with a MiB that the other lacks."""
        a, b = self.a, self.b = self.start_pair()
        self.replicated_volume(a, b, "v", size=f"{SIZE}", mode="sync")
        self.write(a, range(4))
        harness.wait_until(lambda: b.group("v")["checkpoint"] > 0 and
                           a.slot("v")["missing_records"] == 0, "the mirror to have a state")
        b.kill()
        self.write(a, [4])  # in front of the demotion: the mirror never saw it
        a.tandem("demote", "v")
        a.tandem("promote", "v", "--yes")
        self.of_a = self.write(a, [5, 6])
        a.stop()
        b.start()
        self.promote(b, "v")
        self.of_b = self.write(b, [5, 7])
        a.start()
        for node in (a, b):
            self.assertEqual(node.group("v")["head"]["timeline"], 2)
            harness.wait_until(lambda node=node: node.group("v")["split"],
                               f"{node.name} to say that they parted")

    def assert_both_go_on(self):
        for node in (self.a, self.b):
            group = node.group("v")
            self.assertEqual((group["role"], group["state"]), ("primary", "serving"))
            reason = group["split"]["reason"]
            for words in ("node-a", "node-b", "promote v --force", "mirror add v", BRANCH):
                self.assertIn(words, reason)
            shown = node.tandem("status", check=False)
            self.assertIn("SPLIT", shown.stdout)
            self.assertIn("promote v --force", shown.stdout)
            self.assertEqual(node.tandem("status", "--check", check=False).returncode, ATTENTION)
            # Without the force that makes it a choice it is what it always was.
            self.assertEqual(node.tandem("promote", "v", "--yes", check=False).returncode, REFUSED)
        self.of_a = self.write(self.a, [8])
        self.of_b = self.write(self.b, [9])

    def choose(self, winner, loser, content):
        chosen = winner.tandem("promote", "v", "--force", "--yes")
        self.assertIn("on timeline 3", chosen.stdout)
        if winner.slot("v") is None:
            winner.tandem("mirror", "add", "v", loser.service, "--mode", "sync")
        harness.wait_until(lambda: loser.group("v")["role"] != "primary", "the other to give way")
        self.assertTrue(winner.serves("v"))
        self.assertEqual(winner.read_all("v"), content)

    def assert_kept(self, winner, loser, content, tail):
        """The winner's data is on both, and the loser's can be read and compared."""
        harness.wait_until(lambda: winner.slot("v")["state"] == "following" and
                           winner.slot("v")["missing_records"] == 0, "the other to follow")
        self.assertNotIn("state=image", winner.log(lines=10**6), "a full copy")
        for node in (winner, loser):
            self.assertIsNone(node.group("v")["split"])
        winner.tandem("snapshot", "create", "v", "after")
        harness.wait_until(lambda: [s for s in loser.group("v")["snapshots"]
                                    if s["name"] == "after"], "the snapshot to arrive")
        for node in (winner, loser):
            self.assertEqual(node.read_all("v@after"), content, node.name)
        self.assertEqual(loser.read_all(f"v@{BRANCH}"), tail)
        told = loser.tandem("diff", "v@after", "--from", BRANCH, json_output=True)
        differs = {at // MIB for extent in told["extents"]
                   for at in range(extent["offset"], extent["offset"] + extent["length"], MIB)}
        wanted = {i for i in range(SIZE // MIB)
                  if content[i * MIB:(i + 1) * MIB] != tail[i * MIB:(i + 1) * MIB]}
        self.assertTrue(wanted)
        self.assertEqual(differs, wanted)
        # What was given up can be served beside what was kept.
        loser.tandem("clone", f"v@{BRANCH}", "given-up")
        self.assertEqual(loser.read_all("given-up/v"), tail)
        loser.tandem("group", "delete", "given-up", "--yes")
        loser.tandem("snapshot", "delete", "v", BRANCH, "--yes")
        for node in (winner, loser):
            self.assertEqual(node.stop(), 0)
        self.assert_sound(winner, loser)

    def test_the_one_that_dials_is_kept(self):
        self.part()
        self.assert_both_go_on()
        tail = self.of_b
        self.choose(self.a, self.b, self.of_a)
        self.assert_kept(self.a, self.b, self.write(self.a, [3]), tail)

    def test_the_one_that_is_dialled_is_kept_and_the_other_killed(self):
        self.part()
        self.assert_both_go_on()
        tail = self.of_a
        for node in (self.a, self.b):  # what they know of each other comes back with the first contact
            node.kill()
        self.b.start()
        self.a.start()
        harness.wait_until(lambda: self.b.group("v")["split"], "node-b to meet the other again")
        harness.wait_until(lambda: self.b.group("v")["state"] == "serving", "node-b to serve")
        self.choose(self.b, self.a, self.of_b)
        self.a.kill()
        self.a.start()
        self.assert_kept(self.b, self.a, self.write(self.b, [3]), tail)

    def test_a_demotion_alone_decides_nothing(self):
        self.part()
        tail = self.of_b
        self.b.tandem("demote", "v")
        harness.wait_until(lambda: self.b.group("v")["split"], "the demoted one to be dialled")
        told = self.a.wait_refused("v")["reason"]
        self.assertEqual(self.b.group("v")["head"]["timeline"], 2)
        self.assertIn("promote v --force", told)
        self.choose(self.a, self.b, self.of_a)
        self.assert_kept(self.a, self.b, self.write(self.a, [3]), tail)


if __name__ == "__main__":
    harness.main()
