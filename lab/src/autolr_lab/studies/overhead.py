"""What AutoLR costs beside the bare optimizer in wall-clock and memory: its default budget and the paper's setting.

``python benchmarks/overhead.py --data-dir DIR``. In each pair the same network takes the same steps bare, under the
default budget, at the paper's setting, and is_probing at every step (for the price of a look, and memory), one after the
other in one process, in an order that turns round from pair to pair; medians.

Where a whole window takes too long (see ``MEASURED``) only the dense looks are run, for tens of steps, and the ratios
are scaled from them: 1 + share x 3 x price. The share is what is spent of the training's forward equivalents: all that
the budget gives out, or 600 of 3,000 at the paper's setting. The price is what one forward equivalent of is_probing takes,
in steps, everything included: copying parameters, loading, generators, the fit. On one thread CPU time is wall-clock on
a quiet machine; on a busy one it is the steadier of the two, and prices are taken from it.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from autolr import AutoLR, Monitor, ExploreExploit
from autolr.numerics.budget import RESERVE
from autolr.numerics.cost import FORWARDS_PER_STEP, Cost
from autolr.measure.snapshot import Snapshot
from autolr_lab.studies.memory import LiveTensors
from autolr_lab.studies.networks import GROUNDS, Ground
from autolr_lab.studies.record import markdown, new_record, write_record

WINDOW, SUPERBATCH = 1000, 100  # the paper's
LONG = 10**6  # steps in the run that a measurement is the beginning of
DEFAULT, PAPER = 0.02 * (1 - RESERVE), (5 * SUPERBATCH + SUPERBATCH) / (FORWARDS_PER_STEP * WINDOW)
STEPS = {"Fashion-MNIST CNN, batch 64": 1500, "CIFAR-10 ResNet-18, batch 32": 12, "Shakespeare GPT, batch 16": 500}
MEASURED = {  # kinds that are run in full
    "Fashion-MNIST CNN, batch 64": ("default", "paper"),
    "CIFAR-10 ResNet-18, batch 32": (),
    "Shakespeare GPT, batch 16": ("default",),
}
DENSE = 12  # steps, a look along each

Wrap = Callable[[Ground], AutoLR]


def default(ground: Ground) -> AutoLR:
    """All default, but for the window: a short one, so that what is earned is spent at once."""
    return AutoLR(ground.optimizer, ground.model, ground.loss, ground.batches, LONG, window=50)


def paper(ground: Ground) -> AutoLR:
    """Superbatch 100, 5 samples, window 1,000, one step a look."""
    superbatch = min(SUPERBATCH, len(ground.batches))
    return AutoLR(
        ground.optimizer, ground.model, ground.loss, ground.batches, LONG,
        policy=ExploreExploit(spread=1), window=WINDOW, superbatch=superbatch,
    )  # fmt: skip


def dense(ground: Ground) -> AutoLR:
    """A look along every step but the first."""
    return AutoLR(
        ground.optimizer, ground.model, ground.loss, ground.batches, LONG,
        policy=Monitor.adaptive(0.99), window=1, overhead=math.inf,
    )  # fmt: skip


def main(
    data_dir: Annotated[Path, typer.Option(envvar="AUTOLR_DATA")],
    pairs: int = 3,
    threads: int = 1,
    only: Annotated[str, typer.Option(help="A part of a network's name.")] = "",
) -> None:
    """Measure, print the table, and write a record."""
    torch.set_num_threads(threads)
    names = [name for name in GROUNDS if only in name]
    rows = []
    for pair, name in itertools.product(range(pairs), names):
        rows.append({"ground": name, **measure(name, data_dir, reverse=pair % 2 == 1)})
        print(rows[-1], flush=True)
    table = overhead_table(rows, names)
    path = new_record("overhead")
    write_record(path, {"pairs": pairs, "threads": threads, "steps": STEPS, "dense": DENSE}, rows, table)
    print(table, f"\nRecord: {path}")


def measure(name: str, data_dir: Path, *, reverse: bool) -> dict[str, Any]:
    """One pair: seconds a step of each kind, the price of a look, a snapshot, and bytes."""
    kinds: dict[str, tuple[Wrap | None, int]] = {"bare": (None, STEPS[name]), "dense": (dense, DENSE)}
    full: dict[str, tuple[Wrap | None, int]] = {"default": (default, STEPS[name]), "paper": (paper, WINDOW)}
    kinds |= {kind: full[kind] for kind in MEASURED[name]}
    row: dict[str, Any] = {}
    for kind, (wrap, steps) in list(kinds.items())[:: -1 if reverse else 1]:
        wall, cpu, optimizer, ground = timed(name, data_dir, wrap, steps)
        row[kind], row[f"{kind} cpu"] = wall / steps, cpu / steps
        if isinstance(optimizer, AutoLR):
            row[f"{kind} share"] = optimizer.cost.share(steps)
            row[f"{kind} forwards"] = optimizer.cost.forward_equivalents
        if kind == "dense":
            start = time.process_time()
            Snapshot.capture(ground.model, ground.optimizer)
            row["snapshot"] = time.process_time() - start
    row["price"] = (row["dense cpu"] - row["bare cpu"]) * DENSE / row["dense forwards"] / row["bare cpu"]
    return row | memory(name, data_dir)


def timed(name: str, data_dir: Path, wrap: Wrap | None, steps: int) -> tuple[float, float, Any, Ground]:
    """Wall-clock and CPU seconds of so many steps; one comes before them, in which memory is first asked for."""
    ground = GROUNDS[name](data_dir)
    stream = itertools.cycle(ground.batches)
    take(ground, ground.optimizer, stream, 1)
    optimizer: Any = ground.optimizer if wrap is None else wrap(ground)
    if wrap is paper:  # the paper does not count what comes before the first window; nor is it there a window later
        take(ground, optimizer, stream, 1)
        vars(optimizer.cost).update(vars(Cost()))
    wall, cpu = time.perf_counter(), time.process_time()
    take(ground, optimizer, stream, steps)
    return time.perf_counter() - wall, time.process_time() - cpu, optimizer, ground


def take(ground: Ground, optimizer: Any, stream: Any, steps: int) -> None:
    """Train."""
    for batch in itertools.islice(stream, steps):
        optimizer.zero_grad()
        ground.loss(ground.model, batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def memory(name: str, data_dir: Path) -> dict[str, float]:
    """Bytes of tensors at the peak and between steps, bare and with a look along every step."""
    found: dict[str, float] = {}
    for kind, wrap in (("bare", None), ("dense", dense)):
        ground = GROUNDS[name](data_dir)  # outside: the data set in memory is not what is compared
        found["parameters"] = sum(p.nbytes for p in ground.model.parameters())
        tracked = LiveTensors()
        tracked.live = int(found["parameters"])
        with tracked:
            optimizer: Any = ground.optimizer if wrap is None else wrap(ground)
            stream = itertools.cycle(ground.batches)
            take(ground, optimizer, stream, 2)
            tracked.peak = tracked.live
            take(ground, optimizer, stream, 3)
        found |= {f"{kind} peak": tracked.peak, f"{kind} between": tracked.live}
    return found


def overhead_table(rows: list[dict[str, Any]], names: list[str]) -> str:
    """Medians over the pairs."""
    lines = []
    for name in names:
        some = [row for row in rows if row["ground"] == name]

        def median(value: Callable[[dict[str, Any]], float], some: list[dict[str, Any]] = some) -> float:
            return statistics.median(map(value, some))

        price = median(lambda row: row["price"])
        measured = [
            f"{median(lambda row, kind=kind, unit=unit: row[kind + unit] / row['bare' + unit]):.3f}"  # type: ignore[misc]
            if kind in MEASURED[name]
            else "-"
            for kind in ("default", "paper")
            for unit in ("", " cpu")
        ]
        spent = f"{100 * median(lambda row: row['default share']):.2f} %" if "default" in MEASURED[name] else "-"
        lines.append([
            name, f"{1000 * median(lambda row: row['bare cpu']):.0f} ms", measured[0], measured[1], spent,
            f"{1 + DEFAULT * FORWARDS_PER_STEP * price:.3f}", measured[2], measured[3],
            f"{1 + PAPER * FORWARDS_PER_STEP * price:.3f}", f"{price:.2f}",
            f"{median(lambda row: row['snapshot'] / (row['price'] * row['bare cpu'])):.2f}",
            f"{median(lambda row: row['dense between'] / row['bare between']):.2f}",
            f"{median(lambda row: row['dense peak'] / row['bare peak']):.2f}",
            f"{median(lambda row: (row['dense peak'] - row['bare peak']) / row['parameters']):+.2f}",
        ])  # fmt: skip
    head = [
        "network", "bare step", "default / bare, wall-clock", "the same, CPU time", "spent, of forward equivalents",
        "default / bare, scaled", "paper's / bare, wall-clock", "the same, CPU time", "paper's / bare, scaled",
        "a forward equivalent of is_probing, steps", "a snapshot, forward equivalents", "memory between looks / bare",
        "peak memory / bare", "peak beyond bare, parameter copies",
    ]  # fmt: skip
    return markdown(head, lines)


if __name__ == "__main__":
    typer.run(main)
