"""Resident memory with the default configuration and a huge volume."""

import time

from lib import load
from lib.figures import at_most
from lib.machine import MIB, parse_size
from lib.operations import DEFAULTS, GIB, resident_bytes

TIB = 1 << 40
VOLUME = 16 * TIB


def measure(part):
    memory = {name: parse_size(text) for name, text in DEFAULTS["memory"].items()}
    bound = sum(memory.values())
    node = part.node(pool=TIB)
    pid = node.process.pid
    empty, _ = resident_bytes(pid)
    program = empty - memory["buffers"]  # these are pinned from the start
    node.tandem("volume", "create", "v", "--size", "16TiB")
    background = load.Background(part.harness, part.directory, node.uri("v"), VOLUME)
    part.loads.append(background)
    seen = []
    for _ in range(part.choose(60, 10)):
        time.sleep(0.5)
        background.require_running()
        seen.append(resident_bytes(pid)[0])
    background.stop()
    part.loads.remove(background)
    most = resident_bytes(pid)[1]
    group = node.group("v")
    part.add("resident, empty node", empty / MIB, "MiB",
             note=f"its buffers are pinned; the program itself is {program / MIB:.0f} MiB")
    part.add("resident at most, random writes over 16 TiB", most / MIB, "MiB",
             note=f"at the end {seen[-1] / MIB:.0f} MiB; {group['data_bytes'] / GIB:.2f} GiB of "
             f"data, {group['map_bytes'] / GIB:.2f} GiB of maps on the disk, a pool of 1 TiB")
    part.add("that, without the program itself", (most - program) / MIB, "MiB",
             at_most(bound / MIB), "the bound is map_cache + buffers")
    part.add("that per TiB of volume", most / MIB / (VOLUME / TIB), "MiB")
    part.settled(node)
    part.check_pools()
