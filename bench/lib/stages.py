"""Where the time of a cell goes on Tandem's nodes: two answers of `tandem latency --json`, one before
and one after it, as microseconds by stage ("write queue")."""

import statistics

# The stages of an operation are shares of all of its operations, so that they add up to the whole,
# also when few of them had to wait for a stage. Of the others each is its own mean.
ADDITIVE = ("write", "flush")

# Columns of the table: title, and the figure.
COLUMNS = (("queue", "write queue"), ("device", "write device"), ("order", "write order"),
           ("mirror", "write mirror"), ("write", "write whole"),
           ("flush: device", "flush device"), ("flush: mirror", "flush mirror"),
           ("flush", "flush whole"),
           ("ship", "link ship"), ("round trip", "link round trip"),
           ("mirror: apply", "mirror apply"), ("mirror: device", "mirror device"),
           ("mirror: flush", "mirror flush"))
BATCHES = (("records/page", "page"), ("records/batch", "shipped"))


def totals(answer):
    """Of all nodes together: (operation, stage) -> [count, ns], and batch -> [batches, records]. A
    stage takes place on one of the nodes, or did not go on meanwhile."""
    found = {}
    for reading in answer["latencies"]:
        for stage in reading["stages"]:
            total = found.setdefault((stage["operation"], stage["stage"]), [0, 0])
            total[0] += stage["count"]
            total[1] += stage["sum_ns"]
        for batch in reading["batches"]:
            total = found.setdefault(batch["batch"], [0, 0])
            total[0] += batch["batches"]
            total[1] += batch["records"]
    return found


def between(before, after):
    """What took place between two answers, by name; None without answers."""
    if before is None or after is None:
        return None
    first, last = totals(before), totals(after)
    grown = {key: [now - was for now, was in zip(last[key], first.get(key, (0, 0)))]
             for key in last}
    figures = {}
    for key, (count, total) in grown.items():
        if isinstance(key, str):
            if count:
                figures[key] = total / count
            continue
        operation, _ = key
        if operation in ADDITIVE:
            count = grown.get((operation, "whole"), (0, 0))[0]
        if count:
            figures[" ".join(key)] = total / count / 1000
    return figures


def middle(rounds):
    """Each figure's own median over the rounds' between(); nothing where no round has it."""
    told = [figures for figures in rounds if figures]
    names = {name for figures in told for name in figures}
    return {name: statistics.median(figures.get(name, 0.0) for figures in told)
            for name in names}
