"""Restores that end in the middle: SIGKILL of the command or of the node costs an old file nothing, a
volume that holds a part only is not taken for a restored one, and the same command again makes it whole.
"""

import pathlib
import subprocess

import harness
from backup_support import BackupTest, FAILED, REFUSED, UNREACHABLE
from harness import MIB

KILLS = 3
TRIES = 20  # it may be done before it can be killed


@harness.needs_nbd
class Interrupted(BackupTest):
    def setUp(self):
        super().setUp()
        self.random = harness.chance("restore.kill")
        self.fill(self.random, [(MIB, 48 * MIB)])
        self.content = self.a.read_all("v")
        self.create()

    def restore(self, *arguments):
        return ["restore", self.backup, "--volume", "v", *arguments]

    @staticmethod
    def copied(process):
        """The bytes of the backup that the command has read."""
        lines = pathlib.Path(f"/proc/{process.pid}/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("rchar")).split()[1])

    def interrupt(self, arguments, how):
        """how(process) when a part was written; whether it had not ended by itself before."""
        process = self.a.spawn_tandem(*arguments)
        goal = self.random.randrange(4 * MIB, 40 * MIB)
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
            in_the_middle, _, _ = self.interrupt(arguments, subprocess.Popen.kill)
            if not in_the_middle or not check():
                continue
            killed += 1
            if killed == KILLS:
                return
        self.fail(f"only {killed} of {TRIES} were killed in the middle")

    def test_to_a_file(self):
        image = self.directory / "image"
        arguments = self.restore("--to-file", image, "--yes")

        def whole_or_not_there():
            if image.exists():
                self.assertEqual(image.read_bytes(), self.content)
            return not image.exists()

        self.kill_some(arguments, lambda: image.unlink(missing_ok=True), whole_or_not_there)
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

    def test_to_a_volume(self):
        """Which another node mirrors."""
        self.a.tandem("volume", "create", "t", "--size", "64MiB", "--group", "g")
        arguments = self.restore("--to-volume", "t")

        def a_part():
            found = self.a.read_all("t")
            if not any(found) or found == self.content:
                return False
            again = self.a.tandem(*arguments, check=False)
            self.assertEqual(again.returncode, REFUSED, again.stdout)
            self.assertIn("--yes", again.stderr)
            return True

        def emptied():
            with self.a.nbd("t") as disk:
                disk.zero(disk.get_size(), 0)

        self.kill_some([*arguments, "--yes"], emptied, a_part)
        self.a.tandem(*arguments, "--yes")
        self.assertEqual(self.a.read_all("t"), self.content)
        compared = self.a.tandem("verify", "g", json_output=True)
        self.assertEqual((compared["good"], compared["differing_blocks"]), (True, 0))

    def test_the_node_dies_in_the_middle(self):
        self.a.tandem("volume", "create", "t", "--size", "64MiB")
        arguments = self.restore("--to-volume", "t", "--yes")
        for _ in range(TRIES):
            in_the_middle, code, output = self.interrupt(arguments, lambda _: self.a.kill())
            self.a.start()
            harness.wait_until(lambda: self.a.serves("t"), "the volume to be served again")
            if in_the_middle:
                break
        self.assertIn(code, (FAILED, UNREACHABLE), output)
        self.assertIn("volume t holds only a part now: restore it again", output)
        self.assertNotEqual(self.a.read_all("t"), self.content)
        self.a.tandem(*arguments)
        self.assertEqual(self.a.read_all("t"), self.content)


if __name__ == "__main__":
    harness.main()
