"""Where a pool may live: a block device, tmpfs, a filesystem that is full."""

import os
import unittest

import harness

needs_root = unittest.skipUnless(os.geteuid() == 0, "needs root")

# Fills a volume from a process of its own, so that a write that never ends cannot hang the test.
FILL = """
import errno, nbd, os, sys
disk = nbd.NBD()
disk.connect_uri(sys.argv[1])
written = 0
try:
    for at in range(0, disk.get_size(), 1 << 20):
        disk.pwrite(os.urandom(1 << 20), at)
        written += 1
    print("filled")
except nbd.Error as error:
    print(error.errno, written)
"""


@harness.needs_nbd
class Places(harness.ClusterTest):
    def node_on(self, path, **pool):
        return self.node(tls=False, config={"pool": {"path": str(path), **pool}})

    def use_and_restart(self, node):
        node.start()
        node.tandem("volume", "create", "v", "--size", "64MiB")
        with node.nbd("v") as disk:
            disk.pwrite(b"z" * harness.MIB, 0)
            disk.trim(harness.MIB // 2, 0)
            disk.flush()
        self.assertEqual(node.stop(), 0)
        node.start()
        with node.nbd("v") as disk:
            self.assertEqual(bytes(disk.pread(4096, 0)), bytes(4096))
            self.assertEqual(bytes(disk.pread(4096, harness.MIB - 4096)), b"z" * 4096)

    @needs_root
    def test_a_block_device(self):
        image = self.directory / "image"
        image.touch()
        os.truncate(image, 512 * harness.MIB)
        loop = harness.run("losetup", "--find", "--show", image).stdout.strip()
        self.addCleanup(harness.run, "losetup", "--detach", loop, check=False)
        node = self.node_on(loop)
        self.use_and_restart(node)
        pool = node.status()["pool"]
        self.assertEqual(pool["size_bytes"], 512 * harness.MIB)
        # It has a place for every block: no zone is written before it is used.
        self.assertEqual(pool["prepared_bytes"], pool["zones_free"] * pool["zone_bytes"])
        node.stop()
        # Somebody makes a filesystem on it: mounted or not, it is not touched.
        harness.run("mkfs.ext4", "-q", "-F", loop)
        place = self.directory / "mounted"
        place.mkdir()
        harness.run("mount", loop, place)
        try:
            node.spawn("--create-pool")
            self.assertEqual(node.wait_exit(), 3)
            self.assertIn("mounted", node.log(1))
        finally:
            harness.run("umount", place)
        node.spawn("--create-pool")
        self.assertEqual(node.wait_exit(), 3)
        self.assertIn("not empty", node.log(1))
        harness.run("e2fsck", "-fn", loop)

    def test_tmpfs(self):
        path = f"/dev/shm/{self.directory.name}"
        self.addCleanup(lambda: os.path.exists(path) and os.unlink(path))
        self.use_and_restart(self.node_on(path))

    def test_without_direct_io(self):
        self.use_and_restart(self.node_on("pool", direct=False))

    @needs_root
    def test_a_full_filesystem_below_is_an_error_to_the_write_and_nothing_else(self):
        place = self.directory / "small"
        place.mkdir()
        harness.run("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", place)
        self.addCleanup(harness.run, "umount", "--lazy", place, check=False)
        node = self.node_on(place / "pool").start()
        node.tandem("volume", "create", "v", "--size", "64MiB")
        with node.nbd("v") as disk:
            disk.pwrite(b"a" * 4096, 63 * harness.MIB)
            disk.flush()
        filled = harness.run("/usr/bin/python3", "-c", FILL, node.uri("v"))
        self.assertRegex(filled.stdout, r"^ENOSPC [1-9]")
        with node.nbd("v") as disk:
            self.assertEqual(bytes(disk.pread(4096, 63 * harness.MIB)), b"a" * 4096)
            disk.trim(16 * harness.MIB, 0)
            disk.pwrite(b"b" * 4096, 0)  # there is room again
        self.assertEqual(node.group("v")["state"], "serving")
        node.restart()
        with node.nbd("v") as disk:
            self.assertEqual(bytes(disk.pread(4096, 0)), b"b" * 4096)


if __name__ == "__main__":
    harness.main()
