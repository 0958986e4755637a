"""From cells to medians, spreads, tables and RESULTS.md."""

import statistics

from lib import stages
from lib.goals import judge
from lib.systems_table import TITLES
from lib.workloads import WORKLOADS

# A raw row that differs more between rounds, or strangers that keep more processors busy, make the
# figures unfit for comparing; fewer rounds cannot tell.
SPREAD_MAX = 0.15
ROUNDS_MIN = 3
FOREIGN_CORES_MAX = 0.25


class Results:
    """cells[workload][system]: one result for each round that succeeded. `failures`: what did not,
    in words."""

    def __init__(self):
        self.cells = {}
        self.failures = []

    def add(self, workload, system, result):
        self.cells.setdefault(workload, {}).setdefault(system, []).append(result)

    def median(self, workload, system):
        """Each figure's own median over the rounds, but of stages(); None without any."""
        rounds = self.cells.get(workload, {}).get(system)
        if not rounds:
            return None
        return {key: statistics.median(r[key] for r in rounds) for key in rounds[0]
                if key != "stages"}

    def stages(self, workload, system):
        """Medians of where the time went, by name (lib/stages.py); empty: not told."""
        rounds = self.cells.get(workload, {}).get(system, [])
        return stages.middle(r.get("stages") for r in rounds)

    def throughput(self, workload, system):
        middle = self.median(workload, system)
        return None if middle is None else middle["iops"]

    def spread(self, workload, system):
        """(largest - smallest) / median of the throughput of the rounds."""
        figures = [r["iops"] for r in self.cells.get(workload, {}).get(system, [])]
        if len(figures) < 2:
            return None
        return (max(figures) - min(figures)) / statistics.median(figures)

    def share(self, workload, system, reference):
        figure, other = (self.throughput(workload, name) for name in (system, reference))
        return figure / other if figure is not None and other else None

    def noise(self):
        """Sentences that say why these figures should not be trusted; none when they may be."""
        found = []
        rounds = [len(r) for systems in self.cells.values() for r in systems.values()]
        if min(rounds, default=0) < ROUNDS_MIN:
            found.append(f"fewer than {ROUNDS_MIN} rounds")
        for workload in self.cells:
            spread = self.spread(workload, "raw")
            if spread is not None and spread > SPREAD_MAX:
                found.append(f"{workload}: the raw file's rounds differ by {spread:.0%}")
        strangers = [r["foreign_cores"] for systems in self.cells.values()
                     for rounds in systems.values() for r in rounds]
        if strangers and statistics.median(strangers) > FOREIGN_CORES_MAX:
            found.append(f"other processes and the kernel's own threads kept "
                         f"{statistics.median(strangers):.2f} processors busy (median of cells)")
        return found


def number(value, digits=0):
    return "–" if value is None else f"{value:,.{digits}f}"


def ratio(value):
    return "–" if value is None else f"{value:.2f}"


def markdown(headers, rows):
    """A table whose columns are padded, so that it reads well as plain text too."""
    widths = [max(len(str(row[i])) for row in [headers, *rows]) for i in range(len(headers))]

    def line(cells):
        first = str(cells[0]).ljust(widths[0])
        return f"| {first} | " + " | ".join(
            str(c).rjust(w) for c, w in zip(cells[1:], widths[1:])) + " |"
    rule = "| " + "-" * widths[0] + " | " + " | ".join("-" * (w - 1) + ":" for w in widths[1:])
    return "\n".join([line(headers), rule + " |", *map(line, rows)])


def summary_table(results, systems):
    """Throughput of every workload and system, with its share of raw."""
    rows = []
    for workload in results.cells:
        about = WORKLOADS[workload]
        row = [about.title + (", MB/s" if about.in_megabytes else "")]
        for system in systems:
            middle = results.median(workload, system)
            if middle is None:
                row.append("–")
                continue
            share = results.share(workload, system, "raw")
            figure = number(middle["mb_s" if about.in_megabytes else "iops"])
            row.append(figure if share is None or system == "raw" else
                       f"{figure} ({share:.2f})")
        rows.append(row)
    return markdown(["operations/s (share of raw)", *systems], rows)


def detail_table(results, workload, systems):
    about = WORKLOADS[workload]
    rates = "MB/s" if about.in_megabytes else "op/s"
    headers = ["system", rates, "/raw", "/quorum", "/mirror", "/null", "p50 µs", "p99 µs",
               "p99.9 µs", "CPU µs/op", "client µs/op", "spread"]
    extra = []
    if about.flush_every:
        extra = [("flush p50", "flush_p50"), ("flush p99", "flush_p99"),
                 ("flush p99.9", "flush_p99.9")]
    elif about.beside_stream:
        extra = [("stream MB/s", "stream_mb_s")]
    headers += [title for title, _ in extra]
    rows = []
    for system in systems:
        middle = results.median(workload, system)
        if middle is None:
            continue
        spread = results.spread(workload, system)
        rows.append([TITLES[system],
                     number(middle["mb_s" if about.in_megabytes else "iops"]),
                     *(ratio(results.share(workload, system, other))
                       for other in ("raw", "quorum", "mirror", "null")),
                     *(number(middle[p]) for p in ("p50", "p99", "p99.9")),
                     number(middle.get("cpu_us"), 1), number(middle.get("client_cpu_us"), 1),
                     "–" if spread is None else f"{spread:.0%}",
                     *(number(middle.get(key)) for _, key in extra)])
    return markdown(headers, rows)


def stages_table(results, systems):
    """Where the time goes, of every workload that writes and each system that tells; "" of none."""
    rows = []
    for workload in results.cells:
        for system in systems if WORKLOADS[workload].writes else ():
            told = results.stages(workload, system)
            if told:
                rows.append([f"`{workload}` {system}",
                             *(number(told.get(key), 1) for _, key in stages.COLUMNS),
                             *(number(told.get(key), 1) for _, key in stages.BATCHES),
                             number(results.median(workload, system).get("cpu_us"), 1)])
    headers = ["mean µs", *(title for title, _ in stages.COLUMNS + stages.BATCHES), "CPU µs/op"]
    return markdown(headers, rows) if rows else ""


def goals_table(results):
    rows = [[WORKLOADS[v.goal.workload].title, v.goal.text(), f"{v.share:.2f}",
             "yes" if v.met else "NO"] for v in judge(results.throughput)]
    return markdown(["workload", "goal", "reached", "met"], rows) if rows else ""
