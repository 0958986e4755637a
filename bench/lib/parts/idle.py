"""What a pair with many mirrored volumes costs while nobody uses it."""

import time

from lib.figures import at_most
from lib.machine import MIB
from lib.operations import GIB, run_seconds


def measure(part):
    count = part.choose(20, 4)
    seconds = part.choose(20, 5)
    primary, mirror = part.pair(pool=8 * GIB, tls=True)
    names = [f"v{number}" for number in range(count)]
    for name in names:
        part.volume(primary, name, 16 * MIB)
        primary.tandem("mirror", "add", name, mirror.service, "--mode", "sync")
    for name in names:
        part.in_sync(primary, name)
    time.sleep(part.choose(10, 3))
    nodes = {"primary": primary, "mirror": mirror}
    before = {name: run_seconds(node.process.pid) for name, node in nodes.items()}
    begin = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - begin
    for name, node in nodes.items():
        used = run_seconds(node.process.pid) - before[name]
        part.add(f"{name} of {count} mirrored groups, idle", 100 * used / elapsed, "% of a core",
                 at_most(0.5), f"over {elapsed:.0f} s, mutual TLS")
    for name in names[::max(1, count // 4)]:
        part.check_copies(primary, name)
    part.check_pools()
