"""What snapshots cost the writes around them."""

import statistics
import threading
import time

from lib import load
from lib.calls import Calls
from lib.figures import at_least
from lib.machine import MIB
from lib.operations import GIB

CONTEXT_SECONDS = 4  # between two snapshots whose first seconds are looked at


class EverySecond:
    """A snapshot each second while it is entered."""

    def __init__(self, calls):
        self.calls, self.names, self.failed = calls, [], None
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.work)

    def work(self):
        try:
            while not self.end.wait(1.0):
                name = f"s{time.monotonic_ns()}"
                self.calls.snapshot("v", name)
                self.names.append(name)
        except RuntimeError as error:
            self.failed = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.thread.join()
        if self.failed:
            raise self.failed


def one_round(part, node, calls, size, with_snapshots):
    seconds = part.choose(8, 3)
    if not with_snapshots:
        return load.random_writes(node.uri("v"), size, seconds)[0]
    with EverySecond(calls) as snapshots:
        rate = load.random_writes(node.uri("v"), size, seconds)[0]
    for name in snapshots.names:
        calls.delete_snapshot("v", name)
    part.settled(node)
    return rate


def first_seconds(part, node, calls, size):
    """Ratios of the second after a snapshot, and of the one after that, to the one before it."""
    background = load.Background(part.harness, part.directory, node.uri("v"), size)
    part.loads.append(background)
    moments = []
    for number in range(part.choose(8, 2)):
        time.sleep(CONTEXT_SECONDS)
        moments.append(time.time())
        calls.snapshot("v", f"m{number}")
    time.sleep(2.5)
    samples = background.stop()
    part.loads.remove(background)
    for number in range(len(moments)):
        calls.delete_snapshot("v", f"m{number}")
    ratios = []
    for at in moments:
        before = load.rate_over(samples, at - 1, at)
        ratios.append([load.rate_over(samples, at + s, at + s + 1) / before for s in (0, 1)])
    return [statistics.median(column) for column in zip(*ratios)]


def measure(part):
    size = part.choose(2 * GIB, 256 * MIB)
    node = part.node(pool=16 * GIB)
    calls = Calls(node)
    part.volume(node, "v", size)
    # Unmeasured: the pool's zones are written for the first time.
    one_round(part, node, calls, size, True)
    rates = {False: [], True: []}
    for _ in range(part.choose(5, 1)):
        for with_snapshots in rates:
            rates[with_snapshots].append(one_round(part, node, calls, size, with_snapshots))
    without, beside = (statistics.median(rates[key]) for key in (False, True))
    part.add("random 4 KiB writes, QD32, no snapshots", without, "op/s")
    part.add("the same, a snapshot every second", beside, "op/s")
    pairs = [b / w for w, b in zip(rates[False], rates[True])]
    part.add("ratio", beside / without, "", at_least(0.9),
             f"{len(pairs)} pairs of rounds, from {min(pairs):.2f} to {max(pairs):.2f}")
    first, second = first_seconds(part, node, calls, size)
    part.add("first second after a snapshot / the second before it", first, "", at_least(0.95),
             f"the second after that: {second:.2f}")
    part.settled(node)
    part.check_pools()
