"""Nodes that stand still (SIGSTOP) for longer than the time-outs, as a virtual machine does whose host is
busy: nobody closes a connection, and when they go on they believe that no time has passed.
"""

import harness
from load_support import Fio, needs_fio

WRITES_PER_SECOND = 500


@harness.needs_nbd
@needs_fio
class Paused(harness.ClusterTest):
    def start(self):
        self.a, self.b = self.start_pair(pool_size="1GiB")
        for volume in ("ledger", "fio"):
            self.a.tandem("volume", "create", volume, "--size", "32MiB", "--group", "g")
        self.a.tandem("mirror", "add", "g", self.b.service, "--mode", "sync")
        self.wait_in_sync(self.a, "g")
        self.ledger = harness.Ledger(self.directory)
        self.fio = Fio(self.directory, "fio", 8)

    def begin_load(self):
        self.ledger.begin(self.a, "ledger", per_second=WRITES_PER_SECOND)
        self.fio.begin(self.a, "--rate=2m")
        self.ledger.wait_for(200)

    def upstream_lost(self):
        harness.wait_until(lambda: self.b.group("g")["upstream"]["state"] == "lost",
                           "node-b to have lost its primary")

    def take_over(self):
        """The load had no error; node-b has all of it when node-a dies, and node-a rejoins."""
        self.assertEqual(self.fio.end(), 0)
        self.wait_in_sync(self.a, "g")
        self.ledger.wait_for(100)
        self.a.kill()
        self.assertIn("server was gone", self.ledger.end())
        self.promote(self.b, "g")
        self.check_on(self.b)
        self.b.tandem("mirror", "add", "g", self.a.service, "--mode", "sync")
        self.a.start()
        self.assert_equal(self.b, self.a)

    def check_on(self, node):
        self.assertIn(" 0 wrong", self.ledger.check(node, "ledger"))
        self.fio.verify(node)

    def assert_equal(self, primary, mirror):
        self.wait_in_sync(primary, "g")
        compared = primary.tandem("verify", "g", json_output=True)
        self.assertEqual((compared["good"], compared["differing_blocks"]), (True, 0), compared)
        self.assertEqual(mirror.group("g")["role"], "mirror")
        for node in (primary, mirror):
            self.assertNotIn("state=image", node.log(10**6), "a full copy")
            self.assertEqual(node.stop(), 0)
        self.assert_sound(primary, mirror)

    def test_the_mirror_stands_still(self):
        self.start()
        self.begin_load()
        self.b.pause()
        policy = harness.wait_until(
            lambda: self.a.group("g")["policy"] if self.a.group("g")["policy"]["state"] ==
            "degraded" else None, "node-a to go on alone")
        self.assertIn("node-b", policy["reason"])
        self.assertIn("silent", policy["reason"])
        self.assertFalse(self.a.slot("g")["in_sync"])
        self.ledger.wait_for(200)
        self.assertGreater(self.a.slot("g")["missing_records"], 0)
        self.b.resume()
        self.wait_in_sync(self.a, "g")
        self.take_over()

    def test_both_stand_still(self):
        """Whoever wakes first finds the other silent; both go on with nothing lost or changed."""
        self.start()
        self.begin_load()
        for first, second, noticed in (
                (self.a, self.b, lambda: self.a.wait_logged("event=slot.degraded", mark)),
                (self.b, self.a, self.upstream_lost)):
            self.a.pause()
            self.b.pause()
            before = self.ledger.acknowledged()
            mark = self.a.log_size()
            first.resume()
            noticed()
            second.resume()
            self.wait_in_sync(self.a, "g")
            self.ledger.wait_for(100)
            self.assertGreater(self.ledger.acknowledged(), before)
            self.assertEqual(self.a.group("g")["role"], "primary")
            self.assertEqual(self.b.group("g")["role"], "mirror")
        self.assertEqual(self.a.group("g")["head"]["timeline"], 1)
        self.take_over()

    def begin_switchover(self):
        """With the mirror standing still, so that it cannot be handed the last records."""
        self.start()
        self.fio.write(self.a)
        self.ledger.begin(self.a, "ledger")
        self.ledger.wait_for(200)
        self.mark = self.a.log_size()
        self.b.pause()
        self.switchover = self.a.spawn_tandem("switchover", "g")

    def test_the_mirror_stands_still_while_the_roles_change(self):
        """Clients go on meanwhile; the roles change when the mirror wakes."""
        self.begin_switchover()
        self.a.wait_logged("state=connecting reason", self.mark)
        self.assertEqual(self.a.group("g")["state"], "serving")
        self.assertIn("silent", self.a.slot("g")["reason"])
        self.ledger.wait_for(100)
        self.assertIsNone(self.switchover.poll())
        self.b.resume()
        said, _ = self.switchover.communicate(timeout=harness.PATIENCE)
        self.assertEqual(self.switchover.returncode, 0, said)
        self.assertIn("server was gone", self.ledger.end())
        harness.wait_until(lambda: self.b.serves("ledger"), "node-b to serve")
        self.assertFalse(self.a.serves("ledger"))
        self.assertEqual(self.b.group("g")["head"]["timeline"], 2)
        self.check_on(self.b)
        self.assert_equal(self.b, self.a)

    def test_the_old_primary_stands_still_while_the_roles_change(self):
        """It is taken for dead in the middle, and must not go on with what it was doing."""
        self.begin_switchover()
        self.a.pause()
        self.b.resume()
        self.upstream_lost()
        self.promote(self.b, "g")
        self.check_on(self.b)
        self.b.tandem("mirror", "add", "g", self.a.service, "--mode", "sync")
        self.a.resume()
        self.assertIn("server was gone", self.ledger.end())
        self.switchover.communicate(timeout=harness.PATIENCE)
        self.assertNotEqual(self.switchover.returncode, 0)
        harness.wait_until(lambda: self.a.group("g")["role"] == "mirror", "node-a to follow")
        self.assertFalse(self.a.serves("ledger"))
        self.assertEqual(self.b.group("g")["head"]["timeline"], 2)
        self.check_on(self.b)
        self.assert_equal(self.b, self.a)


if __name__ == "__main__":
    harness.main()
