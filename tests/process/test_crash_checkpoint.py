"""SIGKILL at random moments while checkpoints run: after each restart everything acknowledged is
there, and tandem-inspect finds every block of the pool accounted for.

Two things make checkpoints frequent: the smallest map cache, half of which random writes make dirty
within a second, and a change of the group's mode, which is durable by a checkpoint of its own.
"""

import subprocess
import threading

import harness

KILLS = 9


class Checkpoints(threading.Thread):
    """Changes a group's mode to and fro until the daemon is gone; counts what succeeded."""

    def __init__(self, node, group):
        super().__init__(daemon=True)
        self.node = node
        self.group = group
        self.done = 0
        self.start()

    def run(self):
        while True:
            mode = ("async", "flush")[self.done % 2]
            try:
                changed = self.node.tandem("mode", self.group, mode, check=False)
            except subprocess.TimeoutExpired:
                return
            if changed.returncode != 0:
                return
            self.done += 1


@harness.needs_nbd
class KilledInCheckpoints(harness.ClusterTest):
    def test_everything_acknowledged_is_there(self):
        chance = harness.chance("moments of the kills")
        node = self.node(tls=False, pool_size="1GiB", config={"memory": {"map_cache": "4MiB"}})
        node.start()
        # Random writes over 2 GiB touch a map leaf of their own nearly every time.
        node.tandem("volume", "create", "v", "--size", "2GiB")
        ledger = harness.Ledger(self.directory)
        asked = due = 0
        for kill in range(KILLS):
            before = node.group("v")["checkpoint"]
            # Few at a time, because every block that was ever written is read again and again.
            ledger.begin(node, "v", in_flight=4)
            ledger.wait_for(20)
            if kill % 3 == 2:  # one that the dirty cache asks for, once a second
                node.alive_for(chance.uniform(0.9, 1.3))
                node.kill()
            else:
                changes = Checkpoints(node, "v")
                # Two at least, however slow this build is; then at any moment of a later one.
                harness.wait_until(lambda: changes.done >= 2, "two checkpoints")
                node.alive_for(chance.uniform(0.02, 0.4))
                node.kill()
                changes.join(harness.PATIENCE)
                asked += changes.done
            self.assertIn("server was gone", ledger.end())
            self.assert_sound(node)
            node.start()
            if kill % 3 == 2:
                self.assertIn(" 0 wrong", ledger.check(node, "v"))
                due += node.group("v")["checkpoint"] > before
        print(f"{KILLS} kills; {asked} changes of the mode and {due} full caches made checkpoints; "
              f"{ledger.acknowledged()} writes acknowledged", flush=True)
        self.assertGreater(asked, KILLS, "the kills came before any checkpoint")
        self.assertGreater(due, 0, "no checkpoint was due by itself")
        self.assertEqual(node.stop(), 0)
        self.assert_sound(node)


if __name__ == "__main__":
    harness.main()
