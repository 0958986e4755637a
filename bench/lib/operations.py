"""What the parts of bench/operations share: nodes with the defaults of a real one, volumes, the
figures they find, and the proof at the end of each that nothing was lost."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import time

from lib.figures import Figure
from lib.machine import MIB
from lib.tandem_systems import pool_is_prepared

PIECE = 4 * MIB
GIB = 1 << 30
# tests/process/harness.py has small ones.
DEFAULTS = {"pool": {"zone_size": "16MiB"},
            "memory": {"map_cache": "256MiB", "buffers": "128MiB"},
            "replication": {"heartbeat": "1s", "timeout": "5s", "peer_wait": "10s"},
            "log": {"level": "info"}}


def mib(size):
    return f"{size // MIB}MiB"


class Part:
    """One measurement while it runs, in a directory of its own. A part is a function of it."""

    def __init__(self, name, harness, directory, quick, say):
        self.name, self.harness, self.quick, self.say = name, harness, quick, say
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="o-", dir=directory))
        self.nodes, self.loads, self.ledgers = [], [], []
        self.figures, self.verified = [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for load in self.loads:
            with contextlib.suppress(OSError, ValueError):
                load.kill()
        for ledger in self.ledgers:
            if ledger.process is not None and ledger.process.poll() is None:
                ledger.process.kill()
                ledger.process.wait()
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def choose(self, full, quick):
        return quick if self.quick else full

    def add(self, what, value, unit="", goal=None, note=""):
        figure = Figure(self.name, what, value, unit, goal, note)
        self.figures.append(figure)
        self.say(f"{self.name}: {' | '.join(figure.row())}")

    # --- nodes and volumes -----------------------------------------------------------------------

    def node(self, name="node-a", pool=GIB, tls=False, prepare="ahead"):
        """`prepare`: see pool.prepare; "all" is waited for."""
        certificates = None
        if tls:
            certificates = self.directory / "certificates"
            if not certificates.exists():
                self.harness.run(self.harness.REPOSITORY / "deploy" / "certificates", certificates,
                                 *(f"{n}:127.0.0.1,localhost" for n in ("node-a", "node-b")))
        config = DEFAULTS | {"pool": DEFAULTS["pool"] | {"prepare": prepare}}
        node = self.harness.Node(self.directory, name, certificates, pool_size=mib(pool),
                                 config=config)
        self.nodes.append(node)
        node.start()
        if prepare == "all":
            self.wait(lambda: pool_is_prepared(node), "the pool to be prepared")
        return node

    def pair(self, pool=GIB, tls=False, prepare="ahead"):
        return [self.node(name, pool, tls, prepare) for name in ("node-a", "node-b")]

    def volume(self, node, name, size, group=None, fill=True):
        node.tandem("volume", "create", name, "--size", mib(size), "--group", group or name)
        if fill:
            fill_volume(node, name, size)

    def wait(self, condition, what, timeout=300, interval=0.05):
        return self.harness.wait_until(condition, what, timeout, interval)

    def in_sync(self, primary, group):
        self.wait(lambda: primary.slot(group)["in_sync"], f"the mirror of {group} to be in sync")

    def has_all(self, primary, group):
        """Waits until the mirror of a group that nobody writes to has everything."""
        def everything():
            slot = primary.slot(group)
            return slot["state"] == "following" and slot["missing_records"] == 0
        self.wait(everything, f"the mirror of {group} to have everything")

    def settled(self, node):
        """Waits until what was deleted is free in the pool."""
        def still():
            space = space_of(node)
            return space["freed"] == 0 and space["moving"] == 0
        self.wait(still, "the pool to be quiet", interval=0.3)

    def ledger(self, node, volume, in_flight=2):
        """Notes in the background what of its writes is acknowledged."""
        ledger = self.harness.Ledger(self.directory)
        ledger.begin(node, volume, in_flight)
        self.ledgers.append(ledger)
        return ledger

    # --- nothing was lost ------------------------------------------------------------------------

    def check_ledger(self, ledger, node, volume):
        said = ledger.check(node, volume).strip()
        self.verified.append(f"ledger: {said}")

    def check_copies(self, node, group):
        """Each node reads its own copy of one snapshot."""
        said = node.tandem("verify", group, timeout=900).stdout.strip().splitlines()
        self.verified.append(f"tandem verify {group}: {said[-1]}")

    def check_pools(self):
        """Stops all nodes and reads every block of their pools."""
        for node in self.nodes:
            code = node.stop(timeout=120)
            if code != 0:
                raise RuntimeError(f"{node.name} ended with {code}: {node.log()}")
        for node in self.nodes:
            self.wait(lambda pool=node.pool: self.harness.pools_are_free(pool), "the pool")
            self.harness.run(self.harness.BIN / "tandem-inspect", node.pool, "verify",
                             timeout=1200)
        self.verified.append(f"tandem-inspect verify: {len(self.nodes)} pool(s) sound")


def fill_volume(node, name, size):
    with node.nbd(name) as disk:
        piece = os.urandom(PIECE)
        for at in range(0, size, PIECE):
            disk.pwrite(piece[:size - at], at)
        disk.flush()


def space_of(node):
    return node.tandem("pool", "show", json_output=True)["pools"][0]["space"]


def written_bytes(pid):
    """What a process gave to the block layer."""
    for line in pathlib.Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise RuntimeError("no write_bytes")


def run_seconds(pid):
    """Time on a processor of all its threads, those that ended too, to the nanosecond."""
    return time.clock_gettime(~pid << 3 | 2)  # what clock_getcpuclockid() gives


def resident_bytes(pid):
    """(now, at most so far)."""
    found = {}
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key in ("VmRSS", "VmHWM"):
            found[key] = int(value.split()[0]) << 10
    return found["VmRSS"], found["VmHWM"]


def stopwatch(action):
    """Seconds that it takes."""
    begin = time.monotonic()
    action()
    return time.monotonic() - begin
