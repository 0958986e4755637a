"""A pair over a network that is cut or loses one direction: nobody gets a RST.

What mode sync acknowledged is on the mirror whatever the network does; the primary goes on alone or
stops, as its policy says, and tells why and since when; once the network is back both are equal again
without a full copy.
"""

import time

import harness
from load_support import needs_fio
from network_support import Link, LoadedPair, WRITES_PER_SECOND, needs_network

ATTENTION = 6


@needs_network
@harness.needs_nbd
@needs_fio
class Cut(LoadedPair):
    def degrades_and_returns(self, take_away, give_back, silent):
        """Writers go on; both nodes say what is wrong, and since when, until it is not."""
        begun = time.time_ns()
        take_away()
        policy = self.wait_policy("degraded")
        self.assertIn("not in sync: node-b (", policy["reason"])
        self.assertTrue(begun < policy["since_utc_ns"] < time.time_ns(), policy)
        slot = self.a.slot("g")
        self.assertFalse(slot["in_sync"])
        self.assertNotEqual(slot["state"], "following")
        self.assertIn("silent", slot["reason"])
        upstream = self.wait_lost()
        self.assertEqual(upstream["state"], "lost")
        self.assertTrue(begun < upstream["since_utc_ns"], upstream)
        for word in silent:
            self.assertIn(word, upstream["reason"])
        shown = self.a.tandem("status", "--check", check=False)
        self.assertEqual(shown.returncode, ATTENTION, shown.stdout)
        self.assertIn("DEGRADED since", shown.stdout)
        self.assertIn("NOT PROTECTED", shown.stdout)
        self.ledger.wait_for(200)
        self.assertGreater(self.a.slot("g")["missing_records"], 0)
        give_back()
        self.wait_in_sync(self.a, "g")
        self.assertGreater(self.wait_policy("normal")["since_utc_ns"], policy["since_utc_ns"])
        harness.wait_until(lambda: self.a.tandem("status", "--check"), "nothing to need attention")
        self.ledger.wait_for(100)

    def test_the_cable_is_pulled(self):
        self.start()
        self.begin_load()
        self.degrades_and_returns(lambda: self.link.plug(False), lambda: self.link.plug(True),
                                  ["silent"])
        self.take_over()
        self.rejoin()
        self.finish()

    def test_one_direction_is_lost(self):
        """Half open: one node hears the other, who does not hear it."""
        self.start()
        self.begin_load()
        # node-b hears nothing of node-a; then it hears it hang up and dial again, again and again.
        for direction, silent in ((Link.A_TO_B, ["silent"]), (Link.B_TO_A, [])):
            with self.subTest(direction=direction):
                self.degrades_and_returns(lambda: self.link.cut(direction), self.link.heal, silent)
        self.take_over()
        self.rejoin()
        self.finish()

    def promoted_meanwhile(self, *directions):
        """Both live and cannot talk. The primary may not go on alone, so all it acknowledged is
        on the promoted mirror; it learns of that once the network is back, and steps down."""
        self.start(without_mirror="block")
        self.fio.write(self.a)
        self.ledger.begin(self.a, "ledger", per_second=WRITES_PER_SECOND)
        self.ledger.wait_for(200)
        self.link.cut(*directions)
        policy = self.wait_policy("blocked")
        self.assertIn("not in sync: node-b (", policy["reason"])
        self.wait_lost()
        acknowledged = self.ledger.acknowledged()
        receipt = self.receipt()
        self.assertTrue(receipt["complete_image"])
        self.assertGreater(receipt["contact_age_ms"], 0)
        self.promote(self.b, "g")
        self.assertIn(" 0 wrong", self.ledger.check(self.b, "ledger"))
        self.fio.verify(self.b)
        with self.b.nbd("ledger") as disk:
            disk.pwrite(b"n" * 4096, 0)
        self.assertEqual(self.a.group("g")["role"], "primary", "it cannot know yet")
        self.assertEqual(self.ledger.acknowledged(), acknowledged)
        self.link.heal()
        harness.wait_until(lambda: self.a.group("g")["role"] == "fenced", "node-a to be fenced")
        self.assertIn("node-b opened timeline 2", self.a.group("g")["reason"])
        self.assertIn("server was gone", self.ledger.end())
        self.assertEqual(self.ledger.acknowledged(), acknowledged, "nothing after the promotion")
        self.assertFalse(self.a.serves("ledger"))
        self.rejoin()
        with self.b.nbd("ledger") as disk:
            self.assertEqual(bytes(disk.pread(4096, 0)), b"n" * 4096)
        self.finish()

    def test_the_mirror_is_promoted_while_the_link_is_cut(self):
        self.promoted_meanwhile()

    def test_the_mirror_is_promoted_while_it_is_not_heard(self):
        self.promoted_meanwhile(Link.B_TO_A)

    def test_both_went_on_while_the_link_was_cut(self):
        """The primary goes on alone, as it may; what it acknowledged so is kept as a branch."""
        self.start()
        self.fio.write(self.a)
        self.link.cut()
        self.ledger.begin(self.a, "ledger", per_second=WRITES_PER_SECOND)
        self.wait_policy("degraded")
        self.ledger.wait_for(200)
        self.wait_lost()
        self.promote(self.b, "g")
        self.fio.verify(self.b)
        with self.b.nbd("ledger") as disk:
            disk.pwrite(b"n" * 4096, 0)
        self.ledger.wait_for(200)
        self.link.heal()
        self.assertIn("server was gone", self.ledger.end())
        self.rejoin()
        self.assertIn(" 0 wrong", self.ledger.check(self.a, "ledger@tail-of-timeline-1"))
        self.finish()


if __name__ == "__main__":
    harness.main()
