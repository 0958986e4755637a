"""Two real nodes: replication, death of either, promotion, the old primary's return."""

import errno
import os
import time

import harness


@harness.needs_nbd
class Failover(harness.ClusterTest):
    def test_every_acknowledged_write_survives_the_primary(self):
        a, b = self.start_pair()
        self.replicated_volume(a, b, "v", mode="sync")
        self.wait_in_sync(a, "v")
        ledger = harness.Ledger(self.directory)
        ledger.begin(a, "v")
        ledger.wait_for(2000)
        a.kill()
        self.assertIn("server was gone", ledger.end())
        receipt = harness.wait_until(
            lambda: harness.find(b.tandem("receipt", "v", json_output=True),
                                 lambda d: d.get("primary_reachable") is False),
            "the receipt to say that the primary is gone")
        self.assertTrue(receipt["complete_image"])
        self.promote(b, "v")
        self.assertIn(" 0 wrong", ledger.check(b, "v"))
        self.assertEqual(b.group("v")["role"], "primary")
        self.assertEqual(b.group("v")["head"]["timeline"], 2)

    def test_a_node_with_a_group_of_that_name_is_no_mirror_of_it(self):
        """Two groups that were made on their own: no byte of one may come into the other."""
        a, b = self.start_pair()
        for node, content in ((a, b"a"), (b, b"b")):
            node.tandem("volume", "create", "v", "--size", "16MiB")
            with node.nbd("v") as disk:
                disk.pwrite(content * 4096, 0)
                disk.flush()
        before = b.group("v")
        a.tandem("mirror", "add", "v", b.service, "--mode", "sync", check=False)
        slot = a.wait_refused("v")
        self.assertIn("node-b", slot["reason"])
        self.assertIn("group v", slot["reason"])
        self.assertEqual((slot["received"], slot["in_sync"]), (0, False))
        self.assertIn("event=stream.refused", b.log())
        # Both serve their own on, and this node says that it has no mirror.
        for node, content in ((a, b"a"), (b, b"b")):
            with node.nbd("v") as disk:
                self.assertEqual(bytes(disk.pread(4096, 0)), content * 4096)
                disk.pwrite(content * 4096, 4096)
        self.assertEqual(a.group("v")["policy"]["state"], "degraded")
        shown = a.tandem("status").stdout
        self.assertIn("v: node-a serves, DEGRADED", shown)
        self.assertIn("NOT PROTECTED", shown)
        self.assertIn("v: node-b serves", shown)
        self.assertNotIn("SPLIT", shown)
        after = b.group("v")
        for what in ("id", "role", "history"):
            self.assertEqual(after[what], before[what])
        # Without that group there, it is one.
        b.tandem("demote", "v")
        b.tandem("group", "delete", "v", "--yes")
        self.wait_in_sync(a, "v")
        a.kill()
        self.promote(b, "v")
        self.assertEqual(b.read_all("v")[:8192], b"a" * 8192)

    def test_a_mirror_is_not_exported(self):
        a, b = self.start_pair()
        self.replicated_volume(a, b)
        self.assertTrue(a.serves("v"))
        self.assertFalse(b.serves("v"))

    def test_promotion_is_refused_while_the_primary_lives(self):
        a, b = self.start_pair()
        self.replicated_volume(a, b)
        refused = b.tandem("promote", "v", "--yes", check=False)
        self.assertEqual(refused.returncode, 4, refused.stderr)
        self.assertEqual(b.group("v")["role"], "mirror")
        self.assertTrue(a.serves("v"))

    def test_the_old_primary_refuses_to_serve(self):
        a, b = self.start_pair()
        self.replicated_volume(a, b, mode="sync")
        with a.nbd("v") as disk:
            disk.pwrite(b"1" * 4096, 0)
        a.kill()
        self.promote(b, "v")
        with b.nbd("v") as disk:
            self.assertEqual(bytes(disk.pread(4096, 0)), b"1" * 4096)
            disk.pwrite(b"2" * 4096, 4096)
        a.start()
        harness.wait_until(lambda: a.group("v")["role"] != "primary", "the old primary to see it")
        self.assertFalse(a.serves("v"))
        self.assertTrue(b.serves("v"))
        # It keeps its data and says what it is, also after another restart, and even alone.
        b.stop()
        a.restart()
        self.assertNotEqual(a.group("v")["role"], "primary")
        self.assertFalse(a.serves("v"))
        self.assertEqual([v["name"] for v in a.group("v")["volumes"]], ["v"])

    def test_a_paused_primary_acknowledges_nothing_after_it_wakes(self):
        """SIGSTOP stands for a virtual machine that stalled: it must not go on where it was."""
        a, b = self.start_pair()
        self.replicated_volume(a, b, mode="sync")
        self.wait_in_sync(a, "v")
        ledger = harness.Ledger(self.directory)
        ledger.begin(a, "v")
        ledger.wait_for(500)
        a.pause()
        self.promote(b, "v")
        before = ledger.acknowledged()
        a.resume()
        harness.wait_until(lambda: a.group("v")["role"] != "primary", "the old primary to see it")
        ledger.end()
        # What the kernel had already taken from the stopped process may still arrive; nothing else.
        self.assertLessEqual(ledger.acknowledged() - before, 16)
        self.assertIn(" 0 wrong", ledger.check(b, "v"))

    def test_the_mirror_catches_up_after_it_was_away(self):
        a, b = self.start_pair()
        self.replicated_volume(a, b, mode="async")
        b.kill()
        with a.nbd("v") as disk:
            for i in range(64):
                disk.pwrite(bytes([i + 1]) * 4096, i * 8192)
            disk.flush()
        slot = harness.wait_until(
            lambda: a.slot("v") if a.slot("v")["missing_blocks"] == 64 else None,
            "the primary to count what the mirror lacks")
        self.assertEqual(slot["missing_bytes"], 64 * 4096)
        # Exact also when the primary is killed meanwhile, and has not heard its mirror since.
        time.sleep(2.5)
        a.kill()
        a.start()
        slot = harness.wait_until(
            lambda: a.slot("v") if a.slot("v")["missing_blocks"] == 64 else None,
            "the primary to know again what the mirror lacks")
        self.assertEqual(slot["missing_bytes"], 64 * 4096)
        b.start()
        harness.wait_until(lambda: a.slot("v")["missing_blocks"] == 0 and
                           a.slot("v")["state"] == "following", "the mirror to catch up")
        self.assertEqual(a.group("v")["head"]["digest"], b.group("v")["head"]["digest"])
        content = a.read_all("v")
        a.kill()
        self.promote(b, "v")
        self.assertEqual(b.read_all("v"), content)

    def test_writes_go_on_when_the_mirror_dies(self):
        a, b = self.start_pair()
        self.replicated_volume(a, b, mode="sync")
        self.wait_in_sync(a, "v")
        b.kill()
        with a.nbd("v") as disk:
            disk.pwrite(b"x" * 4096, 0)
            disk.flush()
        self.assertFalse(a.slot("v")["in_sync"])
        self.assertEqual(a.slot("v")["missing_blocks"], 1)

    def test_both_nodes_killed_while_writing(self):
        a, b = self.start_pair()
        self.replicated_volume(a, b, mode="sync")
        self.wait_in_sync(a, "v")
        ledger = harness.Ledger(self.directory)
        ledger.begin(a, "v")
        ledger.wait_for(1000)
        a.kill()
        b.kill()
        ledger.end()
        a.start()
        b.start()
        harness.wait_until(lambda: a.slot("v")["state"] == "following", "the mirror to follow")
        self.assertIn(" 0 wrong", ledger.check(a, "v"))
        self.assertEqual(a.slot("v")["missing_blocks"], 0)

    def test_either_node_killed_while_the_mirror_catches_up(self):
        a, b = self.start_pair()
        self.replicated_volume(a, b, mode="async")
        for node in (b, a, b):
            b.kill()
            with a.nbd("v") as disk:
                for i in range(0, disk.get_size(), 1 << 20):
                    disk.pwrite(os.urandom(1 << 20), i)
                disk.flush()
            b.start()
            harness.wait_until(lambda: a.slot("v")["state"] in ("catch-up", "image", "following"),
                               "the mirror to be heard", interval=0.005)
            node.kill()
            node.start()
        harness.wait_until(lambda: a.slot("v")["missing_blocks"] == 0 and
                           a.slot("v")["state"] == "following", "the mirror to catch up")
        content = a.read_all("v")
        a.kill()
        self.promote(b, "v")
        self.assertEqual(b.read_all("v"), content)

    def test_switchover_and_back_under_load(self):
        a, b = self.start_pair()
        self.replicated_volume(a, b, mode="sync")
        ledger = harness.Ledger(self.directory)
        for old, new in ((a, b), (b, a)):
            ledger.begin(old, "v")
            ledger.wait_for(300)
            said = old.tandem("switchover", "v").stdout
            self.assertIn("Writes were held for", said)
            # Its connection ended, unanswered (ENOTCONN is libnbd's own); no write got an error.
            self.assertIn(f"errno {errno.ENOTCONN}", ledger.end())
            harness.wait_until(lambda new=new: new.serves("v"), f"{new.name} to serve")
            self.assertFalse(old.serves("v"))
            self.assertIn(" 0 wrong", ledger.check(new, "v"))
            harness.wait_until(lambda new=new: new.slot("v")["state"] == "following",
                               f"{old.name} to follow")
        # Both were equal when the roles changed: following again is shipping, never a full copy.
        for node in (a, b):
            self.assertNotIn("image", node.log(lines=10**6))


if __name__ == "__main__":
    harness.main()
