"""A mirror that was away catches up while the application goes on at half load."""

import time

from lib import load, machine
from lib.figures import at_least, slope
from lib.machine import MIB
from lib.operations import GIB

BLOCK = 4096
POLL_SECONDS = 0.4
APPLICATION_SHARE = 0.7  # of its rate: so much it must keep
RATE_STEP = 0.9
REMAINING_SECONDS = 0.25  # of the application's writes: no more missing is caught up


class Watch:
    """What the primary says of its mirror, now and then."""

    def __init__(self, part, primary):
        self.part, self.primary = part, primary
        self.written = []  # (time, LSN up to which the mirror has written everything)
        self.states = []

    def until_caught_up(self, half_rate, background):
        end = time.monotonic() + 240
        while time.monotonic() < end:
            background.require_running()
            group = self.primary.group("g")
            slot, now = group["slots"][0], time.time()
            if slot["state"] not in self.states:
                self.states.append(slot["state"])
            # Only from when it moves: until then the primary had not found it yet.
            if not self.written or slot["written"] > self.written[0][1]:
                self.written.append((now, slot["written"]))
            else:
                self.written = [(now, slot["written"])]
            missing = group["head"]["lsn"] - slot["written"]
            if slot["state"] == "following" and missing < half_rate * REMAINING_SECONDS:
                return
            time.sleep(POLL_SECONDS)
        raise RuntimeError("the mirror did not catch up within four minutes")


def raw_limits(part, half_rate):
    """Bytes/s of the disk alone: one sequential write; and the most that one stream of reads and
    one of writes can have at the same time, while the application's random writes still keep
    APPLICATION_SHARE: at full speed they would leave it nothing. With that share."""
    size = part.choose(2 * GIB, 512 * MIB)
    timed = load.timed(part.choose(3, 2))
    source, target, volume = files = [part.directory / f"raw-{name}" for name in "abc"]
    for path in files:
        load.run(load.on_file(path), load.job("fill", "write", 1 << 20, 8, size))
    told = load.run(load.on_file(target), load.job("alone", "write", 1 << 20, 8, size, **timed))
    alone = load.side_of(told[0], "write")["bw_bytes"]
    rate = alone / 2
    while True:
        stream = timed | {"rate": int(rate)}
        told = load.run(["--ioengine=io_uring", "--direct=1"],
                        load.job("read", "read", 1 << 20, 4, size, filename=source, **stream),
                        load.job("write", "write", 1 << 20, 4, size, filename=target, **stream),
                        load.job("app", "randwrite", BLOCK, 32, size, filename=volume,
                                 rate_iops=int(half_rate), **timed))
        share = told[2]["write"]["iops"] / half_rate
        if share >= APPLICATION_SHARE or rate < alone / 50:
            break
        rate *= RATE_STEP
    for path in files:
        path.unlink()
    return alone, min(load.side_of(told[0], "read")["bw_bytes"],
                      load.side_of(told[1], "write")["bw_bytes"]), share


def measure(part):
    size = part.choose(2 * GIB, 256 * MIB)
    away = part.choose(20, 4)
    # Prepared as a whole, since the raw files were written before, too.
    primary, mirror = part.pair(pool=part.choose(14, 3) * GIB, prepare="all")
    part.volume(primary, "v", size, group="g", fill=False)
    primary.tandem("mirror", "add", "g", mirror.service, "--mode", "async")
    load.sequential(primary.uri("v"), "write", size)
    part.has_all(primary, "g")
    full, _ = load.random_writes(primary.uri("v"), size, part.choose(8, 3))
    part.has_all(primary, "g")
    part.add("the application alone, random 4 KiB writes, QD32, async", full, "op/s")
    half = full / 2

    mirror.stop()
    background = load.Background(part.harness, part.directory, primary.uri("v"), size, half)
    part.loads.append(background)
    time.sleep(away)
    missing = primary.slot("g")["missing_bytes"]
    watch = Watch(part, primary)
    before = (time.time(), [machine.cpu_seconds(p.process.pid) for p in (primary,)],
              background.cpu_seconds())
    mirror.start()
    watch.until_caught_up(half, background)
    after = (time.time(), [machine.cpu_seconds(p.process.pid) for p in (primary, mirror)],
             background.cpu_seconds())
    samples = background.stop()
    part.loads.remove(background)

    begin, end = watch.written[0][0], watch.written[-1][0]
    rate = BLOCK * slope(watch.written)
    beside = load.rate_over(samples, begin, end)
    alone, possible, kept = raw_limits(part, half)
    elapsed = after[0] - before[0]
    cores = [(after[1][0] - before[1][0]) / elapsed, after[1][1] / elapsed,
             (after[2] - before[2]) / elapsed]
    part.add("the mirror catches up at", rate / 1e6, "MB/s", None,
             f"{missing / 1e6:,.0f} MB were missing, {end - begin:.1f} s; by way of "
             f"{', '.join(watch.states)}; processors busy: primary {cores[0]:.2f}, mirror "
             f"{cores[1]:.2f}, client {cores[2]:.2f} of {machine.describe()['cores']}")
    part.add("the raw disk, one sequential write", alone / 1e6, "MB/s")
    part.add("the raw disk, a stream read and one written beside the application's writes",
             possible / 1e6, "MB/s", None,
             f"the slower of both, as fast as they may be for the application to keep "
             f"{APPLICATION_SHARE:.0%}: it had {kept:.0%}")
    part.add("catching up / that", rate / possible, "", at_least(0.7),
             "one disk serves all: the log is read at the primary and written at the mirror while "
             "the application writes; the link is loopback and faster than this")
    part.add("the application meanwhile / its half load", beside / half, "",
             at_least(APPLICATION_SHARE),
             f"{beside:,.0f} of {half:,.0f} op/s; before, with the mirror away, "
             f"{load.rate_over(samples, before[0] - away + 1, before[0]):,.0f}")
    part.has_all(primary, "g")
    part.check_copies(primary, "g")
    part.check_pools()
