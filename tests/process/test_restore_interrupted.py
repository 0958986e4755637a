"""Restores that end in the middle: SIGKILL of the command or of the node costs an old file nothing, a
volume that holds a part only is not taken for a restored one, and the same command again writes the rest.
"""

import os
import pathlib
import subprocess

import harness
from backup_support import BackupTest, FAILED, REFUSED, UNREACHABLE
from harness import MIB

KILLS = 3
TRIES = 20  # it may be done before it can be killed
DATA = 80 * MIB
STEP = 32 * MIB  # of a file, what is written between two notes of what is durable
MARK = 64 << 10


@harness.needs_nbd
class Interrupted(BackupTest):
    size = "96MiB"

    def setUp(self):
        super().setUp()
        self.random = harness.chance("restore.kill")
        self.fill(self.random, [(MIB, DATA)])
        self.content = self.a.read_all("v")
        self.create()

    def restore(self, *arguments):
        return ["restore", self.backup, "--volume", "v", *arguments]

    @staticmethod
    def copied(process):
        """The bytes of the backup that the command has read."""
        lines = pathlib.Path(f"/proc/{process.pid}/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("rchar")).split()[1])

    def interrupt(self, arguments, how, goal):
        """how(process) when `goal` was read; whether it had not ended by itself before."""
        process = self.a.spawn_tandem(*arguments)
        while process.poll() is None and self.copied(process) < goal:
            harness.time.sleep(0.0005)
        alive = process.poll() is None
        how(process)
        output, _ = process.communicate(timeout=harness.PATIENCE)
        return alive and process.returncode != 0, process.returncode, output

    def kill_some(self, arguments, prepare, check):
        """check() after each of some kills in the middle; it says whether it was."""
        killed = 0
        for _ in range(TRIES):
            prepare()
            goal = self.random.randrange(4 * MIB, DATA - 4 * MIB)
            in_the_middle, _, _ = self.interrupt(arguments, subprocess.Popen.kill, goal)
            if not in_the_middle or not check():
                continue
            killed += 1
            if killed == KILLS:
                return
        self.fail(f"only {killed} of {TRIES} were killed in the middle")

    def partial(self):
        """What interrupted restores have left of the image."""
        return list(self.directory.glob("image.*.partial"))

    def check_counts(self, report, found):
        """All of the backup's data was found or written; bytes found are counted in `found`."""
        self.assertEqual(report["found_bytes"] + report["written_bytes"], DATA)
        self.assertTrue(found(report["found_bytes"]), report)
        self.assertIsNone(report["begun_anew_because"])

    def test_an_old_file_stays_until_the_new_one_is_whole(self):
        image = self.directory / "image"
        arguments = self.restore("--to-file", image, "--yes")
        old = b"what was there before\n"

        def untouched():
            self.assertIn(image.read_bytes(), (old, self.content))
            return image.read_bytes() == old

        self.kill_some(arguments, lambda: image.write_bytes(old), untouched)
        refused = self.a.tandem(*self.restore("--to-file", image), check=False)
        self.assertEqual(refused.returncode, REFUSED, refused.stderr)
        self.a.tandem(*arguments)
        self.assertEqual(image.read_bytes(), self.content)
        self.assertEqual([path.name for path in self.directory.glob("image*")], ["image"])

    def test_to_a_file_it_goes_on(self):
        image = self.directory / "image"
        arguments = self.restore("--to-file", image)

        def goes_on():
            """Behind the first step nothing of it is written again: a mark there stays."""
            if image.exists():
                self.assertEqual(image.read_bytes(), self.content)
                image.unlink()
                return False
            (partial,) = self.partial()
            with open(partial, "r+b") as file:
                os.pwrite(file.fileno(), bytes(MARK), 2 * MIB)
            report = self.a.tandem(*arguments, json_output=True)
            marked = bytearray(self.content)
            if report["found_bytes"] != 0:
                marked[2 * MIB:2 * MIB + MARK] = bytes(MARK)
            self.assertEqual(image.read_bytes(), marked)
            self.check_counts(report, lambda found: found == 0 or found >= STEP)
            self.found.append(report["found_bytes"])
            self.assertEqual([path.name for path in self.directory.glob("image*")], ["image"])
            image.unlink()
            return True

        self.found = []
        self.kill_some(arguments, lambda: None, goes_on)
        # One more, surely behind the first step, in words; killed once more while it goes on.
        for _ in range(TRIES):
            image.unlink(missing_ok=True)
            if self.interrupt(arguments, subprocess.Popen.kill, DATA - 20 * MIB)[0]:
                break
        again, _, output = self.interrupt(arguments, subprocess.Popen.kill, DATA - 20 * MIB)
        self.assertIn("Going on with an interrupted restore: the first", output)
        if not again:
            image.unlink()
            return
        report = self.a.tandem(*arguments, json_output=True)
        self.check_counts(report, lambda found: found >= STEP)
        self.assertEqual(image.read_bytes(), self.content)

    def test_a_file_is_begun_anew_when_its_journal_is_not_to_be_believed(self):
        image = self.directory / "image"
        arguments = self.restore("--to-file", image, "--yes")

        def torn():
            (journal,) = self.directory.glob("image.*.partial.journal")
            journal.write_bytes(journal.read_bytes()[:-9])
            return "its journal is damaged"

        def told():
            return "as told"

        for damage, more in ((torn, []), (told, ["--restart"])):
            for _ in range(TRIES):
                image.unlink(missing_ok=True)
                if self.interrupt(arguments, subprocess.Popen.kill, DATA - 20 * MIB)[0]:
                    break
            why = damage()
            report = self.a.tandem(*arguments, *more, json_output=True)
            self.assertEqual(report["begun_anew_because"], why)
            self.assertEqual((report["found_bytes"], report["written_bytes"]), (0, DATA))
            self.assertEqual(image.read_bytes(), self.content)

    def test_to_a_volume(self):
        """Which another node mirrors."""
        self.a.tandem("volume", "create", "t", "--size", self.size, "--group", "g")
        arguments = self.restore("--to-volume", "t")

        def a_part():
            found = self.a.read_all("t")
            if not any(found) or found == self.content:
                return False
            again = self.a.tandem(*arguments, check=False)
            self.assertEqual(again.returncode, REFUSED, again.stdout)
            self.assertIn("--yes", again.stderr)
            report = self.a.tandem(*arguments, "--yes", json_output=True)
            self.check_counts(report, lambda found: 0 < found < DATA)
            self.assertEqual(self.a.read_all("t"), self.content)
            return True

        def emptied():
            with self.a.nbd("t") as disk:
                disk.zero(disk.get_size(), 0)

        self.kill_some([*arguments, "--yes"], emptied, a_part)
        report = self.a.tandem(*arguments, "--yes", json_output=True)
        self.check_counts(report, lambda found: found == DATA)
        self.assertEqual(report["zeroed_bytes"], 0)
        report = self.a.tandem(*arguments, "--yes", "--restart", json_output=True)
        self.check_counts(report, lambda found: found == 0)
        self.assertEqual(self.a.read_all("t"), self.content)
        compared = self.a.tandem("verify", "g", json_output=True)
        self.assertEqual((compared["good"], compared["differing_blocks"]), (True, 0))

    def test_the_node_dies_in_the_middle(self):
        self.a.tandem("volume", "create", "t", "--size", self.size)
        arguments = self.restore("--to-volume", "t", "--yes")
        for _ in range(TRIES):
            goal = self.random.randrange(DATA // 2, DATA - 8 * MIB)
            in_the_middle, code, output = self.interrupt(arguments, lambda _: self.a.kill(), goal)
            self.a.start()
            harness.wait_until(lambda: self.a.serves("t"), "the volume to be served again")
            if in_the_middle:
                break
        self.assertIn(code, (FAILED, UNREACHABLE), output)
        self.assertIn("volume t holds only a part now: the same command again writes", output)
        there = self.a.read_all("t")
        self.assertNotEqual(there, self.content)
        report = self.a.tandem(*arguments, json_output=True)
        self.check_counts(report, lambda found: found > 0 or not any(there))
        self.assertEqual(self.a.read_all("t"), self.content)


if __name__ == "__main__":
    harness.main()
