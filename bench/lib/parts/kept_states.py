"""Snapshot, clone and rollback of an empty small volume and of a huge one with many snapshots."""

import random
import statistics

from lib.calls import Calls
from lib.figures import at_most
from lib.operations import GIB, stopwatch

BLOCK = 4096
MS = 1000.0
LIMIT = at_most(10)
SAME = at_most(2)  # milliseconds between the two volumes
VERBS = ("snapshot create", "clone", "snapshot rollback")


class Subject:
    """A group on a node of its own, with so many snapshots, something written before each."""

    def __init__(self, part, title, size, snapshots, written):
        self.part, self.title, self.size, self.written = part, title, size, written
        self.node = part.node(f"node-{len(part.nodes)}", pool=64 * GIB)
        self.calls = Calls(self.node)
        self.chance = random.Random(1)
        self.times = {}  # (verb, how) -> seconds of each time
        self.known = {}  # snapshot -> (offset, content)
        self.node.tandem("volume", "create", "v", "--size", f"{size // GIB}GiB")
        with self.node.nbd("v") as disk:
            for number in range(snapshots):
                self.known[f"s{number}"] = self.write(disk, 4)
                self.calls.snapshot("v", f"s{number}")

    def write(self, disk, blocks):
        """Some random blocks; the last one's place and content."""
        at, content = 0, b""
        for _ in range(blocks):
            at = self.chance.randrange(self.size // BLOCK) * BLOCK
            content = self.chance.randbytes(BLOCK)
            disk.pwrite(content, at)
        return at, content

    def write_more(self, blocks):
        with self.node.nbd("v") as disk:
            return self.write(disk, blocks) if blocks else None

    def note(self, verb, how, seconds):
        self.times.setdefault((verb, how), []).append(seconds)

    def once(self, how):
        """Each of the three, beside what a command that only asks takes."""
        run, calls, tandem = stopwatch, self.calls, self.node.tandem
        by_call = how == "call"
        self.note("status", how, run(lambda: tandem("status")))
        self.write_more(self.written)
        self.note("snapshot create", how, calls.snapshot("v", "x") if by_call else
                  run(lambda: tandem("snapshot", "create", "v", "x")))
        self.note("clone", how, calls.clone("v", "x", "c") if by_call else
                  run(lambda: tandem("clone", "v@x", "c")))
        last = self.write_more(max(self.written, 1))
        self.note("snapshot rollback", how, calls.roll_back("v", "x", "b") if by_call else
                  run(lambda: tandem("snapshot", "rollback", "v", "x", "--branch", "b", "--yes")))
        with self.node.nbd("v") as disk:
            if bytes(disk.pread(BLOCK, last[0])) == last[1]:
                raise RuntimeError("the rollback undid nothing")
        calls.delete_group("c")
        calls.delete_snapshot("v", "b")
        calls.delete_snapshot("v", "x")

    def median(self, verb, how):
        return MS * statistics.median(self.times[verb, how])

    def net(self, verb):
        return self.median(verb, "command") - self.median("status", "command")

    def check(self):
        for name in list(self.known)[::max(1, len(self.known) // 20)]:
            at, content = self.known[name]
            with self.node.nbd(f"v@{name}") as disk:
                if bytes(disk.pread(BLOCK, at)) != content:
                    raise RuntimeError(f"{name} has other content at {at}")


def measure(part):
    many = part.choose(1000, 50)
    subjects = [Subject(part, "empty 1 GiB", GIB, 0, 0),
                Subject(part, f"16 TiB, {many:,} snapshots", 16 << 40, many, 16)]
    for _ in range(part.choose(15, 4)):
        for subject in subjects:
            for how in ("call", "command"):
                subject.once(how)
    small, large = subjects
    for verb in VERBS:
        for subject in subjects:
            worst = MS * max(subject.times[verb, "call"])
            part.add(f"{verb}, {subject.title}: call", subject.median(verb, "call"), "ms", LIMIT,
                     f"slowest {worst:.1f} ms")
            part.add(f"{verb}, {subject.title}: command, net", subject.net(verb), "ms", LIMIT,
                     f"{subject.median(verb, 'command'):.1f} ms, of which `tandem status` takes "
                     f"{subject.median('status', 'command'):.1f} ms")
        part.add(f"{verb}: what the large one takes longer (call)",
                 large.median(verb, "call") - small.median(verb, "call"), "ms", SAME)
    large.check()
    part.verified.append("snapshots: samples hold what was written before each")
    part.check_pools()
