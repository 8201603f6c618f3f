"""Is the peak right where runs are far shorter or longer than the zoo's own? Tasks kept apart: 100, 200, 6,000 steps.

A grid of rates at each length, and one run of each method beside it, with its search paid out of the same steps.
``python -m autolr_lab.studies.other_lengths --lengths short --folder DIR`` runs what is missing, and packs it among the
zoo's results.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from autolr_lab.benchmark.zoo_methods import MethodRow, run_method
from autolr_lab.benchmark.zoo_report import method_rows, regrets, sweep_best, table
from autolr_lab.runner.results import RESULTS
from autolr_lab.zoo.grid import grid
from autolr_lab.zoo.registry import BY_NAME, TASKS, Pair, side
from autolr_lab.zoo.store import Row, Store, pack, unpack

METHODS = ("find-peak", "fixed", "knee", "cosine")
OPTIMIZERS = ("sgd", "momentum", "adamw")


@dataclass(frozen=True)
class Lengths:
    """Lengths that the zoo's own grids do not have."""

    name: str  # of the files and tables
    steps: tuple[int, ...]
    tasks: tuple[str, ...]  # of those kept apart

    @property
    def grid_file(self) -> str:
        """Of the packed grid."""
        return f"{self.name}.csv.gz"

    @property
    def method_file(self) -> str:
        """Of the methods' packed rows."""
        return f"{self.name}-methods.jsonl.gz"

    def pairs(self) -> Iterator[Pair]:
        """Each task with each of `OPTIMIZERS` that the zoo has it with, at these lengths."""
        for task in self.tasks:
            other = dataclasses.replace(BY_NAME[task], horizons=self.steps)
            yield from (Pair(other, optimizer) for optimizer in OPTIMIZERS if optimizer in other.rates)


SHORT = Lengths("short-runs", (100, 200), tuple(task.name for task in TASKS if side(task) == "report"))
LONG = Lengths(
    "long", (6_000,), (  # whose steps are the shortest: a grid within two minutes
        "cancer-logistic", "tiny-targets", "word-vectors", "friedman-huber", "ratings-factors", "label-noise",
        "cancer-tanh", "fourier-curve", "two-targets", "siren-picture", "communities-gcn", "deep-relu-digits",
    ),
)  # fmt: skip
BY_LENGTH = {"short": SHORT, "long": LONG}


def run(pair: Pair, rows: Store, methods: Path) -> None:
    """The grid and the methods of a pair, seed 0: what is not there yet."""
    grid(rows, pair, 0)
    there = {row.key for row in method_rows(methods)} if methods.exists() else set()
    for steps in pair.task.horizons:
        for name in METHODS:
            if (name, pair.task.name, pair.optimizer, 0, steps) not in there:
                with methods.open("a") as out:
                    out.write(json.dumps(asdict(run_method(name, pair, 0, steps))) + "\n")


def tables(lengths: Lengths, grid_rows: list[Row], methods: list[MethodRow]) -> dict[str, str]:
    """Markdown for each length: by held-out loss, and by training loss."""
    told = {}
    for steps in lengths.steps:
        name = lengths.name if len(lengths.steps) == 1 else f"{lengths.name}-{steps}"
        here = [row for row in methods if row.steps == steps]
        for title, train in ((name, False), (f"{name}-training", True)):
            told[title] = table(regrets(here, sweep_best(grid_rows, train=train), train=train)) + "\n"
    return told


def read(folder: Path, lengths: Lengths) -> tuple[list[Row], list[MethodRow]]:
    """What is packed of these lengths: the grid's rows and the methods'."""
    return unpack(folder / lengths.grid_file), method_rows(folder / lengths.method_file)


def of_folder(folder: Path) -> dict[str, str]:
    """The tables of packed results."""
    return {name: text for one in BY_LENGTH.values() for name, text in tables(one, *read(folder, one)).items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="autolr_lab.studies.other_lengths", description=__doc__)
    parser.add_argument("--lengths", required=True, choices=list(BY_LENGTH), help="100 and 200 steps, or 6,000")
    parser.add_argument("--folder", type=Path, required=True, help="where the rows go; what is there is not run again")
    parser.add_argument("--tasks", nargs="+", default=[], help="all of the lengths' where none is named")
    parser.add_argument("--to", type=Path, default=RESULTS / "zoo", help="the folder of the packed tables")
    asked = parser.parse_args()
    lengths = BY_LENGTH[asked.lengths]
    if unknown := set(asked.tasks) - set(lengths.tasks):
        parser.error(f"--tasks are of {', '.join(lengths.tasks)}; got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows, methods = Store(asked.folder / "rows.jsonl"), asked.folder / "methods.jsonl"
    for pair in lengths.pairs():
        if not asked.tasks or pair.task.name in asked.tasks:
            run(pair, rows, methods)
            print(pair.name, flush=True)
    pack(rows.rows.values(), asked.to / lengths.grid_file)
    (asked.to / lengths.method_file).write_bytes(gzip.compress(methods.read_bytes(), mtime=0))
    told = tables(lengths, list(rows.rows.values()), method_rows(methods))
    print("\n".join(f"{name}:\n{text}" for name, text in told.items()))


if __name__ == "__main__":
    main()
