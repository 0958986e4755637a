"""The figures of bench/operations: what was measured, against which goal, and as tables."""

import dataclasses

from lib.report import markdown


@dataclasses.dataclass(frozen=True)
class Goal:
    bound: float
    at_least: bool = False  # else: at most

    def met_by(self, value):
        return value >= self.bound if self.at_least else value <= self.bound

    def text(self, unit):
        return f"{'≥' if self.at_least else '≤'} {with_unit(self.bound, unit)}"


def at_most(bound):
    return Goal(bound)


def at_least(bound):
    return Goal(bound, True)


@dataclasses.dataclass(frozen=True)
class Figure:
    part: str
    what: str
    value: float
    unit: str = ""
    goal: Goal | None = None
    note: str = ""

    @property
    def met(self):
        return None if self.goal is None else self.goal.met_by(self.value)

    def row(self):
        return [self.what, with_unit(self.value, self.unit),
                "–" if self.goal is None else self.goal.text(self.unit),
                "–" if self.goal is None else "yes" if self.met else "NO"]


def with_unit(value, unit):
    """Three significant digits, as many as these figures bear."""
    size = abs(value)
    digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 3
    text = f"{value:,.{digits}f}"
    return f"{text} {unit}" if unit else text


def table(figures):
    return markdown(["what", "measured", "goal", "met?"], [figure.row() for figure in figures])


def rate_between(samples, begin, end):
    """Mean rate over [begin, end) of samples (time, rate), each of which holds from the sample
    before it, or for as long as the next one does, to its own time. None when less than half of
    that time is covered."""
    if len(samples) < 2:
        return None
    covered = total = 0.0
    start = 2 * samples[0][0] - samples[1][0]
    for time, rate in samples:
        overlap = min(time, end) - max(start, begin)
        if overlap > 0:
            covered += overlap
            total += overlap * rate
        start = time
    return total / covered if covered >= (end - begin) / 2 else None


def slope(samples):
    """What (time, count) grows by in a second, from the first to the last."""
    (begin, first), (end, last) = samples[0], samples[-1]
    return (last - first) / (end - begin)
