"""A pair over a network that is slow or flaps, and what is sent over it when a node comes back.

Slow costs time and nothing else; a link that comes and goes costs no write and no full copy; a former
primary is sent what differs, and `tandem diff` lists exactly that.
"""

import time

import harness
from harness import MIB
from load_support import needs_fio
from network_support import LoadedPair, needs_network


@needs_network
@harness.needs_nbd
@needs_fio
class Slow(LoadedPair):
    timeout = "2s"  # so that what is late only is not taken for lost
    fio_megabytes = 6

    def test_delay_and_jitter_cost_time_only(self):
        self.start()
        self.link.delay(0.1, jitter=0.05)
        before = self.a.log(10**6).count("event=slot.degraded")
        with self.a.nbd("ledger") as disk:
            begun = time.monotonic()
            disk.pwrite(b"s" * 4096, 0)
            self.assertGreater(time.monotonic() - begun, 0.1, "there and back")
        self.begin_load(fio_seconds=4)
        self.assertEqual(self.fio.end(), 0)
        self.assertEqual(self.policy()["state"], "normal")
        self.assertTrue(self.a.slot("g")["in_sync"])
        self.assertEqual(self.a.log(10**6).count("event=slot.degraded"), before)
        # Over the slow link, too: connecting again, catching up, and coming back.
        self.link.cut()
        self.wait_policy("degraded")
        self.link.heal()
        self.wait_in_sync(self.a, "g")
        self.take_over()
        self.rejoin()
        self.finish()

    def test_a_link_that_flaps(self):
        chance = harness.chance("flapping")
        self.start()
        self.begin_load(fio_seconds=12)
        log = self.a.log(10**6)
        degraded, gated = (log.count(f"event=slot.{what}") for what in ("degraded", "gated"))
        for flap in range(6):
            how = chance.choice([lambda: self.link.plug(False), self.link.cut,
                                 lambda: self.link.cut(chance.randrange(2))])
            how()
            # Every other one is longer than it takes to notice, the others go by unnoticed or not.
            if flap % 2:
                self.wait_policy("degraded")
            else:
                time.sleep(chance.uniform(0.1, 1.5))
            self.link.plug(True)
            self.link.heal()
            if flap % 3 == 2:
                self.wait_in_sync(self.a, "g")
            else:
                time.sleep(chance.uniform(0.05, 0.5))
        self.wait_in_sync(self.a, "g")
        log = self.a.log(10**6)
        self.assertGreaterEqual(log.count("event=slot.degraded"), degraded + 2)
        self.assertGreaterEqual(log.count("event=slot.gated"), gated + 2)
        self.ledger.wait_for(100)
        self.take_over()
        self.rejoin()
        self.finish()


@needs_network
@harness.needs_nbd
@needs_fio
class Difference(LoadedPair):
    BLOCK = 4096

    def write(self, node, random, blocks):
        with node.nbd("fio") as disk:
            for block in blocks:
                disk.pwrite(random.randbytes(self.BLOCK), block * self.BLOCK)

    def test_a_rejoin_moves_only_the_difference_and_diff_lists_it(self):
        """The primary's last records never arrived; the mirror was promoted, and went on."""
        random = harness.chance("blocks")
        self.start()
        total = 24 * MIB // self.BLOCK
        with self.a.nbd("fio") as disk:
            for at in range(0, total * self.BLOCK, MIB):
                disk.pwrite(random.randbytes(MIB), at)
        self.wait_in_sync(self.a, "g")
        self.link.cut()
        self.wait_policy("degraded")
        tail = random.sample(range(total), 700)
        self.write(self.a, random, tail)
        self.a.kill()
        self.link.heal()
        self.promote(self.b, "g")
        later = random.sample(range(total), 500)
        self.write(self.b, random, later)
        before = sum(self.link.bytes)
        self.rejoin()
        moved = sum(self.link.bytes) - before
        # Nothing of the tail, and all of what node-b wrote; the rest is TLS and questions.
        sent = len(later) * self.BLOCK
        self.assertGreater(moved, sent)
        self.assertLess(moved, 1.25 * sent + MIB // 2, f"{sent} bytes were to be sent")
        self.b.tandem("snapshot", "create", "g", "after")
        branch = "tail-of-timeline-1"
        harness.wait_until(lambda: {branch, "after"} <= {s["name"] for s in
                                                         self.a.group("g")["snapshots"]},
                           "node-a to have both states")
        old, new = (memoryview(self.a.read_all(f"fio@{name}")) for name in (branch, "after"))
        differs = [at // self.BLOCK for at in range(0, len(new), self.BLOCK)
                   if old[at:at + self.BLOCK] != new[at:at + self.BLOCK]]
        self.assertEqual(differs, sorted({*tail, *later}), "else this test shows nothing")
        told = self.a.tandem("diff", "fio@after", "--from", branch, json_output=True)
        listed = [block for run in told["extents"]
                  for block in range(run["offset"] // self.BLOCK,
                                     (run["offset"] + run["length"]) // self.BLOCK)]
        self.assertEqual(listed, differs)
        self.assertEqual(told["changed_bytes"], len(differs) * self.BLOCK)
        self.finish()


if __name__ == "__main__":
    harness.main()
