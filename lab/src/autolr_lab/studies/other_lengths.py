"""Is the peak right where runs are far shorter or longer than the zoo's own? Tasks kept apart: 100, 200, 6,000 steps.

A grid of rates at each length, and one run of each method beside it, with its search paid out of the same steps.
``python -m autolr_lab.studies.other_lengths --lengths short --folder DIR`` runs what is missing, and packs it among the
zoo's results.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from autolr_lab.benchmark import zoo_methods
from autolr_lab.benchmark.own_grid import OwnGrid, command_line
from autolr_lab.benchmark.zoo_methods import MethodRow
from autolr_lab.benchmark.zoo_report import regrets, sweep_best, table
from autolr_lab.zoo.registry import BY_NAME, TASKS, Pair, side
from autolr_lab.zoo.store import Row

METHODS = {name: zoo_methods.METHODS[name] for name in ("find-peak", "fixed", "knee", "cosine")}
OPTIMIZERS = ("sgd", "momentum", "adamw")


def of_lengths(name: str, steps: tuple[int, ...], tasks: Iterable[str]) -> OwnGrid:
    """Each of these tasks with each of `OPTIMIZERS` that the zoo has it with, at these lengths."""
    others = [dataclasses.replace(BY_NAME[task], horizons=steps) for task in tasks]
    pairs = (Pair(other, optimizer) for other in others for optimizer in OPTIMIZERS if optimizer in other.rates)
    return OwnGrid(name, tuple(pairs), METHODS)


SHORT = of_lengths("short-runs", (100, 200), [task.name for task in TASKS if side(task) == "report"])
LONG = of_lengths(
    "long", (6_000,), [  # whose steps are the shortest: a grid within two minutes
        "cancer-logistic", "tiny-targets", "word-vectors", "friedman-huber", "ratings-factors", "label-noise",
        "cancer-tanh", "fourier-curve", "two-targets", "siren-picture", "communities-gcn", "deep-relu-digits",
    ],
)  # fmt: skip
BY_LENGTH = {"short": SHORT, "long": LONG}


def tables(lengths: OwnGrid, grid_rows: list[Row], methods: list[MethodRow]) -> dict[str, str]:
    """Markdown for each length: by held-out loss, and by training loss."""
    told = {}
    all_steps = lengths.pairs[0].task.horizons
    for steps in all_steps:
        name = lengths.name if len(all_steps) == 1 else f"{lengths.name}-{steps}"
        here = [row for row in methods if row.steps == steps]
        for title, train in ((name, False), (f"{name}-training", True)):
            told[title] = table(regrets(here, sweep_best(grid_rows, train=train), train=train)) + "\n"
    return told


def of_folder(folder: Path) -> dict[str, str]:
    """The tables of packed results."""
    return {name: text for one in BY_LENGTH.values() for name, text in tables(one, *one.read(folder)).items()}


if __name__ == "__main__":
    command_line("autolr_lab.studies.other_lengths", __doc__, BY_LENGTH, tables)
