"""Damage in a pool of a running pair: a block that rots on one node is read right, from the other
node, and is whole on the disk again; rotten on both it is an I/O error for that block alone.
"""

import errno
import json

import harness
from damage_support import BLOCK, COUNT, DamageTest, content, rot
from harness import MIB, nbd

@harness.needs_nbd
class Repair(DamageTest):
    def snapshot(self, name):
        self.a.tandem("snapshot", "create", "g", name)
        harness.wait_until(
            lambda: name in [s["name"] for s in self.b.group("g")["snapshots"]],
            f"the snapshot {name} on node-b")

    def damage(self, node):
        return node.group("g")["damage"]

    def wait_repaired(self, node, count):
        harness.wait_until(lambda: self.damage(node)["repaired_blocks"] >= count,
                           f"{count} repaired blocks on {node.name}")

    def assert_content(self, node, export, generation=0):
        data = node.read_all(export, piece=MIB)
        for block in range(COUNT):
            self.assertEqual(data[block * BLOCK:(block + 1) * BLOCK], content(block, generation),
                             f"block {block} of {export} on {node.name}")

    def assert_whole(self, node, where, generation=0):
        with open(node.pool, "rb") as pool:
            for block, at in where.items():
                pool.seek(at)
                self.assertEqual(pool.read(BLOCK), content(block, generation), f"block {block}")

    def read_block(self, node, export, block):
        with node.nbd(export) as disk:
            return bytes(disk.pread(BLOCK, block * BLOCK))

    def assert_io_error(self, node, export, block):
        with self.assertRaises(nbd.Error) as caught:
            self.read_block(node, export, block)
        self.assertEqual(caught.exception.errnum, errno.EIO)

    def test_on_the_primary(self):
        rotten = (0, 1, 2, 70, 300, COUNT - 1)
        where = rot(self.a, rotten)
        self.assert_content(self.a, "v")
        self.wait_repaired(self.a, len(rotten))
        damage = self.damage(self.a)
        self.assertEqual((damage["fetched_blocks"], damage["repaired_blocks"],
                          damage["unrepairable_blocks"]), (len(rotten), len(rotten), 0))
        self.assertEqual(damage["last_volume"], "v")
        self.assertEqual(self.damage(self.b)["fetched_blocks"], 0)
        self.assertIn("event=block.repaired", self.a.log(200))
        self.assertIn("of them repaired", self.a.tandem("group", "show", "g").stdout)
        self.assertEqual((self.a.stop(), self.b.stop()), (0, 0))
        self.assert_whole(self.a, where)
        self.assert_sound(self.a, self.b)

    def test_on_the_mirror_and_in_snapshots(self):
        self.snapshot("s")
        rotten = (5, 130, 131, 400)
        where = rot(self.b, rotten)
        self.assert_content(self.b, "v@s")
        self.wait_repaired(self.b, len(rotten))
        # Overwritten since: both keep the old blocks for their snapshots only.
        self.fill(1)
        again = rot(self.b, (5, 6, 7))
        on_primary = rot(self.a, (9, 10))
        self.assert_content(self.b, "v@s")
        self.assert_content(self.a, "v@s")
        self.assert_content(self.a, "v", 1)
        self.wait_repaired(self.b, len(rotten) + 3)
        self.wait_repaired(self.a, 2)
        self.assertEqual((self.a.stop(), self.b.stop()), (0, 0))
        self.assert_whole(self.b, {**where, **again})
        self.assert_whole(self.a, on_primary)
        self.assert_sound(self.a, self.b)

    def test_a_part_of_a_rotten_block_can_be_written(self):
        rot(self.a, (33,))
        with self.a.nbd("v") as disk:
            disk.pwrite(b"x" * 512, 33 * BLOCK + 512)
            disk.flush()
        right = content(33)
        self.assertEqual(self.read_block(self.a, "v", 33), right[:512] + b"x" * 512 + right[1024:])
        self.assertEqual((self.a.stop(), self.b.stop()), (0, 0))
        self.assert_sound(self.a, self.b)

    def test_on_both(self):
        rot(self.a, (40,))
        rot(self.b, (40,))
        self.assert_io_error(self.a, "v", 40)
        self.assert_io_error(self.a, "v", 40)
        for block in (39, 41):
            self.assertEqual(self.read_block(self.a, "v", block), content(block))
        damage = self.damage(self.a)
        self.assertEqual((damage["unrepairable_blocks"], damage["last_byte"]), (1, 40 * BLOCK))
        status = self.a.tandem("status", check=False)
        self.assertIn("DAMAGED: the copy on node-a has 1 block", status.stdout)
        self.assertEqual(self.a.log(400).count("event=block.lost"), 1)
        with self.a.nbd("v") as disk:  # its owner makes it good
            disk.pwrite(content(40, 7), 40 * BLOCK)
            disk.flush()
        self.assertEqual(self.read_block(self.a, "v", 40), content(40, 7))

    def test_without_the_other_node(self):
        where = rot(self.a, (50,))
        self.b.kill()
        harness.wait_until(lambda: self.a.slot("g")["state"] != "following", "the loss to be noticed")
        self.assert_io_error(self.a, "v", 50)
        self.b.start()
        self.wait_in_sync(self.a, "g")
        self.assertEqual(self.read_block(self.a, "v", 50), content(50))
        self.wait_repaired(self.a, 1)
        self.assertEqual(self.damage(self.a)["unrepairable_blocks"], 0)
        self.assertEqual((self.a.stop(), self.b.stop()), (0, 0))
        self.assert_whole(self.a, where)

    def test_a_map_node_is_not_to_be_had_from_the_peer(self):
        self.assertEqual(self.a.stop(), 0)
        looked = harness.inspect(self.a.pool, "block", "--group", "g", "--block", "0", "--json")
        path = json.loads(looked.stdout)["path"]
        harness.corrupt(self.a.pool, path[-1]["where"] * BLOCK + 100)
        self.a.start()
        harness.wait_until(lambda: self.a.serves("v"), "node-a to serve")
        self.assert_io_error(self.a, "v", 0)
        self.assertEqual(self.damage(self.a)["damaged_map_nodes"], 1)
        self.assertIn("damaged map node", self.a.tandem("status", check=False).stdout)


if __name__ == "__main__":
    harness.main()
