"""Any moment of the history as a point of its own, beside the snapshots: kept, exported read-only on
the node that keeps it, and let go again. What differs between any two points, in whichever way they are
named, is what was written between them.
"""

import signal
import subprocess
import time

import harness
import test_time
from harness import MIB, nbd

FAILED, USAGE, NOT_FOUND = 1, 2, 5
BLOCK = 4096


def with_usual_signals():
    """Whoever started the tests may have had some ignored."""
    harness.die_with_parent()
    for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, signal.SIG_DFL)


class PointTest(test_time.TimeTest):
    """Moments of a volume that is written at random, and what had been written by each."""

    def setUp(self):
        super().setUp()
        for node in (self.a, self.b):
            node.tandem("group", "set", "g", "history=1h")
            harness.wait_until(lambda: self.history(node)["start"], "the history to begin")
        self.random = harness.chance("points")
        self.model = bytearray(32 * MIB)

    def history(self, node):
        return node.tandem("history", "g", json_output=True)["histories"][0]

    def change(self, disk):
        length = self.random.randrange(1, 64) * BLOCK
        at = self.random.randrange(0, 32 * MIB - length) // BLOCK * BLOCK
        if self.random.random() < 0.2:
            disk.trim(length, at)
            self.model[at:at + length] = bytes(length)
        else:
            data = self.random.randbytes(length)
            disk.pwrite(data, at)
            self.model[at:at + length] = data

    def live(self, moments):
        """[(time, LSN, what had been written by then)]."""
        seen = []
        with self.a.nbd("v") as disk:
            for _ in range(moments):
                for _ in range(20):
                    self.change(disk)
                disk.flush()
                time.sleep(0.2)
                seen.append((test_time.utc(time.time()), self.a.group("g")["head"]["lsn"],
                             bytes(self.model)))
                time.sleep(0.2)
        return seen


@harness.needs_nbd
class Points(PointTest):
    def test_is_what_had_been_written_by_then_on_either_node(self):
        seen = self.live(6)
        self.wait_level()
        for i, (moment, lsn, content) in enumerate(seen):
            for node, at in ((self.a, moment), (self.b, lsn)):
                made = node.tandem("snapshot", "create", "g", f"p{i}", "--at", at, "--label",
                                   "by hand", json_output=True)
                self.assertEqual((made["node"], made["name"], made["kind"], made["lsn"]),
                                 (node.name, f"p{i}", "point", lsn))
                self.assertEqual(node.read_all(f"v@p{i}"), content, f"p{i} on {node.name}")
        with self.a.nbd("v@p0") as disk:
            self.assertTrue(disk.is_read_only())
            with self.assertRaises(nbd.Error):
                disk.pwrite(bytes(BLOCK), 0)
        self.a.tandem("snapshot", "delete", "g", "p1", "--yes")
        self.assertNotIn("p1", self.kept(self.a))
        self.assertIn("p1", self.kept(self.b), "each node's own")
        # They outlive the history that they came out of, a rollback, and a crash.
        self.a.tandem("snapshot", "rollback", "g", "p3", "--branch", "rest", "--yes")
        self.assertEqual(self.a.read_all("v"), seen[3][2])
        for node in (self.a, self.b):
            node.tandem("group", "set", "g", "history=")
        self.live(2)
        self.a.kill()
        self.a.start()
        harness.wait_until(lambda: self.a.serves("v"), "the primary to serve")
        self.wait_in_sync(self.a, "g")
        for i in (0, 2, 4, 5):
            for node in (self.a, self.b):
                self.assertEqual(node.read_all(f"v@p{i}"), seen[i][2], f"p{i} on {node.name}")
        for node in (self.a, self.b):
            self.assertEqual(node.stop(), 0)
        self.assert_sound(self.a, self.b)

    def test_the_operator_is_told(self):
        moment, lsn, content = self.live(1)[0]
        told = self.a.tandem("snapshot", "create", "g", "--at", lsn).stdout
        self.assertIn(f"Point point-{lsn} of group g keeps record {lsn} (", told)
        self.assertIn(f"on node node-a, and there only. Exports, read-only: v@point-{lsn}.", told)
        self.assertEqual(self.a.read_all(f"v@point-{lsn}"), content)
        create = ("snapshot", "create", "g", "p", "--at")
        start = self.history(self.a)["start"]
        early = self.assert_fails(NOT_FOUND, "is not in the history here", self.a, *create,
                                  "2020-01-01T00:00:00Z")
        self.assertIn(f"which has LSN {start['lsn']} to ", early.stderr)
        self.assertRegex(early.stderr, r", of 20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ to now")
        self.assert_fails(NOT_FOUND, "that time is not in the history here", self.a, *create,
                          test_time.utc(time.time() + 3600))
        self.assert_fails(NOT_FOUND, f"LSN {lsn + 1000} is not in the history here", self.a,
                          *create, str(lsn + 1000))
        self.assert_fails(USAGE, "neither a time nor a record", self.a, *create, "soon")
        self.assert_fails(USAGE, "excludes", self.a, *create, str(lsn), "--crash-consistent")
        self.assert_fails(FAILED, f"has a snapshot point-{lsn}", self.a, "snapshot", "create", "g",
                          f"point-{lsn}", "--at", str(lsn))
        self.assert_fails(FAILED, "cannot be a snapshot's name", self.a, "snapshot", "create", "g",
                          "a@b", "--at", str(lsn))
        self.a.tandem("group", "set", "g", "history=")
        self.assertEqual(list(self.kept(self.a)), [f"point-{lsn}"])


@harness.needs_nbd
class Differences(PointTest):
    def blocks(self, node, *arguments):
        """{number: reads as zeroes} of the blocks that differ."""
        told = node.tandem("diff", *arguments, json_output=True)
        self.assertEqual(told["node"], node.name)
        return {at // BLOCK: e["zero"] for e in told["extents"]
                for at in range(e["offset"], e["offset"] + e["length"], BLOCK)}

    def expected(self, old, new):
        zeroes = bytes(BLOCK)
        return {at // BLOCK: new[at:at + BLOCK] == zeroes for at in range(0, len(new), BLOCK)
                if old[at:at + BLOCK] != new[at:at + BLOCK]}

    def leftovers(self, node):
        return [name for name in self.kept(node) if name.startswith("diff-")]

    def test_are_what_was_written_between_any_two_points(self):
        contents = {}
        for name in ("early", "middle"):
            moment, lsn, contents[name] = self.live(1)[0]
            contents[moment] = contents[name]
            made = self.snapshot(name)
            contents[str(made["lsn"])] = contents[name]
        abandoned, lsn, contents["mistake"] = self.live(1)[0]
        self.a.tandem("snapshot", "rollback", "g", "middle", "--branch", "mistake", "--yes")
        self.model[:] = contents["middle"]
        moment, _, contents[moment] = self.live(1)[0]
        contents["now"] = bytes(self.model)
        self.wait_level()
        before = {node.name: list(self.kept(node)) for node in (self.a, self.b)}
        pairs = [(old, new) for old in contents for new in contents]
        for old, new in self.random.sample(pairs, 40):
            node = self.a if "now" in (old, new) else self.random.choice((self.a, self.b))
            told = self.blocks(node, f"v@{new}", "--from", old)
            self.assertEqual(told, self.expected(contents[old], contents[new]),
                             f"from {old} to {new} on {node.name}")
        self.assertTrue(self.expected(contents["mistake"], contents["now"]))
        self.assertEqual(self.blocks(self.a, "v", "--from", "mistake"),
                         self.expected(contents["mistake"], contents["now"]))
        # What was abandoned is the branch's: by then there was nothing else than what is left.
        self.assertEqual(self.blocks(self.a, "v@middle", "--from", abandoned), {})
        self.assert_fails(NOT_FOUND, f"LSN {lsn} is not in the history", self.a, "diff", "v",
                          "--from", lsn)
        told = self.a.tandem("diff", "v", "--from", moment, "--summary").stdout
        self.assertRegex(told, r"between record \d+ \(20.* UTC\) and now, of which")
        exact = self.a.tandem("diff", "v", "--from", moment, "--to", "mistake", json_output=True)
        self.assertIsNone(exact["from"]["snapshot"])
        self.assertEqual(exact["to"]["snapshot"], "mistake")
        self.assertGreater(exact["from"]["lsn"], exact["to"]["lsn"])
        for node in (self.a, self.b):
            self.assertEqual(list(self.kept(node)), before[node.name], "all points were let go")

    def test_the_points_go_also_when_it_fails_or_is_interrupted(self):
        moment, lsn, _ = self.live(1)[0]
        with self.a.nbd("v") as disk:
            for at in range(0, 32 * MIB, 2 * BLOCK):
                disk.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"x" * BLOCK)), at)
                while disk.aio_in_flight() > 16:
                    disk.poll(-1)
            disk.flush()
        failed = self.a.tandem("diff", "v", "--from", lsn, "--nbd",
                               f"127.0.0.1:{harness.free_port()}", check=False)
        self.assertNotEqual(failed.returncode, 0)
        self.assertEqual(self.leftovers(self.a), [])
        # Of 4,096 runs; the pipe holds half of them.
        command = [harness.BIN / "tandem", "--node", self.a.service, *self.a.credentials(), "diff",
                   "v", "--from", str(lsn)]
        for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, None):
            diff = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    text=True, preexec_fn=with_usual_signals)
            harness.wait_until(lambda: self.leftovers(self.a), "a point for the comparison")
            if how is None:
                diff.stdout.close()
                complaint = diff.stderr.read()
                self.assertEqual(diff.wait(harness.PATIENCE), FAILED, complaint)
                self.assertIn("nobody reads", complaint)
            else:
                diff.send_signal(how)
                self.assertEqual(diff.wait(harness.PATIENCE), -how)
                self.assertEqual(diff.stderr.read(), "")
                diff.stdout.close()
            diff.stderr.close()
            self.assertEqual(self.leftovers(self.a), [], how)
        # Where it cannot, it says so.
        diff = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=with_usual_signals)
        (left,) = harness.wait_until(lambda: self.leftovers(self.a), "a point for the comparison")
        self.a.kill()
        _, complaint = diff.communicate(timeout=harness.PATIENCE)
        self.assertNotEqual(diff.returncode, 0)
        self.assertIn(f"point {left} of group g was kept for this and stays: ", complaint)
        self.a.start()
        harness.wait_until(lambda: self.a.serves("v"), "the primary to serve")
        self.assertEqual(self.leftovers(self.a), [left])
        self.a.tandem("snapshot", "delete", "g", left, "--yes")


if __name__ == "__main__":
    harness.main()
