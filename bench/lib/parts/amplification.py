"""What uniform random overwriting of a full pool costs: bytes written, bytes used, and reading in
sequence afterwards; and what it costs to make whole zones again of what lies scattered then."""

import hashlib

from lib import load
from lib.figures import at_most
from lib.machine import MIB
from lib.operations import GIB, PIECE, space_of, written_bytes

BLOCK = 4096
FULL = 0.8
KEPT = 3
SHARE = 16  # a snapshot each time this part of the volume was overwritten: how often that is in
# time does not matter, only what each of them keeps; for 2 GiB, once a minute at 2 MiB/s
ZONE = 16 * MIB


def zones(size):
    return -(-int(size) // ZONE) * ZONE


class Sentinel:
    """A small volume of the same group that nobody touches between."""

    SIZE = 16 * MIB

    def __init__(self, part, node):
        self.node = node
        part.volume(node, "sentinel", self.SIZE, group="g")
        self.digest = self.read()

    def read(self):
        with self.node.nbd("sentinel") as disk:
            return hashlib.sha256(b"".join(bytes(disk.pread(PIECE, at)) for at in
                                           range(0, self.SIZE, PIECE))).hexdigest()

    def check(self, part):
        if self.read() != self.digest:
            raise RuntimeError("a volume that was not written has other content")
        part.verified.append("a volume beside it is unchanged")


def overwrite(node, size, times, step, snapshots):
    """Random overwrites of `times` the volume in steps, a snapshot after each with `snapshots`.
    Bytes written by the client."""
    written, names = 0, []
    for number in range(round(times * size / step)):
        _, operations = load.random_writes(node.uri("v"), size, io_size=step)
        written += operations * BLOCK
        if snapshots:
            names.append(f"s{number}")
            node.tandem("snapshot", "create", "g", names[-1])
            if len(names) > KEPT:
                node.tandem("snapshot", "delete", "g", names.pop(0), "--yes")
    return written


def compacted(part, node, title):
    """Zones that compaction gives back, and what is written for each byte of them."""
    free, before = space_of(node)["free_zones"], written_bytes(node.process.pid)
    scattered = space_of(node)["free"]
    started = node.tandem("pool", "compact", "g", check=False)
    what = f"{title}: zones that compaction gives back"
    if started.returncode != 0:
        part.add(what, 0, "MiB", None, started.stderr.strip())
        return

    def state():
        groups = node.tandem("pool", "show", json_output=True)["pools"][0]["groups"]
        return next(g["compaction"] for g in groups if g["group"] == "g")

    part.wait(lambda: state()["state"] != "running", "the compaction", timeout=3600)
    part.settled(node)
    end, back = state(), space_of(node)["free_zones"] - free
    part.add(what, back / MIB, "MiB", None,
             f"of {scattered / MIB:.0f} MiB that lay scattered; {end['moved_bytes'] / MIB:.0f} MiB "
             f"moved; {end['outcome'] or 'all that was planned'}")
    if back > 0:
        part.add(f"{title}: bytes written to the disk per byte of zones given back",
                 (written_bytes(node.process.pid) - before) / back)


def one(part, title, snapshots):
    size = part.choose(2 * GIB, GIB)
    times = part.choose(8, 1)
    step = size // SHARE
    held = KEPT * step if snapshots else 0
    pool = zones((size + held + Sentinel.SIZE) / FULL)
    node = part.node(f"node-{'s' if snapshots else 'n'}", pool=pool)
    part.volume(node, "v", size, group="g", fill=False)
    sentinel = Sentinel(part, node)
    load.sequential(node.uri("v"), "write", size)
    fresh = load.sequential(node.uri("v"), "read", size)
    before = written_bytes(node.process.pid)
    written = overwrite(node, size, times, step if snapshots else size, snapshots)
    # What the writes put off counts, too.
    part.settled(node)
    amplification = (written_bytes(node.process.pid) - before) / written
    space = space_of(node)
    live = space["data"] + space["snapshots"]
    used = space["sum"] - space["free_zones"] - space["free"] - space["fixed"]
    part.add(f"{title}: bytes written to the disk per byte of writes", amplification, "",
             at_most(1.3), f"{written / 1e9:.1f} GB of random writes in a pool of "
             f"{pool / GIB:.2f} GiB" +
             (f", a snapshot each {step >> 20} MiB, {KEPT} kept" if snapshots else ""))
    part.add(f"{title}: bytes used per live byte", used / live, "", None,
             f"live {live / GIB:.2f} GiB; log {(space['log'] + space['log_rest']) / MIB:.0f} MiB "
             f"(not all written), maps {space['maps'] / MIB:.0f} MiB, dead or not yet free "
             f"{(space['dead'] + space['freed'] + space['moving']) / MIB:.0f} MiB")
    scattered = load.sequential(node.uri("v"), "read", size)
    part.add(f"{title}: 1 MiB reads in sequence, QD8, after random overwriting", scattered / 1e6,
             "MB/s", None, f"{fresh / 1e6:,.0f} MB/s after writing in sequence")
    part.add(f"{title}: ratio of both", scattered / fresh)
    compacted(part, node, title)
    sentinel.check(part)
    node.stop()


def measure(part):
    one(part, "80 % full", False)
    one(part, "80 % full, snapshots", True)
    part.check_pools()
