"""Changed blocks of real nodes, read by other programs: nbdinfo, libnbd and QEMU's tools list what
changed since a snapshot on both nodes, and an increment that nbdcopy applies makes the older image the
newer one.
"""

import errno
import json

import harness
from harness import MIB, nbd


@harness.needs_nbd
class Changes(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.start_pair()
        # Of three map levels.
        self.replicated_volume(self.a, self.b, size="300MiB", group="g")
        self.wait_in_sync(self.a, "g")

    def snapshot(self, name):
        self.a.tandem("snapshot", "create", "g", name)
        for node in (self.a, self.b):
            harness.wait_until(lambda: name in [s["name"] for s in node.group("g")["snapshots"]],
                               f"{name} on {node.name}")

    def write_history(self):
        """s1, changes, s2, more changes. Returns what differs from s1 in s2."""
        with self.a.nbd("v") as disk:
            disk.pwrite(b"a" * 4 * MIB, 0)
            disk.pwrite(b"a" * MIB, 290 * MIB)
        self.snapshot("s1")
        with self.a.nbd("v") as disk:
            disk.pwrite(b"b" * 8192, MIB)           # changed
            disk.trim(MIB, 2 * MIB)                 # gone
            disk.pwrite(b"b" * MIB, 100 * MIB)      # new
            disk.pwrite(b"b" * MIB, 200 * MIB)      # came and went
            disk.trim(MIB, 200 * MIB)
            disk.pwrite(b"a" * 512, 290 * MIB)      # the same bytes again
        self.snapshot("s2")
        with self.a.nbd("v") as disk:
            disk.pwrite(b"c" * 4096, 5 * MIB)
        return [(MIB, 8192), (2 * MIB, MIB), (100 * MIB, MIB), (290 * MIB, 4096)]

    def map_of(self, uri, context):
        """[(offset, length, flags)] of nbdinfo --map."""
        told = harness.run("nbdinfo", "--json", f"--map={context}", uri).stdout
        return [(e["offset"], e["length"], e["type"]) for e in json.loads(told)]

    @harness.needs_program("nbdinfo")
    def test_nbdinfo_shows_them_on_both_nodes(self):
        wanted = self.write_history()
        for node in (self.a, self.b):
            told = json.loads(harness.run("nbdinfo", "--json", node.uri("v@s2")).stdout)
            self.assertEqual(told["exports"][0]["contexts"],
                             ["base:allocation", "tandem:changed:s1", "qemu:dirty-bitmap:s1"])
            for context in ("tandem:changed:s1", "qemu:dirty-bitmap:s1"):
                extents = self.map_of(node.uri("v@s2"), context)
                self.assertEqual([(at, length) for at, length, flags in extents if flags == 1],
                                 wanted)
                self.assertEqual({flags for _, _, flags in extents}, {0, 1})
                self.assertEqual(sum(length for _, length, _ in extents), 300 * MIB)
        # To the present; and from one point to itself, which nobody lists.
        present = [(at, length) for at, length, flags in
                   self.map_of(self.a.uri("v"), "tandem:changed:s1") if flags]
        self.assertEqual(present, sorted(wanted + [(5 * MIB, 4096)]))
        self.assertEqual(self.map_of(self.a.uri("v@s2"), "tandem:changed:s2"),
                         [(0, 300 * MIB, 0)])

    def changes_of(self, disk, context, size):
        found = []

        def note(name, offset, extents, _error):
            if name == context:
                for i in range(0, len(extents), 2):
                    found.append((offset, extents[i], extents[i + 1]))
                    offset += extents[i]
        at = 0
        while at < size:
            disk.block_status(size - at, at, note)
            at = found[-1][0] + found[-1][1]
        return [(offset, length) for offset, length, flags in found if flags]

    def test_several_contexts_and_a_snapshot_that_goes(self):
        wanted = self.write_history()
        disk = nbd.NBD()
        for context in ("base:allocation", "tandem:changed:s1", "tandem:changed:s2",
                        "tandem:changed:no"):
            disk.add_meta_context(context)
        disk.connect_uri(self.a.uri("v@s2"))
        self.assertTrue(disk.can_meta_context("base:allocation"))
        self.assertTrue(disk.can_meta_context("tandem:changed:s1"))
        self.assertFalse(disk.can_meta_context("tandem:changed:no"))
        size = disk.get_size()
        self.assertEqual(self.changes_of(disk, "tandem:changed:s1", size), wanted)
        self.assertEqual(self.changes_of(disk, "tandem:changed:s2", size), [])
        self.a.tandem("snapshot", "delete", "g", "s1", "--yes")
        with self.assertRaises(nbd.Error) as gone:
            disk.block_status(MIB, 0, lambda *_: 0)
        self.assertEqual(gone.exception.errnum, errno.EIO)
        self.assertEqual(bytes(disk.pread(4096, MIB)), b"b" * 4096)  # the connection lives
        disk.shutdown()
        # The mirror still has it.
        self.assertEqual([(at, length) for at, length, flags in
                          self.map_of(self.b.uri("v@s2"), "tandem:changed:s1") if flags], wanted)

    @harness.needs_program("qemu-img")
    def test_qemu_reads_it_as_a_dirty_bitmap(self):
        wanted = self.write_history()
        for node in (self.a, self.b):
            options = (f"driver=nbd,server.type=unix,server.path={node.socket},export=v@s2,"
                       "x-dirty-bitmap=qemu:dirty-bitmap:s1")
            told = harness.run("qemu-img", "map", "--output=json", "--image-opts", options).stdout
            # QEMU shows what is dirty as "not data".
            dirty = [(e["start"], e["length"]) for e in json.loads(told) if not e["data"]]
            self.assertEqual(dirty, wanted)

    @harness.needs_program("nbdcopy", "nbdkit")
    def test_an_increment_with_nbdcopy(self):
        """The lines of the README, as they stand there."""
        text = (harness.REPOSITORY / "README.md").read_text()
        begin = text.index("    nbdinfo --map=tandem:changed:")
        script = text[begin:text.index("    done\n", begin) + len("    done\n")]
        self.write_history()
        image = self.directory / "vm1.img"
        harness.run("nbdcopy", self.b.uri("v@s1"), image)
        self.assertEqual(image.read_bytes(), self.b.read_all("v@s1"))
        variables = f"old=s1 new='{self.b.uri('v@s2')}'\n"
        harness.run("bash", "-euc", variables + script, cwd=self.directory)
        self.assertEqual(image.read_bytes(), self.b.read_all("v@s2"))
        self.assertNotEqual(image.read_bytes(), self.b.read_all("v@s1"))


if __name__ == "__main__":
    harness.main()
