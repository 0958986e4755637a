"""The space of a real pool: it balances to the byte, warns before it is full, and what is deleted goes back to the
filesystem below a pool that is a file.
"""

import errno
import json
import os
import re
import sys
import time

import harness
from harness import MIB

ATTENTION = 6
ZONE = 4 * MIB
RESERVE = 16 * ZONE


@harness.needs_nbd
class Space(harness.ClusterTest):
    def start(self, size="256MiB", **pool):
        self.a = self.node("node-a", pool_size=size, config={"pool": pool})
        self.a.start()

    def volume(self, name="v", size="128MiB"):
        self.a.tandem("volume", "create", name, "--size", size, "--group", "g")

    def fill(self, letter, start, end, volume="v"):
        with self.a.nbd(volume) as disk:
            for at in range(start, end, MIB):
                disk.pwrite(bytes([ord(letter)]) * MIB, at)
            disk.flush()

    def pool(self):
        return self.a.tandem("pool", "show", json_output=True)["pools"][0]

    def assert_balances(self):
        pool = self.pool()
        self.assertEqual(pool["space"]["sum"], pool["size_bytes"], pool)
        for group in pool["groups"]:
            self.assertEqual(group["space"]["sum"], group["zone_bytes"], group)
        return pool["space"]

    def quiet(self):
        """The parts once nothing is on its way."""
        def still():
            space = self.assert_balances()
            return space if space["moving"] == 0 and space["freed"] == 0 else None
        return harness.wait_until(still, "nothing to be on its way")

    def test_balances_to_the_byte_through_life(self):
        self.start()
        self.assert_balances()
        self.volume()
        self.volume("w", "16MiB")
        self.fill("a", 0, 32 * MIB)
        self.assertEqual(self.quiet()["data"], 32 * MIB)
        self.a.tandem("snapshot", "create", "g", "s")
        self.fill("b", 0, 8 * MIB)
        with self.a.nbd("v") as disk:
            disk.zero(4 * MIB, 16 * MIB)
            disk.trim(4 * MIB, 24 * MIB)
        space = self.quiet()
        self.assertEqual(space["data"], 24 * MIB)  # zeroes have no place
        self.a.tandem("mode", "g", "async")  # a checkpoint tells what only the snapshot needs
        self.assertGreaterEqual(self.quiet()["snapshots"], 16 * MIB)
        self.a.tandem("volume", "delete", "w", "--yes")
        shown = self.a.tandem("pool", "show").stdout
        self.assertIn("only for kept states", shown)
        self.assertNotIn("which the history needs", shown)
        self.assertNotIn("DOES NOT BALANCE", shown)
        live = self.quiet()
        # Offline, every block is looked at: the same sums.
        self.a.stop()
        report = json.loads(harness.inspect(self.a.pool, "verify", "--json").stdout)
        self.assertTrue(report["sound"])
        blocks = report["groups"][0]["blocks"]
        self.assertEqual(blocks["data"] * 4096, live["data"])
        self.assertEqual(sum(blocks[k] for k in ("data", "dead", "snapshots", "maps", "books", "log",
                                                 "free")), blocks["zones"])
        pool = report["pool_blocks"]
        self.assertEqual(pool["groups"] + pool["free_zones"] + pool["fixed"] + pool["other"],
                         pool["all"])
        # And after a restart, from what is on the disk.
        self.a.start()
        self.assertEqual(self.quiet()["data"], live["data"])
        self.a.tandem("snapshot", "delete", "g", "s", "--yes")
        self.a.tandem("volume", "delete", "v", "--yes")
        harness.wait_until(lambda: self.quiet()["data"] == 0 and self.quiet()["snapshots"] == 0,
                           "all of it to come back")

    def test_says_what_the_history_needs(self):
        self.start()
        self.volume()
        self.fill("a", 0, 8 * MIB)
        self.quiet()
        self.assertEqual(self.pool()["history_bytes"], 0)
        self.a.tandem("group", "set", "g", "history=1h")

        def history():
            return self.a.tandem("history", "g", json_output=True)["histories"][0]

        harness.wait_until(lambda: history()["start"], "the history to begin")
        self.fill("b", 0, 8 * MIB)  # its first mark maps what was there
        self.fill("c", 0, 8 * MIB)  # and nothing maps this, but it is a moment of the history
        self.a.tandem("mode", "g", "async")  # with a checkpoint
        space = self.quiet()
        shown = self.pool()
        self.assertGreaterEqual(shown["history_bytes"], 16 * MIB)
        self.assertEqual(shown["groups"][0]["history_bytes"], shown["history_bytes"])
        self.assertLessEqual(shown["history_bytes"],
                             space["dead"] + space["snapshots"] + space["log"])
        self.assertEqual(history()["bytes"], shown["history_bytes"])
        self.assertIn("of which the history needs", self.a.tandem("pool", "show").stdout)
        self.a.tandem("group", "set", "g", "history=")
        self.a.tandem("mode", "g", "async")
        harness.wait_until(lambda: self.quiet()["dead"] + self.quiet()["snapshots"] == 0,
                           "what only the history needed to come back")
        self.assertEqual(self.pool()["history_bytes"], 0)

    def test_balances_while_it_is_written(self):
        self.start()
        self.volume()
        with self.a.nbd("v") as disk:
            for i in range(300):
                disk.aio_pwrite(harness.nbd.Buffer.from_bytearray(bytearray(65536)),
                                (i * 7 % 1000) * 65536)
                if i % 10 == 0:
                    self.assert_balances()
                    disk.poll(0)
            while disk.aio_in_flight():
                disk.poll(-1)
        self.quiet()

    def test_warns_once_for_each_step(self):
        self.start(size="192MiB", warn_at=40, critical_at=60)
        self.volume()
        self.assertEqual(self.a.tandem("status", "--check", check=False).returncode, ATTENTION,
                         "it has no mirror")

        def states():
            return re.findall(r"event=pool.space .* state=(\w+)", self.a.log_path.read_text())

        self.assertNotIn("POOL", self.a.tandem("status").stdout)
        self.fill("a", 0, 80 * MIB)
        harness.wait_until(lambda: states() == ["warn"], "the warning")
        self.assertIn("POOL FILLS UP on node-a", self.a.tandem("status").stdout)
        self.assertEqual(self.pool()["state"], "warn")
        self.fill("a", 80 * MIB, 120 * MIB)
        harness.wait_until(lambda: states() == ["warn", "critical"], "the next")
        self.assertIn("POOL ALMOST FULL", self.a.tandem("status").stdout)
        self.fill("b", 0, 4 * MIB)  # goes on
        with self.a.nbd("v") as disk:
            disk.trim(128 * MIB, 0)
            disk.flush()
        self.a.tandem("mode", "g", "async")  # a checkpoint
        harness.wait_until(lambda: states()[-1] == "ok", "the end of it")
        self.assertNotIn("POOL", self.a.tandem("status").stdout)
        self.assertLessEqual(len(states()), 4)

    def test_a_full_pool_is_emptied_again(self):
        """With a snapshot that holds most of it; each step is one that needs room by itself."""
        self.start(size="128MiB")
        self.volume()
        self.fill("a", 0, 40 * MIB)
        self.a.tandem("snapshot", "create", "g", "s")
        with self.a.nbd("v") as disk:
            with self.assertRaises(harness.nbd.Error) as full:
                for _ in range(4):
                    for at in range(0, 128 * MIB, MIB):
                        disk.pwrite(b"b" * MIB, at)
            self.assertEqual(full.exception.errnum, errno.ENOSPC)
            harness.wait_until(lambda: self.pool()["state"] == "critical", "the warning")
            self.assert_balances()
            disk.pread(MIB, 0)  # still served
            self.assertEqual([s["name"] for s in self.a.group("g")["snapshots"]], ["s"])
            self.a.tandem("snapshot", "rename", "g", "s", "t")
            self.a.tandem("group", "set", "g", "snapshots.keep=2d")
            self.a.tandem("snapshot", "delete", "g", "t", "--yes")
            harness.wait_until(lambda: self.quiet()["snapshots"] == 0, "its space")
            disk.pwrite(b"c" * MIB, 0)
        self.a.tandem("demote", "g")
        self.a.stop()
        self.assert_sound(self.a)

    def below(self):
        return os.stat(self.a.pool).st_blocks * 512

    def test_what_is_deleted_goes_back_to_the_filesystem(self):
        self.start(size="512MiB", return_after="1s")
        empty = self.below()
        for round in range(3):
            self.volume(size="256MiB")
            self.fill("a", 0, 192 * MIB)
            full = self.below()
            self.assertGreater(full, 192 * MIB)
            self.a.tandem("volume", "delete", "v", "--yes")
            if round == 1:  # in the middle of it
                harness.wait_until(lambda: self.below() < full, "the first zones")
                self.a.kill()
                self.a.start()
            # The reserve, and what the group keeps at hand for its log and next writes.
            harness.wait_until(lambda: self.below() <= empty + RESERVE + 8 * ZONE, "the space")
            print(f"{full // MIB} MiB below the pool when full, {self.below() // MIB} MiB after",
                  file=sys.stderr)
            self.assert_balances()
        self.a.stop()
        self.assert_sound(self.a)

    def test_it_stays_when_that_is_wanted(self):
        self.start(size="512MiB", return_after="1s", return_free_space="off")
        self.volume(size="256MiB")
        self.fill("a", 0, 128 * MIB)
        full = self.below()
        self.a.tandem("volume", "delete", "v", "--yes")
        harness.wait_until(lambda: self.quiet()["data"] == 0, "the deletion")
        time.sleep(3)
        # The filesystem's own list of extents counts, too, and may have become shorter.
        self.assertGreaterEqual(self.below(), full - MIB)

    def test_a_pool_is_prepared_in_the_background(self):
        self.start(size="256MiB", prepare="all")
        harness.wait_until(lambda: self.pool()["prepared_bytes"] ==
                           self.pool()["zones_free"] * self.pool()["zone_bytes"],
                           "the pool to be prepared")
        self.assertGreaterEqual(self.below(), 250 * MIB)


if __name__ == "__main__":
    harness.main()
