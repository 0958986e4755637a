"""Backups that end in the middle: SIGKILL, a full disk or the node's death cost neither what was copied nor
a snapshot, and the next run makes a whole point of it.
"""

import json
import os
import subprocess

import harness
from backup_support import BackupTest, FAILED, UNREACHABLE
from harness import MIB


@harness.needs_nbd
class Interrupted(BackupTest):
    def spawn(self, *nodes):
        command = [harness.BIN / "tandem", "--node", self.a.service, *nodes,
                   *self.a.credentials(), "--json", "backup", "create", "g", self.backup, "--zstd", "9"]
        return subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                preexec_fn=harness.die_with_parent)

    def copied(self):
        """The bytes of the unfinished data file."""
        files = list(self.backup.glob("*.partial/*.data"))
        try:
            return files[0].stat().st_size if files else 0
        except FileNotFoundError:  # whole meanwhile
            return 0

    def kill_at(self, goal):
        """Lets it run until so much was copied; whether it was killed in the middle."""
        process = self.spawn()
        while process.poll() is None and self.copied() < goal:
            harness.time.sleep(0.001)
        process.kill()
        process.communicate(timeout=harness.PATIENCE)
        return process.returncode < 0

    def backup_with_kills(self, random, goals):
        """Killed in the middle at each of the goals, then let through."""
        for goal in goals:
            self.assertTrue(self.kill_at(goal), "it was done before it could be killed")
            if self.copied():
                listed = self.a.tandem("backup", "list", self.backup, json_output=True)
                self.assertEqual(listed["interrupted"], len(listed["points"]) + 1)
                # A torn end, as a power cut leaves it.
                file = next(self.backup.glob("*.partial/*.data"))
                whole = file.read_bytes()
                file.write_bytes(whole[:-random.randrange(1, 4096)] + random.randbytes(17))
        process = self.spawn()
        out, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, 0, err)
        return json.loads(out)

    def test_sigkill_costs_little(self):
        random = harness.chance("backup.kill")
        self.fill(random, [(0, 40 * MIB)])
        # Before the snapshot or soon behind it; then ever further.
        goals = [0, 0, 1] + sorted(random.randrange(MIB, 36 * MIB) for _ in range(4))
        first = self.backup_with_kills(random, goals)
        self.assertEqual((first["number"], first["resumed"]), (1, True))
        self.assertEqual(self.restored(1), self.a.read_all("v"))
        old = self.a.read_all("v")
        self.fill(random, [(MIB, 30 * MIB)])
        with self.a.nbd("v") as disk:
            disk.trim(4 * MIB, 33 * MIB)
        second = self.backup_with_kills(random, [1, 10 * MIB, 25 * MIB])
        self.assertEqual((second["kind"], second["resumed"]), ("increment", True))
        self.assertEqual(self.restored(2), self.a.read_all("v"))
        self.assertEqual(self.restored(1, "--yes"), old)
        # No kill left a snapshot behind.
        self.assertEqual(self.snapshots(self.a), [second["snapshot"]["name"]])
        self.a.tandem("backup", "verify", self.backup)

    def test_what_was_copied_is_not_copied_again(self):
        random = harness.chance("backup.kill")
        self.fill(random, [(0, 40 * MIB)])
        self.assertTrue(self.kill_at(20 * MIB))
        file = next(self.backup.glob("*.partial/*.data"))
        inode, there = file.stat().st_ino, file.read_bytes()
        # What is written now is not in it: the snapshot is the one of the first run.
        old = self.a.read_all("v")
        self.fill(random, [(0, 40 * MIB)])
        done = self.create("--zstd", "0")
        file = self.backup / "000001" / "volume-1.data"
        self.assertEqual(file.stat().st_ino, inode)
        self.assertEqual(file.read_bytes()[:16 * MIB], there[:16 * MIB])
        self.assertTrue(done["resumed"])
        self.assertEqual(self.restored(1), old)

    def test_the_node_dies_in_the_middle(self):
        """The mirror has the snapshot, too; nothing is asked of a primary."""
        self.fill(harness.chance("backup.kill"), [(0, 40 * MIB)])
        old = self.a.read_all("v")
        process = self.spawn("--node", self.b.service)
        harness.wait_until(lambda: self.copied() > 8 * MIB, "something to be copied")
        self.a.kill()
        _, err = process.communicate(timeout=harness.PATIENCE)
        self.assertEqual(process.returncode, UNREACHABLE, err)
        self.assertIn("the same command goes on from here", err)
        done = self.create()
        self.assertEqual((done["resumed"], done["node"]), (True, "node-b"))
        self.assertEqual(self.restored(1), old)

    @harness.needs_mounts
    def test_a_full_disk_is_not_the_end(self):
        self.fill(harness.chance("backup.kill"), [(0, 20 * MIB)])
        self.backup.mkdir()
        harness.run("mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", self.backup)
        self.addCleanup(harness.run, "umount", self.backup, check=False)
        self.fails(FAILED, "No space left on device", "backup", "create", "g", self.backup)
        self.assertGreater(self.copied(), 5 * MIB)
        harness.run("mount", "-o", "remount,size=64M", self.backup)
        self.assertTrue(self.create()["resumed"])
        self.assertEqual(self.restored(1), self.a.read_all("v"))

    def test_a_bar_on_a_terminal_and_quiet_elsewhere(self):
        self.fill(harness.chance("backup.kill"), [(0, 8 * MIB)])
        screen, terminal = os.openpty()
        self.addCleanup(os.close, screen)
        command = [harness.BIN / "tandem", "--node", self.a.service, *self.a.credentials(),
                   "backup", "create", "g", self.backup]
        done = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=terminal, timeout=harness.PATIENCE)
        os.close(terminal)
        self.assertEqual(done.returncode, 0)
        self.assertTrue(done.stdout.startswith("This is a full backup: it is the first.\nPoint 1"))
        drawn = os.read(screen, 1 << 16).decode()
        self.assertIn("%  0 B of 8 MiB", drawn)
        self.assertTrue(drawn.endswith("\r\x1b[K"), repr(drawn))
        self.assertEqual(self.both("backup", "create", "g", self.backup).stderr, "")

    def test_what_cannot_be_gone_on_with_begins_anew(self):
        random = harness.chance("backup.kill")
        self.fill(random, [(0, 40 * MIB)])
        self.assertTrue(self.kill_at(10 * MIB))
        name, = self.snapshots(self.a)
        self.a.tandem("snapshot", "delete", "g", name, "--everywhere", "--yes")
        told = self.both("backup", "create", "g", self.backup).stdout
        self.assertIn("The interrupted point 1 is begun anew: no node has snapshot", told)
        self.assertEqual(self.restored(1), self.a.read_all("v"))
        self.fill(random, [(0, 40 * MIB)])
        self.assertTrue(self.kill_at(10 * MIB))
        done = self.create("--restart")
        self.assertEqual((done["number"], done["resumed"]), (2, False))
        self.assertEqual(self.snapshots(self.a), [done["snapshot"]["name"]])
        self.assertEqual(self.restored(2), self.a.read_all("v"))


if __name__ == "__main__":
    harness.main()
