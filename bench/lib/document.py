"""RESULTS.md: what was measured, on what, how to read it, and the tables."""

from lib import report
from lib.machine import first_line
from lib.systems_table import SYSTEMS
from lib.workloads import WORKLOADS


def machine_lines(about):
    shown = {"CPU": f"{about['cpu']}, {about['cores']} cores", "memory": f"{about['memory_gib']} GiB",
             "kernel": about["kernel"], "disk": about["disk"], "virtualization": about["virtual"],
             "client": about["fio"], "QEMU": about.get("qemu"), "nbdkit": about.get("nbdkit"),
             "Tandem": about["commit"],
             "load average before": f"{about['load_before']:.2f}"}
    return [f"- {key}: {value}" for key, value in shown.items() if value]


def markdown(results, systems, about, options):
    noise = results.noise()
    verdict = ("The machine was quiet enough: no sign against these figures." if not noise else
               "**Too noisy or too few rounds: do not quote these figures.**\n\n" +
               "\n".join(f"- {line}" for line in noise))
    if results.failures:
        verdict += ("\n\n**Not everything worked:**\n\n" +
                    "\n".join(f"- {line}" for line in results.failures))
    config = "".join(f", {key} = {value}" for key, value in options["tandem_config"].items())
    lines = [
        "# Tandem beside its rivals", "",
        f"Made by `bench/compare`. {options['date']}; medians of {options['rounds']} alternating "
        f"rounds of {options['seconds']} s a cell.", "", *machine_lines(about), "", verdict, "",
        "![Chart](results.svg)", "", "## How to read it", "",
        f"- Everything runs on one machine and one disk: both nodes, the client, the link over "
        f"loopback. A volume of {options['size'] >> 20} MiB of incompressible data, written once "
        f"before; a mirror costs the disk and the processors twice.",
        "- NBD over a Unix socket, fio's nbd engine; rows with flushes come from "
        "`bench/commit_load.cc`, for all systems, because fio does not wait for the write that a "
        "flush commits. There a latency lasts from the write to the end of its flush, if it has one.",
        "- No page cache anywhere: all servers use O_DIRECT. The storage below a virtual machine may "
        "itself be a cache, so before 4 KiB reads and the mix each volume is read once from end to "
        "end, not timed.",
        f"- Tandem: map cache {options['map_cache'] >> 20} MiB (the volume's map is "
        f"{options['size'] >> 28} MiB), pools {options['pool_factor']:g} times the volume and, "
        f"like the others' files, written before (`pool.prepare`){config}.",
        "- CPU: all processes of the system together, what they put off included; the client's "
        "apart. A 1 MiB operation counts as one.",
        "- Spread: (largest − smallest) / median of the rounds.",
        "- After each round the volume of each pair was read on both nodes, over a switchover and "
        "back, and after the last the mirror was promoted without its primary: equal. "
        "`tandem-inspect verify` found all pools sound." if options["verified"] else
        "- Tandem's copies were not all compared, or not found equal.", "",
        "| name | system | |", "| --- | --- | --- |",
        *(f"| {name} | {SYSTEMS[name].title} | {SYSTEMS[name].note} |" for name in systems), "",
        "## Throughput", "", report.summary_table(results, systems), ""]
    goals = report.goals_table(results)
    if goals:
        lines += ["## Goals", "", goals, ""]
    where = report.stages_table(results, systems)
    if where:
        lines += [
            "## Where the time goes", "",
            "As Tandem's nodes timed it themselves (`tandem latency`): means over the cell, medians "
            "of the rounds, on the way from the call of the volume to its answer; the NBD session "
            "and the client come on top. `queue`, `device`, `order` and `mirror` add up to `write`, "
            "the two in front of `flush` to that: those that did not have to wait for the mirror "
            "count as waiting for no time. `ship`, `round trip` and the mirror's `apply` and "
            "`device` are of a batch of records.", "", where, ""]
    lines += ["## Each workload", ""]
    for workload in results.cells:
        lines += [f"### {WORKLOADS[workload].title} (`{workload}`)", "",
                  report.detail_table(results, workload, systems), ""]
    return "\n".join(lines)


def versions(qemu):
    found = {"nbdkit": first_line("nbdkit", "--version")}
    if qemu is not None:
        found["qemu"] = first_line(qemu, "--version")
    return found
