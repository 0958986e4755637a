"""Upgrades: pools that earlier releases wrote (fixtures/) open, hold what they held, and go on; a pool that
a later release wrote is refused with what to do, and not touched; a pair is upgraded one node at a time
while a guest writes.
"""

import hashlib
import json
import lzma
import os
import pathlib

import harness
from harness import MIB

BLOCK = 4096
CANNOT_START = 3
FIXTURES = pathlib.Path(__file__).resolve().parent / "fixtures"
VERSIONS = sorted(int(p.stem.removeprefix("pool-")) for p in FIXTURES.glob("pool-*.xz"))


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def crc32c(data):
    """CRC-32C (Castagnoli), for structures that a test writes as another release might."""
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


class PoolTest(harness.ClusterTest):
    def manifest(self, version):
        return json.loads((FIXTURES / f"pool-{version}.json").read_text())

    def unpack(self, version, **options):
        """A node, not started, whose pool is that fixture."""
        manifest = self.manifest(version)
        node = self.node(f"node-{version}", tls=False, **options)
        data = lzma.decompress((FIXTURES / f"pool-{version}.xz").read_bytes())
        self.assertEqual((len(data), sha256(data)), (manifest["bytes"], manifest["sha256"]))
        with open(node.pool, "wb") as pool:
            for at in range(0, len(data), MIB):
                piece = data[at:at + MIB]
                if piece.count(0) != len(piece):
                    pool.seek(at)
                    pool.write(piece)
            pool.truncate(len(data))
        return node

    def start(self, node):
        """Waits until it serves: it asks first at the mirror's old place, where nobody is."""
        node.start()
        harness.wait_until(lambda: node.serves("v"), "group g to be served")

    def assert_holds(self, node, exports):
        for name, wanted in exports.items():
            with self.subTest(export=name):
                data = node.read_all(name)
                self.assertEqual((len(data), sha256(data)), (wanted["bytes"], wanted["sha256"]))


@harness.needs_nbd
class OldPools(PoolTest):
    def test_there_are_some(self):
        self.assertIn(2, VERSIONS)
        for version in VERSIONS:
            manifest = self.manifest(version)
            kinds = {s["kind"] for s in manifest["groups"]["g"]["snapshots"]}
            self.assertEqual(kinds, {"snapshot", "branch"})
            self.assertTrue(any(g["clone_of"] for g in manifest["groups"].values()))
            self.assertTrue(manifest["moments"])

    def test_each_is_sound_and_is_read_as_it_was_written(self):
        for version in VERSIONS:
            node, manifest = self.unpack(version), self.manifest(version)
            self.assert_sound(node)
            self.start(node)
            for name, wanted in manifest["groups"].items():
                group = node.group(name)
                head = {key: group["head"][key] for key in ("lsn", "digest", "timeline")}
                self.assertEqual(head, {key: wanted["head"][key] for key in head})
                for key in ("id", "role", "mode", "history", "parent", "clone_of", "volumes"):
                    self.assertEqual(group[key], wanted[key], (name, key))
                # A later release may know more of them.
                self.assertEqual(group["settings"] | wanted["settings"], group["settings"])
                self.assertEqual([s["address"] for s in group["slots"]], wanted["slots"])
                for snapshot, then in zip(group["snapshots"], wanted["snapshots"], strict=True):
                    self.assertEqual(snapshot | then, snapshot)
            self.assert_holds(node, manifest["exports"])
            self.assertEqual(node.stop(), 0)
            self.assert_sound(node)

    def test_each_goes_on(self):
        for version in VERSIONS:
            node, manifest = self.unpack(version), self.manifest(version)
            self.start(node)
            kept = {name: content for name, content in manifest["exports"].items() if "@" in name}
            for export in ("v", "w", "alone", "trial/v"):
                with node.nbd(export) as disk:
                    disk.pwrite(os.urandom(MIB), 0)
                    disk.flush()
            node.tandem("snapshot", "create", "g", "later")
            node.tandem("volume", "resize", "v", "--size", "16MiB")
            later = {e: {"bytes": len(d), "sha256": sha256(d)} for e in (
                "v", "w", "alone", "trial/v", "v@later", "w@later") for d in [node.read_all(e)]}
            node.kill()
            self.start(node)
            self.assert_holds(node, kept | later)
            node.tandem("snapshot", "rollback", "g", "one", "--branch", "newest", "--yes")
            one = manifest["exports"]["v@one"]
            self.assert_holds(node, {"v": one, "v@newest": later["v"], **kept})
            node.tandem("snapshot", "rollback", "g", "newest", "--yes")
            self.replicate(node, version, later)
            for name in ("abandoned", "one"):
                node.tandem("snapshot", "delete", "g", name, "--yes")
            self.assert_holds(node, {"v@two": kept["v@two"], "trial/v": later["trial/v"]})
            self.assertEqual(node.stop(), 0)
            self.assert_sound(node)

    def replicate(self, node, version, content):
        """To a mirror that this release made, and over to it."""
        mirror = self.node(f"mirror-{version}", tls=False).start()
        node.tandem("mirror", "remove", "g", self.manifest(version)["mirror"])
        node.tandem("mirror", "add", "g", mirror.service, "--mode", "sync")
        self.wait_in_sync(node, "g")
        checked = node.tandem("--node", mirror.service, "verify", "g")
        self.assertIn("the copies are identical", checked.stdout)
        node.tandem("switchover", "g")
        harness.wait_until(lambda: mirror.serves("v"), "the mirror to serve")
        self.assert_holds(mirror, {name: content[name] for name in ("v", "w")})
        self.wait_in_sync(mirror, "g")
        mirror.tandem("switchover", "g")
        harness.wait_until(lambda: node.serves("v"), "the node to serve again")
        self.assert_holds(node, {name: content[name] for name in ("v", "w")})
        self.assertEqual(mirror.stop(), 0)
        self.assert_sound(mirror)

    def test_the_history_of_each_is_there(self):
        for version in VERSIONS:
            node, manifest = self.unpack(version), self.manifest(version)
            self.start(node)
            moments = manifest["moments"].items()
            for at, (lsn, content) in enumerate(moments):
                node.tandem("recover", "g", "--at", lsn, "--name", f"then{at}")
                self.assert_holds(node, {f"then{at}/v": content})
            self.assertGreater(len(moments), 2)


@harness.needs_nbd
class NewerPools(PoolTest):
    """What the next release might leave behind: a structure of a version that nobody knows here."""

    def rewrite(self, node, block, change, crc_offset=8):
        """Changes a page and makes its checksum fit again."""
        with open(node.pool, "r+b") as pool:
            pool.seek(block * BLOCK)
            page = bytearray(pool.read(BLOCK))
            change(page)
            page[crc_offset:crc_offset + 4] = bytes(4)
            page[crc_offset:crc_offset + 4] = crc32c(page).to_bytes(4, "little")
            pool.seek(block * BLOCK)
            pool.write(page)
        return page

    def u64(self, node, block, offset):
        with open(node.pool, "rb") as pool:
            pool.seek(block * BLOCK + offset)
            return int.from_bytes(pool.read(8), "little")

    def anchors(self, node, group):
        """Both anchors of a group, the newer first."""
        groups = json.loads(harness.inspect(node.pool, "groups", "--json").stdout)["groups"]
        slot = next(g["slot"] for g in groups if g["name"] == group)
        return sorted((2 + 2 * slot, 3 + 2 * slot), key=lambda at: -self.u64(node, at, 40))

    def test_a_pool_is_refused_and_not_touched(self):
        node = self.unpack(VERSIONS[-1])
        for copy in (0, 1):
            self.rewrite(node, copy, lambda page: page.__setitem__(4, page[4] + 1))
        before = sha256(node.pool.read_bytes())
        for extra in ((), ("--create-pool",)):
            node.spawn(*extra)
            self.assertEqual(node.wait_exit(), CANNOT_START)
            for words in (str(node.pool), "has format version 2", "this build knows version 1",
                          "upgrade this node"):
                self.assertIn(words, node.log(1))
            self.assertNotIn("anew", node.log(1))
        self.assertEqual(sha256(node.pool.read_bytes()), before)
        looked = harness.inspect(node.pool, "verify", check=False)
        self.assertEqual(looked.returncode, 2)
        self.assertIn("upgrade", looked.stdout + looked.stderr)

    def assert_only_g_is_refused(self, node, version, *blocks):
        """Group g stays closed and as it is, its clones with it; the others go on."""
        def pages():
            with open(node.pool, "rb") as pool:
                return [os.pread(pool.fileno(), BLOCK, at * BLOCK) for at in blocks]
        before = pages()
        node.start()
        closed = {g["name"]: g for g in node.status()["groups"] if g["state"] == "stopped"}
        reasons = " ".join(g["reason"] for g in closed.values())
        self.assertIn(f"has format version {version}", reasons)
        self.assertIn("upgrade this node", reasons)
        self.assertFalse(node.serves("v"))
        self.assert_holds(node, {"alone": self.manifest(VERSIONS[-1])["exports"]["alone"]})
        with node.nbd("alone") as disk:
            disk.pwrite(os.urandom(MIB), 0)
            disk.flush()
        self.assertEqual(node.stop(), 0)
        self.assertEqual(pages(), before)

    def test_a_group_with_a_newer_descriptor_is_refused_alone(self):
        node = self.unpack(VERSIONS[-1])
        anchors = self.anchors(node, "g")
        descriptor = self.u64(node, anchors[0], 64)
        version = 1000

        def newer(page):
            # Behind the head of its first chain block: magic, version.
            self.assertEqual(page[64:68], b"TDDG")
            page[68:72] = version.to_bytes(4, "little")
        page = self.rewrite(node, descriptor, newer)
        for at in anchors:
            if self.u64(node, at, 64) == descriptor:
                self.rewrite(node, at, lambda anchor: anchor.__setitem__(
                    slice(72, 76), crc32c(page).to_bytes(4, "little")))
        self.assert_only_g_is_refused(node, version, *anchors, descriptor)

    def test_a_group_with_a_newer_log_is_refused_alone(self):
        node = self.unpack(VERSIONS[-1])
        log = json.loads(harness.inspect(node.pool, "log", "--group", "g", "--limit", "100000",
                                         "--json").stdout)
        place = next(r["page"] for r in log["records"] if r["behind_checkpoint"])
        self.rewrite(node, place, lambda page: page.__setitem__(4, 2))
        self.assert_only_g_is_refused(node, 2, *self.anchors(node, "g"), place)


@harness.needs_nbd
class RollingUpgrade(harness.ClusterTest):
    """Each node speaks at first no more than the first version of the protocol, as the first release did."""

    def upgrade(self, node):
        del node.tables["replication"]["protocol_max"]
        node.write_config()
        node.restart()

    def protocol(self, primary):
        self.wait_in_sync(primary, "v")
        return primary.slot("v")["protocol"]

    def written_by(self, name, primary):
        """A guest that writes until its server is gone."""
        directory = self.directory / name
        directory.mkdir()
        guest = harness.Ledger(directory)
        guest.begin(primary, "v")
        guest.wait_for(200)
        return guest

    def hand_over(self, primary, mirror, guest):
        """Nothing that was acknowledged is missing behind it."""
        primary.tandem("switchover", "v")
        harness.wait_until(lambda: mirror.serves("v"), "the other node to serve")
        guest.end()
        guest.check(mirror, "v")
        self.assertGreater(guest.acknowledged(), 200)

    def test_the_mirror_first_then_the_other_while_a_guest_writes(self):
        old = {"replication": {"protocol_max": 1}}
        a, b = (self.node(name, config=old).start() for name in ("node-a", "node-b"))
        self.replicated_volume(a, b, "v", size="32MiB")
        self.assertEqual(self.protocol(a), 1)
        guest = self.written_by("first", a)
        self.upgrade(b)
        self.assertEqual(self.protocol(a), 1, "the newest that both speak")
        guest.wait_for(200)
        a.tandem("snapshot", "create", "v", "mixed")
        self.hand_over(a, b, guest)
        self.assertEqual(self.protocol(b), 1)
        guest = self.written_by("second", b)
        self.upgrade(a)
        self.assertEqual(self.protocol(b), 3)
        guest.wait_for(200)
        self.assertEqual(a.read_all("v@mixed"), b.read_all("v@mixed"))
        b.tandem("--node", a.service, "verify", "v")
        self.hand_over(b, a, guest)
        self.assertEqual(self.protocol(a), 3)
        for node in (a, b):
            self.assertEqual(node.stop(), 0)
        self.assert_sound(a, b)


if __name__ == "__main__":
    harness.main()
