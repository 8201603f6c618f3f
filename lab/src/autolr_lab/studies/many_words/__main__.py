"""Does the guard save runs on text of many words, and what does it cost where there is nothing to save?

A grid of rates for each pair, and a run of each method beside it, all paid out of the same steps; tasks that were seen
and those kept apart are told of by themselves. ``python -m autolr_lab.studies.many_words --folder DIR`` runs what is
missing, and packs it among the zoo's results. Public texts are wanted: ``AUTOLR_DATA``.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from autolr.policies.base import Decision, ProbeResult
from autolr.policies.peak_search import PeakSearchState
from autolr_lab.benchmark.zoo_methods import METHODS, Method, MethodRow, run_method, searched
from autolr_lab.benchmark.zoo_report import method_rows, regrets, sweep_best, table
from autolr_lab.runner.results import RESULTS
from autolr_lab.studies.many_words.tasks import APART, SEEN
from autolr_lab.training.paid_search import PaidPeakSearch
from autolr_lab.zoo.grid import grid
from autolr_lab.zoo.registry import Pair
from autolr_lab.zoo.store import Row, Store, pack, unpack

OPTIMIZERS = ("adamw",)
GRID, RUNS = "many-words.csv.gz", "many-words-methods.jsonl.gz"
NAMES = {"seen": frozenset(task.name for task in SEEN), "apart": frozenset(task.name for task in APART)}


@dataclass(frozen=True, kw_only=True)
class Unaware(PaidPeakSearch):
    """The default policy without the comparison with a lower peak."""

    def decide(self, state: PeakSearchState, result: ProbeResult) -> tuple[PeakSearchState, Decision | None]:
        """Nothing is awaited of the run."""
        state, decision = super().decide(state, result)
        return dataclasses.replace(state, guard=dataclasses.replace(state.guard, awaited=0)), decision


COMPARED: Mapping[str, Method] = {
    "find-peak": METHODS["find-peak"],
    "unaware": searched(Unaware()),
    "knee": METHODS["knee"],
}


def run(pair: Pair, rows: Store, methods: Path) -> None:
    """The grid and the methods of a pair, seed 0: what is not there yet."""
    there = {row.key for row in method_rows(methods)} if methods.exists() else set()
    for steps in pair.task.horizons:
        for name, method in COMPARED.items():
            if (name, pair.task.name, pair.optimizer, 0, steps) not in there:
                with methods.open("a") as out:
                    out.write(json.dumps(asdict(run_method(name, pair, 0, steps, method))) + "\n")
    grid(rows, pair, 0)


def tables(rows: list[Row], methods: list[MethodRow]) -> dict[str, str]:
    """Markdown, of the tasks that were seen and of those kept apart, for each optimizer."""
    best = sweep_best(rows, train=False)
    told = {}
    for side, names in NAMES.items():
        for optimizer in OPTIMIZERS:
            here = [row for row in methods if row.task in names and row.optimizer == optimizer]
            told[f"many-words-{side}-{optimizer}"] = table(regrets(here, best, train=False)) + "\n"
    return told


def of_folder(folder: Path) -> dict[str, str]:
    """The tables of packed results."""
    return tables(unpack(folder / GRID), method_rows(folder / RUNS))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="autolr_lab.studies.many_words", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where the rows go; what is there is not run again")
    parser.add_argument("--tasks", nargs="+", default=[], help="all where none is named")
    parser.add_argument("--to", type=Path, default=RESULTS / "zoo", help="the folder of the packed tables")
    asked = parser.parse_args()
    known = {task.name: task for task in (*APART, *SEEN)}
    if unknown := set(asked.tasks) - set(known):
        parser.error(f"--tasks are of {', '.join(known)}; got {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows, methods = Store(asked.folder / "rows.jsonl"), asked.folder / "methods.jsonl"
    for optimizer in OPTIMIZERS:
        for name in asked.tasks or known:
            run(Pair(known[name], optimizer), rows, methods)
            print(f"{name}/{optimizer}", flush=True)
    pack(rows.rows.values(), asked.to / GRID)
    (asked.to / RUNS).write_bytes(gzip.compress(methods.read_bytes(), mtime=0))
    told = tables(list(rows.rows.values()), method_rows(methods))
    print("\n".join(f"{name}:\n{text}" for name, text in told.items()))


if __name__ == "__main__":
    main()
