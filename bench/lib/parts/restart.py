"""How long a daemon that was killed under full load is away."""

import re
import time

from lib import load
from lib.figures import at_most
from lib.machine import MIB
from lib.operations import GIB

LIMIT = at_most(2)


def first_read(part, node, volume):
    """Waits until a read through NBD succeeds."""
    def read():
        with node.nbd(volume) as disk:
            return len(disk.pread(4096, 0)) == 4096
    part.wait(read, "the first read", interval=0.002)


class Position:
    """Where the log is, and where the newest checkpoint."""

    def __init__(self, node, group):
        found = node.group(group)
        self.at = time.monotonic()
        self.head, self.checkpoint = found["head"]["lsn"], found["checkpoint"]
        self.unsaved = self.head - self.checkpoint


def wait_under_load(part, node, seconds):
    time.sleep(seconds)
    return Position(node, "g").unsaved


def wait_for_a_full_interval(part, node, seconds_max):
    """Until nearly as many records follow the newest checkpoint as ever do: what one whole interval
    between two checkpoints had tells how many."""
    end = time.monotonic() + seconds_max
    most, seen, here = 0, None, Position(node, "g")
    while time.monotonic() < end:
        here, last = Position(node, "g"), here
        if here.checkpoint != last.checkpoint:
            if seen is not None:
                most = max(most, last.unsaved)
            seen = here.checkpoint
        if most and here.unsaved >= 0.9 * most:
            break
        time.sleep(0.2)
    return here.unsaved


def replayed(node):
    """What the node says that it replayed when it started last."""
    text = node.log_path.read_text(errors="replace").rpartition("event=node.start")[2]
    found = re.search(r"event=group\.(?:recovered|opened) [^\n]*", text)
    return found.group(0) if found else ""


def kill_and_start(part, node, ledger_volume, wait):
    """(seconds until the first read, records since the last checkpoint)."""
    size = part.choose(4 * GIB, 512 * MIB)
    background = load.Background(part.harness, part.directory, node.uri("v"), size)
    part.loads.append(background)
    ledger = part.ledger(node, ledger_volume)
    records = wait()
    background.require_running()
    node.kill()
    ledger.end()
    background.kill()
    part.loads.remove(background)
    part.wait(lambda: part.harness.pools_are_free(node.pool), "the pool to be let go")
    begin = time.monotonic()
    node.spawn()
    first_read(part, node, "v")
    taken = time.monotonic() - begin
    part.say(f"restart: {taken:.2f} s after about {records:,} records; {replayed(node)}")
    part.wait(lambda: node.group("g") is not None, "the node to answer")
    part.check_ledger(ledger, node, ledger_volume)
    return taken, records


def measure(part):
    node = part.node(pool=part.choose(12, 3) * GIB)
    part.volume(node, "v", part.choose(4 * GIB, 512 * MIB), group="g")
    part.volume(node, "ledger", 64 * MIB, group="g", fill=False)
    runs = [kill_and_start(part, node, "ledger",
                           lambda: wait_under_load(part, node, part.choose(6, 2)))
            for _ in range(part.choose(3, 1))]
    taken, records = max(runs)
    part.add("killed under load: until the first read, slowest", taken, "s", LIMIT,
             f"of {len(runs)}; about {records:,} records since the last checkpoint")
    runs = [kill_and_start(part, node, "ledger",
                           lambda: wait_for_a_full_interval(part, node, part.choose(60, 15)))
            for _ in range(part.choose(2, 1))]
    taken, records = max(runs)
    part.add("the same, just before a checkpoint", taken, "s", LIMIT,
             f"slowest of {len(runs)}; about {records:,} records since the last checkpoint")
    part.check_pools()
