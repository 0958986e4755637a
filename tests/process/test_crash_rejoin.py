"""SIGKILL of either node at each step of a promotion beside a living primary, and of the rejoin of that
one: what was acknowledged before it was cut off is on the promoted node, what it acknowledged alone is on
its branch, and the copies become equal without a full copy.
"""

import harness
from load_support import needs_fio
from network_support import needs_network
from steps_support import DELAY, Steps


@needs_network
@harness.needs_nbd
@needs_fio
class PromotionAndRejoin(Steps):
    timeout = "2s"
    fio_megabytes = 8  # more than a mirror that follows may lack

    def part(self):
        """The primary goes on alone, so that it has a tail."""
        old, new = self.primary, self.mirror
        self.branch = f"tail-of-timeline-{old.group('g')['head']['timeline']}"
        self.rounds += 1
        self.fio.seed = self.rounds
        self.fio.write(old)
        self.marks = {node: node.log_size() for node in (old, new)}
        self.link.cut()
        self.ledger.path = self.directory / f"ledger-{self.rounds}"
        self.ledger.begin(old, "ledger", per_second=200)
        self.reach(old, "event=slot.degraded")
        self.ledger.wait_for(100)
        harness.wait_until(lambda: new.group("g")["upstream"]["state"] == "lost",
                           "the mirror to have lost its primary")
        return old, new

    def rejoin(self, old, new):
        """Until the records that the old one lacks are on their way, slowly."""
        self.fio.seed = self.rounds = self.rounds + 1
        self.fio.write(new)
        self.link.delay(DELAY)
        self.link.heal()
        if new.slot("g") is None:
            new.tandem("mirror", "add", "g", old.service, "--mode", "sync")
        new.tandem("mirror", "set", "g", old.service, "catch_up_rate=2MiB")

    def wait_catching_up(self, new):
        harness.wait_until(lambda: new.slot("g")["state"] == "catch-up" and
                           new.slot("g")["missing_records"] > 10, "records to be on their way",
                           interval=0)

    def finish_rejoin(self, old, new):
        """The tail is a branch of the old one, and holds all that it had acknowledged."""
        new.tandem("mirror", "set", "g", old.service, "catch_up_rate=off")
        self.fio.verify(new)
        self.follow_without_ledger(new, old)
        self.assertIn(" 0 wrong", self.ledger.check(old, f"ledger@{self.branch}"))

    def follow_without_ledger(self, primary, mirror):
        self.link.delay(0)
        self.assert_equal(primary, mirror)
        self.assertFalse(mirror.serves("ledger"))
        self.primary, self.mirror = primary, mirror

    def test_the_former_primary_dies_as_it_learns_of_it(self):
        for step in ("state=fenced", "event=group.rewound"):
            old, new = self.part()
            self.promote(new, "g")
            self.rejoin(old, new)
            self.reach(old, step)
            old.kill()
            self.assertIn("server was gone", self.ledger.end())
            old.start()
            harness.wait_until(lambda: old.group("g")["role"] == "mirror", "it to follow")
            self.finish_rejoin(old, new)
        self.finish()

    def test_either_dies_while_the_former_primary_catches_up(self):
        for dies in ("old", "new"):
            old, new = self.part()
            old.kill()
            self.ledger.end()
            self.promote(new, "g")
            self.rejoin(old, new)
            old.start()
            self.wait_catching_up(new)
            node = old if dies == "old" else new
            node.kill()
            node.start()
            harness.wait_until(lambda: new.serves("fio"), "the new primary to serve")
            self.finish_rejoin(old, new)
        self.finish()

    def test_the_promoted_one_dies_in_its_promotion(self):
        """The old primary lives, and is cut off."""
        old, new = self.part()
        command = new.spawn_tandem("promote", "g", "--yes")
        self.reach(new, "state=promoting")
        new.kill()
        command.communicate(timeout=harness.PATIENCE)
        new.start()
        if new.group("g")["role"] == "mirror":
            self.promote(new, "g")
        self.fio.verify(new)
        self.rejoin(old, new)
        self.assertIn("server was gone", self.ledger.end())
        harness.wait_until(lambda: old.group("g")["role"] == "mirror", "it to follow")
        self.finish_rejoin(old, new)
        self.finish()


if __name__ == "__main__":
    harness.main()
