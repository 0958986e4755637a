"""A database keeps every transaction that it reported as committed when the primary is killed.

SQLite writes in a process of its own, on ext4 on a replicated volume; each number that its COMMIT
returned for goes to a file elsewhere. On the promoted mirror its own check passes, each of these
transactions is there, and none in part. In mode flush, too: it fsyncs what it reports.
"""

import contextlib
import random
import sqlite3
import subprocess
import time

import harness

# Without its journal file a transaction is committed. Only EXTRA makes that durable: FULL does
# not fsync the directory behind it, so that one more could be rolled back than with a WAL.
JOURNALS = {"wal": "FULL", "delete": "EXTRA"}
ROWS = 3  # in a transaction

WRITER = """
import random, sqlite3, sys
path, journal, synchronous, rows = sys.argv[1:]
database = sqlite3.connect(path, isolation_level=None)
assert database.execute(f"PRAGMA journal_mode={journal}").fetchone() == (journal,)
database.execute(f"PRAGMA synchronous={synchronous}")
database.execute("PRAGMA wal_autocheckpoint=50")
database.execute("CREATE TABLE entry(id INTEGER, part INTEGER, body BLOB, PRIMARY KEY(id, part))")
database.execute("CREATE TABLE total(entries INTEGER)")
database.execute("INSERT INTO total VALUES(0)")
number = 0
while True:
    number += 1
    body = random.Random(number).randbytes(700)
    database.execute("BEGIN")
    for part in range(int(rows)):
        database.execute("INSERT INTO entry VALUES(?, ?, ?)", (number, part, body))
    database.execute("UPDATE total SET entries = entries + ?", (int(rows),))
    database.execute("COMMIT")
    print(number, flush=True)
"""


class Writer:
    """SQLite on a mounted volume, until that fails."""

    def __init__(self, mount, journal, directory):
        self.report = directory / f"reported-{journal}"
        self.errors = directory / f"errors-{journal}"
        with open(self.report, "wb") as out, open(self.errors, "wb") as errors:
            self.process = subprocess.Popen(
                ["/usr/bin/python3", "-c", WRITER, mount.path / "database", journal,
                 JOURNALS[journal], str(ROWS)], stdin=subprocess.DEVNULL, stdout=out,
                stderr=errors, preexec_fn=harness.die_with_parent)

    def reported(self):
        """The last transaction that is certainly committed."""
        whole = self.report.read_text().rpartition("\n")[0]
        return int(whole.rpartition("\n")[2] or 0)


@harness.needs_nbd
@harness.needs_mounts
@harness.needs_program("mkfs.ext4", "e2fsck")
class Database(harness.ClusterTest):
    def check(self, path, reported):
        with contextlib.closing(sqlite3.connect(path)) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            rows = database.execute("SELECT id, part, body FROM entry ORDER BY id, part")
            found = 0
            for found, (number, part, body) in enumerate(rows, 1):
                # In order, without a gap, and each with all of its parts.
                self.assertEqual((number, part), ((found - 1) // ROWS + 1, (found - 1) % ROWS))
                self.assertEqual(body, random.Random(number).randbytes(700))
            self.assertEqual(found % ROWS, 0)
            self.assertEqual(database.execute("SELECT entries FROM total").fetchall(), [(found,)])
            self.assertGreaterEqual(found // ROWS, reported, "a committed transaction is lost")
            with database:
                database.execute("DELETE FROM entry WHERE id = 1")

    def survives(self, mode):
        chance = harness.chance("moment of the kill")
        a, b = self.start_pair()
        for journal in JOURNALS:
            a.tandem("volume", "create", journal, "--size", "48MiB", "--group", "g")
        a.tandem("mirror", "add", "g", b.service, "--mode", mode)
        # From here on writers wait for it.
        harness.wait_until(lambda: "slot.gated" in a.log(lines=10**6), "the mirror to count")
        mounts = {j: self.mount(a, j, mkfs="ext4").__enter__() for j in JOURNALS}
        writers = {j: Writer(mounts[j], j, self.directory) for j in JOURNALS}
        harness.wait_until(lambda: all(w.reported() >= 40 for w in writers.values()),
                           "transactions to be committed")
        time.sleep(chance.uniform(0, 0.3))
        for writer in writers.values():
            self.assertIsNone(writer.process.poll(), writer.errors.read_text())
        a.kill()
        for journal, writer in writers.items():
            self.assertNotEqual(writer.process.wait(harness.PATIENCE), 0)
            mounts[journal].abandon()
        self.promote(b, "g")
        for journal, writer in writers.items():
            with self.subTest(journal=journal), self.mount(b, journal) as again:
                self.check(again.path / "database", writer.reported())
                harness.run("umount", again.path)
                harness.run("e2fsck", "-fn", again.loop)
                harness.run("mount", again.loop, again.path)
        self.assertEqual(b.stop(), 0)
        self.assert_sound(a, b)

    def test_in_mode_sync(self):
        self.survives("sync")

    def test_in_mode_flush(self):
        self.survives("flush")


if __name__ == "__main__":
    harness.main()
