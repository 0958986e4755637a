"""A pool that a disk, an operator or another version damaged: the daemon refuses it, or answers an
I/O error for exactly what is lost, says what to do, and everything else goes on.

Each test flips bytes at a place that tandem-inspect names, in a pool with two groups: `v`, which is
damaged, and `w`, which must not notice.
"""

import errno
import json
import os

import harness
from harness import MIB, nbd

BLOCK = 4096
CANNOT_START = 3
TABLE = 514  # the first page of the zone table, as FORMAT.md has it


def flip(pool, block):
    harness.corrupt(pool, block * BLOCK + 100)


def u64(pool, block, offset):
    with open(pool, "rb") as file:
        file.seek(block * BLOCK + offset)
        return int.from_bytes(file.read(8), "little")


@harness.needs_nbd
class DamageTest(harness.ClusterTest):
    """One node with the groups v and w, each with a volume whose first MiB is its name."""

    def setUp(self):
        super().setUp()
        self.a = self.node("node-a", tls=False).start()
        for name in ("v", "w"):
            self.a.tandem("volume", "create", name, "--size", "64MiB")
            with self.a.nbd(name) as disk:
                disk.pwrite(name.encode() * MIB, 0)
                disk.flush()

    def look(self, command, *arguments):
        return json.loads(harness.inspect(self.a.pool, command, *arguments, "--json").stdout)

    def anchors(self):
        """The blocks of v's two anchors, the older first."""
        slot = next(g["slot"] for g in self.look("groups")["groups"] if g["name"] == "v")
        return sorted((2 + 2 * slot, 3 + 2 * slot), key=lambda at: u64(self.a.pool, at, 40))

    def tables(self):
        return sorted((TABLE, TABLE + 1), key=lambda at: u64(self.a.pool, at, 40))

    def content(self, name, at, length=512):
        with self.a.nbd(name) as disk:
            return bytes(disk.pread(length, at))

    def assert_serves(self, name):
        self.assertEqual(self.content(name, 0, MIB), name.encode() * MIB)
        with self.a.nbd(name) as disk:
            disk.pwrite(b"more" * 1024, 2 * MIB)
            disk.flush()
        self.assertEqual(self.content(name, 2 * MIB), b"more" * 128)

    def assert_io_error(self, name, at):
        with self.assertRaises(nbd.Error) as caught:
            self.content(name, at)
        self.assertEqual(caught.exception.errnum, errno.EIO)

    def assert_refused(self, *words):
        """The daemon does not start, and its last line has all these words."""
        before = self.fixed_places()
        self.a.spawn()
        self.assertEqual(self.a.wait_exit(), CANNOT_START)
        for word in (str(self.a.pool), *words):
            self.assertIn(word, self.a.log(1))
        self.assertEqual(self.fixed_places(), before, "a refused pool was changed")

    def fixed_places(self):
        with open(self.a.pool, "rb") as pool:
            return pool.read(600 * BLOCK)

    def assert_closed(self, *words):
        """Only group v is closed; the status says why and what to do."""
        self.a.start()
        closed = next(g for g in self.a.status()["groups"] if g["state"] == "stopped")
        for word in words:
            self.assertIn(word, closed["reason"])
        self.assertIn("tandem-inspect verify", closed["reason"])
        self.assertIn("event=group.broken", self.a.log())
        self.assertFalse(self.a.serves("v"))
        self.assertIn("NOT SERVED by any node", self.a.tandem("status").stdout)
        self.assert_serves("w")
        # Its space is not given away: what is left can still be examined.
        self.a.tandem("volume", "create", "x", "--size", "16MiB")
        with self.a.nbd("x") as disk:
            disk.pwrite(b"x" * 4096, 0)
        self.assertEqual(self.a.stop(), 0)
        self.assert_verify_finds("PROBLEM")

    def assert_verify_finds(self, *words):
        checked = harness.inspect(self.a.pool, "verify", check=False)
        self.assertEqual(checked.returncode, 1, checked.stdout)
        for word in words:
            self.assertIn(word, checked.stdout)


class FixedPlaces(DamageTest):
    def test_one_copy_of_anything_is_enough(self):
        self.a.stop()
        flip(self.a.pool, 0)
        flip(self.a.pool, self.anchors()[0])
        flip(self.a.pool, self.tables()[0])
        self.assert_verify_finds("superblock: block 0", "anchor", "zones")
        self.a.start()
        self.assert_serves("v")
        self.assert_serves("w")

    def test_the_newer_copies_torn(self):
        """As a power cut leaves them: what they say is lost, and the log has it."""
        self.a.stop()
        flip(self.a.pool, self.anchors()[1])
        flip(self.a.pool, self.tables()[1])
        self.a.start()
        self.assert_serves("v")
        self.assert_serves("w")

    def test_both_superblocks(self):
        self.a.stop()
        for copy in (0, 1):
            flip(self.a.pool, copy)
        self.assert_refused("superblock fails its checksum (both copies)")

    def test_both_pages_of_the_zone_table(self):
        self.a.stop()
        for page in self.tables():
            flip(self.a.pool, page)
        self.assert_refused("zone table", "both copies", "tandem-inspect verify")

    def test_both_anchors_close_only_their_group(self):
        self.a.stop()
        for anchor in self.anchors():
            flip(self.a.pool, anchor)
        self.assert_closed("anchor fails its checksum")

    def test_a_descriptor_closes_only_its_group(self):
        self.a.stop()
        flip(self.a.pool, next(g["descriptor"]["first_block"] for g in self.look("groups")["groups"]
                               if g["name"] == "v"))
        self.assert_closed("descriptor")


class Contents(DamageTest):
    def test_a_block_of_data(self):
        self.a.stop()
        runs = self.look("map", "--group", "v")["runs"]
        flip(self.a.pool, runs[0]["where"] + 3)
        self.a.start()
        self.assert_io_error("v", 3 * BLOCK)
        self.assertEqual(self.content("v", 2 * BLOCK), b"v" * 512)
        self.assertEqual(self.content("v", 4 * BLOCK), b"v" * 512)
        self.assert_serves("w")
        # Not a part of it may be written over what nobody can read; all of it may.
        with self.a.nbd("v") as disk:
            with self.assertRaises(nbd.Error):
                disk.pwrite(b"p" * 512, 3 * BLOCK)
            disk.pwrite(b"n" * BLOCK, 3 * BLOCK)
        self.assertEqual(self.content("v", 3 * BLOCK), b"n" * 512)
        self.assertEqual(self.a.stop(), 0)
        self.assert_sound(self.a)

    def test_a_node_of_the_map(self):
        self.a.stop()
        path = self.look("block", "--group", "v", "--block", "0")["path"]
        flip(self.a.pool, path[-1]["where"])
        self.a.start()
        self.assert_io_error("v", 0)
        self.assert_io_error("v", MIB - BLOCK)
        with self.a.nbd("v") as disk:  # another leaf
            disk.pwrite(b"l" * BLOCK, 32 * MIB)
        self.assertEqual(self.content("v", 32 * MIB), b"l" * 512)
        self.assert_serves("w")
        self.assertEqual(self.a.stop(), 0)
        self.assert_verify_finds("PROBLEM map", "cannot be read")

    def write_flushed(self, count):
        with self.a.nbd("v") as disk:
            for i in range(count):
                disk.pwrite(bytes([i + 1]) * BLOCK, 4 * MIB + i * BLOCK)
                disk.flush()
        self.a.kill()
        return [r for r in self.look("log", "--group", "v")["records"]
                if r["type"] == "write" and r["behind_checkpoint"]][-count:]

    def test_data_of_a_flushed_record(self):
        records = self.write_flushed(20)
        flip(self.a.pool, records[10]["places"][0]["block"])
        self.a.start()
        self.assert_io_error("v", 4 * MIB + 10 * BLOCK)
        for i in (9, 11, 19):
            self.assertEqual(self.content("v", 4 * MIB + i * BLOCK), bytes([i + 1]) * 512)
        self.assert_serves("w")

    def test_a_page_of_the_log_in_front_of_what_was_flushed(self):
        """Taken for the log's end it would take back, in silence, what was acknowledged as flushed."""
        records = self.write_flushed(20)
        flip(self.a.pool, records[10]["page"])
        self.assert_verify_finds("acknowledged writes are lost")
        self.assert_closed("log page", "were flushed and cannot be read")

    def test_the_mirror_gives_back_what_a_damaged_page_of_the_log_held(self):
        b = self.node("node-b", tls=False).start()
        self.a.tandem("mirror", "add", "v", b.service, "--mode", "sync")
        self.wait_in_sync(self.a, "v")
        records = self.write_flushed(20)
        flip(self.a.pool, records[10]["page"])
        self.a.start()
        self.assertIn("event=log.damaged", self.a.log())
        harness.wait_until(lambda: self.a.serves("v"), "node-a to serve")
        self.assertEqual(self.content("v", 4 * MIB + 19 * BLOCK), bytes([20]) * 512)
        self.assertEqual(self.content("v", 4 * MIB + 10 * BLOCK), bytes([11]) * 512)

    def test_the_last_page_of_the_log_was_torn(self):
        """Nothing behind it says that it was ever whole: a power cut leaves the same."""
        records = self.write_flushed(20)
        flip(self.a.pool, records[-1]["page"])
        self.a.start()
        self.assertEqual(self.content("v", 4 * MIB + 18 * BLOCK), bytes([19]) * 512)
        self.assertEqual(self.content("v", 4 * MIB + 19 * BLOCK), bytes(512))
        self.assert_serves("w")


class OtherFiles(DamageTest):
    def test_truncated(self):
        self.a.stop()
        os.truncate(self.a.pool, 300 * MIB)
        self.assert_refused("was truncated", "restore its size", str(300 * MIB), str(512 * MIB))

    def test_truncated_to_next_to_nothing(self):
        self.a.stop()
        os.truncate(self.a.pool, 5000)
        self.assert_refused("too small to be a pool", "truncated")

    def test_another_version(self):
        self.a.stop()
        for copy in (0, 1):
            with open(self.a.pool, "r+b") as file:
                file.seek(copy * BLOCK + 4)
                file.write((2).to_bytes(4, "little"))
        self.assert_refused("format version 2", "knows version 1", "upgrade this node")
        self.assertNotIn("create the pool anew", self.a.log(1))

    def test_not_a_pool(self):
        self.a.stop()
        self.a.pool.write_bytes(b"Once upon a time " * 100000)
        self.assert_refused("no Tandem superblock", "create the pool anew")

    def test_another_pool_does_not_pass_for_this_one(self):
        """Anchors and table of another pool under this one's superblock: nothing is believed."""
        other = self.node("node-b", tls=False).start()
        other.tandem("volume", "create", "foreign", "--size", "16MiB")
        self.a.stop()
        other.stop()
        with open(other.pool, "rb") as file:
            foreign = file.read(600 * BLOCK)[2 * BLOCK:]
        with open(self.a.pool, "r+b") as file:
            file.seek(2 * BLOCK)
            file.write(foreign)
        self.assert_refused("zone table of another pool")


if __name__ == "__main__":
    harness.main()
