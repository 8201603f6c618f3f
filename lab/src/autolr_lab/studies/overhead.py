"""What AutoLR costs beside the bare optimizer in wall-clock and memory: its budget of 2 % and the paper's setting.

In each pair the same network takes the same steps bare, under the budget, at the paper's setting, and with a probe
along every step (for the price of a probe, and memory), one after the other in one process, in an order that turns
round from pair to pair; medians.

Where a whole window takes too long (see ``MEASURED``) only the dense probes are run, for tens of steps, and the ratios
are scaled from them: 1 + share x 3 x price. The share is what is spent of the training's forward equivalents: all that
the budget gives out, or 600 of 3,000 at the paper's setting. The price is what one forward equivalent of probing takes,
in steps, everything included: copying parameters, loading, generators, the fit. On one thread CPU time is wall-clock on
a quiet machine; on a busy one it is the steadier of the two, and prices are taken from it.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from autolr import AutoLR, Cost, ExploreExploit, Monitor
from autolr.measure.snapshot import Snapshot
from autolr.numerics.budget import RESERVE
from autolr.numerics.cost import FORWARDS_PER_STEP
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import Row
from autolr_lab.studies.ground import GROUNDS, Ground
from autolr_lab.studies.memory import LiveTensors
from autolr_lab.studies.study import Study

WINDOW, SUPERBATCH = 1000, 100  # the paper's
LONG = 10**6  # steps in the run that a measurement is the beginning of
PAIRS = 3
SHARES = {"default": 0.02 * (1 - RESERVE), "paper": (5 * SUPERBATCH + SUPERBATCH) / (FORWARDS_PER_STEP * WINDOW)}
STEPS = {"Fashion-MNIST CNN, batch 64": 1500, "CIFAR-10 ResNet-18, batch 32": 12, "Shakespeare GPT, batch 16": 500}
MEASURED = {  # kinds that are run in full
    "Fashion-MNIST CNN, batch 64": ("default", "paper"),
    "CIFAR-10 ResNet-18, batch 32": (),
    "Shakespeare GPT, batch 16": ("default",),
}
DENSE = 12  # steps, a probe along each


def wrapped(kind: str, on: Ground) -> AutoLR:
    """AutoLR: "default", the budget in a short window, so that what is earned is spent at once; "paper"; or "dense"."""
    policies = {
        "default": ExploreExploit.adaptive(window=50),
        "paper": ExploreExploit(spread=1, window=WINDOW, superbatch=min(SUPERBATCH, len(on.batches))),
        "dense": Monitor(eps=(-0.5, 0.0, 0.5), confidence=0.99, window=1, overhead=math.inf),
    }
    return AutoLR(on.optimizer, on.model, on.loss, on.batches, LONG, policy=policies[kind])


def measure(data_dir: Path | None) -> Iterator[Row]:
    """PAIRS of each network."""
    for pair, name in itertools.product(range(PAIRS), GROUNDS):
        yield {"ground": name, **measure_one(name, data_dir, reverse=pair % 2 == 1)}


def measure_one(name: str, data_dir: Path | None, *, reverse: bool) -> Row:
    """One pair: seconds a step of each kind, the price of a probe, a snapshot, and bytes."""
    steps = {"bare": STEPS[name], "dense": DENSE, **dict.fromkeys(MEASURED[name], STEPS[name])}
    steps |= {"paper": WINDOW} if "paper" in steps else {}
    row: Row = {}
    for kind in list(steps)[:: -1 if reverse else 1]:
        wall, cpu, optimizer, on = timed(name, data_dir, kind, steps[kind])
        row[kind], row[f"{kind} cpu"] = wall / steps[kind], cpu / steps[kind]
        if isinstance(optimizer, AutoLR):
            row[f"{kind} share"] = optimizer.cost.share(steps[kind])
            row[f"{kind} forwards"] = optimizer.cost.forward_equivalents
        if kind == "dense":
            start = time.process_time()
            Snapshot.capture(on.model, on.optimizer)
            row["snapshot"] = time.process_time() - start
    row["price"] = (row["dense cpu"] - row["bare cpu"]) * DENSE / row["dense forwards"] / row["bare cpu"]
    return row | memory(name, data_dir)


def timed(name: str, data_dir: Path | None, kind: str, steps: int) -> tuple[float, float, Any, Ground]:
    """Wall-clock and CPU seconds of so many steps; one comes before them, in which memory is first asked for."""
    on = GROUNDS[name](data_dir)
    on.train(1)
    bare, optimizer = on.optimizer, on.optimizer if kind == "bare" else wrapped(kind, on)
    on.optimizer = optimizer
    if isinstance(optimizer, AutoLR) and kind == "paper":  # it counts nothing before the first window
        on.train(1)
        vars(optimizer.cost).update(vars(Cost()))
    wall, cpu = time.perf_counter(), time.process_time()
    on.train(steps)
    took = time.perf_counter() - wall, time.process_time() - cpu
    on.optimizer = bare
    return (*took, optimizer, on)


def memory(name: str, data_dir: Path | None) -> dict[str, float]:
    """Bytes of tensors at the peak and between steps, bare and with a probe along every step."""
    found: dict[str, float] = {}
    for kind in ("bare", "dense"):
        on = GROUNDS[name](data_dir)  # outside: the data set in memory is not what is compared
        found["parameters"] = sum(p.nbytes for p in on.model.parameters())
        tracked = LiveTensors()
        tracked.live = int(found["parameters"])
        with tracked:
            on.optimizer = on.optimizer if kind == "bare" else wrapped(kind, on)
            on.train(2)
            tracked.peak = tracked.live
            on.train(3)
        found |= {f"{kind} peak": tracked.peak, f"{kind} between": tracked.live}
    return found


def tables(rows: list[Row]) -> dict[str, str]:
    """Medians over the pairs."""
    head = [
        "network", "bare step", "default / bare, wall-clock", "the same, CPU time", "spent, of forward equivalents",
        "default / bare, scaled", "paper's / bare, wall-clock", "the same, CPU time", "paper's / bare, scaled",
        "a forward equivalent of probing, steps", "a snapshot, forward equivalents", "memory between probes / bare",
        "peak memory / bare", "peak beyond bare, parameter copies",
    ]  # fmt: skip
    names = dict.fromkeys(row["ground"] for row in rows)
    lines = [_line(name, [row for row in rows if row["ground"] == name]) for name in names]
    return {"table": markdown_table(head, lines)}


def _line(name: str, rows: list[Row]) -> list[str]:
    def median(value: Callable[[Row], float]) -> float:
        return statistics.median(map(value, rows))

    def times(kind: str, unit: str = "") -> str:
        there = kind in MEASURED[name]
        return f"{median(lambda row: row[kind + unit] / row['bare' + unit]):.3f}" if there else "-"

    price = median(lambda row: row["price"])
    scaled = {kind: f"{1 + share * FORWARDS_PER_STEP * price:.3f}" for kind, share in SHARES.items()}
    spent = f"{100 * median(lambda row: row['default share']):.2f} %" if "default" in MEASURED[name] else "-"
    return [
        name, f"{1000 * median(lambda row: row['bare cpu']):.0f} ms", times("default"), times("default", " cpu"), spent,
        scaled["default"], times("paper"), times("paper", " cpu"), scaled["paper"], f"{price:.2f}",
        f"{median(lambda row: row['snapshot'] / (row['price'] * row['bare cpu'])):.2f}",
        f"{median(lambda row: row['dense between'] / row['bare between']):.2f}",
        f"{median(lambda row: row['dense peak'] / row['bare peak']):.2f}",
        f"{median(lambda row: (row['dense peak'] - row['bare peak']) / row['parameters']):+.2f}",
    ]  # fmt: skip


OVERHEAD = Study(
    "overhead", "What the budget costs in seconds and memory", measure, tables,
    {"pairs": PAIRS, "steps": STEPS, "dense": DENSE},
)  # fmt: skip
