"""Is the peak right where runs are longer? Quick tasks of the zoo, five times as long as its longest runs.

A grid of rates at `STEPS` steps, and one run of each method beside it, with its search paid out of the same steps.
``python -m autolr_lab.studies.long_runs --folder DIR`` runs what is missing, the learning tasks first, and packs it
among the zoo's results.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from autolr_lab.benchmark.zoo_methods import MethodRow, run_method
from autolr_lab.benchmark.zoo_report import Cell, regrets, sweep_best, table
from autolr_lab.runner.results import RESULTS
from autolr_lab.zoo.grid import grid
from autolr_lab.zoo.registry import BY_NAME, LEARN, Pair
from autolr_lab.zoo.store import Row, Store, pack, unpack

STEPS = 6_000
METHODS = ("find-peak", "fixed", "knee", "cosine")
OPTIMIZERS = ("sgd", "momentum", "adamw")
# The tasks whose steps are the shortest, on either side: a grid of 6,000 steps within two minutes.
TASKS = (
    "digits-softmax", "digits-small-batch", "digits-mlp", "wine-mlp", "large-targets", "rare-class", "moons-diffusion",
    "siren-sound", "diabetes-mlp", "clicks-factors", "digits-autoencoder", "deep-relu-teacher", "cancer-logistic",
    "tiny-targets", "word-vectors", "friedman-huber", "ratings-factors", "label-noise", "cancer-tanh", "fourier-curve",
    "two-targets", "siren-picture", "communities-gcn", "deep-relu-digits",
)  # fmt: skip
GRID, METHOD_ROWS = "long.csv.gz", "long-methods.jsonl.gz"


def pairs(tasks: tuple[str, ...] = TASKS, steps: int = STEPS) -> Iterator[Pair]:
    """Each task with each optimizer that the zoo has it with, at this length."""
    for task in tasks:
        longer = dataclasses.replace(BY_NAME[task], horizons=(steps,))
        yield from (Pair(longer, optimizer) for optimizer in OPTIMIZERS if optimizer in longer.rates)


def run(pair: Pair, rows: Store, methods: Path) -> None:
    """The grid and the methods of a pair, seed 0: what is not there yet."""
    grid(rows, pair, 0)
    there = {row.key for row in read(methods)}
    for steps in pair.task.horizons:
        for name in METHODS:
            if (name, pair.task.name, pair.optimizer, 0, steps) not in there:
                with methods.open("a") as out:
                    out.write(json.dumps(asdict(run_method(name, pair, 0, steps))) + "\n")


def read(methods: Path) -> list[MethodRow]:
    """The rows of a file that may be packed, or may not be there yet."""
    if not methods.exists():
        return []
    text = gzip.decompress(methods.read_bytes()).decode() if methods.suffix == ".gz" else methods.read_text()
    return [MethodRow(**json.loads(line)) for line in text.splitlines()]


def of_side(cells: dict[str, dict[Cell, float]], *, learn: bool) -> dict[str, dict[Cell, float]]:
    """The regrets of the tasks on one side of the split."""
    return {name: {cell: value for cell, value in some.items() if (cell[0] in LEARN) == learn} for name, some in cells.items()}


def tables(grid_rows: list[Row], methods: list[MethodRow]) -> dict[str, str]:
    """Markdown: the tasks kept apart, and those of the learning half."""
    found = regrets(methods, sweep_best(grid_rows, train=False), train=False)
    sides = {"long": of_side(found, learn=False), "long, learning": of_side(found, learn=True)}
    return {name: table(some) + "\n" for name, some in sides.items() if some.get(METHODS[0])}


def of_folder(folder: Path) -> dict[str, str]:
    """The tables of packed results."""
    return tables(unpack(folder / GRID), read(folder / METHOD_ROWS))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="autolr_lab.studies.long_runs", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the rows go; what is there is not run again")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--to", type=Path, default=RESULTS / "zoo", help="the folder of the packed tables")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows, methods = Store(asked.folder / "rows.jsonl"), asked.folder / "methods.jsonl"
    for pair in pairs(tuple(asked.tasks), asked.steps):
        run(pair, rows, methods)
        print(pair.name, flush=True)
    pack(rows.rows.values(), asked.to / GRID)
    (asked.to / METHOD_ROWS).write_bytes(gzip.compress(methods.read_bytes(), mtime=0))
    print("\n".join(of_folder(asked.to).values()))


if __name__ == "__main__":
    main()
