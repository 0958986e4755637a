"""Going back in time with real nodes: rolling back, any moment of the history, clones, and a failover
that is only tested.
"""

import datetime
import errno
import time

import harness
from harness import MIB, nbd

FAILED, USAGE, REFUSED, NOT_FOUND = 1, 2, 4, 5


def utc(seconds):
    """A time as an operator writes it."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class TimeTest(harness.ClusterTest):
    def setUp(self):
        super().setUp()
        self.a, self.b = self.start_pair()
        self.replicated_volume(self.a, self.b, size="32MiB", group="g")
        self.wait_in_sync(self.a, "g")

    def fill(self, letter, volume="v", node=None):
        with (node or self.a).nbd(volume) as disk:
            for at in range(0, 4 * MIB, MIB):
                disk.pwrite(bytes([ord(letter)]) * MIB, at)
            disk.flush()

    def letter(self, node, volume):
        """What fill() wrote last, and that it is whole."""
        with node.nbd(volume) as disk:
            data = bytes(disk.pread(4 * MIB, 0))
        self.assertEqual(data, data[:1] * len(data), f"{volume} on {node.name} is a mixture")
        return chr(data[0])

    def snapshot(self, name):
        return self.a.tandem("snapshot", "create", "g", name, json_output=True)

    def kept(self, node):
        return {s["name"]: s for s in node.group("g")["snapshots"]}

    def wait_level(self):
        """The mirror has all that the primary has."""
        harness.wait_until(
            lambda: self.b.group("g")["head"] == self.a.group("g")["head"], "the mirror to be level")

    def assert_fails(self, code, text, node, *arguments):
        failed = node.tandem(*arguments, check=False)
        self.assertEqual(failed.returncode, code, failed.stdout + failed.stderr)
        self.assertIn(text, failed.stderr)
        return failed


@harness.needs_nbd
class Rollback(TimeTest):
    @harness.needs_mounts
    @harness.needs_program("mkfs.ext4", "e2fsck")
    def test_a_filesystem_goes_back_and_what_was_abandoned_stays_readable(self):
        with self.mount(self.a, "v", mkfs="ext4") as mounted:
            (mounted.path / "letter").write_text("what was meant\n")
        self.snapshot("good")
        with self.mount(self.a, "v") as mounted:
            (mounted.path / "letter").write_text("a mistake\n")
            (mounted.path / "later").write_bytes(b"x" * MIB)
        done = self.a.tandem("snapshot", "rollback", "g", "good", "--branch", "mistake", "--yes",
                             json_output=True)
        self.assertEqual(done["to"]["name"], "good")
        self.assertEqual(done["branch"]["name"], "mistake")
        self.assertGreaterEqual(done["undone"]["bytes"], MIB)
        with self.mount(self.a, "v") as mounted:
            self.assertEqual((mounted.path / "letter").read_text(), "what was meant\n")
            self.assertFalse((mounted.path / "later").exists())
            (mounted.path / "after").write_text("goes on\n")
        device = self.mount(self.a, "v")
        harness.run("e2fsck", "-f", "-n", device.attach_file())
        device.detach()
        self.snapshot("new")
        self.wait_level()
        for node in (self.a, self.b):
            with self.mount(node, "v@mistake", options=["-o", "ro,noload"]) as branch:
                self.assertEqual((branch.path / "letter").read_text(), "a mistake\n")
                self.assertEqual((branch.path / "later").stat().st_size, MIB)
        self.assertEqual(self.a.read_all("v@new"), self.b.read_all("v@new"))
        self.assertEqual(self.a.read_all("v@mistake"), self.b.read_all("v@mistake"))
        self.a.kill()
        self.promote(self.b, "g")
        with self.mount(self.b, "v") as mounted:
            self.assertEqual((mounted.path / "letter").read_text(), "what was meant\n")
            self.assertEqual((mounted.path / "after").read_text(), "goes on\n")

    def test_goes_to_and_fro_and_survives_sigkill(self):
        self.fill("1")
        self.snapshot("one")
        self.fill("2")
        self.snapshot("two")
        self.fill("3")
        self.a.tandem("snapshot", "rollback", "g", "one", "--branch", "three", "--yes")
        self.assertEqual(self.letter(self.a, "v"), "1")
        self.fill("4")
        self.snapshot("four")
        self.fill("5")
        self.a.tandem("snapshot", "rollback", "g", "three", "--branch", "five", "--yes")
        self.assertEqual(self.letter(self.a, "v"), "3")
        self.wait_level()
        want = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
        kinds = {"one": "snapshot", "two": "snapshot", "three": "branch", "four": "snapshot",
                 "five": "branch"}
        parents = {"one": "", "two": "one", "three": "two", "four": "one", "five": "four"}
        for again in (False, True):
            for node in (self.a, self.b):
                kept = self.kept(node)
                self.assertEqual({n: s["kind"] for n, s in kept.items()}, kinds, node.name)
                self.assertEqual({n: s["parent"] for n, s in kept.items()}, parents, node.name)
                for name, letter in want.items():
                    self.assertEqual(self.letter(node, f"v@{name}"), letter, name)
            self.assertEqual(self.letter(self.a, "v"), "3")
            if again:
                break
            self.a.kill()
            self.b.kill()
            self.a.start()
            self.b.start()
            harness.wait_until(lambda: self.a.serves("v"), "the primary to serve")
            self.wait_in_sync(self.a, "g")
        # Deleting in the middle, at the ends, everywhere; what is left is what it was.
        for name in ("two", "five", "one"):
            self.a.tandem("snapshot", "delete", "g", name, "--everywhere", "--yes")
        for node in (self.a, self.b):
            self.assertEqual(self.letter(node, "v@three"), "3")
            self.assertEqual(self.letter(node, "v@four"), "4")
        self.a.tandem("snapshot", "rename", "g", "three", "past", "--everywhere")
        self.assertEqual(self.letter(self.b, "v@past"), "3")
        self.assertEqual(self.letter(self.a, "v"), "3")
        for node in (self.a, self.b):
            self.assertEqual(node.stop(), 0)
        self.assert_sound(self.a, self.b)

    def test_what_was_open_gets_errors_until_it_is_opened_anew(self):
        self.fill("1")
        self.snapshot("one")
        self.fill("2")
        with self.a.nbd("v") as disk:
            self.assertEqual(bytes(disk.pread(4096, 0))[:1], b"2")
            self.a.tandem("snapshot", "rollback", "g", "one", "--yes")
            with self.assertRaises(nbd.Error) as refused:
                disk.pread(4096, 0)
            self.assertEqual(refused.exception.errnum, errno.EIO)
            with self.assertRaises(nbd.Error):
                disk.pwrite(b"x" * 4096, 0)
        self.assertEqual(self.letter(self.a, "v"), "1")
        self.fill("3")
        self.assertEqual(self.letter(self.a, "v"), "3")

    def test_the_operator_is_told(self):
        self.fill("1")
        self.snapshot("one")
        self.fill("2")
        refused = self.assert_fails(REFUSED, "needs --yes", self.a, "snapshot", "rollback", "g",
                                    "one")
        self.assertIn("4 MiB of data", refused.stdout)
        self.assertEqual(self.letter(self.a, "v"), "2", "nothing was done")
        self.assert_fails(REFUSED, "its primary, node node-a, rolls it back", self.b, "snapshot",
                          "rollback", "g", "one", "--yes")
        self.assert_fails(NOT_FOUND, "no snapshot two", self.a, "snapshot", "rollback", "g", "two",
                          "--yes")
        self.assert_fails(NOT_FOUND, "no group h", self.a, "snapshot", "rollback", "h", "one",
                          "--yes")
        self.assert_fails(FAILED, "one", self.a, "snapshot", "rollback", "g", "one", "--branch",
                          "one", "--yes")
        self.assert_fails(FAILED, "cannot be a snapshot's name", self.a, "snapshot", "rollback",
                          "g", "one", "--branch", "a@b", "--yes")
        self.assertEqual(self.letter(self.a, "v"), "2")
        self.assertEqual(list(self.kept(self.a)), ["one"])
        done = self.a.tandem("snapshot", "rollback", "g", "one", "--yes", json_output=True)
        again = self.a.tandem("snapshot", "rollback", "g", "one", "--yes", json_output=True)
        self.assertIsNotNone(done["branch"])
        self.assertIsNone(again["branch"], "nothing had happened since")
        self.assertEqual(len(self.kept(self.a)), 2)
        listed = self.a.tandem("snapshot", "list", "g").stdout
        self.assertIn("branch", listed)
        # Branches are nobody's automatic snapshots.
        self.a.tandem("group", "set", "g", "snapshots.keep=10s", "snapshots.every=10s")
        harness.wait_until(lambda: any(n.startswith("auto-") for n in self.kept(self.a)),
                           "an automatic snapshot")
        self.assertIn(done["branch"]["name"], self.kept(self.a))


@harness.needs_nbd
class History(TimeTest):
    def write_versions(self, letters):
        """One after the other; the moments between them, by their letters."""
        moments = {}
        for letter in letters:
            self.fill(letter)
            time.sleep(0.3)
            moments[letter] = time.time()
            time.sleep(0.3)
        return moments

    def history(self, node):
        return node.tandem("history", "g", json_output=True)["histories"][0]

    def keep_history(self, node, *settings):
        node.tandem("group", "set", "g", *settings)
        harness.wait_until(lambda: self.history(node)["start"], "the history to begin")

    def test_any_moment_comes_back_beside_and_in_place(self):
        self.keep_history(self.a, "history=1h")
        self.keep_history(self.b, "history=1h")
        moments = self.write_versions("123456")
        for letter, moment in moments.items():
            made = self.a.tandem("recover", "v", "--at", utc(moment), "--name", f"c{letter}",
                                 json_output=True)
            self.assertEqual(made["exports"], [f"c{letter}/v"])
            self.assertEqual(self.letter(self.a, f"c{letter}/v"), letter)
        self.assertEqual(self.letter(self.a, "v"), "6")
        self.fill("x", "c2/v")
        self.assertEqual(self.letter(self.a, "c2/v"), "x", "a clone is writable")
        self.assertEqual(self.letter(self.a, "c3/v"), "3")
        self.assertEqual(self.letter(self.a, "v"), "6")
        for letter in moments:
            self.a.tandem("group", "delete", f"c{letter}", "--yes")
        self.assertEqual([g["name"] for g in self.a.status()["groups"]], ["g"])
        done = self.a.tandem("recover", "v", "--at", utc(moments["4"]), "--in-place", "--branch",
                             "mistake", "--yes", json_output=True)
        self.assertEqual(done["branch"]["name"], "mistake")
        self.assertEqual(done["full_copies"], [])
        self.assertEqual(self.letter(self.a, "v"), "4")
        self.assertEqual(self.letter(self.a, "v@mistake"), "6")
        self.snapshot("after")
        self.wait_level()
        self.assertEqual(self.letter(self.b, "v@after"), "4")
        # The history leads to the present; what was abandoned is the branch's.
        for letter, found in {"2": "2", "5": "4"}.items():
            self.a.tandem("recover", "v", "--at", utc(moments[letter]), "--name", f"d{letter}")
            self.assertEqual(self.letter(self.a, f"d{letter}/v"), found)
        for node in (self.a, self.b):
            self.assertEqual(node.stop(), 0)
        self.assert_sound(self.a, self.b)

    def test_a_mirror_where_nobody_asked_for_history_goes_back_too(self):
        self.keep_history(self.a, "history=1h")
        moments = self.write_versions("123")
        done = self.a.tandem("recover", "g", "--at", utc(moments["2"]), "--in-place", "--yes",
                             json_output=True)
        # By what each copy of a pair keeps for a rejoin; or by a full copy, and then it is said.
        self.assertLessEqual(len(done["full_copies"]), 1)
        self.assertEqual(self.letter(self.a, "v"), "2")
        self.fill("4")
        self.wait_in_sync(self.a, "g")
        self.snapshot("after")
        self.wait_level()
        self.assertEqual(self.letter(self.b, "v@after"), "4")

    def test_survives_sigkill_and_is_each_nodes_own(self):
        self.keep_history(self.b, "history=2h")
        moments = self.write_versions("123")
        self.wait_level()
        self.assertIsNone(self.history(self.a)["start"])
        self.b.kill()
        self.b.start()
        self.wait_in_sync(self.a, "g")
        self.assertEqual(self.history(self.b)["history"], "2h")
        self.fill("4")
        self.b.tandem("recover", "g", "--at", utc(moments["2"]), "--name", "two")
        self.assertEqual(self.letter(self.b, "two/v"), "2")
        self.assertIsNone(self.history(self.a)["start"], "nobody asked for it there")

    def test_shows_what_was_written_when_and_what_happened(self):
        self.keep_history(self.a, "history=1h", "history.bytes=100MiB")
        self.write_versions("12")
        made = self.snapshot("one")
        self.write_versions("34")
        self.a.tandem("volume", "resize", "v", "--size", "48MiB")
        self.a.tandem("snapshot", "rollback", "g", "one", "--branch", "old", "--yes")
        history = self.history(self.a)
        self.assertEqual((history["history"], history["history.bytes"]), ("1h", "100MiB"))
        self.assertLessEqual(history["start"]["lsn"], made["lsn"])
        self.assertEqual(history["head"], self.a.group("g")["head"])
        self.assertGreater(history["bytes"], 0)
        written = sum(s["bytes"] for s in history["samples"])
        self.assertGreaterEqual(written, 16 * MIB)
        markers = [(m["kind"], m["name"]) for m in history["markers"]]
        self.assertIn(("snapshot", "one"), markers)
        self.assertIn(("branch", "old"), markers)
        self.assertEqual({m["name"]: m["consistency"] for m in history["markers"]
                          if "consistency" in m},
                         {"one": "crash-consistent", "old": "crash-consistent"})
        lsns = [m["lsn"] for m in history["markers"]]
        self.assertEqual(lsns, sorted(lsns))
        self.assertNotIn("resize", [m["kind"] for m in history["markers"]], "it was rolled back")
        self.a.tandem("volume", "resize", "v", "--size", "40MiB")
        text = self.a.tandem("history", "g").stdout
        self.assertIn("snapshot one, crash-consistent", text)
        self.assertIn("volume v resized from 32 MiB to 40 MiB", text)
        self.assertIn("a second", text)
        self.a.kill()
        self.a.start()
        resizes = [m for m in self.history(self.a)["markers"] if m["kind"] == "resize"]
        self.assertEqual([(m["name"], m["old_bytes"], m["new_bytes"]) for m in resizes],
                         [("v", 32 * MIB, 40 * MIB)])
        self.wait_in_sync(self.a, "g")
        self.a.kill()
        self.promote(self.b, "g")
        self.assertIn("promotion", [m["kind"] for m in self.history(self.b)["markers"]])

    def test_the_operator_is_told(self):
        self.assert_fails(NOT_FOUND, "histor", self.a, "recover", "v", "--at", "-10m")
        self.keep_history(self.a, "history=1h")
        self.write_versions("1")
        begin = self.history(self.a)["start"]["lsn"]
        self.assert_fails(NOT_FOUND, str(begin), self.a, "recover", "v", "--at",
                          "2020-01-01T00:00:00Z")
        self.assert_fails(NOT_FOUND, str(begin), self.a, "recover", "v", "--at", "1000000")
        self.assert_fails(USAGE, "neither a time nor a record", self.a, "recover", "v", "--at",
                          "soon")
        self.assert_fails(NOT_FOUND, "no group w", self.a, "recover", "w", "--at", "1")
        self.assert_fails(REFUSED, "needs --yes", self.a, "recover", "v", "--at", str(begin),
                          "--in-place")
        self.assert_fails(REFUSED, "its primary", self.b, "recover", "v", "--at", str(begin),
                          "--in-place", "--yes")
        self.assert_fails(FAILED, "history cannot be", self.a, "group", "set", "g", "history=long")
        self.assertEqual(self.kept(self.a), {}, "no point is left behind")


@harness.needs_nbd
class Clones(TimeTest):
    def test_a_failover_is_tested_while_the_primary_writes(self):
        self.a.tandem("volume", "create", "w", "--size", "8MiB", "--group", "g")
        self.fill("1", "v")
        ledger = harness.Ledger(self.directory)
        ledger.begin(self.a, "w")
        ledger.wait_for(200)
        # What was acknowledged by now is on the mirror, and so in the clone.
        before = ledger.path.read_text()
        made = self.b.tandem("clone", "g", "test", json_output=True)
        self.assertEqual(made["exports"], ["test/v", "test/w"])
        self.assertEqual(self.letter(self.b, "test/v"), "1")
        # Of later writes the clone may have some.
        before = before[:before.rfind("\n") + 1]
        later = ledger.path.read_text()[len(before):].splitlines(keepends=True)
        copy = harness.Ledger(self.directory / "copy")
        copy.path.parent.mkdir()
        copy.path.write_text(before + "".join(line for line in later if line[0] == "i"))
        copy.check(self.b, "test/w")
        self.fill("t", "test/v", self.b)
        self.b.tandem("snapshot", "create", "test", "in-it")
        self.assertEqual(self.letter(self.b, "test/v@in-it"), "t")
        ledger.wait_for(200)
        self.wait_in_sync(self.a, "g")
        self.assertFalse(self.b.serves("v"), "the mirror itself serves nothing")
        self.assertFalse(self.a.serves("test/v"))
        self.assertEqual(self.b.group("test")["clone_of"]["group"], "g")
        self.assertIn("clone of", self.b.tandem("group", "show", "test").stdout)
        self.assertEqual(self.kept(self.b), {}, "the state has no name any more")
        self.assert_fails(REFUSED, "clones of it: test", self.b, "group", "delete", "g", "--yes")
        self.b.kill()
        self.b.start()
        harness.wait_until(lambda: self.b.serves("test/v"), "the clone to serve again")
        self.assertEqual(self.letter(self.b, "test/v"), "t")
        ledger.wait_for(200)
        self.wait_in_sync(self.a, "g")
        self.b.tandem("group", "delete", "test", "--yes")
        self.assertIsNone(self.b.group("test"))
        self.a.kill()
        ledger.end()
        self.promote(self.b, "g")
        ledger.check(self.b, "w")
        self.assertEqual(self.letter(self.b, "v"), "1")
        self.assertEqual(self.b.stop(), 0)
        self.assert_sound(self.b)

    def test_live_side_by_side_and_outlive_names(self):
        self.fill("1")
        self.snapshot("one")
        self.fill("2")
        self.a.tandem("clone", "g@one", "old")
        self.a.tandem("clone", "g", "new")
        self.assertEqual(self.letter(self.a, "old/v"), "1")
        self.assertEqual(self.letter(self.a, "new/v"), "2")
        self.assertEqual(self.letter(self.a, "v"), "2")
        self.assertEqual(self.letter(self.a, "g/v"), "2", "any volume can be named so")
        self.a.tandem("snapshot", "delete", "g", "one", "--everywhere", "--yes")
        self.fill("3")
        self.fill("o", "old/v")
        self.a.tandem("volume", "create", "extra", "--size", "8MiB", "--group", "old")
        self.a.tandem("volume", "resize", "old/v", "--size", "40MiB")
        with self.a.nbd("old/v") as disk:
            self.assertEqual(disk.get_size(), 40 * MIB)
        self.assertTrue(self.a.serves("old/extra"))
        self.assertFalse(self.a.serves("extra"))
        self.assertEqual(self.letter(self.a, "new/v"), "2")
        # A clone of a clone, and one that is mirrored.
        self.a.tandem("clone", "old", "older")
        self.assertEqual(self.letter(self.a, "older/v"), "o")
        self.a.tandem("mirror", "add", "new", self.b.service)
        harness.wait_until(lambda: self.a.slot("new")["in_sync"], "the clone's mirror")
        self.assert_fails(REFUSED, "serves", self.a, "group", "delete", "new", "--yes")
        self.a.tandem("group", "delete", "older", "--yes")
        self.a.tandem("group", "delete", "old", "--yes")
        self.assertEqual(self.letter(self.a, "v"), "3")
        for node in (self.a, self.b):
            self.assertEqual(node.stop(), 0)
        self.assert_sound(self.a, self.b)

    def test_the_origin_goes_but_for_what_clones_share(self):
        self.a.tandem("mirror", "remove", "g", self.b.service)
        self.fill("1")
        self.a.tandem("clone", "g", "c")
        self.fill("2")

        def space():
            return next(p["space"] for p in self.a.tandem(
                "pool", "show", json_output=True)["pools"][0]["groups"] if p["group"] == "g")

        self.assertEqual(space()["data"], 4 * MIB)
        self.a.tandem("volume", "delete", "v", "--yes")
        self.a.tandem("snapshot", "delete", "g", "clone-c", "--yes")
        harness.wait_until(lambda: space()["data"] + space()["dead"] == 0, "what is not shared")
        self.assertGreaterEqual(space()["snapshots"], 4 * MIB, "and the clone has the rest")
        refused = self.assert_fails(REFUSED, "clones of it: c.", self.a, "group", "delete", "g",
                                    "--yes")
        self.assertIn("'tandem group delete CLONE'", refused.stderr)
        self.assertEqual(self.letter(self.a, "c/v"), "1")
        # On its own, elsewhere.
        self.a.tandem("mirror", "add", "c", self.b.service)
        self.wait_in_sync(self.a, "c")
        self.a.tandem("switchover", "c")
        self.b.tandem("mirror", "remove", "c", self.b.slot("c")["address"])
        self.a.tandem("group", "delete", "c", "--yes")
        self.a.tandem("group", "delete", "g", "--yes")
        self.assertEqual(self.a.status()["groups"], [])
        self.b.tandem("group", "delete", "g", "--yes")
        self.assertEqual(self.letter(self.b, "v"), "1")
        for node in (self.a, self.b):
            self.assertEqual(node.stop(), 0)
        self.assert_sound(self.a, self.b)

    def test_the_operator_is_told(self):
        self.fill("1")
        self.snapshot("one")
        self.assert_fails(NOT_FOUND, "no snapshot two", self.a, "clone", "g@two", "c")
        self.assert_fails(NOT_FOUND, "no group h", self.a, "clone", "h", "c")
        self.assert_fails(FAILED, "has a group g", self.a, "clone", "g@one", "g")
        self.assert_fails(FAILED, "cannot be a group's name", self.a, "clone", "g@one", "a/b")
        self.a.tandem("clone", "g@one", "c")
        with self.a.nbd("c/v"):
            self.assert_fails(FAILED, "clients still hold", self.a, "group", "delete", "c", "--yes")
        harness.wait_until(
            lambda: self.a.tandem("group", "delete", "c", "--yes").returncode == 0, "its end")
        self.assert_fails(REFUSED, "needs --yes", self.a, "group", "delete", "g")


if __name__ == "__main__":
    harness.main()
