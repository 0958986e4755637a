"""One cell: a workload on a system, with the CPU time of the system's processes and of strangers."""

import os
import subprocess
import time

from lib import machine, stages, workloads


def run_load(command, seconds):
    result = subprocess.run(command, capture_output=True, text=True, check=False,
                            stdin=subprocess.DEVNULL, timeout=seconds + 120)
    if result.returncode != 0:
        raise RuntimeError(f"{command[0]} failed: {(result.stderr or result.stdout)[-1000:]}")
    return result.stdout


def measure(system, workload, seconds, size, commit_load):
    """Returns the workload's result with `cpu_us` (per operation, all of the system's processes,
    what they put off included), `foreign_cores` (busy with neither the system nor the load) and, of a
    system that tells, `stages`: where the time went (lib/stages.py)."""
    system.activate()
    endpoint = system.endpoint
    if workload.fill_first:
        run_load(workloads.whole_command(endpoint, "write", size), 600)
        system.settle()
    if workload.read_first:
        run_load(workloads.whole_command(endpoint, "read", size), 600)
    pids = system.pids()
    before = system.latency()
    load = os.getloadavg()[0]
    started = time.monotonic()
    used = -sum(map(machine.cpu_seconds, pids))
    busy = -machine.busy_seconds()
    if workload.flush_every:
        command = workloads.commit_command(workload, seconds, endpoint, size, commit_load)
        result = workloads.parse_commit(workload, run_load(command, seconds))
    else:
        command = workloads.fio_command(workload, seconds, endpoint, size)
        result = workloads.parse_fio(workload, run_load(command, seconds))
    elapsed = time.monotonic() - started
    busy += machine.busy_seconds()
    during = used + sum(map(machine.cpu_seconds, pids))
    system.settle()
    used += sum(map(machine.cpu_seconds, pids))
    told = stages.between(before, system.latency())
    if told:
        result["stages"] = told
    client = result.pop("client_cpu")
    operations = result.pop("operations", None)
    if operations and pids:
        result["cpu_us"] = 1e6 * used / operations
    if operations:
        result["client_cpu_us"] = 1e6 * client / operations
    result["foreign_cores"] = max(0.0, (busy - during - client) / elapsed)
    result["load_before"] = load
    return result
