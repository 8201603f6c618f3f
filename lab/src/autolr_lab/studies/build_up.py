"""Where an optimizer's steps grow: how far a peak from short runs alone is off, and what allowing for it gains.

SGD with momentum 0.99 and RAdam on tasks of the zoo, from a lattice of short runs and the full grid. Both peaks come
from the same short runs; the tasks on either side of the split are told apart.
``python -m autolr_lab.studies.build_up --folder DIR`` runs what is missing and packs it among the zoo's results.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from unittest import mock

import torch
from torch import nn
from torch.optim import SGD, Optimizer, RAdam

from autolr.measure.first_steps import first_steps
from autolr.numerics.build_up import shortfall
from autolr.numerics.expected_loss import choose
from autolr_lab.benchmark.zoo_report import by_task, interval
from autolr_lab.runner.markdown import markdown_table
from autolr_lab.runner.results import RESULTS
from autolr_lab.zoo.grid import grid
from autolr_lab.zoo.offline import by_pair
from autolr_lab.zoo.optimizers import OPTIMIZERS
from autolr_lab.zoo.registry import BY_NAME, LEARN, Pair
from autolr_lab.zoo.short_runs import short_runs
from autolr_lab.zoo.store import Row, Store, pack, unpack

PACKED = RESULTS / "zoo" / "build-up.csv.gz"
LENGTHS = (20, 40)  # [steps]
GROWING: Mapping[str, Callable[[Iterable[nn.Parameter]], Optimizer]] = {
    "momentum-0.99": lambda params: SGD(params, lr=0.0, momentum=0.99, fused=True),
    "radam": lambda params: RAdam(params, lr=0.0, foreach=True),
}
# The tasks whose runs with momentum 0.9 are the shortest, on either side: a grid within a minute or two.
TASKS = (
    "moons-diffusion", "digits-mlp", "digits-small-batch", "rare-class", "digits-softmax", "siren-sound",
    "deep-relu-teacher", "diabetes-mlp", "clicks-factors", "triangles-graph", "zen-lstm", "farthest-pair",
    "brackets-lstm", "digits-autoencoder", "mixer-digits", "communities-gcn", "cancer-logistic", "tiny-targets",
    "cancer-tanh", "word-vectors", "siren-picture", "deep-relu-digits", "fourier-curve", "friedman-huber",
    "teacher-large-batch", "label-noise", "plain-conv-digits", "two-targets", "resnet-batchnorm", "count-blobs",
    "denoising-autoencoder", "modular-sums",
)  # fmt: skip
HEADS = (
    "optimizer", "tasks from", "short runs", "cells (tasks)", "too high by", "allowed for",
    "mean regret, short runs alone", "with the allowance", "gain, paired", "95 % interval", "median", "with it",
)  # fmt: skip


def pair_of(task: str, optimizer: str) -> Pair:
    """A pair that the zoo has not; its lattice begins where one would type the rate."""
    rates = BY_NAME[task].rates
    first = rates["momentum"] / 8 if optimizer == "momentum-0.99" else rates["adamw"]
    return Pair(dataclasses.replace(BY_NAME[task], rates={optimizer: first}), optimizer)


def run(store: Store, task: str, optimizer: str) -> None:
    """All runs of a pair that the store does not hold yet, seed 0."""
    pair = pair_of(task, optimizer)
    with mock.patch.dict(OPTIMIZERS, GROWING):
        short_runs(store, pair, 0, LENGTHS)
        grid(store, pair, 0)


@dataclass(frozen=True)
class Told:
    """What the short runs of one length say of one whole run; rates in octaves."""

    task: str
    optimizer: str
    steps: int
    length: int
    best: float  # of the full grid
    alone: float
    allowed: float
    regret_alone: float
    regret_allowed: float


def told(rows: Iterable[Row]) -> Iterator[Told]:
    """Every whole run whose short runs tell a peak."""
    growth = {name: first_steps(make([nn.Parameter(torch.zeros(1))])) for name, make in GROWING.items()}
    for table in by_pair(rows):
        for length, steps in itertools.product(LENGTHS, BY_NAME[table.task].horizons):
            choice = choose({k: table.run(length, k) for k in table.short[length]}, table.start)
            if choice is None:
                continue
            less = shortfall(growth[table.optimizer], length, steps)
            yield Told(
                table.task, table.optimizer, steps, length, table.best_octave(steps), choice.place, choice.place - less,
                *(table.final(steps, place) - table.best(steps) for place in (choice.place, choice.place - less)),
            )  # fmt: skip


def tables(rows: Iterable[Row]) -> dict[str, str]:
    """Markdown: a line for each optimizer, side of the split and length of the short runs."""
    cells = list(told(rows))
    lines = []
    for optimizer, learn, length in itertools.product(GROWING, (True, False), LENGTHS):
        some = [c for c in cells if (c.optimizer, c.task in LEARN, c.length) == (optimizer, learn, length)]
        if some:
            lines.append(_line(optimizer, learn, length, some))
    return {"build-up": markdown_table(HEADS, lines)}


def _line(optimizer: str, learn: bool, length: int, cells: Sequence[Told]) -> list[str]:
    def mean(value: Callable[[Told], float]) -> dict[str, float]:
        return by_task({(c.task, c.optimizer, 0, c.steps): value(c) for c in cells})

    alone, allowed = mean(lambda c: c.regret_alone), mean(lambda c: c.regret_allowed)
    gains = [alone[task] - allowed[task] for task in alone]
    low, high = interval(gains)
    off, less = mean(lambda c: c.alone - c.best), mean(lambda c: c.alone - c.allowed)
    return [
        optimizer, "learning" if learn else "kept apart", f"{length} steps", f"{len(cells)} ({len(alone)})",
        f"{fmean(off.values()):.1f} octaves", f"{fmean(less.values()):.1f}",
        f"{fmean(alone.values()):.2f}", f"{fmean(allowed.values()):.2f}",
        f"{fmean(gains):+.2f}", f"{low:.2f} to {high:.2f}",
        f"{median(c.regret_alone for c in cells):.2f}", f"{median(c.regret_allowed for c in cells):.2f}",
    ]  # fmt: skip


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="autolr_lab.studies.build_up", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the rows go; what is there is not run again")
    parser.add_argument("--optimizers", nargs="+", default=list(GROWING), choices=list(GROWING))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--to", type=Path, default=PACKED, help="the packed table")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    store = Store(asked.folder / "rows.jsonl")
    for optimizer, task in itertools.product(asked.optimizers, asked.tasks):
        run(store, task, optimizer)
        print(f"{optimizer} {task}", flush=True)
    pack(store.rows.values(), asked.to)
    print(tables(unpack(asked.to))["build-up"])


if __name__ == "__main__":
    main()
