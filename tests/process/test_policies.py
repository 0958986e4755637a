"""Real nodes: writers that a policy holds, and the fence command before a promotion."""

import threading

import harness

nbd = harness.nbd


class Writer(threading.Thread):
    """One write over NBD that may take as long as it takes."""

    def __init__(self, node, volume):
        super().__init__(daemon=True)
        self.node, self.volume, self.error = node, volume, None
        self.start()

    def run(self):
        try:
            with self.node.nbd(self.volume) as disk:
                disk.pwrite(b"w" * 4096, 0)
        except nbd.Error as error:
            self.error = error

    def finished(self):
        self.join(0.01)
        return not self.is_alive()


@harness.needs_nbd
class Policies(harness.ClusterTest):
    def blocked_pair(self):
        a, b = self.start_pair(tls=False)
        self.replicated_volume(a, b, "v", mode="sync")
        a.tandem("group", "set", "v", "without_mirror=block")
        b.kill()
        writer = Writer(a, "v")
        self.wait_until(lambda: a.group("v")["policy"]["state"] == "blocked", "the block")
        self.assertFalse(writer.finished())
        return a, b, writer

    def test_a_blocked_writer_is_released_by_the_setting(self):
        a, b, writer = self.blocked_pair()
        shown = a.tandem("status", check=False).stdout
        self.assertIn("WRITERS ARE HELD", shown)
        self.assertIn("not in sync: node-b", shown)
        wrong = a.tandem("group", "set", "v", "without_mirror=maybe", check=False)
        self.assertEqual(wrong.returncode, 1)
        self.assertIn("write degrade or block", wrong.stderr)
        a.tandem("group", "set", "v", "without_mirror=degrade")
        self.wait_until(writer.finished, "the writer")
        self.assertIsNone(writer.error)
        self.assertIn("without_mirror=degrade", a.tandem("group", "show", "v").stdout)

    def test_a_blocked_writer_is_released_by_the_mirror_and_the_setting_stays(self):
        a, b, writer = self.blocked_pair()
        b.start()
        self.wait_until(writer.finished, "the writer")
        self.assertIsNone(writer.error)
        a.restart()
        self.assertEqual(a.group("v")["settings"]["without_mirror"], "block")

    def test_the_status_says_what_writers_wait_for(self):
        a, b = self.start_pair(tls=False, config={"replication": {"timeout": "20s"}})
        self.replicated_volume(a, b, "v", mode="sync")
        self.wait_in_sync(a, "v")
        self.assertEqual(a.group("v")["writers"]["state"], "answered")
        b.pause()
        writer = Writer(a, "v")
        self.wait_until(lambda: a.group("v")["writers"]["state"] == "waiting", "the sign")
        writers = a.group("v")["writers"]
        self.assertEqual(writers["cause"], "mirror")
        self.assertIn(f"node-b at {b.service} (mode sync, following)", writers["reason"])
        self.assertGreater(writers["since_utc_ns"], 0)
        checked = a.tandem("status", "--check", check=False)
        self.assertEqual(checked.returncode, 6)
        self.assertIn("WRITERS WAIT since", checked.stdout)
        self.assertFalse(writer.finished())
        b.resume()
        self.wait_until(writer.finished, "the writer")
        self.assertIsNone(writer.error)
        self.assertEqual(a.group("v")["writers"]["state"], "answered")

    def test_a_stop_does_not_wait_for_a_blocked_writer(self):
        a, b, writer = self.blocked_pair()
        self.assertEqual(a.stop(timeout=30), 0)
        self.wait_until(writer.finished, "the writer")
        self.assertIsNotNone(writer.error, "it was never acknowledged")


class Fencing(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.trace = self.directory / "trace"
        self.broken = self.directory / "broken"
        self.script = self.directory / "fence"
        self.script.write_text(
            "#!/bin/sh\n"
            f'echo "$TANDEM_GROUP $TANDEM_PRIMARY" >>{self.trace}\n'
            f'if [ -e {self.broken} ]; then echo "the switch does not answer"; exit 7; fi\n')
        self.script.chmod(0o755)

    def lost_primary(self, **options):
        a, b = self.start_pair(tls=False, **options)
        self.replicated_volume(a, b, "v", mode="sync")
        a.kill()
        self.wait_until(lambda: b.group("v")["upstream"]["state"] == "lost", "the loss")
        self.wait_until(lambda: not b.tandem("receipt", "v", json_output=True)
                        ["primary_reachable"], "the primary to count as gone")
        return b

    def check(self, promote):
        self.broken.touch()
        failed = promote()
        self.assertEqual(failed.returncode, 4, failed.stderr)
        self.assertIn("exit code 7: the switch does not answer", failed.stderr)
        self.broken.unlink()
        self.assertEqual(promote().returncode, 0)
        self.assertEqual(self.trace.read_text(), "v node-a\n" * 2)

    def test_the_nodes_own_command(self):
        b = self.lost_primary(config={"promotion": {"fence_command": str(self.script)}})

        def promote():
            result = b.tandem("promote", "v", "--yes", check=False)
            if result.returncode != 0:
                self.assertEqual(b.group("v")["role"], "mirror")
            return result

        self.check(promote)
        self.assertEqual(b.group("v")["role"], "primary")

    def test_the_operators_command(self):
        b = self.lost_primary()
        self.check(lambda: b.tandem("promote", "v", "--yes", "--fence-command", self.script,
                                    check=False))


if __name__ == "__main__":
    harness.main()
