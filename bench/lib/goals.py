"""What Tandem wants to reach, as shares of what other systems reach in the same run."""

import dataclasses

from lib.workloads import WORKLOADS


@dataclasses.dataclass(frozen=True)
class Goal:
    system: str
    workload: str
    factor: float
    references: tuple  # of systems; the best of them counts
    scale: float = 1.0  # of the reference: 0.5 is half of it

    def text(self):
        best = " or ".join(self.references)
        part = "half " if self.scale == 0.5 else ""
        return f"{self.system} ≥ {self.factor:g} × {part}{best}"


GOALS = (
    Goal("sync", "write-qd32", 1.0, ("raw",)),
    Goal("sync", "write-qd32", 4.0, ("quorum", "mirror")),
    Goal("sync", "write-qd1", 0.55, ("raw",)),
    Goal("sync", "write-qd1", 2.0, ("quorum",)),
    Goal("sync", "commit1-qd1", 0.6, ("raw",)),
    Goal("sync", "commit1-qd1", 2.0, ("quorum",)),
    Goal("sync", "write-1m-qd8", 0.8, ("raw",), 0.5),
    Goal("sync", "write-1m-qd8", 1.5, ("quorum",)),
    Goal("none", "write-qd32", 0.8, ("null",)),
    *(Goal(system, "read-qd32", 0.9, ("raw",)) for system in ("none", "sync")),
    *(Goal(system, "read-qd1", 1.3, ("qsd",)) for system in ("none", "sync")),
    *(Goal(system, "read-1m-qd8", 0.95, ("raw",)) for system in ("none", "sync")),
    *(Goal("async", w.name, 0.85, ("none",)) for w in WORKLOADS.values() if w.writes),
)


@dataclasses.dataclass(frozen=True)
class Verdict:
    goal: Goal
    share: float  # of the (scaled) reference
    met: bool


def judge(throughput, goals=GOALS):
    """Verdicts of the goals whose figures are all there. `throughput(workload, system)` gives a
    figure, more is better, or None."""
    verdicts = []
    for goal in goals:
        figure = throughput(goal.workload, goal.system)
        references = [throughput(goal.workload, name) for name in goal.references]
        if figure is None or None in references:
            continue
        share = figure / (max(references) * goal.scale)
        verdicts.append(Verdict(goal, share, share >= goal.factor))
    return verdicts
