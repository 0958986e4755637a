"""What the tests of damaged blocks share: a pair with volume "v" of group "g" whose every block says which it
is, so that it is found in the pool files and can be flipped under the running daemons.
"""

import mmap

import harness

BLOCK = 4096
COUNT = 512


def content(block, generation=0):
    return f"block {block} of generation {generation}\n".ljust(64).encode() * (BLOCK // 64)


def places(node, blocks, generation=0):
    """Where these blocks lie in the node's pool file, by block."""
    found = {}
    with open(node.pool, "rb") as file, \
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pool:
        for block in blocks:
            at = pool.find(content(block, generation))
            assert at >= 0 and at % BLOCK == 0, f"block {block} is not in {node.pool}"
            found[block] = at
    return found


def rot(node, blocks, generation=0):
    where = places(node, blocks, generation)
    for at in where.values():
        harness.corrupt(node.pool, at + 100, 8)
    return where


class DamageTest(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.start_pair()
        self.replicated_volume(self.a, self.b, group="g")
        self.wait_in_sync(self.a, "g")
        self.fill(0)

    def fill(self, generation):
        with self.a.nbd("v") as disk:
            for at in range(0, COUNT, 64):
                disk.pwrite(b"".join(content(at + i, generation) for i in range(64)), at * BLOCK)
            disk.flush()
