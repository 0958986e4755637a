"""SIGKILL in the middle of what only a mirror does: its promotion, and a full copy, of either node.

After the restart its state says plainly which side of the step it is on, and the step can be
repeated.
"""

import os
import subprocess
import time

import harness
from harness import MIB

PROMOTIONS = 8


@harness.needs_nbd
class KilledInPromotion(harness.ClusterTest):
    def promote_and_kill(self, node, seconds):
        """Kills the node so long after the promotion was asked for; None: once it is confirmed."""
        command = subprocess.Popen(
            [harness.BIN / "tandem", "--node", node.service, *map(str, node.credentials()),
             "promote", "v", "--yes"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=harness.die_with_parent)
        if seconds is None:
            command.wait(harness.PATIENCE)
        else:
            time.sleep(seconds)
        confirmed = command.poll() == 0
        node.kill()
        command.wait(harness.PATIENCE)
        return confirmed

    def test_it_is_a_mirror_or_the_primary_and_never_less_than_confirmed(self):
        chance = harness.chance("moments of the kills")
        a, b = self.start_pair()
        self.replicated_volume(a, b, mode="sync")
        self.wait_in_sync(a, "v")
        ledger = harness.Ledger(self.directory)
        ledger.begin(a, "v")
        ledger.wait_for(500)
        a.kill()
        ledger.end()
        b.kill()
        before = self.directory / "before"
        harness.wait_until(lambda: harness.pools_are_free(b.pool), "the pool to be let go")
        harness.run("cp", "--sparse=always", b.pool, before)
        b.start()
        begun = time.monotonic()
        self.promote(b, "v")
        whole = time.monotonic() - begun
        b.kill()
        found = {"mirror": 0, "primary": 0}
        for i in range(PROMOTIONS):
            harness.wait_until(lambda: harness.pools_are_free(b.pool), "the pool to be let go")
            harness.run("cp", "--sparse=always", before, b.pool)
            b.start()
            # The first dies before anything was done, the last when all was.
            moment = None if i == PROMOTIONS - 1 else i / (PROMOTIONS - 2) * whole
            confirmed = self.promote_and_kill(b, moment and moment * chance.uniform(0.7, 1))
            self.assert_sound(b)
            b.start()
            group = b.group("v")
            found[group["role"]] += 1
            if group["role"] == "mirror":
                # With the new timeline in its log, but not yet primary, it is asked once more, too.
                self.assertFalse(confirmed, "a confirmed promotion is undone")
                self.assertFalse(b.serves("v"))
                self.promote(b, "v")
                self.assertEqual(b.group("v")["head"]["timeline"], group["head"]["timeline"] + 1)
            else:
                refused = b.tandem("promote", "v", "--yes", check=False)
                self.assertNotEqual(refused.returncode, 0)
                self.assertIn("primary", refused.stderr)
            harness.wait_until(lambda: b.serves("v"), "the promoted node to serve")
            self.assertIn(" 0 wrong", ledger.check(b, "v"))
            if i != PROMOTIONS - 1:
                b.kill()
        print(f"after the kill: {found}", flush=True)
        self.assertTrue(all(found.values()), found)
        a.start()
        harness.wait_until(lambda: a.group("v")["role"] != "primary", "the old primary to see it")
        self.assertFalse(a.serves("v"))


@harness.needs_nbd
class KilledInFullCopy(harness.ClusterTest):
    SIZE = 192 * MIB

    def primary_without_its_log(self):
        """A primary whose log begins behind its data: a new mirror needs a full copy."""
        a = self.node("node-a").start()
        a.tandem("volume", "create", "v", "--size", str(self.SIZE))
        a.tandem("mode", "v", "async")
        with a.nbd("v") as disk:
            for at in range(0, self.SIZE, 4 * MIB):
                disk.pwrite(os.urandom(4 * MIB), at)
            while a.group("v")["log_start"] == 0:
                for _ in range(500):  # one page of the log each
                    disk.pwrite(b"\1" * 4096, 0)
                a.tandem("mode", "v", "flush")  # a checkpoint lets go of what is behind it
                a.tandem("mode", "v", "async")
        return a

    def start_copy(self, a, b):
        # Slower than what the test does meanwhile.
        a.tandem("mirror", "set", "v", b.service, "catch_up_rate=40MiB")
        harness.wait_until(lambda: a.slot("v")["state"] == "image" and
                           0 < a.slot("v")["progress_done"] < a.slot("v")["progress_total"],
                           "the full copy to be under way", interval=0)

    def test_a_first_copy_begins_again(self):
        a = self.primary_without_its_log()
        b = self.node("node-b").start()
        a.tandem("mirror", "add", "v", b.service, "--mode", "sync")
        for dies in (b, b, a):
            self.start_copy(a, b)
            refused = b.tandem("promote", "v", "--yes", "--force", check=False)
            self.assertNotEqual(refused.returncode, 0, "half a copy was promoted")
            dies.kill()
            if dies is b:
                harness.wait_until(lambda: a.slot("v")["state"] != "image", "the loss to be seen")
            self.assert_sound(dies)
            dies.start()
            harness.wait_until(lambda: a.serves("v"), "node-a to serve")
        self.wait_in_sync(a, "v")
        content = a.read_all("v")
        self.assertEqual(a.group("v")["head"]["digest"], b.group("v")["head"]["digest"])
        a.kill()
        self.promote(b, "v")
        self.assertEqual(b.read_all("v"), content)

    def test_the_old_state_stays_promotable_until_the_copy_is_whole(self):
        a = self.primary_without_its_log()
        b = self.node("node-b").start()
        a.tandem("mirror", "add", "v", b.service, "--mode", "sync")
        self.wait_in_sync(a, "v")
        content = a.read_all("v")
        b.kill()
        a.tandem("mirror", "remove", "v", b.service)  # nothing holds the log for it any more
        with a.nbd("v") as disk:
            start = a.group("v")["log_start"]
            while a.group("v")["log_start"] == start:
                for i in range(500):
                    disk.pwrite(os.urandom(4096), i * 65536)
                a.tandem("mode", "v", "flush")
                a.tandem("mode", "v", "async")
            for at in range(0, self.SIZE, 4 * MIB):
                disk.pwrite(os.urandom(4 * MIB), at)
        b.start()
        a.tandem("mirror", "add", "v", b.service, "--mode", "sync")
        self.start_copy(a, b)
        b.kill()
        a.kill()
        self.assert_sound(b)
        b.start()
        self.promote(b, "v")
        self.assertEqual(b.read_all("v"), content)


if __name__ == "__main__":
    harness.main()
