"""Pairs with grids of their own, and methods beside them: what is missing is run, and packed among the zoo's results.

All pay out of the same steps: `zoo_methods`.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from autolr_lab.benchmark.zoo_methods import Method, MethodRow, run_method
from autolr_lab.benchmark.zoo_report import method_rows
from autolr_lab.runner.results import RESULTS
from autolr_lab.zoo.grid import grid
from autolr_lab.zoo.registry import Pair
from autolr_lab.zoo.store import Row, Store, pack, unpack


@dataclass(frozen=True)
class OwnGrid:
    """Pairs at lengths that the zoo's own grids do not have, or of tasks that it does not have."""

    name: str  # of the files
    pairs: tuple[Pair, ...]  # the horizons of their tasks are what is run
    methods: Mapping[str, Method]

    @property
    def grid_file(self) -> str:
        """Of the packed grid."""
        return f"{self.name}.csv.gz"

    @property
    def method_file(self) -> str:
        """Of the methods' packed rows."""
        return f"{self.name}-methods.jsonl.gz"

    def run(self, pair: Pair, folder: Path) -> None:
        """The methods and the grid of a pair, seed 0: what is not there yet."""
        rows, file = Store(folder / "rows.jsonl"), folder / "methods.jsonl"
        there = {row.key for row in method_rows(file)} if file.exists() else set()
        for steps in pair.task.horizons:
            for name, method in self.methods.items():
                if (name, pair.task.name, pair.optimizer, 0, steps) not in there:
                    with file.open("a") as out:
                        out.write(json.dumps(asdict(run_method(name, pair, 0, steps, method))) + "\n")
        grid(rows, pair, 0)

    def pack(self, folder: Path, to: Path) -> None:
        """What was run in ``folder``, compressed into ``to``."""
        pack(Store(folder / "rows.jsonl").rows.values(), to / self.grid_file)
        (to / self.method_file).write_bytes(gzip.compress((folder / "methods.jsonl").read_bytes(), mtime=0))

    def read(self, folder: Path) -> tuple[list[Row], list[MethodRow]]:
        """What is packed: the grid's rows and the methods'."""
        return unpack(folder / self.grid_file), method_rows(folder / self.method_file)


def command_line(
    prog: str, about: str | None, grids: Mapping[str, OwnGrid],
    tables: Callable[[OwnGrid, list[Row], list[MethodRow]], dict[str, str]],
) -> None:  # fmt: skip
    """Runs one of the ``grids`` and prints its tables."""
    parser = argparse.ArgumentParser(prog=prog, description=about)
    parser.add_argument("--lengths", default=next(iter(grids)), choices=list(grids), help="the first by default")
    parser.add_argument("--folder", type=Path, required=True, help="where the rows go; what is there is not run again")
    parser.add_argument("--tasks", nargs="+", default=[], help="all where none is named")
    parser.add_argument("--to", type=Path, default=RESULTS / "zoo", help="the folder of the packed tables")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    chosen = grids[asked.lengths]
    known = dict.fromkeys(pair.task.name for pair in chosen.pairs)
    if unknown := set(asked.tasks) - set(known):
        parser.error(f"--tasks are of {', '.join(known)}; got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for pair in chosen.pairs:
        if not asked.tasks or pair.task.name in asked.tasks:
            chosen.run(pair, asked.folder)
            print(pair.name, flush=True)
    chosen.pack(asked.folder, asked.to)
    told = tables(chosen, *chosen.read(asked.to))
    print("\n".join(f"{name}:\n{text}" for name, text in told.items()))
