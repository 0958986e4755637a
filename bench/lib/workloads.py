"""The workloads: what each does, the command that makes it, and its result in common words.

A result is {iops, mb_s, p50, p99, p99.9} with latencies in microseconds, `operations` in all (CPU is
divided by it), `client_cpu` in seconds, and for some `flush_*` or `stream_mb_s`."""

import dataclasses
import json

# Every system can carry it, so the latencies beside it are of the same work.
STREAM_BYTES_PER_SECOND = 200 << 20
PERCENTILES = {"p50": "50.000000", "p99": "99.000000", "p99.9": "99.900000"}


@dataclasses.dataclass(frozen=True)
class Workload:
    name: str
    title: str
    mode: str  # fio's rw
    block: int  # bytes
    depth: int
    flush_every: int = 0  # not 0: bench/commit_load instead of fio
    beside_stream: bool = False  # measured is a client beside a stream of large writes
    fill_first: bool = False  # the volume is written from end to end before, not timed
    read_first: bool = False  # and read so: the storage below may itself be a cache

    @property
    def writes(self):
        return "write" in self.mode or self.mode == "randrw"

    @property
    def in_megabytes(self):
        """Throughput is what counts, not operations."""
        return self.block >= 1 << 20


WORKLOADS = {w.name: w for w in (
    Workload("write-qd1", "4 KiB random write, QD1", "randwrite", 4096, 1),
    Workload("write-qd32", "4 KiB random write, QD32", "randwrite", 4096, 32),
    Workload("commit1-qd1", "QD1, flush after every write", "randwrite", 4096, 1, 1),
    Workload("commit32-qd1", "QD1, flush after 32 writes", "randwrite", 4096, 1, 32),
    Workload("commit1-qd32", "32 clients, each flushes after every write", "randwrite", 4096, 32,
             1),
    Workload("commit32-qd32", "32 clients, each flushes after 32 writes", "randwrite", 4096, 32,
             32),
    Workload("read-qd1", "4 KiB random read, QD1", "randread", 4096, 1, read_first=True),
    Workload("read-qd32", "4 KiB random read, QD32", "randread", 4096, 32, read_first=True),
    Workload("mix-qd16", "4 KiB random, 70 % reads, QD16", "randrw", 4096, 16, read_first=True),
    Workload("beside-stream", "QD1 write beside 200 MiB/s of 1 MiB writes",
             "randwrite", 4096, 1, beside_stream=True),
    Workload("write-1m-qd8", "1 MiB sequential write, QD8", "write", 1 << 20, 8),
    Workload("read-1m-qd8", "1 MiB sequential read, QD8, after sequential writing", "read",
             1 << 20, 8, fill_first=True),
)}


def fio_job(name, mode, block, depth):
    job = [f"--name={name}", f"--rw={mode}", f"--bs={block}", f"--iodepth={depth}"]
    if mode == "randrw":
        job += ["--rwmixread=70", "--unified_rw_reporting=1"]
    return job


def fio_command(workload, seconds, endpoint, size):
    """No ramp: all operations are counted, so that CPU time can be divided by them."""
    common = ["fio", "--output-format=json", "--thread", "--norandommap", "--randrepeat=0",
              "--percentile_list=50:99:99.9", *endpoint["fio"]]
    timed = ["--time_based", f"--runtime={seconds}"]
    job = fio_job(workload.name, workload.mode, workload.block, workload.depth) + timed
    if not workload.beside_stream:
        return common + job + [f"--size={size}"]
    half = size // 2
    return (common + job + [f"--size={half}"] + fio_job("stream", "write", 1 << 20, 8) + timed +
            [f"--offset={half}", f"--size={half}", f"--rate={STREAM_BYTES_PER_SECOND}"])


def whole_command(endpoint, mode, size):
    """Writes or reads the volume from end to end."""
    return ["fio", "--output-format=json", "--thread", *endpoint["fio"],
            *fio_job("whole", mode, 1 << 20, 8), f"--size={size}"]


def commit_command(workload, seconds, endpoint, size, program):
    return [str(program), "--seconds", str(seconds), "--clients", str(workload.depth),
            "--flush-every", str(workload.flush_every), "--size", str(size), *endpoint["commit"]]


def parse_fio(workload, text):
    # fio may print notes in front of its JSON.
    jobs = {job["jobname"]: job for job in json.loads(text[text.index("{"):])["jobs"]}
    for job in jobs.values():
        if job["error"]:
            raise RuntimeError(f"fio reports error {job['error']} in {job['jobname']}")
    job = jobs[workload.name]
    side = job["mixed" if workload.mode == "randrw" else
               "read" if "read" in workload.mode else "write"]
    if side["total_ios"] == 0:
        raise RuntimeError(f"no operation of {workload.name} was completed")
    percentiles = side["clat_ns"]["percentile"]
    result = {"iops": side["iops"], "mb_s": side["bw_bytes"] / 1e6,
              "operations": side["total_ios"],
              "client_cpu": sum(job["job_runtime"] / 1000 * (job["usr_cpu"] + job["sys_cpu"]) / 100
                                for job in jobs.values())}
    result.update({name: percentiles[key] / 1000 for name, key in PERCENTILES.items()})
    if workload.beside_stream:
        result["stream_mb_s"] = jobs["stream"]["write"]["bw_bytes"] / 1e6
        del result["operations"]  # CPU of two kinds of operations has no common divisor
    return result


def parse_commit(workload, text):
    told = json.loads(text)
    rate = told["operations"] / told["seconds"]
    result = {"iops": rate, "mb_s": rate * workload.block / 1e6, "operations": told["operations"],
              "client_cpu": told["client_cpu_seconds"], **told["latency_us"]}
    result.update({f"flush_{name}": value for name, value in told["flush_us"].items()})
    return result
