"""Snapshots of real nodes: read over NBD as they were on both of them, files out of them, what each
node deletes for itself, and none is lost to SIGKILL or a failover.
"""

import errno
import json
import shlex

import harness
from harness import MIB, nbd

REFUSED, NOT_FOUND = 4, 5


@harness.needs_nbd
class Snapshots(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.start_pair()
        self.replicated_volume(self.a, self.b, size="32MiB", group="g")
        self.wait_in_sync(self.a, "g")

    def fill(self, letter):
        with self.a.nbd("v") as disk:
            for at in range(0, 8 * MIB, MIB):
                disk.pwrite(bytes([ord(letter)]) * MIB, at)
            disk.trim(MIB, 3 * MIB)
            disk.flush()
        return self.a.read_all("v")

    def create(self, *arguments):
        return self.a.tandem("snapshot", "create", "g", *arguments, json_output=True)

    def names(self, node):
        return [s["name"] for s in node.group("g")["snapshots"]]

    def wait_for(self, node, name):
        harness.wait_until(lambda: name in self.names(node), f"{name} on {node.name}")

    def exported(self, node, name):
        """The names that nbdinfo --list shows."""
        listed = harness.run("nbdinfo", "--list", "--json", node.uri("")).stdout
        return [e["export-name"] for e in json.loads(listed)["exports"]]

    def test_reads_as_it_was_on_both_nodes(self):
        old = self.fill("o")
        made = self.create("s1", "--label", "before")
        self.assertEqual(made["name"], "s1")
        new = self.fill("n")
        self.wait_for(self.b, "s1")
        self.assertNotEqual(old, new)
        self.assertEqual(self.a.read_all("v"), new)
        for node in (self.a, self.b):
            with self.subTest(node.name):
                self.assertEqual(node.read_all("v@s1"), old)
                with node.nbd("v@s1") as disk:
                    self.assertTrue(disk.is_read_only())
                    disk.set_strict_mode(0)  # ask all the same
                    with self.assertRaises(nbd.Error) as refused:
                        disk.pwrite(b"x" * 4096, 0)
                    self.assertEqual(refused.exception.errnum, errno.EPERM)
                    with self.assertRaises(nbd.Error):
                        disk.trim(4096, 0)
                    self.assertEqual(bytes(disk.pread(4096, 0)), b"o" * 4096)
        # One after the other, each of its own time.
        self.create("s2")
        self.fill("x")
        self.wait_for(self.b, "s2")
        for node in (self.a, self.b):
            self.assertEqual(node.read_all("v@s1"), old)
            self.assertEqual(node.read_all("v@s2"), new)

    @harness.needs_program("qemu-img", "nbdcopy", "nbdinfo")
    def test_other_programs_read_it(self):
        old = self.fill("o")
        name = self.create()["name"]  # the time in UTC, with colons
        self.assertRegex(name, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.fill("n")
        self.wait_for(self.b, name)
        image = self.directory / "old"
        image.write_bytes(old)
        for node in (self.a, self.b):
            export = f"v@{name}"
            harness.run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, node.uri(export))
            copy = self.directory / f"{node.name}.copy"
            harness.run("nbdcopy", node.uri(export), copy)
            self.assertEqual(copy.read_bytes(), old)
            self.assertIn(export, self.exported(node, name))
        self.assertEqual(self.exported(self.b, name), [f"v@{name}"])
        self.assertEqual(self.exported(self.a, name)[0], "v")

    @harness.needs_mounts
    @harness.needs_program("mkfs.ext4", "debugfs")
    def test_single_files_come_back(self):
        with self.mount(self.a, "v", mkfs="ext4") as mounted:
            (mounted.path / "letter").write_text("what was meant\n")
            harness.run("sync", "--file-system", mounted.path)
            self.create("s")
            (mounted.path / "letter").write_text("a mistake\n")
            (mounted.path / "later").write_text("x")
        self.wait_for(self.b, "s")
        for node in (self.a, self.b):
            with self.mount(node, "v@s", options=["-o", "ro,noload"]) as old:
                self.assertEqual((old.path / "letter").read_text(), "what was meant\n")
                self.assertFalse((old.path / "later").exists())
            # Without mounting.
            only = self.mount(node, "v@s").attach_file()
            told = harness.run("debugfs", "-c", "-R", "cat /letter", only).stdout
            self.assertEqual(told, "what was meant\n")
        with self.mount(self.a, "v") as new:
            self.assertEqual((new.path / "letter").read_text(), "a mistake\n")

    @harness.needs_mounts
    @harness.needs_program("mkfs.ext4", "nbdkit")
    def test_single_files_come_back_from_a_partition(self):
        """The line of the README, as it stands there."""
        with self.mount(self.a, "v", mkfs="ext4") as mounted:
            (mounted.path / "letter").write_text("what was meant\n")
        filesystem = self.a.read_all("v")
        # A disk with one partition, which begins at 1 MiB and has the file system.
        self.a.tandem("volume", "create", "d", "--size", "64MiB", "--group", "g")
        entry = bytes(4) + b"\x83" + bytes(3) + (2048).to_bytes(4, "little") + \
            (len(filesystem) // 512).to_bytes(4, "little")
        with self.a.nbd("d") as disk:
            disk.pwrite(bytes(446) + entry + bytes(48) + b"\x55\xaa", 0)
            for at in range(0, len(filesystem), 4 * MIB):
                disk.pwrite(filesystem[at:at + 4 * MIB], MIB + at)
        self.create("s")
        with self.a.nbd("d") as disk:
            disk.zero(64 * MIB, 0)
        text = (harness.REPOSITORY / "README.md").read_text()
        begin = text.index("    nbdfuse /tmp/old/root [")
        line = text[begin:text.index("] &", begin) + 1].replace("\\\n", " ").replace(
            "nbd+unix:///vm1@before-upgrade?socket=/run/tandem/nbd.sock", self.a.uri("d@s"))
        words = shlex.split(line)
        self.assertEqual(words[:2], ["nbdfuse", "/tmp/old/root"])
        old = self.mount(self.a, "d@s", options=["-o", "ro,noload"], source=words[2:])
        with old:
            self.assertEqual((old.path / "letter").read_text(), "what was meant\n")

    def test_deleting_under_a_reader_ends_its_reads_and_not_its_connection(self):
        old = self.fill("o")
        self.create("s")
        self.fill("n")
        self.wait_for(self.b, "s")
        with self.a.nbd("v@s") as disk:
            self.assertEqual(bytes(disk.pread(MIB, 0)), old[:MIB])
            self.a.tandem("snapshot", "delete", "g", "s", "--yes")
            for _ in range(10):
                with self.assertRaises(nbd.Error) as gone:
                    disk.pread(MIB, 0)
                self.assertEqual(gone.exception.errnum, errno.EIO)
                harness.time.sleep(0.1)
            self.assertTrue(disk.aio_is_ready(), "the connection is still good")
        self.assertEqual(self.names(self.a), [])
        self.assertFalse(self.a.serves("v@s"))
        self.assertEqual(self.b.read_all("v@s"), old)  # the mirror keeps its own
        harness.wait_until(lambda: self.a.group("g")["snapshot_bytes"] == 0, "the space")
        self.b.tandem("snapshot", "delete", "g", "s", "--yes")
        self.assertFalse(self.b.serves("v@s"))

    def test_the_operator_is_told(self):
        refused = self.a.tandem("volume", "create", "v@s", "--size", "1MiB", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("cannot be a volume's name", refused.stderr)
        refused = self.a.tandem("snapshot", "create", "g", "a@b", check=False)
        self.assertIn("cannot be a snapshot's name", refused.stderr)
        refused = self.b.tandem("snapshot", "create", "g", "s", check=False)
        self.assertEqual(refused.returncode, REFUSED)
        self.create("s", "--label", "for the test")
        self.wait_for(self.b, "s")
        listed = self.a.tandem("snapshot", "list", "g").stdout
        self.assertIn("node-a", listed)
        self.assertIn("node-b", listed)  # the mirror was asked, too
        self.assertIn("for the test", listed)
        shown = self.a.tandem("snapshot", "show", "g", "s", json_output=True)["snapshots"]
        self.assertEqual([s["node"] for s in shown], ["node-a", "node-b"])
        self.a.tandem("snapshot", "rename", "g", "s", "t", "--everywhere")
        self.assertEqual((self.names(self.a), self.names(self.b)), (["t"], ["t"]))
        self.a.tandem("snapshot", "delete", "g", "t", "--everywhere", "--yes")
        self.assertEqual((self.names(self.a), self.names(self.b)), ([], []))
        gone = self.a.tandem("snapshot", "delete", "g", "t", "--yes", check=False)
        self.assertEqual(gone.returncode, NOT_FOUND)

    def test_sigkill_keeps_them(self):
        contents = {}
        for letter in "pqr":
            contents[letter] = self.fill(letter)
            self.create(letter)
        self.fill("z")
        self.a.kill()
        self.b.kill()
        self.a.start()
        self.b.start()
        harness.wait_until(lambda: self.a.serves("v"), "the primary to serve")
        for node in (self.a, self.b):
            self.wait_for(node, "r")
            for name, content in contents.items():
                self.assertEqual(node.read_all(f"v@{name}"), content, f"{name} on {node.name}")
        self.a.tandem("snapshot", "delete", "g", "q", "--yes")
        self.a.kill()
        self.promote(self.b, "g")
        for name, content in contents.items():
            self.assertEqual(self.b.read_all(f"v@{name}"), content)
        self.assertEqual(self.b.stop(), 0)
        self.a.start()
        self.assertEqual(self.names(self.a), ["p", "r"])
        self.assertEqual(self.a.stop(), 0)
        self.assert_sound(self.a, self.b)


if __name__ == "__main__":
    harness.main()
