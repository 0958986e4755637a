"""SIGKILL of either node at each step of a switchover: nothing acknowledged is lost, at most one node
serves, and the roles are plain or an operator's promotion makes them so.
"""

import harness
from load_support import needs_fio
from network_support import Link, needs_network
from steps_support import Steps


@needs_network
@harness.needs_nbd
@needs_fio
class Switchover(Steps):
    def switch(self, step, node):
        """Begins one, and waits until this node has come to this step."""
        self.begin()
        if step == "draining":  # for as long as a word from the mirror takes
            self.link.delay(1.0)
        self.command = self.primary.spawn_tandem("switchover", "g")
        self.reach(node, f"group.state group=g state={step}")
        if step == "draining":  # and now the word does not come
            self.link.cut(Link.B_TO_A if self.mirror is self.b else Link.A_TO_B)

    def kill(self, node):
        node.kill()
        self.link.heal()

    def said(self):
        """How the command ended."""
        output, _ = self.command.communicate(timeout=harness.PATIENCE)
        self.ledger.end()
        return self.command.returncode, output

    def test_the_old_primary_dies_before_it_handed_over(self):
        old, new = self.primary, self.mirror
        self.switch("draining", old)
        self.kill(old)
        self.assertNotEqual(self.said()[0], 0)
        self.assertFalse(self.logged(new, "promoting"), "else this is a later step")
        # It is started again: it is what it was.
        old.start()
        self.check(old)
        self.assertEqual(old.group("g")["head"]["timeline"], 1)
        self.follow(old, new)
        # Or the mirror is promoted instead.
        self.switch("draining", old)
        self.kill(old)
        self.said()
        self.promote(new, "g")
        self.check(new)
        self.follow(new, old)
        self.finish()

    def test_the_old_primary_dies_when_it_is_none_any_more(self):
        old, new = self.primary, self.mirror
        self.switch("mirroring", old)
        self.kill(old)
        self.assertNotEqual(self.said()[0], 0)
        self.assertFalse(self.logged(new, "promoting"), "else this is a later step")
        self.promote(new, "g")
        self.check(new)
        self.follow(new, old)
        # The other way round, when the new one serves already.
        old, new = new, old
        self.switch("serving", new)
        self.kill(old)
        self.said()
        self.check(new)
        self.follow(new, old)
        self.finish()

    def test_the_new_primary_dies_before_it_is_one(self):
        old, new = self.primary, self.mirror
        self.switch("draining", old)
        self.kill(new)
        self.link.delay(0)
        # The roles change when it is back soon; else the old one goes on, with what was held.
        new.start()
        code, output = self.said()
        if code == 0:
            old, new = new, old
        else:
            self.assertIn("go on here", output)
            self.assertEqual(old.group("g")["head"]["timeline"], 1)
        self.check(old)
        self.follow(old, new)
        # Now it dies when the old one is a mirror already: both are, and either may be promoted.
        self.switch("mirroring", old)
        self.kill(new)
        code, output = self.said()
        self.assertNotEqual(code, 0, output)
        self.assertFalse(self.logged(new, "promoting"), "else this is a later step")
        if old.group("g")["role"] == "mirror":
            self.assertIn("did not say whether it was promoted", output)
            self.promote(old, "g")
        self.check(old)
        self.follow(old, new)
        self.finish()

    def dies_in_promotion(self, step):
        """Whether it was killed before it served."""
        old, new = self.primary, self.mirror
        self.switch(step, new)
        self.kill(new)
        self.assertNotEqual(self.said()[0], 0)
        self.assertEqual(old.group("g")["role"], "mirror")
        served = self.logged(new, "state=serving")
        new.start()
        role = new.group("g")["role"]
        if served:
            self.assertEqual(role, "primary", "it served")
        elif role == "mirror":
            self.promote(new, "g")
        self.check(new)
        self.follow(new, old)
        return not served

    def test_the_new_primary_dies_while_it_becomes_one(self):
        self.assertFalse(self.dies_in_promotion("serving"))
        # The step is short, and the kill may come too late.
        self.assertTrue(any(self.dies_in_promotion("promoting") for _ in range(5)))
        self.finish()


if __name__ == "__main__":
    harness.main()
