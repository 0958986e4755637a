"""Compaction by the command: zones of one group come back for another, and every byte of both stays what it was,
while it is written to, and after a kill in the middle of it.
"""

import hashlib
import random

import harness
from harness import MIB

PIECE = 64 << 10
STEP = 4 * PIECE  # one piece of each step stays
ZONE = 4 * MIB


@harness.needs_nbd
class Compaction(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.random = random.Random(16)
        self.a = self.node("node-a", pool_size="256MiB")
        self.a.start()
        self.content = {}

    def write(self, disk, volume, at):
        data = self.random.randbytes(PIECE)
        disk.pwrite(data, at)
        self.content[volume][at] = hashlib.sha256(data).digest()

    def scatter(self, volume, group, size):
        """A volume of which one piece in four is left."""
        self.a.tandem("volume", "create", volume, "--size", str(size), "--group", group)
        self.content[volume] = {}
        with self.a.nbd(volume) as disk:
            for at in range(0, size, PIECE):
                self.write(disk, volume, at)
            disk.flush()
            for at in range(0, size, STEP):
                disk.trim(STEP - PIECE, at + PIECE)
                for gone in range(at + PIECE, at + STEP, PIECE):
                    del self.content[volume][gone]
            disk.flush()
        self.a.tandem("mode", group, "async")  # a checkpoint

    def assert_content(self):
        zeroes = bytes(PIECE)
        for volume, pieces in self.content.items():
            data = self.a.read_all(volume)
            for at in range(0, len(data), PIECE):
                piece = data[at:at + PIECE]
                if at in pieces:
                    self.assertEqual(hashlib.sha256(piece).digest(), pieces[at], (volume, at))
                else:
                    self.assertEqual(piece, zeroes, (volume, at))

    def pool(self):
        return self.a.tandem("pool", "show", json_output=True)["pools"][0]

    def compaction(self, group="g"):
        found = [g for g in self.pool()["groups"] if g["group"] == group]
        return found[0]["compaction"]

    def finished(self, group="g"):
        return harness.wait_until(
            lambda: self.compaction(group)["state"] in ("finished", "stopped") and
            self.compaction(group), "the end of the compaction")

    def test_gives_zones_back(self):
        self.scatter("v", "g", 128 * MIB)
        self.scatter("w", "h", 16 * MIB)
        before = self.pool()
        self.assertEqual(self.compaction()["state"], "never")
        self.assertIn("began on node node-a", self.a.tandem("pool", "compact", "g").stdout)
        with self.a.nbd("v") as disk:  # meanwhile
            for at in range(0, 128 * MIB, 8 * STEP):
                self.write(disk, "v", at)
            disk.flush()
        end = self.finished()
        self.assertEqual(end["state"], "finished", end)
        self.assertGreaterEqual(end["zones_emptied"], 10, end)
        self.assertGreater(end["moved_bytes"], 0)
        self.assertLess(end["moved_bytes"], end["zones_emptied"] * ZONE // 2)
        after = self.pool()
        self.assertGreaterEqual(after["zones_free"], before["zones_free"] + 8)
        self.assertEqual(after["space"]["sum"], after["size_bytes"])
        self.assertIn("Compaction of group g: finished", self.a.tandem("pool", "show").stdout)
        # What was written meanwhile may have left something to gain; not for ever.
        for _ in range(5):
            again = self.a.tandem("pool", "compact", "g", check=False)
            if again.returncode != 0:
                break
            self.finished()
        self.assertEqual(again.returncode, 4, again.stderr)
        self.assertIn("nothing to gain", again.stderr)
        none = self.a.tandem("pool", "compact", "g", "--stop", check=False)
        self.assertEqual(none.returncode, 5, none.stderr)
        # The zones are the other group's now.
        self.a.tandem("volume", "create", "x", "--size", "100MiB", "--group", "h")
        self.content["x"] = {}
        with self.a.nbd("x") as disk:
            for at in range(0, 100 * MIB, PIECE):
                self.write(disk, "x", at)
            disk.flush()
        self.assert_content()
        self.a.stop()
        self.assert_sound(self.a)
        self.a.start()
        self.assert_content()

    def test_survives_a_kill_in_the_middle(self):
        self.scatter("v", "g", 128 * MIB)
        for _ in range(3):
            self.a.tandem("pool", "compact", "g", check=False)
            harness.wait_until(lambda: self.compaction()["moved_bytes"] > 0 or
                               self.compaction()["state"] != "running", "some of it to be moved")
            self.a.kill()
            self.assert_sound(self.a)
            self.a.start()
            harness.wait_until(lambda: self.a.serves("v"), "the volume")
            self.assert_content()
        # What the kills came too late for may have left nothing to do: then it says so.
        last = self.a.tandem("pool", "compact", "g", check=False)
        if last.returncode == 0:
            self.finished()
        else:
            self.assertIn("nothing to gain", last.stderr)
        self.assert_content()
        self.a.stop()
        self.assert_sound(self.a)


if __name__ == "__main__":
    harness.main()
