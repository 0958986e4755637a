"""Switchover as clients see it: a pause, bounded, and no error, if they look for the volume anew.

`ledger.py --or` asks the other node again for what was not answered when its connection ended, and
QEMU does the same at one address with a reconnect delay.
"""

import re
import subprocess
import threading
import time

import harness
from harness import MIB

PAUSE_SECONDS_MAX = 15  # generous: seen are some tens of milliseconds


@harness.needs_nbd
class Switchover(harness.ClusterTest):
    def start(self, mode="sync"):
        self.a, self.b = self.start_pair()
        self.replicated_volume(self.a, self.b, mode=mode)
        return self.a, self.b

    def wait_following(self, primary):
        harness.wait_until(lambda: primary.slot("v")["state"] == "following", "the mirror to follow")

    def assert_no_error(self, said):
        self.assertNotIn("gone", said)
        pause = float(re.search(r"at most (\d+\.\d+) s", said).group(1))
        self.assertLess(pause, PAUSE_SECONDS_MAX, said)

    def back_and_forth(self, mode):
        a, b = self.start(mode)
        ledger = harness.Ledger(self.directory)
        ledger.begin(a, "v", others=[b])
        for old, new in ((a, b), (b, a), (a, b)):
            ledger.wait_for(300)
            self.wait_following(old)
            done = old.tandem("switchover", "v", json_output=True)
            self.assertLess(done["held_ms"], 1000 * PAUSE_SECONDS_MAX)
            ledger.wait_for(100)
            self.assertEqual(new.group("v")["state"], "serving")
            self.assertEqual(old.group("v")["role"], "mirror")
        said = ledger.stop()
        self.assert_no_error(said)
        self.assertGreaterEqual(int(re.search(r"(\d+) new connections", said).group(1)), 3)
        self.assertIn(" 0 wrong", ledger.check(b, "v"))

    def test_a_client_that_looks_again_sees_no_error_in_sync(self):
        self.back_and_forth("sync")

    def test_a_client_that_looks_again_sees_no_error_in_async(self):
        self.back_and_forth("async")

    def test_what_was_held_goes_on_when_the_mirror_does_not_come_along(self):
        """The mirror stands still while it is waited for: the switchover fails, no write does."""
        a, b = self.start("async")
        ledger = harness.Ledger(self.directory)
        ledger.begin(a, "v")
        ledger.wait_for(300)
        b.pause()
        began = time.monotonic()
        refused = a.tandem("switchover", "v", check=False)
        self.assertNotEqual(refused.returncode, 0, refused.stdout)
        self.assertLess(time.monotonic() - began, 60)
        b.resume()
        self.assertEqual(a.group("v")["state"], "serving")
        ledger.wait_for(300)
        said = ledger.stop()
        self.assertNotIn("gone", said)
        self.assertIn(" 0 wrong", ledger.check(a, "v"))

    def test_a_demotion_ends_connections_without_an_error(self):
        a, _ = self.start()
        ledger = harness.Ledger(self.directory)
        ledger.begin(a, "v")
        ledger.wait_for(300)
        with a.nbd("v") as idle:
            a.tandem("demote", "v")
            self.assertIn("errno 107", ledger.end())
            harness.wait_until(lambda: self.is_ended(idle), "the idle connection to be ended")
        a.tandem("promote", "v", "--force", "--yes")
        self.assertIn(" 0 wrong", ledger.check(a, "v"))

    @staticmethod
    def is_ended(handle):
        try:
            handle.poll(0)
        except harness.nbd.Error:
            return True
        return handle.aio_is_dead() or handle.aio_is_closed()

    @harness.needs_program("qemu-io")
    def test_qemu_goes_on_at_an_address_that_follows_the_primary(self):
        """With reconnect-delay QEMU's requests wait and are asked again; here a link is the address."""
        a, b = self.start()
        link = self.directory / "nbd"
        link.symlink_to(a.socket)
        process = subprocess.Popen(
            ["qemu-io", "--image-opts", "-t", "none",
             f"driver=nbd,server.type=unix,server.path={link},export=v,reconnect-delay=60"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            preexec_fn=harness.die_with_parent)
        self.addCleanup(process.kill)
        stop = threading.Event()
        asked = []

        def write():
            while not stop.is_set():
                asked.append(len(asked) % 200 + 1)
                process.stdin.write(f"write -q -P {asked[-1]} {len(asked) % 64}M 64k\nflush\n")
                process.stdin.flush()
                time.sleep(0.005)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            for old, new in ((a, b), (b, a)):
                time.sleep(1)
                self.wait_following(old)
                old.tandem("switchover", "v")
                link.unlink()
                link.symlink_to(new.socket)
                harness.wait_until(lambda new=new: new.group("v")["state"] == "serving", "it to serve")
            time.sleep(2)
        finally:
            stop.set()
            writer.join()
        said, _ = process.communicate("quit\n", timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 0, said)
        self.assertNotIn("rror", said)
        last = {(i + 1) % 64: pattern for i, pattern in enumerate(asked)}
        with a.nbd("v") as disk:
            for place, pattern in last.items():
                self.assertEqual(bytes(disk.pread(4096, place * MIB)), bytes([pattern]) * 4096, place)


if __name__ == "__main__":
    harness.main()
