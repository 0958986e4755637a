"""What the first synchronisation of a mirror sends, counted on the wire: for a thin volume neither the blocks
that were never written nor zeroes, whichever way it goes.
"""

import harness
from harness import MIB
from wire_support import Counter

TIB = 1 << 40
BLOCK = 4096
STRIDE = TIB // 70 // MIB * MIB
THIRD, FIFTH = TIB // 3 // MIB * MIB, TIB // 5 // MIB * MIB
# Of TLS, HTTP/2 and heartbeats, for as long as a test takes.
ELSE = 1 * MIB


@harness.needs_nbd
class FirstSync(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.start_pair()
        self.a.tandem("volume", "create", "v", "--size", "1TiB")
        self.random = harness.chance("first synchronisation")
        self.counter = Counter(self.b.service)
        self.addCleanup(self.counter.close)

    def write(self, disk, blocks):
        """Random bytes, each block alone in a part of the map that nothing else is in."""
        for i in range(blocks):
            disk.pwrite(self.random.randbytes(BLOCK), i * STRIDE)

    def synchronise(self):
        self.a.tandem("mirror", "add", "v", self.counter.address, "--mode", "sync")
        self.wait_in_sync(self.a, "v")
        return self.counter.sent

    def assert_same(self, *places):
        self.a.tandem("snapshot", "create", "v", "s")
        harness.wait_until(lambda: self.b.group("v")["snapshots"], "the snapshot on the mirror")
        with self.a.nbd("v@s") as here, self.b.nbd("v@s") as there:
            for at in places:
                self.assertEqual(bytes(here.pread(BLOCK, at)), bytes(there.pread(BLOCK, at)), at)
        told = self.a.tandem("verify", "v", "--snapshot", "s")
        self.assertEqual(told.returncode, 0)

    def test_an_image_has_neither_holes_nor_zeroes(self):
        zeroes = 256 * MIB
        with self.a.nbd("v") as disk:
            self.write(disk, 64)
            disk.zero(zeroes, THIRD, harness.nbd.CMD_FLAG_NO_HOLE)      # zeroes that have no place
            for at in range(0, 16 * MIB, MIB):                          # and some that have one
                disk.pwrite(bytes(MIB), FIFTH + at)
            disk.pwrite(self.random.randbytes(4 * MIB), TIB // 2)       # and what is discarded again
            disk.trim(4 * MIB, TIB // 2)
            disk.flush()
        self.a.restart()  # with a checkpoint: the beginning of the log is not needed any more
        harness.wait_until(lambda: self.a.serves("v"), "the primary to serve")
        sent = self.synchronise()
        self.assertIn("event=image.installed", self.b.log(10000))
        self.assertGreater(sent, 64 * BLOCK, "what was written")
        # Of each block its place, position and checksum.
        described = (zeroes + 16 * MIB) // BLOCK * 32
        self.assertLess(sent, 64 * BLOCK + described + (zeroes + 16 * MIB) // 128 + ELSE)
        self.assert_same(0, 7 * STRIDE, THIRD, THIRD + zeroes, FIFTH, TIB // 2)

    def test_nor_has_the_log(self):
        """As long as all of it is there it is what a new mirror gets."""
        with self.a.nbd("v") as disk:
            self.write(disk, 64)
            disk.zero(256 * MIB, THIRD, harness.nbd.CMD_FLAG_NO_HOLE)
            disk.zero(1024 * MIB, TIB // 4)
            disk.trim(2048 * MIB, TIB // 2)
            disk.flush()
        sent = self.synchronise()
        self.assertGreater(sent, 64 * BLOCK, "what was written")
        self.assertLess(sent, 64 * BLOCK + 2 * ELSE)
        self.assert_same(0, 7 * STRIDE, THIRD, TIB // 4, TIB // 2)


if __name__ == "__main__":
    harness.main()
