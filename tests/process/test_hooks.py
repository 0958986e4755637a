"""Commands around snapshots: they make them application-consistent, and whatever they do, fail, hang or
die, the guests' writes are answered and what was held goes on. The examples in deploy/hooks, with a real
filesystem and with a guest agent that misbehaves.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

import harness

HOOKS = harness.REPOSITORY / "deploy" / "hooks"
REFUSED = 4
# Notes what it was called with, and then does what the file of its name says.
SCRIPT = """#!/bin/bash
echo "$TANDEM_HOOK group=$TANDEM_GROUP snapshot=$TANDEM_SNAPSHOT volumes=$TANDEM_VOLUMES \
held=$TANDEM_HELD node=$TANDEM_NODE" >> {directory}/calls
source {directory}/$TANDEM_HOOK
"""


@harness.needs_nbd
class Hooks(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.script = self.directory / "hook"
        self.script.write_text(SCRIPT.format(directory=self.directory))
        self.script.chmod(0o755)
        self.does("before", "true")
        self.does("after", "true")

    def start(self, timeout="5s"):
        self.a = self.node("node-a")
        self.a.tables["hook"] = [{"group": "g", "before": str(self.script),
                                  "after": str(self.script), "timeout": timeout}]
        self.a.write_config()
        self.a.start()
        self.a.tandem("volume", "create", "v", "--size", "64MiB", "--group", "g")
        self.a.tandem("volume", "create", "w", "--size", "1MiB", "--group", "g")

    def does(self, hook, what):
        (self.directory / hook).write_text(what + "\n")

    def calls(self):
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def create(self, *arguments, check=True):
        return self.a.tandem("snapshot", "create", "g", *arguments, check=check,
                             json_output=check)

    def consistency(self, node=None):
        return {s["name"]: s["consistency"] for s in (node or self.a).group("g")["snapshots"]}

    def test_a_snapshot_between_two_commands_is_application_consistent(self):
        self.start()
        b = self.node("node-b").start()
        self.a.tandem("mirror", "add", "g", b.service, "--mode", "sync")
        self.wait_in_sync(self.a, "g")
        self.assertEqual(self.a.group("g")["hook"]["state"], "idle")
        made = self.create("s1")
        self.assertEqual((made["consistency"], made["warning"]), ("application-consistent", ""))
        common = "group=g snapshot=s1 volumes=v w"
        self.assertEqual(self.calls(), [f"before {common} held= node=node-a",
                                        f"after {common} held=yes node=node-a"])
        self.create("s2", "--crash-consistent")
        self.assertEqual(len(self.calls()), 2, "skipped")
        harness.wait_until(lambda: len(self.consistency(b)) == 2, "the mirror")
        expected = {"s1": "application-consistent", "s2": "crash-consistent"}
        self.assertEqual((self.consistency(), self.consistency(b)), (expected, expected))
        receipt = b.tandem("receipt", "g", json_output=True)
        self.assertEqual(receipt["consistent"], {"snapshot": "s1", "lsn": made["lsn"],
                                                 "utc_ns": made["utc_ns"]})
        self.assertIn("consistent at snapshot s1, record", b.tandem("receipt", "g").stdout)
        self.assertEqual(self.a.group("g")["hook"]["state"], "good")
        self.a.tandem("group", "set", "g", "snapshots.every=10s")
        harness.wait_until(lambda: any(n.startswith("auto-") for n in self.consistency()),
                           "an automatic one")
        automatic = next(c for n, c in self.consistency().items() if n.startswith("auto-"))
        self.assertEqual(automatic, "application-consistent")
        # The other node has no commands.
        refused = self.a.tandem("group", "set", "g", "hook=x", check=False)
        self.assertNotEqual(refused.returncode, 0)

    def test_a_command_that_fails_is_told_and_recorded(self):
        self.start()
        self.does("before", "echo the database says no >&2; printf 'two\\nlines'; exit 3")
        made = self.a.tandem("snapshot", "create", "g", "s1")
        self.assertIn("hook failed", made.stdout)
        self.assertIn("the database says no", made.stderr)
        self.assertEqual(self.consistency(), {"s1": "hook failed"})
        self.assertIn("held=no", self.calls()[-1], "what may be held halfway goes on")
        self.assertIn("exit code 3", self.a.log())
        self.assertIn("two lines", self.a.log())
        self.assertEqual(self.a.group("g")["hook"]["state"], "failed")
        self.assertIn("HOOK FAILED", self.a.tandem("status").stdout)
        refused = self.create("s2", "--require-consistent", check=False)
        self.assertEqual(refused.returncode, REFUSED, refused.stderr)
        self.assertIn("the database says no", refused.stderr)
        self.assertEqual(list(self.consistency()), ["s1"], "no snapshot then")
        self.assertEqual(len(self.calls()), 4)
        # Back to normal.
        self.does("before", "true")
        self.create("s2", "--require-consistent")
        self.assertEqual(self.consistency()["s2"], "application-consistent")
        self.assertNotIn("HOOK FAILED", self.a.tandem("status").stdout)
        # The one after it: what was held may have gone on too early, or not yet.
        self.does("after", "exit 1")
        made = self.create("s3")
        self.assertIn("after it", made["warning"])
        self.assertEqual(self.consistency()["s3"], "hook failed")
        refused = self.create("s4", "--require-consistent", check=False)
        self.assertEqual(refused.returncode, REFUSED)
        self.assertNotIn("s4", self.consistency())

    def test_writers_go_on_while_a_command_hangs_until_its_time_is_over(self):
        self.start(timeout="3s")
        self.does("before", "sleep 1000 & sleep 1000")
        writes = 0
        making = threading.Thread(target=lambda: self.create("s1"))
        with self.a.nbd("v") as disk:
            making.start()
            harness.wait_until(lambda: len(self.calls()) == 1, "the command")
            while making.is_alive():
                disk.pwrite(b"x" * 4096, 4096 * (writes % 1000))
                disk.flush()
                writes += 1
        making.join()
        self.assertGreater(writes, 50)
        self.assertEqual(self.consistency(), {"s1": "hook failed"})
        self.assertIn("did not end within 3 s", self.a.group("g")["hook"]["reason"])
        self.assertEqual(len(self.calls()), 2)
        self.assertIn("after", self.calls()[1])

    def hangs(self, hook):
        """Lets it wait for a child for ever."""
        self.does(hook, f"sleep 1000 & echo $! > {self.directory}/child; wait")

    def wait_child_ended(self):
        pid = int((self.directory / "child").read_text())
        harness.wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists() or " Z " in
                           pathlib.Path(f"/proc/{pid}/stat").read_text(), "the child to end")

    def test_children_of_a_killed_command_end_with_it(self):
        self.start(timeout="1s")
        self.hangs("before")
        self.create("s1")
        self.wait_child_ended()

    def test_a_command_after_it_that_hangs_is_ended_and_doubted(self):
        """What was held may still be: it is said, and neither this snapshot nor the next one waits."""
        self.start(timeout="1s")
        self.hangs("after")
        made = self.create("s1")
        self.assertEqual(made["consistency"], "hook failed")
        self.assertIn("did not end within 1 s", made["warning"])
        self.assertEqual(self.consistency(), {"s1": "hook failed"})
        self.assertIn("held=yes", self.calls()[-1])
        self.wait_child_ended()
        self.assertIn("event=hook.thaw-failed", self.a.log())
        self.assertIn("may still be held", self.a.log())
        hook = self.a.group("g")["hook"]
        self.assertEqual(hook["state"], "failed")
        self.assertIn("did not end within 1 s", hook["reason"])
        self.assertIn("HOOK FAILED", self.a.tandem("status").stdout)
        with self.a.nbd("v") as disk:
            disk.pwrite(b"x" * 4096, 0)
            disk.flush()
        refused = self.create("s2", "--require-consistent", check=False)
        self.assertEqual(refused.returncode, REFUSED, refused.stderr)
        self.assertIn("did not end within 1 s", refused.stderr)
        self.assertEqual(list(self.consistency()), ["s1"], "no snapshot then")
        self.wait_child_ended()
        self.does("after", "true")
        self.create("s2", "--require-consistent")
        self.assertEqual(self.consistency()["s2"], "application-consistent")
        self.assertEqual(self.a.group("g")["hook"]["state"], "good")
        self.assertEqual(self.a.read_all("v@s2")[:4096], b"x" * 4096)

    def test_the_snapshot_holds_what_was_flushed_before_and_nothing_of_later(self):
        """`before` writes through the daemon itself, as a guest that flushes does."""
        self.start(timeout="20s")
        put = self.directory / "put"
        put.write_text("import nbd, sys\nh = nbd.NBD()\nh.connect_uri(sys.argv[1])\n"
                       "h.pwrite(sys.argv[2].encode() * 4096, 0)\nh.flush()\nh.shutdown()\n")
        command = f"/usr/bin/python3 {put} '{self.a.uri('v')}' "
        self.does("before", "sleep 0.5; " + command + "b")
        self.does("after", command + "a")
        made = self.create("s1", "--require-consistent")
        self.assertEqual(made["consistency"], "application-consistent")
        self.assertEqual(self.a.read_all("v@s1")[:4096], b"b" * 4096)
        self.assertEqual(self.a.read_all("v")[:4096], b"a" * 4096)

    def test_a_killed_node_lets_go_when_it_serves_again(self):
        self.start()
        self.does("before", "sleep 1000")
        making = threading.Thread(target=lambda: self.create("s1", check=False))
        making.start()
        harness.wait_until(lambda: len(self.calls()) == 1, "the command")
        self.a.kill()
        making.join()
        self.a.start()
        harness.wait_until(lambda: len(self.calls()) == 2, "the command after it")
        self.assertEqual(self.calls()[1],
                         "after group=g snapshot= volumes=v w held=maybe node=node-a")

    def test_a_stop_does_not_wait_for_a_command_and_lets_go(self):
        self.start(timeout="30s")
        self.does("before", "sleep 1000")
        making = threading.Thread(target=lambda: self.create("s1", check=False))
        making.start()
        harness.wait_until(lambda: len(self.calls()) == 1, "the command")
        self.assertEqual(self.a.stop(), 0)
        making.join()
        self.assertEqual(len(self.calls()), 2)
        self.assertIn("held=no", self.calls()[1])
        self.assert_sound(self.a)

    def test_two_at_once_follow_each_other(self):
        self.start(timeout="10s")
        self.does("before", f"mkdir {self.directory}/held && sleep 0.3")
        self.does("after", f"rmdir {self.directory}/held")
        both = [threading.Thread(target=self.create, args=(name, "--require-consistent"))
                for name in ("s1", "s2")]
        for one in both:
            one.start()
        for one in both:
            one.join()
        self.assertEqual(set(self.consistency().values()), {"application-consistent"})
        self.assertEqual(len(self.consistency()), 2)

    @harness.needs_mounts
    @harness.needs_program("mkfs.ext4", "dumpe2fs", "fsfreeze")
    def test_fsfreeze_under_load_needs_no_journal(self):
        self.start(timeout="30s")
        load = None
        with self.mount(self.a, "v", mkfs="ext4") as mounted:
            self.does("before", f"{HOOKS}/fsfreeze freeze {mounted.path}")
            self.does("after", f"{HOOKS}/fsfreeze thaw {mounted.path}")
            try:
                load = subprocess.Popen(
                    ["bash", "-c", "while :; do for i in 1 2 3 4 5 6 7 8; do "
                     "head -c 20000 /dev/urandom > f$i; mv f$i g$i; done; sync -f .; done"],
                    cwd=mounted.path, start_new_session=True)
                harness.wait_until((mounted.path / "g8").exists, "the load")
                for i in range(3):
                    made = self.create(f"clean{i}", "--require-consistent")
                    self.assertEqual(made["consistency"], "application-consistent")
                self.create("dirty", "--crash-consistent")
                self.assertIsNone(load.poll(), "the load went on")
                # A hook that fails leaves nothing frozen.
                self.does("after", f"{HOOKS}/fsfreeze thaw {mounted.path}; exit 1")
                self.create("doubtful")
                (mounted.path / "last").write_text("written")
            finally:
                if load is not None:
                    os.killpg(load.pid, signal.SIGKILL)
                    load.wait()

        def features(snapshot):
            image = self.mount(self.a, f"v@{snapshot}").attach_file()
            return harness.run("dumpe2fs", "-h", image).stdout

        self.assertIn("needs_recovery", features("dirty"), "else this test shows nothing")
        for i in range(3):
            self.assertNotIn("needs_recovery", features(f"clean{i}"))
            image = self.mount(self.a, f"v@clean{i}").attach_file()
            harness.run("e2fsck", "-f", "-n", image)


class FakeAgent:
    """What QEMU's guest agent does on its socket, and what it may do wrong."""

    def __init__(self, path, frozen=False, stale=b"", freezes=2, error=None, deaf=False):
        self.state = "frozen" if frozen else "thawed"
        self.stale, self.freezes, self.error, self.deaf = stale, freezes, error, deaf
        self.commands = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as lines:
                client.sendall(self.stale)
                for line in lines:
                    if not self.deaf:
                        client.sendall(self.answer(json.loads(line.lstrip(b"\xff"))))

    def answer(self, request):
        command = request["execute"]
        if command == "guest-sync-delimited":
            return b"\xff" + self.line(request["arguments"]["id"])
        self.commands.append(command)
        if command == "guest-fsfreeze-status":
            return self.line(self.state)
        if command == "guest-fsfreeze-freeze":
            if self.error:
                return json.dumps({"error": {"class": "GenericError", "desc": self.error}}
                                  ).encode() + b"\n"
            self.state = "frozen"
            return self.line(self.freezes)
        self.state = "thawed"
        return self.line(self.freezes)

    @staticmethod
    def line(value):
        return json.dumps({"return": value}).encode() + b"\n"

    def close(self):
        self.listener.close()


class GuestAgent(harness.ClusterTest):
    """deploy/hooks/guest-agent with agents of all kinds."""

    def agent(self, **how):
        self.path = self.directory / f"agent{len(self.agents)}"
        self.agents.append(FakeAgent(self.path, **how))
        return self.agents[-1]

    def setUp(self):
        super().setUp()
        self.agents = []
        self.addCleanup(lambda: [a.close() for a in self.agents])

    def run_hook(self, action, held="", *more):
        return harness.run(HOOKS / "guest-agent", action, self.path, *more, check=False,
                           env={**os.environ, "TANDEM_HELD": held})

    def test_freezes_and_thaws(self):
        agent = self.agent(stale=b'{"return": 7}\n{"return": {}}\n')
        frozen = self.run_hook("freeze")
        self.assertEqual(frozen.returncode, 0, frozen.stderr)
        self.assertEqual(agent.state, "frozen")
        thawed = self.run_hook("thaw", "yes")
        self.assertEqual(thawed.returncode, 0, thawed.stderr)
        self.assertEqual(agent.state, "thawed")
        self.assertEqual(agent.commands,
                         ["guest-fsfreeze-status", "guest-fsfreeze-freeze",
                          "guest-fsfreeze-status", "guest-fsfreeze-thaw"])

    def test_half_an_answer_to_another_client_is_dropped(self):
        agent = self.agent(stale=b'{"return": {"half of an')
        self.assertEqual(self.run_hook("freeze").returncode, 0)
        self.assertEqual(agent.state, "frozen")

    def test_what_is_not_consistent_is_an_error(self):
        for how, action, held, said in (
                ({"error": "no such device"}, "freeze", "", "no such device"),
                ({"freezes": 0}, "freeze", "", "froze nothing"),
                ({"frozen": True}, "freeze", "", "frozen already"),
                ({}, "thaw", "yes", "thawed already")):
            with self.subTest(said):
                self.agent(**how)
                done = self.run_hook(action, held)
                self.assertEqual(done.returncode, 1)
                self.assertIn(said, done.stderr)

    def test_thawing_what_nobody_froze_is_none(self):
        self.agent()
        for held in ("no", "maybe"):
            self.assertEqual(self.run_hook("thaw", held).returncode, 0)
        self.path = self.directory / "nobody"
        self.assertEqual(self.run_hook("thaw", "maybe").returncode, 0)
        self.assertEqual(self.run_hook("thaw", "yes").returncode, 1)
        self.assertEqual(self.run_hook("freeze").returncode, 1)

    def test_an_agent_that_does_not_answer(self):
        self.agent(deaf=True)
        begun = time.monotonic()
        done = self.run_hook("freeze", "", "--limit", "1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("answer", done.stderr)
        self.assertLess(time.monotonic() - begun, harness.PATIENCE)

    @harness.needs_nbd
    def test_around_a_snapshot(self):
        agent = self.agent()
        node = self.node("node-a")
        command = f"{HOOKS}/guest-agent %s {self.path}"
        node.tables["hook"] = [{"group": "v", "before": command % "freeze",
                                "after": command % "thaw"}]
        node.write_config()
        node.start()
        node.tandem("volume", "create", "v", "--size", "1MiB")
        made = node.tandem("snapshot", "create", "v", "s", "--require-consistent",
                           json_output=True)
        self.assertEqual(made["consistency"], "application-consistent")
        self.assertEqual(agent.state, "thawed")
        self.assertEqual(agent.commands.count("guest-fsfreeze-freeze"), 1)


if __name__ == "__main__":
    harness.main()
