"""What clients stored survives the primary's SIGKILL in mode sync.

fio's blocks carry their own checksums, the ledger's their own numbers, a filesystem has fsck. Each
is on a volume of one group, so that all of them must be there at one and the same point of the log.
"""

import subprocess

import harness
from harness import MIB
from load_support import Fio, needs_fio


@harness.needs_nbd
class Data(harness.ClusterTest):
    def start_with(self, *volumes):
        a, b = self.start_pair()
        for name in volumes:
            a.tandem("volume", "create", name, "--size", "32MiB", "--group", "g")
        a.tandem("mirror", "add", "g", b.service, "--mode", "sync")
        self.wait_in_sync(a, "g")
        return a, b

    @needs_fio
    def test_fio_verifies_on_the_other_node(self):
        a, b = self.start_with("fio", "ledger", "loaded")
        ledger = harness.Ledger(self.directory)
        ledger.begin(a, "ledger")
        fio = Fio(self.directory, "fio")
        fio.write(a)
        # More of the same on another volume, so that the primary dies with its hands full.
        load = Fio(self.directory, "loaded").begin(a, "--time_based", "--runtime=60")
        ledger.wait_for(500)
        self.assertTrue(load.is_running(), "the load was to go on until the primary died")
        a.kill()
        self.assertIn("server was gone", ledger.end())
        self.assertNotEqual(load.end(), 0)
        self.promote(b, "g")
        self.assertIn(" 0 wrong", ledger.check(b, "ledger"))
        fio.verify(b)
        # The judge can condemn: one block that fio did not write, and it says so.
        with b.nbd("fio") as disk:
            disk.pwrite(b"?" * 4096, 12 * MIB)
        with self.assertRaises(harness.CommandFailed):
            fio.verify(b)
        self.assertEqual(b.stop(), 0)
        self.assert_sound(a, b)

    @harness.needs_program("nbdcopy", "mkfs.ext4", "e2fsck", "mkfs.xfs", "xfs_repair")
    def test_images_of_filesystems_survive(self):
        """Without root: filesystems with files in them, made in files and copied up and down."""
        a, b = self.start_pair()
        images = {"ext4": self.directory / "ext4", "xfs": self.directory / "xfs"}
        for image in images.values():
            with open(image, "wb") as file:
                file.truncate(300 * MIB)  # XFS takes no less
        source = harness.REPOSITORY / "src"
        harness.run("mkfs.ext4", "-q", "-F", "-d", source, images["ext4"])
        harness.run("mkfs.xfs", "-q", "-f", images["xfs"])
        for name in (*images, "ledger"):
            a.tandem("volume", "create", name, "--size", "300MiB", "--group", "g")
        a.tandem("mirror", "add", "g", b.service, "--mode", "sync")
        self.wait_in_sync(a, "g")
        for name, image in images.items():
            harness.run("nbdcopy", "--flush", "--destination-is-zero", image, a.uri(name))
        ledger = harness.Ledger(self.directory)
        ledger.begin(a, "ledger")
        ledger.wait_for(500)
        a.kill()
        ledger.end()
        self.promote(b, "g")
        self.assertIn(" 0 wrong", ledger.check(b, "ledger"))
        for name, image in images.items():
            back = self.directory / f"{name}.back"
            harness.run("nbdcopy", b.uri(name), back)
            harness.run("cmp", image, back)
            harness.run(*(["e2fsck", "-fn"] if name == "ext4" else ["xfs_repair", "-n"]), back)


@harness.needs_nbd
@harness.needs_mounts
class Filesystems(harness.ClusterTest):
    """Mounted, and written to when the primary dies: the journal must make it whole again."""

    # A loop device whose server is dead can linger; XFS would take the new one for the same disk.
    options = {"ext4": (), "xfs": ("-o", "nouuid")}

    def survives(self, kind, *check):
        a, b = self.start_pair()
        self.replicated_volume(a, b, size="320MiB", mode="sync")
        self.wait_in_sync(a, "v")
        mount = self.mount(a, "v", mkfs=kind).__enter__()
        source = harness.REPOSITORY / "src"
        harness.run("cp", "-a", source, mount.path / "tree")
        harness.run("sync", "-f", mount.path)
        writer = subprocess.Popen(
            ["sh", "-c", 'i=0; while cp -a "$0" "$1/more$i" && sync -f "$1"; do i=$((i + 1)); done',
             source, mount.path], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, preexec_fn=harness.die_with_parent)
        harness.wait_until((mount.path / "more2").exists, "files to be written")
        self.assertIsNone(writer.poll())
        a.kill()
        writer.wait(harness.PATIENCE)
        mount.abandon()
        self.promote(b, "v")
        with self.mount(b, "v", options=self.options[kind]) as again:
            # Everything that a sync covered; what was being written then may be there in part.
            for tree in ("tree", "more0", "more1"):
                harness.run("diff", "-r", source, again.path / tree)
            harness.run("umount", again.path)
            harness.run(*check, again.loop)
            harness.run("mount", *self.options[kind], again.loop, again.path)

    @harness.needs_program("mkfs.ext4", "e2fsck")
    def test_ext4(self):
        self.survives("ext4", "e2fsck", "-fn")

    @harness.needs_program("mkfs.xfs", "xfs_repair")
    def test_xfs(self):
        self.survives("xfs", "xfs_repair", "-n")


if __name__ == "__main__":
    harness.main()
