"""From the operator's command to the first write that the promoted mirror acknowledges."""

import threading
import time

from lib import load
from lib.figures import at_most
from lib.machine import MIB
from lib.operations import GIB


class FirstWrite:
    """Tries in the background until a write is acknowledged."""

    def __init__(self, part, node, volume):
        self.at = None
        self.part, self.node, self.volume = part, node, volume
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        def write():
            with self.node.nbd(self.volume) as disk:
                disk.pwrite(b"p" * 4096, 0)
                return True
        self.part.wait(write, "the first write", timeout=60, interval=0.005)
        self.at = time.monotonic()

    def wait(self):
        self.thread.join()
        if self.at is None:
            raise RuntimeError("no write was acknowledged by the promoted node")
        return self.at


def promote(part, node, group, killed):
    """Seconds from the command that was obeyed, and from the death, to the first acknowledgement;
    and how many commands were refused, since the node had not noticed that the primary is gone."""
    first = FirstWrite(part, node, "v")
    refused = 0
    while True:
        begin = time.monotonic()
        if node.tandem("promote", group, "--yes", check=False).returncode == 0:
            break
        refused += 1
        if begin > killed + 60:
            raise RuntimeError("the promotion is refused for a minute")
        time.sleep(0.05)
    at = first.wait()
    return at - begin, at - killed, refused


def one_failover(part, primary, mirror, size):
    part.in_sync(primary, "g")
    background = load.Background(part.harness, part.directory, primary.uri("v"), size)
    part.loads.append(background)
    ledger = part.ledger(primary, "ledger")
    time.sleep(part.choose(5, 2))
    background.require_running()
    if not primary.slot("g")["in_sync"]:
        raise RuntimeError("the mirror was not in sync under load")
    primary.kill()
    killed = time.monotonic()
    background.kill()
    part.loads.remove(background)
    result = promote(part, mirror, "g", killed)
    ledger.end()
    part.check_ledger(ledger, mirror, "ledger")
    # The former primary follows; who was promoted before knows it already.
    primary.start()
    if not mirror.group("g")["slots"]:
        mirror.tandem("mirror", "add", "g", primary.service, "--mode", "sync")
    part.in_sync(mirror, "g")
    return result


def measure(part):
    size = part.choose(2 * GIB, 256 * MIB)
    primary, mirror = part.pair(pool=part.choose(8, 2) * GIB, tls=True)
    part.volume(primary, "v", size, group="g", fill=False)
    part.volume(primary, "ledger", 64 * MIB, group="g", fill=False)
    primary.tandem("mirror", "add", "g", mirror.service, "--mode", "sync")
    load.sequential(primary.uri("v"), "write", size)
    results = []
    for _ in range(part.choose(4, 2)):
        results.append(one_failover(part, primary, mirror, size))
        primary, mirror = mirror, primary
    taken, since_death, refused = max(results)
    part.add("from the command to the first acknowledged write, slowest", taken, "s", at_most(1),
             f"of {len(results)}, {since_death:.2f} s after the death of the primary; "
             f"{refused} earlier commands refused because it seemed alive")
    part.check_copies(primary, "g")
    part.check_pools()
