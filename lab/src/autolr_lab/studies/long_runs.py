"""Is the peak right where runs are longer? Quick tasks of the zoo, of those kept apart, at 6,000 steps.

A grid of rates at `STEPS` steps, and one run of each method beside it, with its search paid out of the same steps.
``python -m autolr_lab.studies.long_runs --folder DIR`` runs what is missing, and packs it among the zoo's results.
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
from autolr_lab.benchmark.zoo_report import method_rows, regrets, sweep_best, table
from autolr_lab.runner.results import RESULTS
from autolr_lab.zoo.grid import grid
from autolr_lab.zoo.registry import BY_NAME, Pair
from autolr_lab.zoo.store import Row, Store, pack, unpack

STEPS = 6_000
METHODS = ("find-peak", "fixed", "knee", "cosine")
OPTIMIZERS = ("sgd", "momentum", "adamw")
# The tasks kept apart whose steps are the shortest: a grid of 6,000 steps within two minutes.
TASKS = (
    "cancer-logistic", "tiny-targets", "word-vectors", "friedman-huber", "ratings-factors", "label-noise",
    "cancer-tanh", "fourier-curve", "two-targets", "siren-picture", "communities-gcn", "deep-relu-digits",
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
    there = {row.key for row in method_rows(methods)} if methods.exists() else set()
    for steps in pair.task.horizons:
        for name in METHODS:
            if (name, pair.task.name, pair.optimizer, 0, steps) not in there:
                with methods.open("a") as out:
                    out.write(json.dumps(asdict(run_method(name, pair, 0, steps))) + "\n")


def tables(grid_rows: list[Row], methods: list[MethodRow]) -> dict[str, str]:
    """Markdown: by held-out loss, and by training loss."""
    losses = {"long": False, "long-training": True}
    best = {name: sweep_best(grid_rows, train=train) for name, train in losses.items()}
    return {name: table(regrets(methods, best[name], train=train)) + "\n" for name, train in losses.items()}


def of_folder(folder: Path) -> dict[str, str]:
    """The tables of packed results."""
    return tables(unpack(folder / GRID), method_rows(folder / METHOD_ROWS))


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
