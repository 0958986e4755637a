"""tandem mirror seed: a mirror that is made from a backup which was carried there. The first synchronisation
then sends what changed since, counted on the wire, and the mirror is as good as any other.
"""

import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import time

import harness
from damage_support import BLOCK
from harness import MIB
from wire_support import Counter

SIZE = 48 * MIB
SINCE = 3 * MIB     # changes after the backup
ZONE = 4 * MIB     # of the pools: see harness.py
ELSE = 1 * MIB      # TLS, HTTP/2 and heartbeats
FAILED, REFUSED = 1, 4


@harness.needs_nbd
class Seed(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.start_pair()
        self.random = harness.chance("seed")
        self.backup = self.directory / "backup"
        self.a.tandem("volume", "create", "v", "--size", str(SIZE), "--group", "g")
        self.a.tandem("volume", "create", "w", "--size", "8MiB", "--group", "g")
        self.expected = {"v": bytearray(SIZE), "w": bytearray(8 * MIB)}
        self.write("v", 0, 40 * MIB)
        self.write("w", 512, MIB)

    def write(self, volume, at, length):
        data = self.random.randbytes(length)
        self.expected[volume][at:at + length] = data
        with self.a.nbd(volume) as disk:
            for begin in range(0, length, MIB):
                piece = data[begin:begin + MIB]
                disk.pwrite(piece, at + begin)
            disk.flush()

    def create(self, *arguments):
        return self.a.tandem("backup", "create", "g", self.backup, *arguments, json_output=True)

    def give_up_log(self):
        """So much of it that its first zones go: a page of the log for each small write. Their digests go
        with them; with a checkpoint at the end nothing in front is needed any more.
        """
        with self.a.nbd("w") as disk:
            for i in range(2 * ZONE // BLOCK + 100):
                disk.pwrite(bytes([i % 255 + 1]) * BLOCK, 6 * MIB)
            disk.flush()
        self.expected["w"][6 * MIB:6 * MIB + BLOCK] = bytes([i % 255 + 1]) * BLOCK
        end = self.a.group("g")["head"]["lsn"]
        self.a.restart()
        harness.wait_until(lambda: self.a.serves("v"), "the primary to serve")
        self.assertGreaterEqual(self.a.group("g")["log_start"], end)

    def seed_command(self, *arguments):
        """With the certificate of the mirror's node, which replication demands."""
        own = self.b.certificates / self.b.name
        return [str(word) for word in
                (harness.BIN / "tandem", "--node", self.b.service, "--ca",
                 self.b.certificates / "ca.crt", "--certificate", f"{own}.crt", "--key",
                 f"{own}.key", "mirror", "seed", self.backup, *arguments)]

    def seed(self, *arguments):
        return json.loads(harness.run(*self.seed_command("--json", *arguments)).stdout)

    def refused(self, code, words):
        result = harness.run(*self.seed_command(), check=False)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        self.assertIn(words, result.stderr)

    def synchronise(self):
        """Returns how many bytes went over the link."""
        counter = Counter(self.b.service)
        self.addCleanup(counter.close)
        self.a.tandem("mirror", "add", "g", counter.address, "--mode", "sync")
        self.wait_in_sync(self.a, "g")
        return counter.sent

    def assert_same(self):
        told = self.a.tandem("--node", self.b.service, "verify", "g")
        self.assertEqual(told.returncode, 0, told.stdout)

    def scrub(self, node):
        node.tandem("scrub", "start", "g")
        harness.wait_until(lambda: node.tandem("scrub", "status", "g", json_output=True)
                           ["scrubs"][0]["state"] == "finished", f"the scrub on {node.name}")

    def assert_content(self, node):
        for volume, expected in self.expected.items():
            self.assertEqual(node.read_all(volume), bytes(expected), f"{volume} on {node.name}")

    def test_only_what_changed_crosses_the_link(self):
        self.assertTrue(self.create()["can_seed"])
        self.write("v", 10 * MIB, SINCE)
        with self.a.nbd("v") as disk:
            disk.trim(MIB, 20 * MIB)
        self.expected["v"][20 * MIB:21 * MIB] = bytes(MIB)
        self.create()                               # an increment: a seed builds on both
        self.write("v", 30 * MIB, SINCE)
        self.write("w", 4 * MIB, BLOCK)
        with self.a.nbd("v") as disk:
            disk.trim(MIB, 35 * MIB)
            disk.flush()
        self.expected["v"][35 * MIB:36 * MIB] = bytes(MIB)
        self.give_up_log()
        done = self.seed()
        self.assertGreaterEqual(done["data_bytes"], 39 * MIB)
        copy = self.b.group("g")
        self.assertEqual((copy["role"], copy["head"]["lsn"]), ("mirror", done["lsn"]))
        sent = self.synchronise()
        self.assertGreater(sent, SINCE, "what changed")
        self.assertLess(sent, SINCE + ELSE)
        self.assertNotIn("copying the whole group", self.a.log(10000))
        self.assert_same()
        # What follows is followed, and everything acknowledged is there after a failover.
        self.write("v", 0, MIB)
        self.a.kill()
        self.promote(self.b, "g")
        self.assert_content(self.b)
        # The former primary follows.
        self.a.start()
        self.b.tandem("mirror", "add", "g", self.a.service)
        self.wait_in_sync(self.b, "g")
        self.assertNotIn("copying the whole group", self.b.log(10000))
        self.assert_same()
        self.scrub(self.b)
        self.assertEqual(self.b.group("g")["damage"]["unrepairable_blocks"], 0)
        self.assertEqual((self.a.stop(), self.b.stop()), (0, 0))
        self.assert_sound(self.a, self.b)

    def test_the_log_is_shipped_when_it_reaches_back(self):
        self.create()
        self.write("v", 10 * MIB, SINCE)
        self.seed()
        # Where the primary is now it was not told by a backup.
        self.assertFalse(self.b.tandem("receipt", "g", json_output=True)["head_known"])
        self.assertLess(self.synchronise(), SINCE + ELSE)
        self.assertNotIn("state=image", self.a.log(10000))
        self.assert_same()

    def test_a_full_copy_without_snapshot_and_log(self):
        point = self.create()
        self.seed()
        self.write("v", 10 * MIB, SINCE)
        self.a.tandem("snapshot", "delete", "g", point["snapshot"]["name"], "--yes")
        self.give_up_log()
        self.assertGreater(self.synchronise(), 40 * MIB)
        self.assertIn("copying the whole group", self.a.log(10000))
        self.assert_same()

    def test_damage_is_repaired_in_both_directions(self):
        """The same block has other positions in the maps of the two."""
        self.create()
        self.seed()
        self.synchronise()
        harness.wait_until(lambda: self.a.slot("g")["agreement"]["through"] > 0,
                           "the digests to be compared")
        for node, places in ((self.a, (MIB, 7 * MIB)), (self.b, (2 * MIB, 9 * MIB))):
            for at in places:
                self.rot(node, bytes(self.expected["v"][at:at + BLOCK]))
        for node in (self.a, self.b):
            self.scrub(node)
            harness.wait_until(lambda n=node: n.group("g")["damage"]["repaired_blocks"] == 2,
                               f"two repaired blocks on {node.name}")
        self.assert_same()
        self.assert_content(self.a)

    def rot(self, node, block):
        pool = pathlib.Path(node.pool).read_bytes()
        at = pool.index(block)
        harness.corrupt(node.pool, at, BLOCK)

    def test_killed_anywhere_it_is_begun_anew(self):
        self.create()
        for wait in (0.02, 0.1, 0.2, 0.3, 0.5):
            seeding = subprocess.Popen(self.seed_command(), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL,
                                       preexec_fn=harness.die_with_parent)
            time.sleep(wait)
            seeding.send_signal(signal.SIGKILL)
            seeding.wait()
            copy = self.b.group("g")
            if copy is not None and copy["head"]["lsn"] != 0:
                break                               # it was through already: whole
        else:
            self.seed()
        self.synchronise()
        self.assert_same()

    def test_what_cannot_be_a_seed(self):
        point = self.create()
        directory = pathlib.Path(point["path"])
        data = directory / "volume-1.data"
        # An operator's certificate carries no data into a node.
        told = self.b.tandem("mirror", "seed", self.backup, check=False)
        self.assertEqual(told.returncode, REFUSED, told.stderr)
        self.assertIn("replication needs a node's", told.stderr)
        self.assertIsNone(self.b.group("g"))
        # A byte that is wrong, near the end: nothing is installed.
        harness.corrupt(data, data.stat().st_size - 100)
        self.refused(FAILED, "nothing was installed")
        self.assertEqual(self.b.group("g")["head"]["lsn"], 0)
        told = self.b.tandem("promote", "g", "--yes", check=False)
        self.assertNotEqual(told.returncode, 0)
        harness.corrupt(data, data.stat().st_size - 100)
        # A manifest of version 1: a backup as ever, but no seed.
        kept = {name: (directory / name).read_bytes() for name in ("manifest.json", "SHA256SUMS")}
        older = json.loads(kept["manifest.json"])
        older["version"] = 1
        del older["seed"]
        text = (json.dumps(older, indent=2) + "\n").encode()
        sums = kept["SHA256SUMS"].decode().splitlines(keepends=True)
        sums[0] = f"{hashlib.sha256(text).hexdigest()}  manifest.json\n"
        (directory / "manifest.json").write_bytes(text)
        (directory / "SHA256SUMS").write_text("".join(sums))
        self.refused(FAILED, "can be restored all the same")
        self.a.tandem("backup", "verify", self.backup)
        for name, content in kept.items():
            (directory / name).write_bytes(content)
        self.seed()
        # Now there is a copy.
        self.refused(FAILED, "has a copy of group g already")
        # Some volumes are no group.
        shutil.rmtree(self.backup)
        self.create("--volume", "v")
        self.refused(FAILED, "it lacks volume w")

    def test_another_group_of_that_name(self):
        self.create()
        self.b.tandem("volume", "create", "other", "--size", "1MiB", "--group", "g")
        self.refused(FAILED, "another group of the name g")


if __name__ == "__main__":
    harness.main()
