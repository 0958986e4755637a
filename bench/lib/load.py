"""fio on an export or on a file: to its end, or in the background while something is done to the
servers."""

import json
import os
import pathlib
import signal
import subprocess
import time

from lib import machine
from lib.figures import rate_between

TELLING = ["fio", "--output-format=json", "--thread", "--norandommap", "--randrepeat=0",
           "--random_generator=tausworthe64", "--eta=never"]
INTERVAL_MS = 100  # of the rates that a background load notes


def job(name, mode, block, depth, size, **more):
    """The arguments of one job; more: fio's other options by name."""
    return [f"--name={name}", f"--rw={mode}", f"--bs={block}", f"--iodepth={depth}",
            f"--size={size}", *(f"--{key}={value}" for key, value in more.items())]


def on_export(uri):
    return ["--ioengine=nbd", f"--uri={uri}"]


def on_file(path):
    return ["--ioengine=io_uring", "--direct=1", f"--filename={path}"]


def timed(seconds):
    return {"time_based": 1, "runtime": seconds}


def side_of(told, mode):
    if told["error"]:
        raise RuntimeError(f"fio reports error {told['error']} in {told['jobname']}")
    side = told["read" if "read" in mode else "write"]
    if side["total_ios"] == 0:
        raise RuntimeError(f"no operation of {told['jobname']} was completed")
    return side


def parse(text):
    # fio may print notes in front of its JSON.
    return json.loads(text[text.index("{"):])["jobs"]


def run(engine, *jobs, timeout=900):
    """Runs fio to its end; what each job says, in their order."""
    result = subprocess.run([*TELLING, *engine, *(part for one in jobs for part in one)],
                            capture_output=True, text=True, check=False,
                            stdin=subprocess.DEVNULL, timeout=timeout)
    if result.returncode != 0:
        raise RuntimeError(f"fio failed: {(result.stderr + result.stdout)[-600:]}")
    return parse(result.stdout)


def random_writes(uri, size, seconds=None, depth=32, **more):
    """4 KiB random writes: (operations/s, operations)."""
    if seconds is not None:
        more |= timed(seconds)
    side = side_of(run(on_export(uri), job("write", "randwrite", 4096, depth, size, **more))[0],
                   "randwrite")
    return side["iops"], side["total_ios"]


def sequential(uri, mode, size):
    """All of the volume once, 1 MiB QD8: bytes/s."""
    told = run(on_export(uri), job("stream", mode, 1 << 20, 8, size))[0]
    return side_of(told, mode)["bw_bytes"]


class Background:
    """4 KiB random writes at QD32 until stop(), kill() or the end of the server."""

    def __init__(self, harness, directory, uri, size, per_second=None):
        self.base = pathlib.Path(directory) / f"load-{time.monotonic_ns()}"
        more = timed(3600) | {"log_avg_msec": INTERVAL_MS, "write_iops_log": self.base,
                              "log_unix_epoch": 1}
        if per_second is not None:
            more["rate_iops"] = int(per_second)
        self.out = open(f"{self.base}.json", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [*TELLING, *on_export(uri), *job("write", "randwrite", 4096, 32, size, **more)],
            stdin=subprocess.DEVNULL, stdout=self.out, stderr=subprocess.STDOUT,
            preexec_fn=harness.die_with_parent)

    def cpu_seconds(self):
        return machine.cpu_seconds(self.process.pid)

    def require_running(self):
        if self.process.poll() is not None:
            self.out.seek(0)
            raise RuntimeError(f"the load ended by itself: {self.out.read()[-600:]}")

    def stop(self):
        """Lets fio end what is in flight; (time, operations/s) over the whole of it."""
        self.require_running()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.out.seek(0)
        told = parse(self.out.read())[0]
        # 4 (EINTR) is the signal that ended it.
        if told["error"] not in (0, 4):
            raise RuntimeError(f"fio reports error {told['error']}")
        lines = pathlib.Path(f"{self.base}_iops.1.log").read_text(encoding="utf-8").splitlines()
        samples = [tuple(int(part) for part in line.split(",")[:2]) for line in lines]
        self.close()
        return [(at / 1000, float(rate)) for at, rate in samples]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(60)
        self.close()

    def close(self):
        self.out.close()
        for path in self.base.parent.glob(self.base.name + "*"):
            os.unlink(path)


def rate_over(samples, begin, end):
    """rate_between(), or an error that says what is missing."""
    rate = rate_between(samples, begin, end)
    if rate is None:
        raise RuntimeError("fio noted no rate for the time that is asked for")
    return rate
