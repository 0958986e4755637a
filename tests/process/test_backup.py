"""Backups of real nodes, and what they are made of: diff tells exactly what was written; a full backup
and increments restore to each of their points, byte by byte, also across a failover and a resize; a
flipped bit anywhere is found by name.
"""

import json
import os

import harness
from backup_support import BackupTest, FAILED, NOT_FOUND, REFUSED, USAGE
from harness import MIB, nbd


@harness.needs_nbd
class Diff(BackupTest):
    def extents(self, node, *arguments):
        told = node.tandem("diff", *arguments, json_output=True)
        self.assertEqual(told["changed_bytes"], sum(e["length"] for e in told["extents"]))
        return told, [(e["offset"], e["length"], e["zero"]) for e in told["extents"]]

    def snapshot(self, name):
        self.a.tandem("snapshot", "create", "g", name)
        harness.wait_until(lambda: name in self.snapshots(self.b), f"{name} on the mirror")

    def test_it_tells_what_was_written(self):
        random = harness.chance("diff")
        with self.a.nbd("v") as disk:
            disk.pwrite(b"a" * 8 * MIB, 0)
        self.snapshot("s1")
        # Single blocks at random, none beside another, and a part that goes away.
        blocks = sorted(random.sample(range(4 * 256, 16 * 256, 2), 300))
        with self.a.nbd("v") as disk:
            for block in blocks:
                disk.pwrite(b"b" * 4096, block * 4096)
            disk.trim(MIB, 2 * MIB)
        written = sorted([(block * 4096, 4096, False) for block in blocks] +
                         [(2 * MIB, MIB, True)])
        self.snapshot("s2")
        with self.a.nbd("v") as disk:
            disk.pwrite(b"c" * 4096, 60 * MIB)
        for node in (self.a, self.b):
            told, extents = self.extents(node, "v@s2", "--from", "s1")
            self.assertEqual(extents, written)
            self.assertEqual((told["from"]["snapshot"], told["to"]["snapshot"]), ("s1", "s2"))
            self.assertEqual(self.extents(node, "v", "--from", "s1", "--to", "s2")[1], written)
        told, extents = self.extents(self.a, "v", "--from", "s1")
        self.assertEqual(extents, written + [(60 * MIB, 4096, False)])
        self.assertIsNone(told["to"])
        self.assertEqual(self.extents(self.a, "v@s2", "--from", "s2")[1], [])

    def test_what_it_says(self):
        self.snapshot("s1")
        self.fill(harness.chance("diff"), [(MIB, 8192)])
        self.snapshot("s2")
        lines = self.a.tandem("diff", "v", "--from", "s1").stdout.splitlines()
        self.assertEqual(lines[0].split(), ["OFFSET", "LENGTH", "CONTENT"])
        self.assertEqual(lines[1].split(), [str(MIB), "8192", "data"])
        self.assertIn("8 KiB in 1 run differs between snapshot s1", lines[2])
        self.assertEqual(len(lines), 3)
        lines = self.b.tandem("diff", "v@s2", "--from", "s1", "--summary").stdout.splitlines()
        self.assertEqual(len(lines), 1)
        self.assertNotIn("extents",
                         self.a.tandem("diff", "v", "--from", "s1", "--summary", json_output=True))
        self.fails(NOT_FOUND, "no node has snapshot s9 of volume v and snapshot s1", "diff",
                   "v@s9", "--from", "s1")
        self.fails(NOT_FOUND, "no node has volume no", "diff", "no", "--from", "s1")
        self.fails(USAGE, "--from is required", "diff", "v")
        self.fails(USAGE, "once", "diff", "v@s1", "--from", "s1", "--to", "s2")
        # The mirror serves snapshots only.
        self.assertEqual(self.b.tandem("diff", "v", "--from", "s1", check=False).returncode,
                         NOT_FOUND)

    def test_where_the_exports_are_can_be_said(self):
        self.snapshot("s1")
        self.fill(harness.chance("diff"), [(0, 4096)])
        for where in (self.a.nbd_tcp, f"unix:{self.a.socket}"):
            _, extents = self.extents(self.a, "v", "--from", "s1", "--nbd", where)
            self.assertEqual(extents, [(0, 4096, False)])
        self.fails(USAGE, "--node alone", "diff", "v", "--from", "s1", "--nbd", self.a.nbd_tcp)


@harness.needs_nbd
class Points(BackupTest):
    def test_each_point_comes_back(self):
        random = harness.chance("backup")
        images = {}
        self.fill(random, [(0, 5 * MIB), (40 * MIB, 3 * MIB + 8192)])
        first = self.create()
        images[1] = self.a.read_all("v")
        self.assertEqual((first["number"], first["kind"], first["full_because"]),
                         (1, "full", "it is the first"))
        self.assertEqual(first["volumes"][0]["data_bytes"], 8 * MIB + 8192)

        with self.a.nbd("v") as disk:
            disk.pwrite(b"compressible" * 4096, MIB)
            disk.pwrite(b"\0" * MIB, 2 * MIB)       # zeroes that the pool stores
            disk.trim(MIB, 3 * MIB)
            disk.trim(MIB, 20 * MIB)                # nothing was there
            disk.pwrite(b"x" * 512, 63 * MIB)
        second = self.create()
        images[2] = self.a.read_all("v")
        self.assertEqual((second["kind"], second["from"], second["full_because"]),
                         ("increment", 1, None))
        self.assertEqual(second["volumes"][0]["data_bytes"], 12 * 4096 + 4096)
        self.assertEqual(second["volumes"][0]["zero_bytes"], 2 * MIB)
        self.assertLess(second["file_bytes"], 4096)

        # The snapshots that no later increment needs are gone, on both nodes.
        for node in (self.a, self.b):
            self.assertEqual(self.snapshots(node), [second["snapshot"]["name"]])

        # The volume grows, and another one comes into the group.
        self.a.tandem("volume", "resize", "v", "--size", "96MiB")
        self.a.tandem("volume", "create", "w", "--size", "8MiB", "--group", "g")
        self.fill(random, [(90 * MIB, MIB)])
        with self.a.nbd("w") as disk:
            disk.pwrite(b"w" * MIB, MIB)
        third = self.create()
        images[3] = self.a.read_all("v")
        self.assertEqual([(v["name"], v["based"]) for v in third["volumes"]],
                         [("v", True), ("w", False)])
        self.assertEqual(third["volumes"][0]["data_bytes"], MIB)

        # After a failover the other node goes on from the snapshot that it has, too.
        self.a.kill()
        self.promote(self.b, "g")
        with self.b.nbd("v") as disk:
            disk.pwrite(b"after" * 8192, 70 * MIB)
        fourth = self.b.tandem("backup", "create", "g", self.backup, json_output=True)
        images[4] = self.b.read_all("v")
        self.assertEqual((fourth["kind"], fourth["node"]), ("increment", "node-b"))

        self.assertEqual(len(set(images.values())), 4)
        for point, image in images.items():
            volume = ("--volume", "v") if point > 2 else ()
            self.assertEqual(self.restored(point, volume=volume), image, f"point {point}")
        self.assertEqual(self.restored(4, "--yes", volume=("--volume", "w")),
                         self.b.read_all("w"))
        self.check_listing()
        self.check_volume_targets(images)

    def check_listing(self):
        listed = self.b.tandem("backup", "list", self.backup, json_output=True)
        self.assertEqual([(p["number"], p["kind"]) for p in listed["points"]],
                         [(1, "full"), (2, "increment"), (3, "increment"), (4, "increment")])
        text = self.b.tandem("backup", "list", self.backup).stdout
        self.assertIn("since 2", text)
        self.assertIn("v 96 MiB, w 8 MiB", text)
        verified = self.b.tandem("backup", "verify", self.backup, json_output=True)
        self.assertEqual(verified, {"ok": True, "whole": [1, 2, 3, 4], "damages": []})

    def check_volume_targets(self, images):
        restore = ["restore", self.backup, "--volume", "v", "--to-volume"]
        self.b.tandem("volume", "create", "new", "--size", "100MiB")
        self.b.tandem(*restore, "new", "--point", "1")  # empty: nothing to ask
        self.assertEqual(self.b.read_all("new"), images[1] + bytes(36 * MIB))
        with self.b.nbd("new") as disk:  # and no space for what is zero
            self.assertLess(self.allocated(disk), 9 * MIB)
        refused = self.b.tandem(*restore, "new", check=False)
        self.assertEqual(refused.returncode, REFUSED)
        self.assertIn("--yes", refused.stderr)
        with self.b.nbd("new") as disk:
            disk.pwrite(b"old" * 4096, 97 * MIB)
        self.b.tandem(*restore, "new", "--yes")
        self.assertEqual(self.b.read_all("new"), images[4] + bytes(4 * MIB))
        self.b.tandem("volume", "create", "small", "--size", "95MiB")
        refused = self.b.tandem(*restore, "small", check=False)
        self.assertEqual(refused.returncode, REFUSED)
        self.assertIn("volume resize", refused.stderr)
        self.assertEqual(self.b.tandem(*restore, "none", check=False).returncode, NOT_FOUND)

    @staticmethod
    def allocated(disk):
        found = []
        disk.block_status(disk.get_size(), 0, lambda name, at, extents, _: found.extend(
            extents[i] for i in range(0, len(extents), 2) if extents[i + 1] & nbd.STATE_HOLE == 0))
        return sum(found)

    def test_what_is_refused(self):
        self.fill(harness.chance("backup"), [(0, MIB)])
        self.create()
        image = self.directory / "disk.img"
        image.write_bytes(b"precious")
        self.fails(REFUSED, "--yes", "restore", self.backup, "--to-file", image)
        self.assertEqual(image.read_bytes(), b"precious")
        self.both("restore", self.backup, "--to-file", image, "--yes")
        self.assertEqual(image.read_bytes(), self.a.read_all("v"))
        self.assertLess(image.stat().st_blocks * 512, 2 * MIB)  # sparse
        self.fails(USAGE, "", "restore", self.backup)
        self.fails(USAGE, "", "restore", self.backup, "--to-file", image, "--to-volume", "v")
        self.fails(NOT_FOUND, "no point 7", "restore", self.backup, "--point", "7", "--to-file",
                   image)
        self.fails(NOT_FOUND, "has no volume x", "restore", self.backup, "--volume", "x",
                   "--to-file", image)
        self.fails(NOT_FOUND, "there is no group no", "backup", "create", "no", self.backup)
        self.fails(NOT_FOUND, "no backup", "backup", "verify", self.directory)
        # Another group's directory.
        self.a.tandem("volume", "create", "other", "--size", "1MiB")
        self.fails(REFUSED, "another group", "backup", "create", "other", self.backup)
        self.fails(NOT_FOUND, "backup create g DIRECTORY --volume v", "backup", "create", "v",
                   self.backup)
        with open(self.backup / "lock", "rb") as lock:
            harness.fcntl.flock(lock, harness.fcntl.LOCK_EX)
            self.fails(FAILED, "another tandem is writing", "backup", "create", "g", self.backup)

    def test_without_the_last_snapshot_it_is_a_full_one(self):
        self.fill(harness.chance("backup"), [(0, MIB)])
        name = self.create()["snapshot"]["name"]
        self.a.tandem("snapshot", "delete", "g", name, "--everywhere", "--yes")
        told = self.both("backup", "create", "g", self.backup).stdout
        self.assertIn(f"This is a full backup: snapshot {name}, of which point 1 was made, is gone",
                      told)
        # On one node it is enough.
        name = self.create()["snapshot"]["name"]
        self.a.tandem("snapshot", "delete", "g", name, "--yes")
        third = self.create()
        self.assertEqual((third["kind"], third["node"]), ("increment", "node-b"))
        self.assertEqual(self.create("--full")["full_because"], "as told")
        # Of a snapshot that somebody else made, and keeps.
        self.a.tandem("snapshot", "create", "g", "mine")
        harness.wait_until(lambda: "mine" in self.snapshots(self.b), "it on the mirror")
        self.assertEqual(self.create("--snapshot", "mine")["kind"], "increment")
        self.fails(FAILED, "already", "backup", "create", "g", self.backup, "--snapshot", "mine")
        self.create()
        self.assertIn("mine", self.snapshots(self.a))
        for point in range(2, 8):
            self.assertEqual(self.restored(point), self.a.read_all("v"))


@harness.needs_nbd
class Damaged(BackupTest):
    def test_every_flipped_bit_is_found_by_name(self):
        random = harness.chance("backup.damage")
        for _ in range(3):
            self.fill(random, [(random.randrange(60) * MIB, 2 * MIB)])
            self.create()
        image = self.directory / "image"
        for file in sorted(self.backup.glob("0*/*")):
            number = int(file.parent.name)
            size = file.stat().st_size
            for offset in (0, 40, size - 1, random.randrange(size)):
                with self.subTest(f"{number}/{file.name} at {offset}"):
                    harness.corrupt(file, offset)
                    self.check(number, file, image)
                    harness.corrupt(file, offset)
        for file in sorted(self.backup.glob("0*/*.data")):
            whole = file.read_bytes()
            for cut in (b"", whole[:-1], whole[:100], whole + b"x"):
                file.write_bytes(cut)
                self.check(int(file.parent.name), file, image)
            file.write_bytes(whole)
        self.a.tandem("backup", "verify", self.backup)
        self.assertEqual(self.restored(3), self.a.read_all("v"))

    def check(self, number, file, image):
        """verify names the point and the file; what needs it cannot be restored, the rest can."""
        verified = self.a.tandem("--json", "backup", "verify", self.backup, check=False)
        self.assertEqual(verified.returncode, FAILED, verified.stdout)
        verdict = json.loads(verified.stdout)
        self.assertEqual(verdict["whole"], list(range(1, number)))
        of_it = [d["what"] for d in verdict["damages"] if d["point"] == number]
        self.assertTrue(of_it, verdict)
        if file.suffix == ".data":
            self.assertIn(str(file), of_it[0])
        else:
            self.assertTrue("manifest" in of_it[0] or "SHA256SUMS" in of_it[0], of_it)
        refused = self.a.tandem("restore", self.backup, "--to-file", image, check=False)
        self.assertEqual(refused.returncode, FAILED)
        self.assertFalse(image.exists())
        if number > 1:
            self.a.tandem("backup", "verify", self.backup, "--point", str(number - 1))

    @harness.needs_program("sha256sum")
    def test_other_programs_can_check_it(self):
        self.fill(harness.chance("backup.damage"), [(0, MIB)])
        self.create()
        harness.run("sha256sum", "--check", "SHA256SUMS", cwd=self.backup / "000001")
        harness.corrupt(self.backup / "000001" / "volume-1.data", 1000)
        found = harness.run("sha256sum", "--check", "SHA256SUMS", cwd=self.backup / "000001",
                            check=False)
        self.assertIn("volume-1.data: FAILED", found.stdout)


@harness.needs_nbd
class SmallRequests(BackupTest):
    def test_a_node_that_takes_only_small_requests(self):
        node = self.node("node-c", config={"nbd": {"request_bytes_max": "64KiB"}}).start()
        node.tandem("volume", "create", "t", "--size", "8MiB")
        node.tandem("volume", "create", "u", "--size", "8MiB")
        image = harness.chance("small").randbytes(3 * MIB) + bytes(5 * MIB)
        with node.nbd("t") as disk:
            for at in range(0, 3 * MIB, 65536):
                disk.pwrite(image[at:at + 65536], at)
            with self.assertRaises(nbd.Error):
                disk.set_strict_mode(0)
                disk.pread(MIB, 0)
        node.tandem("backup", "create", "t", self.backup)
        node.tandem("restore", self.backup, "--to-volume", "u")
        self.assertEqual(node.read_all("u", piece=65536), image)
        # Over what is there: the zeroes, too.
        with node.nbd("u") as disk:
            disk.pwrite(b"x" * 65536, 7 * MIB)
        node.tandem("restore", self.backup, "--to-volume", "u", "--yes")
        self.assertEqual(node.read_all("u", piece=65536), image)


@harness.needs_nbd
class OverTls(BackupTest):
    def test_exports_with_tls_are_read_with_the_same_certificate(self):
        temporary = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = str(self.directory)
        self.addCleanup(os.environ.update if temporary else os.environ.pop,
                        {"TMPDIR": temporary} if temporary else "TMPDIR")
        certificates = self.certificates()
        node = self.node("node-c", config={"nbd": {
            "certificate": str(certificates / "node-c.crt"),
            "key": str(certificates / "node-c.key"),
            "client_ca": str(certificates / "ca.crt")}})
        node.tables["nbd"]["listen"] = [node.nbd_tcp]
        node.write_config()
        node.start()
        node.tandem("volume", "create", "t", "--size", "8MiB")
        done = node.tandem("backup", "create", "t", self.directory / "t", json_output=True)
        self.assertEqual(done["volumes"][0]["data_bytes"], 0)
        self.assertEqual(node.tandem("diff", "t", "--from", done["snapshot"]["name"],
                                     json_output=True)["extents"], [])
        self.assertEqual(list(self.directory.glob("tandem-tls-*")), [])


if __name__ == "__main__":
    harness.main()
